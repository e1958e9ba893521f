/* conv_nonfinite.c: convolution where NaN and infinities reach only the results that depend on them.
 *
 * The drivers multiply padding, which is zero, by the weight, and Winograd adds up neighbours: with a weight of NaN or
 * infinity both put NaN where none belongs. Such weights are found by looking at the weight or at the outputs of each
 * image, whichever is smaller, and images run (again) on regions of outputs that see no padding, as those do that hold
 * NaN or infinity themselves. Finite data pay for the look alone.
 *
 * By then outputs may be written, so it must not fail: where there is no memory for it, a thread's stack will do.
 */
#include "../threads.h"
#include "conv.h"

#include <stdlib.h>
#include <string.h>

/* ---- the look -----------------------------------------------------------------------------------------------------*/
typedef struct {
    int64_t size, stride;
} axis;

static int is_finite(const fc_kernels *k, size_t item, const char *data, const axis *a, int axes)
{
    if (axes == 0 || (axes == 1 && a->stride == 1))
        return k->finite(axes ? a->size : 1, data);
    for (int64_t i = 0; i < a->size; i++)
        if (!is_finite(k, item, data + i * a->stride * (int64_t)item, a + 1, axes - 1))
            return 0;
    return 1;
}

int fc_is_finite(const fc_kernels *k, size_t item, const fc_view *v)
{
    const axis all[4] = {{v->n, v->stride_n}, {v->c, v->stride_c}, {v->h, v->stride_h}, {v->w, v->stride_w}};
    axis a[4];
    int axes = 0;
    for (int i = 0; i < 4; i++) { /* the longest strides first */
        if (all[i].size == 0)
            return 1;
        if (all[i].size == 1 || all[i].stride == 0)
            continue;
        int at = axes++;
        for (; at > 0 && llabs(a[at - 1].stride) < llabs(all[i].stride); at--)
            a[at] = a[at - 1];
        a[at] = all[i];
    }
    while (axes > 1 && a[axes - 2].stride == a[axes - 1].size * a[axes - 1].stride) { /* without gaps */
        a[axes - 2] = (axis){a[axes - 2].size * a[axes - 1].size, a[axes - 1].stride};
        axes--;
    }
    return is_finite(k, item, v->data, a, axes);
}

static int is_spoilt(const fc_problem *p, const atomic_char *spoilt, int64_t n)
{
    const fc_view y = fc_images(p, n, 1).y;
    return spoilt ? atomic_load_explicit(&spoilt[n], memory_order_relaxed) : !fc_is_finite(p->k, p->item, &y);
}

fc_status fc_run_spoilt(const fc_problem *p, const atomic_char *spoilt, fc_guarded *run, const void *context)
{
    fc_status status = FC_OK;
    for (int64_t n = 0, end; n < p->y.n && status == FC_OK; n = end + 1) {
        for (end = n; end < p->y.n && is_spoilt(p, spoilt, end); end++)
            ;
        fc_problem images = fc_images(p, n, end - n);
        images.nonfinite = 1;
        if (end > n)
            status = run(&images, context);
    }
    return status;
}

fc_status fc_guard(fc_problem *p, const fc_view *weight, fc_guarded *run, const void *context)
{
    /* of one image: the choice must not depend on the batch */
    if (fc_elements(weight) <= p->y.c * p->y.h * p->y.w) {
        p->nonfinite = !fc_is_finite(p->k, p->item, weight);
        return run(p, context);
    }
    /* with finite weights the bits are those of the way below, without its look at a larger y */
    if (fc_elements(weight) <= fc_elements(&p->y) && fc_is_finite(p->k, p->item, weight))
        return run(p, context);
    const fc_problem whole = *p; /* running it lays it out */
    const fc_status status = run(p, context);
    if (status != FC_OK || fc_is_finite(p->k, p->item, &whole.y) || fc_is_finite(p->k, p->item, weight))
        return status;
    return fc_run_spoilt(&whole, NULL, run, context);
}

/* ---- without memory: a tap at a time, over the outputs that see it ------------------------------------------------*/
enum { TILE_OUTPUTS = 32, TILE_CHANNELS = 64, VECTOR_BYTES = 64 };

/* Some outputs of a row, a vector of their channels, and what a tap adds to them: 22 KiB of stack. */
typedef struct {
    _Alignas(VECTOR_BYTES) char sum[TILE_OUTPUTS * VECTOR_BYTES];
    char weight[TILE_CHANNELS * VECTOR_BYTES], x[TILE_OUTPUTS * TILE_CHANNELS * sizeof(double)];
} tile;

typedef struct {
    const fc_problem *p;
    int64_t chunk, vectors;
} job;

typedef struct {
    int64_t n, group, k, channels, h, w, outputs;
} place;

