/* avx512.c: x86-64-v4 (AVX-512 F, BW, CD, DQ, VL); setup.py gives this file its -march. */
#include <immintrin.h>
#define FC_ISA avx512
#define FC_VECTOR_BYTES 64
#include "instantiate.h"
