/* conv_grad_weight.c: the gradient of the weight by matrix products whose reduction runs over output pixels.
 *
 *     grad_weight[k][c][u][v] = sum_{n,i,j} grad_y[n][i][j][k] * x[n][i * stride_h + ..u][j * stride_w + ..v][c]
 *
 * All output lines of the batch (rows, or pieces of long rows) are cut into `slices`, whose number and ends depend on
 * the shape only. A task owns one slice and one part of the weight and sums into its own piece of a
 * buffer[slice][group][u][v][c][k]. The slices are added in order at the end: no two threads share an output and the bits
 * do not depend on their number.
 * Within a slice, blocks of lines small enough for the caches are loaded as strips (see conv_direct.c).
 * When one block holds all pixels there is nothing to add up: each panel is computed in the cache and stored at once.
 *
 * With few output channels the sides change places: rows are channels of grad_y, columns (vectors) those of x.
 *
 * A pointwise (1x1) problem is symmetric in x and grad_y. The side with fewer channels is transposed into rows of pixels
 * and the other copied panel by panel, so that the tile kernel of the forward pass reads both sides in order. In place,
 * pixels a KiB apart share cache sets and vectors straddle lines: 5 to 14 % slower than with the copies.
 */
#include "../scratch.h"
#include "../threads.h"
#include "conv.h"

#include <string.h>

enum {
    MAX_SLICES = 16,
    SLICE_BUFFER_BYTES = 8 << 20, /* all slices together */
    /* Of a slice: one block, so that none is cut (4 rows of 56, 8 of 28, 16 of 14); with fewer, adding the buffers costs
     * more than the sum. */
    SLICE_PIXELS = 224,
    /* The columns of grad_y under a tile, BLOCK_PIXELS x 2 vectors of 64 B, stay in 32 KiB of L1. */
    BLOCK_PIXELS = 256,
    ADD_ELEMENTS = 8192, /* of the buffer, per task of the final sum */
    TASKS_PER_THREAD = 4,
};

typedef struct {
    const fc_problem *p;
    int64_t taps, panel, panels; /* columns of a panel, number of panels */
    int64_t slices, lines, pieces; /* lines = batch * out_h * pieces, pieces of one output row */
    int64_t row_pixels, line_pixels; /* of a row and a line of the whole problem, before rows were joined */
    int64_t block_n, block_h, block_w; /* images, rows and columns of a block */
    int single; /* one block holds everything */
    int pointwise; /* x strips are [channel][pixel], y strips one panel [pixel][column] */
    int64_t row_parts, column_parts; /* pieces of the taps (u, or u and v) and of the panels */
    int64_t row_units; /* kernel_h or taps */
    int turned; /* columns are channels of x and rows those of grad_y */
    fc_problem weight; /* *p, with the weight as rows and columns see it */
    int64_t rows, columns; /* channels: C and K, turned K and C */
    int x_in_place, y_in_place, merged; /* merged: (v, c) is one axis */
    int64_t x_pixel, x_row, x_image, x_step_h, x_step_w, y_pixel, y_row, y_image; /* pitches of the strips, elements */
    int64_t x_bytes, y_bytes, thread_bytes;
    int64_t buffer_group, buffer_slice; /* elements */
    char *buffer, *threads;
} plan;

/* Columns of the near-equal pieces of a row. */
static int64_t piece_of(int64_t columns)
{
    return columns > 2 * BLOCK_PIXELS ? fc_ceil_div(columns, fc_ceil_div(columns, BLOCK_PIXELS)) : columns;
}

/* Lines are those of the shape (y: grad_y as it came), not of the layout, which decides whether rows can be joined. Small
 * images of a pointwise problem are one line each, as if their rows were always joined. */
