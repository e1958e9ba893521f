/* conv_taps.c: convolution with few output channels, stride 1, as one product per input pixel ("kn2row", Vasudevan,
 * Anderson and Gregg 2017, "Parallel multi channel convolution using general matrix multiplication").
 *
 *     product[i][j][u][v][k] = sum_c x[i][j][c] * weight[k][c][u][v]
 *     y[h][w][k] = sum_{u,v} product[h + u * dilation_h - pad_top][w + v * dilation_w - pad_left][u][v][k]
 *
 * Lanes of the product are (u, v, k), one axis, so they are all used however few the channels k, and there is nothing
 * to multiply in the padding. The price are the sums, one load per output and tap, which pays where there are many
 * channels to sum over.
 *
 * A task goes down the rows of its block: the products of a chunk of rows of x, enough pixels for the tile kernel, are
 * put into a ring that holds the rows that one row of outputs needs.
 *
 * Where (v, k) fill vectors by themselves ("by rows"), the tile kernel sums over u as well:
 *
 *     product[h][j][v][k] = sum_{u,c} x[h + u * dilation_h - pad_top][j][c] * weight[k][c][u][v]
 *
 * so that of kernel_h * kernel_w loads per output kernel_w are left, and a chunk is one of rows of outputs.
 */
#include "../scratch.h"
#include "../threads.h"
#include "conv.h"

#include <string.h>

enum {
    CHUNK_PIXELS = 48, /* 8 tiles of 6 rows, 4 of 14: what the last ones lack counts little */
    MIN_COLUMNS = 64, /* of a piece of a row */
    REREAD_SHARE = 8, /* pieces of an image have so many times the rows that two neighbours both multiply */
    WAITING_SHARE = 2, /* the same where threads would have nothing to do */
};

typedef struct {
    const fc_problem *p;
    int by_rows;
    int64_t products; /* steps of a sum of the tile kernel: channels, by rows (u, c) */
    int64_t pixel; /* (u, v, k), or by rows (v, k), in whole vectors */
    int64_t block_h, count_h, block_w, count_w; /* blocks of outputs */
    int64_t reach, window; /* rows that one output row sees, less one; columns of a block's products */
    int64_t chunk, chunks; /* rows of x, or of outputs, multiplied together; chunks in the ring */
    int in_place; /* the tile kernel reads x */
    int64_t strip_bytes, line_bytes, rows_bytes, thread_bytes;
    const char *weights; /* [group][panel][c][column], by rows [group][panel][u][c][column] */
    char *threads;
} plan;

/* Vector multiplications per pixel. */
static int64_t pixel_cost(const fc_problem *p, int by_rows)
{
    const int64_t lanes = p->k->vector_lanes, rows = by_rows ? p->kernel_h : 1, taps = p->kernel_h * p->kernel_w / rows;
    return fc_ceil_div(taps * p->out_channels, lanes) * (rows * p->in_channels + FC_TAPS_STORE) +
           taps * fc_ceil_div(p->out_channels, lanes) * FC_TAPS_SUM;
}

/* Not by the dilation: rows far apart are run by residues, of which each is a problem of its own, and share what a plan
 * packed. */
static int is_by_rows(const fc_problem *p) { return p->kernel_h > 1 && pixel_cost(p, 1) < pixel_cost(p, 0); }

static int64_t columns_of(const fc_problem *p)
{
    return (is_by_rows(p) ? 1 : p->kernel_h) * p->kernel_w * p->out_channels;
}

static int64_t products_of(const fc_problem *p) { return (is_by_rows(p) ? p->kernel_h : 1) * p->in_channels; }
static int64_t pixel_of(const fc_problem *p) { return fc_round_up(columns_of(p), p->k->vector_lanes); }

static int64_t ring_elements(const plan *s) { return s->chunks * s->chunk * s->window * s->pixel; }

/* Rows of x under a chunk. */
static int64_t strip_rows(const plan *s) { return fc_min(s->p->x.h, s->chunk + (s->by_rows ? s->reach : 0)); }

static void set_ring(plan *s)
{
    const fc_problem *p = s->p;
    const int64_t rows = s->by_rows ? p->y.h : p->x.h;
    s->window = fc_max(1, fc_min(p->x.w, fc_extent(s->block_w, p->kernel_w, 1, p->dilation_w)));
    s->chunk = fc_max(1, fc_min(rows, fc_ceil_div(CHUNK_PIXELS, s->window)));
    s->chunks = s->by_rows ? 1 : fc_ceil_div(s->reach, s->chunk) + 1;
    if (s->by_rows && !s->in_place) /* neighbouring chunks both copy `reach` rows */
        s->chunk = fc_min(rows, fc_max(s->chunk, s->reach * REREAD_SHARE));
}

