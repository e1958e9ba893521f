/* conv_strassen.c: 1x1 convolution by halves: of pixels, of input channels and of output channels, seven products of
 * halves instead of eight (kernels/strassen.h).
 *
 * The pixels of an image, row by row, are groups of two register tiles, of which the first meets the second; those left
 * over are multiplied as they are. Two neighbouring panels of output channels meet, and the halves of each chunk of
 * input channels. What an output is a sum of depends on nothing but the shape. A task is some groups of an image and
 * some pairs of panels:
 *
 *     for chunk: sums of x, of each group
 *                for pair of panels: sums of its weights
 *                                    for group: y[group][pair] (+)= x[group][chunk] * weights[chunk][pair]
 *
 * Weights are packed as direct convolution's. The products add up neighbours, pixels, channels and weights: an image in
 * which one is not finite is done again directly.
 */
#include "../scratch.h"
#include "../threads.h"
#include "conv.h"

#include <stdatomic.h>
#include <string.h>

enum {
    LINE = 64,
    /* Of channels: their error is that of a sum half as long, and that of y a sum of so many. Four tiles of sums (and
     * copies) of a group take 57 KiB, the weights of a pair and their sums 128. Also fixes the order of the sums. */
    CHUNK = 256,
    /* Pixels of a tile that lie a multiple of this apart share L1 sets, see conv_direct.c. */
    ALIASING_BYTES = 2048,
};

typedef struct {
    const fc_problem *p;
    int64_t panel, pairs, chunk, rows;    /* columns of a panel, pairs of panels, channels, pixels of a tile */
    fc_view x, y, residual;               /* of the pixels that y has, one row where rows follow each other */
    int64_t pixels, groups, blocks;       /* of an image */
    int64_t parts;                        /* of the pairs */
    int x_in_place, y_in_place, residual_in_place;
    int copies;                           /* of quarters of x, whose pixels share L1 sets */
    int by_pair;                          /* y that is not in place leaves after each pair */
    int stream;
    int64_t x_pitch, y_pitch, residual_pitch, sum_row, sum_tile, sum_group;
    int64_t tile_bytes, weight_bytes, sum_bytes, x_bytes, y_bytes, residual_bytes, thread_bytes;
    char *threads;
    atomic_char *spoilt;                  /* images, and behind them the weight */
} plan;

int fc_conv_strassen_serves(const fc_problem *p)
{
    const int64_t panel = 2 * p->k->vector_lanes;
    return p->k->strassen && p->groups == 1 && p->kernel_h * p->kernel_w == 1 && p->pad_top == 0 && p->pad_left == 0 &&
           fc_sees_no_padding(p) && p->in_channels % panel == 0 && p->out_channels % (2 * panel) == 0 &&
           p->y.h * p->y.w >= 2 * p->k->gemm->max_rows;
}

/* Chunks are near-equal, and their halves whole vectors. */
static int64_t chunk_of(const fc_problem *p)
{
    const int64_t count = fc_ceil_div(p->in_channels, CHUNK);
    return fc_round_up(fc_ceil_div(p->in_channels, count), 2 * p->k->vector_lanes);
}

/* Seven products of halves; for each vector of a sum of x 4 loads and stores (and 3 copies), of a sum of weights as
 * many, from the third-level cache, once for so many pixels of a block; for each vector of the tiles what they store,
 * load and add between the products. Measured, Zen 4, one thread: 1.10 times as fast as direct for 256 -> 1024 channels
 * at 14x14, 1.05 for 256 -> 128 at 56x56, 1.00 for 256 -> 64, 0.99 for 512 -> 2048 at 8x8. */
double fc_conv_strassen_cost(const fc_problem *p)
{
    enum { INPUT_SUMS = 12, WEIGHT_SUMS = 16, TILES = 20, BLOCK = 224 };
    const int64_t rows = p->k->gemm->max_rows, lanes = p->k->vector_lanes, pixels = p->y.h * p->y.w,
                  groups = pixels / (2 * rows), halves = p->in_channels / 2 / lanes,
                  pairs = p->out_channels / (4 * lanes);
    const double product = (double)(rows * p->in_channels / 2) * (double)(p->out_channels / 2 / lanes);
    return (double)groups * (7 * product + (double)(rows * halves * INPUT_SUMS) +
                             (double)(2 * rows * pairs * TILES * fc_ceil_div(p->in_channels, CHUNK))) +
           (double)fc_max(1, pixels / BLOCK) * (double)(p->in_channels * pairs * WEIGHT_SUMS) +
           (double)(pixels - groups * 2 * rows) * (double)p->in_channels * (double)(p->out_channels / lanes);
}

