/* conv_winograd_grad.c: the gradient of an r x r weight, r = 3, 4, 5, by F(r x r, m x m), m = 7 - r, and of a line
 * of r taps by F(r, m), with 6 points instead of 36; of 2 taps by F(2 x 2, 4 x 4), with 25 points, or 5.
 *
 * The gradient of w is a correlation of x with grad_y: per tile, r x r outputs of an m x m kernel, so with the tiles of
 * the forward pass
 *     grad_w = A_r' [ sum over tiles of (B' x B) o (G_m grad_y G_m') ] A_r
 * and the sum over tiles is 36 matrix products sum[e][c][k] += v[e][tile][c] * d[e][tile][k], without the tiles whose d
 * is 0, those with an output less at the last point (winograd_tiles.h); at the end sum is transformed back. Each phase
 * of x (conv_winograd.c) makes the taps of its own, from one d, as if it were other channels: of stride 2 81
 * multiplications instead of 144 for 3 x 3, 100 instead of 256 for 4 x 4. A phase without a last tap does not see the
 * last point; what is made of it there is beyond the kernel. Three schedules; in all, a sum runs through its
 * blocks in order, in each by kinds of tiles. Threads choose between the last two only for the same blocks, so the bits
 * are the same:
 *     by slices: the tiles are cut into slices with a sum each; a task owns a slice, its v, d and sum stay in its
 *                second-level cache, and the sums are added in order                              (small weights)
 *     by points: blocks of tiles are transformed (tasks are tiles) and multiplied (tasks are points, of lines points
 *                and panels)                                                                      (large ones)
 *     by panels: a task owns a panel of outputs and a part of the channels, whose sum stays in its second-level cache
 *                until it is transformed back, or of tiles that are one brick in registers; a thread makes the v of
 *                these channels for itself, and of one or two threads d too            (squares: choose_schedule)
 */
#include "../scratch.h"
#include "../threads.h"
#include "winograd_tiles.h"

#include <string.h>

enum {
    /* v and d of a block: half of a second-level cache of 2 MiB, more where the sums they update are larger. */
    MIN_BLOCK_BYTES = 1 << 20,
    MAX_BLOCK_BYTES = 16 << 20,
    TILES_PER_TASK = 4,
    MIN_SLICES = 4, /* less would leave threads without one */
    MAX_SLICES = 16,
    SLICE_TILES = 128, /* fewer do not pay for adding a sum */
    SLICE_BYTES = 1 << 20, /* of a sum: half of a second-level cache of 2 MiB */
    CHUNK = 64, /* channels transformed back at a time, at most: 9 x 64 x 32 floats = 72 KiB for r = 3 */
};

typedef struct {
    const fc_problem *p;
    fc_tiles tiles;
    int64_t panel, panels;
    int64_t d_vectors, d_parts; /* of output channels */
    int64_t sum_row, sum_point; /* pitches, elements */
    int64_t block, blocks, slices; /* tiles of a block; not by slices: blocks */
    int by_slices, by_panels;
    int few; /* by panels, with the sums in registers */
    int thin; /* by slices, of few channels (winograd_thin.c) */
    int64_t point; /* of its v: pitch, elements */
    int64_t chunk, chunks; /* by panels: channels of a task, in each phase; tasks for a panel */
    int own; /* by panels: each thread makes all of d for itself */
    /* By points, of output channels in a task: all for squares; the 6 points of lines would not go round many
     * threads. */
    int64_t task_vectors;
    int fetch; /* grad_y does not lie in the second-level cache */
    int64_t v_bytes, d_bytes; /* of a block */
    int64_t sum_bytes; /* of a slice, by panels of a task */
    int64_t zero_bytes, strip_bytes, strip_y_bytes, thread_bytes;
    /* By slices v and d are the thread's, sum[slice]; by panels v and sum, and d where `own` (operands_of). Before
     * run_group threads is all of it. */
    char *v, *d, *sum, *threads;
    int64_t group;
    fc_tile_block stretch; /* by points the current block, of few tiles all */
} plan;

