/* conv_winograd.c: r x r convolution, r = 3, 4, 5, by F(m x m, r x r), m = 7 - r: 36 multiplications per m * m outputs
 * instead of r * r each; 4 times less for r = 3 and 4, 2.8 times for 5. r = 2 by F(4 x 4, 2 x 2): 25 per 16 outputs,
 * 2.6 times less. Kernels of one row or one column of r taps are the same on tiles of one row or column, F(m, r): 6
 * points instead of 36, 2 times less for r = 3 and 4, 1.7 times for 5, 1.6 for 2.
 *
 * Stride 2: an output is the sum of four convolutions of stride 1, of the pixels in even and odd rows and columns with
 * the even and odd taps: 2 and 1 along an axis of a 3 x 3 kernel. All are done by F(4 x 4, 2 x 2), whose tiles add up
 * before they are transformed back, as channels do. One tap is 0 at the point infinity, which leaves 4 + 5 products
 * along an axis instead of 12: 81 per 16 outputs instead of 144, 1.8 times less. At the other points it is itself, so
 * there are 36 transformed weights and not 81. A 4 x 4 kernel has 100 products instead of 256, 2.6 times less. Kernels
 * of 5 to 10 taps have phases of 3 to 5, by F(m x m, r x r), the odd ones of odd kernels without the last point too.
 * Strides of 3 and 4 are sums of 9 and 16, a stride s of a line is one of s: 16 taps of stride 8 are 8 of 2 taps, 40
 * products for 4 outputs instead of 64.
 *
 * Larger and oblong kernels are the sum of their pieces of r x r taps, which are phases too: 7 x 7 is four of 4 x 4,
 * 144 products for 9 outputs, 121 without the last points of those with 3 taps, instead of 441. Taps beyond the kernel
 * are 0. A dilation makes several images of one (winograd_tiles.h).
 *
 * Tiles of m x m outputs, or of less at the end of a row or column (winograd_tiles.h), are numbered through images,
 * tile rows and tile columns. For a block of T tiles
 *     v = B' x B of each tile, lanes are channels
 *     m = v[e] * u[e], 36 (or 25) matrix products of tiles by channels with the transformed weights
 *                      u[e][channels][panel], of stride 2 u[phase and point][channels][panel]
 *     y                   = A' m A, with the epilogue, straight to the output
 * stay in the second-level cache, v and m in bricks (kernels/winograd.h). Two schedules:
 *     by tiles:  u is made once, tasks are blocks of tiles                       (many tiles)
 *     by panels: v is made once, tasks are panels and make their u as they go    (weights outweigh the tiles);
 *                of many tiles one stretch after the other; of few, where kernels for them exist, u is made in
 *                registers, or two rows of points at a time (conv_winograd_few.c)
 * Both sum over channels in the same order, so the bits are the same. "Once" may be once by each of two threads
 * (fc_makes_own).
 */
#include "../scratch.h"
#include "../threads.h"
#include "conv_winograd.h"

#include <string.h>

enum {
    /* Of so many channels weights are transformed at a time: 36 x 64 x 32 floats = 288 KiB, with v and m in 1 MiB.
     * Phases have as many more, so fewer channels, but no less than a part. */
    CHUNK = 64,
    /* By panels: the larger part of FC_SHARE_BYTES, through which weights and y pass. */
    MAX_V_BYTES = 5 << 20,
    /* Larger blocks are not kept for the next call (scratch.c); of 4 x 4 with stride 2, u is 100 / 16 weights. */
    MAX_U_BYTES = 64 << 20,
    /* Of channels, where tiles are few: 9 taps of a vector of outputs, 72 KiB. Shorter ones, in the first-level cache,
     * load and store sums more often than they gain (32: 0.85 of the speed, 64: 0.97, Zen 4). */
    FEW_CHUNK = 128,
    /* 56 tiles of AVX-512, 24 of AVX2 and SSE2: more do not make the products faster (AVX2: 54, 5 bricks of 11, have
     * 0.95 of the speed of 24). */
    MAX_BRICKS = 2,
    /* Taps along an axis of kernels with stride 1: FC_MAX_PHASES pieces of 4. */
    MAX_SQUARE = 16,
    MAX_LINE = 64,
};

