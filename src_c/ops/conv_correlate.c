/* conv_correlate.c: the gradient of the weight of few input and few output channels, where lanes of channels and taps
 * would be empty.
 *
 * Lanes are neighbouring outputs of a row: for each pair of channels and each tap a row of grad_y meets a shifted row
 * of x (kernels/correlate.h). Both are copied into planes, some rows at a time. All output rows of the batch, or pieces
 * of long ones, are cut into slices, whose number depends on the shape only; each sums lanes apart, and slices, then
 * lanes, are added in order.
 */
#include "../scratch.h"
#include "../threads.h"
#include "conv.h"

#include <math.h>
#include <string.h>

enum {
    MAX_SLICES = 16,
    SLICE_PIXELS = 4096, /* of a slice: its sums, 16 lanes of each, are cleared, written and read once */
    PIECE = 1024, /* columns of a long row */
    BLOCK_BYTES = 16 << 10, /* rows of x and grad_y: half of a first-level cache of 32 KiB */
    SUM_BYTES = 128 << 10, /* at most, of a slice: they are read and written once per block */
};

typedef struct {
    const fc_problem *p;
    int64_t taps, lanes, pieces, lines, slices; /* lines: pieces of output rows */
    int64_t block_h, block_w;
    int64_t x_row, x_plane, y_row, y_plane; /* of the copies */
    int64_t x_bytes, thread_bytes, sum_bytes;
    char *sums, *threads; /* sums[slice][k][c][u][v][lane] */
} plan;

static int64_t sum_bytes(const fc_problem *p)
{
    const int64_t taps = p->kernel_h * p->kernel_w;
    return p->out_channels * p->in_channels * taps * p->k->vector_lanes * (int64_t)p->item;
}

static int serves(const fc_problem *p)
{
    return p->k->correlate && p->groups == 1 && p->stride_w == 1 && p->kernel_h * p->kernel_w > 1 &&
           sum_bytes(p) <= SUM_BYTES;
}

/* Of a pixel whose channels are turned into planes, 2, 3, 4 and 6 of them by fewer shuffles (transpose.tmpl.h). */
static double turning(int64_t channels)
{
    enum { BLOCK = 7 }; /* 112 of 16 pixels: loads, shuffles and stores of a block of 16 x 16 */
    return channels == 1 ? 0 : channels <= 6 && channels != 5 ? 0.5 * (double)channels : BLOCK;
}

/* In vector multiplications. For a tap some outputs at a time, 3 or 2, multiply a vector of x that straddles cache
 * lines, two loads, and theirs are loaded for 5 taps at once. Measured (Zen 4): 1.25 times as long. */
double fc_correlate_grad_weight_cost(const fc_problem *p)
{
    enum { LINE = 64, LOADS = 2 };
    const double slower = 1.25, load = 1.0 / 3;
    if (!serves(p))
        return INFINITY;
    const int64_t in = p->in_channels, out = p->out_channels, taps = p->kernel_h * p->kernel_w;
    const int64_t tile = p->k->vector_lanes * (int64_t)p->item == LINE ? 3 : 2;
    const double vector = (double)(LOADS * fc_ceil_div(out, tile)) + load * (double)out;
    return (double)p->y.h * (slower * (double)(fc_ceil_div(p->y.w, p->k->vector_lanes) * taps * in) * vector +
                             (double)p->y.w * (turning(in) + turning(out)));
}

static plan make_plan(const fc_problem *p)
{
    const int64_t item = (int64_t)p->item, lanes = p->k->vector_lanes, down = (p->kernel_h - 1) * p->dilation_h;
    plan s = {.p = p, .taps = p->kernel_h * p->kernel_w, .lanes = lanes, .sum_bytes = sum_bytes(p)};
    s.block_w = fc_min(p->y.w, fc_round_up(fc_ceil_div(p->y.w, fc_ceil_div(p->y.w, PIECE)), lanes));
    s.pieces = fc_ceil_div(p->y.w, s.block_w);
    s.lines = p->y.n * p->y.h * s.pieces;
    s.slices = fc_max(1, fc_min(fc_min(MAX_SLICES, s.lines), p->y.n * p->y.h * p->y.w / SLICE_PIXELS));
    s.x_row = fc_extent(s.block_w, p->kernel_w, 1, p->dilation_w), s.y_row = s.block_w;
    /* and so many that rows of x are not copied much more than twice */
    const int64_t fit = BLOCK_BYTES / (item * (p->in_channels * s.x_row * p->stride_h + p->out_channels * s.y_row));
    s.block_h = s.pieces > 1 ? 1 : fc_min(p->y.h, fc_max(fc_max(1, fit), fc_ceil_div(down, p->stride_h)));
    s.x_plane = fc_extent(s.block_h, p->kernel_h, p->stride_h, p->dilation_h) * s.x_row;
    s.y_plane = s.block_h * s.y_row;
    s.x_bytes = fc_round_up(p->in_channels * s.x_plane * item, 64);
    s.thread_bytes = s.x_bytes + fc_round_up(p->out_channels * s.y_plane * item, 64);
    return s;
}