static int64_t bytes_of(const plan *s, int64_t elements) { return fc_round_up(elements * (int64_t)s->p->item, 64); }

/* Tiles of so few channels are all whole, so that they stand in order; fewer of them pay for a slice. Blocks of a slice
 * are whole bricks, half of the second-level cache, and alike. */
static void set_thin(plan *s)
{
    enum { THIN_TILES = 64 };
    fc_tiles *t = &s->tiles;
    s->thin = s->by_slices = 1;
    t->whole_rows = t->rows, t->whole_columns = t->columns;
    s->slices = fc_max(1, fc_min(MAX_SLICES, t->count / THIN_TILES));
    const int64_t slice = fc_ceil_div(t->count, s->slices),
                  tile = t->points * (s->p->in_channels + s->d_parts * t->k->line) * (int64_t)s->p->item,
                  most = fc_max(1, fc_l2_bytes() / 2 / (tile * t->k->brick)) * t->k->brick;
    s->block = fc_ceil_div(slice, fc_ceil_div(slice, most));
    s->point = fc_thin_point(t, s->block);
}

static int64_t price(int64_t bytes) { return bytes > FC_SHARE_BYTES ? 4 : 1; }

/* Channels of a task by panels, in whole parts; d: bytes, of all tiles. Each task reads all of d, so of one phase they
 * are many where d does not stay in the caches, and of one brick, which writes the weight in runs. Otherwise they are
 * few, so that tasks are many and v is small: where tiles are transformed together as many as have 2 KiB of sums at a
 * point, else two parts. */
static int64_t panel_chunk(const plan *s, int64_t d)
{
    enum { SUM_BYTES = 2 << 10 };
    const fc_tiles *t = &s->tiles;
    int64_t channels = 2 * t->k->line;
    if (s->few || (t->phases == 1 && d > fc_owners_l2_bytes()))
        channels = CHUNK;
    else if (t->phases == 1 && t->k->inputs)
        channels = SUM_BYTES / (s->panel * (int64_t)s->p->item);
    return fc_min(fc_min(channels, CHUNK), s->p->in_channels);
}

/* Whether each thread makes all of d: not where that is most of the work (v, d: bytes of all tiles), nor of a d larger
 * than the caches, whose lines have left them before they are written again. */
static int owns(int64_t threads, int64_t v, int64_t d)
{
    return threads == 1 || (d <= fc_min(2 * v, fc_owners_l2_bytes()) && fc_makes_own(threads, d));
}

/* Whether by panels is faster where the bits are those by points: several blocks of v and d stay in the caches, two
 * threads do not share d, and threads with as many tasks each, all as large as the largest, would take no more than 1.3
 * times as long as the work shared out evenly. */
static int panels_pay(const plan *s, int64_t threads, int64_t v, int64_t d)
{
    const fc_problem *p = s->p;
    const int64_t chunk = panel_chunk(s, d), tasks = s->panels * fc_ceil_div(p->in_channels, chunk),
                  largest = fc_ceil_div(tasks, threads) * chunk * s->panel;
    if (s->blocks > 1 && (d > fc_owners_l2_bytes() || v * chunk > fc_l2_bytes() / 2 * p->in_channels))
        return 0;
    return threads == 1 ||
           ((threads > 2 || owns(threads, v, d)) && largest * threads * 10 <= 13 * p->in_channels * p->out_channels);
}

static void set_panels(plan *s, int64_t chunk, int own)
{
    const fc_problem *p = s->p;
    fc_tiles *t = &s->tiles;
    s->by_panels = 1;
    s->own = own;
    s->chunk = t->chunk = chunk;
    s->chunks = fc_ceil_div(p->in_channels, s->chunk);
    t->parts = t->phases * fc_channel_parts(p, s->chunk);
    s->sum_row = s->panel;
    s->sum_point = t->phases * s->chunk * s->sum_row + FC_PITCH_PAD_BYTES / (int64_t)p->item;
    s->sum_bytes = s->few ? 0 : bytes_of(s, t->points * s->sum_point);
}

