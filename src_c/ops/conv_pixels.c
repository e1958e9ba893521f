/* conv_pixels.c: convolution with up to 8 output channels per group, or of planes; lanes are neighbouring outputs of a
 * row.
 *
 * A task's input window is loaded as strip[c][row][phase][q]: columns left + q * stride_w + phase, so that neighbouring
 * outputs read neighbouring elements whatever the stride. Sums go to tile[k][row][column], then through the epilogue to
 * y.
 *
 * Planes of any number of outputs have the sums of conv_direct.c, in the order of its steps; direct would turn what it
 * reads and what it writes. Outputs in groups of planes_channels meet all runs of a block and are written where they
 * belong. The last run of a row and the last group move back over outputs that are there already.
 */
#include "../scratch.h"
#include "../threads.h"
#include "conv.h"

#include <string.h>

enum {
    STRIP_BYTES = 256 << 10, /* strip and tile of a task: a quarter of a 1 MiB second-level cache */
};

typedef struct {
    const fc_problem *p;
    int64_t lanes, runs;                      /* vectors that cover a row of a block */
    int64_t block_h, count_h, block_w, count_w; /* long rows are cut */
    int64_t phase, row, plane;                /* pitches of the strip */
    int64_t below;                            /* rows of the kernel that walks down a column of vectors, or 0 */
    int64_t tile_row, tile_channel;           /* pitches of the tile */
    int64_t strip_bytes, thread_bytes;
    int64_t *taps;                            /* [kernel_w] */
    const char *weights;                      /* weights[group][c][u][v][k] */
    char *threads;
    int of_planes;                            /* the rest, and no tile */
    int64_t outputs, parts, steps;            /* of planes together, and how many of them; (u, v, c) of a sum */
    int64_t *offset;                          /* [steps] */
    char *parts_weights;                      /* [group][part][step][k] */
} plan;

/* With those that a kernel of half of `below` computes in vain. */
static int64_t whole_rows(const plan *s, int64_t rows) { return s->below ? fc_round_up(rows, s->below / 2) : rows; }

static void set_pitches(plan *s, int64_t rows)
{
    const fc_problem *p = s->p;
    /* the last vector of a row reads lanes that are no outputs: q goes up to runs * lanes + reach of the taps */
    s->phase = fc_round_up(s->runs * s->lanes + (p->kernel_w - 1) * p->dilation_w / p->stride_w + 1, s->lanes);
    s->row = p->stride_w * s->phase;
    s->plane = fc_extent(rows, p->kernel_h, p->stride_h, p->dilation_h) * s->row;
    s->tile_row = s->runs * s->lanes;
    s->tile_channel = whole_rows(s, rows) * s->tile_row;
}

static int64_t block_bytes(const plan *s)
{
    const int64_t tile = s->of_planes ? 0 : s->p->out_channels * s->tile_channel;
    return (s->p->in_channels * s->plane + tile) * (int64_t)s->p->item;
}

/* Columns of a block of one row: near-equal pieces of at least MIN_RUNS vectors that fit the budget, or can be no
 * smaller, and where rows are few enough of them for all threads. */
static void choose_columns(plan *s)
{
    enum { MIN_RUNS = 16 };
    const fc_problem *p = s->p;
    const int64_t rows = p->y.n * p->groups * p->y.h, wanted = fc_parallel_tasks();
    for (s->count_w = 1;; s->count_w *= 2) {
        s->block_w = fc_round_up(fc_ceil_div(p->y.w, s->count_w), s->lanes);
        s->runs = s->block_w / s->lanes;
        set_pitches(s, 1);
        if ((block_bytes(s) <= STRIP_BYTES && rows * s->count_w >= wanted) || s->runs <= MIN_RUNS)
            break;
    }
    s->count_w = fc_ceil_div(p->y.w, s->block_w);
    if (s->of_planes && s->count_w > 1 && p->y.w % s->block_w > 0 && p->y.w % s->block_w < s->lanes)
        s->count_w--, s->runs++; /* too few to be a run */
}