/* Whether a phase has taps beyond the kernel. */
static int is_padded(const fc_tiles *t) { return t->padded_h > t->p->kernel_h || t->padded_w > t->p->kernel_w; }

/* By panels a task is a panel, `each` for every thread. Where panels are few (`cut`), a thread has one more, as two
 * tasks, its vectors. What is left over goes to the first `more` threads: a panel, or if they are no more than half of
 * the threads (`halved`) a vector of one. */
static void share_panels(fc_winograd_plan *s, int64_t threads)
{
    const int64_t others = s->panels % threads;
    s->cut = s->panels >= threads && s->panels < fc_parallel_tasks();
    s->each = s->panels / threads - s->cut;
    s->halved = threads > 1 && others * 2 <= threads;
    s->more = s->halved ? others * 2 : others;
    s->sharers = threads;
}

/* What all threads read: by tiles u of all panels, by panels v of a stretch. */
static int64_t shared_bytes(const fc_winograd_plan *s)
{
    if (s->by_panels)
        return s->v_bytes;
    return s->prepared ? 0 : s->p->groups * s->panels * s->u_bytes;
}

/* Not u of more tiles, where it saves less than 3 %, nor of groups, which a thread reads as it makes them, nor a larger
 * v, which has left the caches before it is written again. */
static void set_own(fc_winograd_plan *s, int64_t threads)
{
    enum { OWN_TILES = 512 };
    const int64_t bytes = shared_bytes(s);
    const int pays = s->by_panels ? bytes <= fc_owners_l2_bytes() : s->p->groups == 1 && s->tiles.count <= OWN_TILES;
    s->own = pays && fc_makes_own(threads, bytes);
    if (s->own)
        s->thread_bytes += FC_LINE_BYTES + bytes;
}

/* v of a block takes 3/5 of the second-level cache, but no less than a brick, for which u is read. */
static void choose_schedule(fc_winograd_plan *s)
{
    const fc_problem *p = s->p;
    const fc_tiles *t = &s->tiles;
    const int64_t item = (int64_t)p->item, half = t->k->brick / 2, l2 = fc_l2_bytes(),
                  v_tile = t->points * t->parts * t->k->line * item, v = t->count * v_tile;
    const int64_t u = fc_tile_weights(t) * p->in_channels * fc_round_up(p->out_channels, s->lanes) * item;
    s->block = fc_max(t->k->brick, fc_min(MAX_BRICKS * t->k->brick, l2 * 3 / 5 / v_tile) / half * half);
    s->count = fc_ceil_div(t->count, s->block);
    /* Quarters of bytes moved beyond that cache. u written, and read once per block of tiles, as a stream, ahead of its
     * use: 3/4 of the price, or 4 times that from memory. Or v written, and read once per panel; each stretch makes u,
     * as long as 2 u move. A v that stays in that cache is multiplied by panels: threads that share u read each other's
     * part of it from the third. */
    s->stretches = fc_ceil_div(v, MAX_V_BYTES);
    const int64_t by_tiles = (u <= FC_SHARE_BYTES ? 3 : 12) * (s->count + 1) * u,
                  by_panels = 4 * ((s->panels + 1) * v + 2 * s->stretches * u);
    const int few = t->count <= FC_FEW_TILES && fc_multiplies_few_tiles(t);
    s->by_panels = (few && p->groups == 1) || /* groups would wait for each other */
                   (u > l2 / 2 && (v <= l2 || by_panels < by_tiles || u > MAX_U_BYTES));
    s->few = few && s->by_panels;
    s->pairs = s->by_panels && !s->few && fc_pairs_rows(t);
}