/* The ring of the narrowest block, of two vectors of channels at most, stays in a core's part of a third-level
 * cache. */
int fc_conv_taps_serves(const fc_problem *p)
{
    enum { MAX_RING_BYTES = 4 << 20 };
    const int64_t rows = (p->kernel_h - 1) * p->dilation_h + 1;
    const int64_t width = fc_extent(MIN_COLUMNS, p->kernel_w, 1, p->dilation_w), item = (int64_t)p->item;
    return p->stride_h * p->stride_w == 1 && p->kernel_h * p->kernel_w > 1 &&
           p->out_channels <= 2 * p->k->vector_lanes && rows <= MAX_RING_BYTES / item / width / pixel_of(p);
}

static plan make_plan(const fc_problem *p)
{
    const int64_t item = (int64_t)p->item, lanes = p->k->vector_lanes;
    plan s = {.p = p,
              .by_rows = is_by_rows(p),
              .pixel = pixel_of(p),
              .products = products_of(p),
              .in_place = p->x.stride_c == 1};
    s.reach = (p->kernel_h - 1) * p->dilation_h;
    s.block_w = p->y.w;
    for (set_ring(&s); ring_elements(&s) * item > fc_l2_bytes() / 2 && s.block_w > MIN_COLUMNS; set_ring(&s))
        s.block_w = fc_max(MIN_COLUMNS, fc_ceil_div(s.block_w, 2));
    s.count_w = fc_ceil_div(p->y.w, s.block_w);
    const int slots = fc_parallel_slots(INT64_MAX);
    const int64_t wanted = fc_parallel_tasks(), others = p->y.n * p->groups * s.count_w;
    s.count_h = fc_max(1, fc_min(fc_ceil_div(wanted, others), p->y.h / fc_max(1, s.reach * REREAD_SHARE)));
    if (s.count_h == 1 && others < 2 * slots &&
        others % slots) /* better threads that multiply twice than one that waits */
        s.count_h = fc_max(1, fc_min(slots, p->y.h / fc_max(1, s.reach * WAITING_SHARE)));
    s.block_h = fc_ceil_div(p->y.h, s.count_h);
    s.count_h = fc_ceil_div(p->y.h, s.block_h);
    s.strip_bytes = s.in_place ? 0 : fc_round_up(strip_rows(&s) * s.window * p->in_channels * item, 64);
    s.line_bytes = fc_round_up((s.block_w * p->out_channels + lanes) * item, 64);
    s.rows_bytes = fc_round_up(p->kernel_h * (int64_t)sizeof(char *), 64);
    s.thread_bytes = s.strip_bytes + s.line_bytes + s.rows_bytes + fc_round_up((ring_elements(&s) + lanes) * item, 64);
    return s;
}

/* ---- weights ------------------------------------------------------------------------------------------------------*/
int64_t fc_packed_taps(const fc_problem *p) { return p->groups * products_of(p) * pixel_of(p); }

/* Columns are (u, v, k), or (v, k); the last panel has one vector if that is enough, and zeros beyond the last
 * column. */
#define PACK(type)                                                                                                     \
    for (int64_t q = 0; q < columns; q++) {                                                                            \
        const int64_t k = q % p->out_channels, v = q / p->out_channels % p->kernel_w,                                  \
                      u = q / p->out_channels / p->kernel_w, first = q / panel * panel,                                \
                      width = fc_min(panel, pixel - first);                                                            \
        const type *f =                                                                                                \
            (const type *)p->weight + g * p->weight_g + k * p->weight_k + u * p->weight_u + v * p->weight_v;           \
        type *t = (type *)to + (g * pixel + first) * products + q - first;                                             \
        for (int64_t i = 0; i < products; i++)                                                                         \
            t[i * width] = f[i / p->in_channels * p->weight_u + i % p->in_channels * p->weight_c];                     \
    }

