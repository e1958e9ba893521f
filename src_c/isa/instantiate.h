/* instantiate.h: all leaf kernels of one instruction set and one dtype, and their table.
 *
 * An ISA file defines FC_ISA (its name) and FC_VECTOR_BYTES, includes its intrinsics and then this file. It is compiled
 * twice: setup.py defines FC_DOUBLE as 0 and as 1. Everything here is static except the table: a shared non-static
 * inline is how AVX code leaks into the generic path.
 */
#include "../kernels/kernels.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#define FC_PASTE_(a, b) a##_##b
#define FC_PASTE(a, b) FC_PASTE_(a, b)

#if FC_DOUBLE
#define T double
#define FC_F32 0
#define FC_SUFFIX f64
#else
#define T float
#define FC_F32 1
#define FC_SUFFIX f32
#endif
#define N(name) FC_PASTE(name, FC_SUFFIX)

#include "vec.h"

#include "../kernels/transpose.tmpl.h"
#include "../kernels/finite.tmpl.h"
#include "../kernels/gemm.tmpl.h"
#include "../kernels/linear.tmpl.h"
#include "../kernels/correlate.tmpl.h"
#include "../kernels/depthwise.tmpl.h"
#include "../kernels/dots.tmpl.h"
#include "../kernels/pixels.tmpl.h"
#include "../kernels/taps.tmpl.h"
#include "../kernels/pool.tmpl.h"
#include "../kernels/pooled.tmpl.h"
#include "../kernels/norm.tmpl.h"
#include "../kernels/elementwise.tmpl.h"
#include "../kernels/optimize.tmpl.h"
#include "../kernels/winograd.tmpl.h"

const fc_kernels FC_PASTE(FC_PASTE(fc_kernels, FC_ISA), FC_SUFFIX) = {
    .vector_lanes = VL,
    .transpose = N(transpose),
    .transpose_stream = N(transpose_stream),
    .copy_rows = N(copy_rows),
    .split_taps = N(split_taps),
    .pack_runs = N(pack_runs),
    .unpack_runs = N(unpack_runs),
    .finite = N(finite),
    .fence = vfence,
    .gemm = &N(gemm_table),
    .linear = &N(linear_table),
    .depthwise = &N(depthwise_table),
    .pixels = &N(pixels_table),
    .winograd = &N(winograd_square),
    .winograd_line = &N(winograd_line),
    .winograd_small = &N(winograd_small_square),
    .winograd_small_line = &N(winograd_small_line),
    .pool = &N(pool_table),
    .pooled = &N(pooled_table),
    .norm = &N(norm_table),
    .elementwise = &N(elementwise_table),
    .optimize = &N(optimize_table),
    .taps = N(taps_row),
    .dots = N(dots_row),
    .correlate = FC_CORRELATE,
};
