/* conv_direct.c: direct convolution on the tile kernel of kernels/gemm.h, cut as conv_direct_plan.c says.
 *
 * The output is cut into blocks (images x rows x columns) whose input window, the strip, stays in the second-level
 * cache. A strip is x itself when its channels are contiguous: tiles of a row end where outputs look outside, and tiles
 * that walk down the columns beside them leave out those taps. Otherwise, or where these columns are too many, it is a
 * zero-padded channels-last copy. For each panel of output channels the packed weights of the panel then meet every row
 * of the block:
 *
 *     for channel chunk: for panel: for image, row of the block: y[row][:][panel] (+)= strip[row ..] * weights[panel]
 *
 * A copied strip holds the channels of one chunk; where a thread comes to several parts of the panels of a block, it
 * keeps those of all chunks. A small 1x1 weight is one call of the tile kernel, which changes the
 * panel every few pixels.
 *
 * Taps in the padding are left out where that is cheap: rows of the kernel always; of a row those that no column of a
 * tile sees, and tiles are cut for that; where rows are short, a tile is one pixel of several images, which see the
 * same.
 *
 * The order of the sum of one output is (chunk, u, v, c) whatever the blocks are, so the bits do not depend on them.
 */
#include "conv_direct.h"

#include "../threads.h"

#include <string.h>

/* The tiles that fetch the next panel: a cache line every 4 steps. More at once would keep the lines of the first-level
 * cache that wait for the second from its own loads. With narrower vectors 4, each a whole line every 4 steps
 * (fc_ahead_every). */
enum { AHEAD_TILES = 8, AHEAD_TILES_NARROW = 4 };

/* ---- weights: [group][panel][u][v][c][column], zero beyond the last output channel --------------------------------*/
typedef struct {
    int64_t first, columns, width; /* output channels first .. first + columns - 1, packed in rows of width */
} panel_range;

static panel_range panel_at(const fc_problem *p, int64_t panel)
{
    const int64_t lanes = p->k->vector_lanes;
    panel_range r = {.first = panel * 2 * lanes};
    r.columns = panel + 1 < fc_panels(p) ? 2 * lanes : p->out_channels - r.first;
    r.width = fc_round_up(r.columns, lanes);
    return r;
}

static const char *weight_at(const fc_problem *p, int64_t group, const panel_range *r, int64_t c0)
{
    return p->weight + (group * p->weight_g + r->first * p->weight_k + c0 * p->weight_c) * (int64_t)p->item;
}

/* to[u][v][c][column] for channels [c0, c0 + channels) of one panel */
static void pack_channels(const fc_problem *p, int64_t group, const panel_range *r, int64_t c0, int64_t channels,
                          char *to)
{
    if (r->columns < r->width)
        memset(to, 0, (size_t)(fc_tap_count(p) * channels * r->width) * p->item);
    fc_pack_weights(p, weight_at(p, group, r, c0), channels, r->columns, to, r->width);
}

typedef struct {
    const fc_problem *p;
    char *to;
} pack_job;

static void pack_panel(void *context, int64_t task, int slot)
{
    (void)slot;
    const pack_job *j = context;
    const fc_problem *p = j->p;
    const int64_t panels = fc_panels(p), group = task / panels;
    const panel_range r = panel_at(p, task % panels);
    const int64_t at = group * fc_packed_direct(p) / p->groups + r.first * fc_tap_count(p) * p->in_channels;
    pack_channels(p, group, &r, 0, p->in_channels, j->to + at * (int64_t)p->item);
}

int64_t fc_packed_direct(const fc_problem *p)
{
    return p->groups * fc_tap_count(p) * p->in_channels * fc_round_up(p->out_channels, p->k->vector_lanes);
}

fc_status fc_pack_direct(const fc_problem *p, char *to)
{
    pack_job job = {p, to};
    fc_parallel(p->groups * fc_panels(p), pack_panel, &job);
    return FC_OK;
}

