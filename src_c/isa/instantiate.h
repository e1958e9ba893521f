/* instantiate.h: all leaf kernels of one instruction set, for both dtypes.
 *
 * An ISA file defines FC_ISA (its name) and FC_VECTOR_BYTES, includes its intrinsics and then this file. Everything here
 * is static except the table: a shared non-static inline is how AVX code leaks into the generic path.
 */
#include "../kernels/kernels.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#define FC_PASTE_(a, b) a##_##b
#define FC_PASTE(a, b) FC_PASTE_(a, b)
#define FC_STRING_(a) #a
#define FC_STRING(a) FC_STRING_(a)

#define T float
#define FC_F32 1
#define N(name) FC_PASTE(name, f32)
#include "kernels.inc"
#undef T
#undef FC_F32
#undef N

#define T double
#define FC_F32 0
#define N(name) FC_PASTE(name, f64)
#include "kernels.inc"

const fc_isa_kernels FC_PASTE(fc_kernels, FC_ISA) = {FC_STRING(FC_ISA), {&table_f32, &table_f64}};
