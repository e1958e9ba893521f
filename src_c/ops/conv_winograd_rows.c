/* conv_winograd_rows.c: convolution of few input channels by Winograd along the row only: F(4, 3) and F(2, 5), 6
 * multiplications per 4 or 2 outputs of each row of taps, instead of 12 or 10.
 *
 * Of few channels the products of F(4 x 4, 3 x 3) are fewer than what the transforms of its outputs cost, and its
 * rounding error is 3 times that of a plain sum. Here the sum of a point is one over rows of taps and channels, so it
 * is long enough to be worth 13 operations that turn 6 points into 4 outputs, and stays in registers until then; its
 * error is 1.2 to 2 times that of a plain sum (docs/accuracy.md).
 *
 * A task transforms the rows of x under a block of outputs, whose tiles are few enough that v of the rows that some
 * rows of outputs see stays in the first-level cache, and goes down the rows.
 *
 *     v[row][part][tile][e][c] = B' x, c within a cache line, whole parts if there are several
 *     u[panel][r][c][e][k]     = G w
 *     y[row][tile]             = A' sum_{r,c} v[row + r][part][tile][e][c] u[r][c][e][k], with the epilogue
 *
 * Rows of taps that lie in the padding are left out: images of two rows are best off so with many channels too.
 *
 * A dilation of columns makes several images of one, whose columns are so far apart.
 */
#include "../threads.h"
#include "conv_winograd.h"

#include <string.h>

enum {
    TOGETHER = 4, /* rows of outputs that meet a panel of weights before the next, and go to planes together */
    WINDOW_BYTES = 24 << 10, /* of v that they see, in the first-level cache beside a panel */
    MAX_ROWS = 32, /* of a block: what neighbours both transform is little */
    MAX_CHANNELS = 64, /* measured up to these */
    LEAST_BLOCK = 5, /* tiles: a group of AVX-512, nearly one of AVX2, 6 */
    POINTS = FC_WINOGRAD_TILE,
};

typedef struct {
    const fc_problem *p;
    const fc_winograd_kernels *k;
    int64_t size; /* outputs of a tile */
    int64_t lanes, panel, panels;
    int64_t residues, tiles; /* of columns; tiles of a row of the first one */
    int64_t block_w, count_w, block_h, count_h; /* tiles, rows */
    int64_t part, parts; /* of channels */
    int64_t v_row, v_part; /* elements */
    int64_t strip_bytes, v_bytes, line_bytes, pack_bytes, thread_bytes;
    int y_in_place, stream;
    const char *u;
    char *to; /* u, while it is made */
    char *threads;
    atomic_char *spoilt; /* spoilt[image]: holds NaN or infinity */
} plan;

static int64_t bytes_of(const fc_problem *p, int64_t elements)
{
    return fc_round_up(elements * (int64_t)p->item, FC_LINE_BYTES);
}

int fc_conv_winograd_rows_serves(const fc_problem *p)
{
    enum { MAX_ROWS_OF_TAPS = 16 };
    const fc_winograd_kernels *k = p->k->winograd_line;
    const int parts = p->in_channels <= k->line || (p->in_channels % k->line == 0 && p->dilation_h == 1);
    return parts && p->kernel_w <= FC_WINOGRAD_MAX_KERNEL && k->rows[p->kernel_w] && p->kernel_h > 1 &&
           p->kernel_h <= MAX_ROWS_OF_TAPS && p->stride_w == 1 && p->in_channels <= MAX_CHANNELS &&
           (p->stride_h == 1 || (p->stride_h <= p->kernel_h && p->dilation_h == 1));
}

/* Tiles of all residues of columns in a row. */
int64_t fc_winograd_rows_tiles(const fc_problem *p)
{
    const int64_t size = FC_WINOGRAD_TILE + 1 - p->kernel_w, residues = fc_min(p->dilation_w, p->y.w),
                  longer = p->y.w % residues;
    return longer * fc_ceil_div(p->y.w / residues + 1, size) +
           (residues - longer) * fc_ceil_div(p->y.w / residues, size);
}

