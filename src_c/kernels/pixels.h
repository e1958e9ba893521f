/* pixels.h: convolution with few output channels, or of planes; lanes are neighbouring outputs of a row. */
#ifndef FC_KERNELS_PIXELS_H
#define FC_KERNELS_PIXELS_H
#include <stdint.h>

enum { FC_PIXELS_MAX_CHANNELS = 8, FC_PIXELS_MAX_RUNS = 8, FC_PIXELS_TAPS = 4 };

/* y[r][k][lane] = sum_{c,u,v} weights[c][u][v][k] * x[r][c * plane + u * row + tap[v] + lane] for `runs` runs of
 * vector_lanes outputs: x[r] and y[r] are where run r starts; channel k of y is k * y_channel further. */
typedef struct {
    const void *x[FC_PIXELS_MAX_RUNS];
    void *y[FC_PIXELS_MAX_RUNS];
    int64_t y_channel, y_row;
    int64_t in_channels, kernel_h, kernel_w;
    int64_t plane, row;
    const int64_t *tap; /* [kernel_w] */
    const void *weights;
} fc_pixels;

enum { FC_PLANES_RUNS = 2, FC_PLANES_MAX = 8 }; /* FC_PLANES_MAX: of planes_channels */

/* y[r][k * y_channel + lane] = clamp(bias[k] + sum_i weights[i][k] * x[r][offset[i] + lane], lower, upper) for
 * FC_PLANES_RUNS runs and planes_channels outputs k. */
typedef struct {
    const void *x[FC_PLANES_RUNS];
    void *y[FC_PLANES_RUNS];
    int64_t y_channel, steps;
    const int64_t *offset; /* [steps] */
    const void *weights, *bias;
    int bounded; /* lower and upper count */
    double lower, upper;
} fc_planes;

/* Of each number of channels a kernel of max_runs and one of half as many; only the former where max_runs is 1. */
typedef struct {
    int max_runs[FC_PIXELS_MAX_CHANNELS + 1];
    void (*tile[FC_PIXELS_MAX_CHANNELS + 1][2])(const fc_pixels *); /* [channels][all of them] */
    /* The same for runs one below the other: x[r] = x[0] + r * row, y[r] = y[0] + r * y_row. 0 where there is none. */
    int max_below[FC_PIXELS_MAX_CHANNELS + 1];
    void (*column[FC_PIXELS_MAX_CHANNELS + 1][2])(const fc_pixels *);
    /* y[i] = clamp(y[i] * scale + bias, lower, upper) of whole vectors */
    void (*finish)(int64_t count, double scale, double bias, double lower, double upper, void *y);
    int planes_channels;
    void (*planes)(const fc_planes *);
} fc_pixels_kernels;
#endif
