/* conv_phases.c: convolutions of stride s as convolutions of stride 1 on the phases of the image, which Winograd
 * serves.
 *
 *     phases[n][t][q][a][b][c] = x[n][s_h * t + a][s_w * q + b][c]
 *
 * has s_h * s_w * C channels (a, b, c). Tap u of the kernel is tap t of phase a, with u - pad = s * (first + t) + a: 7
 * taps of stride 2 are 4 taps of 2 phases, the eighth being zero. So 3 to 64 channels, 7x7, takes 36 * 12
 * multiplications per 9 outputs instead of 9 * 147. Phases are made a stretch of rows (or of images) at a time.
 *
 * The taps that are no taps multiply x by zero: images with NaN or infinity in them run otherwise.
 */
#include "../scratch.h"
#include "../threads.h"
#include "winograd_tiles.h"

#include <stdatomic.h>
#include <string.h>

enum {
    STRETCH_BYTES = 2 << 20, /* of phases: they come from a third-level cache, beside all else that passes there */
};

/* ---- geometry -----------------------------------------------------------------------------------------------------*/
typedef struct {
    int64_t stride, pad, kernel; /* of the problem */
    int64_t first, taps, size; /* of its phases: first may be negative */
} axis;

static int64_t floor_div(int64_t a, int64_t b) { return a < 0 ? -fc_ceil_div(-a, b) : a / b; }

static axis axis_of(int64_t stride, int64_t pad, int64_t kernel, int64_t size)
{
    axis x = {stride, pad, kernel, floor_div(-pad, stride), 0, fc_ceil_div(size, stride)};
    x.taps = floor_div(kernel - 1 - pad, stride) - x.first + 1;
    return x;
}

typedef struct {
    const fc_problem *p;
    fc_problem q; /* of stride 1, on a stretch */
    axis h, w;
    int64_t channels; /* of x: C */
    int gradient; /* of the input: y are the phases */
    int64_t images, rows; /* of a stretch, rows of outputs of q */
    int64_t n, row; /* the current one, and the first row of phases in it */
    fc_shared_scratch scratch; /* of all, with what is lent to a stretch */
    char *phases;
    int64_t phases_bytes, weight_bytes, flag_bytes;
    atomic_char *spoilt; /* of the current images: whether NaN or infinity is in their phases */
} plan;

/* x is what has phases: p->x, for the gradient of the input p->y. */
static plan make_plan(const fc_problem *p, int gradient)
{
    const fc_view *x = gradient ? &p->y : &p->x;
    plan s = {.p = p, .q = *p, .gradient = gradient, .channels = gradient ? p->out_channels : p->in_channels};
    s.h = axis_of(p->stride_h, p->pad_top, p->kernel_h, x->h);
    s.w = axis_of(p->stride_w, p->pad_left, p->kernel_w, x->w);
    fc_problem *q = &s.q;
    const int64_t item = (int64_t)p->item, channels = p->stride_h * p->stride_w * s.channels,
                  taps = s.h.taps * s.w.taps;
    q->kernel_h = s.h.taps, q->kernel_w = s.w.taps;
    q->stride_h = q->stride_w = q->dilation_h = q->dilation_w = 1;
    q->packed = NULL;
    /* weight[k][a][b][c][t][t'] */
    const int64_t others = gradient ? p->in_channels : p->out_channels;
    s.weight_bytes = fc_round_up(others * channels * taps * item, 64);
    q->weight_u = s.w.taps, q->weight_v = 1;
    q->weight_c = taps, q->weight_k = channels * taps;
    if (gradient) { /* flipped: y[i] = sum_v w[taps - 1 - v] * x[i + v - pad] */
        fc_swap(&q->weight_c, &q->weight_k);
        q->weight_u *= -1, q->weight_v *= -1;
        q->out_channels = channels;
        q->pad_top = s.h.taps - 1 + s.h.first, q->pad_left = s.w.taps - 1 + s.w.first;
        q->y.h = s.h.size, q->y.w = s.w.size;
    } else {
        q->in_channels = channels;
        q->pad_top = -s.h.first, q->pad_left = -s.w.first;
        q->x.h = s.h.size, q->x.w = s.w.size;
    }
    return s;
}