static void choose_slices(plan *s, const fc_view *y)
{
    const int joined = s->pointwise && y->h * y->w <= 2 * BLOCK_PIXELS;
    s->row_pixels = joined ? y->h * y->w : y->w;
    s->line_pixels = piece_of(s->row_pixels);
    s->pieces = fc_ceil_div(s->row_pixels, s->line_pixels);
    const int64_t pixels = y->n * y->h * y->w;
    s->lines = pixels / s->row_pixels * s->pieces;
    s->slices = fc_min(MAX_SLICES, SLICE_BUFFER_BYTES / fc_max(1, s->buffer_slice * (int64_t)s->p->item));
    s->slices = fc_max(1, fc_min(fc_min(s->slices, fc_ceil_div(s->lines * s->line_pixels, SLICE_PIXELS)), s->lines));
    if (pixels <= 2 * BLOCK_PIXELS) /* a single block in some layouts */
        s->slices = 1;
}

static void choose_block(plan *s, const fc_view *y)
{
    const fc_problem *p = s->p;
    s->block_w = piece_of(p->y.w);
    const int whole_rows = s->block_w == p->y.w;
    if (!whole_rows && p->y.w > y->w) /* joined rows: near-equal pieces of a slice */
        s->block_w = fc_min(p->y.w, piece_of(fc_ceil_div(s->lines, s->slices) * s->line_pixels));
    s->block_h = whole_rows ? fc_min(p->y.h, fc_ceil_div(BLOCK_PIXELS, p->y.w)) : 1;
    s->block_n = whole_rows && s->block_h == p->y.h ? fc_min(p->y.n, fc_ceil_div(BLOCK_PIXELS, p->y.h * p->y.w)) : 1;
    s->single = whole_rows && s->block_h == p->y.h && s->block_n == p->y.n;
}

static void set_pointwise_strips(plan *s)
{
    const int64_t item = (int64_t)s->p->item, pixels = s->block_n * s->block_h * s->block_w;
    s->x_pixel = fc_round_up(pixels, 16) + 16; /* pitch of a channel: never a multiple of a cache line's power of two */
    s->x_bytes = fc_round_up(s->p->in_channels * s->x_pixel * item, 64);
    s->y_bytes = fc_round_up(pixels * s->panel * item, 64);
}

static void set_strips(plan *s)
{
    const fc_problem *p = s->p;
    const int64_t item = (int64_t)p->item, rows = fc_strip_extent(s->block_h, p->kernel_h, p->stride_h, p->dilation_h);
    s->x_in_place = p->x.stride_c == 1 && fc_sees_no_padding(p);
    s->y_in_place = p->y.stride_c == 1;
    s->x_pixel = s->x_in_place ? p->x.stride_w : p->in_channels;
    s->x_row = s->x_in_place ? p->x.stride_h
                             : fc_strip_extent(s->block_w, p->kernel_w, p->stride_w, p->dilation_w) * s->x_pixel;
    s->x_image = s->x_in_place ? p->x.stride_n : rows * s->x_row;
    s->x_step_h = s->x_in_place || p->kernel_h > 1 ? p->stride_h : 1;
    s->x_step_w = s->x_in_place || p->kernel_w > 1 ? p->stride_w : 1;
    s->y_pixel = s->y_in_place ? p->y.stride_w : p->out_channels;
    s->y_row = s->y_in_place ? p->y.stride_h : s->block_w * s->y_pixel;
    s->y_image = s->y_in_place ? p->y.stride_n : s->block_h * s->y_row;
    s->merged = !s->turned && p->dilation_w == 1 && s->x_pixel == p->in_channels;
    s->x_bytes = s->x_in_place ? 0 : fc_round_up(s->block_n * s->x_image * item, 64);
    s->y_bytes = s->y_in_place ? 0 : fc_round_up(s->block_n * s->y_image * item, 64);
}

/* Lanes are output channels; where these are few, those of x pay. A tile of fewer than 4 rows waits for its additions. */
static int turning_pays(const fc_problem *p)
{
    enum { LEAST_ROWS = 4 };
    const int64_t lanes = p->k->vector_lanes, in = p->in_channels, out = p->out_channels;
    return 2 * fc_max(out, LEAST_ROWS) * fc_ceil_div(in, lanes) <= in * fc_ceil_div(out, lanes);
}