/* The blocks decide the bits, so they depend on the shape and the machine, not on the threads. One is all tiles too
 * where, without more memory than by points, to move v once per panel and d once per chunk of channels (64, of phases
 * 32, and not those of panel_chunk, which other bits would follow) costs less than to write and read the sums once per
 * block; 4 times the price from memory. */
static void choose_schedule(plan *s, int64_t threads)
{
    enum { PHASE_CHUNK = 32 };
    const fc_problem *p = s->p;
    fc_tiles *t = &s->tiles;
    s->slices = fc_min(MAX_SLICES, (t->count / SLICE_TILES + 1) / 2 * 2); /* as many for each of two threads */
    if (s->slices < MIN_SLICES || s->sum_bytes > SLICE_BYTES)
        s->slices = 1;
    s->by_slices = s->slices > 1;
    const int64_t budget =
        s->by_slices ? fc_l2_bytes() / 2 : fc_max(MIN_BLOCK_BYTES, fc_min(MAX_BLOCK_BYTES, s->sum_bytes));
    const int64_t part_bytes = t->points * t->k->line * (int64_t)p->item, v = t->count * t->parts * part_bytes,
                  d = t->count * s->d_parts * part_bytes;
    s->block = fc_min(t->count, fc_max(TILES_PER_TASK, budget / ((t->parts + s->d_parts) * part_bytes)));
    s->blocks = fc_ceil_div(t->count, s->block);
    const int64_t chunks = fc_ceil_div(p->in_channels, t->phases > 1 ? PHASE_CHUNK : CHUNK);
    const int square = t->in_h == t->in_w;
    s->few = fc_sums_few_tiles(t);
    const int at_once =
        s->few || (!s->by_slices && square && v + d <= budget + s->sum_bytes &&
                   s->panels * v + chunks * price(d) * d < s->blocks * 2 * price(s->sum_bytes) * s->sum_bytes);
    if (at_once)
        s->block = t->count, s->blocks = 1;
    else if (fc_is_thin(t))
        set_thin(s);
    if (at_once || (!s->by_slices && square && panels_pay(s, threads, v, d)))
        set_panels(s, panel_chunk(s, d), owns(threads, v, d));
}

static plan make_plan(const fc_problem *p, int64_t threads)
{
    enum { NARROW = 4 }; /* vectors of a row of sums, 16 of which lie in as many sets of the first-level cache */
    const int64_t item = (int64_t)p->item, pad = FC_PITCH_PAD_BYTES / item, lanes = p->k->vector_lanes;
    plan s = {.p = p, .tiles = fc_make_tiles(p), .panel = 2 * lanes};
    s.fetch =
        p->y.stride_c == 1 && s.tiles.out_h > 1 && p->y.n * p->y.h * p->y.w * p->out_channels * item > fc_l2_bytes();
    s.panels = fc_ceil_div(p->out_channels, s.panel);
    s.d_vectors = fc_ceil_div(p->out_channels, lanes);
    s.d_parts = fc_channel_parts(p, p->out_channels);
    s.sum_row = s.d_vectors * lanes + (s.d_vectors > NARROW ? pad : 0);
    s.sum_point = s.tiles.phases * p->in_channels * s.sum_row + pad;
    s.sum_bytes = bytes_of(&s, s.tiles.points * s.sum_point);
    s.task_vectors = s.tiles.in_h == s.tiles.in_w ? s.d_vectors : s.panel / lanes;
    choose_schedule(&s, threads);
    fc_set_block(&s.tiles, s.block);
    s.v_bytes = bytes_of(&s, s.thin ? s.tiles.points * s.point : fc_block_elements(&s.tiles, s.block, s.tiles.parts));
    s.d_bytes = bytes_of(&s, fc_block_elements(&s.tiles, s.block, s.d_parts));
    s.zero_bytes = bytes_of(&s, fc_max(p->in_channels, p->out_channels));
    s.strip_bytes = s.thin ? bytes_of(&s, fc_thin_strip_elements()) : fc_tiles_strip_bytes(&s.tiles);
    s.strip_y_bytes =
        p->y.stride_c == 1 ? 0 : bytes_of(&s, s.tiles.out_h * s.tiles.out_w * s.tiles.longest_run * p->out_channels);
    s.thread_bytes =
        fc_max(s.strip_bytes + s.strip_y_bytes, bytes_of(&s, s.tiles.padded_h * s.tiles.padded_w * CHUNK * s.panel));
    if (s.by_slices)
        s.thread_bytes += s.v_bytes + s.d_bytes;
    if (s.by_panels)
        s.thread_bytes += FC_LINE_BYTES + s.blocks * s.v_bytes + s.sum_bytes + (s.own ? s.blocks * s.d_bytes : 0);
    return s;
}

