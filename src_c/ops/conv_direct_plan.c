/* conv_direct_plan.c: blocks, tiles and memory of a direct convolution (conv_direct.c). */
#include "conv_direct.h"

#include "../threads.h"

enum {
    /* A panel's weights are read once per output row: keep them to half of a small (1 MiB) second-level cache. Also
     * fixes the order of the sum, so it is a constant. */
    PANEL_BYTES = 512 << 10,
    /* Rows of the tile kernel that lie a multiple of this apart share L1 sets (64 sets x 64 B = 4 KiB per way; 14 rows
     * in two sets still fit 8 ways: of an x that would have to be copied, strided pixels may lie so). */
    ALIASING_BYTES = 2048,
    /* Of a 1x1 weight, whose sums are in the order of the channels anyway: 256 rows of a panel are 16 KiB of L1
     * (AVX-512: 32), and a strip of so many channels leaves the cache room for 49 pixels and more, so that the weight
     * is read once. */
    POINTWISE_CHUNK = 256,
    /* A whole 1x1 weight that is read anew for every few pixels: half of a first-level cache of 32 KiB. */
    TOGETHER_BYTES = 16 << 10,
    PITCH_PAD_BYTES = 64,
    FEW_BLOCKS = 4, /* of a group, each packs a [c][k] weight anew by its first tiles; 16: 0.97 to 1.0 of the speed */
};

/* Columns whose outputs see no padding beside the row. */
static fc_range columns_inside(const fc_problem *p)
{
    const fc_range first = fc_seeing_outputs(0, p->y.w, p->stride_w, p->dilation_w, p->pad_left, p->x.w),
                   last = fc_seeing_outputs(p->kernel_w - 1, p->y.w, p->stride_w, p->dilation_w, p->pad_left, p->x.w);
    const int64_t begin = fc_max(first.first, last.first);
    return (fc_range){begin, fc_max(begin, fc_min(first.end, last.end))};
}

/* Of pixels of one vector a tile reads as many lines at a time as it has rows, which two sets hold. */
static int can_run_in_place(const fc_problem *p)
{
    const int64_t pixel = p->x.stride_w * (int64_t)p->item;
    const int aliases = (pixel % ALIASING_BYTES == 0 && p->in_channels > p->k->vector_lanes) ||
                        pixel * p->stride_w % (2 * ALIASING_BYTES) == 0;
    return p->x.stride_c == 1 && (!aliases || fc_has_wide_l1());
}

static void set_strip(fc_direct_plan *s)
{
    const fc_problem *p = s->p;
    if (s->in_place) {
        s->strip_pixel = p->x.stride_w;
        s->strip_row = p->x.stride_h;
        s->strip_image = p->x.stride_n;
        s->strip_step_h = p->stride_h;
        s->strip_step_w = p->stride_w;
        s->strip_bytes = 0;
        return;
    }
    const int64_t item = (int64_t)p->item,
                  columns = fc_strip_extent(s->block_w, p->kernel_w, p->stride_w, p->dilation_w);
    s->strip_step_h = p->kernel_h == 1 ? 1 : p->stride_h;
    s->strip_step_w = p->kernel_w == 1 ? 1 : p->stride_w;
    s->strip_pixel = s->chunk;
    if (s->strip_step_w * s->chunk * item % ALIASING_BYTES == 0) /* neighbours a line further than they were */
        s->strip_pixel += fc_ceil_div(PITCH_PAD_BYTES, s->strip_step_w * item);
    s->strip_row = columns * s->strip_pixel;
    s->strip_image = fc_strip_extent(s->block_h, p->kernel_h, p->stride_h, p->dilation_h) * s->strip_row;
    if (s->by_pixel && s->strip_image * item % ALIASING_BYTES == 0)
        s->strip_image += PITCH_PAD_BYTES / item;
    s->strip_bytes = fc_round_up(s->block_n * s->strip_image * item, 64);
}

/* Bytes a block keeps in the cache: its strip (copied or not) of one chunk and its outputs of one panel. */
static int64_t block_bytes(const fc_direct_plan *s)
{
    const fc_problem *p = s->p;
    const int64_t rows = fc_strip_extent(s->block_h, p->kernel_h, p->stride_h, p->dilation_h);
    const int64_t columns = fc_strip_extent(s->block_w, p->kernel_w, p->stride_w, p->dilation_w);
    return s->block_n * (int64_t)p->item *
           (rows * columns * s->chunk + s->block_h * s->block_w * (s->dense_y ? s->panel : p->out_channels));
}

