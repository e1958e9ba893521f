/* conv_chain.c: three convolutions of a plan depth first: a direct or depthwise one, a depthwise one, a 1x1.
 *
 * An inverted residual block expands its input to six times the channels, and reads and writes that twice. Here a task
 * computes some rows of the last output from beginning to end, and what lies between stays in the second-level cache:
 *
 *     for band of rows of y:
 *         rows of the first convolution that the band sees and the band before has not left behind -> wide
 *         depthwise rows from wide -> deep
 *         1x1 of deep -> y
 *
 * Each thread keeps `wide` from one of its bands to the next, so rows are computed twice only where the parts of two
 * threads meet. The drivers that run the rows are those of the whole, and their sums do not depend on where rows are
 * cut: the bits are the same.
 */
#include "../scratch.h"
#include "../threads.h"
#include "conv.h"

#include <stdatomic.h>
#include <string.h>

enum { BANDS_PER_THREAD = 2 };

typedef struct {
    fc_problem first, depthwise, last; /* of whole images; the values between them have no data */
    int64_t rows;                      /* of y in a band, at most */
    int64_t bands;                     /* of an image */
    int64_t wide_row, deep_row;        /* bytes */
    int64_t wide_bytes, deep_bytes, scratch_bytes, thread_bytes;
    char *threads;
    atomic_int status;
} chain;

/* What a thread's `wide` holds: rows [rows.first, rows.end) of image n. */
typedef struct {
    int64_t n;
    fc_range rows;
} held;

enum { HEAD = 64 }; /* bytes of a thread's memory that `held` takes */

/* Rows of x that the outputs [y.first, y.end) see. */
static fc_range rows_seen(const fc_problem *p, fc_range y)
{
    const int64_t top = y.first * p->stride_h - p->pad_top,
                  bottom = (y.end - 1) * p->stride_h - p->pad_top + p->kernel_h;
    return (fc_range){fc_max(0, top), fc_min(p->x.h, bottom)};
}

static int64_t most_rows_seen(const fc_problem *p, int64_t rows)
{
    return fc_min(p->x.h, fc_extent(rows, p->kernel_h, p->stride_h, 1));
}

/* ---- whether, and how ---------------------------------------------------------------------------------------------*/
/* Every row sees one of x: bands have inputs. */
static int rows_see_x(const fc_problem *p)
{
    return p->pad_top < p->kernel_h && (p->y.h - 1) * p->stride_h - p->pad_top < p->x.h && p->dilation_h == 1;
}

static fc_problem problem_of(fc_dtype dtype, const fc_step *s, const fc_view *x, const fc_view *residual,
                             const fc_view *y)
{
    fc_problem p = fc_make_problem(dtype, &s->conv, x, &s->weight, y);
    const fc_epilogue epilogue = {.bias = s->bias, .residual = residual, .lower = s->lower, .upper = s->upper};
    fc_set_epilogue(&p, &epilogue);
    p.band = 1;
    return p;
}

static chain make_chain(fc_dtype dtype, const fc_step *s, const fc_view *x, const fc_view *residual, const fc_view *y)
{
    chain c = {.first = problem_of(dtype, &s[0], x, NULL, &s[0].y.view),
               .depthwise = problem_of(dtype, &s[1], &s[1].x.view, NULL, &s[1].y.view),
               .last = problem_of(dtype, &s[2], &s[2].x.view, residual, y)};
    const int64_t item = (int64_t)c.first.item;
    c.wide_row = c.depthwise.x.w * c.depthwise.x.c * item;
    c.deep_row = c.last.x.w * c.last.x.c * item;
    return c;
}

static int64_t band_bytes(const chain *c, int64_t rows)
{
    return most_rows_seen(&c->depthwise, rows) * c->wide_row + rows * c->deep_row;
}

/* Of the driver that runs so many rows of y. */
static int64_t scratch_of_rows(const fc_problem *whole, int64_t rows)
{
    fc_problem p = *whole;
    p.x.n = p.y.n = 1;
    p.y.h = rows;
    p.x.h = most_rows_seen(whole, rows);
    const int depthwise = fc_is_depthwise(&p);
    if (!depthwise)
        fc_unroll_rows(&p);
    const fc_need n = depthwise ? fc_conv_depthwise_scratch(&p) : fc_conv_direct_scratch(&p);
    return n.shared + n.each;
}

static int64_t scratch_of_band(const chain *c)
{
    return fc_max(scratch_of_rows(&c->first, most_rows_seen(&c->depthwise, c->rows)),
                  fc_max(scratch_of_rows(&c->depthwise, c->rows), scratch_of_rows(&c->last, c->rows)));
}