static plan make_plan(const fc_problem *p, int of_planes)
{
    plan s = {.p = p, .lanes = p->k->vector_lanes, .of_planes = of_planes};
    const int64_t item = (int64_t)p->item;
    s.outputs = p->k->pixels->planes_channels;
    s.parts = fc_ceil_div(p->out_channels, s.outputs);
    s.steps = p->kernel_h * p->kernel_w * p->in_channels;
    if (!of_planes && p->stride_h == 1 && p->dilation_h == 1 && p->kernel_h > 1)
        s.below = p->k->pixels->max_below[p->out_channels];
    choose_columns(&s);
    const int64_t wanted = fc_parallel_tasks();
    s.block_h = p->y.h;
    for (;; s.block_h = fc_ceil_div(s.block_h, 2)) {
        set_pitches(&s, s.block_h);
        s.count_h = fc_ceil_div(p->y.h, s.block_h);
        const int64_t tasks = p->y.n * p->groups * s.count_h * s.count_w;
        if (s.block_h == 1 || (block_bytes(&s) <= STRIP_BYTES && (tasks >= wanted || s.block_h <= 4)))
            break;
    }
    s.block_h = fc_min(p->y.h, whole_rows(&s, s.block_h));
    set_pitches(&s, s.block_h);
    s.count_h = fc_ceil_div(p->y.h, s.block_h);
    const int64_t vain = whole_rows(&s, s.block_h) - s.block_h;
    s.strip_bytes = fc_round_up((p->in_channels * s.plane + vain * s.row) * item, 64);
    s.thread_bytes = s.strip_bytes + (of_planes ? 0 : fc_round_up(p->out_channels * s.tile_channel * item, 64));
    return s;
}

int64_t fc_packed_pixels(const fc_problem *p)
{
    return p->groups * p->in_channels * p->kernel_h * p->kernel_w * p->out_channels;
}

fc_status fc_pack_pixels(const fc_problem *p, char *to)
{
    const int64_t item = (int64_t)p->item;
    for (int64_t g = 0; g < p->groups; g++)
        for (int64_t c = 0; c < p->in_channels; c++)
            for (int64_t u = 0; u < p->kernel_h; u++)
                for (int64_t v = 0; v < p->kernel_w; v++)
                    for (int64_t k = 0; k < p->out_channels; k++, to += item)
                        memcpy(to,
                               p->weight + (g * p->weight_g + k * p->weight_k + c * p->weight_c + u * p->weight_u +
                                            v * p->weight_v) *
                                               item,
                               p->item);
    return FC_OK;
}

/* Where tap v of a row begins in a row of the strip. */
static int64_t tap_at(const plan *s, int64_t v)
{
    const int64_t column = v * s->p->dilation_w;
    return column % s->p->stride_w * s->phase + column / s->p->stride_w;
}

static void set_taps(const plan *s)
{
    for (int64_t v = 0; v < s->p->kernel_w; v++)
        s->taps[v] = tap_at(s, v);
}

/* Rows [h, h + rows) and columns [w, w + columns) of group g of image n. */
typedef struct {
    int64_t n, g, h, rows, w, columns;
} block;

static block block_at(const plan *s, int64_t task)
{
    const fc_problem *p = s->p;
    const int64_t column = task % s->count_w, rest = task / s->count_w;
    block b = {.w = column * s->block_w, .h = rest % s->count_h * s->block_h};
    b.columns = (column + 1 < s->count_w ? b.w + s->block_w : p->y.w) - b.w;
    b.g = rest / s->count_h % p->groups, b.n = rest / s->count_h / p->groups;
    b.rows = fc_min(s->block_h, p->y.h - b.h);
    return b;
}

static void load_strip(const plan *s, const block *b, char *strip)
{
    const fc_problem *p = s->p;
    const fc_image x = fc_image_of(&p->x, p->item, b->n, b->g * p->in_channels, p->in_channels);
    const fc_pitch pitch = {s->row, 1, s->plane};
    for (int64_t phase = 0; phase < p->stride_w; phase++) {
        const fc_window window = {b->h * p->stride_h - p->pad_top,
                                  fc_extent(b->rows, p->kernel_h, p->stride_h, p->dilation_h),
                                  1,
                                  phase + b->w * p->stride_w - p->pad_left,
                                  s->phase,
                                  p->stride_w};
        fc_load_window(p->k, p->item, &x, &window, strip + phase * s->phase * (int64_t)p->item, &pitch);
    }
}

