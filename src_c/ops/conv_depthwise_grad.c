/* conv_depthwise_grad.c: the gradient of the weight with one input and one output channel per group, or few (see
 * conv_depthwise.c).
 *
 * The output rows of the batch are cut into slices that the shape fixes; each sums into its own buffer, and the buffers
 * are added in order. Within a slice blocks of ROWS rows, cut into columns where rows are long, are summed one after
 * the other, each tile by tile (see depthwise.tmpl.h): an order that the shape fixes too. Channels-last arrays are read
 * in place, others, and an x whose pixels share cache sets, through strips.
 */
#include "../scratch.h"
#include "../threads.h"
#include "conv_depthwise.h"

#include <string.h>

enum {
    CHANNEL_BLOCK = 64, /* 256 B of float32: whole cache lines whatever the vector */
    MAX_SLICES = 16,
    SLICE_PIXELS = 512,
    ROWS = 4, /* the sums of a tile are loaded and stored once per block: every 4 * 8 pixels */
    COLUMNS = 256, /* of a block of long rows: strips of 4 + 2 rows and 64 channels take 400 KB */
    TILE = 8, /* outputs, as in depthwise.tmpl.h */
};

typedef struct {
    const fc_problem *p;
    fc_depthwise_axis h, w;
    fc_phase phase_h, phase_w;
    int x_in_place, y_in_place;
    int64_t block_c, count_c, block_h, block_w;
    int64_t x_pixel, x_row, y_pixel, y_row; /* of the strips or the arrays */
    int64_t x_bytes, y_bytes, group_bytes, thread_bytes;
    int64_t slices, buffer_slice;
    int32_t spread[FC_MAX_LANES][FC_MAX_LANES];
    char *buffer, *threads; /* buffer[slice][channel / 16][u][order of (c, v)][channel % 16] */
} plan;

static void choose_channels(plan *s)
{
    const int64_t wanted = fc_parallel_tasks(), channels = s->p->groups * s->p->out_channels;
    s->block_c = fc_round_up(channels, FC_DEPTHWISE_ALIGN);
    if (!s->x_in_place || !s->y_in_place)
        s->block_c = fc_min(s->block_c, CHANNEL_BLOCK);
    while (s->block_c > CHANNEL_BLOCK && s->slices * fc_ceil_div(channels, s->block_c) < wanted)
        s->block_c = fc_round_up(fc_ceil_div(s->block_c, 2), FC_DEPTHWISE_ALIGN);
    s->count_c = fc_ceil_div(channels, s->block_c);
}

static void set_plan(plan *s, const fc_problem *p)
{
    const int64_t item = (int64_t)p->item, lines = p->y.n * p->y.h;
    *s = (plan){.p = p};
    s->h = fc_depthwise_forward_axis(&s->phase_h, p->y.h, p->kernel_h, p->stride_h, p->dilation_h, p->pad_top);
    s->w = fc_depthwise_forward_axis(&s->phase_w, p->y.w, p->kernel_w, p->stride_w, p->dilation_w, p->pad_left);
    s->block_h = fc_min(ROWS, p->y.h);
    const int64_t pixels = fc_depthwise_reach(&s->h, s->block_h) * fc_depthwise_reach(&s->w, TILE);
    s->x_in_place = p->x.stride_c == 1 && !fc_depthwise_aliases(&p->x, p->item, pixels);
    s->y_in_place = p->y.stride_c == 1;
    s->slices = fc_max(1, fc_min(fc_min(MAX_SLICES, lines), lines * p->y.w / SLICE_PIXELS));
    choose_channels(s);
    s->block_w = fc_ceil_div(p->y.w, fc_ceil_div(p->y.w, COLUMNS));
    s->x_pixel = s->x_in_place ? p->x.stride_w : fc_depthwise_inputs(p, s->block_c);
    s->x_row = s->x_in_place ? p->x.stride_h : fc_depthwise_reach(&s->w, s->block_w) * s->x_pixel;
    s->y_pixel = s->y_in_place ? p->y.stride_w : s->block_c;
    s->y_row = s->y_in_place ? p->y.stride_h : s->block_w * s->block_c;
    s->x_bytes = s->x_in_place ? 0 : fc_round_up(fc_depthwise_reach(&s->h, s->block_h) * s->x_row * item, 64);
    s->y_bytes = s->y_in_place ? 0 : fc_round_up(s->block_h * s->y_row * item, 64);
    s->group_bytes = fc_round_up(p->kernel_w * (int64_t)sizeof(fc_depthwise_group), 64);
    s->thread_bytes = s->group_bytes + s->x_bytes + s->y_bytes;
    s->buffer_slice = fc_packed_depthwise(p);
    if (fc_depthwise_is_spread(p))
        fc_depthwise_spread(p, s->spread);
}