/* Rows of y whose band stays in half of the cache, at least one. */
static int64_t rows_in_cache(const chain *c)
{
    int64_t rows = 1;
    while (rows < c->last.y.h && band_bytes(c, rows + 1) <= fc_l2_bytes() / 2)
        rows++;
    return rows;
}

/* As many bands for each thread. */
static void choose_bands(chain *c)
{
    const fc_view *y = &c->last.y;
    const int64_t threads = fc_parallel_slots(INT64_MAX);
    c->bands = fc_ceil_div(y->h, rows_in_cache(c));
    if (threads > 1)
        c->bands = fc_max(c->bands, fc_ceil_div(threads * BANDS_PER_THREAD, y->n));
    if (y->n % threads)
        c->bands = fc_round_up(c->bands, threads);
    c->bands = fc_min(c->bands, y->h);
    c->rows = fc_ceil_div(y->h, c->bands);
    c->wide_bytes = fc_round_up(most_rows_seen(&c->depthwise, c->rows) * c->wide_row, 64);
    c->deep_bytes = fc_round_up(c->rows * c->deep_row, 64);
    fc_work_alone(1);
    c->scratch_bytes = fc_round_up(scratch_of_band(c), 64);
    fc_work_alone(0);
    c->thread_bytes = HEAD + c->wide_bytes + c->deep_bytes + c->scratch_bytes;
}

/* Rows of `wide` that two bands share. */
static int64_t shared_rows(const fc_step *depthwise)
{
    return fc_max(0, depthwise->weight.h - depthwise->conv.stride_h);
}

/* Long rows: a band does not stay in the cache, or it moves more rows of the last one than it makes (24 -> 144 -> 24
 * channels at 56x56, bands of one row: 1.1 times as slow as step by step). */
static int bands_are_too_low(const chain *c, const fc_step *depthwise)
{
    const int64_t rows = rows_in_cache(c);
    return band_bytes(c, rows) > fc_l2_bytes() ||
           (rows < c->last.y.h && rows * c->depthwise.stride_h < shared_rows(depthwise));
}

int fc_chain_serves(fc_dtype dtype, const fc_step *s)
{
    const chain c = make_chain(dtype, s, &s[0].x.view, NULL, &s[2].y.view);
    const fc_problem *last = &c.last;
    if (!fc_runs_by_rows(&c.first) || !rows_see_x(&c.first) || !fc_is_depthwise(&c.depthwise) ||
        !fc_runs_by_rows(&c.depthwise) || !rows_see_x(&c.depthwise) || !fc_runs_by_rows(last) ||
        last->kernel_h * last->kernel_w * last->stride_h * last->stride_w != 1 || !fc_sees_no_padding(last) ||
        bands_are_too_low(&c, &s[1]))
        return 0;
    return c.depthwise.x.n * c.depthwise.x.h * c.wide_row > fc_l2_bytes() / 2 ? 2 : 1;
}

/* Rows of the first convolution that the busiest of some threads computes, which share out those of an image of y. */
static int64_t busiest_rows(const fc_step *depthwise, int64_t threads)
{
    const fc_problem p = {.x = depthwise->x.view,
                          .kernel_h = depthwise->weight.h,
                          .stride_h = depthwise->conv.stride_h,
                          .pad_top = depthwise->conv.pad_top};
    int64_t most = 0;
    for (int64_t t = 0, h = depthwise->y.view.h; t < threads; t++) {
        const fc_range y = {t * h / threads, (t + 1) * h / threads};
        if (y.first < y.end) {
            const fc_range seen = rows_seen(&p, y);
            most = fc_max(most, seen.end - seen.first);
        }
    }
    return most;
}

/* A fifth more rows than an even share, computed twice or shared out unevenly: of two threads each computes 8 of 14,
 * which takes 0.91 of the time of step by step, or 5 of 7, 1.07 (Emerald Rapids); with stride 2 one computes 9 of 14,
 * 1.09 (Zen 4). */
enum { MORE_ROWS = 5 };

int fc_chain_pays(const fc_step *s, int64_t images)
{
    const int64_t threads = fc_parallel_slots(INT64_MAX), rest = images % threads, h = s[1].x.view.h;
    const int64_t rows = images / threads * h + (rest ? busiest_rows(&s[1], fc_ceil_div(threads, rest)) : 0);
    return s[0].y.place == FC_NOWHERE || rows * threads * MORE_ROWS <= images * h * (MORE_ROWS + 1);
}

