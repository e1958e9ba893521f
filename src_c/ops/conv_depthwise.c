/* conv_depthwise.c: one input and one output channel per group, and the gradient of its input; lanes are channels.
 *
 * Groups of few channels go the same way: lanes are output channels of several groups, and for each input channel of a
 * group a vector of x is spread over the lanes of their outputs (kernels/depthwise.h). Such a sum is over (u, c, v).
 *
 * Channels-last x is read in place, for columns in the padding the kernel takes zero, unless its pixels share cache
 * sets (fc_depthwise_aliases). That, and any other layout, is loaded into zero-padded channels-last strips, a block of
 * channels at a time. Rows in the padding are left out of both: a product
 * with a zero (finite weights only, see conv_nonfinite.c) changes nothing but the sign of a sum that underflowed to -0,
 * so both ways leave out the same.
 *
 * In the gradient of the input a stride splits each axis into phases with taps of their own (fc_phase). A task computes
 * all phases of its block: grad_y is read once, and the lines of grad_x are completed while they are in the cache.
 */
#include "../scratch.h"
#include "../threads.h"
#include "conv_depthwise.h"

#include <string.h>

enum {
    STRIP_BYTES = 256 << 10, /* strip and output tile of a task: a quarter of a 1 MiB second-level cache */
    CHANNEL_BLOCK = 64,      /* 256 B of float32: whole cache lines whatever the vector */
    L1_BYTES = 36 << 10,     /* x and weights under a tile of TILE outputs: three quarters of 48 KiB */
    TILE = 8,
    ROWS = 16, /* of a task that needs no strip: with 3 rows of taps an eighth of x is read twice */
    LEAST_ROWS = 4, /* of one, unless tasks are fewer than threads: half of x is read twice, with 2 all of it */
    CALL_ROWS = 32,
    LEAST_COLUMNS = 64, /* of a task: eight tiles */
    COPY_TAPS = 4, /* of an element of x: with so few a copy costs what it gains where pixels alias */
};

typedef struct {
    const fc_problem *p;
    fc_depthwise_axis h, w;
    int x_in_place, y_in_place;
    int64_t channels, block_c, count_c, block_h, count_h, block_w, count_w; /* of outputs of one phase */
    int64_t columns, x_pixel, x_row, y_row; /* of the strip and the tile */
    int64_t x_bytes, y_bytes, thread_bytes;
    int64_t group_bytes;  /* of a thread, groups[kernel_w] */
    int32_t spread[FC_MAX_LANES][FC_MAX_LANES]; /* see kernels/depthwise.h */
    const char *weights;  /* weights[channel / 16][u][order of (c, v)][channel % 16] */
    char *threads;
} plan;

typedef struct {
    int64_t n, h, rows, w, columns, c, channels; /* h, w: of outputs of one phase; rows: of y */
} block;

void fc_depthwise_spread(const fc_problem *p, int32_t (*spread)[FC_MAX_LANES])
{
    for (int64_t c = 0; c < p->in_channels; c++)
        for (int64_t lane = 0; lane < p->k->vector_lanes; lane++)
            spread[c][lane] = (int32_t)(fc_depthwise_inputs(p, lane) + c);
}

static fc_depthwise_axis make_axis(const fc_phase *phases, int64_t count, int64_t stride)
{
    fc_depthwise_axis a = {.phases = phases, .count = count, .size = phases[0].count, .stride = stride};
    for (int64_t i = 0, seen = 0; i < count; i++) {
        const fc_phase *f = &phases[i];
        if (f->taps == 0)
            continue;
        const int64_t least = -f->pad, most = (f->taps - 1) * f->dilation - f->pad;
        a.least = seen ? fc_min(a.least, least) : least;
        a.most = seen ? fc_max(a.most, most) : most;
        seen = 1;
    }
    return a;
}