static void share_out(fc_winograd_plan *s, int64_t threads)
{
    const int64_t tiles = s->tiles.count;
    if (s->by_panels) {
        s->block = fc_ceil_div(tiles, s->stretches);
        share_panels(s, threads);
    } else {
        const int64_t wanted = fc_ceil_div(fc_parallel_tasks(), s->p->groups);
        /* smaller blocks than 3/4 of a brick take 3 % longer, on two threads that wait for each other's u */
        s->count = fc_max(s->count, fc_min(wanted, fc_ceil_div(4 * tiles, 3 * s->tiles.k->brick)));
        if (s->count < wanted) /* a multiple of the threads, so that none waits */
            s->count = fc_min(fc_round_up(s->count, threads), tiles);
        s->block = fc_ceil_div(tiles, s->count);
    }
}

static void choose_chunks(fc_winograd_plan *s)
{
    fc_tiles *t = &s->tiles;
    if (t->phases > 1) { /* the order of the sums, whatever the schedule */
        const int64_t line = t->k->line, weights = fc_max(fc_tile_weights(t), FC_WINOGRAD_MAX_POINTS);
        t->chunk = fc_min(fc_max(1, CHUNK * FC_WINOGRAD_MAX_POINTS / (weights * line)) * line, s->p->in_channels);
    }
    s->joined = !fc_has_single_taps(t);
    const int64_t most = s->few ? FEW_CHUNK : s->pairs ? FC_WINOGRAD_PAIR_CHANNELS : CHUNK;
    s->chunk = s->by_panels ? fc_min(most, t->chunk) : s->p->in_channels;
}

static void set_bytes(fc_winograd_plan *s)
{
    const fc_problem *p = s->p;
    const fc_tiles *t = &s->tiles;
    const int64_t most = fc_min(FC_WINOGRAD_PACKED, p->in_channels) * s->panel,
                  columns = fc_min(s->panel, p->out_channels);
    const int64_t packed = s->few ? s->chunk * s->lanes : most, points = s->joined ? t->points : fc_tile_weights(t),
                  pair_point = FC_WINOGRAD_PAIR_CHANNELS * s->panel + FC_PITCH_PAD_BYTES / (int64_t)p->item;
    s->u_point = fc_winograd_all_rows(s, s->chunk) * s->panel + FC_PITCH_PAD_BYTES / (int64_t)p->item;
    s->strip_bytes = fc_tiles_strip_bytes(t);
    s->tile_bytes = s->y_in_place ? 0 : fc_winograd_bytes(s, t->out_h * t->out_w * t->longest_run * s->panel);
    s->v_bytes = fc_winograd_bytes(s, fc_block_elements(t, s->block, t->parts));
    s->m_bytes = fc_winograd_bytes(s, fc_block_elements(t, s->block, fc_channel_parts(p, columns)));
    s->u_bytes = s->few ? 0 : fc_winograd_bytes(s, s->pairs ? 2 * t->in_w * pair_point : points * s->u_point);
    s->pad_bytes = is_padded(t) ? fc_winograd_bytes(s, t->taps * t->taps * most) : 0;
    s->pack_bytes = p->packed ? 0 : fc_winograd_bytes(s, fc_winograd_taps(s) * packed);
    s->thread_bytes = s->strip_bytes + s->tile_bytes + s->m_bytes + s->pad_bytes + s->pack_bytes +
                      (s->by_panels ? s->u_bytes : s->v_bytes);
}

static fc_winograd_plan make_plan(const fc_problem *p, int64_t threads)
{
    fc_winograd_plan s = {.p = p,
                          .tiles = fc_make_tiles(p),
                          .lanes = p->k->vector_lanes,
                          .y_in_place = p->y.stride_c == 1,
                          .stream = fc_streams(p),
                          .prepared = p->packed && !p->packed_v};
    const int64_t y_bytes = p->y.n * p->y.h * p->y.w * p->out_channels * (int64_t)p->item;
    s.fetch = s.y_in_place && s.tiles.out_h > 1 && y_bytes > fc_l2_bytes();
    s.panel = 2 * s.lanes;
    s.panels = fc_ceil_div(p->out_channels, s.panel);
    choose_schedule(&s);
    share_out(&s, threads);
    choose_chunks(&s);
    fc_set_block(&s.tiles, s.block);
    set_bytes(&s);
    set_own(&s, threads);
    return s;
}

