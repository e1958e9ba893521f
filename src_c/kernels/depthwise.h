/* depthwise.h: one input channel per output channel; lanes are channels. */
#ifndef FC_KERNELS_DEPTHWISE_H
#define FC_KERNELS_DEPTHWISE_H
#include <stdint.h>

enum {
    FC_DEPTHWISE_TAPS = 7, /* of a group, at most, and none of 6: 3 + 3 and 7 + the rest are as fast */
    FC_SPREAD_TAPS = 3, /* the same where inputs are spread */
    FC_DEPTHWISE_ALIGN = 16, /* channels of a block of packed weights, a multiple of every vector */
};

/* Neighbouring taps: tap j of output i reads x at `x` bytes + (i + j) * x_step. Of the columns k = i + j those from
 * `inside` on exist, `columns` of them; the others are zero and not read. */
typedef struct {
    int64_t x, taps;
    int64_t inside, columns;
} fc_depthwise_group;

/* An output row: x and weights at the first of its `taps` rows of taps. */
typedef struct {
    const void *x, *weights, *residual;
    void *y;
    int64_t taps;
} fc_depthwise_row;

/* For each row, i < count and c < channels
 *     y[i * y_pixel + c] = clamp(scale[c] * sum + bias[c] + residual[i * residual_pixel + c], lower, upper)
 *     sum = sum over u < taps, groups, their taps j of
 *               weight[c / 16][u][tap][c % 16] * x[.. as above .. + u * x_row bytes][c]
 * in this order. The weights of the groups follow each other; pitches weight_block (of 16 channels) and weight_row,
 * elements. x is 0 outside, see above; outputs [first_inner, end_inner) do not look there.
 *
 * spread_rows: groups of `inputs` input channels and several output channels, a power of two of them that is less than
 * a vector. For each i < inputs output c of the vector that starts at c0 reads x[c0 / vector_lanes * inputs_of_vector +
 * spread[i][c - c0]] in place of x[c]. The weights are in the order u, i, groups, taps, the sum too but for pairs of i.
 * Groups have up to FC_SPREAD_TAPS taps. */
typedef struct {
    const fc_depthwise_row *rows;
    const fc_depthwise_group *groups;
    int64_t row_count, group_count;
    int64_t x_row, x_step; /* bytes */
    int64_t weight_block, weight_row;
    int64_t first_inner, end_inner;
    int64_t y_pixel, residual_pixel;
    int64_t count, channels, channel_block; /* the block's columns under a few outputs stay in the first-level cache */
    int maps; /* 0: the epilogue changes nothing and is left out */
    const void *scale, *bias;
    double lower, upper;
    const int32_t (*spread)[16]; /* [inputs][lane] */
    int64_t inputs, inputs_of_vector, taps_w; /* taps_w: of all groups */
} fc_depthwise;

/* A row of outputs; x at row of taps 0, which may lie outside: only the rows of taps [first, end) count. */
typedef struct {
    const void *x, *y;
    int64_t first, end;
} fc_depthwise_at_row;

/* The gradient of the weight: c[channel / 16][u][tap][channel % 16] += sum over the rows, i < count of
 *     y[i * y_pixel + channel] * x[.. of tap, output i and u as above ..][channel]
 * c is dense but for the pitch c_block and padded to 16 channels. */
typedef struct {
    const fc_depthwise_at_row *rows;
    const fc_depthwise_group *groups;
    int64_t row_count, group_count, taps_h;
    int64_t x_row, x_step; /* bytes */
    int64_t first_inner, end_inner;
    int64_t y_pixel;
    int64_t count, channels;
    void *c;
    int64_t c_block;
    const int32_t (*spread)[16]; /* spread_at: as above; c is in the order u, input, groups, taps */
    int64_t inputs, inputs_of_vector, taps_w; /* taps_w: of all groups */
} fc_depthwise_at;

typedef struct {
    void (*rows)(const fc_depthwise *);
    void (*at)(const fc_depthwise_at *);
    /* Outputs of a row that alternate between d[0], of one tap, and d[1], of two, the first of which sees the column of
     * that one: what `rows` does for d[0] and d[1], which have the rows, x_row, weight_row and channels of d[0], one
     * group each, and of which d[0] has as many outputs as d[1] or one more. No maps. Or NULL */
    void (*alternating)(const fc_depthwise *d);
    /* Several channels per group, or NULL */
    void (*spread_rows)(const fc_depthwise *);
    void (*spread_at)(const fc_depthwise_at *);
} fc_depthwise_kernels;
#endif