static int64_t rows_seen(const fc_problem *p, int64_t rows)
{
    return fc_extent(rows, p->kernel_h, p->stride_h, p->dilation_h);
}

/* Elements of a row of pixels under so many tiles, a part of their channels. */
static int64_t strip_row(const plan *s, int64_t tiles) { return (tiles * s->size + s->p->kernel_w - 1) * s->part; }

/* Columns are cut by the shape alone: how tiles are grouped must not depend on threads. */
static __attribute__((noinline)) plan make_plan(const fc_problem *p)
{
    const fc_winograd_kernels *k = p->k->winograd_line;
    plan s = {.p = p,
              .k = k,
              .size = FC_WINOGRAD_TILE + 1 - p->kernel_w,
              .lanes = p->k->vector_lanes,
              .residues = fc_min(p->dilation_w, p->y.w),
              .y_in_place = p->y.stride_c == 1,
              .stream = fc_streams(p)};
    s.panel = k->rows_vectors * s.lanes;
    s.panels = fc_ceil_div(p->out_channels, s.panel);
    s.tiles = fc_ceil_div(fc_ceil_div(p->y.w, s.residues), s.size);
    s.part = fc_min(p->in_channels, k->line);
    s.parts = p->in_channels / s.part;
    /* A residue of rows may have none: all that its outputs see is padding. */
    const int64_t tile = POINTS * k->line, seen = fc_max(1, fc_min(rows_seen(p, TOGETHER), p->x.h)),
                  window = seen * s.parts * tile,
                  most = fc_max(LEAST_BLOCK, WINDOW_BYTES / (window * (int64_t)p->item));
    s.count_w = fc_ceil_div(s.tiles, most);
    s.block_w = fc_ceil_div(s.tiles, s.count_w);
    const int64_t others = p->y.n * p->groups * s.residues * s.count_w, wanted = fc_parallel_tasks();
    s.count_h = fc_max(fc_ceil_div(p->y.h, MAX_ROWS),
                       fc_min(fc_ceil_div(wanted, others), fc_ceil_div(p->y.h * p->stride_h, 2 * p->kernel_h)));
    s.block_h = fc_ceil_div(p->y.h, s.count_h);
    s.count_h = fc_ceil_div(p->y.h, s.block_h);
    s.v_part = s.block_w * tile;
    s.v_row = s.parts * s.v_part;
    const int64_t rows = rows_seen(p, s.block_h), lines = fc_min(TOGETHER, s.block_h);
    s.strip_bytes = bytes_of(p, rows * strip_row(&s, s.block_w) + s.lanes);
    s.v_bytes = bytes_of(p, rows * s.v_row + FC_WINOGRAD_ROWS_SLACK * tile);
    s.line_bytes = s.y_in_place ? 0 : bytes_of(p, lines * s.block_w * s.size * s.panel);
    s.pack_bytes = p->packed ? 0 : bytes_of(p, p->kernel_h * p->kernel_w * p->in_channels * s.panel);
    s.thread_bytes = fc_max(s.strip_bytes + s.v_bytes + s.line_bytes, s.pack_bytes);
    return s;
}

/* ---- weights ----------------------------------------------------------------------------------------------------*/
static int64_t panel_width(const plan *s, int64_t panel)
{
    return fc_min(s->panel, fc_round_up(s->p->out_channels - panel * s->panel, s->lanes));
}

static int64_t panel_elements(const plan *s) { return s->p->kernel_h * s->p->in_channels * POINTS * s->panel; }

static void make_panel(void *context, int64_t task, int slot)
{
    const plan *s = context;
    const fc_problem *p = s->p;
    const int64_t item = (int64_t)p->item, group = task / s->panels, panel = task % s->panels, first = panel * s->panel;
    const int64_t width = panel_width(s, panel), columns = fc_min(width, p->out_channels - first),
                  tap = p->in_channels * width;
    char *taps = s->threads + slot * s->thread_bytes, *u = s->to + task * panel_elements(s) * item;
    if (columns < width)
        memset(taps, 0, (size_t)s->pack_bytes);
    fc_pack_weights(p, p->weight + (group * p->weight_g + first * p->weight_k) * item, p->in_channels, columns, taps,
                    width);
    for (int64_t r = 0; r < p->kernel_h; r++, taps += p->kernel_w * tap * item)
        for (int64_t c = 0; c < p->in_channels; c++, u += POINTS * width * item)
            s->k->weights[p->kernel_w](taps + c * width * item, 0, tap, width, u, width);
}