/* A thread's memory, one piece after the other. */
typedef struct {
    char *strip, *tile, *m, *pad, *pack, *uv;
    int64_t *made; /* the version that `own` holds, or 0 */
    char *own;
} memory;

static memory thread_memory(const fc_winograd_plan *s, int slot)
{
    memory t = {.strip = s->threads + slot * s->thread_bytes};
    t.tile = t.strip + s->strip_bytes;
    t.m = t.tile + s->tile_bytes;
    t.pad = t.m + s->m_bytes;
    t.pack = t.pad + s->pad_bytes;
    t.uv = t.pack + s->pack_bytes;
    t.made = (int64_t *)(t.uv + (s->by_panels ? s->u_bytes : s->v_bytes));
    t.own = (char *)t.made + FC_LINE_BYTES;
    return t;
}

/* ---- tiles ------------------------------------------------------------------------------------------------------*/
/* Which of the transformed weights a phase has at a point, where those of the phase start at `first`. */
static int64_t weight_at(const fc_tiles *t, int64_t first, int last, int e)
{
    const int64_t row = e / t->in_w, column = e % t->in_w;
    return first + (last & FC_LAST_COLUMN ? column : 0) +
           (last & FC_LAST_ROW ? row * (last & FC_LAST_COLUMN ? t->in_w : 1) : 0);
}

/* m[e][slot][panel] (+)= v[e][slot][c0 ..] * u[phase and e][c][panel] for a chunk of channels and the tiles of a block,
 * while the bytes `ahead` come into the second-level cache. Points that the same tiles have are multiplied by one
 * call. */
static void multiply(const fc_winograd_plan *s, const fc_tile_block *b, const fc_winograd_piece *k, int64_t c0,
                     int64_t channels, const char *v, const char *u, char *m, const fc_winograd_bytes_ahead *ahead)
{
    const fc_tiles *t = &s->tiles;
    const int64_t item = (int64_t)s->p->item, part = fc_part_elements(t), rows = fc_winograd_rows(t, channels),
                  lines = fc_ceil_div(ahead->bytes, FC_LINE_BYTES * t->points);
    fc_winograd_product product = {
        .part = part,
        .v_brick = t->parts * part,
        .u_point = s->u_point,
        .m_brick = fc_channel_parts(s->p, k->width) * part,
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
            product.u[product.phases++] = u + (e * s->u_point + phases.first * rows * k->width) * item;
        else
            for (int64_t f = 0, first = 0; f < phases.end; first += fc_phase_weights(t, f++))
                if (f >= phases.first)
                    product.u[product.phases++] =
                        u + weight_at(t, first, t->phase[f].last_points, e) * s->u_point * item;
        product.channels = (phases.end - phases.first) * rows;
        product.phase_channels = product.channels / product.phases;
        product.v = v + (at + brick * product.v_brick + fc_channel_parts(s->p, phases.first * rows) * part) * item;
        product.m = m + (at + brick * product.m_brick) * item;
        product.ahead = ahead->at + e * lines * FC_LINE_BYTES;
        t->k->multiply(&product);
    }
}

/* What the tiles of a run share: channels of a piece from `channel` on, in `image` or in a tile of memory with this
 * pitch. */
static fc_winograd_output outputs_of(const fc_winograd_plan *s, const fc_winograd_piece *k, int64_t channel,
                                     const fc_image *image, const fc_pitch *pitch, double *check)
{
    const fc_problem *p = s->p;
    const fc_epilogue *e = &p->epilogue;
    const int64_t item = (int64_t)p->item, gap_h = s->tiles.gap_h, gap_w = s->tiles.gap_w;
    return (fc_winograd_output){
        .channels = k->columns,
        .scale = fc_at(e->scale, channel, item),
        .bias = fc_at(e->bias, channel, item),
        .lower = e->lower,
        .upper = e->upper,
        .residual_row = gap_h * p->residual.stride_h,
        .residual_pixel = gap_w * p->residual.stride_w,
        .y_row = s->y_in_place ? image->stride_h : pitch->row,
        .y_pixel = s->y_in_place ? gap_w * image->stride_w : pitch->pixel,
        .check = k->first == 0 ? check : NULL,
        .stream = s->stream,
    };
}

