/* generic.c: the compiler's baseline: SSE2 on x86-64, NEON on aarch64. */
#if defined(__aarch64__)
#include <arm_neon.h>
#endif
#define FC_ISA generic
#define FC_VECTOR_BYTES 16
#include "instantiate.h"