/* Blocks that read x in place: any number of rows and columns. */
static void choose_rows(plan *s, int64_t wanted)
{
    const int64_t n = s->p->y.n;
    s->block_w = s->w.size, s->block_h = fc_min(s->h.size, ROWS);
    while (s->block_h > LEAST_ROWS && n * fc_ceil_div(s->h.size, s->block_h) < wanted)
        s->block_h = fc_max(LEAST_ROWS, fc_ceil_div(s->block_h, 2));
    if (s->block_h > 2 && n * fc_ceil_div(s->h.size, s->block_h) < fc_parallel_slots(INT64_MAX))
        s->block_h = 2;
    while (s->block_w >= 2 * LEAST_COLUMNS &&
           n * fc_ceil_div(s->h.size, s->block_h) * fc_ceil_div(s->w.size, s->block_w) < wanted)
        s->block_w = fc_round_up(fc_ceil_div(s->block_w, 2), TILE);
}

/* Blocks whose strips and tiles stay in the second-level cache. Long rows are cut, so that the rows under one output
 * row fit four times the budget (or twice their own border). */
static void choose_strips(plan *s, int64_t wanted)
{
    const int64_t item = (int64_t)s->p->item, pixel = s->block_c * item, border = s->w.most - s->w.least + 1;
    const int64_t room = fc_max(4 * STRIP_BYTES / (pixel * fc_depthwise_reach(&s->h, 1)), 2 * border) / s->w.stride;
    s->block_w = fc_ceil_div(s->w.size, fc_ceil_div(s->w.size, fc_max(1, room)));
    const int64_t step = s->h.size > 1 ? s->h.stride : 1; /* a single row may come with any stride */
    const int64_t row =
        fc_max(step * fc_depthwise_reach(&s->w, s->block_w), s->block_w * s->w.count * s->h.count) * pixel;
    s->block_h = fc_max(1, fc_min(s->h.size, STRIP_BYTES / fc_max(1, row)));
    while (s->block_h > 2 &&
           s->p->y.n * s->count_c * fc_ceil_div(s->w.size, s->block_w) * fc_ceil_div(s->h.size, s->block_h) < wanted)
        s->block_h = fc_ceil_div(s->block_h, 2);
}

static plan make_plan(const fc_problem *p, fc_depthwise_axis h, fc_depthwise_axis w)
{
    const int64_t item = (int64_t)p->item, wanted = fc_parallel_tasks();
    plan s = {.p = p, .h = h, .w = w, .channels = p->groups * p->out_channels};
    const int64_t pixels = h.phases[0].taps * fc_depthwise_reach(&w, TILE);
    const int aliases = h.phases[0].taps * w.phases[0].taps > COPY_TAPS * h.stride * w.stride &&
                        !fc_depthwise_is_spread(p) && fc_depthwise_aliases(&p->x, p->item, pixels);
    s.x_in_place = p->x.stride_c == 1 && !aliases;
    s.y_in_place = p->y.stride_c == 1;
    s.block_c = s.x_in_place && s.y_in_place ? s.channels : fc_min(s.channels, CHANNEL_BLOCK);
    s.count_c = fc_ceil_div(s.channels, s.block_c);
    if (s.x_in_place && s.y_in_place)
        choose_rows(&s, wanted);
    else
        choose_strips(&s, wanted);
    s.count_h = fc_ceil_div(h.size, s.block_h);
    s.count_w = fc_ceil_div(w.size, s.block_w);
    s.columns = fc_depthwise_reach(&w, s.block_w);
    s.x_pixel = s.x_in_place ? p->x.stride_w : fc_depthwise_inputs(p, s.block_c);
    s.x_row = s.x_in_place ? p->x.stride_h : s.columns * s.x_pixel;
    s.y_row = s.block_w * w.count * s.block_c;
    if (!s.x_in_place)
        s.x_bytes = fc_round_up(fc_depthwise_reach(&h, s.block_h) * s.x_row * item, 64);
    if (!s.y_in_place)
        s.y_bytes = fc_round_up(s.block_h * h.count * s.y_row * item, 64);
    s.group_bytes = fc_round_up(p->kernel_w * (int64_t)sizeof(fc_depthwise_group), 64);
    s.thread_bytes = s.x_bytes + s.y_bytes + s.group_bytes;
    if (fc_depthwise_is_spread(p))
        fc_depthwise_spread(p, s.spread);
    return s;
}