int64_t fc_packed_winograd_rows(const fc_problem *p)
{
    const plan s = make_plan(p);
    return p->groups * s.panels * panel_elements(&s);
}

fc_status fc_pack_winograd_rows(const fc_problem *p, char *to)
{
    plan s = make_plan(p);
    const int slots = fc_parallel_slots(p->groups * s.panels);
    if (!(s.threads = fc_scratch_acquire_parts(0, slots, s.thread_bytes)))
        return FC_ENOMEM;
    s.to = to;
    fc_parallel_in(slots, p->groups * s.panels, make_panel, &s);
    fc_scratch_release(s.threads);
    return FC_OK;
}

/* ---- blocks -----------------------------------------------------------------------------------------------------*/
typedef struct {
    int64_t n, group, h, rows, w, columns, tiles; /* outputs; columns are dilation_w apart */
    char *strip, *v, *line;
} block;

/* Of a residue that has no tile there: no columns. */
static block block_at(const plan *s, int64_t task, char *memory)
{
    const fc_problem *p = s->p;
    block b = {.strip = memory, .v = memory + s->strip_bytes};
    b.line = b.v + s->v_bytes;
    const int64_t first = task % s->count_w * s->block_w * s->size;
    task /= s->count_w;
    b.w = task % s->residues + first * p->dilation_w, task /= s->residues;
    b.h = task % s->count_h * s->block_h, task /= s->count_h;
    b.group = task % p->groups, b.n = task / p->groups;
    b.rows = fc_min(s->block_h, p->y.h - b.h);
    b.columns = b.w < p->y.w ? fc_min(s->block_w * s->size, fc_ceil_div(p->y.w - b.w, p->dilation_w)) : 0;
    b.tiles = fc_ceil_div(b.columns, s->size);
    return b;
}

static void transform_inputs(const plan *s, const block *b)
{
    const fc_problem *p = s->p;
    const int64_t item = (int64_t)p->item, rows = rows_seen(p, b->rows), row = strip_row(s, b->tiles),
                  top = b->h * p->stride_h - p->pad_top, first = fc_max(0, -top), end = fc_min(rows, p->x.h - top);
    const int64_t columns = b->tiles * s->size + p->kernel_w - 1;
    const fc_window window = {top + first, end - first, 1, b->w - p->pad_left, columns, p->dilation_w};
    for (int64_t part = 0; part < s->parts && first < end; part++) {
        const fc_image x = fc_image_of(&p->x, p->item, b->n, b->group * p->in_channels + part * s->part, s->part);
        char *v = b->v + (first * s->v_row + part * s->v_part) * item;
        fc_load_window(p->k, p->item, &x, &window, b->strip, &(fc_pitch){row, s->part, 1});
        if (!p->k->finite((end - first) * row, b->strip))
            atomic_store_explicit(&s->spoilt[b->n], 1, memory_order_relaxed);
        for (int64_t i = 0; i < end - first; i++, v += s->v_row * item)
            s->k->row_inputs(b->strip + i * row * item, s->size * s->part, s->part, b->tiles, v);
    }
}

