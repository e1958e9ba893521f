/* conv_pooled.c: the gradient of the weight of a convolution with few input channels, followed by a maximum pool.
 *
 * The gradient of the convolution's output is zero but where a window of the pool has its maximum:
 *
 *     grad_weight[k][c][u][v] = sum_{n,i,j} grad[n][k][i][j] * x[n][c][winner + u, v]
 *
 * A window's winner is another pixel for each k, so nothing that is loaded serves two of them; but of 2x2 windows there
 * is a quarter of the products, the gradient of the output is not written, and what a winner sees of a row, (v, c), are
 * neighbours in a channels-last copy of x with its padding. The images are cut into slices, whose number depends on the
 * batch only.
 */
#include "../scratch.h"
#include "../threads.h"
#include "conv.h"

#include <string.h>

enum {
    MAX_SLICES = 16,
    WINDOW_COST = 3, /* in multiplications: the gradient, the winner and its offset are loaded */
};

typedef struct {
    const fc_problem *p;
    const fc_view *grad;
    const uint8_t *tap;
    fc_pooled call; /* but for what an image has its own of */
    void (*kernel)(const fc_pooled *);
    int64_t slices, rows, columns, origin; /* rows and columns of x with its padding; of the first window */
    int64_t x_bytes, sum_bytes;
    char *sums, *x;
} plan;

/* Multiplications against those of the product over all outputs. */
static int pays(const fc_problem *p, const fc_view *grad)
{
    const int64_t window = p->out_channels * (p->kernel_h + WINDOW_COST);
    return grad->h * grad->w * window < p->y.h * p->y.w * p->kernel_h * fc_direct_grad_weight_cost(p);
}

static int serves(const fc_problem *p, const fc_pool *pool, const fc_view *grad)
{
    return p->groups == 1 && p->dilation_w == 1 && p->kernel_h <= FC_POOLED_ROWS && (*p->k->pooled)[p->kernel_h] &&
           p->kernel_w * p->in_channels * (int64_t)p->item <= FC_POOLED_BYTES && p->out_channels % 2 == 0 &&
           grad->stride_c == 1 && !pool->adaptive && pool->h.kernel * pool->w.kernel <= UINT8_MAX + 1 && pays(p, grad);
}

static void run_slice(void *context, int64_t task, int slot)
{
    const plan *s = context;
    const fc_problem *p = s->p;
    const int64_t item = (int64_t)p->item, pitch = s->call.row / p->dilation_h;
    const int64_t first = task * p->x.n / s->slices, end = (task + 1) * p->x.n / s->slices;
    const fc_window window = {-p->pad_top, s->rows, 1, -p->pad_left, s->columns, 1};
    char *x = s->x + slot * s->x_bytes;
    fc_pooled call = s->call;
    call.x = x + s->origin * item;
    call.sum = s->sums + task * s->sum_bytes;
    memset(call.sum, 0, (size_t)s->sum_bytes);
    for (int64_t n = first; n < end; n++) {
        const fc_image image = fc_image_of(&p->x, p->item, n, 0, p->in_channels);
        fc_load_window(p->k, p->item, &image, &window, x, &(fc_pitch){pitch, p->in_channels, 1});
        call.grad = fc_at(s->grad->data, n * s->grad->stride_n, p->item);
        call.tap = s->tap + n * call.height * call.width * call.channels;
        s->kernel(&call);
    }
}

#define ADD_SLICES(type)                                                                                               \
    do {                                                                                                               \
        const int64_t row = FC_POOLED_BYTES / (int64_t)sizeof(type), size = p->kernel_h * row;                         \
        for (int64_t k = 0; k < p->out_channels; k++)                                                                  \
            for (int64_t c = 0; c < p->in_channels; c++)                                                               \
                for (int64_t u = 0; u < p->kernel_h; u++)                                                              \
                    for (int64_t v = 0; v < p->kernel_w; v++) {                                                        \
                        type sum = 0;                                                                                  \
                        for (int64_t i = 0; i < s->slices; i++)                                                        \
                            sum += ((const type *)(s->sums +                                                           \
                                                   i * s->sum_bytes))[k * size + u * row + v * p->in_channels + c];    \
                        ((type *)p->weight)[k * p->weight_k + c * p->weight_c + u * p->weight_u + v * p->weight_v] =   \
                            sum;                                                                                       \
                    }                                                                                                  \
    } while (0)

static void add_slices(const plan *s)
{
    const fc_problem *p = s->p;
    if (p->item == 4)
        ADD_SLICES(float);
    else
        ADD_SLICES(double);
}

static plan make_plan(const fc_problem *p, const fc_pool *pool, const fc_view *grad, int64_t *offset)
{
    const int64_t item = (int64_t)p->item;
    plan s = {.p = p, .grad = grad, .kernel = (*p->k->pooled)[p->kernel_h]};
    s.slices = fc_min(MAX_SLICES, p->x.n);
    s.rows = fc_extent(p->y.h, p->kernel_h, p->stride_h, p->dilation_h);
    s.columns = fc_extent(p->y.w, p->kernel_w, p->stride_w, 1);
    const int64_t row = s.columns * p->in_channels, down = p->stride_h * row, right = p->stride_w * p->in_channels;
    s.call = (fc_pooled){.row = p->dilation_h * row,
                         .step_h = pool->h.stride * down,
                         .step_w = pool->w.stride * right,
                         .offset = offset,
                         .grad_row = grad->stride_h,
                         .grad_pixel = grad->stride_w,
                         .height = grad->h,
                         .width = grad->w,
                         .channels = p->out_channels};
    for (int64_t t = 0; t < pool->h.kernel * pool->w.kernel; t++)
        offset[t] = t / pool->w.kernel * pool->h.dilation * down + t % pool->w.kernel * pool->w.dilation * right;
    s.origin = -pool->h.pad_before * down - pool->w.pad_before * right;
    s.x_bytes = fc_round_up(s.rows * row * item + FC_POOLED_BYTES, 64); /* a vector is read where v is the last */
    s.sum_bytes = p->out_channels * p->kernel_h * FC_POOLED_BYTES;
    return s;
}

fc_status fc_conv2d_pooled_grad_weight(fc_dtype dtype, const fc_conv *c, const fc_pool *pool, const fc_view *y,
                                       const fc_view *grad, const uint8_t *tap, const fc_view *x,
                                       const fc_view *grad_weight)
{
    const fc_problem p = fc_make_problem(dtype, c, x, grad_weight, y);
    int64_t offset[UINT8_MAX + 1] = {0}; /* whatever the codes are */
    if (fc_is_empty(grad) || fc_is_empty(x) || !serves(&p, pool, grad) || !fc_is_finite(p.k, p.item, x))
        return FC_EALGORITHM;
    plan s = make_plan(&p, pool, grad, offset);
    s.tap = tap;
    const int slots = fc_parallel_slots(s.slices);
    const int64_t sums = fc_round_up(s.slices * s.sum_bytes, 64);
    s.sums = fc_scratch_acquire_parts(sums, slots, s.x_bytes);
    if (!s.sums)
        return FC_ENOMEM;
    s.x = s.sums + sums;
    fc_parallel_in(slots, s.slices, run_slice, &s);
    add_slices(&s);
    fc_scratch_release(s.sums);
    return fc_is_finite(p.k, p.item, grad_weight) ? FC_OK : FC_EALGORITHM;
}