typedef struct {
    int64_t n, h, rows, w, columns, c, channels;
} block;

static void load_strips(const plan *s, const block *b, char *strip, char *tile)
{
    const fc_problem *p = s->p;
    const fc_image x =
        fc_image_of(&p->x, p->item, b->n, fc_depthwise_inputs(p, b->c), fc_depthwise_inputs(p, b->channels));
    const fc_image y = fc_image_of(&p->y, p->item, b->n, b->c, b->channels);
    const fc_window x_window = {b->h * p->stride_h - p->pad_top,  fc_depthwise_reach(&s->h, b->rows),    1,
                                b->w * p->stride_w - p->pad_left, fc_depthwise_reach(&s->w, b->columns), 1};
    const fc_window y_window = {b->h, b->rows, 1, b->w, b->columns, 1};
    if (!s->x_in_place)
        fc_load_window(p->k, p->item, &x, &x_window, strip, &(fc_pitch){s->x_row, s->x_pixel, 1});
    if (!s->y_in_place)
        fc_load_window(p->k, p->item, &y, &y_window, tile, &(fc_pitch){s->y_row, s->y_pixel, 1});
}

/* Row h of the block's outputs. */
static fc_depthwise_at_row row_at(const plan *s, const block *b, int64_t h, const char *strip, const char *tile)
{
    const fc_problem *p = s->p;
    const int64_t item = (int64_t)p->item, top = (b->h + h) * p->stride_h - p->pad_top;
    const fc_range u = fc_valid_taps(top, p->dilation_h, p->kernel_h, p->x.h); /* as in conv_depthwise.c */
    fc_depthwise_at_row r = {strip + h * p->stride_h * s->x_row * item, tile + h * s->y_row * item, u.first, u.end};
    if (s->x_in_place)
        r.x = (const char *)p->x.data + (b->n * p->x.stride_n + fc_depthwise_inputs(p, b->c) + top * p->x.stride_h +
                                         (b->w * p->stride_w - p->pad_left) * p->x.stride_w) *
                                            item;
    if (s->y_in_place)
        r.y = (const char *)p->y.data +
              (b->n * p->y.stride_n + b->c + (b->h + h) * p->y.stride_h + b->w * p->y.stride_w) * item;
    return r;
}

static void add_products(const plan *s, const block *b, fc_depthwise_at *d, char *scratch)
{
    const fc_problem *p = s->p;
    char *strip = scratch + s->group_bytes, *tile = strip + s->x_bytes;
    fc_depthwise_group *groups = (fc_depthwise_group *)scratch;
    fc_depthwise_at_row rows[ROWS];
    load_strips(s, b, strip, tile);
    for (int64_t h = 0; h < b->rows; h++)
        rows[h] = row_at(s, b, h, strip, tile);
    const int64_t left = b->w * p->stride_w - p->pad_left;
    const fc_range x =
        s->x_in_place ? (fc_range){-left, p->x.w - left} : (fc_range){0, fc_depthwise_reach(&s->w, b->columns)};
    const fc_range inner = fc_depthwise_inner(&s->w, &s->phase_w, x);
    d->rows = rows, d->row_count = b->rows, d->count = b->columns;
    d->first_inner = inner.first, d->end_inner = inner.end;
    d->groups = groups;
    d->group_count =
        fc_depthwise_groups(&s->w, &s->phase_w, fc_depthwise_taps(p), s->x_pixel * (int64_t)p->item, x, groups, NULL);
    (fc_depthwise_is_spread(p) ? p->k->depthwise->spread_at : p->k->depthwise->at)(d);
}