/* Stretches are whole rows of Winograd tiles. They depend on the shape of one image only, as the short tiles at their
 * ends do. */
static void cut(plan *s)
{
    const fc_problem *q = &s->q;
    const int64_t more = s->gradient ? 0 : s->h.taps - 1; /* rows of phases beside one for each row of outputs */
    const int64_t row = s->p->stride_h * s->p->stride_w * s->channels * s->w.size * (int64_t)s->p->item,
                  tile = fc_make_tiles(q).out_h;
    s->rows = fc_max(tile, (STRETCH_BYTES / row - more) / tile * tile);
    s->images = 1;
    if (s->rows >= q->y.h) {
        s->rows = q->y.h;
        s->images = fc_max(1, fc_min(q->y.n, STRETCH_BYTES / (row * (s->rows + more))));
    }
    s->phases_bytes = fc_round_up(s->images * row * (s->rows + more), 64);
    s->flag_bytes = fc_round_up(s->images, 64);
}

/* The problem whose products Winograd would form, without data. */
fc_problem fc_phases_problem(const fc_problem *p, int gradient) { return make_plan(p, gradient).q; }

int fc_conv_phases_serves(const fc_problem *p, int gradient)
{
    if (p->algorithm != FC_AUTO || p->stride_h * p->stride_w == 1 || p->dilation_h * p->dilation_w != 1 ||
        p->groups > 1)
        return 0;
    const fc_problem q = fc_phases_problem(p, gradient);
    return fc_conv_winograd_serves(&q) && fc_max(q.kernel_h, q.kernel_w) > 2 && q.in_channels >= 8 &&
           q.out_channels >= 8;
}

/* ---- weights ------------------------------------------------------------------------------------------------------*/
typedef struct {
    const plan *s;
    char *to;
} weight_job;

/* Calls F(weight of the problem, weight of the phases) for those of channel k that both have. */
#define EACH_TAP(F, type)                                                                                              \
    for (int64_t a = 0; a < h->stride; a++)                                                                            \
        for (int64_t b = 0; b < w->stride; b++)                                                                        \
            for (int64_t c = 0; c < s->channels; c++)                                                                  \
                for (int64_t t = 0; t < h->taps; t++)                                                                  \
                    for (int64_t r = 0; r < w->taps; r++, to++) {                                                      \
                        const int64_t u = h->stride * (h->first + t) + a + h->pad,                                     \
                                      v = w->stride * (w->first + r) + b + w->pad;                                     \
                        const int inside = u >= 0 && u < h->kernel && v >= 0 && v < w->kernel;                         \
                        type *from = (type *)p->weight + k * k_step + c * c_step + u * p->weight_u + v * p->weight_v;  \
                        F;                                                                                             \
                    }

static void spread_weights(void *context, int64_t k, int slot)
{
    (void)slot;
    const weight_job *j = context;
    const plan *s = j->s;
    const fc_problem *p = s->p;
    const axis *h = &s->h, *w = &s->w;
    const int64_t k_step = s->gradient ? p->weight_c : p->weight_k, c_step = s->gradient ? p->weight_k : p->weight_c;
    const int64_t at = k * h->stride * w->stride * s->channels * h->taps * w->taps;
    if (p->item == 4) {
        uint32_t *to = (uint32_t *)j->to + at;
        EACH_TAP(*to = inside ? *from : 0, uint32_t)
    } else {
        uint64_t *to = (uint64_t *)j->to + at;
        EACH_TAP(*to = inside ? *from : 0, uint64_t)
    }
}

