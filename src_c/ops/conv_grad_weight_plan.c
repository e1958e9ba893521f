/* conv_grad_weight_plan.c: slices, blocks and memory of the gradient of a weight (conv_grad_weight.c). */
#include "conv_grad_weight.h"

#include "../threads.h"

enum {
    MAX_SLICES = 16,
    SLICE_BUFFER_BYTES = 8 << 20, /* all slices together */
    /* Of a slice: one block, so that none is cut (4 rows of 56, 8 of 28, 16 of 14); with fewer, adding the buffers
     * costs more than the sum. */
    SLICE_PIXELS = 224,
    /* Of a slice of a 1x1 kernel: the buffer of a slice is written and read, 8 bytes at 30 GB/s, and multiplied for
     * each pixel at 90e9 a second (Emerald Rapids): 2.3 % of it. But with the panels there are so many tasks. */
    POINTWISE_PIXELS = 1024,
    POINTWISE_TASKS = 8,
    /* The columns of grad_y under a tile, BLOCK_PIXELS x 2 vectors of 64 B, stay in 32 KiB of L1. */
    BLOCK_PIXELS = 256,
    PAGE = 4096,
    /* Pixels a multiple of this apart share 8 of the 64 sets of L1, where 64 of a block's lines fit. */
    ALIASING_BYTES = 512,
    MIN_CHANNELS = 32, /* of an x that is worth a copy */
    MIN_TILES = 8, /* that meet a panel of grad_y, for a copy of it to pay */
};

/* Columns of the near-equal pieces of a row. */
static int64_t piece_of(int64_t columns)
{
    return columns > 2 * BLOCK_PIXELS ? fc_ceil_div(columns, fc_ceil_div(columns, BLOCK_PIXELS)) : columns;
}

/* Lines are those of the shape (y: grad_y as it came), not of the layout, which decides whether rows can be joined.
 * Small images of a pointwise problem are one line each, as if their rows were always joined. */
static void choose_slices(fc_grad_weight_plan *s, const fc_view *y)
{
    const int joined = s->pointwise && y->h * y->w <= 2 * BLOCK_PIXELS;
    s->row_pixels = joined ? y->h * y->w : y->w;
    s->line_pixels = piece_of(s->row_pixels);
    s->pieces = fc_ceil_div(s->row_pixels, s->line_pixels);
    const int64_t pixels = y->n * y->h * y->w;
    s->lines = pixels / s->row_pixels * s->pieces;
    s->slices = fc_min(MAX_SLICES, SLICE_BUFFER_BYTES / fc_max(1, s->buffer_slice * (int64_t)s->p->item));
    s->slices = fc_max(1, fc_min(fc_min(s->slices, fc_ceil_div(s->lines * s->line_pixels, SLICE_PIXELS)), s->lines));
    if (s->pointwise) { /* pieces of the columns make tasks as well */
        const int64_t tasks = fc_ceil_div(POINTWISE_TASKS, fc_ceil_div(s->p->out_channels, s->panel));
        s->slices = fc_min(s->slices, fc_max(tasks, fc_ceil_div(pixels, POINTWISE_PIXELS)));
    }
    if (pixels <= 2 * BLOCK_PIXELS) /* a single block in some layouts */
        s->slices = 1;
}

/* Rows of a block whose strip has half as many more. */
static int64_t gathered_rows(const fc_problem *p) { return 2 * (p->kernel_h - 1) * p->dilation_h / p->stride_h; }

/* Whether taps of few channels that a dilation keeps apart are copied beside each other: a tile of so few rows would
 * wait for its sums (LATENCY) and load as often as it multiplies. The strip of a block stays in the second-level
 * cache. */
static int gathers(const fc_problem *p)
{
    enum { FEW = 3, TAPS = 3 << 12 }; /* of all pixels of a block: 3 channels of them are 144 KiB */
    return p->kernel_w > 1 && p->dilation_w > 1 && p->in_channels <= FEW &&
           gathered_rows(p) * p->y.w <= TAPS / p->kernel_w;
}

static void choose_block(fc_grad_weight_plan *s, const fc_view *y)
{
    const fc_problem *p = s->p;
    s->block_w = piece_of(p->y.w);
    const int whole_rows = s->block_w == p->y.w;
    if (!whole_rows && p->y.w > y->w) /* joined rows: near-equal pieces of a slice */
        s->block_w = fc_min(p->y.w, piece_of(fc_ceil_div(s->lines, s->slices) * s->line_pixels));
    s->block_h = whole_rows ? fc_min(p->y.h, fc_ceil_div(BLOCK_PIXELS, p->y.w)) : 1;
    if (whole_rows && gathers(p))
        s->block_h = fc_max(s->block_h, fc_min(fc_ceil_div(p->y.h, 2), gathered_rows(p)));
    s->block_n = whole_rows && s->block_h == p->y.h ? fc_min(p->y.n, fc_ceil_div(BLOCK_PIXELS, p->y.h * p->y.w)) : 1;
    s->single = whole_rows && s->block_h == p->y.h && s->block_n == p->y.n;
}