static void run_slice(void *context, int64_t task, int slot)
{
    const plan *s = context;
    const fc_problem *p = s->p;
    const int64_t item = (int64_t)p->item, c = task % s->count_c * s->block_c, slice = task / s->count_c;
    const int64_t lines = p->y.n * p->y.h, begin = slice * lines / s->slices, end = (slice + 1) * lines / s->slices;
    const int64_t taps = p->in_channels * p->kernel_h * p->kernel_w;
    block b = {.c = c, .channels = fc_min(s->block_c, p->groups * p->out_channels - c)};
    fc_depthwise_at d = {
        .taps_h = p->kernel_h,
        .x_row = p->dilation_h * s->x_row * item,
        .x_step = p->stride_w * s->x_pixel * item,
        .y_pixel = s->y_pixel,
        .channels = b.channels,
        .c = s->buffer + (slice * s->buffer_slice + c * taps) * item,
        .c_block = taps * FC_DEPTHWISE_ALIGN,
        .spread = s->spread,
        .inputs = p->in_channels,
        .taps_w = p->kernel_w,
        .inputs_of_vector = fc_depthwise_inputs(p, p->k->vector_lanes),
    };
    memset(d.c, 0, (size_t)(fc_round_up(b.channels, FC_DEPTHWISE_ALIGN) * taps * item));
    for (int64_t line = begin; line < end; line += b.rows) {
        b.n = line / p->y.h, b.h = line % p->y.h;
        b.rows = fc_min(fc_min(s->block_h, p->y.h - b.h), end - line);
        for (b.w = 0; b.w < p->y.w; b.w += b.columns) {
            b.columns = fc_min(s->block_w, p->y.w - b.w);
            add_products(s, &b, &d, s->threads + slot * s->thread_bytes);
        }
    }
}

/* Adds the slices of 16 channels and stores their weights. */
#define ADD_SLICES(type)                                                                                               \
    for (int64_t i = 0; i < taps; i++, from += FC_DEPTHWISE_ALIGN * item) {                                            \
        type sum[FC_DEPTHWISE_ALIGN];                                                                                  \
        memcpy(sum, from, sizeof sum);                                                                                 \
        for (int64_t slice = 1; slice < s->slices; slice++)                                                            \
            for (int64_t c = 0; c < FC_DEPTHWISE_ALIGN; c++)                                                           \
                sum[c] += ((const type *)from)[slice * s->buffer_slice + c];                                           \
        const int64_t at = c0 / p->out_channels * p->weight_g + i / row * p->weight_u + order[i % row];                \
        for (int64_t c = 0; c < count; c++)                                                                            \
            ((type *)p->weight)[at + lane[c]] = sum[c];                                                                \
    }

typedef struct {
    const plan *s;
    const int64_t *order;
} finish_job;

static void finish(void *context, int64_t task, int slot)
{
    (void)slot;
    const plan *s = ((const finish_job *)context)->s;
    const int64_t *order = ((const finish_job *)context)->order;
    const fc_problem *p = s->p;
    const int64_t item = (int64_t)p->item, row = p->in_channels * p->kernel_w, taps = p->kernel_h * row;
    const int64_t c0 = task * FC_DEPTHWISE_ALIGN, count = fc_min(FC_DEPTHWISE_ALIGN, p->groups * p->out_channels - c0);
    const char *from = s->buffer + c0 * taps * item;
    int64_t lane[FC_DEPTHWISE_ALIGN];
    fc_depthwise_lanes(p, lane);
    if (item == 4) {
        ADD_SLICES(float)
    } else {
        ADD_SLICES(double)
    }
}

fc_status fc_conv_depthwise_grad_weight(const fc_problem *p)
{
    plan s;
    set_plan(&s, p);
    const int64_t tasks = s.slices * s.count_c, buffer = fc_round_up(s.slices * s.buffer_slice * (int64_t)p->item, 64);
    const int64_t order = fc_round_up(p->in_channels * p->kernel_w * (int64_t)sizeof(int64_t), 64);
    const int slots = fc_parallel_slots(tasks);
    char *scratch = fc_scratch_acquire_parts(order + buffer, slots, s.thread_bytes);
    if (!scratch)
        return FC_ENOMEM;
    s.buffer = scratch + order;
    s.threads = s.buffer + buffer;
    fc_depthwise_order(p, &s.w, (int64_t *)scratch, (fc_depthwise_group *)s.threads);
    fc_parallel_in(slots, tasks, run_slice, &s);
    finish_job job = {&s, (int64_t *)scratch};
    const int64_t blocks = fc_ceil_div(p->groups * p->out_channels, FC_DEPTHWISE_ALIGN);
    fc_parallel_in(fc_depthwise_slots(s.slices * s.buffer_slice, blocks), blocks, finish, &job);
    fc_scratch_release(scratch);
    return FC_OK;
}

fc_status fc_conv_depthwise_grad_weight_by_pairs(const fc_problem *p)
{
    fc_status status = FC_OK;
    for (int64_t c = 0; c < p->in_channels; c++)
        for (int64_t k = 0; k < p->out_channels && status == FC_OK; k++) {
            const fc_problem q = fc_depthwise_pair(p, c, k);
            status = fc_conv_depthwise_grad_weight(&q);
        }
    return status;
}