static void gather_weights(void *context, int64_t k, int slot)
{
    (void)slot;
    const weight_job *j = context;
    const plan *s = j->s;
    const fc_problem *p = s->p;
    const axis *h = &s->h, *w = &s->w;
    const int64_t k_step = p->weight_k, c_step = p->weight_c;
    const int64_t at = k * h->stride * w->stride * s->channels * h->taps * w->taps;
    if (p->item == 4) {
        const uint32_t *to = (const uint32_t *)j->to + at;
        EACH_TAP(if (inside) *from = *to, uint32_t)
    } else {
        const uint64_t *to = (const uint64_t *)j->to + at;
        EACH_TAP(if (inside) *from = *to, uint64_t)
    }
}

static void set_weight(plan *s, const char *weight)
{
    const int64_t taps = s->h.taps * s->w.taps;
    s->q.weight = weight + (s->gradient ? taps - 1 : 0) * (int64_t)s->p->item;
}

int64_t fc_packed_phases(const fc_problem *p) { return make_plan(p, 0).weight_bytes / (int64_t)p->item; }

fc_status fc_pack_phases(const fc_problem *p, char *to)
{
    const plan s = make_plan(p, 0);
    weight_job job = {&s, to};
    fc_parallel(p->out_channels, spread_weights, &job);
    return FC_OK;
}

/* ---- phases -------------------------------------------------------------------------------------------------------*/
/* The row of x of phase a that is row `row` of the phases, and its part in them. Pixels that follow each other without
 * gaps are read stride_w at once. */
typedef struct {
    fc_image x;
    fc_window window;
    fc_pitch pitch;
    int64_t parts, part; /* phases b, and elements between them */
} phase_row;

static phase_row phase_row_at(const plan *s, const fc_view *x, int64_t n, int64_t row, int64_t a)
{
    const int64_t all = s->w.stride * s->channels;
    phase_row r = {.x = fc_image_of(x, s->p->item, n, 0, s->channels),
                   .window = {s->h.stride * row + a, 1, 1, 0, s->w.size, s->w.stride},
                   .pitch = {0, s->h.stride * all, 1},
                   .parts = s->w.stride,
                   .part = s->channels};
    if (x->stride_c == 1 && x->stride_w == s->channels && x->w % s->w.stride == 0) {
        r.x.c = r.x.stride_w = all;
        r.x.w /= s->w.stride;
        r.window.column_step = r.parts = 1;
    }
    return r;
}

static char *phases_at(const plan *s, int64_t a, int64_t b, int64_t part, int64_t first)
{
    return s->phases + (first + a * s->w.stride * s->channels + b * part) * (int64_t)s->p->item;
}

static void look(plan *s, int64_t n, int64_t first, int64_t elements)
{
    if (!s->p->k->finite(elements, s->phases + first * (int64_t)s->p->item))
        atomic_store_explicit(&s->spoilt[n], 1, memory_order_relaxed);
}

/* One row of the phases of an image. */
static void split_row(void *context, int64_t task, int slot)
{
    (void)slot;
    plan *s = context;
    const fc_view *to = &s->q.x;
    const int64_t n = task / to->h, row = task % to->h, first = n * to->stride_n + row * to->stride_h;
    for (int64_t a = 0; a < s->h.stride; a++) {
        phase_row r = phase_row_at(s, &s->p->x, s->n + n, s->row + row, a);
        for (int64_t b = 0; b < r.parts; b++, r.window.left++)
            fc_load_window(s->p->k, s->p->item, &r.x, &r.window, phases_at(s, a, b, r.part, first), &r.pitch);
    }
    look(s, n, first, to->stride_h);
}

static void join_row(void *context, int64_t task, int slot)
{
    (void)slot;
    plan *s = context;
    const fc_view *from = &s->q.y;
    const int64_t n = task / from->h, row = task % from->h, first = n * from->stride_n + row * from->stride_h;
    look(s, n, first, from->stride_h);
    for (int64_t a = 0; a < s->h.stride && s->h.stride * (s->row + row) + a < s->p->y.h; a++) {
        phase_row r = phase_row_at(s, &s->p->y, s->n + n, s->row + row, a);
        for (int64_t b = 0; b < r.parts; b++, r.window.left++) {
            r.window.columns = fc_ceil_div(r.x.w - r.window.left, r.window.column_step);
            fc_store_window(s->p->k, s->p->item, &r.x, &r.window, phases_at(s, a, b, r.part, first), &r.pitch);
        }
    }
}