/* Channels [c, c + channels) of tap (u, v). */
static void add_tap(const fc_problem *p, const place *b, int64_t u, int64_t v, int64_t c, int64_t channels, tile *t)
{
    const int64_t item = (int64_t)p->item, lanes = p->k->vector_lanes;
    const fc_range seeing = fc_seeing_outputs(v, p->y.w, p->stride_w, p->dilation_w, p->pad_left, p->x.w);
    const int64_t first = fc_max(seeing.first, b->w), outputs = fc_min(seeing.end, b->w + b->outputs) - first;
    if (outputs <= 0)
        return;
    const int64_t h = b->h * p->stride_h + u * p->dilation_h - p->pad_top,
                  w = first * p->stride_w + v * p->dilation_w - p->pad_left;
    const fc_image x = fc_image_of(&p->x, p->item, b->n, b->group * p->in_channels + c, channels);
    fc_load_window(p->k, p->item, &x, &(fc_window){h, 1, 1, w, outputs, p->stride_w}, t->x,
                   &(fc_pitch){0, TILE_CHANNELS, 1});
    const int64_t at =
        b->group * p->weight_g + b->k * p->weight_k + c * p->weight_c + u * p->weight_u + v * p->weight_v;
    const fc_image weight = {.data = (char *)(uintptr_t)p->weight + at * item,
                             .h = 1,
                             .w = channels,
                             .c = b->channels,
                             .stride_w = p->weight_c,
                             .stride_c = p->weight_k};
    fc_load_window(p->k, p->item, &weight, &(fc_window){0, 1, 1, 0, channels, 1}, t->weight, &(fc_pitch){0, lanes, 1});
    const fc_gemm product = {
        .a = t->x,
        .a_row = TILE_CHANNELS,
        .taps_h = 1,
        .taps_w = 1,
        .length = channels,
        .b = t->weight,
        .y = t->sum + (first - b->w) * VECTOR_BYTES,
        .y_row = VECTOR_BYTES / item,
        .columns = b->channels,
        .accumulate = 1,
    };
    p->k->gemm->rows(&product, outputs);
}

/* The epilogue, with a product that adds zero. */
static void finish(const fc_problem *p, const place *b, tile *t)
{
    static const _Alignas(VECTOR_BYTES) char zero[VECTOR_BYTES];
    const int64_t channel = b->group * p->out_channels + b->k;
    const fc_gemm product = {
        .a = zero,
        .taps_h = 1,
        .taps_w = 1,
        .length = 1,
        .b = zero,
        .y = t->sum,
        .y_row = VECTOR_BYTES / (int64_t)p->item,
        .columns = b->channels,
        .accumulate = 1,
        .finish = 1,
        .scale = fc_at(p->epilogue.scale, channel, p->item),
        .bias = fc_at(p->epilogue.bias, channel, p->item),
        .residual = fc_residual_at(p, b->n, channel, b->h, b->w),
        .residual_row = p->residual.stride_w,
        .lower = p->epilogue.lower,
        .upper = p->epilogue.upper,
    };
    if (fc_has_epilogue(p))
        p->k->gemm->rows(&product, b->outputs);
}

static void run_tile(const job *j, const place *b)
{
    const fc_problem *p = j->p;
    const fc_range u = fc_taps_of_row(p, b->h);
    tile t;
    memset(&t, 0, sizeof t);
    for (int64_t c0 = 0; c0 < p->in_channels; c0 += j->chunk) {
        const int64_t end = fc_min(p->in_channels, c0 + j->chunk);
        for (int64_t tap = u.first * p->kernel_w; tap < u.end * p->kernel_w; tap++)
            for (int64_t c = c0; c < end; c += TILE_CHANNELS)
                add_tap(p, b, tap / p->kernel_w, tap % p->kernel_w, c, fc_min(TILE_CHANNELS, end - c), &t);
    }
    finish(p, b, &t);
    const fc_image y = fc_image_of(&p->y, p->item, b->n, b->group * p->out_channels + b->k, b->channels);
    const fc_window window = {b->h, 1, 1, b->w, b->outputs, 1};
    fc_store_window(p->k, p->item, &y, &window, t.sum, &(fc_pitch){0, VECTOR_BYTES / (int64_t)p->item, 1});
}

static __attribute__((cold)) void run_row(void *context, int64_t task, int slot)
{
    (void)slot;
    const job *j = context;
    const fc_problem *p = j->p;
    const int64_t lanes = p->k->vector_lanes;
    place b = {.k = task % j->vectors * lanes};
    task /= j->vectors;
    b.group = task % p->groups, task /= p->groups;
    b.h = task % p->y.h, b.n = task / p->y.h;
    b.channels = fc_min(lanes, p->out_channels - b.k);
    for (; b.w < p->y.w; b.w += TILE_OUTPUTS) {
        b.outputs = fc_min(TILE_OUTPUTS, p->y.w - b.w);
        run_tile(j, &b);
    }
}

void fc_conv_on_stack(const fc_problem *p)
{
    job j = {p, fc_direct_chunk(p), fc_ceil_div(p->out_channels, p->k->vector_lanes)};
    fc_parallel(p->y.n * p->y.h * p->groups * j.vectors, run_row, &j);
}

