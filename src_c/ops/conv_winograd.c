/* conv_winograd.c: r x r convolution, r = 3, 4, 5, by F(m x m, r x r), m = 7 - r: 36 multiplications per m * m
 * outputs instead of r * r each; 4 times less for r = 3 and 4, 2.8 times for 5. r = 2 by F(4 x 4, 2 x 2): 25 per 16 outputs, 2.6 times
 * less. Kernels of one row or one column of r taps are the same on tiles of one row or column, F(m, r): 6 points instead of 36, 2 times
 * less for r = 3 and 4, 1.7 times for 5, 1.6 for 2.
 *
 * Stride 2: an output is the sum of four convolutions of stride 1, of the pixels in even and odd rows and columns with the even and odd
 * taps: 2 and 1 along an axis of a 3 x 3 kernel. All are done by F(4 x 4, 2 x 2), whose tiles add up before they are transformed back,
 * as channels do. One tap is 0 at the point infinity, which leaves 4 + 5 products along an axis instead of 12: 81 per 16 outputs
 * instead of 144, 1.8 times less. At the other points it is itself, so there are 36 transformed weights and not 81. A 4 x 4 kernel has
 * 100 products instead of 256, 2.6 times less. Kernels of 5 to 10 taps have phases of 3 to 5, by F(m x m, r x r).
 *
 * Larger and oblong kernels are the sum of their pieces of r x r taps, which are phases too: 7 x 7 is four of 4 x 4, 144 products for 9
 * outputs instead of 441. Taps beyond the kernel are 0. A dilation makes several images of one (winograd_tiles.h).
 *
 * Tiles of m x m outputs, or of less at the end of a row or column (winograd_tiles.h), are numbered through images, tile rows and tile
 * columns. For a block of T tiles
 *     v = B' x B of each tile, lanes are channels
 *     m = v[e] * u[e], 36 (or 25) matrix products of tiles by channels with the transformed weights u[e][channels][panel],
 *                      of stride 2 u[phase and point][channels][panel]
 *     y                   = A' m A, with the epilogue, straight to the output
 * stay in the second-level cache, v and m in bricks (kernels/winograd.h). Two schedules:
 *     by tiles:  u is made once, tasks are blocks of tiles                       (many tiles)
 *     by panels: v is made once, tasks are panels and make their u as they go    (weights outweigh the tiles);
 *                of many tiles one stretch after the other; of few, where a kernel for them exists, without u in memory
 * Both sum over channels in the same order, so the bits are the same.
 */
#include "../scratch.h"
#include "../threads.h"
#include "winograd_tiles.h"

#include <stdatomic.h>
#include <string.h>

enum {
    /* Of so many channels weights are transformed at a time: 36 x 64 x 32 floats = 288 KiB, with v and m in 1 MiB. Phases have as many
     * more, so fewer channels, but no less than a part. */
    CHUNK = 64,
    PACKED = 16, /* their taps are packed 16 channels at a time: 9 x 16 x 32 floats = 18 KiB, in L1 */
    /* By panels: the larger part of FC_SHARE_BYTES, through which weights and y pass. */
    MAX_V_BYTES = 5 << 20,
    /* Larger blocks are not kept for the next call (scratch.c); of 4 x 4 with stride 2, u is 100 / 16 weights. */
    MAX_U_BYTES = 64 << 20,
    /* Of so many tiles weights are transformed in registers, for FC_WINOGRAD_FEW tiles at a time: writing u takes longer. */
    FEW_TILES = 2 * FC_WINOGRAD_FEW,
    /* Of channels, for them: 9 taps of a vector of outputs, 72 KiB. Shorter ones, in the first-level cache, load and store sums more often
     * than they gain (32: 0.85 of the speed, 64: 0.97, Zen 4). */
    FEW_CHUNK = 128,
    MAX_TILES = 56, /* 4 register tiles of 14 rows: more do not make the products faster */
    /* Taps along an axis of kernels with stride 1: FC_MAX_PHASES pieces of 4. */
    MAX_SQUARE = 16,
    MAX_LINE = 64,
};

typedef struct {
    const fc_problem *p;
    fc_tiles tiles;
    int64_t lanes, panel, panels;
    int64_t block, count; /* tiles per block, blocks; by panels: of a stretch, stretches */
    int by_panels, y_in_place, stream, fetch;
    int few; /* by panels: so few tiles that weights are transformed as they are multiplied */
    int prepared; /* p->packed is what fc_pack_winograd made */
    int joined; /* u[e][phase][channel]: all phases have all points */
    int64_t each, halves; /* by panels, see piece_at */
    int64_t u_point; /* pitch, elements */
    int64_t chunk;
    int64_t u_bytes, v_bytes, m_bytes, strip_bytes, tile_bytes, pad_bytes, pack_bytes, thread_bytes;
    const char *u;
    char *v, *threads;
    int64_t group; /* by panels: the current group, and its stretch of tiles */
    fc_tile_block stretch;
    atomic_char *spoilt; /* spoilt[image]: its tiles hold NaN or infinity */
} plan;

