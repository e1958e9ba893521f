/* depthwise.h: one input channel per output channel; lanes are channels. */
#ifndef FC_KERNELS_DEPTHWISE_H
#define FC_KERNELS_DEPTHWISE_H
#include <stdint.h>

/* One output row, or a run of it:
 *     y[i][c] = clamp(scale[c] * sum_{u < rows, v < taps_w} weights[u][v][c] * x[u * x_row + i * step + v * tap + c]
 *                     + bias[c] + residual[i * residual_pixel + c], lower, upper)
 * for i < count and c < channels. */
typedef struct {
    const void *x;
    int64_t x_row, step, tap;
    const void *weights;
    int64_t weight_row, weight_tap;
    int64_t rows, taps_w;
    void *y;
    int64_t y_pixel;
    int64_t count, channels;
    const void *scale, *bias, *residual;
    int64_t residual_pixel;
    double lower, upper;
} fc_depthwise;

/* c[u][v][channel] += sum_{i < count} y[i][channel] * x[u * x_row + i * step + v * tap + channel] */
typedef struct {
    const void *x, *y;
    int64_t rows, taps_w;
    int64_t x_row, step, tap, y_pixel;
    int64_t count, channels;
    void *c;
    int64_t c_row, c_tap;
} fc_depthwise_at;

typedef struct {
    void (*row)(const fc_depthwise *);
    void (*at)(const fc_depthwise_at *);
} fc_depthwise_kernels;
#endif
