/* conv_depthwise.c: one input and one output channel per group; lanes are channels.
 *
 * Channels-last x is read in place: rows in the padding are left out of the kernel's row list and the outputs whose window
 * leaves the row on the left or right run one by one with fewer taps. Any other layout is loaded into zero-padded
 * channels-last strips, a block of channels at a time.
 */
#include "../scratch.h"
#include "../threads.h"
#include "conv.h"

#include <string.h>

enum {
    STRIP_BYTES = 256 << 10, /* strip and output tile of a task: a quarter of a 1 MiB second-level cache */
    CHANNEL_BLOCK = 64,      /* 256 B of float32: whole cache lines whatever the vector */
    MAX_SLICES = 16,
    SLICE_PIXELS = 512,
    TASKS_PER_THREAD = 4,
};

typedef struct {
    const fc_problem *p;
    int x_in_place, y_in_place;
    int64_t channels, block_c, count_c, block_h, count_h, block_w, count_w;
    int64_t columns, x_pixel, x_row, y_row; /* of the strip and the tile */
    int64_t x_bytes, y_bytes, thread_bytes;
    const char *weights; /* weights[u][v][channel] */
    char *threads;
    int64_t slices, buffer_slice;
    char *buffer;
} plan;

/* in_place_x: whether the caller can work on x itself. */
static plan make_plan(const fc_problem *p, int in_place_x)
{
    const int64_t item = (int64_t)p->item;
    plan s = {.p = p, .channels = p->groups};
    s.x_in_place = in_place_x && p->x.stride_c == 1;
    s.y_in_place = p->y.stride_c == 1;
    s.block_c = s.x_in_place && s.y_in_place ? s.channels : fc_min(s.channels, CHANNEL_BLOCK);
    /* long rows are cut, so that the rows under one output row fit four times the budget (or twice their own border) */
    const int64_t halo = (p->kernel_h - 1) * p->dilation_h + 1;
    const int64_t room =
        fc_max(4 * STRIP_BYTES / (s.block_c * item * halo), 2 * p->kernel_w * p->dilation_w) / p->stride_w;
    s.count_w = s.x_in_place && s.y_in_place ? 1 : fc_ceil_div(p->y.w, fc_max(1, room));
    s.block_w = fc_ceil_div(p->y.w, s.count_w);
    s.count_w = fc_ceil_div(p->y.w, s.block_w);
    s.columns = fc_extent(s.block_w, p->kernel_w, p->stride_w, p->dilation_w);
    const int64_t step = p->y.h > 1 ? p->stride_h : 1; /* a single row may come with any stride */
    const int64_t row = fc_max(step * s.columns, s.block_w) * s.block_c * item;
    s.block_h = fc_max(1, fc_min(p->y.h, STRIP_BYTES / fc_max(1, row)));
    const int64_t wanted = (int64_t)fc_parallel_slots(INT64_MAX) * TASKS_PER_THREAD;
    s.count_c = fc_ceil_div(s.channels, s.block_c);
    while (s.block_h > 2 && p->y.n * s.count_c * s.count_w * fc_ceil_div(p->y.h, s.block_h) < wanted)
        s.block_h = fc_ceil_div(s.block_h, 2);
    s.count_h = fc_ceil_div(p->y.h, s.block_h);
    s.x_pixel = s.x_in_place ? p->x.stride_w : s.block_c;
    s.x_row = s.x_in_place ? p->x.stride_h : s.columns * s.block_c;
    s.y_row = s.block_w * s.block_c;
    if (!s.x_in_place)
        s.x_bytes = fc_round_up(fc_extent(s.block_h, p->kernel_h, p->stride_h, p->dilation_h) * s.x_row * item, 64);
    if (!s.y_in_place)
        s.y_bytes = fc_round_up(s.block_h * s.y_row * item, 64);
    s.thread_bytes = s.x_bytes + s.y_bytes;
    return s;
}

int64_t fc_packed_depthwise(const fc_problem *p) { return p->kernel_h * p->kernel_w * p->groups; }

