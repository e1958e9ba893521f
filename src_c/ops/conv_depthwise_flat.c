/* conv_depthwise_flat.c: depthwise convolution of few channels, whose vectors would be mostly empty.
 *
 * A row of pixels is one run of memory, and with stride 1 a tap is a shift of the whole run: lanes are neighbouring
 * elements of it, pixels by channels. The depthwise kernel serves that with the image on its side: its channels are the
 * elements of a row, neighbouring outputs are rows, whose taps share what they load, and a row of taps is a column of
 * the weight. Weights repeat every C elements, so their vectors do after C * 16 at most: a row is cut into pieces of
 * that length. x is copied into zero-padded strips, whatever its layout.
 */
#include "../scratch.h"
#include "../threads.h"
#include "conv_depthwise.h"

#include <string.h>

enum {
    STRIP_BYTES = 128 << 10, /* of a task: with its output it stays in a 256 KiB second-level cache */
    L1_BYTES = 36 << 10, /* x and weights under a tile: three quarters of 48 KiB */
    TILE = 8, /* rows */
    ROWS = 16, /* of a task */
    MOST_CHANNELS = 64,
};

typedef struct {
    const fc_problem *p;
    fc_phase f;
    fc_depthwise_axis h;
    int64_t channels, period; /* elements after which vectors of weights repeat */
    int64_t block_h, count_h, block_w, count_w, strip_row, tile_row;
    int64_t strip_bytes, tile_bytes, residual_bytes, group_bytes, thread_bytes;
    int64_t shared_bytes,
        map_bytes; /* shared: the order of taps, scale and bias of a period, the weights unless they are packed */
    int y_in_place;
    char *shared, *threads;
    const char *weights; /* weights[element / 16][v][order of u][element % 16] */
} plan;

typedef struct {
    int64_t n, h, rows, w, columns;
} block;

int fc_conv_depthwise_flat_serves(const fc_problem *p)
{
    const int64_t lanes = p->k->vector_lanes, c = p->groups;
    if (p->stride_w != 1 || p->dilation_h != 1 || c > MOST_CHANNELS || p->kernel_h * p->kernel_w == 1)
        return 0;
    /* Tiles of the last channels, fewer than a vector, are of 8 columns whatever the width. */
    const int64_t last = c % lanes ? fc_round_up(p->y.w, TILE) : 0, by_pixels = p->y.h * (c / lanes * p->y.w + last);
    return fc_round_up(p->y.h, TILE) * fc_ceil_div(p->y.w * c, lanes) * 3 < by_pixels * 2;
}

static int64_t period_of(int64_t channels)
{
    int64_t period = channels;
    while (period % FC_DEPTHWISE_ALIGN)
        period *= 2;
    return period;
}

static int is_dense(const fc_view *v) { return v->stride_c == 1 && v->stride_w == v->c; }

static __attribute__((noinline)) plan make_plan(const fc_problem *p)
{
    const int64_t item = (int64_t)p->item, c = p->groups, wanted = fc_parallel_tasks();
    plan s = {.p = p, .channels = c, .period = period_of(c), .y_in_place = is_dense(&p->y)};
    const int64_t border = (p->kernel_w - 1) * p->dilation_w;
    s.block_h = fc_min(p->y.h, ROWS);
    const int64_t columns = STRIP_BYTES / (fc_extent(s.block_h, p->kernel_h, p->stride_h, 1) * c * item) - border;
    s.count_w = fc_ceil_div(p->y.w, fc_max(columns, fc_max(border, TILE)));
    s.block_w = fc_ceil_div(p->y.w, s.count_w);
    if (p->y.n * s.count_w * fc_ceil_div(p->y.h, s.block_h) < wanted)
        s.block_h = fc_min(p->y.h, TILE);
    s.count_h = fc_ceil_div(p->y.h, s.block_h);
    s.strip_row = (s.block_w + border) * c;
    s.tile_row = s.block_w * c;
    s.strip_bytes = fc_round_up(fc_extent(s.block_h, p->kernel_h, p->stride_h, 1) * s.strip_row * item, 64);
    s.tile_bytes = s.y_in_place ? 0 : fc_round_up(s.block_h * s.tile_row * item, 64);
    s.residual_bytes =
        p->residual.data && p->residual.stride_w != c ? fc_round_up(s.block_h * s.tile_row * item, 64) : 0;
    s.group_bytes = fc_round_up(p->kernel_h * (int64_t)sizeof(fc_depthwise_group), 64);
    s.thread_bytes = s.group_bytes + s.strip_bytes + s.tile_bytes + s.residual_bytes;
    s.map_bytes = fc_round_up(p->kernel_h * (int64_t)sizeof(int64_t), 64);
    s.shared_bytes = s.map_bytes + 2 * s.period * item + (p->packed ? 0 : fc_packed_depthwise_flat(p) * item);
    return s;
}