/* d[e][slot] = G_m grad_y G_m' for a run of tiles. */
static void transform_run(const plan *s, const fc_tile_run *r, char *strip, char *d)
{
    const fc_problem *p = s->p;
    const fc_tiles *t = &s->tiles;
    const int64_t item = (int64_t)p->item, out_h = t->out_h, out_w = t->out_w,
                  top = fc_tile_start(r->row, t->whole_rows, out_h), first = fc_tile_left(t, r->column);
    const int in_place = p->y.stride_c == 1;
    const fc_tile_image at = fc_tile_image_at(t, r->n);
    const fc_image image = fc_tile_image_y(t, &at, s->group * p->out_channels, p->out_channels);
    const char *base = image.data + (top * image.stride_h + first * image.stride_w) * item;
    int64_t row = image.stride_h, column_pitch = image.stride_w;
    if (!in_place) {
        const fc_window window = {top, out_h, 1, first, out_w * r->count, t->gap_w};
        row = out_w * r->count * p->out_channels, column_pitch = p->out_channels;
        fc_load_window(p->k, p->item, &image, &window, strip, &(fc_pitch){row, column_pitch, 1});
        base = strip;
    }
    const int64_t rows = fc_tile_length(r->row, t->whole_rows, out_h, image.h);
    const int64_t pixel = (in_place ? t->gap_w : 1) * column_pitch;
    fc_tile_place place = fc_first_place(t, r, s->d_parts);
    for (int64_t column = r->column; column < r->column + r->count;) {
        const int64_t left = fc_tile_left(t, column), columns = fc_tile_width(t, column, left);
        const char *tile = base + (left - first) * column_pitch * item;
        const void *y[FC_WINOGRAD_MAX_OUT * FC_WINOGRAD_MAX_OUT];
        for (int64_t i = 0; i < out_h; i++)
            for (int64_t j = 0; j < out_w; j++)
                y[out_w * i + j] = i < rows && j < columns ? tile + (i * row + j * pixel) * item : t->zeros;
        if (s->fetch)
            fc_fetch_pixels(tile + out_h * row * item, out_h, out_w, row * item, pixel * item, p->out_channels * item);
        t->k->gradient[t->taps](y, p->out_channels, d + place.at * item);
        fc_next_place(t, r, ++column, &place);
    }
}

/* d[e][slot] for tiles [first, end) of a block */
static void transform_gradients(const plan *s, const fc_tile_block *b, int64_t first, int64_t end, char *strip, char *d)
{
    for (int64_t tile = first; tile < end;) {
        const fc_tile_run r = fc_run_at(&s->tiles, b, tile, end);
        transform_run(s, &r, strip + s->strip_bytes, d);
        tile += r.count;
    }
}

/* v[e][slot] too */
static void transform_tiles(const plan *s, const fc_tile_block *b, int64_t first, int64_t end, char *strip, char *v,
                            char *d)
{
    if (s->thin)
        fc_transform_thin_inputs(&s->tiles, s->group, first, end, s->point, strip, v);
    else
        fc_transform_inputs(&s->tiles, b, s->group, first, end, strip, v);
    transform_gradients(s, b, first, end, strip, d);
}

/* sum[e][phase] (+)= v[e]' d[e] over the tiles of a block, for points [first, end), `channels` of each phase, `vectors`
 * of output channels from k0 on, the first of a panel; v and sum start at the first of the channels, sum at k0. Where
 * there is one phase, points that the same tiles have are multiplied by one call. */
