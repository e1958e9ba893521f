/* conv_depthwise_inputs.c: one output channel of few input channels per group: a depthwise problem for each input, one
 * after the other, which the next one adds to. */
#include "../scratch.h"
#include "conv_depthwise.h"

/* Channel `first` of each group. */
static fc_view one_of_each(const fc_view *v, int64_t first, int64_t groups, size_t item)
{
    fc_view s = *v;
    s.data = (char *)v->data + first * v->stride_c * (int64_t)item;
    s.stride_c = v->c / groups * v->stride_c;
    s.c = groups;
    return s;
}

fc_problem fc_depthwise_pair(const fc_problem *p, int64_t c, int64_t k)
{
    fc_problem q = *p;
    q.x = one_of_each(&p->x, c, p->groups, p->item);
    q.y = one_of_each(&p->y, k, p->groups, p->item);
    q.in_channels = q.out_channels = 1;
    if (p->weight) /* prepared calls have none */
        q.weight += (k * p->weight_k + c * p->weight_c) * (int64_t)p->item;
    return q;
}

/* The problem of input c. Sums of those before are its residual: they stand in y, or, channels-last, in `sum`. Bias and
 * residual of the whole come first, its bounds last. */
static fc_problem input_at(const fc_problem *p, int64_t c, const fc_view *sum)
{
    fc_problem q = fc_depthwise_pair(p, c, 0);
    const int last = c == p->in_channels - 1;
    if (p->packed)
        q.packed += c * fc_packed_depthwise(&q) * (int64_t)p->item;
    if (c > 0)
        q.residual = *sum, q.epilogue.bias = NULL;
    if (!last)
        q.y = *sum, q.epilogue.lower = -__builtin_inf(), q.epilogue.upper = __builtin_inf();
    return q;
}

int64_t fc_packed_depthwise_inputs(const fc_problem *p)
{
    const fc_problem q = fc_depthwise_pair(p, 0, 0);
    return p->in_channels * fc_packed_depthwise(&q);
}

fc_status fc_pack_depthwise_inputs(const fc_problem *p, char *to)
{
    fc_status status = FC_OK;
    for (int64_t c = 0; c < p->in_channels && status == FC_OK; c++) {
        const fc_problem q = fc_depthwise_pair(p, c, 0);
        status = fc_pack_depthwise(&q, to + c * fc_packed_depthwise(&q) * (int64_t)p->item);
    }
    return status;
}

/* Images whose sums stand in memory of their own; all of a channels-last y, where it is theirs. */
static int64_t images_at_once(const fc_problem *p)
{
    enum { SUM_BYTES = 1 << 20 }; /* they stay in the second-level cache */
    const int64_t image = p->y.h * p->y.w * p->groups * (int64_t)p->item;
    return p->y.stride_c == 1 ? p->y.n : fc_max(1, fc_min(p->y.n, SUM_BYTES / image));
}

static int64_t sum_bytes(const fc_problem *p)
{
    const int64_t image = p->y.h * p->y.w * p->groups * (int64_t)p->item;
    return p->y.stride_c == 1 ? 0 : fc_round_up(images_at_once(p) * image, 64);
}

/* Where the sums of `images` stand: y, or dense in `memory`. */
static fc_view sums_of(const fc_problem *p, int64_t images, char *memory)
{
    fc_view sum = p->y;
    sum.n = images;
    if (sum_bytes(p) == 0)
        return sum;
    sum.data = memory;
    sum.stride_c = 1, sum.stride_w = sum.c, sum.stride_h = sum.w * sum.stride_w, sum.stride_n = sum.h * sum.stride_h;
    return sum;
}

/* Of an input, the last one and the last images included. */
static int64_t input_scratch(const fc_problem *p)
{
    const int64_t images = images_at_once(p), last = (p->y.n - 1) / images * images;
    int64_t most = 0;
    for (int64_t n = 0; n <= last; n += fc_max(1, last)) {
        const fc_problem q = fc_images(p, n, fc_min(images, p->y.n - n));
        const fc_view sum = sums_of(&q, q.y.n, NULL);
        const fc_problem first = input_at(&q, 0, &sum), end = input_at(&q, p->in_channels - 1, &sum);
        most = fc_max(most, fc_max(fc_need_bytes(fc_conv_depthwise_scratch(&first)),
                                   fc_need_bytes(fc_conv_depthwise_scratch(&end))));
    }
    return most;
}

fc_need fc_conv_depthwise_inputs_scratch(const fc_problem *p) { return (fc_need){sum_bytes(p) + input_scratch(p), 0}; }

fc_status fc_conv_depthwise_inputs(const fc_problem *p)
{
    const fc_shared_scratch scratch = fc_scratch_share(sum_bytes(p), input_scratch(p));
    if (!scratch.own)
        return FC_ENOMEM;
    fc_status status = FC_OK;
    for (int64_t n = 0, count = images_at_once(p); n < p->y.n && status == FC_OK; n += count) {
        const fc_problem q = fc_images(p, n, fc_min(count, p->y.n - n));
        const fc_view sum = sums_of(&q, q.y.n, scratch.own);
        for (int64_t c = 0; c < p->in_channels && status == FC_OK; c++) {
            const fc_problem input = input_at(&q, c, &sum);
            status = fc_conv_depthwise(&input);
        }
    }
    fc_scratch_unshare(scratch);
    return status;
}