/* The outputs and residuals of the tile below; inline like fc_fetch_pixels. */
static inline __attribute__((always_inline)) void fetch_below(const fc_winograd_plan *s, const fc_winograd_output *o,
                                                              const char *y, const char *residual)
{
    const int64_t item = (int64_t)s->p->item, h = s->tiles.out_h, w = s->tiles.out_w, bytes = o->channels * item,
                  y_row = o->y_row * item, residual_row = o->residual_row * item;
    if (!s->stream)
        fc_fetch_pixels(y + h * y_row, h, w, y_row, o->y_pixel * item, bytes);
    if (residual)
        fc_fetch_pixels(residual + h * residual_row, h, w, residual_row, o->residual_pixel * item, bytes);
}

/* Output channels of one panel, for the tiles of a run. */
static void store_run(const fc_winograd_plan *s, int64_t group, const fc_winograd_piece *k, const fc_tile_run *r,
                      char *m, char *tile)
{
    const fc_problem *p = s->p;
    const fc_tiles *t = &s->tiles;
    const int64_t item = (int64_t)p->item, channel = group * p->out_channels + k->first;
    const fc_tile_image at = fc_tile_image_at(t, r->n);
    const fc_image image = fc_tile_image_y(t, &at, channel, k->columns);
    const int64_t first = fc_tile_left(t, r->column), h = fc_tile_start(r->row, t->whole_rows, t->out_h),
                  rows = fc_tile_length(r->row, t->whole_rows, t->out_h, image.h);
    const fc_pitch pitch = {t->out_w * r->count * s->panel, s->panel, 1};
    char *base = s->y_in_place ? image.data + (h * image.stride_h + first * image.stride_w) * item : tile;
    double check[FC_MAX_LANES] = {0};
    const fc_winograd_output below = outputs_of(s, k, channel, &image, &pitch, check);
    fc_winograd_output o = below;
    if (t->upright) /* to the kernel, a column is a row */
        o.y_pixel = o.y_row, o.residual_pixel = o.residual_row;
    const int64_t column_pitch = s->y_in_place ? image.stride_w : pitch.pixel;
    const char *residuals = fc_residual_at(p, at.n, channel, at.row + t->gap_h * h, first);
    fc_tile_place place = fc_first_place(t, r, fc_channel_parts(p, k->width));
    int64_t left = first, width = 0;
    for (int64_t column = r->column; column < r->column + r->count;) {
        left = fc_tile_left(t, column), width = fc_tile_width(t, column, left);
        char *y = base + (left - first) * column_pitch * item;
        const char *residual = fc_at(residuals, (left - first) * p->residual.stride_w, p->item);
        if (s->fetch)
            fetch_below(s, &below, y, residual);
        t->k->output[t->taps](&o, m + place.at * item, residual, y, t->upright ? 1 : (int)rows,
                              t->upright ? (int)rows : (int)width);
        fc_next_place(t, r, ++column, &place);
    }
    if (k->first == 0 && !p->k->finite(s->lanes, check))
        atomic_store_explicit(&s->spoilt[at.n], 1, memory_order_relaxed);
    if (!s->y_in_place) {
        const int64_t before = r->count > 1 ? left - first : 0;
        const fc_window window = {h, rows, 1, first, before + width, t->gap_w};
        fc_store_window(p->k, p->item, &image, &window, tile, &pitch);
    }
}

static void store_tiles(const fc_winograd_plan *s, const fc_tile_block *b, int64_t group, const fc_winograd_piece *k,
                        char *m, char *tile_memory)
{
    for (int64_t tile = b->first; tile < b->end;) {
        const fc_tile_run r = fc_run_at(&s->tiles, b, tile, b->end);
        store_run(s, group, k, &r, m, tile_memory);
        tile += r.count;
    }
    if (s->stream)
        s->p->k->fence();
}

int64_t fc_winograd_flags_bytes(const fc_problem *p) { return fc_round_up(p->y.n, FC_LINE_BYTES); }

