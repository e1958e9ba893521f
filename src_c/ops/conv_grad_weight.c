/* conv_grad_weight.c: the gradient of the weight by matrix products whose reduction runs over output pixels.
 *
 *     grad_weight[k][c][u][v] = sum_{n,i,j} grad_y[n][i][j][k] * x[n][i * stride_h + ..u][j * stride_w + ..v][c]
 *
 * All output lines of the batch (rows, or pieces of long rows) are cut into `slices`, a number that depends on the shape only. A task
 * owns one slice and one part of the weight, sums into its own piece of a buffer[slice][group][u][v][c][k], and the
 * slices are added in order at the end: no two threads share an output and the bits do not depend on their number.
 * Within a slice, blocks of output rows small enough for the caches are loaded as strips (see conv_direct.c).
 */
#include "../scratch.h"
#include "../threads.h"
#include "conv.h"

#include <string.h>

enum {
    MAX_SLICES = 16,
    SLICE_BUFFER_BYTES = 8 << 20, /* all slices together */
    SLICE_PIXELS = 256,           /* below this, loading and adding the buffers costs more than the sum */
    /* The columns of grad_y under a tile, BLOCK_PIXELS x 2 vectors of 64 B, stay in 32 KiB of L1. */
    BLOCK_PIXELS = 256,
    ADD_ELEMENTS = 8192, /* of the buffer, per task of the final sum */
    TASKS_PER_THREAD = 4,
};

typedef struct {
    const fc_problem *p;
    int64_t lanes, slices, lines;     /* lines = batch * out_h * pieces */
    int64_t pieces, block_w;          /* pieces of one output row and the outputs in a piece */
    int64_t block_h;                  /* output rows per block; 1 when rows are cut */
    int64_t row_parts, column_parts;  /* pieces of the taps (u, or u and v) and of the panels of k */
    int64_t row_units, panels;
    int x_in_place, y_in_place, merged;
    int64_t x_pixel, x_row, x_step_h, x_step_w, y_pixel, y_row; /* pitches of the strips, elements */
    int64_t x_bytes, thread_bytes;
    int64_t buffer_group, buffer_slice; /* elements */
    char *buffer, *threads;
} plan;

static int64_t extent(int64_t outputs, int64_t kernel, int64_t stride, int64_t dilation)
{
    return kernel == 1 ? outputs : (outputs - 1) * stride + (kernel - 1) * dilation + 1;
}

static int inside(const fc_problem *p)
{
    return p->pad_top <= 0 && p->pad_left <= 0 && -p->pad_top < p->x.h && -p->pad_left < p->x.w &&
           (p->y.h - 1) * p->stride_h + (p->kernel_h - 1) * p->dilation_h - p->pad_top < p->x.h &&
           (p->y.w - 1) * p->stride_w + (p->kernel_w - 1) * p->dilation_w - p->pad_left < p->x.w;
}

static plan make_plan(const fc_problem *p)
{
    const int64_t item = (int64_t)p->item, taps = p->kernel_h * p->kernel_w;
    plan s = {.p = p, .lanes = p->k->vector_lanes, .pieces = 1, .block_w = p->y.w};
    if (p->y.w > 2 * BLOCK_PIXELS) {
        s.pieces = fc_ceil_div(p->y.w, BLOCK_PIXELS);
        s.block_w = fc_ceil_div(p->y.w, s.pieces);
        s.pieces = fc_ceil_div(p->y.w, s.block_w);
    }
    s.lines = p->y.n * p->y.h * s.pieces;
    s.buffer_group = taps * p->in_channels * p->out_channels;
    s.buffer_slice = fc_round_up(s.buffer_group * p->groups, 16);
    s.slices = fc_min(MAX_SLICES, SLICE_BUFFER_BYTES / fc_max(1, s.buffer_slice * item));
    s.slices = fc_min(s.slices, s.lines * s.block_w / SLICE_PIXELS);
    s.slices = fc_max(1, fc_min(s.slices, s.lines));

    s.x_in_place = p->x.stride_c == 1 && inside(p);
    s.y_in_place = p->y.stride_c == 1;
    s.block_h = s.pieces > 1 ? 1 : fc_min(p->y.h, fc_ceil_div(BLOCK_PIXELS, p->y.w));
    const int64_t columns = extent(s.block_w, p->kernel_w, p->stride_w, p->dilation_w);
    s.x_pixel = s.x_in_place ? p->x.stride_w : p->in_channels;
    s.x_row = s.x_in_place ? p->x.stride_h : columns * s.x_pixel;
    s.x_step_h = s.x_in_place || p->kernel_h > 1 ? p->stride_h : 1;
    s.x_step_w = s.x_in_place || p->kernel_w > 1 ? p->stride_w : 1;
    s.y_pixel = s.y_in_place ? p->y.stride_w : p->out_channels;
    s.y_row = s.y_in_place ? p->y.stride_h : s.block_w * s.y_pixel;
    s.merged = p->dilation_w == 1 && s.x_pixel == p->in_channels;

    s.x_bytes = s.x_in_place ? 0 : fc_round_up(extent(s.block_h, p->kernel_h, p->stride_h, p->dilation_h) * s.x_row * item, 64);
    s.thread_bytes = s.x_bytes + (s.y_in_place ? 0 : fc_round_up(s.block_h * s.y_row * item, 64));

    const int threads = fc_parallel_slots(INT64_MAX);
    const int64_t wanted = threads == 1 ? 1 : (int64_t)threads * TASKS_PER_THREAD;
    s.panels = fc_ceil_div(p->out_channels, 2 * s.lanes);
    s.row_units = s.merged ? p->kernel_h : taps;
    s.column_parts = fc_max(1, fc_min(s.panels, fc_ceil_div(wanted, s.slices * p->groups)));
    s.row_parts = fc_max(1, fc_min(s.row_units, fc_ceil_div(wanted, s.slices * p->groups * s.column_parts)));
    return s;
}