/* ---- plan ------------------------------------------------------------------------------------------------------------*/
/* The pixels of v that outputs see, in one row if they follow each other. */
static fc_view pixels_of(const fc_problem *p, const fc_view *v, int64_t stride_h, int64_t stride_w)
{
    fc_view q = *v;
    q.stride_h *= stride_h, q.stride_w *= stride_w;
    q.h = p->y.h, q.w = p->y.w;
    if (q.h == 1 || q.stride_h == q.w * q.stride_w)
        q.w *= q.h, q.h = 1;
    return q;
}

static int is_in_place(const fc_view *v) { return v->stride_c == 1 && v->h == 1; }

/* From pixel to pixel of what is copied: neighbours in different sets of the first-level cache. */
static int64_t pitch_of(int64_t channels, size_t item)
{
    return channels + (channels * (int64_t)item % ALIASING_BYTES ? 0 : LINE / (int64_t)item);
}

static int64_t bytes_of(const plan *s, int64_t elements) { return fc_round_up(elements * (int64_t)s->p->item, LINE); }

/* Pixels of the largest block, which has those that are left over. */
static int64_t block_pixels(const plan *s)
{
    return s->pixels + (fc_ceil_div(s->groups, s->blocks) - s->groups) * 2 * s->rows;
}

/* Whether none of so many blocks is much longer than the others: 7 groups are no two blocks. */
static int are_alike(const plan *s, int64_t blocks)
{
    return 16 * (fc_ceil_div(s->groups, blocks) * blocks - s->groups) <= s->groups;
}

/* Blocks whose chunk, with its sums, takes half of the second-level cache; as many for each thread, or else parts of the
 * panels, for each of which x is summed again. */
static void share_out(plan *s)
{
    enum { LEAST_GROUPS = 2, EVEN_GROUPS = 4 };
    const fc_problem *p = s->p;
    const int64_t threads = fc_parallel_slots(INT64_MAX), y = s->by_pair ? 2 * s->panel : p->out_channels;
    const int64_t group =
        bytes_of(s, s->sum_group + 2 * s->rows * ((s->copies ? 0 : s->chunk) + (s->y_in_place ? 0 : y)));
    s->blocks = fc_ceil_div(s->groups, fc_max(LEAST_GROUPS, fc_l2_bytes() / 2 / group));
    s->parts = 1;
    const int64_t tasks = p->y.n * s->blocks, even = fc_round_up(s->blocks, threads);
    const int few = 2 * tasks < fc_parallel_tasks();
    if (threads == 1 || (tasks % threads == 0 && (!few || are_alike(s, s->blocks))))
        return;
    if (s->groups >= EVEN_GROUPS * even && are_alike(s, even))
        s->blocks = even;
    else if (few)
        s->parts = fc_min(s->pairs, threads);
}