fc_status fc_winograd_repair(const fc_problem *p, const atomic_char *spoilt)
{
    return p->weight ? fc_run_spoilt(p, spoilt, fc_direct_by_regions, NULL) : FC_OK;
}

/* ---- schedules --------------------------------------------------------------------------------------------------*/
/* u, or v of the stretch */
static const char *shared_of(const fc_winograd_plan *s, const memory *t)
{
    if (!s->own)
        return s->by_panels ? s->v : s->u;
    if (*t->made == s->version)
        return t->own;
    if (s->by_panels)
        fc_transform_inputs(&s->tiles, &s->stretch, s->group, s->stretch.first, s->stretch.end, t->strip, t->own);
    else
        fc_winograd_store(s, t->own, t->pad, 0, 1);
    *t->made = s->version;
    return t->own;
}

static void run_tiles(void *context, int64_t task, int slot)
{
    const fc_winograd_plan *s = context;
    const memory t = thread_memory(s, slot);
    const char *weights = shared_of(s, &t);
    const int64_t group = task / s->count, block = task % s->count, first = block * s->tiles.count / s->count,
                  end = (block + 1) * s->tiles.count / s->count;
    const fc_tile_block b = fc_block_of(&s->tiles, first, end);
    const fc_winograd_bytes_ahead none = {t.uv, 0};
    fc_transform_inputs(&s->tiles, &b, group, first, end, t.strip, t.uv);
    for (int64_t panel = 0; panel < s->panels; panel++) {
        const char *u = weights + fc_winograd_stored(s, group, panel);
        const fc_winograd_piece k = fc_winograd_panel(s, panel);
        for (int64_t c0 = 0; c0 < s->p->in_channels; c0 += s->tiles.chunk)
            multiply(s, &b, &k, c0, fc_min(s->tiles.chunk, s->p->in_channels - c0), t.uv,
                     u + fc_winograd_offset(s, &k, c0), t.m, &none);
        store_tiles(s, &b, group, &k, t.m, t.tile);
    }
}

/* Of few tiles those of one task would be all. */
static int64_t tiles_per_task(const fc_winograd_plan *s) { return s->few ? 1 : 4; }

static void run_inputs(void *context, int64_t task, int slot)
{
    const fc_winograd_plan *s = context;
    const int64_t first = s->stretch.first + task * tiles_per_task(s),
                  end = fc_min(first + tiles_per_task(s), s->stretch.end);
    fc_transform_inputs(&s->tiles, &s->stretch, s->group, first, end, thread_memory(s, slot).strip, s->v);
}

/* The tasks of a thread follow each other: its whole panels, one that was left over, the vectors of the one that is
 * cut, and that of one that was left over and is shared by two threads. So do the panels, each kind for all threads:
 * `each` for every one, `more` left over, one for every one, `more` / 2. */
static fc_winograd_piece piece_at(const fc_winograd_plan *s, int64_t task)
{
    const int64_t tasks = s->each + 2 * s->cut, longer = s->more * (tasks + 1);
    const int has_more = task < longer;
    const int64_t thread = has_more ? task / (tasks + 1) : s->more + (task - longer) / tasks;
    int64_t at = has_more ? task % (tasks + 1) : (task - longer) % tasks;
    const int64_t left_over = s->sharers * s->each, cut = left_over + (s->halved ? 0 : s->more),
                  halved = cut + s->sharers * s->cut;
    if (at < s->each)
        return fc_winograd_panel(s, thread * s->each + at);
    at -= s->each;
    if (has_more && !s->halved && at-- == 0)
        return fc_winograd_panel(s, left_over + thread);
    if (at < 2 * s->cut)
        return fc_winograd_vector(s, cut + thread, at);
    return fc_winograd_vector(s, halved + thread / 2, thread % 2);
}

static int64_t panel_tasks(const fc_winograd_plan *s) { return s->sharers * (s->each + 2 * s->cut) + s->more; }