fc_status fc_pack_depthwise(const fc_problem *p, char *to)
{
    const int64_t item = (int64_t)p->item;
    for (int64_t u = 0; u < p->kernel_h; u++)
        for (int64_t v = 0; v < p->kernel_w; v++)
            for (int64_t c = 0; c < p->groups; c++)
                memcpy(to + ((u * p->kernel_w + v) * p->groups + c) * item,
                       p->weight + (c * p->weight_g + u * p->weight_u + v * p->weight_v) * item, p->item);
    return FC_OK;
}

typedef struct {
    int64_t n, h, rows, w, columns, c, channels;
} block;

static block decode(const plan *s, int64_t task)
{
    block b;
    b.c = task % s->count_c * s->block_c, task /= s->count_c;
    b.w = task % s->count_w * s->block_w, task /= s->count_w;
    b.h = task % s->count_h * s->block_h, b.n = task / s->count_h;
    b.channels = fc_min(s->block_c, s->channels - b.c);
    b.rows = fc_min(s->block_h, s->p->y.h - b.h);
    b.columns = fc_min(s->block_w, s->p->y.w - b.w);
    return b;
}

static void load_strip(const plan *s, const block *b, char *to)
{
    const fc_problem *p = s->p;
    const fc_image x = fc_image_of(&p->x, p->item, b->n, b->c, b->channels);
    const fc_window window = {
        b->h * p->stride_h - p->pad_top,  fc_extent(b->rows, p->kernel_h, p->stride_h, p->dilation_h),    1,
        b->w * p->stride_w - p->pad_left, fc_extent(b->columns, p->kernel_w, p->stride_w, p->dilation_w), 1};
    fc_load_window(p->k, p->item, &x, &window, to, &(fc_pitch){s->x_row, s->x_pixel, 1});
}

/* Outputs [first, first + count) of a row. x and weights point at output 0 and tap (u, 0), u the first row of d. */
static void run_columns(const plan *s, fc_depthwise d, const char *x, const char *weights, char *y, int64_t first,
                        int64_t count, fc_range v)
{
    const int64_t item = (int64_t)s->p->item;
    d.x = x + (first * d.step + v.first * d.tap) * item;
    d.weights = weights + v.first * d.weight_tap * item;
    d.taps_w = v.end - v.first;
    d.y = y + first * d.y_pixel * item;
    d.residual = fc_at(d.residual, first * d.residual_pixel, s->p->item);
    d.count = count;
    s->p->k->depthwise->row(&d);
}

/* Outputs whose window lies inside the row, of the block's columns; all of them in a strip, which is padded. */
static fc_range inner_columns(const plan *s, const block *b)
{
    const fc_problem *p = s->p;
    fc_range r = {0, b->columns};
    if (s->x_in_place) {
        const int64_t left = p->pad_left - b->w * p->stride_w;
        const int64_t room = p->x.w - 1 + left - (p->kernel_w - 1) * p->dilation_w;
        r.first = fc_min(b->columns, left > 0 ? fc_ceil_div(left, p->stride_w) : 0);
        r.end = fc_max(r.first, fc_min(b->columns, room < 0 ? 0 : room / p->stride_w + 1));
    }
    return r;
}

/* A row of the block's outputs, x at the first tap of its first output. Those at the ends run one by one. */
static void run_row(const plan *s, const block *b, const fc_depthwise *d, const char *x, const char *weights, char *y)
{
    const fc_problem *p = s->p;
    const fc_range all = {0, p->kernel_w}, inner = inner_columns(s, b);
    for (int64_t j = 0; j < b->columns; j++) {
        if (j == inner.first && inner.end > inner.first) {
            run_columns(s, *d, x, weights, y, inner.first, inner.end - inner.first, all);
            j = inner.end - 1;
            continue;
        }
        const int64_t start = (b->w + j) * p->stride_w - p->pad_left;
        run_columns(s, *d, x, weights, y, j, 1, fc_valid_taps(start, p->dilation_w, p->kernel_w, p->x.w));
    }
}