/* ---- taps: the order in which each phase walks along a row, in groups that share columns --------------------------*/
/* Taps that are this far apart, a stride in columns, share columns between neighbouring outputs. */
static int64_t group_step(const fc_depthwise_axis *a, const fc_phase *f)
{
    const int64_t step = a->stride % f->dilation == 0 ? a->stride / f->dilation : f->taps;
    return fc_max(1, fc_min(step, f->taps));
}

/* The i with first <= column + i * stride < end */
static fc_range seeing(int64_t column, int64_t stride, fc_range x)
{
    const int64_t below = x.first - column, above = x.end - column;
    return (fc_range){below > 0 ? fc_ceil_div(below, stride) : -(-below / stride),
                      above > 0 ? fc_ceil_div(above, stride) : -(-above / stride)};
}

fc_range fc_depthwise_inner(const fc_depthwise_axis *w, const fc_phase *f, fc_range x)
{
    const int64_t first = -f->pad - w->least, last = first + fc_max(0, f->taps - 1) * f->dilation;
    return (fc_range){seeing(first, w->stride, x).first, seeing(last, w->stride, x).end};
}

/* Of the next group where `left` taps are: even ones, but see FC_DEPTHWISE_TAPS. */
static int64_t group_size(int64_t left, int64_t most)
{
    const int64_t even = fc_ceil_div(left, fc_ceil_div(left, most));
    return even != 6 ? even : left == 6 ? 3 : 7;
}

int64_t fc_depthwise_groups(const fc_depthwise_axis *w, const fc_phase *f, int64_t most, int64_t pixel, fc_range x,
                            fc_depthwise_group *groups, int64_t *order)
{
    const int64_t step = group_step(w, f);
    int64_t count = 0;
    for (int64_t first = 0; first < fc_min(step, f->taps); first++) {
        const int64_t taps = fc_ceil_div(f->taps - first, step);
        for (int64_t done = 0; done < taps;) {
            const int64_t size = group_size(taps - done, most), tap = first + done * step;
            const int64_t column = tap * f->dilation - f->pad - w->least;
            const fc_range r = seeing(column, w->stride, x);
            groups[count++] =
                (fc_depthwise_group){.x = column * pixel, .taps = size, .inside = r.first, .columns = r.end - r.first};
            for (int64_t j = 0; order && j < size; j++)
                *order++ = f->last - (tap + j * step) * f->step;
            done += size;
        }
    }
    return count;
}

int64_t fc_packed_depthwise(const fc_problem *p)
{
    return p->in_channels * p->kernel_h * p->kernel_w * fc_round_up(p->groups * p->out_channels, FC_DEPTHWISE_ALIGN);
}

#define PACK_TAP(type)                                                                                                 \
    for (int64_t k = 0; k < count; k++)                                                                                \
        ((type *)to)[k] = ((const type *)from)[lane[k]];

void fc_depthwise_lanes(const fc_problem *p, int64_t *lane)
{
    for (int64_t k = 0; k < FC_DEPTHWISE_ALIGN; k++)
        lane[k] = k / p->out_channels * p->weight_g + k % p->out_channels * p->weight_k;
}

int fc_depthwise_slots(int64_t elements, int64_t blocks)
{
    enum { SHARED = 1 << 13 };
    return elements < SHARED ? 1 : fc_parallel_slots(blocks);
}

typedef struct {
    const fc_problem *p;
    const int64_t *order;
    char *to;
} pack_job;

