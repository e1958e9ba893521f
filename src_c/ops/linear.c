/* linear.c: the product of rows with a matrix, which may be far larger than they are.
 *
 *     y[r][k] = clamp(sum_c x[r][c] * w[k][c] + bias[k], lower, upper)
 *
 * Every output is summed over c in order, from zero, whatever the number of rows, tasks and blocks: a sum that is cut
 * goes on from the value in y. So each case may take the blocks that suit it, and the bits do not tell.
 *
 * With few rows the time is that of reading w once, where it lies (kernels/linear.h). With more, chunks of w are packed
 * into panels of two vectors for the tile kernel (kernels/gemm.h), each chunk by the task that uses it, while it stays
 * in the caches:
 *
 *     task (rows, panels): for chunk of c: copy x[rows][chunk]; for panel: pack w[panel][chunk]; y[rows][panel] += ...
 */
#include "../scratch.h"
#include "../threads.h"
#include "conv.h"

#include <string.h>

enum {
    /* A chunk of a panel is 256 x 128 B = 32 KiB: with the 14 KiB of x under a tile it stays in L1 (48 KiB). */
    CHUNK = 256,
    /* x[rows][CHUNK] floats of a task: 256 KiB, a quarter of a small second-level cache. */
    BLOCK_ROWS = 256,
    /* w[c][k]: pieces of its rows are packed this long, so that few pages are open; 256 of them are 256 KiB. */
    PIECE_BYTES = 1024,
    /* Few rows: y stays in a third of L1. */
    THIN_BYTES = 16 << 10,
    /* A weight that comes from memory: 16 streams of 64 B lines are read faster than 32 (4096 x 4096 on two threads:
     * 1.3 ms instead of 1.7). In the caches the two chains of sums that 32 give are worth more. */
    MEMORY_BYTES = 16 << 20,
    LEAST_TILES = 4, /* of a task's rows: packing a panel costs as much as a tile of 14 rows */
};

typedef struct {
    const fc_kernels *k;
    int64_t item, rows, in, out;
    const fc_view *x, *w, *y;
    const char *bias;
    int bias_step;
    double lower, upper;
    int64_t columns, block_rows, count_rows, group; /* of a task; panels packed at a time */
    int64_t strip_row, strip_bytes, thread_bytes;
    char *threads;
} plan;

static const char *element(const fc_view *v, int64_t n, int64_t c, int64_t item)
{
    return (const char *)v->data + (n * v->stride_n + c * v->stride_c) * item;
}

/* ---- few rows -----------------------------------------------------------------------------------------------------*/
static void run_thin(void *context, int64_t task, int slot)
{
    (void)slot;
    const plan *s = context;
    const int64_t k0 = task * s->columns;
    const int by_runs = s->w->stride_c == 1;
    const fc_thin_product product = {
        .x = s->x->data,
        .x_row = s->x->stride_n,
        .rows = s->rows,
        .length = s->in,
        .w = element(s->w, k0, 0, s->item),
        .w_row = by_runs ? s->w->stride_n : s->w->stride_c,
        .columns = fc_min(s->columns, s->out - k0),
        .by_one = s->in * s->out * s->item > MEMORY_BYTES,
        .bias = fc_at(s->bias, k0 * s->bias_step, (size_t)s->item),
        .bias_step = s->bias_step,
        .lower = s->lower,
        .upper = s->upper,
        .y = (char *)s->y->data + k0 * s->item,
        .y_row = s->y->stride_n,
    };
    (by_runs ? s->k->linear->runs : s->k->linear->rows)(&product);
}

/* w[c][k] is cut into few pieces: each is a stretch of every row. */
static void thin(plan *s, int threads, int64_t wanted)
{
    const int64_t panel = 2 * s->k->vector_lanes;
    s->columns = fc_round_up(fc_ceil_div(s->out, s->w->stride_c == 1 ? wanted : threads), panel);
    if (s->w->stride_c != 1)
        s->columns = fc_max(panel, fc_min(s->columns, THIN_BYTES / (s->rows * s->item) / panel * panel));
    fc_parallel(fc_ceil_div(s->out, s->columns), run_thin, s);
}