void fc_use_packed(fc_problem *p, const char *packed)
{
    p->packed = packed;
    p->packed_group = fc_packed_direct(p) / p->groups;
    p->packed_column = fc_tap_count(p) * p->in_channels;
    p->packed_first = 0;
    p->packed_v = p->in_channels;
    p->packed_u = p->kernel_w * p->in_channels;
}

void fc_expect_packed(fc_problem *p) { fc_use_packed(p, ""); }

/* ---- one block ---------------------------------------------------------------------------------------------------*/
typedef struct {
    int64_t n, g, h, w, images, rows, columns, part;
} block;

static block decode(const fc_direct_plan *s, int64_t task)
{
    block b;
    b.part = task % s->parts, task /= s->parts;
    b.w = task % s->count_w * s->block_w, task /= s->count_w;
    const int64_t h = task % s->count_h, rows = s->p->y.h; /* near-equal */
    b.h = h * rows / s->count_h, b.rows = (h + 1) * rows / s->count_h - b.h, task /= s->count_h;
    b.g = task % s->p->groups, task /= s->p->groups;
    const int64_t images = s->p->y.n;
    b.n = task * images / s->count_n, b.images = (task + 1) * images / s->count_n - b.n;
    b.columns = fc_min(s->block_w, s->p->y.w - b.w);
    return b;
}

/* Channels c0 .. c0 + channels - 1 of the block's window. */
static void copy_strip(const fc_direct_plan *s, const block *b, int64_t c0, int64_t channels, char *strip)
{
    const fc_problem *p = s->p;
    const int64_t item = (int64_t)p->item, top = b->h * p->stride_h - p->pad_top,
                  left = b->w * p->stride_w - p->pad_left;
    const fc_window window = {
        top,  fc_strip_extent(b->rows, p->kernel_h, p->stride_h, p->dilation_h),    p->kernel_h == 1 ? p->stride_h : 1,
        left, fc_strip_extent(b->columns, p->kernel_w, p->stride_w, p->dilation_w), p->kernel_w == 1 ? p->stride_w : 1,
    };
    const fc_pitch pitch = {s->strip_row, s->strip_pixel, 1};
    for (int64_t i = 0; i < b->images; i++) {
        const fc_image x = fc_image_of(&p->x, p->item, b->n + i, b->g * p->in_channels + c0, channels);
        fc_load_window(p->k, p->item, &x, &window, strip + i * s->strip_image * item, &pitch);
    }
}

static const char *strip_in_place(const fc_direct_plan *s, const block *b, int64_t c0)
{
    const fc_problem *p = s->p;
    return fc_at(p->x.data,
                 b->n * p->x.stride_n + b->g * p->in_channels + c0 + (b->h * p->stride_h - p->pad_top) * p->x.stride_h +
                     (b->w * p->stride_w - p->pad_left) * p->x.stride_w,
                 p->item);
}

/* Where a block's outputs go: y itself, or a dense tile. */
typedef struct {
    char *data;
    int64_t image, row, pixel;
} target;

/* Some panels meet a chunk of channels of a block. */
typedef struct {
    const fc_direct_plan *s;
    const block *b;
    target y;
    const char *strip; /* the chunk */
    char *late; /* memory to pack the panel, or NULL */
    int64_t c0, channels; /* the chunk: [c0, c0 + channels) */
    int64_t panel, last; /* [panel, last) */
    panel_range k; /* the first of them */
    int merged; /* a row of taps follows the one before without gaps: one product */
    fc_range inside; /* columns of the block that run as rows: in place those that see no padding, otherwise all */
} pass;

static fc_range inside_of(const fc_direct_plan *s, const block *b)
{
    if (!s->in_place || s->by_pixel)
        return (fc_range){0, b->columns};
    const int64_t first = fc_min(fc_max(s->inside.first - b->w, 0), b->columns);
    return (fc_range){first, fc_max(first, fc_min(s->inside.end - b->w, b->columns))};
}