static plan make_plan(const fc_problem *p)
{
    const int64_t lanes = p->k->vector_lanes, item = (int64_t)p->item, chunk = chunk_of(p);
    plan s = {.p = p,
              .panel = 2 * lanes,
              .pairs = p->out_channels / (4 * lanes),
              .chunk = chunk,
              .rows = p->k->gemm->max_rows,
              .x = pixels_of(p, &p->x, p->stride_h, p->stride_w),
              .y = pixels_of(p, &p->y, 1, 1),
              .residual = pixels_of(p, &p->residual, 1, 1),
              .pixels = p->y.h * p->y.w};
    s.groups = s.pixels / (2 * s.rows);
    s.x_in_place = is_in_place(&s.x);
    s.y_in_place = is_in_place(&s.y);
    s.residual_in_place = !p->residual.data || is_in_place(&s.residual);
    s.copies = s.x_in_place && s.x.stride_w * item % ALIASING_BYTES == 0 && !fc_has_wide_l1();
    s.by_pair = chunk >= p->in_channels;
    s.stream = s.y_in_place && s.by_pair && fc_streams(p);
    s.sum_row = pitch_of(chunk / 2, p->item);
    s.sum_tile = s.rows * s.sum_row;
    s.sum_group = (FC_STRASSEN_SUMS + (s.copies ? FC_STRASSEN_COPIES : 0)) * s.sum_tile;
    share_out(&s);
    const int64_t pixels = block_pixels(&s), columns = fc_ceil_div(s.pairs, s.parts) * 2 * s.panel;
    s.x_pitch = s.x_in_place ? s.x.stride_w : pitch_of(chunk, p->item);
    s.y_pitch = s.y_in_place ? s.y.stride_w : pitch_of(s.by_pair ? 2 * s.panel : columns, p->item);
    s.residual_pitch = s.residual_in_place ? s.residual.stride_w : columns;
    s.tile_bytes = bytes_of(&s, FC_STRASSEN_TILES * s.rows * s.panel);
    s.weight_bytes = bytes_of(&s, FC_STRASSEN_SUMS * chunk / 2 * s.panel);
    s.sum_bytes = bytes_of(&s, fc_ceil_div(s.groups, s.blocks) * s.sum_group);
    s.x_bytes = s.x_in_place ? 0 : bytes_of(&s, pixels * s.x_pitch);
    s.y_bytes = s.y_in_place ? 0 : bytes_of(&s, pixels * s.y_pitch);
    s.residual_bytes = s.residual_in_place ? 0 : bytes_of(&s, pixels * s.residual_pitch);
    s.thread_bytes = s.tile_bytes + s.weight_bytes + s.sum_bytes + s.x_bytes + s.y_bytes + s.residual_bytes;
    return s;
}

/* ---- one task --------------------------------------------------------------------------------------------------------*/
typedef struct {
    int64_t n, first, pixels, groups; /* pixels of the image */
    int64_t pair, end;                /* pairs of panels */
    char *tiles, *weights, *sums, *x, *y, *residual;
} block;

static block decode(const plan *s, int64_t task, int slot)
{
    const int64_t blocks = s->p->y.n * s->blocks, part = task / blocks, at = task % s->blocks; /* a thread has a part */
    const int64_t first = at * s->groups / s->blocks, end = (at + 1) * s->groups / s->blocks;
    block b = {.n = task % blocks / s->blocks,
               .first = first * 2 * s->rows,
               .groups = end - first,
               .pair = part * s->pairs / s->parts,
               .end = (part + 1) * s->pairs / s->parts,
               .tiles = s->threads + slot * s->thread_bytes};
    b.pixels = (at + 1 < s->blocks ? end * 2 * s->rows : s->pixels) - b.first;
    b.weights = b.tiles + s->tile_bytes;
    b.sums = b.weights + s->weight_bytes;
    b.x = b.sums + s->sum_bytes;
    b.y = b.x + s->x_bytes;
    b.residual = b.y + s->y_bytes;
    return b;
}

typedef void move(const fc_kernels *, size_t item, const fc_image *, const fc_window *, void *, const fc_pitch *);
static void store_window(const fc_kernels *k, size_t item, const fc_image *image, const fc_window *window, void *from,
                         const fc_pitch *pitch)
{
    fc_store_window(k, item, image, window, from, pitch);
}

/* The block's pixels between a view and dense memory, row by row. */
static void move_pixels(const plan *s, const block *b, const fc_view *v, int64_t channel, int64_t channels, char *dense,
                        int64_t pixel, move *by)
{
    const fc_pitch pitch = {0, pixel, 1};
    const fc_image image = fc_image_of(v, s->p->item, b->n, channel, channels);
    for (int64_t at = b->first, count; at < b->first + b->pixels; at += count) {
        count = fc_min(v->w - at % v->w, b->first + b->pixels - at);
        const fc_window window = {at / v->w, 1, 1, at % v->w, count, 1};
        by(s->p->k, s->p->item, &image, &window, dense + (at - b->first) * pixel * (int64_t)s->p->item, &pitch);
    }
}

static char *view_at(const plan *s, const block *b, const fc_view *v, int64_t channel)
{
    return (char *)v->data + (b->n * v->stride_n + b->first * v->stride_w + channel) * (int64_t)s->p->item;
}

static void spoil(const plan *s, int64_t at) { atomic_store_explicit(&s->spoilt[at], 1, memory_order_relaxed); }