/* Rows [h, h + rows) of image n, columns [w, w + columns). */
static void add_block(const plan *s, int64_t n, int64_t h, int64_t rows, int64_t w, int64_t columns, char *x, char *sum)
{
    const fc_problem *p = s->p;
    const int64_t item = (int64_t)p->item;
    char *y = x + s->x_bytes;
    const fc_image from_x = fc_image_of(&p->x, p->item, n, 0, p->in_channels),
                   from_y = fc_image_of(&p->y, p->item, n, 0, p->out_channels);
    const fc_window x_window = {h * p->stride_h - p->pad_top,
                                fc_extent(rows, p->kernel_h, p->stride_h, p->dilation_h),
                                1,
                                w - p->pad_left,
                                fc_extent(columns, p->kernel_w, 1, p->dilation_w),
                                1},
                    y_window = {h, rows, 1, w, columns, 1};
    fc_load_window(p->k, p->item, &from_x, &x_window, x, &(fc_pitch){s->x_row, 1, s->x_plane});
    fc_load_window(p->k, p->item, &from_y, &y_window, y, &(fc_pitch){s->y_row, 1, s->y_plane});
    fc_correlate call = {.y = y,
                         .x_line = p->stride_h * s->x_row,
                         .x_tap = p->dilation_w,
                         .y_line = s->y_row,
                         .y_plane = s->y_plane,
                         .lines = rows,
                         .columns = columns,
                         .taps = p->kernel_w,
                         .outputs = p->out_channels,
                         .sum_output = p->in_channels * s->taps * s->lanes};
    for (int64_t c = 0; c < p->in_channels; c++)
        for (int64_t u = 0; u < p->kernel_h; u++) {
            call.x = x + (c * s->x_plane + u * p->dilation_h * s->x_row) * item;
            call.sum = sum + (c * p->kernel_h + u) * p->kernel_w * s->lanes * item;
            p->k->correlate(&call);
        }
}

static void run_slice(void *context, int64_t slice, int slot)
{
    const plan *s = context;
    const fc_problem *p = s->p;
    const int64_t end = (slice + 1) * s->lines / s->slices;
    char *sum = s->sums + slice * s->sum_bytes;
    memset(sum, 0, (size_t)s->sum_bytes);
    for (int64_t line = slice * s->lines / s->slices, rows; line < end; line += rows) {
        const int64_t row = line / s->pieces, h = row % p->y.h, w = line % s->pieces * s->block_w;
        rows = fc_min(fc_min(s->block_h, p->y.h - h), end - line);
        add_block(s, row / p->y.h, h, rows, w, fc_min(s->block_w, p->y.w - w), s->threads + slot * s->thread_bytes,
                  sum);
    }
}

/* The taps of a pair of channels. Floats, as the kernel is of no other type. */
static void add_slices(void *context, int64_t pair, int slot)
{
    (void)slot;
    const plan *s = context;
    const fc_problem *p = s->p;
    float *to = (float *)p->weight + pair / p->in_channels * p->weight_k + pair % p->in_channels * p->weight_c;
    for (int64_t tap = 0; tap < s->taps; tap++) {
        float sum[FC_MAX_LANES] = {0}, all = 0;
        const char *from = s->sums + (pair * s->taps + tap) * s->lanes * (int64_t)p->item;
        for (int64_t i = 0; i < s->slices; i++, from += s->sum_bytes)
            for (int64_t lane = 0; lane < s->lanes; lane++)
                sum[lane] += ((const float *)from)[lane];
        for (int64_t lane = 0; lane < s->lanes; lane++)
            all += sum[lane];
        to[tap / p->kernel_w * p->weight_u + tap % p->kernel_w * p->weight_v] = all;
    }
}

fc_status fc_conv_correlate_grad_weight(const fc_problem *p)
{
    plan s = make_plan(p);
    const int slots = fc_parallel_slots(s.slices);
    const int64_t sums = fc_round_up(s.slices * s.sum_bytes, 64);
    s.sums = fc_scratch_acquire_parts(sums, slots, s.thread_bytes);
    if (!s.sums)
        return FC_ENOMEM;
    s.threads = s.sums + sums;
    fc_parallel_in(slots, s.slices, run_slice, &s);
    fc_parallel(p->out_channels * p->in_channels, add_slices, &s);
    fc_scratch_release(s.sums);
    return FC_OK;
}
