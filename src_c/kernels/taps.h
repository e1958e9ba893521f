/* taps.h: sums of taps, the second half of a convolution as one product per pixel (ops/conv_taps.c). */
#ifndef FC_KERNELS_TAPS_H
#define FC_KERNELS_TAPS_H
#include <stdint.h>

/* One row of outputs, dense:
 *     y[i * channels + c] =
 *         finish(sum_{r < row_count} sum_v row[r][(i - pad + v * dilation) * pixel + v * channels + c])
 * for i < count, over the taps v < taps with 0 <= i - pad + v * dilation < width. A vector is read where `channels`
 * elements are needed, and written: rows and y have vector_lanes elements more. */
typedef struct {
    const void *const *row;
    int64_t row_count, count, channels;
    int64_t taps, dilation, pad, width, pixel;
    void *y;
    int finish; /* apply the epilogue: y = clamp(y * scale[c] + bias[c] + residual[i][c], lower, upper) */
    const void *scale, *bias, *residual;
    int64_t residual_pixel;
    double lower, upper;
} fc_taps;
#endif