fc_status fc_pack_taps(const fc_problem *p, char *to)
{
    const int64_t columns = columns_of(p), pixel = pixel_of(p), panel = 2 * p->k->vector_lanes,
                  products = products_of(p);
    if (columns < pixel)
        memset(to, 0, (size_t)(fc_packed_taps(p) * (int64_t)p->item));
    for (int64_t g = 0; g < p->groups; g++)
        if (p->item == 4) {
            PACK(uint32_t)
        } else {
            PACK(uint64_t)
        }
    return FC_OK;
}

/* ---- one block ----------------------------------------------------------------------------------------------------*/
typedef struct {
    int64_t n, g, h, w, rows, columns; /* of outputs */
    int64_t top, bottom, left, width; /* rows [top, bottom) of x and columns [left, left + width) that they see */
    char *strip, *line, *ring;
    const void **row;
} block;

static block block_at(const plan *s, int64_t task, char *scratch)
{
    const fc_problem *p = s->p;
    block b = {.strip = scratch, .line = scratch + s->strip_bytes};
    b.row = (const void **)(b.line + s->line_bytes);
    b.ring = b.line + s->line_bytes + s->rows_bytes;
    b.w = task % s->count_w * s->block_w, task /= s->count_w;
    b.h = task % s->count_h * s->block_h, task /= s->count_h;
    b.g = task % p->groups, b.n = task / p->groups;
    b.rows = fc_min(s->block_h, p->y.h - b.h), b.columns = fc_min(s->block_w, p->y.w - b.w);
    b.top = fc_max(0, b.h - p->pad_top);
    b.bottom = fc_min(p->x.h, b.h + b.rows - p->pad_top + s->reach);
    b.left = fc_min(p->x.w, fc_max(0, b.w - p->pad_left));
    b.width = fc_max(0, fc_min(p->x.w, b.w + b.columns - p->pad_left + (p->kernel_w - 1) * p->dilation_w) - b.left);
    return b;
}

/* Where the products of row `i` of x, or of outputs, are; the rows of a chunk follow each other. */
static char *ring_row(const plan *s, const block *b, int64_t i)
{
    const int64_t r = i - (s->by_rows ? b->h : b->top);
    return b->ring + (r / s->chunk % s->chunks * s->chunk + r % s->chunk) * b->width * s->pixel * (int64_t)s->p->item;
}

/* Rows of x under a block's columns: x itself, or a copy of the strip. */
typedef struct {
    const char *data; /* of row `first` */
    int64_t first, row, pixel;
} strip;

static strip load_strip(const plan *s, const block *b, int64_t first, int64_t rows)
{
    const fc_problem *p = s->p;
    const fc_image x = fc_image_of(&p->x, p->item, b->n, b->g * p->in_channels, p->in_channels);
    if (s->in_place)
        return (strip){x.data + (first * x.stride_h + b->left * x.stride_w) * (int64_t)p->item, first, x.stride_h,
                       x.stride_w};
    const int64_t row = b->width * x.c;
    const fc_window window = {first, rows, 1, b->left, b->width, 1};
    if (rows > 0)
        fc_load_window(p->k, p->item, &x, &window, b->strip, &(fc_pitch){row, x.c, 1});
    return (strip){b->strip, first, row, x.c};
}

/* `rows` rows of products, from row i of x on, of the rows u of taps. */
static void multiply(const plan *s, const block *b, const strip *x, int64_t i, fc_range u, int64_t rows, char *to)
{
    const fc_problem *p = s->p;
    const int64_t item = (int64_t)p->item, panel = 2 * p->k->vector_lanes;
    const int64_t calls = x->row == b->width * x->pixel ? 1 : rows, pixels = rows * b->width / calls;
    fc_gemm product = {.a_row = x->pixel,
                       .taps_h = u.end - u.first,
                       .taps_w = 1,
                       .step_h = p->dilation_h * x->row,
                       .length = p->in_channels,
                       .b_step_h = p->in_channels,
                       .y_row = s->pixel};
    for (int64_t r = 0; r < calls; r++) {
        product.a = x->data + (i + u.first * p->dilation_h - x->first + r) * x->row * item;
        for (int64_t first = 0; first < s->pixel; first += panel) {
            product.columns = fc_min(panel, s->pixel - first);
            product.b = s->weights +
                        ((b->g * s->pixel + first) * s->products + u.first * p->in_channels * product.columns) * item;
            product.y = to + (r * pixels * s->pixel + first) * item;
            p->k->gemm->rows(&product, pixels);
        }
    }
}

/* The products of the chunk that starts at row i of x, or of outputs: neighbouring rows that see the same rows of taps
 * at once. */