static void run_block(void *context, int64_t task, int slot)
{
    const plan *s = context;
    const fc_problem *p = s->p;
    const int64_t item = (int64_t)p->item;
    const block b = decode(s, task);
    char *strip = s->threads + slot * s->thread_bytes, *tile = strip + s->x_bytes;
    if (!s->x_in_place)
        load_strip(s, &b, strip);
    fc_depthwise d = {
        .x_row = p->dilation_h * s->x_row,
        .step = p->stride_w * s->x_pixel,
        .tap = p->dilation_w * s->x_pixel,
        .weight_row = p->kernel_w * s->channels,
        .weight_tap = s->channels,
        .y_pixel = s->y_in_place ? p->y.stride_w : s->block_c,
        .channels = b.channels,
        .scale = fc_at(p->epilogue.scale, b.c, item),
        .bias = fc_at(p->epilogue.bias, b.c, item),
        .lower = p->epilogue.lower,
        .upper = p->epilogue.upper,
        .residual_pixel = p->residual.stride_w,
    };
    for (int64_t h = 0; h < b.rows; h++) {
        d.residual = fc_residual_at(p, b.n, b.c, b.h + h, b.w);
        const int64_t top = (b.h + h) * p->stride_h - p->pad_top;
        fc_range u = {0, p->kernel_h};
        const char *x = strip + h * p->stride_h * s->x_row * item;
        if (s->x_in_place) {
            u = fc_valid_taps(top, p->dilation_h, p->kernel_h, p->x.h);
            x = (const char *)p->x.data + (b.n * p->x.stride_n + b.c + (top + u.first * p->dilation_h) * p->x.stride_h +
                                           (b.w * p->stride_w - p->pad_left) * p->x.stride_w) *
                                              item;
        }
        d.rows = u.end - u.first;
        char *y = s->y_in_place
                      ? (char *)p->y.data +
                            (b.n * p->y.stride_n + b.c + (b.h + h) * p->y.stride_h + b.w * p->y.stride_w) * item
                      : tile + h * s->y_row * item;
        run_row(s, &b, &d, x, s->weights + (b.c + u.first * d.weight_row) * item, y);
    }
    if (!s->y_in_place) {
        const fc_image y = fc_image_of(&p->y, p->item, b.n, b.c, b.channels);
        const fc_window window = {b.h, b.rows, 1, b.w, b.columns, 1};
        fc_store_window(p->k, p->item, &y, &window, tile, &(fc_pitch){s->y_row, s->block_c, 1});
    }
}

int64_t fc_conv_depthwise_scratch(const fc_problem *p)
{
    const plan s = make_plan(p, 1);
    return s.thread_bytes + fc_packed_depthwise(p) * (int64_t)p->item;
}

fc_status fc_conv_depthwise(const fc_problem *p)
{
    plan s = make_plan(p, 1);
    const int64_t tasks = p->y.n * s.count_h * s.count_w * s.count_c;
    const int64_t weights = p->packed ? 0 : fc_round_up(fc_packed_depthwise(p) * (int64_t)p->item, 64);
    const int slots = fc_parallel_slots(tasks);
    char *scratch = fc_scratch_acquire_parts(weights, slots, s.thread_bytes);
    if (!scratch)
        return FC_ENOMEM;
    s.threads = scratch + weights;
    s.weights = p->packed ? p->packed : scratch;
    if (!p->packed)
        fc_pack_depthwise(p, scratch);
    fc_parallel_in(slots, tasks, run_block, &s);
    fc_scratch_release(scratch);
    return FC_OK;
}

/* ---- gradient of the weight ----------------------------------------------------------------------------------------
 * Output rows of the batch in slices fixed by the shape; each slice sums into its own buffer[slice][u][v][channel]. */