static void choose_sides(plan *s)
{
    const fc_problem *p = s->p;
    s->turned = !s->pointwise && turning_pays(p);
    s->rows = s->turned ? p->out_channels : p->in_channels;
    s->columns = s->turned ? p->in_channels : p->out_channels;
    s->weight = *p;
    if (s->turned)
        fc_swap(&s->weight.weight_k, &s->weight.weight_c);
}

/* y: grad_y as it came, before rows were joined. */
static plan make_plan(const fc_problem *p, int pointwise, const fc_view *y)
{
    const int64_t item = (int64_t)p->item;
    plan s = {.p = p, .pointwise = pointwise, .taps = p->kernel_h * p->kernel_w, .panel = 2 * p->k->vector_lanes};
    choose_sides(&s);
    s.buffer_group = s.taps * p->in_channels * p->out_channels;
    s.buffer_slice = fc_round_up(s.buffer_group * p->groups, 16);
    choose_slices(&s, y);
    choose_block(&s, y);
    if (pointwise)
        set_pointwise_strips(&s);
    else
        set_strips(&s);
    s.panels = fc_ceil_div(s.columns, s.panel);
    s.row_units = s.merged ? p->kernel_h : s.taps;

    const int threads = fc_parallel_slots(INT64_MAX);
    const int64_t wanted = threads == 1 ? 1 : (int64_t)threads * TASKS_PER_THREAD;
    s.column_parts = fc_max(1, fc_min(s.panels, fc_ceil_div(wanted, s.slices * p->groups)));
    s.row_parts =
        s.single ? 1 : fc_max(1, fc_min(s.row_units, fc_ceil_div(wanted, s.slices * p->groups * s.column_parts)));
    s.thread_bytes = s.x_bytes + s.y_bytes;
    if (s.single) {
        s.buffer_slice = 0;
        s.thread_bytes += fc_round_up(s.taps * s.rows * s.panel * item, 64);
    }
    return s;
}

/* ---- strips ----------------------------------------------------------------------------------------------------------*/
typedef struct {
    int64_t n, h, w, images, rows, columns; /* of outputs */
} block;

typedef struct {
    const char *x, *y; /* of the block's first output */
} strips;

static strips load_strips(const plan *s, int64_t group, const block *b, char *scratch)
{
    const fc_problem *p = s->p;
    const int64_t item = (int64_t)p->item, x_channel = group * p->in_channels, y_channel = group * p->out_channels;
    const int64_t top = b->h * p->stride_h - p->pad_top, left = b->w * p->stride_w - p->pad_left;
    const fc_window x_window = {
        top,  fc_strip_extent(b->rows, p->kernel_h, p->stride_h, p->dilation_h),    p->kernel_h == 1 ? p->stride_h : 1,
        left, fc_strip_extent(b->columns, p->kernel_w, p->stride_w, p->dilation_w), p->kernel_w == 1 ? p->stride_w : 1,
    };
    const fc_window y_window = {b->h, b->rows, 1, b->w, b->columns, 1};
    const fc_pitch x_pitch = {s->x_row, s->x_pixel, 1}, y_pitch = {s->y_row, s->y_pixel, 1};
    for (int64_t i = 0; i < b->images; i++) {
        const fc_image x = fc_image_of(&p->x, p->item, b->n + i, x_channel, p->in_channels);
        const fc_image y = fc_image_of(&p->y, p->item, b->n + i, y_channel, p->out_channels);
        if (!s->x_in_place)
            fc_load_window(p->k, p->item, &x, &x_window, scratch + i * s->x_image * item, &x_pitch);
        if (!s->y_in_place)
            fc_load_window(p->k, p->item, &y, &y_window, scratch + s->x_bytes + i * s->y_image * item, &y_pitch);
    }
    strips t = {scratch, scratch + s->x_bytes};
    if (s->x_in_place)
        t.x =
            (char *)p->x.data + (b->n * p->x.stride_n + x_channel + top * p->x.stride_h + left * p->x.stride_w) * item;
    if (s->y_in_place)
        t.y =
            (char *)p->y.data + (b->n * p->y.stride_n + y_channel + b->h * p->y.stride_h + b->w * p->y.stride_w) * item;
    return t;
}