static int64_t taps_of(const plan *s) { return s->p->kernel_h * s->p->kernel_w; }
static int64_t bytes_of(const plan *s, int64_t elements) { return fc_round_up(elements * (int64_t)s->p->item, 64); }

/* Rows of u for so many channels of a phase: whole parts where there are several. */
static int64_t rows_of(const fc_tiles *t, int64_t channels)
{
    return t->phases == 1 ? channels : fc_round_up(channels, t->k->line);
}
/* Of all phases that have a point in common. */
static int64_t all_rows_of(const plan *s, int64_t channels)
{
    return (s->joined ? s->tiles.phases : 1) * rows_of(&s->tiles, channels);
}

/* Whether a phase has taps beyond the kernel. */
static int is_padded(const fc_tiles *t) { return fc_padded_h(t) > t->p->kernel_h || fc_padded_w(t) > t->p->kernel_w; }

static plan make_plan(const fc_problem *p)
{
    const int64_t item = (int64_t)p->item, pad = FC_PITCH_PAD_BYTES / item;
    plan s = {.p = p,
              .tiles = fc_make_tiles(p),
              .lanes = p->k->vector_lanes,
              .y_in_place = p->y.stride_c == 1,
              .stream = fc_streams(p),
              .prepared = p->packed && !p->packed_v};
    s.fetch = s.y_in_place && s.tiles.out_h > 1 && p->y.n * p->y.h * p->y.w * p->out_channels * item > fc_l2_bytes();
    s.panel = 2 * s.lanes;
    s.panels = fc_ceil_div(p->out_channels, s.panel);

    /* v of a block takes 3/5 of the second-level cache, but no less than 2 register tiles of rows, for which u is read. */
    const int64_t rows = s.tiles.k->brick / 2, v_tile = s.tiles.points * s.tiles.parts * s.tiles.k->line * item,
                  v = s.tiles.count * v_tile;
    const int64_t u = fc_tile_weights(&s.tiles) * p->in_channels * fc_round_up(p->out_channels, s.lanes) * item,
                  l2 = fc_l2_bytes();
    s.block = fc_max(2 * rows, fc_min(MAX_TILES, l2 * 3 / 5 / v_tile) / rows * rows);
    s.count = fc_ceil_div(s.tiles.count, s.block);
    /* Quarters of bytes moved beyond that cache. u written, and read once per block of tiles, as a stream, ahead of its use: 3/4 of
     * the price, or 4 times that from memory. Or v written, and read once per panel; each stretch makes u, as long as 2 u move. A v that
     * stays in that cache is multiplied by panels: threads that share u read each other's part of it from the third. */
    const int64_t stretches = fc_ceil_div(v, MAX_V_BYTES);
    const int64_t by_tiles = (u <= FC_SHARE_BYTES ? 3 : 12) * (s.count + 1) * u,
                  by_panels = 4 * ((s.panels + 1) * v + 2 * stretches * u);
    s.by_panels = u > l2 / 2 && (v <= l2 || by_panels < by_tiles || u > MAX_U_BYTES);
    const int64_t threads = fc_parallel_slots(INT64_MAX);
    if (s.by_panels) {
        s.block = fc_ceil_div(s.tiles.count, stretches);
        s.count = fc_ceil_div(s.tiles.count, s.block);
        s.each = s.panels / threads;
        s.halves = threads > 1 && s.panels % threads * 2 <= threads ? s.panels % threads * 2 : 0;
    } else {
        if (s.count < 8 * threads) /* a multiple of the threads, so that none waits */
            s.count = fc_round_up(s.count, threads);
        s.block = fc_ceil_div(s.tiles.count, s.count);
        s.count = fc_ceil_div(s.tiles.count, s.block);
    }
    if (s.tiles.phases > 1) { /* the order of the sums, whatever the schedule */
        const int64_t line = s.tiles.k->line, weights = fc_max(fc_tile_weights(&s.tiles), FC_WINOGRAD_MAX_POINTS);
        s.tiles.chunk = fc_min(fc_max(1, CHUNK * FC_WINOGRAD_MAX_POINTS / (weights * line)) * line, p->in_channels);
    }
    s.joined = !fc_has_short_phases(&s.tiles);
    s.chunk = s.by_panels ? fc_min(CHUNK, s.tiles.chunk) : p->in_channels;
    s.few = s.by_panels && taps_of(&s) == 9 && s.tiles.phases == 1 && s.tiles.points == FC_WINOGRAD_MAX_POINTS &&
            s.block <= FEW_TILES && s.tiles.k->multiply_few[1];
    if (s.few)
        s.chunk = fc_min(FEW_CHUNK, p->in_channels);
    fc_set_block(&s.tiles, s.block);
    s.u_point = all_rows_of(&s, s.chunk) * s.panel + pad;

    s.strip_bytes = fc_tiles_strip_bytes(&s.tiles);
    s.tile_bytes = s.y_in_place ? 0 : bytes_of(&s, s.tiles.out_h * s.tiles.out_w * s.tiles.longest_run * s.panel);
    s.v_bytes = bytes_of(&s, fc_block_elements(&s.tiles, s.block, s.tiles.parts));
    s.m_bytes =
        bytes_of(&s, fc_block_elements(&s.tiles, s.block, fc_channel_parts(p, fc_min(s.panel, p->out_channels))));
    s.u_bytes = s.few ? 0 : bytes_of(&s, (s.joined ? s.tiles.points : fc_tile_weights(&s.tiles)) * s.u_point);
    const int64_t most = fc_min(PACKED, p->in_channels) * s.panel;
    s.pad_bytes = is_padded(&s.tiles) ? bytes_of(&s, s.tiles.taps * s.tiles.taps * most) : 0;
    s.pack_bytes = p->packed ? 0 : bytes_of(&s, taps_of(&s) * (s.few ? s.chunk * s.lanes : most));
    s.thread_bytes =
        s.strip_bytes + s.tile_bytes + s.m_bytes + s.pad_bytes + s.pack_bytes + (s.by_panels ? s.u_bytes : s.v_bytes);
    return s;
}