static fc_view dense(const plan *s, int64_t images, int64_t rows)
{
    fc_view v = {.data = s->phases, .n = images, .h = rows, .w = s->w.size, .stride_c = 1};
    v.c = v.stride_w = s->h.stride * s->w.stride * s->channels;
    v.stride_h = v.w * v.stride_w;
    v.stride_n = v.h * v.stride_h;
    return v;
}

static void move(fc_view *v, size_t item, int64_t images, int64_t rows)
{
    if (v->data)
        v->data = (char *)v->data + (images * v->stride_n + rows * v->stride_h) * (int64_t)item;
}

/* Images n .. and rows i .. of the outputs of q, and what they see. */
static void set_stretch(plan *s, int64_t n, int64_t i)
{
    const fc_problem *p = s->p;
    const plan whole = make_plan(p, s->gradient);
    const fc_problem *all = &whole.q;
    fc_problem *q = &s->q;
    const int64_t images = fc_min(s->images, p->y.n - n), rows = fc_min(s->rows, all->y.h - i);
    s->n = n;
    s->row = s->gradient ? i : i - all->pad_top;
    q->x = p->x, q->y = p->y, q->residual = p->residual;
    q->x.n = q->y.n = images;
    if (s->gradient) {
        q->y = dense(s, images, rows);
        q->pad_top = all->pad_top - i;
        move(&q->x, p->item, n, 0);
    } else {
        q->x = dense(s, images, rows + s->h.taps - 1);
        q->pad_top = 0;
        q->y.h = rows;
        move(&q->y, p->item, n, i);
        move(&q->residual, p->item, n, i);
    }
}

static int64_t row_tasks(const fc_view *v) { return v->n * v->h; }

/* ---- forward ------------------------------------------------------------------------------------------------------*/
/* The images of a stretch that hold NaN or infinity, as the problem came. */
static fc_status repair(const plan *s, fc_guarded *run, const void *context)
{
    const fc_problem stretch = fc_images(s->p, s->n, s->q.y.n);
    return s->p->weight ? fc_run_spoilt(&stretch, s->spoilt, run, context) : FC_OK;
}

/* What fc_conv_winograd takes for a stretch, the last ones of rows and images included. */
static int64_t stretch_scratch(const plan *s)
{
    const int64_t images = s->p->y.n, rows = s->gradient ? s->h.size : s->p->y.h;
    const int64_t last_n = (images - 1) / s->images * s->images, last_row = (rows - 1) / s->rows * s->rows;
    plan t = *s;
    int64_t most = 0;
    for (int64_t n = 0; n <= last_n; n += fc_max(1, last_n))
        for (int64_t row = 0; row <= last_row; row += fc_max(1, last_row)) {
            set_stretch(&t, n, row);
            most = fc_max(most, fc_need_bytes(fc_conv_winograd_scratch(&t.q)));
        }
    return most;
}

/* Memory for the stretches, `others` bytes of which are those of the calls for them, and `more` bytes, which it
 * returns, or NULL. */
static char *acquire(plan *s, int64_t others, int64_t more)
{
    s->scratch = fc_scratch_share(s->phases_bytes + s->flag_bytes + more, others);
    if (!s->scratch.own)
        return NULL;
    s->phases = s->scratch.own;
    s->spoilt = (atomic_char *)(s->phases + s->phases_bytes);
    return s->phases + s->phases_bytes + s->flag_bytes;
}

fc_status fc_conv_phases(const fc_problem *p)
{
    plan s = make_plan(p, 0);
    cut(&s);
    char *weight = acquire(&s, stretch_scratch(&s), p->packed ? 0 : s.weight_bytes);
    if (!weight)
        return FC_ENOMEM;
    if (!p->packed)
        fc_pack_phases(p, weight);
    set_weight(&s, p->packed ? p->packed : weight);
    fc_status status = FC_OK;
    for (int64_t n = 0; n < p->y.n && status == FC_OK; n += s.images) {
        memset(s.spoilt, 0, (size_t)s.images);
        for (int64_t i = 0; i < p->y.h && status == FC_OK; i += s.rows) {
            set_stretch(&s, n, i);
            fc_parallel(row_tasks(&s.q.x), split_row, &s);
            status = fc_conv_winograd(&s.q);
        }
        if (status == FC_OK)
            status = repair(&s, fc_direct_by_regions, NULL);
    }
    fc_scratch_unshare(s.scratch);
    return status;
}