static void set_pointwise_strips(fc_grad_weight_plan *s)
{
    const int64_t item = (int64_t)s->p->item, pixels = s->block_n * s->block_h * s->block_w;
    s->x_pixel = fc_round_up(pixels, 16) + 16; /* pitch of a channel: never a multiple of a cache line's power of two */
    s->x_bytes = fc_round_up(s->p->in_channels * s->x_pixel * item, 64);
    s->y_bytes = fc_round_up(pixels * s->panel * item, 64);
}

/* Whether a block of pixels is read as it lies. Its neighbours may share sets of the first-level cache: 12 ways hold
 * them, and a tile of 64-byte vectors multiplies so long for each pixel, 14 cycles and more, that its 3 or 4 lines may
 * come from the second level. */
static int takes_pixels(const fc_problem *p) { return fc_has_wide_l1() || fc_has_line_vectors(p); }

/* Rows of pixels without gaps. Not so that each pixel is in another page. */
static int is_dense(const fc_problem *p)
{
    return takes_pixels(p) && p->x.n * p->x.h == 1 && p->y.n * p->y.h == 1 && p->x.stride_c == 1 &&
           p->y.stride_c == 1 && p->x.stride_w == p->in_channels && p->y.stride_w == p->out_channels &&
           p->in_channels * (int64_t)p->item % PAGE != 0;
}

static void set_dense_strips(fc_grad_weight_plan *s)
{
    enum {
        LEAST_PIXELS = 64, /* of a block: the sums come and go in 56 of the 14 * 64 cycles of a tile */
        FAR_PANELS = 32, /* in a pixel of grad_y: two lines each, so far apart, come slowly, and the panel is copied */
    };
    const fc_problem *p = s->p;
    const int64_t item = (int64_t)p->item;
    s->x_in_place = s->merged = 1;
    s->y_in_place = p->out_channels < FAR_PANELS * s->panel;
    const int64_t channels = p->in_channels + (s->y_in_place ? p->out_channels : s->panel);
    s->rows = p->in_channels;
    s->x_step_h = s->x_step_w = 1;
    s->x_pixel = p->in_channels;
    if (!s->single) /* it and the next block stay in half of the second-level cache */
        while (s->block_w > LEAST_PIXELS && s->block_w * channels * item > fc_l2_bytes() / 4)
            s->block_w /= 2;
    s->y_bytes = s->y_in_place ? 0 : fc_round_up(s->block_w * s->panel * item, FC_LINE_BYTES);
}

/* Multiplications of vectors per pixel. A tile of fewer than LATENCY takes as long: the next ones wait for its sums. */
enum { LATENCY = 8 }; /* 4 cycles, 2 multiplications per cycle */

static int64_t product_cost(const fc_problem *p, int64_t rows, int64_t columns)
{
    const int64_t vectors = fc_ceil_div(columns, p->k->vector_lanes);
    return vectors / 2 * fc_max(LATENCY, 2 * rows) + vectors % 2 * fc_max(LATENCY, rows);
}

int64_t fc_direct_grad_weight_cost(const fc_problem *p)
{
    const int64_t units = p->dilation_w == 1 || gathers(p) ? 1 : p->kernel_w,
                  rows = p->kernel_w / units * p->in_channels;
    return units * fc_min(product_cost(p, rows, p->out_channels), product_cost(p, p->out_channels, rows));
}

/* Whether lanes are better used by the `rows` (v, c) than by the output channels. */
static int turns(const fc_problem *p, int64_t rows)
{
    enum { MAX_ROWS = 1024 }; /* between the sums of two output channels: with 4 KiB and more they share cache sets */
    const int64_t straight = product_cost(p, rows, p->out_channels), turned = product_cost(p, p->out_channels, rows);
    return rows <= MAX_ROWS && p->out_channels <= 2 * p->k->vector_lanes &&
           (straight > turned || (straight == LATENCY && rows > p->out_channels));
}