/* The largest block that fits the budget: columns first, then rows, then images. */
static void choose_block(fc_direct_plan *s, int64_t budget)
{
    const fc_problem *p = s->p;
    const int64_t group = fc_tile_rows(p);
    s->block_n = s->block_h = 1;
    s->block_w = p->y.w;
    while (block_bytes(s) > budget && s->block_w > group)
        s->block_w = fc_max(group, fc_round_up(s->block_w / 2, group));
    if (s->block_w >= p->y.w) {
        while (s->block_h < p->y.h && (s->block_h++, block_bytes(s) <= budget))
            ;
        if (block_bytes(s) > budget && s->block_h > 1)
            s->block_h--;
        s->block_h = fc_ceil_div(p->y.h, fc_ceil_div(p->y.h, s->block_h)); /* near-equal blocks */
    }
    if (s->block_w >= p->y.w && s->block_h >= p->y.h) {
        budget *= p->y.w < group ? 2 : 1; /* a tile may be one pixel of several images */
        while (s->block_n < p->y.n && (s->block_n++, block_bytes(s) <= budget))
            ;
        if (block_bytes(s) > budget && s->block_n > 1)
            s->block_n--;
    }
}

static int64_t blocks(fc_direct_plan *s)
{
    s->count_n = fc_ceil_div(s->p->y.n, s->block_n);
    s->count_h = fc_ceil_div(s->p->y.h, s->block_h);
    s->count_w = fc_ceil_div(s->p->y.w, s->block_w);
    return s->count_n * s->count_h * s->count_w * s->p->groups;
}

/* A few panels that leave a thread without one, as 3 do one of two: each has its part of a row of pixels instead, and
 * reads all of a weight that is packed. */
static int is_uneven(fc_direct_plan *s, int threads, int64_t wanted)
{
    const fc_problem *p = s->p;
    return fc_tap_count(p) == 1 && p->packed && blocks(s) == 1 && s->panels < wanted / 2 && s->panels % threads &&
           s->block_w >= threads * fc_tile_rows(p);
}

/* The size of the blocks of an axis of `size`, which makes `count` of them now, that would make `wanted` of all: right
 * after blocks(), which sets the counts. */
static int64_t share_of(fc_direct_plan *s, int64_t size, int64_t count, int64_t wanted)
{
    return fc_ceil_div(size, fc_ceil_div(wanted * count, blocks(s)));
}

/* Whether packing a panel for each block costs nothing: its first tile does it (conv_direct.c). Not of a small weight,
 * whose panels are one call. */
static int packs_on_the_way(const fc_direct_plan *s)
{
    const fc_problem *p = s->p;
    return fc_packs_weight(p, fc_min(s->panel, p->out_channels), s->block_w) &&
           fc_packed_direct(p) / p->groups * (int64_t)p->item > TOGETHER_BYTES;
}

/* Enough tasks for every thread: fewer images per block, then smaller row blocks, then panels split between tasks.
 * Where the weights outweigh the strip, panels are split first: each panel is then read by one task only. */
static void share_out(fc_direct_plan *s)
{
    const fc_problem *p = s->p;
    const int threads = fc_parallel_slots(INT64_MAX);
    const int64_t wanted = fc_parallel_tasks(), rows = fc_tile_rows(p);
    const int heavy =
        s->panels >= threads && p->in_channels * p->out_channels * fc_tap_count(p) * (int64_t)p->item > block_bytes(s);
    const int64_t tile = p->y.w < rows / 2 && s->panels > 1 ? rows / 2 : 1; /* images whose pixels may be one */
    if (blocks(s) < wanted)
        s->block_n = fc_min(s->block_n, fc_max(tile, share_of(s, p->y.n, s->count_n, wanted)));
    if (!heavy && blocks(s) < wanted)
        s->block_h = fc_min(s->block_h, fc_max(4, share_of(s, p->y.h, s->count_h, wanted)));
    if (!heavy && blocks(s) < wanted)
        s->block_w = fc_min(s->block_w, fc_max(4 * rows, fc_round_up(share_of(s, p->y.w, s->count_w, wanted), rows)));
    if (heavy && is_uneven(s, threads, wanted))
        s->block_w = fc_ceil_div(s->block_w, threads);
    s->kept = !s->in_place && blocks(s) < wanted && block_bytes(s) / s->chunk * p->in_channels <= fc_l2_bytes();
    /* Where strips are not kept each part copies them, which for a single tap takes a quarter of the time of one panel:
     * no more parts than threads. */
    const int64_t tasks = fc_tap_count(p) == 1 && !s->in_place && !s->kept ? threads : wanted;
    const int enough = blocks(s) >= threads && 2 * blocks(s) > tasks;
    s->parts = enough ? 1 : fc_min(s->panels, fc_ceil_div(tasks, blocks(s)));
    s->kept = s->kept && s->parts > 1;
    s->pack_late = !p->packed && blocks(s) <= p->groups * (packs_on_the_way(s) ? FEW_BLOCKS : 1);
    /* as many for each thread: 28 rows are 8 blocks of 3 and 4, not 7 of 4 */
    const int64_t others = s->count_n * s->count_w * p->groups;
    while (!heavy && s->count_h > 1 && s->count_h < p->y.h && others * s->count_h < 2 * wanted &&
           others * s->count_h % threads)
        s->count_h++;
}