/* The columns of a tile and the taps that they see, of a row whose product is `row`. */
static fc_gemm columns_of(const pass *d, const fc_gemm *row, const fc_column_tile *t)
{
    const fc_direct_plan *s = d->s;
    const int64_t item = (int64_t)s->p->item, taps = fc_max(0, t->taps.end - t->taps.first);
    fc_gemm tile = *row;
    if (d->merged)
        tile.length = taps * s->p->in_channels;
    else
        tile.taps_w = taps;
    tile.a = fc_at(tile.a, t->first * s->strip_step_w * s->strip_pixel + t->taps.first * tile.step_w, s->p->item);
    tile.b = fc_at(tile.b, t->taps.first * tile.b_step_w * d->k.width, s->p->item);
    tile.y = (char *)tile.y + t->first * d->y.pixel * item;
    tile.residual = fc_at(tile.residual, t->first * s->p->residual.stride_w, s->p->item);
    return tile;
}

static void run_row(const pass *d, const fc_gemm *row)
{
    const fc_direct_plan *s = d->s;
    const fc_gemm_kernels *k = s->p->k->gemm;
    if (!s->tiles && !s->by_pixel)
        k->rows(row, d->b->columns);
    for (int64_t i = 0; i < s->tiles; i++) {
        fc_gemm tile = columns_of(d, row, &s->tile[i]);
        tile.ahead = i < row->ahead_tiles ? fc_at(row->ahead, i * row->ahead_tile, s->p->item) : NULL;
        k->rows(&tile, s->tile[i].end - s->tile[i].first);
    }
    for (int64_t w = 0; s->by_pixel && w < d->b->columns; w++) {
        const fc_column_tile pixel = {w, w + 1, fc_taps_of_column(s->p, d->b->w + w)};
        fc_gemm tile = columns_of(d, row, &pixel);
        tile.ahead = w < row->ahead_tiles ? fc_at(row->ahead, w * row->ahead_tile, s->p->item) : NULL;
        tile.a_row = s->strip_image;
        tile.y_row = d->y.image;
        tile.residual_row = s->p->residual.stride_n;
        k->rows(&tile, d->b->images);
    }
}

/* The first output channel behind the panels before `last` */
static int64_t end_of(const fc_direct_plan *s, int64_t last)
{
    return last < s->panels ? last * s->panel : s->p->out_channels;
}

/* Calls of the tile kernel for a row, or tiles of its only one */
static int64_t tiles_of_row(const pass *d)
{
    const fc_direct_plan *s = d->s;
    if (s->tiles || s->by_pixel)
        return s->tiles ? s->tiles : d->b->columns;
    const int64_t columns = fc_max(1, d->inside.end - d->inside.first); /* a block may have none */
    return fc_ceil_div(columns, fc_tile_rows(s->p));
}

/* As one image where its pixels are those of all. */
static int64_t images_of(const pass *d) { return d->s->by_pixel ? 1 : d->b->images; }

/* The panel that comes after those before `last`, a bit with each step of some tiles: packed, or the columns beside
 * this one in the rows of a [c][k] weight, no stream that the hardware could see. */
static void fetch_next(const pass *d, fc_gemm *tile)
{
    const fc_direct_plan *s = d->s;
    const fc_problem *p = s->p;
    const int64_t first = d->b->part * s->panels / s->parts, end = (d->b->part + 1) * s->panels / s->parts;
    const panel_range next = panel_at(p, d->last < end ? d->last : first);
    const int64_t most = fc_has_line_vectors(p) ? AHEAD_TILES : AHEAD_TILES_NARROW,
                  tiles = fc_min(most, images_of(d) * d->b->rows * tiles_of_row(d));
    tile->ahead_every = fc_ahead_every(p, tiles);
    if (d->late && p->weight_k == 1 && fc_tap_count(p) == 1) {
        tile->ahead = weight_at(p, d->b->g, &d->k, d->c0) + d->k.width * (int64_t)p->item;
        fc_set_ahead_rows(p, p->weight_c, tile);
    }
    const int64_t c0 = d->c0 + (d->last < end ? 0 : s->chunk);
    if (d->late || c0 >= p->in_channels)
        return;
    tile->ahead = p->packed + fc_packed_at(p, d->b->g, next.first, c0, next.width) * (int64_t)p->item;
    tile->ahead_tiles = tiles;
    tile->ahead_step = fc_ceil_div(next.width * tile->ahead_every, tiles);
    tile->ahead_tile = tile->ahead_step * tile->taps_h * tile->taps_w * fc_ceil_div(tile->length, tile->ahead_every);
}

