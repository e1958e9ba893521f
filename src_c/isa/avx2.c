/* avx2.c: x86-64-v3 (AVX2, FMA); setup.py gives this file its -march. */
#include <immintrin.h>
#define FC_ISA avx2
#define FC_VECTOR_BYTES 32
#include "instantiate.h"