#define ADD_RESIDUAL(type)                                                                                             \
    do {                                                                                                               \
        for (int64_t i = 0; i < b->rows; i++)                                                                          \
            for (int64_t j = 0; j < b->columns; j++)                                                                   \
                ((type *)t)[i * s->tile_row + j] += ((const type *)residual)[k + i * r->stride_h + j * r->stride_w];   \
    } while (0)

static double number_at(const void *array, int64_t i, size_t item, double otherwise)
{
    return !array ? otherwise : item == 4 ? (double)((const float *)array)[i] : ((const double *)array)[i];
}

static void finish(const plan *s, const block *b, char *tile)
{
    const fc_problem *p = s->p;
    const fc_epilogue *e = &p->epilogue;
    const int64_t channel = b->g * p->out_channels, count = b->rows * s->tile_row;
    const fc_view *r = &p->residual;
    const char *residual = fc_residual_at(p, b->n, channel, b->h, b->w);
    /* One tap is for conv_direct.c in another memory format, which adds 0 where there is padding. */
    if (!fc_has_epilogue(p) && (p->kernel_h * p->kernel_w > 1 || fc_sees_no_padding(p)))
        return;
    for (int64_t k = 0; k < p->out_channels; k++) {
        double scale = number_at(e->scale, channel + k, p->item, 1), bias = number_at(e->bias, channel + k, p->item, 0);
        char *t = tile + k * s->tile_channel * (int64_t)p->item;
        if (residual) { /* between the two halves of an epilogue */
            p->k->pixels->finish(count, scale, bias, -__builtin_inf(), __builtin_inf(), t);
            if (p->item == 4)
                ADD_RESIDUAL(float);
            else
                ADD_RESIDUAL(double);
            scale = 1, bias = 0;
        }
        p->k->pixels->finish(count, scale, bias, e->lower, e->upper, t);
    }
}

/* Groups of rows, column by column of vectors. */
static void run_columns(const plan *s, fc_pixels *call, int64_t rows, char *strip, char *tile)
{
    const int64_t item = (int64_t)s->p->item;
    for (int64_t row = 0; row < rows;) {
        const int all = rows - row > s->below / 2;
        for (int64_t run = 0; run < s->runs; run++) {
            call->x[0] = strip + (row * s->row + run * s->lanes) * item;
            call->y[0] = tile + (row * s->tile_row + run * s->lanes) * item;
            s->p->k->pixels->column[s->p->out_channels][all](call);
        }
        row += all ? s->below : s->below / 2;
    }
}

/* Groups of runs; the last one is done over again where there are fewer. */
static void run_tiles(const plan *s, fc_pixels *call, int64_t rows, char *strip, char *tile)
{
    const fc_problem *p = s->p;
    const fc_pixels_kernels *k = p->k->pixels;
    const int64_t item = (int64_t)p->item, most = k->max_runs[p->out_channels], total = rows * s->runs;
    for (int64_t run = 0; run < total;) {
        const int all = total - run > most / 2;
        const int64_t count = all ? most : most / 2;
        for (int64_t r = 0; r < count; r++, run++) {
            const int64_t i = fc_min(run, total - 1), row = i / s->runs, column = i % s->runs * s->lanes;
            call->x[r] = strip + (row * p->stride_h * s->row + column) * item;
            call->y[r] = tile + (row * s->tile_row + column) * item;
        }
        k->tile[p->out_channels][all](call);
    }
}

