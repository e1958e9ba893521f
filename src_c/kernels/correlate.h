/* correlate.h: rows against shifted rows, for the gradient of a weight of few input and few output channels. */
#ifndef FC_KERNELS_CORRELATE_H
#define FC_KERNELS_CORRELATE_H
#include <stdint.h>

/* For k < outputs and v < taps, lanes apart (lane = j % vector_lanes):
 *     sum[k * sum_output + v * vector_lanes + lane] +=
 *         sum_{l < lines} sum_{j < columns} y[k * y_plane + l * y_line + j] * x[l * x_line + v * x_tap + j] */
typedef struct {
    const void *x, *y;
    int64_t x_line, x_tap, y_line, y_plane;
    int64_t lines, columns, taps, outputs;
    void *sum;
    int64_t sum_output;
} fc_correlate;
#endif