/* The same with what a tile does for a pixel beside its multiplications: two loads and a step. */
static int64_t pixel_cost(const fc_problem *p, int64_t rows, int64_t columns)
{
    enum { STEP = 2 };
    const int64_t tiles = fc_ceil_div(rows, p->k->gemm->max_rows) * fc_ceil_div(columns, 2 * p->k->vector_lanes);
    return product_cost(p, rows, columns) + tiles * STEP;
}

/* Whether every column of outputs sees one of x: the first ones' last tap does not end before x, the last ones' first
 * tap begins in it, and taps are not so far apart that x lies between two. An infinite grad_y makes the weight's
 * gradient infinite or NaN then, whether or not it meets padding too, and the call takes the same way in every memory
 * format. */
static int all_columns_see_x(const fc_problem *p)
{
    return p->pad_left <= (p->kernel_w - 1) * p->dilation_w && (p->y.w - 1) * p->stride_w - p->pad_left < p->x.w &&
           p->dilation_w <= p->x.w;
}

/* Whether the products of each tap by itself, which leave out the padding and so read x where it lies, take no longer
 * than those of a row of taps and its copy (COPY: conv_choose.c). Tiles of few outputs wait for lines of pixels that
 * share a quarter of the sets of the first-level cache, two lines each (5x5, 64 -> 1 and 3 channels at 57x57, Zen 4:
 * 0.76 of the speed). */
static int pays_apart(const fc_problem *p)
{
    enum { COPY = 4, FEW = 4, FAR = 256 };
    if (!all_columns_see_x(p) || (p->out_channels < FEW && p->stride_w * p->x.stride_w * (int64_t)p->item % FAR == 0))
        return 0;
    const int64_t row = p->kernel_w * p->in_channels, c = p->in_channels, k = p->out_channels,
                  joined = fc_min(pixel_cost(p, row, k), pixel_cost(p, k, row)),
                  apart = p->kernel_w * fc_min(pixel_cost(p, c, k), pixel_cost(p, k, c)),
                  copy = p->stride_h * p->stride_w * fc_ceil_div(c, p->k->vector_lanes) * COPY;
    return p->dilation_w > 1 || apart <= joined + copy / p->kernel_h;
}

/* Whether x at neighbouring outputs, `step` elements apart, shares too few cache sets, and channels are so many that
 * tiles need not join them with the taps of a row. */
static int aliases(const fc_grad_weight_plan *s, int64_t step)
{
    return s->p->in_channels >= MIN_CHANNELS && step * (int64_t)s->p->item % s->aliasing == 0;
}

static void set_strips(fc_grad_weight_plan *s)
{
    const fc_problem *p = s->p;
    const int64_t item = (int64_t)p->item, rows = fc_strip_extent(s->block_h, p->kernel_h, p->stride_h, p->dilation_h);
    s->gathered = gathers(p);
    const int inside = fc_sees_no_padding(p);
    s->x_in_place =
        !s->gathered && p->x.stride_c == 1 && (inside || pays_apart(p)) && !aliases(s, p->stride_w * p->x.stride_w);
    s->x_step_h = s->x_in_place || p->kernel_h > 1 ? p->stride_h : 1;
    s->x_step_w = s->x_in_place || p->kernel_w > 1 ? p->stride_w : 1;
    if (s->gathered)
        s->x_step_w = 1;
    s->x_pixel = s->x_in_place ? p->x.stride_w : s->gathered ? p->kernel_w * p->in_channels : p->in_channels;
    if (!s->x_in_place && aliases(s, s->x_step_w * s->x_pixel)) /* neighbours a line further than they were */
        s->x_pixel += fc_ceil_div(FC_LINE_BYTES, s->x_step_w * item);
    const int64_t pixels =
        s->gathered ? s->block_w : fc_strip_extent(s->block_w, p->kernel_w, p->stride_w, p->dilation_w);
    s->x_row = s->x_in_place ? p->x.stride_h : pixels * s->x_pixel;
    s->x_image = s->x_in_place ? p->x.stride_n : rows * s->x_row;
    s->merged = s->gathered || (p->dilation_w == 1 && s->x_pixel == p->in_channels && (inside || !s->x_in_place));
    s->rows = s->merged ? p->kernel_w * p->in_channels : p->in_channels;
    s->turned = !s->pointwise && turns(p, s->rows);
    const int64_t tiles = (s->merged ? p->kernel_h : s->taps) * fc_ceil_div(s->rows, p->k->gemm->max_rows);
    s->y_in_place = p->y.stride_c == 1 && (s->turned || tiles < MIN_TILES || p->y.stride_w * item % s->aliasing);
    s->x_bytes = s->x_in_place ? 0 : fc_round_up(s->block_n * s->x_image * item, 64);
    s->y_bytes = s->y_in_place ? 0 : fc_round_up(s->block_n * s->block_h * s->block_w * s->panel * item, 64);
}