/* A part of the weight: tap units [first, last), columns [k0, k0 + columns) of a group. */
typedef struct {
    int64_t group, first, last, k0, columns;
} part;

static fc_gemm_at turn(const fc_gemm_at *g)
{
    fc_gemm_at t = *g;
    t.a = g->b, t.a_image = g->b_image, t.a_line = g->b_line, t.a_step = g->b_step;
    t.b = g->a, t.b_image = g->a_image, t.b_line = g->a_line, t.b_step = g->a_step;
    return t;
}

/* c[unit][..row][column] (+)= the block's products for a part of the weight. */
static void add_products(const plan *s, const block *b, const strips *t, const part *of, char *c, int64_t c_row,
                         int accumulate)
{
    const fc_problem *p = s->p;
    const int64_t item = (int64_t)p->item;
    fc_gemm_at product = {
        .a_image = s->x_image,
        .a_line = s->x_step_h * s->x_row,
        .a_step = s->x_step_w * s->x_pixel,
        .b = t->y,
        .b_image = s->y_image,
        .b_line = s->y_row,
        .b_step = s->y_pixel,
        .images = b->images,
        .lines = b->rows,
        .depth = b->columns,
        .c_row = c_row,
        .rows = s->merged ? p->kernel_w * s->rows : s->rows,
        .columns = of->columns,
        .accumulate = accumulate,
    };
    for (int64_t unit = of->first; unit < of->last; unit++) {
        const int64_t u = s->merged ? unit : unit / p->kernel_w, v = s->merged ? 0 : unit % p->kernel_w;
        product.a = t->x + (u * p->dilation_h * s->x_row + v * p->dilation_w * s->x_pixel) * item;
        product.c = c + unit * product.rows * c_row * item;
        fc_gemm_at q = s->turned ? turn(&product) : product;
        q.b = (const char *)q.b + of->k0 * item;
        p->k->gemm->at(&q);
    }
}

static void unpack_panel(void *context, int64_t task, int slot)
{
    (void)slot;
    const plan *s = context;
    const int64_t group = task / s->panels, k0 = task % s->panels * s->panel, width = s->columns;
    const char *from = s->buffer + (group * s->buffer_group + k0) * (int64_t)s->p->item;
    fc_unpack_weights(&s->weight, group, k0, fc_min(s->panel, width - k0), 0, s->rows, from, width, s->rows * width);
}

/* ---- pointwise: the same with x[channel][pixel] and one panel of y at a time -----------------------------------------*/
static void load_pixels(const plan *s, const fc_view *v, const block *b, int64_t channel, int64_t channels, char *to,
                        fc_pitch pitch, int64_t image)
{
    const fc_window window = {b->h, b->rows, 1, b->w, b->columns, 1};
    for (int64_t i = 0; i < b->images; i++) {
        const fc_image from = fc_image_of(v, s->p->item, b->n + i, channel, channels);
        fc_load_window(s->p->k, s->p->item, &from, &window, to + i * image * (int64_t)s->p->item, &pitch);
    }
}