static void sum_inputs(const plan *s, const block *b, const char *x, int64_t channels)
{
    const fc_problem *p = s->p;
    for (int64_t g = 0; g < b->groups; g++)
        if (!p->k->strassen->inputs(channels / 2, fc_at(x, g * 2 * s->rows * s->x_pitch, p->item), s->x_pitch,
                                    b->sums + g * s->sum_group * (int64_t)p->item, s->sum_row, s->sum_tile, s->copies))
            spoil(s, b->n);
}

/* The packed weights of a panel from channel c0 on */
static const char *weights_at(const plan *s, int64_t panel, int64_t c0)
{
    return fc_at(s->p->packed, fc_packed_at(s->p, 0, panel * s->panel, c0, s->panel), s->p->item);
}

/* Group g's factors of the products, in their order. */
static void set_factors(const plan *s, const block *b, int64_t g, int64_t pair, const char *x, int64_t c0,
                        int64_t channels, fc_factors *f)
{
    const size_t item = s->p->item;
    const int64_t half = channels / 2, tile = s->rows * s->x_pitch, row = s->copies ? s->sum_row : s->x_pitch;
    const char *sums = fc_at(b->sums, g * s->sum_group, item), *a = fc_at(x, 2 * g * tile, item);
    const char *s1 = sums, *s2 = fc_at(s1, s->sum_tile, item), *s3 = fc_at(s2, s->sum_tile, item),
               *s4 = fc_at(s3, s->sum_tile, item), *copies = fc_at(s4, s->sum_tile, item);
    const char *t1 = b->weights, *t2 = fc_at(t1, half * s->panel, item), *t3 = fc_at(t2, half * s->panel, item),
               *t4 = fc_at(t3, half * s->panel, item);
    const char *a11 = s->copies ? copies : a,
               *a12 = s->copies ? fc_at(copies, s->sum_tile, item) : fc_at(a, half, item),
               *a22 = s->copies ? fc_at(copies, 2 * s->sum_tile, item) : fc_at(a, tile + half, item);
    f[0] = (fc_factors){a11, weights_at(s, 2 * pair, c0), NULL, row, 0};
    f[1] = (fc_factors){a12, weights_at(s, 2 * pair, c0 + half), NULL, row, 0};
    f[2] = (fc_factors){s2, t2, NULL, s->sum_row, 0};
    f[3] = (fc_factors){fc_at(s2, half / 2, item), fc_at(t2, half / 2 * s->panel, item), NULL, s->sum_row, 0};
    f[4] = (fc_factors){s3, t3, NULL, s->sum_row, 0};
    f[5] = (fc_factors){s1, t1, NULL, s->sum_row, 0};
    f[6] = (fc_factors){s4, weights_at(s, 2 * pair + 1, c0 + half), NULL, s->sum_row, 0};
    f[7] = (fc_factors){a22, t4, NULL, row, 0};
}

/* What comes into the second-level cache meanwhile, `half` lines with each product. First, from `rows` on, what the next
 * group writes, or in turn with it adds: a line of each pixel by each of four products. Then the weights of the next
 * pair, and during the last pair the next chunk of x or that of the next block, a line of so many pixels after the
 * other. */
static void set_ahead(const plan *s, const block *b, int64_t g, int64_t pair, const char *rows, int64_t row_pitch,
                      int64_t c0, int64_t channels, fc_factors *f)
{
    static const int8_t order[2][FC_STRASSEN_PRODUCTS] = {{0, 1, 2, 3, 4, 5, 6, 7}, {0, 1, 4, 5, 6, 7, 2, 3}};
    const fc_problem *p = s->p;
    const int64_t item = (int64_t)p->item, lanes = LINE / item, half = channels / 2;
    const int last = pair + 1 == b->end, done = c0 + channels == p->in_channels, adds = p->residual.data != NULL;
    const int64_t slots = adds ? 2 : 4, panel_slots = 2 * s->panel / lanes, next = last ? b->pair : pair + 1,
                  next_c = !last  ? c0
                           : done ? 0
                                  : c0 + channels,
                  runs = fc_ceil_div(b->pixels, half);
    const char *x = view_at(s, b, &s->x, done ? 0 : c0 + channels) + (done ? b->pixels * s->x_pitch * item : 0);
    for (int i = 0; i < FC_STRASSEN_PRODUCTS; i++) {
        fc_factors *to = &f[order[adds][i]];
        const int64_t slot = g * slots + i - 4, rest = slot - 2 * panel_slots;
        if (i < 4) {
            to->ahead = rows + i * LINE;
            to->ahead_step = row_pitch;
        } else if (i < 4 + slots && rest < 0) {
            to->ahead = weights_at(s, 2 * next + slot / panel_slots, next_c) + slot % panel_slots * half * LINE;
            to->ahead_step = lanes;
        } else if (i < 4 + slots && last && s->x_in_place) {
            to->ahead = x + (rest % runs * half * s->x_pitch * item + rest / runs * LINE);
            to->ahead_step = s->x_pitch;
        } else {
            to->ahead = b->tiles;
        }
    }
}