static void multiply(const plan *s, const fc_tile_block *b, int first, int end, int64_t channels, int64_t k0,
                     int64_t vectors, const char *v, const char *d, char *sum, int accumulate)
{
    const fc_tiles *t = &s->tiles;
    const int64_t item = (int64_t)s->p->item, part = fc_part_elements(t), line = t->k->line,
                  parts = fc_channel_parts(s->p, channels);
    fc_winograd_product_at product = {
        .part = part,
        .v_brick = t->parts * part,
        .d_brick = s->d_parts * part,
        .sum_row = s->sum_row,
        .sum_point = s->sum_point,
        .share = t->share,
        .channels = channels,
        .vectors = vectors,
        .accumulate = accumulate,
    };
    for (int e = first; e < end; e += product.points) {
        const fc_tile_slots slots = fc_slots_of(t, b, e);
        const fc_range phases = fc_phases_at(t, e);
        const int64_t brick = slots.first / t->share, at = e * t->k->point;
        product.points = t->phases > 1 ? 1 : (int)fc_min(slots.points, end - e);
        product.first = slots.first % t->share;
        product.tiles = slots.count;
        product.d = d + (at + brick * product.d_brick + k0 / line * part + k0 % line) * item;
        for (int64_t i = phases.first; i < phases.end; i++) {
            product.v = v + (at + brick * product.v_brick + i * parts * part) * item;
            product.sum = sum + (e * s->sum_point + i * channels * s->sum_row) * item;
            t->k->multiply_at(&product);
        }
    }
}

/* ---- by points --------------------------------------------------------------------------------------------------*/
static void transform_task(void *context, int64_t task, int slot)
{
    const plan *s = context;
    const int64_t first = s->stretch.first + task * TILES_PER_TASK;
    transform_tiles(s, &s->stretch, first, fc_min(first + TILES_PER_TASK, s->stretch.end),
                    s->threads + slot * s->thread_bytes, s->v, s->d);
}

static int64_t tasks_per_point(const plan *s) { return fc_ceil_div(s->d_vectors, s->task_vectors); }

static void multiply_task(void *context, int64_t task, int slot)
{
    (void)slot;
    const plan *s = context;
    const int64_t tasks = tasks_per_point(s), vector = task % tasks * s->task_vectors,
                  k0 = vector * s->p->k->vector_lanes;
    const int e = (int)(task / tasks);
    multiply(s, &s->stretch, e, e + 1, s->p->in_channels, k0, fc_min(s->task_vectors, s->d_vectors - vector), s->v,
             s->d, s->sum + k0 * (int64_t)s->p->item, s->stretch.first > 0);
}

static void run_by_points(plan *s, int slots)
{
    for (int64_t first = 0; first < s->tiles.count; first += s->block) {
        s->stretch = fc_block_of(&s->tiles, first, fc_min(first + s->block, s->tiles.count));
        fc_parallel_in(slots, fc_ceil_div(s->stretch.end - first, TILES_PER_TASK), transform_task, s);
        fc_parallel_in(slots, s->tiles.points * tasks_per_point(s), multiply_task, s);
    }
}

/* The same of a block of few channels. */
static void multiply_thin(const plan *s, const fc_tile_block *b, const char *v, const char *d, char *sum,
                          int accumulate)
{
    const fc_tiles *t = &s->tiles;
    const int64_t part = fc_part_elements(t);
    t->k->thin_multiply(&(fc_winograd_thin_product){
        .v = v,
        .d = d,
        .sum = sum,
        .point = s->point,
        .part = part,
        .d_brick = s->d_parts * part,
        .sum_row = s->sum_row,
        .sum_point = s->sum_point,
        .tiles = b->end - b->first,
        .share = t->share,
        .channels = s->p->in_channels,
        .vectors = s->d_vectors,
        .accumulate = accumulate,
    });
}