/* to[k / 16][u][i][k % 16] = weight[k][order[i]] at u, zero beyond the channels; 16 channels */
static void pack_block(void *context, int64_t task, int slot)
{
    (void)slot;
    const pack_job *j = context;
    const fc_problem *p = j->p;
    const int64_t item = (int64_t)p->item, lane_bytes = FC_DEPTHWISE_ALIGN * item, row = p->in_channels * p->kernel_w;
    const int64_t k0 = task * FC_DEPTHWISE_ALIGN, count = fc_min(FC_DEPTHWISE_ALIGN, p->groups * p->out_channels - k0);
    char *to = j->to + task * p->kernel_h * row * lane_bytes;
    int64_t lane[FC_DEPTHWISE_ALIGN];
    fc_depthwise_lanes(p, lane);
    for (int64_t u = 0; u < p->kernel_h; u++)
        for (int64_t i = 0; i < row; i++, to += lane_bytes) {
            const char *from = p->weight + (k0 / p->out_channels * p->weight_g + u * p->weight_u + j->order[i]) * item;
            if (item == 4) {
                PACK_TAP(float)
            } else {
                PACK_TAP(double)
            }
            memset(to + count * item, 0, (size_t)(lane_bytes - count * item));
        }
}

static void pack(const fc_problem *p, const int64_t *order, char *to)
{
    pack_job job = {p, order, to};
    const int64_t blocks = fc_ceil_div(p->groups * p->out_channels, FC_DEPTHWISE_ALIGN);
    fc_parallel_in(fc_depthwise_slots(fc_packed_depthwise(p), blocks), blocks, pack_block, &job);
}

void fc_depthwise_order(const fc_problem *p, const fc_depthwise_axis *w, int64_t *to, fc_depthwise_group *scratch)
{
    memset(to, 0,
           (size_t)(p->in_channels * p->kernel_w) *
               sizeof *to); /* no output of a small gradient may see some of them */
    for (int64_t i = 0; i < (w->shared ? 1 : w->count); i++)
        for (int64_t c = 0; c < p->in_channels; c++, to += w->phases[i].taps) {
            fc_depthwise_groups(w, &w->phases[i], fc_depthwise_taps(p), 0, (fc_range){0, 0}, scratch, to);
            for (int64_t j = 0; j < w->phases[i].taps; j++)
                to[j] = c * p->weight_c + to[j] * p->weight_v;
        }
}

/* What a call needs to know of a phase along the row. */
static void set_phase(const plan *s, const block *b, int64_t index, fc_depthwise *d, fc_depthwise_group *groups)
{
    const fc_phase *f = &s->w.phases[index];
    const int64_t columns = TILE * s->w.stride + f->taps * f->dilation;
    const fc_problem *p = s->p;
    const int64_t bytes = /* of an output channel */
        p->kernel_h * p->in_channels * (columns + f->taps * p->out_channels) * (int64_t)p->item / p->out_channels;
    const int64_t blocks = fc_ceil_div(d->channels, fc_max(FC_DEPTHWISE_ALIGN, L1_BYTES / bytes));
    d->channel_block = fc_round_up(fc_ceil_div(d->channels, blocks), FC_DEPTHWISE_ALIGN);
    const int64_t left = s->x_in_place ? b->w * s->w.stride + s->w.least : 0;
    const fc_range x = {-left, s->x_in_place ? p->x.w - left : s->columns};
    const fc_range inner = fc_depthwise_inner(&s->w, f, x);
    d->groups = groups;
    d->group_count =
        fc_depthwise_groups(&s->w, f, fc_depthwise_taps(p), s->x_pixel * (int64_t)p->item, x, groups, NULL);
    d->first_inner = inner.first, d->end_inner = inner.end;
    d->count = fc_min(b->columns, f->count - b->w);
    d->taps_w = f->taps;
}

/* ---- blocks -------------------------------------------------------------------------------------------------------*/
static block decode(const plan *s, int64_t task)
{
    block b;
    b.c = task % s->count_c * s->block_c, task /= s->count_c;
    b.w = task % s->count_w * s->block_w, task /= s->count_w;
    b.h = task % s->count_h * s->block_h, b.n = task / s->count_h;
    b.channels = fc_min(s->block_c, s->channels - b.c);
    b.rows = fc_min(s->block_h * s->h.count, s->p->y.h - b.h * s->h.count);
    b.columns = fc_min(s->block_w, s->w.size - b.w);
    return b;
}

