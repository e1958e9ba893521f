/* depthwise.h: one input channel per output channel; lanes are channels. */
#ifndef FC_KERNELS_DEPTHWISE_H
#define FC_KERNELS_DEPTHWISE_H
#include <stdint.h>

enum {
    FC_DEPTHWISE_TAPS = 4, /* of a group, at most */
    FC_DEPTHWISE_ALIGN = 16, /* channels of packed weights come in multiples of the longest vector, the last ones zero */
};

/* Neighbouring taps: tap j of output i reads column `column + (i + j) * step` and the weight at `weight + j * weight_tap`. */
typedef struct {
    int64_t column, weight, taps;
} fc_depthwise_group;

/* An output row: x and weights at the first of its `taps` rows of taps. */
typedef struct {
    const void *x, *weights, *residual;
    void *y;
    int64_t taps;
} fc_depthwise_row;

/* For each row, i < count and c < channels
 *     y[i * y_pixel + c] = clamp(scale[c] * sum + bias[c] + residual[i * residual_pixel + c], lower, upper)
 *     sum = sum over u < taps, groups g, j < g.taps of weights[u * weight_row + g.weight + j * weight_tap + c]
 *                                                    * x[u * x_row + (g.column + (i + j) * step) * x_pixel + c]
 * in this order; x is zero outside the columns [first_column, end_column), and not read there. */
typedef struct {
    const fc_depthwise_row *rows;
    const fc_depthwise_group *groups;
    int64_t row_count, group_count;
    int64_t x_row, x_pixel, step, first_column, end_column;
    int64_t least_column, most_column; /* that output 0 sees */
    int64_t weight_row, weight_tap;
    int64_t y_pixel, residual_pixel;
    int64_t count, channels, channel_block; /* the block's columns under a few outputs stay in the first-level cache */
    int stream; /* y bypasses the caches; it is aligned to 64 bytes, and so are its pixels */
    const void *scale, *bias;
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
    void (*rows)(const fc_depthwise *);
    void (*at)(const fc_depthwise_at *);
} fc_depthwise_kernels;
#endif
