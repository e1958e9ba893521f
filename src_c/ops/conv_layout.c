/* conv_layout.c: the same problem in an easier shape: images on their side, without taps that meet only padding, in one
 * long row. All of it by the shape, but for fc_unroll_rows, which changes no sum.
 */
#include "conv.h"

static void transpose_view(fc_view *v)
{
    fc_swap(&v->h, &v->w);
    fc_swap(&v->stride_h, &v->stride_w);
}

static void turn(fc_problem *p)
{
    transpose_view(&p->x);
    transpose_view(&p->y);
    transpose_view(&p->residual);
    fc_swap(&p->kernel_h, &p->kernel_w);
    fc_swap(&p->stride_h, &p->stride_w);
    fc_swap(&p->dilation_h, &p->dilation_w);
    fc_swap(&p->pad_top, &p->pad_left);
    fc_swap(&p->weight_u, &p->weight_v);
    fc_swap(&p->packed_u, &p->packed_v);
}

enum { NARROW = 8 }; /* rows too short for the kernels, which run along them */

/* A tall, narrow image is turned on its side. */
void fc_lay_down(fc_problem *p)
{
    if (p->y.w < NARROW && p->y.h > p->y.w)
        turn(p);
}

/* The taps along an axis from the first to the last that an output sees inside x; all of them where none does. */
static fc_range live_taps(int64_t taps, int64_t outputs, int64_t stride, int64_t dilation, int64_t pad, int64_t size)
{
    fc_range t = {0, taps};
    for (; t.first < taps; t.first++) {
        const fc_range r = fc_seeing_outputs(t.first, outputs, stride, dilation, pad, size);
        if (r.first < r.end)
            break;
    }
    if (t.first == taps)
        return (fc_range){0, taps};
    for (;; t.end--) {
        const fc_range r = fc_seeing_outputs(t.end - 1, outputs, stride, dilation, pad, size);
        if (r.first < r.end)
            return t;
    }
}

/* A 5x5 kernel on an image of one row has one row that meets more than padding; dilated kernels on small images are
 * alike. The others are cut off. Returns whether there were any. */
int fc_trim(fc_problem *p)
{
    const fc_range u = live_taps(p->kernel_h, p->y.h, p->stride_h, p->dilation_h, p->pad_top, p->x.h);
    const fc_range v = live_taps(p->kernel_w, p->y.w, p->stride_w, p->dilation_w, p->pad_left, p->x.w);
    if (u.end - u.first == p->kernel_h && v.end - v.first == p->kernel_w)
        return 0;
    p->kernel_h = u.end - u.first, p->kernel_w = v.end - v.first;
    p->pad_top -= u.first * p->dilation_h, p->pad_left -= v.first * p->dilation_w;
    if (p->weight) /* prepared calls have none */
        p->weight += (u.first * p->weight_u + v.first * p->weight_v) * (int64_t)p->item;
    p->packed_first += u.first * p->packed_u + v.first * p->packed_v;
    return 1;
}

/* A view whose rows (and images) follow each other without gaps is one long row. */
static int rows_join(const fc_view *v) { return !v->data || v->h == 1 || v->stride_h == v->w * v->stride_w; }
static int images_join(const fc_view *v)
{
    return !v->data || v->n == 1 || v->h * v->w == 1 || v->stride_n == v->h * v->w * v->stride_w;
}
static void join_rows(fc_view *v)
{
    v->w *= v->h;
    v->h = 1;
}
static void join_images(fc_view *v)
{
    if (v->w == 1) /* a single pixel may come with any stride */
        v->stride_w = v->stride_n;
    v->w *= v->n;
    v->n = 1;
}

/* A 1x1 convolution with stride 1 does not know where rows end. */
void fc_unroll_rows(fc_problem *p)
{
    if (p->kernel_h * p->kernel_w != 1 || p->stride_h * p->stride_w != 1 || p->pad_top || p->pad_left ||
        p->x.h != p->y.h || p->x.w != p->y.w || !rows_join(&p->x) || !rows_join(&p->y) || !rows_join(&p->residual))
        return;
    join_rows(&p->x);
    join_rows(&p->y);
    join_rows(&p->residual);
    if (images_join(&p->x) && images_join(&p->y) && images_join(&p->residual)) {
        p->batch = fc_max(1, p->batch / p->y.n); /* of rows as long as all images */
        join_images(&p->x);
        join_images(&p->y);
        join_images(&p->residual);
    }
}

/* Lanes of channels: taps of a row share what they read. */
void fc_turn_tall(fc_problem *p)
{
    if ((fc_is_depthwise(p) || fc_is_grouped(p)) && p->kernel_w == 1 && p->kernel_h > 1 && p->y.h >= NARROW)
        turn(p);
}

int64_t fc_pairs_inside(int64_t taps, int64_t outputs, int64_t stride, int64_t dilation, int64_t pad, int64_t size)
{
    int64_t pairs = 0;
    for (int64_t t = 0; t < taps; t++) {
        const fc_range r = fc_seeing_outputs(t, outputs, stride, dilation, pad, size);
        pairs += r.end - r.first;
    }
    return pairs;
}

/* Direct convolution multiplies by the padding beside a row, not by that above and below. Turned, it is the other way
 * round: 1x7 at 17x17 has a tenth less to do. Less than 1 / 32 is no reason. */
static int is_better_turned(const fc_problem *p)
{
    const int64_t rows = fc_pairs_inside(p->kernel_h, p->y.h, p->stride_h, p->dilation_h, p->pad_top, p->x.h);
    const int64_t columns = fc_pairs_inside(p->kernel_w, p->y.w, p->stride_w, p->dilation_w, p->pad_left, p->x.w);
    const double now = (double)rows * (double)(p->kernel_w * p->y.w),
                 then = (double)columns * (double)(p->kernel_h * p->y.h);
    return p->y.h >= NARROW && then * 32 < now * 31;
}

void fc_turn_where_better(fc_problem *p)
{
    if (is_better_turned(p))
        turn(p);
}