typedef struct {
    int64_t slice, group, row_part, column_part;
} task_id;

/* Output rows [h, h + rows) and columns [w, w + columns) of image n. */
typedef struct {
    int64_t n, h, w, rows, columns;
} block;

/* Adds one block to the task's part of the weight. */
static void add_block(const plan *s, const task_id *t, const block *b, char *scratch, int accumulate)
{
    const fc_problem *p = s->p;
    const int64_t item = (int64_t)p->item, n = b->n;
    const int64_t top = b->h * p->stride_h - p->pad_top, left = b->w * p->stride_w - p->pad_left;
    const int64_t x_channel = t->group * p->in_channels, y_channel = t->group * p->out_channels;
    const char *x = (char *)p->x.data + (n * p->x.stride_n + x_channel + top * p->x.stride_h + left * p->x.stride_w) * item;
    const char *y = (char *)p->y.data + (n * p->y.stride_n + y_channel + b->h * p->y.stride_h + b->w * p->y.stride_w) * item;
    if (!s->x_in_place) {
        const fc_image image = fc_image_of(&p->x, p->item, n, x_channel, p->in_channels);
        const fc_window window = {top, extent(b->rows, p->kernel_h, p->stride_h, p->dilation_h), p->kernel_h == 1 ? p->stride_h : 1,
                                  left, extent(b->columns, p->kernel_w, p->stride_w, p->dilation_w), p->kernel_w == 1 ? p->stride_w : 1};
        fc_load_window(p->k, p->item, &image, &window, scratch, s->x_pixel, s->x_row);
        x = scratch;
    }
    if (!s->y_in_place) {
        const fc_image image = fc_image_of(&p->y, p->item, n, y_channel, p->out_channels);
        const fc_window window = {b->h, b->rows, 1, b->w, b->columns, 1};
        fc_load_window(p->k, p->item, &image, &window, scratch + s->x_bytes, s->y_pixel, s->y_row);
        y = scratch + s->x_bytes;
    }
    const int64_t k0 = t->column_part * s->panels / s->column_parts * 2 * s->lanes;
    const int64_t k1 = fc_min(p->out_channels, (t->column_part + 1) * s->panels / s->column_parts * 2 * s->lanes);
    const int64_t first = t->row_part * s->row_units / s->row_parts, last = (t->row_part + 1) * s->row_units / s->row_parts;
    char *buffer = s->buffer + (t->slice * s->buffer_slice + t->group * s->buffer_group + k0) * item;
    fc_gemm_at product = {
        .a_line = s->x_step_h * s->x_row,
        .a_step = s->x_step_w * s->x_pixel,
        .b = y + k0 * item,
        .b_line = s->y_row,
        .b_step = s->y_pixel,
        .lines = b->rows,
        .depth = b->columns,
        .c_row = p->out_channels,
        .rows = s->merged ? p->kernel_w * p->in_channels : p->in_channels,
        .columns = k1 - k0,
        .accumulate = accumulate,
    };
    for (int64_t unit = first; unit < last; unit++) {
        const int64_t u = s->merged ? unit : unit / p->kernel_w, v = s->merged ? 0 : unit % p->kernel_w;
        product.a = x + (u * p->dilation_h * s->x_row + v * p->dilation_w * s->x_pixel) * item;
        product.c = buffer + unit * product.rows * p->out_channels * item;
        p->k->gemm->at(&product);
    }
}