static void run_block(void *context, int64_t task, int slot)
{
    const plan *s = context;
    const fc_problem *p = s->p;
    const block b = block_at(s, task);
    char *strip = s->threads + slot * s->thread_bytes, *tile = strip + s->strip_bytes;
    load_strip(s, &b, strip);
    fc_pixels call = {
        .y_channel = s->tile_channel,
        .y_row = s->tile_row,
        .in_channels = p->in_channels,
        .kernel_h = p->kernel_h,
        .kernel_w = p->kernel_w,
        .plane = s->plane,
        .row = p->dilation_h * s->row,
        .tap = s->taps,
        .weights = fc_at(s->weights, b.g * s->steps * p->out_channels, p->item),
    };
    (s->below ? run_columns : run_tiles)(s, &call, b.rows, strip, tile);
    finish(s, &b, tile);
    const fc_image y = fc_image_of(&p->y, p->item, b.n, b.g * p->out_channels, p->out_channels);
    const fc_window window = {b.h, b.rows, 1, b.w, b.columns, 1};
    fc_store_window(p->k, p->item, &y, &window, tile, &(fc_pitch){s->tile_row, 1, s->tile_channel});
}

static int64_t taps_bytes(const fc_problem *p) { return fc_round_up(p->kernel_w * (int64_t)sizeof(int64_t), 64); }

static int64_t weight_bytes(const fc_problem *p)
{
    return p->packed ? 0 : fc_round_up(fc_packed_pixels(p) * (int64_t)p->item, 64);
}

fc_need fc_conv_pixels_scratch(const fc_problem *p)
{
    return (fc_need){taps_bytes(p) + weight_bytes(p), make_plan(p, 0).thread_bytes};
}

fc_status fc_conv_pixels(const fc_problem *p)
{
    plan s = make_plan(p, 0);
    const int64_t tasks = p->y.n * p->groups * s.count_h * s.count_w;
    const int64_t taps = taps_bytes(p), weights = weight_bytes(p);
    const int slots = fc_parallel_slots(tasks);
    char *scratch = fc_scratch_acquire_parts(taps + weights, slots, s.thread_bytes);
    if (!scratch)
        return FC_ENOMEM;
    s.taps = (int64_t *)scratch;
    s.weights = p->packed ? p->packed : scratch + taps;
    s.threads = scratch + taps + weights;
    set_taps(&s);
    if (!p->packed)
        fc_pack_pixels(p, scratch + taps);
    fc_parallel_in(slots, tasks, run_block, &s);
    fc_scratch_release(scratch);
    return FC_OK;
}

/* ---- planes -------------------------------------------------------------------------------------------------------*/
/* A sum that underflowed to -0 keeps its sign with such a bias; products with zeros of the strip, which direct leaves
 * out, would take it away. */
static int has_minus_zero(const fc_problem *p)
{
    for (int64_t k = 0; p->epilogue.bias && k < p->groups * p->out_channels; k++) {
        const double bias = number_at(p->epilogue.bias, k, p->item, 0);
        if (bias == 0 && __builtin_signbit(bias))
            return 1;
    }
    return 0;
}

int fc_conv_planes_serves(const fc_problem *p)
{
    const int64_t lanes = p->k->vector_lanes;
    return p->y.w >= lanes && p->y.stride_w == 1 && p->y.stride_c != 1 && (p->x.stride_c != 1 || p->in_channels == 1) &&
           p->out_channels >= p->k->pixels->planes_channels && !p->packed && !p->epilogue.scale && !p->residual.data &&
           /* of several chunks direct sums all taps of one before the next; of one tap the order is the same */
           (p->kernel_h * p->kernel_w == 1 || fc_direct_chunk(p) == p->in_channels) &&
           (fc_sees_no_padding(p) || !has_minus_zero(p));
}

static void set_offsets(plan *s)
{
    const fc_problem *p = s->p;
    int64_t *to = s->offset;
    for (int64_t u = 0; u < p->kernel_h; u++)
        for (int64_t v = 0; v < p->kernel_w; v++)
            for (int64_t c = 0; c < p->in_channels; c++)
                *to++ = c * s->plane + u * p->dilation_h * s->row + tap_at(s, v);
}

static int64_t first_output(const plan *s, int64_t part)
{
    return fc_min(part * s->outputs, s->p->out_channels - s->outputs);
}