/* c[channel of x][k] (+)= sum over the block's pixels, panel by panel. */
static void add_pixels(const plan *s, const block *b, const part *of, char *scratch, char *c, int64_t c_row,
                       int accumulate)
{
    const fc_problem *p = s->p;
    const int64_t item = (int64_t)p->item, lanes = p->k->vector_lanes, plane = b->rows * b->columns;
    char *panel = scratch + s->x_bytes;
    for (int64_t k = 0; k < of->columns; k += s->panel) {
        const int64_t count = fc_min(s->panel, of->columns - k), width = count > lanes ? s->panel : lanes;
        load_pixels(s, &p->y, b, of->group * p->out_channels + of->k0 + k, count, panel,
                    (fc_pitch){b->columns * width, width, 1}, plane * width);
        const fc_gemm product = {
            .a = scratch,
            .a_row = s->x_pixel,
            .taps_h = 1,
            .taps_w = 1,
            .length = b->images * plane,
            .b = panel,
            .y = c + k * item,
            .y_row = c_row,
            .columns = (int)count,
            .accumulate = accumulate,
        };
        p->k->gemm->rows(&product, p->in_channels);
    }
}

static strips load_block(const plan *s, const block *b, int64_t group, char *scratch)
{
    if (!s->pointwise)
        return load_strips(s, group, b, scratch);
    const fc_pitch pitch = {b->columns, 1, s->x_pixel};
    load_pixels(s, &s->p->x, b, group * s->p->in_channels, s->p->in_channels, scratch, pitch, b->rows * b->columns);
    return (strips){scratch, NULL};
}

/* The block is loaded. */
static void add_block(const plan *s, const block *b, const strips *t, const part *of, char *scratch, char *c,
                      int64_t c_row, int accumulate)
{
    if (s->pointwise)
        add_pixels(s, b, of, scratch, c, c_row, accumulate);
    else
        add_products(s, b, t, of, c, c_row, accumulate);
}

/* ---- one block: (group, part of the panels) ------------------------------------------------------------------------*/
static void run_single(void *context, int64_t task, int slot)
{
    const plan *s = context;
    const fc_problem *p = s->p;
    const int64_t piece = task % s->column_parts, group = task / s->column_parts;
    const block all = {0, 0, 0, p->y.n, p->y.h, p->y.w};
    char *scratch = s->threads + slot * s->thread_bytes, *sum = scratch + s->x_bytes + s->y_bytes;
    const strips t = load_block(s, &all, group, scratch);
    for (int64_t panel = piece * s->panels / s->column_parts; panel < (piece + 1) * s->panels / s->column_parts;
         panel++) {
        const int64_t k0 = panel * s->panel;
        const part of = {group, 0, s->row_units, k0, fc_min(s->panel, s->columns - k0)};
        if (s->pointwise && p->weight_k == 1) { /* c[channel of x][k] is a piece of the weight itself */
            char *to = (char *)p->weight + (group * p->weight_g + k0) * (int64_t)p->item;
            add_block(s, &all, &t, &of, scratch, to, p->weight_c, 0);
            continue;
        }
        add_block(s, &all, &t, &of, scratch, sum, s->panel, 0);
        fc_unpack_weights(&s->weight, group, k0, of.columns, 0, s->rows, sum, s->panel, s->rows * s->panel);
    }
}

/* ---- many blocks: (slice, group, part of the panels, part of the taps) ----------------------------------------------*/
/* Where a line of the shape starts, counted in pixels of the batch. */
static int64_t first_pixel(const plan *s, int64_t line)
{
    return line / s->pieces * s->row_pixels + line % s->pieces * s->line_pixels;
}

/* The largest block that starts at `pixel` and ends by `end`. */
static block block_at(const plan *s, int64_t pixel, int64_t end)
{
    const fc_view *y = &s->p->y;
    const int64_t row = pixel / y->w, left = end - pixel;
    block b = {.n = row / y->h, .h = row % y->h, .w = pixel % y->w, .images = 1, .rows = 1};
    b.columns = fc_min(fc_min(s->block_w, y->w - b.w), left);
    if (b.columns < y->w)
        return b;
    b.rows = fc_min(fc_min(s->block_h, y->h - b.h), left / y->w);
    if (b.rows == y->h)
        b.images = fc_min(s->block_n, left / (y->h * y->w));
    return b;
}