/* Rows from row h of the block on that see the same rows of the kernel. */
static int64_t rows_alike(const fc_direct_plan *s, const block *b, int64_t h)
{
    const fc_range seen = fc_taps_of_row(s->p, b->h + h);
    int64_t rows = 1;
    for (; h + rows < b->rows; rows++) {
        const fc_range next = fc_taps_of_row(s->p, b->h + h + rows);
        if (next.first != seen.first || next.end != seen.end)
            break;
    }
    return rows;
}

/* The same, at most a tile's, in near-equal runs. */
static int64_t rows_of_edge(const fc_direct_plan *s, const block *b, int64_t h)
{
    const int64_t rows = rows_alike(s, b, h);
    return fc_ceil_div(rows, fc_ceil_div(rows, fc_tile_rows(s->p)));
}

/* Whether rows that see the same rows of the kernel are one call of the tile kernel, its lines: what surrounds a call
 * takes as long as 10 steps of a tile of one vector. Scale and residual would need a row of their own for each line. */
static int joins_rows(const pass *d)
{
    const fc_direct_plan *s = d->s;
    return d->last - d->panel == 1 && !s->tiles && !s->by_pixel && !s->p->epilogue.scale && !s->p->residual.data;
}

/* In place: the outputs beside those that see no padding, of `rows` rows from the first on. Taps there are left out; a
 * tile walks down a column. */
static void run_edges(const pass *d, const fc_gemm *first, int64_t rows)
{
    const fc_direct_plan *s = d->s;
    const fc_problem *p = s->p;
    for (int64_t w = fc_next_edge(&d->inside, 0); w < d->b->columns; w = fc_next_edge(&d->inside, w + 1)) {
        const fc_column_tile column = {w, w + 1, fc_taps_of_column(p, d->b->w + w)};
        fc_gemm tile = columns_of(d, first, &column);
        tile.a_row = s->strip_step_h * s->strip_row;
        tile.y_row = d->y.row;
        tile.residual_row = p->residual.stride_h;
        tile.ahead = NULL, tile.ahead_tiles = 0;
        p->k->gemm->rows(&tile, rows);
    }
}

/* Products of any row of the block but for the addresses. */
static fc_gemm product_of(const pass *d)
{
    const fc_direct_plan *s = d->s;
    const fc_problem *p = s->p;
    const fc_epilogue *e = &p->epilogue;
    const int64_t item = (int64_t)p->item, channel = d->b->g * p->out_channels + d->k.first;
    fc_gemm tile = {
        .a_row = s->strip_step_w * s->strip_pixel,
        .taps_h = p->kernel_h,
        .taps_w = d->merged ? 1 : p->kernel_w,
        .step_h = p->dilation_h * s->strip_row,
        .step_w = p->dilation_w * s->strip_pixel,
        .length = d->merged ? p->kernel_w * d->channels : d->channels,
        .b = d->late ? d->late : p->packed + fc_packed_at(p, d->b->g, d->k.first, d->c0, d->k.width) * item,
        .b_step_h = d->late ? p->kernel_w * d->channels : p->packed_u,
        .b_step_w = d->late ? d->channels : p->packed_v,
        .b_panel = p->packed_column * s->panel,
        .accumulate = d->c0 > 0,
        /* with padding at least a bias of 0: a sum that underflowed to -0 is 0 then, whether or not it had products
         * with padding, which depends on the memory format and on the blocks */
        .finish = d->c0 + d->channels == p->in_channels && (fc_has_epilogue(p) || !fc_sees_no_padding(p)),
        .y_row = d->y.pixel,
        .columns = end_of(s, d->last) - d->k.first,
        .a_line = s->strip_step_h * s->strip_row,
        .y_line = d->y.row,
        .pairs = d->last - d->panel - 1,
        .scale = fc_at(e->scale, channel, item),
        .bias = fc_at(e->bias, channel, item),
        .residual_row = p->residual.stride_w,
        .lower = e->lower,
        .upper = e->upper,
        .warm = p->warm,
        .stream = s->stream,
    };
    fetch_next(d, &tile);
    /* The first panel reads x, maybe from memory, where the last tap has not been before. */
    if (s->in_place && d->panel == d->b->part * s->panels / s->parts)
        tile.fetch = 1 + (p->kernel_h - 1) * tile.step_h + (p->kernel_w - 1) * tile.step_w * !d->merged;
    return tile;
}