/* ---- taps in the padding ------------------------------------------------------------------------------------------*/
/* Cycles of a tile of two vectors that sees so many taps of a row of the kernel. Half a row more stands for what it
 * loads beside its rows; fewer than 4, or 8 of a single vector, wait for their own sums. Tiles of HALF_ROWS and more
 * multiply half of a second vector that is at most half full (kernels/gemm.tmpl.h); a single one is counted whole.
 * CALL is the price of a tile that is cut here, SMALL a problem that is done before the best cut is found. */
enum { CALL = 128, SMALL = 1 << 16, HALF_ROWS = 13 };

static int64_t tile_cost(const fc_direct_plan *s, int64_t taps, int64_t rows)
{
    const fc_problem *p = s->p;
    const int64_t steps = taps * p->kernel_h * s->chunk, half = s->lanes / 2;
    if (rows >= HALF_ROWS && p->k->gemm->widest > 2 && fc_ceil_div(p->out_channels, half) == 3)
        return steps * (3 * rows / 2 + 1);
    return steps * (2 * fc_max(rows, p->out_channels > s->lanes ? 4 : 8) + 1);
}

/* The same of near-equal tiles of so many rows. */
static int64_t tiles_cost(const fc_direct_plan *s, int64_t taps, int64_t rows)
{
    const int64_t tiles = fc_ceil_div(rows, fc_tile_rows(s->p)), longer = rows % tiles;
    return longer * tile_cost(s, taps, rows / tiles + 1) + (tiles - longer) * tile_cost(s, taps, rows / tiles);
}

/* The cheapest way to cut a row into tiles, and its cost: best[i] is that of columns [0, i), whose last tile has
 * size[i]. */
static int64_t cut_row(fc_direct_plan *s)
{
    const fc_problem *p = s->p;
    int64_t best[FC_MAX_TILED + 1] = {0}, size[FC_MAX_TILED + 1];
    fc_range taps[FC_MAX_TILED];
    for (int64_t i = 0; i < p->y.w; i++)
        taps[i] = fc_taps_of_column(p, i);
    for (int64_t end = 1; end <= p->y.w; end++) {
        best[end] = INT64_MAX;
        for (int64_t rows = 1; rows <= fc_min(fc_tile_rows(p), end); rows++) {
            const int64_t seen = fc_max(0, taps[end - rows].end - taps[end - 1].first);
            const int64_t cost = best[end - rows] + tile_cost(s, seen, rows) + CALL;
            if (cost <= best[end])
                best[end] = cost, size[end] = rows;
        }
    }
    s->tiles = 0;
    for (int64_t end = p->y.w; end > 0; end -= size[end])
        s->tile[s->tiles++] = (fc_column_tile){end - size[end], end, {taps[end - 1].first, taps[end - size[end]].end}};
    return best[p->y.w];
}

/* No cut is cheaper where the outputs of a row see so many taps: a tile of n outputs sees at least an n-th of
 * theirs. */
static int64_t least_cut(const fc_direct_plan *s, int64_t seen)
{
    const fc_problem *p = s->p;
    return (2 * seen + seen / fc_tile_rows(p)) * p->kernel_h * s->chunk;
}

/* A row in place: tiles of its columns that see no padding, and its part of tiles that walk down the others, with the
 * taps that these see. Such a tile ends where a block does, and where rows of the
 * kernel leave the image, say twice. */
static int64_t in_place_cost(const fc_direct_plan *s)
{
    const fc_problem *p = s->p;
    const int64_t runs = fc_ceil_div(p->y.h, fc_min(s->block_h, fc_tile_rows(p))) + 2 * (p->pad_top > 0),
                  rows = fc_ceil_div(p->y.h, runs);
    int64_t edges = 0;
    for (int64_t w = fc_next_edge(&s->inside, 0); w < p->y.w; w = fc_next_edge(&s->inside, w + 1)) {
        const fc_range seen = fc_taps_of_column(p, w);
        edges += tile_cost(s, seen.end - seen.first, rows) + 2 * CALL; /* no tile before has fetched its lines of y */
    }
    return tiles_cost(s, p->kernel_w, s->inside.end - s->inside.first) + edges * runs / p->y.h;
}