static void add_products(const plan *s, block *b, fc_depthwise_at *d, char *strip, char *tile)
{
    const fc_problem *p = s->p;
    const int64_t item = (int64_t)p->item;
    b->columns = d->count = fc_min(s->block_w, p->y.w - b->w);
    load_strip(s, b, strip);
    if (!s->y_in_place) {
        const fc_image y = fc_image_of(&p->y, p->item, b->n, b->c, b->channels);
        const fc_window window = {b->h, b->rows, 1, b->w, b->columns, 1};
        fc_load_window(p->k, p->item, &y, &window, tile, &(fc_pitch){s->y_row, s->block_c, 1});
    }
    for (int64_t h = 0; h < b->rows; h++) {
        const int64_t y = b->n * p->y.stride_n + b->c + (b->h + h) * p->y.stride_h + b->w * p->y.stride_w;
        d->x = strip + h * p->stride_h * s->x_row * item;
        d->y = s->y_in_place ? (char *)p->y.data + y * item : tile + h * s->y_row * item;
        p->k->depthwise->at(d);
    }
}

static void run_slice(void *context, int64_t task, int slot)
{
    const plan *s = context;
    const fc_problem *p = s->p;
    const int64_t item = (int64_t)p->item, c = task % s->count_c * s->block_c, slice = task / s->count_c;
    const int64_t lines = p->y.n * p->y.h, begin = slice * lines / s->slices, end = (slice + 1) * lines / s->slices;
    block b = {.c = c, .channels = fc_min(s->block_c, s->channels - c)};
    char *strip = s->threads + slot * s->thread_bytes, *tile = strip + s->x_bytes;
    fc_depthwise_at d = {
        .rows = p->kernel_h,
        .taps_w = p->kernel_w,
        .x_row = p->dilation_h * s->x_row,
        .step = p->stride_w * s->x_pixel,
        .tap = p->dilation_w * s->x_pixel,
        .channels = b.channels,
        .c = s->buffer + (slice * s->buffer_slice + c) * item,
        .c_row = p->kernel_w * s->channels,
        .c_tap = s->channels,
        .y_pixel = s->y_in_place ? p->y.stride_w : s->block_c,
    };
    for (int64_t i = 0; i < p->kernel_h * p->kernel_w; i++)
        memset((char *)d.c + i * s->channels * item, 0, (size_t)(b.channels * item));
    for (int64_t line = begin; line < end; line += b.rows) {
        b.n = line / p->y.h, b.h = line % p->y.h;
        b.rows = fc_min(fc_min(s->block_h, p->y.h - b.h), end - line);
        for (b.w = 0; b.w < p->y.w; b.w += s->block_w)
            add_products(s, &b, &d, strip, tile);
    }
}

#define ADD_SLICES(type)                                                                                               \
    for (int64_t c = 0; c < s->channels; c++) {                                                                        \
        const type *b = (const type *)s->buffer + (u * p->kernel_w + v) * s->channels + c;                             \
        type sum = b[0];                                                                                               \
        for (int64_t i = 1; i < s->slices; i++)                                                                        \
            sum += b[i * s->buffer_slice];                                                                             \
        ((type *)p->weight)[c * p->weight_g + u * p->weight_u + v * p->weight_v] = sum;                                \
    }

static void finish(const plan *s)
{
    const fc_problem *p = s->p;
    for (int64_t u = 0; u < p->kernel_h; u++)
        for (int64_t v = 0; v < p->kernel_w; v++) {
            if (p->item == 4) {
                ADD_SLICES(float)
            } else {
                ADD_SLICES(double)
            }
        }
}

fc_status fc_conv_depthwise_grad_weight(const fc_problem *p)
{
    plan s = make_plan(p, 0);
    const int64_t lines = p->y.n * p->y.h;
    s.slices = fc_max(1, fc_min(fc_min(MAX_SLICES, lines), lines * p->y.w / SLICE_PIXELS));
    s.buffer_slice = fc_round_up(p->kernel_h * p->kernel_w * s.channels, 16);
    const int64_t tasks = s.slices * s.count_c, buffer = fc_round_up(s.slices * s.buffer_slice * (int64_t)p->item, 64);
    const int slots = fc_parallel_slots(tasks);
    s.buffer = fc_scratch_acquire_parts(buffer, slots, s.thread_bytes);
    if (!s.buffer)
        return FC_ENOMEM;
    s.threads = s.buffer + buffer;
    fc_parallel_in(slots, tasks, run_slice, &s);
    finish(&s);
    fc_scratch_release(s.buffer);
    return FC_OK;
}