/* To row h of image i, without the rows of the kernel that lie in the padding. */
static void move_to_row(const pass *d, fc_gemm *tile, const char *weights, int64_t i, int64_t h)
{
    const fc_direct_plan *s = d->s;
    const fc_problem *p = s->p;
    const block *b = d->b;
    const int64_t item = (int64_t)p->item;
    const fc_range u = fc_taps_of_row(p, b->h + h);
    tile->taps_h = u.end - u.first;
    tile->b = weights + u.first * tile->b_step_h * d->k.width * item;
    tile->a = d->strip + (u.first * tile->step_h + i * s->strip_image + h * s->strip_step_h * s->strip_row) * item;
    tile->y = d->y.data + (i * d->y.image + h * d->y.row + d->k.first) * item;
    tile->residual = fc_residual_at(p, b->n + i, b->g * p->out_channels + d->k.first, b->h + h, b->w);
}

/* The columns of a row that see no padding. */
static void run_inside(const pass *d, fc_gemm *row)
{
    const size_t item = d->s->p->item;
    const int64_t first = d->inside.first, columns = d->inside.end - first;
    row->a = fc_at(row->a, first * row->a_row, item);
    row->y = (char *)row->y + first * row->y_row * (int64_t)item;
    row->residual = fc_at(row->residual, first * row->residual_row, item);
    if (columns > 0)
        d->s->p->k->gemm->rows(row, columns);
}

static int copies_panel(const pass *d)
{
    const fc_problem *p = d->s->p;
    return !d->s->tiles && !d->s->by_pixel && fc_packs_weight(p, d->k.columns, d->b->columns);
}

/* All rows of the block. */
static void run_panels(const pass *d)
{
    const block *b = d->b;
    fc_gemm tile = product_of(d);
    if (d->late && copies_panel(d))
        tile.source = weight_at(d->s->p, b->g, &d->k, d->c0), tile.source_row = d->s->p->weight_c;
    else if (d->late)
        pack_channels(d->s->p, b->g, &d->k, d->c0, d->channels, d->late);
    const char *weights = tile.b;
    const int64_t tiles = tiles_of_row(d);
    const int joins = joins_rows(d);
    for (int64_t i = 0; i < images_of(d); i++)
        for (int64_t h = 0, edges = 0; h < b->rows; h += tile.lines) {
            move_to_row(d, &tile, weights, i, h);
            const int whole = d->inside.end - d->inside.first == b->columns;
            tile.lines = 1;
            if (!whole && h == edges) {
                edges = h + rows_of_edge(d->s, b, h);
                run_edges(d, &tile, edges - h);
            }
            if (joins)
                tile.lines = whole ? rows_alike(d->s, b, h) : edges - h;
            tile.after = b->rows > 1 ? tile.lines * tile.a_line : b->columns * tile.a_row;
            if (whole)
                run_row(d, &tile);
            else
                run_inside(d, &tile);
            const int64_t done = tiles * tile.lines;
            tile.source = NULL;
            tile.ahead_tiles -= done;
            tile.ahead = tile.ahead_tiles > 0 ? fc_at(tile.ahead, done * tile.ahead_tile, d->s->p->item) : NULL;
        }
}

