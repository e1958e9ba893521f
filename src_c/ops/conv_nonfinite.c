/* conv_nonfinite.c: convolution where NaN and infinities reach only the results that depend on them.
 *
 * The drivers multiply padding, which is zero, by the weight, and Winograd adds up neighbours: with a weight of NaN or
 * infinity both put NaN where none belongs. Such weights are found by looking at the weight or at the output, whichever
 * is smaller, and the call runs again on regions of outputs that see no padding. Finite data pay for the look alone.
 */
#include "conv.h"

#include <stdlib.h>

/* ---- the look --------------------------------------------------------------------------------------------------------*/
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

static int64_t elements(const fc_view *v) { return v->n * v->c * v->h * v->w; }

fc_status fc_guard(fc_problem *p, const fc_view *weight, const fc_view *y, fc_guarded *run, const void *context)
{
    /* of one image: the choice must not depend on the batch */
    if (elements(weight) <= y->c * y->h * y->w) {
        p->nonfinite = !fc_is_finite(p->k, p->item, weight);
        return run(p, context);
    }
    /* with finite weights the bits are those of the way below, without its look at a larger y */
    if (elements(weight) <= elements(y) && fc_is_finite(p->k, p->item, weight))
        return run(p, context);
    fc_problem again = *p;
    const fc_status status = run(p, context);
    if (status != FC_OK || fc_is_finite(p->k, p->item, y) || fc_is_finite(p->k, p->item, weight))
        return status;
    again.nonfinite = 1;
    return run(&again, context);
}

/* ---- forward: regions of outputs that see the same taps --------------------------------------------------------------*/
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
        q.in_channels = q.kernel_h = q.kernel_w = q.dilation_h = q.dilation_w = 1;
        q.pad_top = q.pad_left = q.x.h = q.x.w = 0;
        q.weight = (const char *)zero;
        q.weight_g = q.weight_k = q.weight_c = q.weight_u = q.weight_v = 0;
    }
    return fc_conv_forward(&q);
}

fc_status fc_conv_by_regions(const fc_problem *p)
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

/* ---- gradient of the weight: tap by tap, each over the outputs for which it lies inside x ----------------------------*/
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