/* The pixels behind the last group. */
static void multiply_rest(const plan *s, const block *b, int64_t pair, const fc_strassen *all, const char *x,
                          int64_t c0, int64_t channels)
{
    const size_t item = s->p->item;
    const int64_t done = b->groups * 2 * s->rows;
    for (int64_t j = 0; j < 2 && done < b->pixels; j++) {
        const int64_t column = j * s->panel;
        const fc_gemm rest = {
            .a = fc_at(x, done * s->x_pitch, item),
            .a_row = s->x_pitch,
            .taps_h = 1,
            .taps_w = 1,
            .length = channels,
            .b = weights_at(s, 2 * pair + j, c0),
            .y = (char *)all->y + (done * s->y_pitch + column) * (int64_t)item,
            .y_row = s->y_pitch,
            .columns = s->panel,
            .accumulate = all->accumulate,
            .finish = all->finish,
            .scale = fc_at(all->scale, column, item),
            .bias = fc_at(all->bias, column, item),
            .residual = fc_at(all->residual, done * s->residual_pitch + column, item),
            .residual_row = s->residual_pitch,
            .lower = all->lower,
            .upper = all->upper,
            .warm = 1,
        };
        s->p->k->gemm->rows(&rest, b->pixels - done);
    }
}

static void multiply_pair(const plan *s, const block *b, int64_t pair, const char *x, int64_t c0, int64_t channels)
{
    const fc_problem *p = s->p;
    const fc_epilogue *e = &p->epilogue;
    const size_t item = p->item;
    const int64_t column = pair * 2 * s->panel, from = column - b->pair * 2 * s->panel;
    fc_strassen t = {
        .length = channels / 2,
        .tiles = b->tiles,
        .y = s->y_in_place ? view_at(s, b, &s->y, column) : b->y + (s->by_pair ? 0 : from) * (int64_t)item,
        .y_row = s->y_pitch,
        .accumulate = c0 > 0,
        .finish = c0 + channels == p->in_channels && fc_has_epilogue(p),
        .stream = s->stream,
        .scale = fc_at(e->scale, column, item),
        .bias = fc_at(e->bias, column, item),
        .residual = !p->residual.data      ? NULL
                    : s->residual_in_place ? view_at(s, b, &s->residual, column)
                                           : fc_at(b->residual, from, item),
        .residual_row = s->residual_pitch,
        .lower = e->lower,
        .upper = e->upper,
    };
    if (!p->k->strassen->weights(t.length, weights_at(s, 2 * pair, c0), s->panel * p->packed_column, b->weights))
        spoil(s, p->y.n);
    multiply_rest(s, b, pair, &t, x, c0, channels);
    const char *y = t.y, *residual = t.residual;
    for (int64_t g = 0; g < b->groups; g++) {
        const int64_t done = g * 2 * s->rows, next = g + 1 < b->groups ? done + 2 * s->rows : 0,
                      beside = next ? 0 : 2 * s->panel; /* of the next pair */
        const int adds = residual && g % 2;
        t.y = (char *)(uintptr_t)fc_at(y, done * s->y_pitch, item);
        t.residual = fc_at(residual, done * s->residual_pitch, item);
        set_factors(s, b, g, pair, x, c0, channels, t.product);
        set_ahead(s, b, g, pair,
                  fc_at(adds ? residual : y, next * (adds ? s->residual_pitch : s->y_pitch) + beside, item),
                  adds ? s->residual_pitch : s->y_pitch, c0, channels, t.product);
        p->k->strassen->tile(&t);
    }
    if (!s->y_in_place && s->by_pair)
        move_pixels(s, b, &s->y, column, 2 * s->panel, b->y, s->y_pitch, store_window);
}