static target target_of(const fc_direct_plan *s, const block *b, char *tile)
{
    const fc_view *y = &s->p->y;
    const int64_t row = b->columns * s->tile_pixel;
    if (!s->dense_y)
        return (target){tile, b->rows * row, row, s->tile_pixel};
    const int64_t at = b->n * y->stride_n + b->g * s->p->out_channels + b->h * y->stride_h + b->w * y->stride_w;
    return (target){(char *)y->data + at * (int64_t)s->p->item, y->stride_n, y->stride_h, y->stride_w};
}

/* The channels of panels [first, last) from a dense tile to y. */
static void store_tile(const fc_direct_plan *s, const block *b, const target *tile, int64_t first, int64_t last)
{
    const fc_problem *p = s->p;
    const int64_t k0 = first * s->panel, channels = end_of(s, last) - k0;
    const fc_window window = {b->h, b->rows, 1, b->w, b->columns, 1};
    const fc_pitch pitch = {tile->row, tile->pixel, 1};
    for (int64_t i = 0; i < b->images; i++) {
        const fc_image out = fc_image_of(&p->y, p->item, b->n + i, b->g * p->out_channels + k0, channels);
        fc_store_window(p->k, p->item, &out, &window, tile->data + (i * tile->image + k0) * (int64_t)p->item, &pitch);
    }
}

static void run_block(void *context, int64_t task, int slot)
{
    const fc_direct_plan *s = context;
    const fc_problem *p = s->p;
    const block b = decode(s, task);
    char *const scratch = s->threads + slot * s->thread_bytes, *strip = scratch + FC_STRIP_HEAD,
                *tile = strip + s->strip_bytes * (s->kept ? fc_chunks(s) : 1);
    int64_t *const held = (int64_t *)scratch, at = task / s->parts; /* the block whose strips are there */
    const int loaded = s->kept && *held == at;
    *held = at;
    pass d = {.s = s, .b = &b, .y = target_of(s, &b, tile), .inside = inside_of(s, &b)};
    d.late = s->pack_late ? tile + s->tile_bytes : NULL;
    d.merged = p->dilation_w == 1 && s->strip_pixel == p->in_channels && s->chunk == p->in_channels &&
               (d.late || p->packed_v == p->in_channels);
    const int64_t first = b.part * s->panels / s->parts, last = (b.part + 1) * s->panels / s->parts,
                  step = s->together ? last - first : 1;
    for (; d.c0 < p->in_channels; d.c0 += s->chunk) {
        d.channels = fc_min(s->chunk, p->in_channels - d.c0);
        if (s->kept && d.c0 > 0)
            strip += s->strip_bytes;
        if (!s->in_place && !loaded)
            copy_strip(s, &b, d.c0, d.channels, strip);
        d.strip = s->in_place ? strip_in_place(s, &b, d.c0) : strip;
        for (d.panel = first; d.panel < last; d.panel = d.last) {
            d.last = d.panel + step;
            d.k = panel_at(p, d.panel);
            run_panels(&d);
        }
    }
    if (s->stream)
        p->k->fence();
    if (!s->dense_y)
        store_tile(s, &b, &d.y, first, last);
}

static int64_t tasks_of(const fc_direct_plan *s)
{
    return s->count_n * s->count_h * s->count_w * s->p->groups * s->parts;
}

static int64_t weight_bytes(const fc_direct_plan *s)
{
    return s->pack_late || s->p->packed ? 0 : fc_round_up(fc_packed_direct(s->p) * (int64_t)s->p->item, 64);
}

/* Those that each of two threads packs for itself. Not of groups: a thread reads those that it packed; nor more than
 * half of a second-level cache, which take longer to pack than to share. */
