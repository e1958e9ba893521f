/* pool.h: table of the pooling kernels.
 *
 * All of them work on images with contiguous channels: element (h, w, c) of x is x[(h - top) * x_row + (w - left) *
 * x_col + c]. Which input positions a window holds is a property of each axis alone, so windows come as one span per
 * output row and one per output column. */
#ifndef FC_KERNELS_POOL_H
#define FC_KERNELS_POOL_H
#include <stdint.h>

/* Output i of an axis sees the inputs begin, begin + step, ... (count of them, count >= 1). */
typedef struct {
    int64_t begin, count;
    int64_t tap;  /* number of the first of them within the window: > 0 where the window starts in the padding */
    int64_t area; /* what this axis contributes to the divisor of an average */
} fc_span;

/* y[i][j][c] = max (or mean) of the window (rows[i], cols[j]), for i < n_rows, j < n_cols, c < channels */
typedef struct {
    const void *x;
    int64_t x_row, x_col, top, left;
    const fc_span *rows, *cols;
    int64_t n_rows, n_cols, channels;
    int64_t step_h, step_w; /* distance of two taps: the dilation */
    void *y;
    int64_t y_row, y_col;
    /* max: where the winner was. As int64_t its position h * width + w, as uint8_t its tap u * kernel_w + v. */
    void *index;
    int64_t index_row, index_col;
    int64_t width, kernel_w;
    double divisor; /* average: divisor_override, or 0 for the product of the areas */
    int stream;     /* y and positions bypass the caches; all their pixels are aligned to 64 bytes */
    /* One channel whose columns are neighbours in all arrays: lanes may be neighbouring outputs of a row for the
     * columns [lane_begin, lane_end), whose whole windows are lane_step apart: 1, or with step_w 1 for 2 or 3 columns
     * 2, or for 4 columns, without an index, 4; 0: no columns. Of 3 columns 2 apart the first may be padding. */
    int64_t lane_begin, lane_end, lane_step;
    /* Average: 0, or channels are this far apart, their columns and outputs neighbours, and n_rows and n_cols 1. */
    int64_t x_plane;
} fc_pool_task;

/* Input position h receives from `count` windows that start at `first` (average), or from the entries
 * [first, first + count) of a list of (window, tap) pairs (maximum), in ascending order of the window. */
typedef struct {
    int64_t first, count;
} fc_cover;
typedef struct {
    int64_t window, tap;
} fc_pair;

/* The windows that hold position k * stride + phase of an axis: k + first ... k + first + count - 1 */
typedef struct {
    int64_t first, count;
} fc_pool_phase;

/* grad_x[h][w][c] = sum of grad_y over the windows that the position was the maximum of, or of grad_y / divisor over
 * those that hold it, in ascending order of the windows. grad_y and code: [(i - first_i) * row + (j - first_j) * col +
 * c], for the windows_i x windows_j windows that meet the n_rows x n_cols positions from (top, left) on. */
typedef struct {
    const void *grad_y;
    int64_t grad_y_row, grad_y_col, first_i, first_j, windows_i, windows_j;
    const uint8_t *code; /* taps, as fc_pool_task writes them */
    int64_t code_row, code_col, kernel_w;
    const fc_cover *rows, *cols; /* of the n_rows x n_cols positions to compute */
    const fc_pair *row_pairs, *col_pairs; /* maximum */
    const fc_span *row_windows, *col_windows; /* all windows of the axis */
    int64_t step_h, step_w;
    double divisor; /* average */
    int64_t top, left, n_rows, n_cols, channels;
    void *grad_x;
    int64_t grad_x_row, grad_x_col;
    int stream; /* grad_x bypasses the caches: pixels are aligned to 64 bytes; with lane_step rows follow each other */
    int apart, gaps; /* no position lies in two windows; some perhaps in none */
    /* Average, one channel whose columns are neighbours in both arrays: lanes may be neighbouring groups of lane_step
     * positions of a row for the groups k, lane_begin <= k < lane_end, of positions left + k * lane_step ..., whose
     * windows all exist and have one area; lane_step is 1 or 2, or 0: no groups. phases[lane_step]. */
    int64_t lane_begin, lane_end, lane_step;
    const fc_pool_phase *phases;
    /* Average: NULL, or of at most a vector of channels, all there are, whose columns are neighbours in both arrays:
     * scratch that begins with an fc_pool_flat. */
    void *flat;
} fc_pool_grad_task;

/* The columns [left, left + columns) are those whose lanes the scratch holds, 0 before the first call. There follow 3
 * vectors for each one of a row, as many elements as there are windows and a row of them more, and two vectors, and a
 * row of windows and two vectors. */
typedef struct {
    int64_t left, columns;
    int64_t most; /* windows of a column */
    int64_t unused[5];
} fc_pool_flat;

/* Planes addressed by position: plane[p * plane_step + c], p < plane_size; index and value [i][j][c] with their
 * strides. */
typedef struct {
    void *plane;
    int64_t plane_step, plane_size;
    const int64_t *index;
    int64_t index_row, index_col, index_channel;
    void *value;
    int64_t value_row, value_col, value_channel;
    int64_t n_rows, n_cols, channels;
    int64_t plane_channel;
    /* 0, or (i, j) is thought to have a position of the rows [i * window_h, (i + 1) * window_h) and columns of its own
     * alike, which are in the plane, plane_w wide; plane_size * channels <= 1 << 24, which a float counts up to */
    int64_t window_h, window_w, plane_w;
    int stream; /* such windows: the plane bypasses the caches; its pixels, or a channel's rows, are whole lines */
    void *place; /* FC_POOL_PLACE_BYTES, of which the first FC_POOL_PLACE_BEGIN are 0 before the first of several tasks
                  * that differ in their addresses only */
} fc_pool_index_task;

/* Lanes of a row of positions that are looked up together, and a table of them: for whom it was made, padded to a line,
 * then for each lane two numbers and an address of 4 bytes. */
enum {
    FC_POOL_PLACE_LANES = 512,
    FC_POOL_PLACE_BEGIN = 64,
    FC_POOL_PLACE_BYTES = FC_POOL_PLACE_BEGIN + 3 * 4 * FC_POOL_PLACE_LANES,
};

typedef struct {
    int has_fours; /* whether max and mean know a lane_step of 4 */
    void (*max)(const fc_pool_task *);
    void (*max_code)(const fc_pool_task *); /* with uint8_t taps; windows of at most 256 taps */
    void (*max_index)(const fc_pool_task *); /* with int64_t positions */
    void (*mean)(const fc_pool_task *);
    void (*max_grad)(const fc_pool_grad_task *);
    void (*mean_grad)(const fc_pool_grad_task *);
    int has_flat; /* whether mean_grad knows fc_pool_grad_task.flat */
    /* These three return 0, or 1 when an index lies outside its plane (nothing is accessed there). */
    int (*scatter_add)(const fc_pool_index_task *); /* plane = 0, then plane[index] += value */
    int (*scatter_set)(const fc_pool_index_task *); /* plane = 0, then plane[index] = value, the last one stays */
    int (*gather)(const fc_pool_index_task *); /* value = plane[index] */
} fc_pool_kernels;
#endif