/* A thread's memory, one piece after the other. */
typedef struct {
    char *strip, *tile, *m, *pad, *pack, *uv;
} memory;

static memory thread_memory(const plan *s, int slot)
{
    memory t = {.strip = s->threads + slot * s->thread_bytes};
    t.tile = t.strip + s->strip_bytes;
    t.m = t.tile + s->tile_bytes;
    t.pad = t.m + s->m_bytes;
    t.pack = t.pad + s->pad_bytes;
    t.uv = t.pack + s->pack_bytes;
    return t;
}

/* ---- weights ---------------------------------------------------------------------------------------------------------*/
/* Output channels first .. first + columns - 1 of a panel, all of them or one of its vectors: rows of u and m are `width` long, those of
 * taps packed for the whole panel `panel_width`. */
typedef struct {
    int64_t panel, first, columns, width, panel_width;
} piece;

static piece whole_panel(const plan *s, int64_t panel)
{
    piece k = {.panel = panel, .first = panel * s->panel};
    k.columns = fc_min(s->panel, s->p->out_channels - k.first);
    k.width = k.panel_width = k.columns > s->lanes ? s->panel : s->lanes;
    return k;
}

/* Vector `index` of it, which may be one behind the last. */
static piece vector_of(const plan *s, int64_t panel, int64_t index)
{
    piece k = whole_panel(s, panel);
    k.first += index * s->lanes;
    k.columns = fc_max(0, fc_min(s->lanes, k.columns - index * s->lanes));
    k.width = s->lanes;
    return k;
}

/* taps[u][v][c][column] of channels [c0, c0 + channels) */
static void pack_taps(const plan *s, int64_t group, const piece *k, int64_t c0, int64_t channels, char *taps)
{
    const fc_problem *p = s->p;
    const int64_t item = (int64_t)p->item;
    if (k->columns < k->width)
        memset(taps, 0, (size_t)(p->kernel_h * p->kernel_w * channels * k->width * item));
    fc_pack_weights(p, p->weight + (group * p->weight_g + k->first * p->weight_k + c0 * p->weight_c) * item, channels,
                    k->columns, taps, k->width);
}

/* Taps of a phase, `row` and `tap` apart; to the kernel of lines a column is a row. */
typedef struct {
    const char *at;
    int64_t row, tap;
} phase_taps;

/* Of phase f: taps[u * row + v * tap + i], i < columns; those beyond the kernel are zeros in `pad`. */
static phase_taps taps_of_phase(const plan *s, const fc_tile_phase *f, const char *taps, int64_t row, int64_t tap,
                                int64_t columns, char *pad)
{
    const fc_tiles *t = &s->tiles;
    const fc_problem *p = s->p;
    const int64_t item = (int64_t)p->item, step = t->step, h = p->kernel_h == 1 ? 1 : t->taps,
                  w = p->kernel_w == 1 ? 1 : t->taps, in_h = fc_min(h, fc_ceil_div(p->kernel_h - f->row, step)),
                  in_w = fc_min(w, fc_ceil_div(p->kernel_w - f->column, step));
    phase_taps k = {taps + (f->row * row + f->column * tap) * item, step * row, step * tap};
    if (!fc_has_short_phases(t) && (in_h < h || in_w < w)) {
        memset(pad, 0, (size_t)(h * w * columns * item));
        for (int64_t u = 0; u < in_h; u++)
            for (int64_t v = 0; v < in_w; v++)
                memcpy(pad + (u * w + v) * columns * item, k.at + (u * k.row + v * k.tap) * item,
                       (size_t)(columns * item));
        k = (phase_taps){pad, w * columns, columns};
    }
    if (t->upright)
        k.tap = k.row;
    return k;
}

/* u[phase and point][c + i][column] = G w G' for i < count, of a chunk of `channels`; taps[u * row + v * tap + i * width + column].
 * pad: pad_bytes of memory */