/* ---- many rows ----------------------------------------------------------------------------------------------------*/
/* `rows` rows of y from r0 on, `count` columns from k0 on, and their sums over channels [c0, c0 + chunk) */
typedef struct {
    int64_t r0, rows, k0, count, c0, chunk;
} piece;

/* Its columns of w: panels [c][column], zero beyond the last column */
static void pack(const plan *s, const piece *b, char *to)
{
    const int64_t lanes = s->k->vector_lanes, chunk = b->chunk;
    for (int64_t k = 0; k < b->count; k += 2 * lanes) {
        const int64_t columns = fc_min(2 * lanes, b->count - k), width = columns > lanes ? 2 * lanes : lanes;
        if (columns < width)
            memset(to, 0, (size_t)(chunk * width * s->item));
        const char *from = element(s->w, b->k0 + k, b->c0, s->item);
        if (s->w->stride_c == 1)
            s->k->pack_runs(columns, chunk, 1, from, s->w->stride_n, to, width);
        else
            s->k->copy_rows(chunk, columns, from, s->w->stride_c, to, width);
        to += chunk * width * s->item;
    }
}

/* += the strip times the packed panels */
static void multiply(const plan *s, const piece *b, const char *strip, const char *packed)
{
    const int64_t lanes = s->k->vector_lanes;
    const fc_epilogue e = {.bias = s->bias, .lower = s->lower, .upper = s->upper};
    for (int64_t k = 0; k < b->count; k += 2 * lanes) {
        const int64_t columns = fc_min(2 * lanes, b->count - k), width = columns > lanes ? 2 * lanes : lanes;
        const fc_gemm tile = {
            .a = strip,
            .a_row = s->strip_row,
            .taps_h = 1,
            .taps_w = 1,
            .length = b->chunk,
            .b = packed,
            .y = (char *)element(s->y, b->r0, b->k0 + k, s->item),
            .y_row = s->y->stride_n,
            .columns = columns,
            .accumulate = b->c0 > 0,
            .finish = b->c0 + b->chunk == s->in && !fc_is_identity(&e),
            .bias = fc_at(s->bias, b->k0 + k, (size_t)s->item),
            .lower = s->lower,
            .upper = s->upper,
        };
        s->k->gemm->rows(&tile, b->rows);
        packed += b->chunk * width * s->item;
    }
}

static void run_block(void *context, int64_t task, int slot)
{
    const plan *s = context;
    piece b = {.r0 = task % s->count_rows * s->block_rows};
    b.rows = fc_min(s->block_rows, s->rows - b.r0);
    const int64_t first = task / s->count_rows * s->columns, last = fc_min(first + s->columns, s->out);
    char *strip = s->threads + slot * s->thread_bytes, *packed = strip + s->strip_bytes;
    for (; b.c0 < s->in; b.c0 += CHUNK) {
        b.chunk = fc_min(CHUNK, s->in - b.c0);
        s->k->copy_rows(b.rows, b.chunk, element(s->x, b.r0, b.c0, s->item), s->x->stride_n, strip, s->strip_row);
        for (b.k0 = first; b.k0 < last; b.k0 += s->group) {
            b.count = fc_min(s->group, last - b.k0);
            pack(s, &b, packed);
            multiply(s, &b, strip, packed);
        }
    }
}