/* Few tiles, u in registers (AVX-512). */
static void run_few(void *context, int64_t task, int slot)
{
    const fc_winograd_plan *s = context;
    const fc_problem *p = s->p;
    const memory t = thread_memory(s, slot);
    const fc_winograd_piece k = piece_at(s, task);
    if (k.columns == 0)
        return;
    const char *v = shared_of(s, &t);
    const int64_t item = (int64_t)p->item, part = fc_part_elements(&s->tiles);
    for (int64_t vector = 0; vector * s->lanes < k.columns; vector++)
        for (int64_t c0 = 0; c0 < p->in_channels; c0 += s->chunk) {
            const int64_t at = vector * s->lanes, line = s->tiles.k->line;
            fc_winograd_few f = {.v = v + s->tiles.phases * fc_channel_parts(p, c0) * part * item,
                                 .m = t.m + (at / line * part + at % line) * item,
                                 .part = part,
                                 .channels = fc_min(s->chunk, p->in_channels - c0),
                                 .accumulate = c0 > 0};
            if (s->tiles.phases > 1)
                f.phase = fc_channel_parts(p, f.channels) * part;
            fc_winograd_set_taps(s, &k, vector, c0, t.pack, &f);
            fc_winograd_multiply_few(s, &f);
        }
    store_tiles(s, &s->stretch, s->group, &k, t.m, t.tile);
}

static void run_panel(void *context, int64_t task, int slot)
{
    const fc_winograd_plan *s = context;
    const memory t = thread_memory(s, slot);
    const fc_winograd_piece k = piece_at(s, task);
    if (k.columns == 0)
        return;
    const char *v = shared_of(s, &t);
    for (int64_t c0 = 0; c0 < s->p->in_channels; c0 += s->chunk) {
        const int64_t channels = fc_min(s->chunk, s->p->in_channels - c0);
        const fc_winograd_bytes_ahead ahead = fc_winograd_ahead(s, s->group, &k, c0, channels);
        fc_winograd_transform(s, s->group, &k, c0, channels, t.pad, t.uv);
        multiply(s, &s->stretch, &k, c0, channels, v, t.uv, t.m, &ahead);
    }
    store_tiles(s, &s->stretch, s->group, &k, t.m, t.tile);
}

/* Few tiles, with 16 registers. */
static void run_pairs(void *context, int64_t task, int slot)
{
    enum { PAIRS = 3 };
    const fc_winograd_plan *s = context;
    const memory t = thread_memory(s, slot);
    const fc_winograd_piece k = piece_at(s, task);
    if (k.columns == 0)
        return;
    fc_winograd_pair_product products[PAIRS];
    for (int i = 0; i < PAIRS; i++)
        products[i] = fc_winograd_products_of(s, &k, i);
    const char *v = shared_of(s, &t);
    const int64_t part_bytes = fc_part_elements(&s->tiles) * (int64_t)s->p->item;
    for (int64_t c0 = 0; c0 < s->p->in_channels; c0 += s->chunk) {
        fc_winograd_pair f = {
            .u = t.uv, .channels = fc_min(s->chunk, s->p->in_channels - c0), .vectors = products[0].vectors};
        fc_winograd_set_pair(s, &k, c0, t.pack, &f);
        for (; f.pair < PAIRS; f.pair++) {
            fc_winograd_pair_product *product = &products[f.pair];
            product->v = v + fc_channel_parts(s->p, c0) * part_bytes, product->u = t.uv, product->m = t.m;
            product->channels = f.channels, product->accumulate = c0 > 0;
            s->tiles.k->weights_pair(&f);
            s->tiles.k->multiply_pair(product);
        }
    }
    store_tiles(s, &s->stretch, s->group, &k, t.m, t.tile);
}

int fc_conv_winograd_serves(const fc_problem *p)
{
    const int wide = p->kernel_h == 1, line = fc_min(p->kernel_h, p->kernel_w) == 1;
    const int64_t most = fc_max(p->kernel_h, p->kernel_w), step = wide ? p->stride_w : p->stride_h,
                  dilation = wide ? p->dilation_w : p->dilation_h;
    if (!line && p->stride_h != p->stride_w)
        return 0;
    if (step == 1)
        return most > 1 && most <= (line ? MAX_LINE : MAX_SQUARE);
    if (most <= step || dilation > 1)
        return 0;
    if (line)
        return most <= fc_min(MAX_LINE, FC_MAX_PHASES / step * step * FC_WINOGRAD_MAX_KERNEL);
    return step <= 4 && p->kernel_h == p->kernel_w && p->dilation_w == 1 && most <= step * FC_WINOGRAD_MAX_KERNEL;
}