static void run_slice(void *context, int64_t task, int slot)
{
    const plan *s = context;
    const fc_problem *p = s->p;
    const int64_t row_part = task % s->row_parts, column_part = task / s->row_parts % s->column_parts;
    const int64_t group = task / (s->row_parts * s->column_parts) % p->groups;
    const int64_t slice = task / (s->row_parts * s->column_parts * p->groups);
    const int64_t k0 = column_part * s->panels / s->column_parts * s->panel;
    const int64_t k1 = fc_min(s->columns, (column_part + 1) * s->panels / s->column_parts * s->panel);
    const int64_t first = row_part * s->row_units / s->row_parts, last = (row_part + 1) * s->row_units / s->row_parts;
    const part of = {group, first, last, k0, k1 - k0};
    const int64_t begin = first_pixel(s, slice * s->lines / s->slices),
                  end = first_pixel(s, (slice + 1) * s->lines / s->slices);
    char *scratch = s->threads + slot * s->thread_bytes;
    char *sum = s->buffer + (slice * s->buffer_slice + group * s->buffer_group + k0) * (int64_t)p->item;
    for (int64_t pixel = begin; pixel < end;) {
        const block b = block_at(s, pixel, end);
        const strips t = load_block(s, &b, group, scratch);
        add_block(s, &b, &t, &of, scratch, sum, s->columns, pixel > begin);
        pixel += b.images * b.rows * b.columns;
    }
}

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
    const int64_t begin = task * ADD_ELEMENTS, end = fc_min(begin + ADD_ELEMENTS, s->p->groups * s->buffer_group);
    if (s->p->item == 4) {
        ADD_SLICES(float)
    } else {
        ADD_SLICES(double)
    }
}

/* An unpadded 1x1 problem of enough channels that copying both sides is cheap; turned so that x has the fewer. With few
 * pixels the time goes into writing the weight, whose rows (k) the unturned problem writes in long runs. */
static int make_pointwise(fc_problem *p)
{
    enum { MIN_CHANNELS = 32, MIN_PIXELS = 128 };
    if (p->kernel_h * p->kernel_w != 1 || p->pad_top || p->pad_left || !fc_sees_no_padding(p) ||
        fc_min(p->in_channels, p->out_channels) < MIN_CHANNELS)
        return 0;
    p->x.h = p->y.h, p->x.w = p->y.w;
    p->x.stride_h *= p->stride_h, p->x.stride_w *= p->stride_w;
    p->stride_h = p->stride_w = p->dilation_h = p->dilation_w = 1;
    if (p->in_channels > p->out_channels && p->y.n * p->y.h * p->y.w >= MIN_PIXELS) {
        const fc_problem q = *p;
        p->x = q.y, p->y = q.x;
        p->in_channels = q.out_channels, p->out_channels = q.in_channels;
        p->weight_k = q.weight_c, p->weight_c = q.weight_k;
    }
    fc_unroll_rows(p);
    return 1;
}

fc_status fc_conv_direct_grad_weight(const fc_problem *problem)
{
    fc_problem copy = *problem;
    const int pointwise = make_pointwise(&copy);
    const fc_problem *p = &copy;
    plan s = make_plan(p, pointwise, &problem->y);
    const int64_t tasks = s.slices * p->groups * s.column_parts * s.row_parts;
    const int64_t buffer = fc_round_up(s.slices * s.buffer_slice * (int64_t)p->item, 64);
    const int slots = fc_parallel_slots(tasks);
    s.buffer = fc_scratch_acquire_parts(buffer, slots, s.thread_bytes);
    if (!s.buffer)
        return FC_ENOMEM;
    s.threads = s.buffer + buffer;
    if (s.single) {
        fc_parallel_in(slots, tasks, run_single, &s);
    } else {
        fc_parallel_in(slots, tasks, run_slice, &s);
        if (s.slices > 1)
            fc_parallel(fc_ceil_div(p->groups * s.buffer_group, ADD_ELEMENTS), add_slices, &s);
        fc_parallel(p->groups * s.panels, unpack_panel, &s);
    }
    fc_scratch_release(s.buffer);
    return FC_OK;
}