static void transform_taps(const plan *s, int64_t width, const char *taps, int64_t row, int64_t tap, int64_t c,
                           int64_t count, int64_t channels, char *pad, char *u)
{
    const fc_tiles *t = &s->tiles;
    const int64_t item = (int64_t)s->p->item, rows = rows_of(t, channels), columns = count * width;
    for (int64_t i = 0; i < t->phases; i++) {
        const fc_tile_phase f = fc_tile_phase_at(t, i);
        const phase_taps k = taps_of_phase(s, &f, taps, row, tap, columns, pad);
        char *to = u + c * width * item;
        if (f.last == FC_WHOLE_TILE)
            t->k->weights[t->taps](k.at, k.row, k.tap, columns, to, s->u_point);
        else if (f.last)
            s->p->k->winograd_small_line->weights[2](k.at, 0, f.last == FC_LAST_ROW ? k.row : k.tap, columns, to,
                                                     s->u_point);
        else
            memcpy(to, k.at, (size_t)(columns * item));
        const int64_t points = fc_phase_weights(t, i);
        if (channels < rows && c + count == channels)
            for (int64_t e = 0; e < points; e++)
                memset(u + (e * s->u_point + channels * width) * item, 0, (size_t)((rows - channels) * width * item));
        u += (s->joined ? rows * width : points * s->u_point) * item;
    }
}

/* Of taps that are packed for the whole panel: a vector of it is a part of each row. */
static void transform_packed(const plan *s, const piece *k, const char *taps, int64_t row, int64_t tap,
                             int64_t channels, char *pad, char *u)
{
    const int64_t item = (int64_t)s->p->item, most = k->width == k->panel_width ? PACKED : 1;
    taps += (k->first - k->panel * s->panel) * item;
    for (int64_t c = 0; c < channels; c += most)
        transform_taps(s, k->width, taps + c * k->panel_width * item, row, tap, c, fc_min(most, channels - c), channels,
                       pad, u);
}

/* u[phase and point][c][column] for the chunk of channels [c0, c0 + channels) */
static void transform_weights(const plan *s, int64_t group, const piece *k, int64_t c0, int64_t channels, char *pad,
                              char *u)
{
    const fc_problem *p = s->p;
    if (p->packed) { /* by fc_use_packed */
        transform_packed(s, k,
                         p->packed + fc_packed_at(p, group, k->panel * s->panel, c0, k->panel_width) * (int64_t)p->item,
                         p->packed_u * k->panel_width, p->packed_v * k->panel_width, channels, pad, u);
        return;
    }
    char *pack = pad + s->pad_bytes;
    for (int64_t c = 0; c < channels; c += PACKED) {
        const int64_t count = fc_min(PACKED, channels - c), tap = count * k->width;
        pack_taps(s, group, k, c0 + c, count, pack);
        transform_taps(s, k->width, pack, p->kernel_w * tap, tap, c, count, channels, pad, u);
    }
}

/* Where the chunk of channels from c0 on is in a u of all. */
static int64_t u_offset(const plan *s, const piece *k, int64_t c0)
{
    return all_rows_of(s, c0) * k->width * (int64_t)s->p->item;
}

static const char *stored_weights(const plan *s, int64_t group, int64_t panel)
{
    return s->u + (group * s->panels + panel) * s->u_bytes;
}

/* By panels, what is kept from call to call are the taps: they are a quarter of u, and reading u would cost more than making
 * it. taps[group][panel][chunk][u][v][c][column] */
static int64_t taps_panel(const plan *s) { return taps_of(s) * s->p->in_channels * s->panel; }

static const char *stored_taps(const plan *s, int64_t group, const piece *k, int64_t c0)
{
    const int64_t at = (group * s->panels + k->panel) * taps_panel(s) + taps_of(s) * c0 * k->panel_width;
    return s->p->packed + at * (int64_t)s->p->item;
}

/* Of few tiles taps[c][u][v][column] of a vector of columns: one stream. */
static void pack_vector(const plan *s, int64_t group, int64_t first, int64_t columns, int64_t c0, int64_t channels,
                        char *to)
{
    const fc_problem *p = s->p;
    const int64_t item = (int64_t)p->item, taps = taps_of(s), step = taps * s->lanes;
    const char *from = p->weight + (group * p->weight_g + first * p->weight_k + c0 * p->weight_c) * item;
    if (columns < s->lanes)
        memset(to, 0, (size_t)(channels * step * item));
    if (p->weight_c == taps && p->weight_u == p->kernel_w && p->weight_v == 1)
        p->k->transpose(columns, channels * taps, from, p->weight_k, to, s->lanes);
    else
        for (int64_t c = 0; c < channels; c++)
            fc_pack_weights(p, from + c * p->weight_c * item, 1, columns, to + c * step * item, s->lanes);
}

typedef struct {
    const plan *s;
    char *to, *pads; /* pads[slot]: memory of transform_weights */
    int64_t pad_pitch;
} store_job;