static int64_t zeros_bytes(const fc_winograd_plan *s) { return fc_winograd_bytes(s, s->p->in_channels); }

static fc_need need_of(const fc_winograd_plan *s)
{
    const fc_problem *p = s->p;
    return (fc_need){fc_winograd_flags_bytes(p) + zeros_bytes(s) + (s->own ? 0 : shared_bytes(s)), s->thread_bytes};
}

static fc_need need(const fc_problem *p)
{
    const fc_winograd_plan s = make_plan(p, fc_parallel_slots(INT64_MAX));
    return need_of(&s);
}

fc_need fc_conv_winograd_scratch(const fc_problem *p) { return fc_pixels_scratch(p, need); }

int64_t fc_packed_winograd(const fc_problem *p)
{
    const fc_winograd_plan s = make_plan(p, fc_parallel_slots(INT64_MAX));
    return fc_winograd_stored_elements(&s);
}

fc_status fc_pack_winograd(const fc_problem *p, char *to)
{
    const int slots = fc_parallel_slots(INT64_MAX);
    const fc_winograd_plan s = make_plan(p, slots);
    const int64_t pitch = s.pad_bytes + s.pack_bytes;
    char *pads = NULL; /* by panels taps go straight to their place */
    if (!s.by_panels && !(pads = fc_scratch_acquire_parts(0, slots, pitch)))
        return FC_ENOMEM;
    fc_winograd_store(&s, to, pads, pitch, slots);
    fc_scratch_release(pads);
    return FC_OK;
}

static void run_by_panels(fc_winograd_plan *s, int slots)
{
    for (s->group = 0; s->group < s->p->groups; s->group++)
        for (int64_t first = 0; first < s->tiles.count; first += s->block) {
            s->stretch = fc_block_of(&s->tiles, first, fc_min(first + s->block, s->tiles.count));
            s->version++;
            if (!s->own)
                fc_parallel_in(slots, fc_ceil_div(s->stretch.end - first, tiles_per_task(s)), run_inputs, s);
            fc_parallel_in(slots, panel_tasks(s), s->few ? run_few : s->pairs ? run_pairs : run_panel, s);
        }
}

static void run_by_tiles(fc_winograd_plan *s, int slots)
{
    s->version = 1;
    if (!s->own && !s->prepared)
        fc_winograd_store(s, s->v, thread_memory(s, 0).pad, s->thread_bytes, slots);
    fc_parallel_in(slots, s->p->groups * s->count, run_tiles, s);
}

static fc_status run(const fc_problem *p)
{
    const int slots = fc_parallel_slots(INT64_MAX);
    fc_winograd_plan s = make_plan(p, slots);
    const fc_need n = need_of(&s);
    const int64_t zeros = zeros_bytes(&s), flags = fc_winograd_flags_bytes(p);
    char *scratch = fc_scratch_acquire_parts(n.shared, slots, n.each);
    if (!scratch)
        return FC_ENOMEM;
    memset(scratch, 0, (size_t)(flags + zeros));
    s.spoilt = (atomic_char *)scratch;
    s.tiles.zeros = scratch + flags;
    s.v = scratch + flags + zeros;
    s.threads = scratch + n.shared;
    s.u = s.prepared ? p->packed : s.v;
    for (int slot = 0; s.own && slot < slots; slot++)
        *thread_memory(&s, slot).made = 0;
    if (s.by_panels)
        run_by_panels(&s, slots);
    else
        run_by_tiles(&s, slots);
    const fc_status status = fc_winograd_repair(p, s.spoilt);
    fc_scratch_release(scratch);
    return status;
}

fc_status fc_conv_winograd(const fc_problem *p) { return fc_run_on_pixels(p, run, need); }