/* ---- by slices --------------------------------------------------------------------------------------------------*/
static void slice_task(void *context, int64_t slice, int slot)
{
    const plan *s = context;
    const int64_t begin = slice * s->tiles.count / s->slices, end = (slice + 1) * s->tiles.count / s->slices;
    char *v = s->threads + slot * s->thread_bytes, *d = v + s->v_bytes, *strip = d + s->d_bytes;
    for (int64_t first = begin; first < end; first += s->block) {
        const fc_tile_block b = fc_block_of(&s->tiles, first, fc_min(first + s->block, end));
        transform_tiles(s, &b, b.first, b.end, strip, v, d);
        char *sum = s->sum + slice * s->sum_bytes;
        if (s->thin)
            multiply_thin(s, &b, v, d, sum, first > begin);
        else
            multiply(s, &b, 0, (int)s->tiles.points, s->p->in_channels, 0, s->d_vectors, v, d, sum, first > begin);
    }
}

#define ADD_SLICES(type)                                                                                               \
    for (int64_t slice = 1; slice < s->slices; slice++) {                                                              \
        type *restrict to = (type *)at;                                                                                \
        const type *restrict from = (const type *)(at + slice * s->sum_bytes);                                         \
        for (int64_t i = 0; i < count; i++)                                                                            \
            to[i] += from[i];                                                                                          \
    }

static void add_task(void *context, int64_t e, int slot)
{
    (void)slot;
    const plan *s = context;
    const fc_range phases = fc_phases_at(&s->tiles, (int)e);
    const int64_t pitch = s->p->in_channels * s->sum_row, count = (phases.end - phases.first) * pitch;
    char *at = s->sum + (e * s->sum_point + phases.first * pitch) * (int64_t)s->p->item;
    if (s->p->item == 4) {
        ADD_SLICES(float)
    } else {
        ADD_SLICES(double)
    }
}

static void run_by_slices(plan *s, int slots)
{
    fc_parallel_in(slots, s->slices, slice_task, s);
    fc_parallel_in(slots, s->tiles.points, add_task, s);
}

/* ---- back to the weight -----------------------------------------------------------------------------------------*/
/* From the sums of one panel and channels [c0, c0 + channels), at most CHUNK, at the first of them; phases stand `rows`
 * rows apart. */
static void store_chunk(const plan *s, int64_t panel, int64_t c0, int64_t channels, const char *sum, int64_t rows,
                        char *taps)
{
    const fc_problem *p = s->p;
    const fc_tiles *t = &s->tiles;
    const int64_t item = (int64_t)p->item, k0 = panel * s->panel, columns = fc_min(s->panel, p->out_channels - k0),
                  tap = channels * s->panel, row = t->padded_w * tap;
    for (int64_t i = 0; i < t->phases; i++) {
        const fc_tile_phase f = t->phase[i];
        const char *from = sum + i * rows * s->sum_row * item;
        char *to = taps + (f.row * row + f.column * tap) * item;
        for (int64_t c = 0; c < channels; c++)
            t->k->weight_gradient[t->taps](from + c * s->sum_row * item, s->sum_point, f.last_points, columns,
                                           to + c * s->panel * item, t->step * row, t->step * tap);
    }
    for (int64_t u = 1; u < p->kernel_h && row > p->kernel_w * tap; u++) /* without what is beyond the kernel */
        memmove(taps + u * p->kernel_w * tap * item, taps + u * row * item, (size_t)(p->kernel_w * tap * item));
    fc_unpack_weights(p, s->group, k0, columns, c0, channels, taps, s->panel, tap);
}

static void store_task(void *context, int64_t panel, int slot)
{
    const plan *s = context;
    for (int64_t c0 = 0; c0 < s->p->in_channels; c0 += CHUNK)
        store_chunk(s, panel, c0, fc_min(CHUNK, s->p->in_channels - c0),
                    s->sum + (c0 * s->sum_row + panel * s->panel) * (int64_t)s->p->item, s->p->in_channels,
                    s->threads + slot * s->thread_bytes);
}

/* ---- by panels --------------------------------------------------------------------------------------------------*/
/* What is there of a thread's own. */
typedef struct {
    int64_t chunk; /* 1 + that of v, or 0 */
    int64_t d;
} made;

/* What a thread works with, of all blocks: the v of a chunk, which it keeps for the panels that follow, and d, its own
 * or that of all. */