static void store_weights(void *context, int64_t task, int slot)
{
    const store_job *j = context;
    const plan *s = j->s;
    const int64_t group = task / s->panels, item = (int64_t)s->p->item;
    const piece k = whole_panel(s, task % s->panels);
    if (!s->by_panels) {
        for (int64_t c0 = 0; c0 < s->p->in_channels; c0 += s->tiles.chunk)
            transform_weights(s, group, &k, c0, fc_min(s->tiles.chunk, s->p->in_channels - c0),
                              j->pads + slot * j->pad_pitch, j->to + task * s->u_bytes + u_offset(s, &k, c0));
        return;
    }
    char *to = j->to + task * taps_panel(s) * item;
    if (s->few) {
        const int64_t vector = taps_of(s) * s->p->in_channels * s->lanes * item;
        for (int64_t first = 0; first < k.columns; first += s->lanes, to += vector)
            pack_vector(s, group, k.first + first, fc_min(s->lanes, k.columns - first), 0, s->p->in_channels, to);
        return;
    }
    for (int64_t c0 = 0; c0 < s->p->in_channels; c0 += s->chunk) {
        const int64_t channels = fc_min(s->chunk, s->p->in_channels - c0);
        pack_taps(s, group, &k, c0, channels, to + taps_of(s) * c0 * k.width * item);
    }
}

/* ---- tiles -----------------------------------------------------------------------------------------------------------*/
static int64_t parts_of(const plan *s, const piece *k) { return fc_channel_parts(s->p, k->width); }

/* Which of the transformed weights a phase has at a point, where those of the phase start at `first`. */
static int64_t weight_at(const fc_tiles *t, int64_t first, int last, int e)
{
    const int64_t row = e / t->in_w, column = e % t->in_w;
    return first + (last & FC_LAST_COLUMN ? column : 0) +
           (last & FC_LAST_ROW ? row * (last & FC_LAST_COLUMN ? t->in_w : 1) : 0);
}

/* m[e][slot][panel] (+)= v[e][slot][c0 ..] * u[phase and e][c][panel] for a chunk of channels and the tiles of a block, while the `ahead_bytes`
 * at `ahead` come into the second-level cache. Points that the same tiles have are multiplied by one call. */
static void multiply(const plan *s, const fc_tile_block *b, const piece *k, int64_t c0, int64_t channels, const char *v,
                     const char *u, char *m, const char *ahead, int64_t ahead_bytes)
{
    const fc_tiles *t = &s->tiles;
    const int64_t item = (int64_t)s->p->item, part = fc_part_elements(t), rows = rows_of(t, channels),
                  lines = fc_ceil_div(ahead_bytes, FC_LINE_BYTES * t->points);
    fc_winograd_product product = {
        .part = part,
        .v_brick = t->parts * part,
        .u_point = s->u_point,
        .m_brick = parts_of(s, k) * part,
        .share = t->share,
        .vectors = (int)(k->width / s->lanes),
        .accumulate = c0 > 0,
        .ahead_lines = lines,
    };
    v += t->phases * fc_channel_parts(s->p, c0) * part * item;
    for (int e = 0; e < t->points; e += product.points) {
        const fc_tile_slots slots = fc_slots_of(t, b, e);
        const fc_range phases = fc_phases_at(t, e);
        const int64_t brick = slots.first / t->share, at = e * t->k->point;
        product.points = s->joined ? slots.points : 1;
        product.first = slots.first % t->share;
        product.tiles = slots.count;
        product.phases = 0;
        if (s->joined)
            product.u[product.phases++] = u + e * s->u_point * item;
        else
            for (int64_t f = 0, first = 0; f < phases.end; first += fc_phase_weights(t, f++))
                if (f >= phases.first)
                    product.u[product.phases++] =
                        u + weight_at(t, first, fc_tile_phase_at(t, f).last, e) * s->u_point * item;
        product.channels = (phases.end - phases.first) * rows;
        product.phase_channels = product.channels / product.phases;
        product.v = v + (at + brick * product.v_brick + fc_channel_parts(s->p, phases.first * rows) * part) * item;
        product.m = m + (at + brick * product.m_brick) * item;
        product.ahead = ahead + e * lines * FC_LINE_BYTES;
        t->k->multiply(&product);
    }
}