/* Rows [h, h + rows) of a panel. */
static void multiply_rows(const plan *s, const block *b, int64_t panel, int64_t h, int64_t rows)
{
    const fc_problem *p = s->p;
    const fc_epilogue *e = &p->epilogue;
    const int64_t item = (int64_t)p->item, first = panel * s->panel, channel = b->group * p->out_channels + first,
                  width = panel_width(s, panel), columns = fc_min(width, p->out_channels - first);
    const fc_image y = fc_image_of(&p->y, p->item, b->n, channel, columns);
    const fc_pitch pitch = {b->columns * width, width, 1};
    const int64_t y_row = s->y_in_place ? y.stride_h : pitch.row;
    char *to = s->y_in_place ? y.data + (h * y.stride_h + b->w * y.stride_w) * item : b->line;
    const fc_winograd_output o = {.channels = columns,
                                  .scale = fc_at(e->scale, channel, p->item),
                                  .bias = fc_at(e->bias, channel, p->item),
                                  .lower = e->lower,
                                  .upper = e->upper,
                                  .residual_pixel = p->dilation_w * p->residual.stride_w,
                                  .y_pixel = s->y_in_place ? p->dilation_w * y.stride_w : pitch.pixel,
                                  .stream = s->stream};
    const char *u = s->u + (b->group * s->panels + panel) * panel_elements(s) * item;
    fc_winograd_lines g = {.row = s->parts > 1 ? s->v_part : p->dilation_h * s->v_row,
                           .channels = s->part,
                           .vectors = (int)(width / s->lanes)};
    for (int64_t i = h; i < h + rows; i++, to += y_row * item) {
        const fc_range seen = fc_taps_of_row(p, i);
        g.rows = fc_max(0, seen.end - seen.first) * s->parts; /* a part is one more */
        g.u = u + seen.first * p->in_channels * POINTS * width * item;
        g.v = b->v + ((i - b->h) * p->stride_h + seen.first * p->dilation_h) * s->v_row * item;
        s->k->rows[p->kernel_w](&g, &o, fc_residual_at(p, b->n, channel, i, b->w), to, b->columns);
    }
    if (!s->y_in_place)
        fc_store_window(p->k, p->item, &y, &(fc_window){h, rows, 1, b->w, b->columns, p->dilation_w}, b->line, &pitch);
}

static void run_block(void *context, int64_t task, int slot)
{
    const plan *s = context;
    const block b = block_at(s, task, s->threads + slot * s->thread_bytes);
    if (b.columns == 0)
        return;
    transform_inputs(s, &b);
    for (int64_t h = b.h, end = b.h + b.rows; h < end; h += TOGETHER)
        for (int64_t panel = 0; panel < s->panels; panel++)
            multiply_rows(s, &b, panel, h, fc_min(TOGETHER, end - h));
    if (s->stream)
        s->p->k->fence();
}

static fc_need need_of(const plan *s)
{
    const fc_problem *p = s->p;
    return (fc_need){fc_winograd_flags_bytes(p) +
                         (p->packed ? 0 : bytes_of(p, p->groups * s->panels * panel_elements(s))),
                     s->thread_bytes};
}

static fc_need need(const fc_problem *p)
{
    const plan s = make_plan(p);
    return need_of(&s);
}

fc_need fc_conv_winograd_rows_scratch(const fc_problem *p) { return fc_pixels_scratch(p, need); }

static fc_status run(const fc_problem *p)
{
    plan s = make_plan(p);
    const fc_need n = need_of(&s);
    const int64_t flags = fc_winograd_flags_bytes(p), tasks = p->y.n * p->groups * s.count_h * s.residues * s.count_w,
                  panels = p->groups * s.panels;
    const int slots = fc_parallel_slots(fc_max(tasks, panels));
    char *scratch = fc_scratch_acquire_parts(n.shared, slots, n.each);
    if (!scratch)
        return FC_ENOMEM;
    memset(scratch, 0, (size_t)flags);
    s.spoilt = (atomic_char *)scratch;
    s.to = scratch + flags;
    s.u = p->packed ? p->packed : s.to;
    s.threads = scratch + n.shared;
    if (!p->packed)
        fc_parallel_in(slots, panels, make_panel, &s);
    fc_parallel_in(slots, tasks, run_block, &s);
    const fc_status status = fc_winograd_repair(p, s.spoilt);
    fc_scratch_release(scratch);
    return status;
}

fc_status fc_conv_winograd_rows(const fc_problem *p) { return fc_run_on_pixels(p, run, need); }