static void run_block(void *context, int64_t task, int slot)
{
    const plan *s = context;
    const fc_problem *p = s->p;
    const block b = decode(s, task, slot);
    const int64_t column = b.pair * 2 * s->panel, columns = (b.end - b.pair) * 2 * s->panel,
                  tile = s->rows * s->panel * (int64_t)p->item;
    memset(b.tiles + (FC_STRASSEN_TILES - 1) * tile, 0, (size_t)tile);
    if (!s->residual_in_place)
        move_pixels(s, &b, &s->residual, column, columns, b.residual, s->residual_pitch, fc_load_window);
    for (int64_t c0 = 0; c0 < p->in_channels; c0 += s->chunk) {
        const int64_t channels = fc_min(s->chunk, p->in_channels - c0);
        if (!s->x_in_place)
            move_pixels(s, &b, &s->x, c0, channels, b.x, s->x_pitch, fc_load_window);
        const char *x = s->x_in_place ? view_at(s, &b, &s->x, c0) : b.x;
        sum_inputs(s, &b, x, channels);
        for (int64_t pair = b.pair; pair < b.end; pair++)
            multiply_pair(s, &b, pair, x, c0, channels);
    }
    if (!s->y_in_place && !s->by_pair)
        move_pixels(s, &b, &s->y, column, columns, b.y, s->y_pitch, store_window);
    if (s->stream)
        p->k->fence();
}

/* ---- all of them -----------------------------------------------------------------------------------------------------*/
static fc_problem image_of(const fc_problem *p, int64_t n)
{
    const int64_t item = (int64_t)p->item;
    fc_problem q = *p;
    q.x.data = (char *)p->x.data + n * p->x.stride_n * item;
    q.y.data = (char *)p->y.data + n * p->y.stride_n * item;
    q.residual.data = (char *)fc_residual_at(p, n, 0, 0, 0);
    q.x.n = q.y.n = 1;
    return q;
}

/* A thread's memory, which has to do for an image done directly. */
static int64_t thread_bytes(const plan *s)
{
    fc_problem q = image_of(s->p, 0);
    static const char packed[1];
    q.packed = packed;
    return fc_round_up(fc_max(s->thread_bytes, fc_conv_direct_scratch(&q)), LINE);
}

static fc_status repair(const plan *s, int slots)
{
    const fc_problem *p = s->p;
    const int all = atomic_load_explicit(&s->spoilt[p->y.n], memory_order_relaxed);
    fc_status status = FC_OK;
    fc_scratch_lend(s->threads, (size_t)(slots * s->thread_bytes));
    for (int64_t n = 0; n < p->y.n && status == FC_OK; n++)
        if (all || atomic_load_explicit(&s->spoilt[n], memory_order_relaxed)) {
            const fc_problem q = image_of(p, n);
            status = fc_conv_direct(&q);
        }
    fc_scratch_lend(NULL, 0);
    return status;
}

static int64_t flag_bytes(const fc_problem *p) { return fc_round_up(p->y.n + 1, LINE); }

static int64_t packed_bytes(const fc_problem *p)
{
    return p->packed ? 0 : fc_round_up(fc_packed_direct(p) * (int64_t)p->item, LINE);
}

int64_t fc_conv_strassen_scratch(const fc_problem *p)
{
    const plan s = make_plan(p);
    return flag_bytes(p) + packed_bytes(p) + thread_bytes(&s);
}

fc_status fc_conv_strassen(const fc_problem *problem)
{
    fc_problem p = *problem;
    plan s = make_plan(&p);
    s.thread_bytes = thread_bytes(&s);
    const int64_t flags = flag_bytes(&p), packed = packed_bytes(&p), tasks = p.y.n * s.blocks * s.parts;
    const int slots = fc_parallel_slots(INT64_MAX);
    char *scratch = fc_scratch_acquire_parts(flags + packed, slots, s.thread_bytes);
    if (!scratch)
        return FC_ENOMEM;
    memset(scratch, 0, (size_t)flags);
    s.spoilt = (atomic_char *)scratch;
    s.threads = scratch + flags + packed;
    if (packed) {
        fc_pack_direct(&p, scratch + flags);
        fc_use_packed(&p, scratch + flags);
    }
    fc_parallel_in(slots, tasks, run_block, &s);
    const fc_status status = repair(&s, slots);
    fc_scratch_release(scratch);
    return status;
}