/* Output channels of one panel, for the tiles of a run. */
static void store_run(const plan *s, int64_t group, const piece *k, const fc_tile_run *r, char *m, char *tile)
{
    const fc_problem *p = s->p;
    const fc_epilogue *e = &p->epilogue;
    const int64_t item = (int64_t)p->item, channel = group * p->out_channels + k->first, columns = k->columns;
    const fc_tile_image at = fc_tile_image_at(&s->tiles, r->n);
    const fc_image image = fc_tile_image_y(&s->tiles, &at, channel, columns);
    const int64_t out = s->tiles.out_w, whole = s->tiles.whole_columns, gap_h = s->tiles.gap_h, gap_w = s->tiles.gap_w,
                  w = fc_tile_start(r->column, whole, out),
                  h = fc_tile_start(r->row, s->tiles.whole_rows, s->tiles.out_h),
                  rows = fc_tile_length(r->row, s->tiles.whole_rows, s->tiles.out_h, image.h);
    const fc_pitch pitch = {out * r->count * s->panel, s->panel, 1};
    char *y = s->y_in_place ? image.data + (h * image.stride_h + w * image.stride_w) * item : tile;
    double check[FC_MAX_LANES] = {0};
    fc_winograd_output o = {
        .channels = columns,
        .scale = fc_at(e->scale, channel, item),
        .bias = fc_at(e->bias, channel, item),
        .lower = e->lower,
        .upper = e->upper,
        .residual_row = gap_h * p->residual.stride_h,
        .residual_pixel = gap_w * p->residual.stride_w,
        .y_row = s->y_in_place ? image.stride_h : pitch.row,
        .y_pixel = s->y_in_place ? image.stride_w : pitch.pixel,
        .check = k->first == 0 ? check : NULL,
        .stream = s->stream,
    };
    const int64_t y_row = o.y_row, y_pixel = o.y_pixel, residual_row = o.residual_row,
                  residual_pixel = o.residual_pixel;
    if (s->tiles.upright) /* to the kernel, a column is a row */
        o.y_pixel = o.y_row, o.residual_pixel = o.residual_row;
    const char *residual = fc_residual_at(p, at.n, channel, at.row + gap_h * h, at.column + gap_w * w);
    fc_tile_place place = fc_first_place(&s->tiles, r, parts_of(s, k));
    for (int64_t column = r->column; column < r->column + r->count;) {
        const int64_t length = fc_tile_length(column, whole, out, image.w);
        if (s->fetch && !s->stream)
            fc_fetch_pixels(y + s->tiles.out_h * y_row * item, s->tiles.out_h, out, y_row * item, y_pixel * item,
                            columns * item);
        if (s->fetch && residual)
            fc_fetch_pixels(residual + s->tiles.out_h * residual_row * item, s->tiles.out_h, out, residual_row * item,
                            residual_pixel * item, columns * item);
        s->tiles.k->output[s->tiles.taps](&o, m + place.at * item, residual, y, s->tiles.upright ? 1 : (int)rows,
                                          s->tiles.upright ? (int)rows : (int)length);
        y += length * y_pixel * item;
        residual = fc_at(residual, length * residual_pixel, p->item);
        fc_next_place(&s->tiles, r, ++column, &place);
    }
    if (k->first == 0 && !p->k->finite(s->lanes, check))
        atomic_store_explicit(&s->spoilt[at.n], 1, memory_order_relaxed);
    if (!s->y_in_place) {
        const int64_t end = fc_min(fc_tile_start(r->column + r->count, whole, out), image.w);
        const fc_window window = {h, rows, 1, w, end - w, 1};
        fc_store_window(p->k, p->item, &image, &window, tile, &pitch);
    }
}

static void store_tiles(const plan *s, const fc_tile_block *b, int64_t group, const piece *k, char *m,
                        char *tile_memory)
{
    for (int64_t tile = b->first; tile < b->end;) {
        const fc_tile_run r = fc_run_at(&s->tiles, b, tile, b->end);
        store_run(s, group, k, &r, m, tile_memory);
        tile += r.count;
    }
    if (s->stream)
        s->p->k->fence();
}

/* A tile adds up neighbours: where one is NaN or infinite all its outputs are. The images of such tiles run again directly, in memory that
 * was the tiles': there is enough of it (fc_spoilt_bytes). */
int64_t fc_spoilt_bytes(const fc_problem *p) { return p->weight ? fc_conv_direct_scratch(p) : 0; }

fc_status fc_mend_spoilt(const fc_problem *p, const atomic_char *spoilt)
{
    const int64_t item = (int64_t)p->item;
    fc_status status = FC_OK;
    for (int64_t n = 0; n < p->y.n && status == FC_OK && p->weight; n++)
        if (atomic_load_explicit(&spoilt[n], memory_order_relaxed)) {
            fc_problem q = *p;
            q.packed = NULL;
            q.packed_v = 0;
            q.x.data = (char *)q.x.data + n * q.x.stride_n * item;
            q.y.data = (char *)q.y.data + n * q.y.stride_n * item;
            q.residual.data = (char *)fc_residual_at(p, n, 0, 0, 0);
            q.x.n = q.y.n = 1;
            status = fc_conv_direct(&q);
        }
    return status;
}

/* ---- schedules -------------------------------------------------------------------------------------------------------*/
static void run_tiles(void *context, int64_t task, int slot)
{
    const plan *s = context;
    const memory t = thread_memory(s, slot);
    const int64_t group = task / s->count, first = task % s->count * s->block,
                  end = fc_min(first + s->block, s->tiles.count);
    const fc_tile_block b = fc_block_of(&s->tiles, first, end);
    fc_transform_inputs(&s->tiles, &b, group, first, end, t.strip, t.uv);
    for (int64_t panel = 0; panel < s->panels; panel++) {
        const char *u = stored_weights(s, group, panel);
        const piece k = whole_panel(s, panel);
        for (int64_t c0 = 0; c0 < s->p->in_channels; c0 += s->tiles.chunk)
            multiply(s, &b, &k, c0, fc_min(s->tiles.chunk, s->p->in_channels - c0), t.uv, u + u_offset(s, &k, c0), t.m,
                     t.uv, 0);
        store_tiles(s, &b, group, &k, t.m, t.tile);
    }
}

enum { TILES_PER_TASK = 4 };