static void load_strip(const plan *s, const block *b, char *to)
{
    const fc_problem *p = s->p;
    const fc_image x =
        fc_image_of(&p->x, p->item, b->n, fc_depthwise_inputs(p, b->c), fc_depthwise_inputs(p, b->channels));
    const fc_window window = {b->h * s->h.stride + s->h.least,
                              fc_depthwise_reach(&s->h, fc_ceil_div(b->rows, s->h.count)),
                              1,
                              b->w * s->w.stride + s->w.least,
                              fc_depthwise_reach(&s->w, b->columns),
                              1};
    fc_load_window(p->k, p->item, &x, &window, to, &(fc_pitch){s->x_row, s->x_pixel, 1});
}

static void store_tile(const plan *s, const block *b, const char *tile)
{
    const fc_problem *p = s->p;
    const fc_image y = fc_image_of(&p->y, p->item, b->n, b->c, b->channels);
    const int64_t left = b->w * s->w.count;
    const fc_window window = {b->h * s->h.count, b->rows, 1, left, fc_min(s->block_w * s->w.count, p->y.w - left), 1};
    fc_store_window(p->k, p->item, &y, &window, tile, &(fc_pitch){s->y_row, s->block_c, 1});
}

/* Row i of the block's rows of y. */
static fc_depthwise_row row_at(const plan *s, const block *b, int64_t i, const char *strip, const char *tile)
{
    const fc_problem *p = s->p;
    const int64_t item = (int64_t)p->item, t = i / s->h.count;
    const fc_phase *f = &s->h.phases[i % s->h.count];
    const int64_t h = b->h * s->h.count + i, w = b->w * s->w.count;
    const int64_t start = (b->h + t) * s->h.stride - f->pad;
    const fc_range u = fc_valid_taps(start, f->dilation, f->taps, p->x.h);
    const int64_t top = u.first * f->dilation;
    const char *x = strip + (t * s->h.stride - f->pad - s->h.least + top) * s->x_row * item;
    if (s->x_in_place)
        x = (const char *)p->x.data +
            (b->n * p->x.stride_n + fc_depthwise_inputs(p, b->c) + (start + top) * p->x.stride_h +
             (b->w * s->w.stride + s->w.least) * p->x.stride_w) *
                item;
    const char *y = tile + i * s->y_row * item;
    if (s->y_in_place)
        y = (const char *)p->y.data + (b->n * p->y.stride_n + b->c + h * p->y.stride_h + w * p->y.stride_w) * item;
    const int64_t c_rows = b->c / FC_DEPTHWISE_ALIGN * p->kernel_h; /* CHANNEL_BLOCK is a multiple */
    return (fc_depthwise_row){.x = x,
                              .weights = s->weights + (c_rows + f->last - u.first * f->step) * p->in_channels *
                                                          p->kernel_w * FC_DEPTHWISE_ALIGN * item,
                              .residual = fc_residual_at(p, b->n, b->c, h, w),
                              .y = (void *)(uintptr_t)y,
                              .taps = u.end - u.first};
}

/* From a phase along the row to the next one. */
static void shift_rows(const plan *s, int64_t phase, int64_t pixel, fc_depthwise_row *rows, int64_t count)
{
    const int64_t item = (int64_t)s->p->item;
    for (int64_t r = 0; r < count; r++) {
        rows[r].y = (char *)rows[r].y + pixel * item;
        rows[r].residual = fc_at(rows[r].residual, s->p->residual.stride_w, s->p->item);
        if (!s->w.shared)
            rows[r].weights =
                (const char *)rows[r].weights + s->p->in_channels * s->w.phases[phase].taps * FC_DEPTHWISE_ALIGN * item;
    }
}

/* Whether the outputs of a row are those of fc_depthwise_kernels.alternating: in the gradient of the input of 3 taps
 * with stride 2 and an odd padding. */
static int is_alternating(const plan *s)
{
    const fc_phase *f = s->w.phases;
    return s->p->k->depthwise->alternating && !fc_depthwise_is_spread(s->p) && !fc_has_epilogue(s->p) &&
           s->w.count == 2 && !s->w.shared && f[0].taps == 1 && f[1].taps == 2 && f[1].dilation == 1 &&
           f[0].pad == f[1].pad;
}