/* An unpadded 1x1 problem of enough channels that copying both sides is cheap; turned so that x has the fewer. With few
 * pixels the time goes into writing the weight: then turned so that lanes are the channels that are neighbours in
 * it. */
static int make_pointwise(fc_problem *p)
{
    if (p->kernel_h * p->kernel_w != 1 || p->pad_top || p->pad_left || !fc_sees_no_padding(p) ||
        fc_min(p->in_channels, p->out_channels) < MIN_CHANNELS)
        return 0;
    p->x.h = p->y.h, p->x.w = p->y.w;
    p->x.stride_h *= p->stride_h, p->x.stride_w *= p->stride_w;
    p->stride_h = p->stride_w = p->dilation_h = p->dilation_w = 1;
    const int few = p->y.n * p->y.h * p->y.w <= 2 * BLOCK_PIXELS;
    if (few ? p->weight_c == 1 : p->in_channels > p->out_channels) {
        const fc_problem q = *p;
        p->x = q.y, p->y = q.x;
        p->in_channels = q.out_channels, p->out_channels = q.in_channels;
        p->weight_k = q.weight_c, p->weight_c = q.weight_k;
    }
    fc_unroll_rows(p);
    return 1;
}

/* Taps, and where these are too few pieces of their channels, where slices, groups and panels do not make enough tasks.
 * Of one block that costs a way through memory: only where some threads would have less to do than others. */
static void share_out_taps(fc_grad_weight_plan *s, int64_t others, int64_t wanted)
{
    enum { LEAST_VECTORS = 2 }; /* of a piece: two register tiles, or one turned */
    const int64_t units = s->merged ? s->p->kernel_h : s->taps,
                  parts = s->single && others % fc_parallel_slots(INT64_MAX) == 0 ? 1 : fc_ceil_div(wanted, others),
                  pieces = s->rows / (LEAST_VECTORS * s->p->k->vector_lanes);
    const int splits = !s->transposed && (s->x_bytes == 0 || s->single);
    s->splits = splits ? fc_max(1, fc_min(pieces, fc_ceil_div(parts, units))) : 1;
    s->row_units = units * s->splits;
    s->row_parts = fc_max(1, fc_min(s->row_units, parts));
}

fc_grad_weight_plan fc_plan_grad_weight(fc_problem *p)
{
    const fc_view y = p->y;
    const int pointwise = make_pointwise(p);
    const int64_t item = (int64_t)p->item;
    fc_grad_weight_plan s = {
        .p = p, .pointwise = pointwise, .taps = p->kernel_h * p->kernel_w, .panel = 2 * p->k->vector_lanes};
    s.buffer_group = s.taps * p->in_channels * p->out_channels;
    s.buffer_slice = fc_round_up(s.buffer_group * p->groups, 16);
    choose_slices(&s, &y);
    choose_block(&s, &y);
    s.dense = pointwise && is_dense(p);
    s.aliasing = pointwise ? PAGE : ALIASING_BYTES;
    s.transposed = pointwise && !takes_pixels(p);
    if (s.dense)
        set_dense_strips(&s);
    else if (s.transposed)
        set_pointwise_strips(&s);
    else
        set_strips(&s);
    s.panels = fc_ceil_div(p->out_channels, s.panel);

    /* each task loads an x that is neither in place nor shared */
    const int64_t tasks = fc_parallel_tasks(), threads = fc_parallel_slots(INT64_MAX),
                  wanted = s.x_bytes == 0 || s.single ? tasks
                           : pointwise                ? threads
                                                      : fc_ceil_div(tasks, 2);
    s.column_parts = fc_max(1, fc_min(s.panels, fc_ceil_div(wanted, s.slices * p->groups)));
    share_out_taps(&s, s.slices * p->groups * s.column_parts, wanted);
    s.at_once = s.single && s.row_parts == 1;
    s.shared = s.single && s.column_parts * s.row_parts > 1 && s.x_bytes > 0;
    s.thread_bytes = (s.shared ? 0 : s.x_bytes) + s.y_bytes;
    s.unpack_parts = fc_min(s.turned ? p->out_channels : p->in_channels, fc_ceil_div(threads, p->groups * s.panels));
    if (s.at_once) {
        s.buffer_slice = 0;
        s.thread_bytes += fc_round_up(s.taps * p->in_channels * s.panel * item, 64);
    }
    return s;
}