static fc_status blocked(plan *s, int64_t wanted)
{
    const int64_t panel = 2 * s->k->vector_lanes, panels = fc_ceil_div(s->out, panel), tile = s->k->gemm->max_rows;
    const int64_t parts = fc_min(panels, wanted), cuts = fc_max(fc_ceil_div(s->rows, BLOCK_ROWS), wanted / parts);
    s->columns = fc_ceil_div(panels, parts) * panel;
    s->block_rows = fc_max(LEAST_TILES * tile, fc_round_up(fc_ceil_div(s->rows, cuts), tile));
    s->count_rows = fc_ceil_div(s->rows, s->block_rows);
    s->group = s->w->stride_c == 1 ? panel : fc_max(panel, fc_min(s->columns, PIECE_BYTES / s->item));
    /* a pitch that is no multiple of 2 KiB: rows of a tile do not share sets of L1 */
    s->strip_row = CHUNK + 64 / s->item;
    s->strip_bytes = fc_round_up(fc_min(s->block_rows, s->rows) * s->strip_row * s->item, 64);
    s->thread_bytes = s->strip_bytes + fc_round_up(CHUNK * fc_round_up(s->group, panel) * s->item, 64);
    const int64_t tasks = s->count_rows * fc_ceil_div(s->out, s->columns);
    const int slots = fc_parallel_slots(tasks);
    s->threads = fc_scratch_acquire_parts(0, slots, s->thread_bytes);
    if (!s->threads)
        return FC_ENOMEM;
    fc_parallel_in(slots, tasks, run_block, s);
    fc_scratch_release(s->threads);
    return FC_OK;
}

static fc_status run(plan *s)
{
    const int threads = fc_parallel_slots(INT64_MAX);
    const int64_t wanted = fc_parallel_tasks();
    if (s->rows > s->k->linear->max_rows)
        return blocked(s, wanted);
    thin(s, threads, wanted);
    return FC_OK;
}

fc_status fc_linear(fc_dtype dtype, const fc_view *x, const fc_view *w, const void *bias, double lower, double upper,
                    const fc_view *y)
{
    plan s = {
        .k = fc_get_kernels(dtype),
        .item = dtype == FC_F32 ? sizeof(float) : sizeof(double),
        .rows = x->n,
        .in = x->c,
        .out = w->n,
        .x = x,
        .w = w,
        .y = y,
        .bias = bias,
        .bias_step = 1,
        .lower = lower,
        .upper = upper,
    };
    if (s.rows == 0 || s.out == 0)
        return FC_OK;
    if (s.out > 1 || s.rows == 1 || w->stride_c != 1 || y->stride_n != 1)
        return run(&s);
    /* one output: x is the matrix, and the weight the row that it meets */
    const fc_view row = {.data = y->data, .n = 1, .c = s.rows, .stride_n = s.rows, .stride_c = 1};
    s.x = w, s.w = x, s.y = &row;
    s.rows = 1, s.out = x->n;
    s.bias_step = 0;
    return run(&s);
}

/* ---- few rows, a weight of 16 bits --------------------------------------------------------------------------------*/
enum { F16_COLUMNS = 2 * FC_F16_PANEL }; /* of a task: what the kernel reads side by side */

static void run_f16(void *context, int64_t task, int slot)
{
    (void)slot;
    fc_f16_product p = *(const fc_f16_product *)context;
    const int64_t k = task * F16_COLUMNS;
    p.w += k * p.length;
    p.scale += k;
    p.bias = p.bias ? p.bias + k : NULL;
    p.y += k;
    p.columns = fc_min(F16_COLUMNS, p.columns - k);
    fc_get_kernels(FC_F32)->linear->f16(&p);
}

void fc_linear_f16(const fc_view *x, const fc_view *w, const float *scale, const float *bias, double lower,
                   double upper, const fc_view *y)
{
    fc_f16_product product = {
        .x = x->data,
        .x_row = x->stride_n,
        .rows = x->n,
        .length = w->c,
        .w = w->data,
        .columns = w->n,
        .scale = scale,
        .bias = bias,
        .lower = (float)lower,
        .upper = (float)upper,
        .y = y->data,
        .y_row = y->stride_n,
    };
    fc_parallel(fc_ceil_div(w->n, F16_COLUMNS), run_f16, &product);
}
