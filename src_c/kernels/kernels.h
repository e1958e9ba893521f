/* kernels.h: the table of leaf kernels that every instruction set and dtype fills.
 *
 * Leaf kernels take `void *` to T arrays (T is float or double: the table's dtype) and restore the type on their first
 * line. They get their memory from the driver, keep no state and know nothing of threads. Sizes and strides are in
 * elements.
 */
#ifndef FC_KERNELS_H
#define FC_KERNELS_H
#include "../fastconv.h"

#include "correlate.h"
#include "depthwise.h"
#include "dots.h"
#include "elementwise.h"
#include "gemm.h"
#include "linear.h"
#include "norm.h"
#include "optimize.h"
#include "pixels.h"
#include "pool.h"
#include "pooled.h"
#include "taps.h"
#include "winograd.h"

enum { FC_MAX_LANES = 16 }; /* of any instruction set and dtype */

typedef struct {
    int vector_lanes; /* T per vector */
    /* to[column][row] = from[row][column]; either side may have any row pitch */
    void (*transpose)(int64_t rows, int64_t columns, const void *from, int64_t from_pitch, void *to, int64_t to_pitch);
    /* the same past the caches, for a large array: to_pitch is a multiple of 64 bytes */
    void (*transpose_stream)(int64_t rows, int64_t columns, const void *from, int64_t from_pitch, void *to,
                             int64_t to_pitch);
    /* to[row][column] = from[row][column]: rows too short for a call of memcpy each */
    void (*copy_rows)(int64_t rows, int64_t columns, const void *from, int64_t from_pitch, void *to, int64_t to_pitch);
    /* to[tap * tap_pitch + i] = from[i * taps + tap] for i < count */
    void (*split_taps)(int64_t count, int64_t taps, const void *from, void *to, int64_t tap_pitch);
    /* panel[tap][c][k] = from[k][c][tap]: `columns` runs of `channels * taps` elements, `pitch` apart, into rows of
     * `width` */
    void (*pack_runs)(int64_t columns, int64_t channels, int64_t taps, const void *from, int64_t pitch, void *panel,
                      int64_t width);
    /* to[k][c][tap] = panel[tap * tap_pitch + c * width + k] */
    void (*unpack_runs)(int64_t columns, int64_t channels, int64_t taps, const void *panel, int64_t width,
                        int64_t tap_pitch, void *to, int64_t pitch);
    /* whether none of x[count] is NaN or infinite */
    int (*finite)(int64_t count, const void *x);
    /* after the last store past the caches, before another thread reads */
    void (*fence)(void);
    const fc_gemm_kernels *gemm;
    const fc_linear_kernels *linear;
    const fc_depthwise_kernels *depthwise;
    const fc_pixels_kernels *pixels;
    const fc_winograd_kernels *winograd, *winograd_line, *winograd_small, *winograd_small_line; /* small: 2 taps */
    const fc_pool_kernels *pool;
    const fc_pooled_kernels *pooled;
    const fc_norm_kernels *norm;
    const fc_elementwise_kernels *elementwise;
    const fc_optimize_kernels *optimize;
    void (*taps)(const fc_taps *); /* a row of sums of taps */
    void (*dots)(const fc_dots *, int64_t count);
    void (*correlate)(const fc_correlate *); /* or NULL */
} fc_kernels;

/* One table of each file of isa/ and each dtype */
extern const fc_kernels fc_kernels_avx512_f32, fc_kernels_avx512_f64, fc_kernels_avx2_f32, fc_kernels_avx2_f64,
    fc_kernels_generic_f32, fc_kernels_generic_f64;

/* The table of the selected instruction set. A driver reads it once per call. */
const fc_kernels *fc_get_kernels(fc_dtype);
#endif