/* All phases of the block's rows [first, first + count). */
static void run_rows(const plan *s, const block *b, fc_depthwise *d, int64_t first, int64_t count, const char *strip,
                     const char *tile, fc_depthwise_group *groups)
{
    const int64_t pixel = d->y_pixel / s->w.count;
    fc_depthwise_row rows[CALL_ROWS];
    d->rows = rows, d->row_count = count;
    for (int64_t i = 0; i < count; i++)
        rows[i] = row_at(s, b, first + i, strip, tile);
    if (is_alternating(s)) {
        fc_depthwise_row odd_rows[CALL_ROWS];
        fc_depthwise both[] = {*d, *d};
        memcpy(odd_rows, rows, (size_t)count * sizeof rows[0]);
        shift_rows(s, 0, pixel, odd_rows, count);
        both[1].rows = odd_rows;
        set_phase(s, b, 0, &both[0], groups);
        set_phase(s, b, 1, &both[1], groups + 1);
        s->p->k->depthwise->alternating(both);
        return;
    }
    for (int64_t i = 0; i < s->w.count; i++) {
        set_phase(s, b, i, d, groups);
        if (d->count > 0)
            (fc_depthwise_is_spread(s->p) ? s->p->k->depthwise->spread_rows : s->p->k->depthwise->rows)(d);
        shift_rows(s, i, pixel, rows, count);
    }
}

static void run_block(void *context, int64_t task, int slot)
{
    const plan *s = context;
    const fc_problem *p = s->p;
    const int64_t item = (int64_t)p->item;
    const block b = decode(s, task);
    char *groups = s->threads + slot * s->thread_bytes, *strip = groups + s->group_bytes, *tile = strip + s->x_bytes;
    fc_depthwise d = {
        .x_row = s->h.phases[0].dilation * s->x_row * item,
        .x_step = s->w.stride * s->x_pixel * item,
        .weight_block = p->in_channels * p->kernel_h * p->kernel_w * FC_DEPTHWISE_ALIGN,
        .weight_row = -s->h.phases[0].step * p->in_channels * p->kernel_w * FC_DEPTHWISE_ALIGN,
        .y_pixel = s->w.count * (s->y_in_place ? p->y.stride_w : s->block_c),
        .residual_pixel = s->w.count * p->residual.stride_w,
        .channels = b.channels,
        .maps = fc_has_epilogue(p),
        .scale = fc_at(p->epilogue.scale, b.c, p->item),
        .bias = fc_at(p->epilogue.bias, b.c, p->item),
        .lower = p->epilogue.lower,
        .upper = p->epilogue.upper,
        .spread = s->spread,
        .inputs = p->in_channels,
        .inputs_of_vector = fc_depthwise_inputs(p, p->k->vector_lanes),
    };
    if (!s->x_in_place)
        load_strip(s, &b, strip);
    for (int64_t i = 0; i < b.rows; i += CALL_ROWS)
        run_rows(s, &b, &d, i, fc_min(CALL_ROWS, b.rows - i), strip, tile, (fc_depthwise_group *)groups);
    if (!s->y_in_place)
        store_tile(s, &b, tile);
}

/* ---- entry points -------------------------------------------------------------------------------------------------*/
fc_depthwise_axis fc_depthwise_forward_axis(fc_phase *f, int64_t outputs, int64_t taps, int64_t stride,
                                            int64_t dilation, int64_t pad)
{
    *f = (fc_phase){.count = outputs, .taps = taps, .step = -1, .dilation = dilation, .pad = pad};
    return make_axis(f, 1, stride);
}

enum { MAX_PHASES = 8 };
typedef struct {
    fc_phase h, w[MAX_PHASES];
} forward_phases;

/* Neighbouring outputs see columns in common where their distance is a multiple of the dilation: every n-th of a row is
 * a phase. */