static fc_depthwise_axis vertical(const fc_problem *p, fc_phase *f, int64_t rows)
{
    return fc_depthwise_forward_axis(f, rows, p->kernel_h, p->stride_h, 1, 0);
}

/* ---- weights ------------------------------------------------------------------------------------------------------*/
int64_t fc_packed_depthwise_flat(const fc_problem *p) { return period_of(p->groups) * p->kernel_h * p->kernel_w; }

#define REPEAT(type)                                                                                                   \
    for (int64_t i = 0, c = 0; i < count; i++, c = c + 1 == channels ? 0 : c + 1)                                      \
        ((type *)to)[i] = ((const type *)from)[c * stride];

/* to[i] = from[i % channels * stride] */
static __attribute__((noinline)) void repeat(size_t item, const char *from, int64_t stride, int64_t channels, char *to,
                                             int64_t count)
{
    if (item == 4) {
        REPEAT(float)
    } else {
        REPEAT(double)
    }
}

/* order: scratch of kernel_h */
static void pack(const fc_problem *p, int64_t *order, fc_depthwise_group *groups, char *to)
{
    const int64_t item = (int64_t)p->item, taps = p->kernel_h * p->kernel_w, period = period_of(p->groups);
    fc_phase f;
    const fc_depthwise_axis h = vertical(p, &f, p->y.h);
    fc_depthwise_groups(&h, &f, FC_DEPTHWISE_TAPS, 0, (fc_range){0, 0}, groups, order);
    for (int64_t v = 0; v < p->kernel_w; v++)
        for (int64_t i = 0; i < p->kernel_h; i++) {
            const char *from = p->weight + (order[i] * p->weight_u + v * p->weight_v) * item;
            char *at = to + (v * p->kernel_h + i) * FC_DEPTHWISE_ALIGN * item;
            for (int64_t e = 0; e < period; e += FC_DEPTHWISE_ALIGN, at += taps * FC_DEPTHWISE_ALIGN * item) {
                const int64_t first = e % p->groups, head = fc_min(FC_DEPTHWISE_ALIGN, p->groups - first);
                repeat(p->item, from + first * p->weight_g * item, p->weight_g, p->groups, at, head);
                repeat(p->item, from, p->weight_g, p->groups, at + head * item, FC_DEPTHWISE_ALIGN - head);
            }
        }
}

fc_status fc_pack_depthwise_flat(const fc_problem *p, char *to)
{
    const plan s = make_plan(p);
    char *scratch = fc_scratch_acquire_parts(s.map_bytes, 1, s.group_bytes);
    if (!scratch)
        return FC_ENOMEM;
    pack(p, (int64_t *)scratch, (fc_depthwise_group *)(scratch + s.map_bytes), to);
    fc_scratch_release(scratch);
    return FC_OK;
}

/* ---- blocks -------------------------------------------------------------------------------------------------------*/
static fc_window window_of(const block *b) { return (fc_window){b->h, b->rows, 1, b->w, b->columns, 1}; }

static void load_strip(const plan *s, const block *b, char *to)
{
    const fc_problem *p = s->p;
    const fc_image x = fc_image_of(&p->x, p->item, b->n, 0, s->channels);
    const fc_window window = {b->h * p->stride_h - p->pad_top,
                              fc_extent(b->rows, p->kernel_h, p->stride_h, 1),
                              1,
                              b->w - p->pad_left,
                              b->columns + (p->kernel_w - 1) * p->dilation_w,
                              1};
    fc_load_window(p->k, p->item, &x, &window, to, &(fc_pitch){s->strip_row, s->channels, 1});
}

/* Pieces of a period: the kernel's channels are elements of a row, its columns are rows. */
static void run_pieces(const plan *s, const block *b, fc_depthwise *d, fc_depthwise_row row)
{
    const fc_problem *p = s->p;
    const int64_t item = (int64_t)p->item, elements = b->columns * s->channels;
    d->rows = &row, d->row_count = 1;
    for (int64_t e = 0; e < elements; e += s->period) {
        d->channels = fc_min(s->period, elements - e);
        p->k->depthwise->rows(d);
        row.x = (const char *)row.x + s->period * item;
        row.y = (char *)row.y + s->period * item;
        row.residual = fc_at(row.residual, s->period, p->item);
    }
}