static void run_slice(void *context, int64_t task, int slot)
{
    const plan *s = context;
    const fc_problem *p = s->p;
    task_id t;
    t.row_part = task % s->row_parts, task /= s->row_parts;
    t.column_part = task % s->column_parts, task /= s->column_parts;
    t.group = task % p->groups;
    t.slice = task / p->groups;
    const int64_t begin = t.slice * s->lines / s->slices, end = (t.slice + 1) * s->lines / s->slices;
    for (int64_t line = begin; line < end;) {
        const int64_t piece = line % s->pieces, row = line / s->pieces;
        block b = {row / p->y.h, row % p->y.h, piece * s->block_w, 1, 0};
        b.columns = fc_min(s->block_w, p->y.w - b.w);
        if (s->pieces == 1)
            b.rows = fc_min(fc_min(s->block_h, p->y.h - b.h), end - line);
        add_block(s, &t, &b, s->threads + slot * s->thread_bytes, line > begin);
        line += b.rows;
    }
}

/* ---- buffer[slice][group][u][v][c][k] -> grad_weight[k][c][u][v] ---------------------------------------------------*/
#define ADD_SLICES(type)                                                                                               \
    for (int64_t i = 1; i < s->slices; i++) {                                                                          \
        type *restrict sum = (type *)s->buffer;                                                                        \
        const type *restrict part = (const type *)s->buffer + i * s->buffer_slice;                                     \
        for (int64_t e = begin; e < end; e++)                                                                          \
            sum[e] += part[e];                                                                                         \
    }

static void add_slices(void *context, int64_t task, int slot)
{
    (void)slot;
    const plan *s = context;
    const int64_t begin = task * ADD_ELEMENTS, end = fc_min(begin + ADD_ELEMENTS, s->buffer_slice);
    if (s->p->item == 4) {
        ADD_SLICES(float)
    } else {
        ADD_SLICES(double)
    }
}

#define UNPACK(type)                                                                                                   \
    for (int64_t c = 0; c < p->in_channels; c++)                                                                       \
        for (int64_t u = 0; u < p->kernel_h; u++)                                                                      \
            for (int64_t v = 0; v < p->kernel_w; v++)                                                                  \
                for (int64_t k = 0; k < columns; k++)                                                                  \
                    ((type *)to)[k * p->weight_k + c * p->weight_c + u * p->weight_u + v * p->weight_v] =              \
                        ((const type *)from)[((u * p->kernel_w + v) * p->in_channels + c) * p->out_channels + k];

static void unpack_panel(void *context, int64_t task, int slot)
{
    (void)slot;
    const plan *s = context;
    const fc_problem *p = s->p;
    const int64_t item = (int64_t)p->item, group = task / s->panels, k0 = task % s->panels * 2 * s->lanes;
    const int64_t columns = fc_min(2 * s->lanes, p->out_channels - k0), taps = p->kernel_h * p->kernel_w;
    const char *from = s->buffer + (group * s->buffer_group + k0) * item;
    char *to = (char *)p->weight + (group * p->weight_g + k0 * p->weight_k) * item;
    if (p->weight_c == taps && (p->kernel_w == 1 || p->weight_v == 1) && (p->kernel_h == 1 || p->weight_u == p->kernel_w))
        p->k->unpack_runs(columns, p->in_channels, taps, from, p->out_channels, p->in_channels * p->out_channels, to, p->weight_k);
    else if (p->item == 4) {
        UNPACK(float)
    } else {
        UNPACK(double)
    }
}

fc_status fc_conv_direct_grad_weight(const fc_problem *p)
{
    plan s = make_plan(p);
    const int64_t tasks = s.slices * p->groups * s.column_parts * s.row_parts;
    const int64_t buffer = fc_round_up(s.slices * s.buffer_slice * (int64_t)p->item, 64);
    const int slots = fc_parallel_slots(tasks);
    s.buffer = fc_scratch_acquire((size_t)(buffer + slots * s.thread_bytes));
    if (!s.buffer)
        return FC_ENOMEM;
    s.threads = s.buffer + buffer;
    fc_parallel_in(slots, tasks, run_slice, &s);
    if (s.slices > 1)
        fc_parallel(fc_ceil_div(s.buffer_slice, ADD_ELEMENTS), add_slices, &s);
    fc_parallel(p->groups * s.panels, unpack_panel, &s);
    fc_scratch_release(s.buffer);
    return FC_OK;
}