static void pack_part(void *context, int64_t task, int slot)
{
    (void)slot;
    const plan *s = context;
    const fc_problem *p = s->p;
    const int64_t item = (int64_t)p->item,
                  at = task / s->parts * p->weight_g + first_output(s, task % s->parts) * p->weight_k;
    fc_pack_weights(p, p->weight + at * item, p->in_channels, s->outputs,
                    s->parts_weights + task * s->steps * s->outputs * item, s->outputs);
}

/* Direct adds a bias of 0 where there is padding or an epilogue: -0 becomes 0. -0 is what changes nothing. */
#define EIGHT(x) {x, x, x, x, x, x, x, x}
static const float no_bias_f32[2][FC_PLANES_MAX] = {EIGHT(0.0f), EIGHT(-0.0f)};
static const double no_bias_f64[2][FC_PLANES_MAX] = {EIGHT(0.0), EIGHT(-0.0)};

static const void *bias_at(const fc_problem *p, int64_t k)
{
    if (p->epilogue.bias)
        return fc_at(p->epilogue.bias, k, p->item);
    const int keeps = !fc_has_epilogue(p) && fc_sees_no_padding(p);
    return p->item == 4 ? (const void *)no_bias_f32[keeps] : no_bias_f64[keeps];
}

static void run_planes_block(void *context, int64_t task, int slot)
{
    const plan *s = context;
    const fc_problem *p = s->p;
    const int64_t item = (int64_t)p->item;
    const block b = block_at(s, task);
    char *strip = s->threads + slot * s->thread_bytes;
    load_strip(s, &b, strip);
    fc_planes call = {.y_channel = p->y.stride_c,
                      .steps = s->steps,
                      .offset = s->offset,
                      .bounded = p->epilogue.lower != -__builtin_inf() || p->epilogue.upper != __builtin_inf(),
                      .lower = p->epilogue.lower,
                      .upper = p->epilogue.upper};
    const int64_t runs = fc_ceil_div(b.columns, s->lanes), total = b.rows * runs;
    for (int64_t part = 0; part < s->parts; part++) {
        const int64_t k = b.g * p->out_channels + first_output(s, part);
        char *y = (char *)p->y.data + (b.n * p->y.stride_n + k * p->y.stride_c + b.h * p->y.stride_h + b.w) * item;
        call.weights = s->parts_weights + (b.g * s->parts + part) * s->steps * s->outputs * item;
        call.bias = bias_at(p, k);
        for (int64_t run = 0; run < total; run += FC_PLANES_RUNS) {
            for (int64_t r = 0; r < FC_PLANES_RUNS; r++) {
                const int64_t i = fc_min(run + r, total - 1), row = i / runs,
                              at = fc_min(i % runs * s->lanes, b.columns - s->lanes);
                call.x[r] = strip + (row * p->stride_h * s->row + at) * item;
                call.y[r] = y + (row * p->y.stride_h + at) * item;
            }
            p->k->pixels->planes(&call);
        }
    }
}

static int64_t offsets_bytes(const plan *s) { return fc_round_up(s->steps * (int64_t)sizeof(int64_t), 64); }

static fc_need planes_need(const plan *s)
{
    const int64_t weights = s->p->groups * s->parts * s->steps * s->outputs * (int64_t)s->p->item;
    return (fc_need){offsets_bytes(s) + fc_round_up(weights, 64), s->thread_bytes};
}

fc_need fc_conv_planes_scratch(const fc_problem *p)
{
    const plan s = make_plan(p, 1);
    return planes_need(&s);
}

fc_status fc_conv_planes(const fc_problem *p)
{
    plan s = make_plan(p, 1);
    const int64_t tasks = p->y.n * p->groups * s.count_h * s.count_w, shared = planes_need(&s).shared;
    const int slots = fc_parallel_slots(tasks);
    char *scratch = fc_scratch_acquire_parts(shared, slots, s.thread_bytes);
    if (!scratch)
        return FC_ENOMEM;
    s.offset = (int64_t *)scratch;
    s.parts_weights = scratch + offsets_bytes(&s);
    s.threads = scratch + shared;
    set_offsets(&s);
    fc_parallel(p->groups * s.parts, pack_part, &s);
    fc_parallel_in(slots, tasks, run_planes_block, &s);
    fc_scratch_release(scratch);
    return FC_OK;
}