static fc_depthwise_axis forward_row(const fc_problem *p, fc_phase *f)
{
    enum { LEAST_TILE = 4 };
    int64_t n = 1;
    while (n <= MAX_PHASES && n * p->stride_w % p->dilation_w != 0)
        n++;
    if (p->kernel_w == 1 || n > MAX_PHASES || p->y.w < n * LEAST_TILE)
        n = 1;
    for (int64_t i = 0; i < n; i++)
        fc_depthwise_forward_axis(&f[i], fc_ceil_div(p->y.w - i, n), p->kernel_w, n * p->stride_w, p->dilation_w,
                                  p->pad_left - i * p->stride_w);
    fc_depthwise_axis axis = make_axis(f, n, n * p->stride_w);
    axis.shared = 1;
    return axis;
}

static plan forward_plan(const fc_problem *p, forward_phases *f)
{
    return make_plan(p, fc_depthwise_forward_axis(&f->h, p->y.h, p->kernel_h, p->stride_h, p->dilation_h, p->pad_top),
                     forward_row(p, f->w));
}

static int64_t order_bytes(const fc_problem *p)
{
    return fc_round_up(p->in_channels * p->kernel_w * (int64_t)sizeof(int64_t), 64);
}

static int64_t shared_bytes(const fc_problem *p)
{
    return order_bytes(p) + (p->packed ? 0 : fc_round_up(fc_packed_depthwise(p) * (int64_t)p->item, 64));
}

static fc_status run(plan *s)
{
    const fc_problem *p = s->p;
    const int64_t tasks = p->y.n * s->count_h * s->count_w * s->count_c;
    const int slots = fc_parallel_slots(tasks);
    char *scratch = fc_scratch_acquire_parts(shared_bytes(p), slots, s->thread_bytes);
    if (!scratch)
        return FC_ENOMEM;
    char *packed = scratch + order_bytes(p);
    s->weights = p->packed ? p->packed : packed;
    s->threads = scratch + shared_bytes(p);
    if (!p->packed) {
        fc_depthwise_order(p, &s->w, (int64_t *)scratch, (fc_depthwise_group *)s->threads);
        pack(p, (int64_t *)scratch, packed);
    }
    fc_parallel_in(slots, tasks, run_block, s);
    fc_scratch_release(scratch);
    return FC_OK;
}

fc_status fc_pack_depthwise(const fc_problem *p, char *to)
{
    forward_phases f;
    const plan s = forward_plan(p, &f);
    char *scratch = fc_scratch_acquire_parts(order_bytes(p), 1, s.group_bytes);
    if (!scratch)
        return FC_ENOMEM;
    fc_depthwise_order(p, &s.w, (int64_t *)scratch, (fc_depthwise_group *)(scratch + order_bytes(p)));
    pack(p, (int64_t *)scratch, to);
    fc_scratch_release(scratch);
    return FC_OK;
}

fc_need fc_conv_depthwise_scratch(const fc_problem *p)
{
    forward_phases f;
    const plan s = forward_plan(p, &f);
    return (fc_need){shared_bytes(p), s.thread_bytes};
}

fc_status fc_conv_depthwise(const fc_problem *p)
{
    forward_phases f;
    plan s = forward_plan(p, &f);
    return run(&s);
}

fc_status fc_conv_depthwise_grad_input(const fc_problem *problem)
{
    fc_problem p = *problem;
    fc_lay_down(&p);
    const int64_t rows = fc_min(p.stride_h, p.y.h), columns = fc_min(p.stride_w, p.y.w);
    fc_phase *phases = fc_scratch_acquire((size_t)(rows + columns) * sizeof *phases);
    if (!phases)
        return FC_ENOMEM;
    for (int64_t i = 0; i < rows; i++)
        phases[i] = fc_make_phase(i, p.y.h, p.kernel_h, p.stride_h, p.dilation_h, p.pad_top);
    for (int64_t i = 0; i < columns; i++)
        phases[rows + i] = fc_make_phase(i, p.y.w, p.kernel_w, p.stride_w, p.dilation_w, p.pad_left);
    plan s = make_plan(&p, make_axis(phases, rows, 1), make_axis(phases + rows, columns, 1));
    const fc_status status = run(&s);
    fc_scratch_release(phases);
    return status;
}