static void run_inputs(void *context, int64_t task, int slot)
{
    const plan *s = context;
    const int64_t first = s->stretch.first + task * TILES_PER_TASK,
                  end = fc_min(first + TILES_PER_TASK, s->stretch.end);
    fc_transform_inputs(&s->tiles, &s->stretch, s->group, first, end, thread_memory(s, slot).strip, s->v);
}

/* Up to FC_WINOGRAD_FEW tiles at a time. */
static void multiply_few(const plan *s, const fc_winograd_few *all)
{
    const int64_t line = s->tiles.k->line * (int64_t)s->p->item, tiles = s->stretch.end - s->stretch.first;
    for (int64_t tile = 0, count; tile < tiles; tile += count) {
        fc_winograd_few f = *all;
        f.v = (const char *)all->v + tile * line;
        f.m = (char *)all->m + tile * line;
        for (count = FC_WINOGRAD_FEW; count > tiles - tile;)
            count /= 2;
        s->tiles.k->multiply_few[count](&f);
    }
}

/* By panels a task is a panel, `each` for every thread. Those that are left over, if they are no more than half of the threads, are cut
 * into vectors: the first `halves` threads end with one. */
static piece piece_at(const plan *s, int64_t task)
{
    const int64_t each = s->each, others = s->halves * (each + 1);
    if (task >= others)
        return whole_panel(s, s->halves * each + task - others);
    const int64_t thread = task / (each + 1), at = task % (each + 1);
    return at < each ? whole_panel(s, thread * each + at)
                     : vector_of(s, s->panels - s->halves / 2 + thread / 2, thread % 2);
}

static int64_t panel_tasks(const plan *s) { return s->panels + s->halves / 2; }

/* Where the taps of a chunk and vector are, packed if need be, and those of the next chunk, which come into the cache meanwhile. */
static void set_taps(const plan *s, const piece *k, int64_t vector, int64_t c0, char *pack, fc_winograd_few *f)
{
    const fc_problem *p = s->p;
    const int64_t item = (int64_t)p->item, taps = taps_of(s), line = s->tiles.k->line,
                  last = c0 + s->chunk >= p->in_channels;
    f->row = p->kernel_w * s->lanes, f->tap = s->lanes, f->step = taps * s->lanes;
    if (s->prepared) {
        const int64_t at = (k->first - k->panel * s->panel) / s->lanes + vector;
        f->w = stored_taps(s, s->group, k, 0) + (at * p->in_channels + c0) * f->step * item;
        f->ahead_row = f->step * item, f->ahead_part = f->ahead_row * line;
        f->ahead = (const char *)f->w + f->channels * f->ahead_row;
    } else if (p->packed) { /* by fc_use_packed */
        const int64_t first = k->first - k->panel * s->panel + vector * s->lanes;
        f->w = p->packed + (fc_packed_at(p, s->group, k->panel * s->panel, c0, k->panel_width) + first) * item;
        f->row = p->packed_u * k->panel_width, f->tap = p->packed_v * k->panel_width, f->step = k->panel_width;
        f->ahead = f->w;
    } else {
        const int64_t first = k->first + vector * s->lanes, runs = p->weight_c == taps;
        pack_vector(s, s->group, first, fc_min(s->lanes, k->columns - vector * s->lanes), c0, f->channels, pack);
        f->w = pack;
        /* Of a weight as torch keeps it a row is an output, else a channel of the sum. */
        f->ahead_row = (runs ? p->weight_k : p->weight_c) * item;
        f->ahead_part = runs ? taps * line * item : f->ahead_row * line;
        f->ahead = p->weight + (s->group * p->weight_g + (last ? first + s->lanes : first) * p->weight_k +
                                (last ? 0 : c0 + s->chunk) * p->weight_c - (runs ? 0 : taps - 1)) *
                                   item;
    }
}

/* Few tiles. */
static void run_few(void *context, int64_t task, int slot)
{
    const plan *s = context;
    const fc_problem *p = s->p;
    const memory t = thread_memory(s, slot);
    const piece k = piece_at(s, task);
    const int64_t item = (int64_t)p->item, part = fc_part_elements(&s->tiles);
    for (int64_t vector = 0; vector * s->lanes < k.columns; vector++)
        for (int64_t c0 = 0; c0 < p->in_channels; c0 += s->chunk) {
            const int64_t at = vector * s->lanes, line = s->tiles.k->line;
            fc_winograd_few f = {.v = s->v + fc_channel_parts(p, c0) * part * item,
                                 .m = t.m + (at / line * part + at % line) * item,
                                 .part = part,
                                 .channels = fc_min(s->chunk, p->in_channels - c0),
                                 .accumulate = c0 > 0};
            set_taps(s, &k, vector, c0, t.pack, &f);
            multiply_few(s, &f);
        }
    if (k.columns > 0)
        store_tiles(s, &s->stretch, s->group, &k, t.m, t.tile);
}