/* ---- rows ---------------------------------------------------------------------------------------------------------*/
static fc_view rows_of(const fc_view *v, size_t item, int64_t n, fc_range rows)
{
    fc_view part = *v;
    part.n = 1;
    part.h = rows.end - rows.first;
    if (v->data)
        part.data = (char *)v->data + (n * v->stride_n + rows.first * v->stride_h) * (int64_t)item;
    return part;
}

/* Rows of y from rows of x. */
static fc_status run_rows(const fc_problem *whole, const fc_view *x, int64_t x_first, const fc_view *y, fc_range rows,
                          int64_t n)
{
    fc_problem p = *whole;
    p.x = *x;
    p.y = *y;
    p.batch = 1;
    p.warm = 1;
    p.pad_top = whole->pad_top - rows.first * whole->stride_h + x_first;
    if (whole->residual.data)
        p.residual = rows_of(&whole->residual, whole->item, n, rows);
    if (fc_is_depthwise(&p))
        return fc_conv_depthwise(&p);
    fc_unroll_rows(&p);
    return fc_conv_direct(&p);
}

static fc_view buffer(const fc_view *like, void *data, int64_t rows)
{
    return (fc_view){.data = data,
                     .n = 1,
                     .c = like->c,
                     .h = rows,
                     .w = like->w,
                     .stride_c = 1,
                     .stride_w = like->c,
                     .stride_h = like->w * like->c,
                     .stride_n = rows * like->w * like->c};
}

/* Makes `wide` hold rows `wanted` of image n. */
static fc_status fill(const chain *c, int64_t n, fc_range wanted, held *h, char *wide)
{
    const fc_problem *p = &c->first;
    fc_range fresh = wanted;
    if (h->n == n && h->rows.first <= wanted.first && wanted.first < h->rows.end) {
        fresh.first = fc_min(h->rows.end, wanted.end);
        memmove(wide, wide + (wanted.first - h->rows.first) * c->wide_row,
                (size_t)((fresh.first - wanted.first) * c->wide_row));
    }
    *h = (held){n, wanted};
    if (fresh.first == fresh.end)
        return FC_OK;
    const fc_range seen = rows_seen(p, fresh);
    const fc_view x = rows_of(&p->x, p->item, n, seen);
    const fc_view y = buffer(&p->y, wide + (fresh.first - wanted.first) * c->wide_row, fresh.end - fresh.first);
    return run_rows(p, &x, seen.first, &y, fresh, n);
}

static void run_band(void *context, int64_t task, int slot)
{
    chain *c = context;
    char *memory = c->threads + slot * c->thread_bytes, *wide = memory + HEAD, *deep = wide + c->wide_bytes;
    const int64_t n = task / c->bands, band = task % c->bands, h = c->last.y.h;
    const fc_range rows = {band * h / c->bands, (band + 1) * h / c->bands};
    const fc_range seen = rows_seen(&c->depthwise, rows);
    const fc_view x = buffer(&c->depthwise.x, wide, seen.end - seen.first);
    const fc_view between = buffer(&c->depthwise.y, deep, rows.end - rows.first);
    const fc_view y = rows_of(&c->last.y, c->last.item, n, rows);
    fc_work_alone(1);
    const fc_lent before = fc_scratch_lend((fc_lent){deep + c->deep_bytes, (size_t)c->scratch_bytes, 0});
    fc_status status = fill(c, n, seen, (held *)memory, wide);
    if (status == FC_OK)
        status = run_rows(&c->depthwise, &x, seen.first, &between, rows, n);
    if (status == FC_OK)
        status = run_rows(&c->last, &between, rows.first, &y, rows, n);
    fc_scratch_lend(before);
    fc_work_alone(0);
    if (status != FC_OK)
        atomic_store(&c->status, (int)status);
}

fc_status fc_run_chain(fc_dtype dtype, const fc_step *s, const fc_view *x, const fc_view *other, const fc_view *y)
{
    chain c = make_chain(dtype, s, x, other, y);
    c.depthwise.packed = s[1].conv.prepared;
    fc_use_packed(&c.first, s[0].conv.prepared);
    fc_use_packed(&c.last, s[2].conv.prepared);
    choose_bands(&c);
    const int64_t tasks = c.bands * y->n;
    const int slots = fc_parallel_slots(tasks);
    c.threads = fc_scratch_acquire_parts(0, slots, c.thread_bytes);
    if (!c.threads)
        return FC_ENOMEM;
    for (int slot = 0; slot < slots; slot++)
        *(held *)(c.threads + slot * c.thread_bytes) = (held){.n = -1};
    fc_parallel_in(slots, tasks, run_band, &c);
    fc_scratch_release(c.threads);
    return (fc_status)atomic_load(&c.status);
}