/* Copying takes COPY cycles for each vector (conv_choose.c), which all panels share. Cutting a row may pay where many
 * of its columns see padding. */
static int pays_in_place(fc_direct_plan *s)
{
    enum { COPY = 4, MANY = 8 };
    const fc_problem *p = s->p;
    if (fc_sees_no_padding(p))
        return 1;
    if (p->band)
        return 0;
    const int64_t inside = s->inside.end - s->inside.first, rows = p->kernel_h == 1 ? 1 : p->stride_h,
                  copy = rows * fc_ceil_div(p->x.w * p->in_channels, s->lanes) * COPY / s->panels,
                  limit = inside > 0 ? in_place_cost(s) - copy : INT64_MAX;
    if (limit > tiles_cost(s, p->kernel_w, p->y.w))
        return 0;
    const int cut = p->y.w - inside >= MANY && p->y.w <= FC_MAX_TILED && cut_row(s) < limit;
    s->tiles = 0;
    return !cut;
}

static void choose_tiles(fc_direct_plan *s)
{
    const fc_problem *p = s->p;
    const int64_t most = fc_tile_rows(p);
    if (p->kernel_w == 1 || p->y.w > FC_MAX_TILED || s->block_w < p->y.w || fc_sees_no_padding(p))
        return;
    const int64_t images = fc_ceil_div(s->block_n, fc_ceil_div(s->block_n, most)),
                  plain = s->in_place ? in_place_cost(s) : tiles_cost(s, p->kernel_w, p->y.w);
    if (plain * p->y.n * p->y.h < SMALL)
        return;
    int64_t seen = 0;
    for (int64_t i = 0; i < p->y.w; i++)
        seen += fc_taps_of_column(p, i).end - fc_taps_of_column(p, i).first;
    const int64_t limit = plain - plain / 32, cut = !s->in_place && least_cut(s, seen) < limit ? cut_row(s) : limit;
    s->by_pixel = (tile_cost(s, seen, images) + p->y.w * CALL) / images < fc_min(cut, limit);
    if (s->by_pixel || cut >= limit)
        s->tiles = 0;
    if (s->by_pixel && p->x.stride_n * (int64_t)p->item % ALIASING_BYTES == 0)
        s->in_place = 0; /* the pixels of a tile would share cache sets: a copy has another pitch */
}

int64_t fc_direct_chunk(const fc_problem *p)
{
    if (p->chunk)
        return p->chunk;
    const int64_t lanes = p->k->vector_lanes, column = fc_tap_count(p) * 2 * lanes * (int64_t)p->item;
    int64_t chunk = p->in_channels;
    if (chunk * column > PANEL_BYTES &&
        chunk > 2 * lanes) /* else a pixel in two, whose taps are products by themselves */
        chunk = fc_max(lanes, PANEL_BYTES / column / lanes * lanes);
    if (fc_tap_count(p) == 1)
        chunk = fc_min(chunk, fc_ceil_div(p->in_channels, fc_ceil_div(p->in_channels, POINTWISE_CHUNK)));
    return chunk;
}

fc_direct_plan fc_plan_direct(const fc_problem *p)
{
    fc_direct_plan s = {.p = p, .lanes = p->k->vector_lanes};
    s.panel = 2 * s.lanes;
    s.panels = fc_panels(p);
    s.chunk = fc_direct_chunk(p);
    s.inside = columns_inside(p);
    s.dense_y = p->y.stride_c == 1;
    s.stream = s.chunk == p->in_channels && fc_streams(p);
    choose_block(&s, fc_l2_bytes() / 4);
    s.in_place = can_run_in_place(p) && pays_in_place(&s);
    share_out(&s);
    /* One call for all panels: they follow each other (a later first tap lies at another offset in a panel of another
     * width). */
    s.together = fc_tap_count(p) == 1 && s.chunk == p->in_channels && p->packed_first == 0 && !s.pack_late &&
                 fc_packed_direct(p) / p->groups * (int64_t)p->item <= TOGETHER_BYTES;
    choose_tiles(&s);
    set_strip(&s);
    s.tile_pixel = p->out_channels;
    const int64_t tile = s.dense_y ? 0 : s.block_n * s.block_h * s.block_w * s.tile_pixel * (int64_t)p->item;
    s.tile_bytes = fc_round_up(tile, 64);
    /* packed late: a panel has two vectors, the last one up to three */
    s.thread_bytes = FC_STRIP_HEAD + (s.kept ? fc_chunks(&s) : 1) * s.strip_bytes + s.tile_bytes +
                     (s.pack_late ? fc_round_up(s.chunk * fc_tap_count(p) * 3 * s.lanes * (int64_t)p->item, 64) : 0);
    return s;
}