static int64_t own_bytes(const fc_direct_plan *s, int slots)
{
    const int64_t weights = weight_bytes(s);
    return s->p->groups == 1 && weights <= fc_l2_bytes() / 2 && fc_makes_own(slots, weights) ? weights : 0;
}

static fc_need need(const fc_direct_plan *s, int slots)
{
    const int64_t own = own_bytes(s, slots);
    return (fc_need){own ? 0 : weight_bytes(s), s->thread_bytes + own};
}

fc_need fc_conv_direct_scratch(const fc_problem *p)
{
    const fc_direct_plan s = fc_plan_direct(p);
    return need(&s, fc_parallel_slots(tasks_of(&s)));
}

/* Of a thread that packs all weights for itself. */
typedef struct {
    fc_problem p;
    fc_direct_plan s;
    char *weights;
} owner;

static void run_owner(void *context, int64_t task, int slot)
{
    owner *o = (owner *)context + slot;
    if (!o->p.packed) {
        fc_pack_direct(&o->p, o->weights);
        fc_use_packed(&o->p, o->weights);
    }
    run_block(&o->s, task, slot);
}

static void run_owners(const fc_direct_plan *s, int slots, char *weights)
{
    owner owners[FC_OWNERS];
    for (int slot = 0; slot < slots; slot++) {
        owner *o = &owners[slot];
        *o = (owner){*s->p, *s, weights + slot * weight_bytes(s)};
        o->s.p = &o->p;
    }
    fc_parallel_in(slots, tasks_of(s), run_owner, owners);
}

/* A few pixels, a row of them, that meet a weight which is read best where it lies. The sums are the same. */
static int is_linear(const fc_problem *p)
{
    return !p->packed && fc_tap_count(p) == 1 && p->groups == 1 && p->x.n * p->x.h == 1 && p->stride_w == 1 &&
           fc_sees_no_padding(p) && p->pad_left == 0 && p->y.w <= p->k->linear->max_rows &&
           (p->weight_c == 1 || p->weight_k == 1) && (p->x.stride_c == 1 || p->in_channels == 1) &&
           p->y.stride_c == 1 && !p->epilogue.scale && !p->residual.data;
}

static fc_status run_linear(const fc_problem *p)
{
    const fc_view x = {.data = p->x.data, .n = p->y.w, .c = p->in_channels, .stride_n = p->x.stride_w, .stride_c = 1};
    const fc_view y = {.data = p->y.data, .n = p->y.w, .c = p->out_channels, .stride_n = p->y.stride_w, .stride_c = 1};
    const fc_view w = {.data = (char *)(uintptr_t)p->weight,
                       .n = p->out_channels,
                       .c = p->in_channels,
                       .stride_n = p->weight_k,
                       .stride_c = p->weight_c};
    const fc_epilogue *e = &p->epilogue;
    return fc_linear(p->item == sizeof(float) ? FC_F32 : FC_F64, &x, &w, e->bias, e->lower, e->upper, &y);
}

fc_status fc_conv_direct(const fc_problem *problem)
{
    if (is_linear(problem))
        return run_linear(problem);
    fc_problem p = *problem;
    fc_direct_plan s = fc_plan_direct(&p);
    const int slots = fc_parallel_slots(tasks_of(&s));
    const fc_need n = need(&s, slots);
    char *scratch = fc_scratch_acquire_parts(n.shared, slots, n.each);
    if (!scratch)
        return FC_ENOMEM;
    s.threads = scratch + n.shared;
    for (int slot = 0; slot < slots; slot++)
        *(int64_t *)(s.threads + slot * s.thread_bytes) = -1;
    if (own_bytes(&s, slots)) {
        run_owners(&s, slots, s.threads + slots * s.thread_bytes);
    } else {
        if (n.shared) {
            fc_pack_direct(&p, scratch);
            fc_use_packed(&p, scratch);
        }
        fc_parallel_in(slots, tasks_of(&s), run_block, &s);
    }
    fc_scratch_release(scratch);
    return FC_OK;
}