fc_need fc_conv_phases_scratch(const fc_problem *p)
{
    plan s = make_plan(p, 0);
    cut(&s);
    return (fc_need){s.phases_bytes + s.flag_bytes + (p->packed ? 0 : s.weight_bytes) + stretch_scratch(&s), 0};
}

/* ---- gradient of the input ----------------------------------------------------------------------------------------*/
/* to[a][b][c] = from[c] */
static const void *spread(const plan *s, const void *from, char *to)
{
    const int64_t item = (int64_t)s->p->item;
    for (int64_t i = 0; i < s->h.stride * s->w.stride && from; i++)
        memcpy(to + i * s->channels * item, from, (size_t)(s->channels * item));
    return from ? to : NULL;
}

fc_status fc_conv_phases_grad_input(const fc_problem *p, fc_guarded *otherwise, const void *context)
{
    plan s = make_plan(p, 1);
    cut(&s);
    const int64_t channels = fc_round_up(s.q.out_channels * (int64_t)p->item, 64);
    char *weight = acquire(&s, stretch_scratch(&s), s.weight_bytes + 2 * channels), *epilogue = weight + s.weight_bytes;
    if (!weight)
        return FC_ENOMEM;
    weight_job job = {&s, weight};
    fc_parallel(p->in_channels, spread_weights, &job);
    set_weight(&s, weight);
    s.q.epilogue.scale = spread(&s, p->epilogue.scale, epilogue);
    s.q.epilogue.bias = spread(&s, p->epilogue.bias, epilogue + channels);
    fc_status status = FC_OK;
    for (int64_t n = 0; n < p->y.n && status == FC_OK; n += s.images) {
        memset(s.spoilt, 0, (size_t)s.images);
        for (int64_t i = 0; i < s.h.size && status == FC_OK; i += s.rows) {
            set_stretch(&s, n, i);
            status = fc_conv_winograd(&s.q);
            if (status == FC_OK)
                fc_parallel(row_tasks(&s.q.y), join_row, &s);
        }
        if (status == FC_OK)
            status = repair(&s, otherwise, context);
    }
    fc_scratch_unshare(s.scratch);
    return status;
}

/* ---- gradient of the weight ---------------------------------------------------------------------------------------*/
#define ADD(type)                                                                                                      \
    for (int64_t i = 0; i < count; i++)                                                                                \
        ((type *)sum)[i] += ((const type *)part)[i];

fc_status fc_conv_phases_grad_weight(const fc_problem *p)
{
    plan s = make_plan(p, 0);
    cut(&s);
    char *sum = acquire(&s, 0, 2 * s.weight_bytes), *part = sum + s.weight_bytes;
    if (!sum)
        return FC_ENOMEM;
    const int64_t count = p->out_channels * s.q.weight_k;
    fc_status status = FC_OK;
    for (int64_t n = 0; n < p->y.n; n += s.images)
        for (int64_t i = 0; i < p->y.h && status == FC_OK; i += s.rows) {
            set_stretch(&s, n, i);
            const int first = n == 0 && i == 0;
            set_weight(&s, first ? sum : part);
            fc_parallel(row_tasks(&s.q.x), split_row, &s);
            status = fc_conv_winograd_grad_weight(&s.q);
            if (first)
                continue;
            if (p->item == 4) {
                ADD(float)
            } else {
                ADD(double)
            }
        }
    weight_job job = {&s, sum};
    if (status == FC_OK)
        fc_parallel(p->out_channels, gather_weights, &job);
    fc_scratch_unshare(s.scratch);
    return status;
}