/* ---- forward: regions of outputs that see the same taps -----------------------------------------------------------*/
typedef struct {
    int64_t first, count; /* outputs */
    fc_range taps;
} span;

static span span_at(int64_t first, int64_t outputs, int64_t kernel, int64_t stride, int64_t dilation, int64_t pad,
                    int64_t size)
{
    span s = {.first = first, .count = 1, .taps = fc_valid_taps(first * stride - pad, dilation, kernel, size)};
    for (; first + s.count < outputs; s.count++) {
        const fc_range t = fc_valid_taps((first + s.count) * stride - pad, dilation, kernel, size);
        if (t.first != s.taps.first || t.end != s.taps.end)
            break;
    }
    return s;
}

static fc_status run_region(const fc_problem *p, const span *h, const span *w)
{
    static const double zero[1];
    const int64_t item = (int64_t)p->item;
    fc_problem q = *p;
    q.nonfinite = 0;
    q.packed = NULL;
    q.packed_v = 0;
    q.algorithm = FC_DIRECT;
    q.y.data = (char *)p->y.data + (h->first * p->y.stride_h + w->first * p->y.stride_w) * item;
    q.y.h = h->count, q.y.w = w->count;
    q.residual.data = (char *)fc_residual_at(p, 0, 0, h->first, w->first);
    q.kernel_h = h->taps.end - h->taps.first, q.kernel_w = w->taps.end - w->taps.first;
    q.weight += (h->taps.first * p->weight_u + w->taps.first * p->weight_v) * item;
    q.pad_top = p->pad_top - h->first * p->stride_h - h->taps.first * p->dilation_h;
    q.pad_left = p->pad_left - w->first * p->stride_w - w->taps.first * p->dilation_w;
    if (q.kernel_h == 0 || q.kernel_w == 0) { /* nothing but padding: one tap of weight zero on an empty image */
        q.in_channels = q.chunk = q.kernel_h = q.kernel_w = q.dilation_h = q.dilation_w = 1;
        q.pad_top = q.pad_left = q.x.h = q.x.w = 0;
        q.weight = (const char *)zero;
        q.weight_g = q.weight_k = q.weight_c = q.weight_u = q.weight_v = 0;
    }
    return p->chunk ? fc_conv_direct(&q) : fc_conv_forward(&q);
}

static fc_status run_regions(const fc_problem *p)
{
    fc_status status = FC_OK;
    for (int64_t i = 0; i < p->y.h;) {
        const span h = span_at(i, p->y.h, p->kernel_h, p->stride_h, p->dilation_h, p->pad_top, p->x.h);
        for (int64_t j = 0; j < p->y.w && status == FC_OK;) {
            const span w = span_at(j, p->y.w, p->kernel_w, p->stride_w, p->dilation_w, p->pad_left, p->x.w);
            status = run_region(p, &h, &w);
            j += w.count;
        }
        i += h.count;
    }
    return status;
}

fc_status fc_direct_by_regions(fc_problem *p, const void *context)
{
    (void)context;
    p->chunk = fc_direct_chunk(p);
    return fc_conv_by_regions(p);
}

fc_status fc_conv_by_regions(const fc_problem *p)
{
    const fc_status status = run_regions(p);
    if (status != FC_ENOMEM)
        return status;
    fc_conv_on_stack(p);
    return FC_OK;
}

/* ---- gradient of the weight: tap by tap, each over the outputs for which it lies inside x -------------------------*/
fc_status fc_conv_grad_weight_by_taps(fc_dtype dtype, const fc_conv *c, const fc_view *grad_y, const fc_view *x,
                                      const fc_view *grad_weight)
{
    const int64_t item = dtype == FC_F32 ? 4 : 8;
    fc_status status = FC_OK;
    for (int64_t u = 0; u < grad_weight->h; u++)
        for (int64_t v = 0; v < grad_weight->w && status == FC_OK; v++) {
            const fc_range h = fc_seeing_outputs(u, grad_y->h, c->stride_h, c->dilation_h, c->pad_top, x->h);
            const fc_range w = fc_seeing_outputs(v, grad_y->w, c->stride_w, c->dilation_w, c->pad_left, x->w);
            fc_conv tap = *c;
            tap.pad_top = c->pad_top - u * c->dilation_h - h.first * c->stride_h;
            tap.pad_left = c->pad_left - v * c->dilation_w - w.first * c->stride_w;
            tap.algorithm = FC_DIRECT;
            fc_view y = *grad_y, to = *grad_weight;
            y.data = (char *)y.data + (h.first * y.stride_h + w.first * y.stride_w) * item;
            y.h = h.end - h.first, y.w = w.end - w.first;
            to.data = (char *)to.data + (u * to.stride_h + v * to.stride_w) * item;
            to.h = to.w = 1;
            status = fc_conv2d_grad_weight(dtype, &tap, &y, x, &to);
        }
    return status;
}