static void multiply_chunk(const plan *s, const block *b, int64_t i)
{
    const fc_problem *p = s->p;
    const int64_t pad = s->by_rows ? p->pad_top : 0, reach = s->by_rows ? s->reach : 0;
    const int64_t end = fc_min(s->by_rows ? b->h + b->rows : b->bottom, i + s->chunk), top = fc_max(b->top, i - pad);
    const strip x = load_strip(s, b, top, fc_min(b->bottom, end - pad + reach) - top);
    for (int64_t next; i < end; i = next) {
        fc_range u = {0, 1}, other = u;
        for (next = i; next < end; next++) {
            if (s->by_rows)
                other = fc_taps_of_row(p, next);
            if (next == i)
                u = other;
            if (other.first != u.first || other.end != u.end)
                break;
        }
        if (u.end > u.first && b->width > 0)
            multiply(s, b, &x, i - pad, u, next - i, ring_row(s, b, i));
    }
}

/* Where the rows of products lie that row h of outputs is the sum of, and their number. */
static int64_t find_products(const plan *s, const block *b, int64_t h, int64_t *next)
{
    const fc_problem *p = s->p;
    const fc_range u = fc_taps_of_row(p, h);
    if (s->by_rows) {
        for (; *next <= h; *next += s->chunk)
            multiply_chunk(s, b, *next);
        b->row[0] = ring_row(s, b, h);
        return u.end > u.first;
    }
    for (int64_t t = u.first; t < u.end; t++) {
        const int64_t i = h - p->pad_top + t * p->dilation_h;
        for (; *next <= i; *next += s->chunk)
            multiply_chunk(s, b, *next);
        b->row[t - u.first] = ring_row(s, b, i) + t * p->kernel_w * p->out_channels * (int64_t)p->item;
    }
    return u.end - u.first;
}

static void run_block(void *context, int64_t task, int slot)
{
    const plan *s = context;
    const fc_problem *p = s->p;
    const fc_epilogue *e = &p->epilogue;
    const block b = block_at(s, task, s->threads + slot * s->thread_bytes);
    const int64_t item = (int64_t)p->item, channel = b.g * p->out_channels;
    const fc_image y = fc_image_of(&p->y, p->item, b.n, channel, p->out_channels);
    fc_taps sums = {
        .row = b.row,
        .count = b.columns,
        .channels = p->out_channels,
        .taps = p->kernel_w,
        .dilation = p->dilation_w,
        .pad = p->pad_left - b.w + b.left,
        .width = b.width,
        .pixel = s->pixel,
        .y = b.line,
        .finish = fc_has_epilogue(p),
        .scale = fc_at(e->scale, channel, item),
        .bias = fc_at(e->bias, channel, item),
        .residual_pixel = p->residual.stride_w,
        .lower = e->lower,
        .upper = e->upper,
    };
    int64_t next = s->by_rows ? b.h : b.top; /* row to multiply */
    for (int64_t h = b.h; h < b.h + b.rows; h++) {
        sums.row_count = find_products(s, &b, h, &next);
        sums.residual = fc_residual_at(p, b.n, channel, h, b.w);
        p->k->taps(&sums);
        fc_store_window(p->k, p->item, &y, &(fc_window){h, 1, 1, b.w, b.columns, 1}, b.line,
                        &(fc_pitch){b.columns * p->out_channels, p->out_channels, 1});
    }
}

static int64_t weight_bytes(const fc_problem *p)
{
    return p->packed ? 0 : fc_round_up(fc_packed_taps(p) * (int64_t)p->item, 64);
}

fc_need fc_conv_taps_scratch(const fc_problem *p) { return (fc_need){weight_bytes(p), make_plan(p).thread_bytes}; }

fc_status fc_conv_taps(const fc_problem *p)
{
    plan s = make_plan(p);
    const int64_t tasks = p->y.n * p->groups * s.count_h * s.count_w;
    const int64_t weights = weight_bytes(p);
    const int slots = fc_parallel_slots(tasks);
    char *scratch = fc_scratch_acquire_parts(weights, slots, s.thread_bytes);
    if (!scratch)
        return FC_ENOMEM;
    if (!p->packed)
        fc_pack_taps(p, scratch);
    s.weights = p->packed ? p->packed : scratch;
    s.threads = scratch + weights;
    fc_parallel_in(slots, tasks, run_block, &s);
    fc_scratch_release(scratch);
    return FC_OK;
}