/* Products of the block's rows but for their addresses; memory for what it reads: groups. */
static fc_depthwise product_of(const plan *s, const block *b, fc_depthwise_group *groups)
{
    const fc_problem *p = s->p;
    const int64_t item = (int64_t)p->item;
    fc_phase f;
    const fc_depthwise_axis axis = vertical(p, &f, b->rows);
    const fc_range x = {0, fc_depthwise_reach(&axis, b->rows)}, inner = fc_depthwise_inner(&axis, &f, x);
    const int64_t piece =
        fc_max(FC_DEPTHWISE_ALIGN, L1_BYTES / ((TILE * p->stride_h + p->kernel_h * (1 + p->kernel_w)) * item));
    return (fc_depthwise){
        .groups = groups,
        .group_count = fc_depthwise_groups(&axis, &f, FC_DEPTHWISE_TAPS, s->strip_row * item, x, groups, NULL),
        .x_row = p->dilation_w * s->channels * item,
        .x_step = p->stride_h * s->strip_row * item,
        .weight_block = p->kernel_h * p->kernel_w * FC_DEPTHWISE_ALIGN,
        .weight_row = p->kernel_h * FC_DEPTHWISE_ALIGN,
        .first_inner = inner.first,
        .end_inner = inner.end,
        .y_pixel = s->y_in_place ? p->y.stride_h : s->tile_row,
        .residual_pixel = s->residual_bytes ? s->tile_row : p->residual.stride_h,
        .count = b->rows,
        .channel_block = piece / FC_DEPTHWISE_ALIGN * FC_DEPTHWISE_ALIGN,
        .maps = fc_has_epilogue(p),
        .scale = p->epilogue.scale ? s->shared + s->map_bytes : NULL,
        .bias = p->epilogue.bias ? s->shared + s->map_bytes + s->period * item : NULL,
        .lower = p->epilogue.lower,
        .upper = p->epilogue.upper,
    };
}

static void run_block(void *context, int64_t task, int slot)
{
    const plan *s = context;
    const fc_problem *p = s->p;
    const int64_t item = (int64_t)p->item, w = task % s->count_w * s->block_w,
                  h = task / s->count_w % s->count_h * s->block_h;
    const block b = {task / s->count_w / s->count_h, h, fc_min(s->block_h, p->y.h - h), w,
                     fc_min(s->block_w, p->y.w - w)};
    char *groups = s->threads + slot * s->thread_bytes, *strip = groups + s->group_bytes,
         *tile = strip + s->strip_bytes;
    fc_depthwise d = product_of(s, &b, (fc_depthwise_group *)groups);
    fc_depthwise_row row = {.x = strip,
                            .y = tile,
                            .weights = s->weights,
                            .taps = p->kernel_w,
                            .residual = fc_residual_at(p, b.n, 0, b.h, b.w)};
    const fc_window window = window_of(&b);
    if (s->y_in_place)
        row.y = (char *)p->y.data + (b.n * p->y.stride_n + b.h * p->y.stride_h + b.w * p->y.stride_w) * item;
    if (s->residual_bytes) {
        const fc_image residual = fc_image_of(&p->residual, p->item, b.n, 0, s->channels);
        row.residual = tile + s->tile_bytes;
        fc_load_window(p->k, p->item, &residual, &window, tile + s->tile_bytes,
                       &(fc_pitch){s->tile_row, s->channels, 1});
    }
    load_strip(s, &b, strip);
    run_pieces(s, &b, &d, row);
    if (!s->y_in_place) {
        const fc_image y = fc_image_of(&p->y, p->item, b.n, 0, s->channels);
        fc_store_window(p->k, p->item, &y, &window, tile, &(fc_pitch){s->tile_row, s->channels, 1});
    }
}

fc_need fc_conv_depthwise_flat_scratch(const fc_problem *p)
{
    const plan s = make_plan(p);
    return (fc_need){s.shared_bytes, s.thread_bytes};
}

fc_status fc_conv_depthwise_flat(const fc_problem *p)
{
    plan s = make_plan(p);
    const int64_t tasks = p->y.n * s.count_h * s.count_w, period = s.period * (int64_t)p->item;
    const int slots = fc_parallel_slots(tasks);
    s.shared = fc_scratch_acquire_parts(s.shared_bytes, slots, s.thread_bytes);
    if (!s.shared)
        return FC_ENOMEM;
    char *maps = s.shared + s.map_bytes, *packed = maps + 2 * period;
    s.threads = s.shared + s.shared_bytes;
    s.weights = p->packed ? p->packed : packed;
    if (!p->packed)
        pack(p, (int64_t *)s.shared, (fc_depthwise_group *)s.threads, packed);
    if (p->epilogue.scale)
        repeat(p->item, p->epilogue.scale, 1, s.channels, maps, s.period);
    if (p->epilogue.bias)
        repeat(p->item, p->epilogue.bias, 1, s.channels, maps + period, s.period);
    fc_parallel_in(slots, tasks, run_block, &s);
    fc_scratch_release(s.shared);
    return FC_OK;
}
