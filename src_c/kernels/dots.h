/* dots.h: sums over the input channels of a few outputs, whose lanes are the input channels (ops/conv_dots.c). */
#ifndef FC_KERNELS_DOTS_H
#define FC_KERNELS_DOTS_H
#include <stdint.h>

enum { FC_DOTS_MAX_CHANNELS = 5 };

/* A stretch of a row of outputs, dense:
 *     y[i][k] = finish(sum_{u < taps_h} sum_{v < taps_w} sum_{c < length}
 *                  x[i * pixel + u * step_h + v * step_w + c] * weight[k * weight_k + u * weight_u + v * weight_v + c])
 * for i < count and k < channels, at most FC_DOTS_MAX_CHANNELS and half of a vector. Vectors of the weight are read
 * whole: finite numbers follow a row. y has room for vector_lanes elements more, which may be overwritten. The order of
 * a sum does not depend on i or count.
 *
 * With `plane`, x and y are planes: y[k * count + i] = finish(sum_{c < length} x[c * plane + i] * weight[k * weight_k +
 * c]), without residual, the same sums in the same order; x has room for vector_lanes elements more. */
typedef struct {
    const void *x;
    int64_t pixel, taps_h, taps_w, step_h, step_w, length, plane;
    const void *weight;
    int64_t weight_k, weight_u, weight_v;
    int64_t channels;
    void *y;
    int finish; /* apply the epilogue: y = clamp(y * scale[k] + bias[k] + residual[i][k], lower, upper) */
    const void *scale, *bias; /* the channels over and over, vector_lanes elements; or NULL */
    const void *residual; /* dense as y, or NULL */
    double lower, upper;
} fc_dots;
#endif