static void run_panel(void *context, int64_t task, int slot)
{
    const plan *s = context;
    const memory t = thread_memory(s, slot);
    const piece k = piece_at(s, task);
    if (k.columns == 0)
        return;
    for (int64_t c0 = 0; c0 < s->p->in_channels; c0 += s->chunk) {
        const int64_t channels = fc_min(s->chunk, s->p->in_channels - c0), tap = channels * k.panel_width;
        const char *ahead = t.uv; /* no bytes of it */
        int64_t ahead_bytes = 0;
        if (s->prepared) { /* a plan's weights come from memory: those of the next chunk while this one is multiplied */
            const char *taps = stored_taps(s, s->group, &k, c0);
            transform_packed(s, &k, taps, s->p->kernel_w * tap, tap, channels, t.pad, t.uv);
            ahead_bytes = taps_of(s) * tap * (int64_t)s->p->item;
            ahead = taps + ahead_bytes;
        } else {
            transform_weights(s, s->group, &k, c0, channels, t.pad, t.uv);
        }
        multiply(s, &s->stretch, &k, c0, channels, s->v, t.uv, t.m, ahead, ahead_bytes);
    }
    store_tiles(s, &s->stretch, s->group, &k, t.m, t.tile);
}

int fc_conv_winograd_serves(const fc_problem *p)
{
    const int64_t most = fc_max(p->kernel_h, p->kernel_w);
    if (p->stride_h == 2 && p->stride_w == 2)
        return p->kernel_h == p->kernel_w && most > 2 && most <= 2 * FC_WINOGRAD_MAX_KERNEL && p->dilation_h == 1 &&
               p->dilation_w == 1;
    return p->stride_h == 1 && p->stride_w == 1 && most > 1 &&
           most <= (fc_min(p->kernel_h, p->kernel_w) == 1 ? MAX_LINE : MAX_SQUARE);
}

static int64_t zeros_bytes(const plan *s) { return bytes_of(s, s->p->in_channels); }
static int64_t flags_bytes(const plan *s) { return fc_round_up(s->p->y.n, 64); }

int64_t fc_conv_winograd_scratch(const fc_problem *p)
{
    const plan s = make_plan(p);
    return fc_max(s.thread_bytes, fc_spoilt_bytes(p)) + zeros_bytes(&s) + flags_bytes(&s) + fc_pixels_bytes(p) +
           (s.by_panels ? s.v_bytes : p->groups * s.panels * s.u_bytes);
}

int64_t fc_packed_winograd(const fc_problem *p)
{
    const plan s = make_plan(p);
    return p->groups * s.panels * (s.by_panels ? taps_panel(&s) : s.u_bytes / (int64_t)p->item);
}

fc_status fc_pack_winograd(const fc_problem *p, char *to)
{
    const plan s = make_plan(p);
    const int64_t tasks = p->groups * s.panels;
    const int slots = fc_parallel_slots(tasks);
    char *packs = NULL; /* by panels taps go straight to their place */
    const int64_t pitch = s.pad_bytes + s.pack_bytes;
    if (!s.by_panels && !(packs = fc_scratch_acquire_parts(0, slots, pitch)))
        return FC_ENOMEM;
    store_job job = {&s, to, packs, pitch};
    fc_parallel_in(slots, tasks, store_weights, &job);
    fc_scratch_release(packs);
    return FC_OK;
}

static fc_status run(const fc_problem *p)
{
    plan s = make_plan(p);
    const int64_t shared = s.by_panels ? s.v_bytes : s.prepared ? 0 : p->groups * s.panels * s.u_bytes;
    const int64_t zeros = zeros_bytes(&s), flags = flags_bytes(&s);
    const int slots = fc_parallel_slots(INT64_MAX);
    char *scratch = fc_scratch_acquire_parts(zeros + shared, slots, fc_max(s.thread_bytes, fc_spoilt_bytes(p)));
    s.spoilt = fc_scratch_acquire((size_t)flags);
    if (!scratch || !s.spoilt) {
        fc_scratch_release(scratch);
        fc_scratch_release(s.spoilt);
        return FC_ENOMEM;
    }
    s.tiles.zeros = memset(scratch, 0, (size_t)zeros);
    memset(s.spoilt, 0, (size_t)flags);
    s.v = scratch + zeros;
    s.threads = s.v + shared;
    s.u = s.prepared ? p->packed : s.v;
    if (s.by_panels) {
        for (s.group = 0; s.group < p->groups; s.group++)
            for (int64_t first = 0; first < s.tiles.count; first += s.block) {
                s.stretch = fc_block_of(&s.tiles, first, fc_min(first + s.block, s.tiles.count));
                fc_parallel_in(slots, fc_ceil_div(s.stretch.end - first, TILES_PER_TASK), run_inputs, &s);
                fc_parallel_in(slots, panel_tasks(&s), s.few ? run_few : run_panel, &s);
            }
    } else {
        store_job job = {&s, s.v, thread_memory(&s, 0).pad, s.thread_bytes};
        if (!s.prepared)
            fc_parallel_in(slots, p->groups * s.panels, store_weights, &job);
        fc_parallel_in(slots, p->groups * s.count, run_tiles, &s);
    }
    fc_scratch_release(scratch);
    const fc_status status = fc_mend_spoilt(p, s.spoilt);
    fc_scratch_release(s.spoilt);
    return status;
}

fc_status fc_conv_winograd(const fc_problem *p) { return fc_run_on_pixels(p, 1, run); }