typedef struct {
    made *made;
    char *v, *d, *sum, *rest;
} operands;

static operands operands_of(const plan *s, int slot)
{
    operands o = {.made = (made *)(s->threads + slot * s->thread_bytes)};
    o.v = (char *)o.made + FC_LINE_BYTES;
    o.sum = o.v + s->blocks * s->v_bytes;
    o.rest = o.sum + s->sum_bytes;
    o.d = s->d;
    if (s->own)
        o.d = o.rest, o.rest += s->blocks * s->d_bytes;
    return o;
}

static fc_tile_block block_at(const plan *s, int64_t index)
{
    const int64_t first = index * s->block;
    return fc_block_of(&s->tiles, first, fc_min(first + s->block, s->tiles.count));
}

static operands make_operands(const plan *s, int slot, int64_t chunk)
{
    const operands o = operands_of(s, slot);
    const int64_t channel = s->group * s->p->in_channels, c0 = chunk * s->chunk;
    const fc_range channels = {channel + c0, channel + fc_min(c0 + s->chunk, s->p->in_channels)};
    for (int64_t i = 0; i < s->blocks; i++) {
        const fc_tile_block b = block_at(s, i);
        if (s->own && !o.made->d)
            transform_gradients(s, &b, b.first, b.end, o.rest, o.d + i * s->d_bytes);
        if (o.made->chunk != 1 + chunk)
            fc_transform_channels(&s->tiles, &b, channels, b.first, b.end, o.rest, o.v + i * s->v_bytes);
    }
    *o.made = (made){.chunk = 1 + chunk, .d = 1};
    return o;
}

static int64_t transforms_of_block(const plan *s) { return fc_ceil_div(s->block, TILES_PER_TASK); }

static void gradients_task(void *context, int64_t task, int slot)
{
    const plan *s = context;
    const int64_t tasks = transforms_of_block(s), index = task / tasks;
    const fc_tile_block b = block_at(s, index);
    const int64_t first = b.first + task % tasks * TILES_PER_TASK;
    transform_gradients(s, &b, first, fc_min(first + TILES_PER_TASK, b.end), operands_of(s, slot).rest,
                        s->d + index * s->d_bytes);
}

static void panel_task(void *context, int64_t task, int slot)
{
    const plan *s = context;
    const fc_problem *p = s->p;
    const int64_t panel = task % s->panels, chunk = task / s->panels, c0 = chunk * s->chunk, k0 = panel * s->panel,
                  channels = fc_min(s->chunk, p->in_channels - c0), lanes = p->k->vector_lanes,
                  vectors = fc_min(s->panel / lanes, s->d_vectors - k0 / lanes);
    const operands o = make_operands(s, slot, chunk);
    for (int64_t i = 0; i < s->blocks; i++) {
        const fc_tile_block b = block_at(s, i);
        multiply(s, &b, 0, (int)s->tiles.points, channels, k0, vectors, o.v + i * s->v_bytes, o.d + i * s->d_bytes,
                 o.sum, i > 0);
    }
    store_chunk(s, panel, c0, channels, o.sum, channels, o.rest);
}

/* The weight as torch keeps it is written where it lies, 9 lines of each row (10 where it begins inside one), which are
 * fetched meanwhile. */
