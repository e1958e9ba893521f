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

typedef struct {
    int64_t n, h, rows, w, columns, c, channels;
} block;

static void load_strip(const plan *s, const block *b, char *to)
{
    const fc_problem *p = s->p;
    const fc_image x = fc_image_of(&p->x, p->item, b->n, b->c, b->channels);
    const fc_window window = {
        b->h * p->stride_h - p->pad_top,  fc_extent(b->rows, p->kernel_h, p->stride_h, p->dilation_h),    1,
        b->w * p->stride_w - p->pad_left, fc_extent(b->columns, p->kernel_w, p->stride_w, p->dilation_w), 1};
    fc_load_window(p->k, p->item, &x, &window, to, &(fc_pitch){s->x_row, s->x_pixel, 1});
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