static void few_task(void *context, int64_t task, int slot)
{
    const plan *s = context;
    const fc_problem *p = s->p;
    const fc_tiles *t = &s->tiles;
    const int64_t item = (int64_t)p->item, part = fc_part_elements(t), line = t->k->line, vector = task % s->d_vectors,
                  chunk = task / s->d_vectors, begin = chunk * s->chunk, end = fc_min(begin + s->chunk, p->in_channels),
                  k0 = vector * line;
    const int in_place = p->weight_c == 9 && p->weight_u == 3 && p->weight_v == 1;
    const operands o = make_operands(s, slot, chunk);
    fc_winograd_few_at f = {.d = o.d + vector * part * item,
                            .outputs = fc_min(line, p->out_channels - k0),
                            .row = in_place ? p->weight_k : line,
                            .tap = in_place ? 1 : line * line,
                            .ahead_row = in_place ? p->weight_k * item : 0};
    fc_problem turned = *p;
    turned.weight_k = p->weight_c, turned.weight_c = p->weight_k;
    for (int i = 0; i < 2; i++) { /* the first and the last column of points, their first and last rows */
        const int column = i * (int)(t->in_w - 1), row = (int)(t->points - t->in_w);
        const fc_tile_slots all = fc_slots_of(t, &s->stretch, column),
                            whole = fc_slots_of(t, &s->stretch, row + column);
        f.first[i] = all.first, f.whole[i] = whole.count, f.others[i] = all.count - whole.count;
    }
    for (int64_t c0 = begin; c0 < end; c0 += line) {
        char *w = (char *)p->weight + (s->group * p->weight_g + k0 * p->weight_k + c0 * p->weight_c) * item;
        f.channels = fc_min(line, end - c0);
        f.v = o.v + (c0 - begin) / line * part * item;
        f.w = in_place ? w : o.rest;
        f.ahead = f.w;
        t->k->multiply_few_at(&f);
        if (!in_place)
            fc_unpack_weights(&turned, s->group, c0, f.channels, k0, f.outputs, o.rest, line, f.tap);
    }
}

static void run_by_panels(plan *s, int slots)
{
    if (s->few)
        s->stretch = block_at(s, 0);
    for (int slot = 0; slot < slots; slot++)
        *operands_of(s, slot).made = (made){0};
    if (!s->own)
        fc_parallel_in(slots, s->blocks * transforms_of_block(s), gradients_task, s);
    if (s->few)
        fc_parallel_in(slots, s->d_vectors * s->chunks, few_task, s);
    else
        fc_parallel_in(slots, s->panels * s->chunks, panel_task, s);
}

/* ---- groups -----------------------------------------------------------------------------------------------------*/
/* Of a group, beside what its threads have. */
static int64_t group_bytes(const plan *s)
{
    if (s->by_slices)
        return s->slices * s->sum_bytes;
    if (s->by_panels)
        return s->own ? 0 : s->blocks * s->d_bytes;
    return s->sum_bytes + s->v_bytes + s->d_bytes;
}

static void run_group(plan *s, char *memory, int slots)
{
    s->sum = memory;
    s->v = s->sum + (s->by_panels ? 0 : s->slices * s->sum_bytes);
    s->d = s->v + (s->by_panels ? 0 : s->v_bytes);
    s->threads = memory + group_bytes(s);
    if (s->by_panels) {
        run_by_panels(s, slots);
        return;
    }
    if (s->by_slices)
        run_by_slices(s, slots);
    else
        run_by_points(s, slots);
    fc_parallel_in(slots, s->panels, store_task, s);
}

static void group_task(void *context, int64_t group, int slot)
{
    plan s = *(const plan *)context;
    s.group = group;
    run_group(&s, s.threads + slot * (group_bytes(&s) + s.thread_bytes), 1);
}

/* Threads share out the groups, if there are two or more for each, or the work of one after the other, where they have
 * to wait for each other, by points three times a block. */
static fc_status run(const fc_problem *p)
{
    const int slots = fc_parallel_slots(INT64_MAX), by_groups = p->groups >= 2 * slots;
    plan s = make_plan(p, by_groups ? 1 : slots);
    const int64_t group = group_bytes(&s);
    char *scratch = fc_scratch_acquire_parts(s.zero_bytes + (by_groups ? 0 : group), slots,
                                             s.thread_bytes + (by_groups ? group : 0));
    if (!scratch)
        return FC_ENOMEM;
    s.tiles.zeros = memset(scratch, 0, (size_t)s.zero_bytes);
    s.threads = scratch + s.zero_bytes;
    if (by_groups)
        fc_parallel_in(slots, p->groups, group_task, &s);
    else
        for (; s.group < p->groups; s.group++)
            run_group(&s, scratch + s.zero_bytes, slots);
    fc_scratch_release(scratch);
    return FC_OK;
}

fc_status fc_conv_winograd_grad_weight(const fc_problem *p) { return fc_run_on_pixels(p, run, NULL); }
