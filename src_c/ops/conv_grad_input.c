/* conv_grad_input.c: the gradient of the input, which is also the transposed convolution: stride_h * stride_w problems
 * of stride 1, one per output phase, with the kernel flipped. Never by zero insertion. Windows that do not overlap:
 * conv_patches.c.
 */
#include "../scratch.h"
#include "../threads.h"
#include "conv_choose.h"

#include <stdatomic.h>
#include <string.h>

static int64_t gcd(int64_t a, int64_t b) { return b ? gcd(b, a % b) : a; }

fc_phase fc_make_phase(int64_t first, int64_t size, int64_t kernel, int64_t stride, int64_t dilation, int64_t pad)
{
    const int64_t common = gcd(stride, dilation), a = (first + pad) % stride;
    fc_phase f = {.first = first,
                  .count = (size - first + stride - 1) / stride,
                  .step = stride / common,
                  .dilation = dilation / common};
    int64_t u0 = 0;
    while (u0 < fc_min(f.step, kernel) && u0 * dilation % stride != a)
        u0++;
    if (u0 == fc_min(f.step, kernel))
        return f;
    f.taps = (kernel - 1 - u0) / f.step + 1;
    f.last = u0 + (f.taps - 1) * f.step;
    f.pad = (f.taps - 1) * f.dilation - (f.first + pad - u0 * dilation) / stride;
    return f;
}

static fc_view sample(const fc_view *v, size_t item, const fc_phase *h, const fc_phase *w)
{
    fc_view s = *v;
    s.data = (char *)v->data + (h->first * v->stride_h + w->first * v->stride_w) * (int64_t)item;
    s.h = h->count, s.w = w->count;
    return s;
}

/* The convolution that computes a phase with taps. */
static fc_problem phase_problem(const fc_problem *whole, const fc_conv *c, const fc_phase *h, const fc_phase *w)
{
    fc_problem p = *whole;
    p.y = sample(&whole->y, whole->item, h, w);
    p.y.stride_h *= c->stride_h;
    p.y.stride_w *= c->stride_w;
    p.stride_h = p.stride_w = 1;
    p.kernel_h = h->taps, p.kernel_w = w->taps;
    p.dilation_h = h->dilation, p.dilation_w = w->dilation;
    p.pad_top = h->pad, p.pad_left = w->pad;
    p.weight = whole->weight + (h->last * whole->weight_u + w->last * whole->weight_v) * (int64_t)whole->item;
    p.weight_u = -h->step * whole->weight_u;
    p.weight_v = -w->step * whole->weight_v;
    p.packed_first = h->last * whole->packed_u + w->last * whole->packed_v;
    p.packed_u = -h->step * whole->packed_u;
    p.packed_v = -w->step * whole->packed_v;
    return p;
}

typedef struct {
    const fc_problem *p;
    const fc_conv *c;
    const fc_view *grad_x;
    int64_t parts; /* of each phase that is shared out */
    int64_t apart; /* the phases of so many tasks, each on one thread; then each of the others on all */
    char *memory; /* for each slot packed_bytes for the weight, where a slot has a panel, then what a phase takes */
    int64_t packed_bytes, slot_bytes;
    atomic_int status;
} phases;

/* ---- inputs that no output saw: the epilogue of zero --------------------------------------------------------------*/
enum { FILL_CHANNELS = 256 }; /* at a time, on the stack */
typedef struct {
    const fc_problem *p;
    const fc_conv *c;
    int64_t seen_h, seen_w; /* rows and columns before the end of the last window */
} fill;

#define FILL_VALUE(type)                                                                                               \
    for (int64_t i = 0; i < channels; i++) {                                                                           \
        type v = e->bias ? ((const type *)e->bias)[c0 + i] : 0;                                                        \
        v = v < (type)e->lower ? (type)e->lower : v;                                                                   \
        ((type *)value)[i] = v > (type)e->upper ? (type)e->upper : v;                                                  \
    }

static void set_value(const fc_problem *p, int64_t c0, int64_t channels, char *value)
{
    const fc_epilogue *e = &p->epilogue;
    if (p->item == 4) {
        FILL_VALUE(float)
    } else {
        FILL_VALUE(double)
    }
}

/* count pixels from `to` on, `step` elements apart */
static void fill_pixels(const fill *f, char *to, int64_t step, int64_t count)
{
    const fc_view *y = &f->p->y;
    const int64_t item = (int64_t)f->p->item;
    char value[FILL_CHANNELS * sizeof(double)];
    for (int64_t c0 = 0; c0 < y->c; c0 += FILL_CHANNELS, to += FILL_CHANNELS * y->stride_c * item) {
        const int64_t channels = fc_min(FILL_CHANNELS, y->c - c0);
        set_value(f->p, c0, channels, value);
        if (y->stride_c == 1) {
            for (int64_t t = 0; t < count; t++)
                memcpy(to + t * step * item, value, (size_t)(channels * item));
            continue;
        }
        for (int64_t i = 0; i < channels; i++)
            for (int64_t t = 0; t < count; t++)
                memcpy(to + (i * y->stride_c + t * step) * item, value + i * item, f->p->item);
    }
}

/* The pixels of row h whose phases have no taps. */
static void fill_row(void *context, int64_t task, int slot)
{
    (void)slot;
    const fill *f = context;
    const fc_problem *p = f->p;
    const fc_conv *c = f->c;
    const fc_view *y = &p->y;
    const int64_t item = (int64_t)p->item, n = task / y->h, i = task % y->h;
    const fc_phase h = fc_make_phase(i % c->stride_h, y->h, p->kernel_h, c->stride_h, c->dilation_h, c->pad_top);
    char *row = (char *)y->data + (n * y->stride_n + i * y->stride_h) * item;
    for (int64_t first = 0; first < fc_min(c->stride_w, y->w); first++) {
        const fc_phase w = fc_make_phase(first, y->w, p->kernel_w, c->stride_w, c->dilation_w, c->pad_left);
        if (h.taps == 0 || w.taps == 0)
            fill_pixels(f, row + first * y->stride_w * item, c->stride_w * y->stride_w, w.count);
    }
}

static void fill_whole_row(void *context, int64_t task, int slot)
{
    (void)slot;
    const fill *f = context;
    const fc_view *y = &f->p->y;
    const int64_t item = (int64_t)f->p->item, at = task / y->h * y->stride_n + task % y->h * y->stride_h;
    fill_pixels(f, (char *)y->data + at * item, y->stride_w, y->w);
}

/* What lies behind the last window. */
static void fill_tail_row(void *context, int64_t task, int slot)
{
    (void)slot;
    const fill *f = context;
    const fc_view *y = &f->p->y;
    const int64_t i = task % y->h, first = i < f->seen_h ? fc_min(f->seen_w, y->w) : 0;
    const int64_t at = task / y->h * y->stride_n + i * y->stride_h + first * y->stride_w;
    fill_pixels(f, (char *)y->data + at * (int64_t)f->p->item, y->stride_w, y->w - first);
}

static int64_t seen(int64_t outputs, int64_t stride, int64_t taps, int64_t dilation, int64_t pad)
{
    return fc_max(0, (outputs - 1) * stride + (taps - 1) * dilation + 1 - pad);
}

void fc_fill_zero(const fc_problem *p)
{
    fill f = {.p = p};
    fc_parallel(p->y.n * p->y.h, fill_whole_row, &f);
}

static int has_gap(int64_t kernel, int64_t stride, int64_t dilation)
{
    return kernel < stride / gcd(stride, dilation) || gcd(stride, dilation) > 1;
}

static void fill_gaps(const fc_problem *p, const fc_conv *c)
{
    fill f = {.p = p, .c = c};
    if (has_gap(p->kernel_h, c->stride_h, c->dilation_h) || has_gap(p->kernel_w, c->stride_w, c->dilation_w))
        fc_parallel(p->y.n * p->y.h, fill_row, &f);
}

/* ---- phases -------------------------------------------------------------------------------------------------------*/
static int64_t phase_count(const fc_conv *c, const fc_view *grad_x)
{
    return fc_min(c->stride_h, grad_x->h) * fc_min(c->stride_w, grad_x->w);
}

/* The convolution of phase `index`, row by row; 0 if it has no taps. Where Winograd was asked for, phases that it does
 * not serve run directly. */
static int phase_at(const fc_problem *p, const fc_conv *c, const fc_view *grad_x, int64_t index, fc_problem *q)
{
    const int64_t columns = fc_min(c->stride_w, grad_x->w), row = index / columns, column = index % columns;
    const fc_phase h = fc_make_phase(row, grad_x->h, p->kernel_h, c->stride_h, c->dilation_h, c->pad_top);
    const fc_phase w = fc_make_phase(column, grad_x->w, p->kernel_w, c->stride_w, c->dilation_w, c->pad_left);
    if (h.taps == 0 || w.taps == 0)
        return 0;
    *q = phase_problem(p, c, &h, &w);
    if (q->algorithm == FC_WINOGRAD && !fc_conv_winograd_serves(q))
        q->algorithm = FC_DIRECT;
    return 1;
}

/* Part `part` of `parts` of the output channels, which are whole panels each; of one group, without a residual. */
static fc_problem part_of(const fc_problem *p, int64_t part, int64_t parts)
{
    const int64_t item = (int64_t)p->item, count = p->out_channels / parts, k0 = part * count;
    fc_problem q = *p;
    q.out_channels = count, q.y.c /= parts;
    q.weight += k0 * q.weight_k * item;
    q.packed = fc_at(q.packed, k0 * q.packed_column, item);
    q.y.data = (char *)q.y.data + k0 * q.y.stride_c * item;
    q.epilogue.scale = fc_at(q.epilogue.scale, k0, item);
    q.epilogue.bias = fc_at(q.epilogue.bias, k0, item);
    return q;
}

/* Into how many parts few phases that are shared out are cut: one for each thread, if the method does not change with
 * the number of channels, and if they are so many that transforming grad_y for each part costs little. */
static int64_t parts_of(const fc_problem *p, const fc_conv *c, const fc_view *grad_x)
{
    enum { LEAST_VECTORS = 4 }; /* of a part: 2 took 3 % longer with two threads, 64 -> 128 at 56x56, Zen 4 */
    const int64_t threads = fc_parallel_slots(INT64_MAX), count = phase_count(c, grad_x);
    if (p->nonfinite || 2 * count >= fc_parallel_tasks() || c->groups > 1 ||
        p->out_channels % (threads * LEAST_VECTORS * p->k->vector_lanes) > 0)
        return 1;
    const fc_problem part = part_of(p, 0, threads);
    fc_problem q, r;
    for (int64_t i = 0; i < count; i++)
        if (phase_at(p, c, grad_x, i, &q) && phase_at(&part, c, grad_x, i, &r) && fc_choose(&q) != fc_choose(&r))
            return 1;
    return threads;
}

/* Later phases see more taps (the padding of the first ones is the smaller half of the kernel): they start first, and
 * each is followed by one of the first ones, so that neighbouring tasks, a thread's, take as long together as
 * others. */
static int64_t phase_of_task(int64_t task, int64_t count) { return task % 2 ? task / 2 : count - 1 - task / 2; }

/* In the memory of a slot. */
static void run_phase(phases *f, int64_t index, int64_t part, int slot)
{
    const fc_problem p = part_of(f->p, part, f->parts);
    fc_problem q;
    if (!phase_at(&p, f->c, f->grad_x, index, &q))
        return; /* filled */
    const fc_lent before = fc_scratch_lend((fc_lent){f->memory + slot * f->slot_bytes, (size_t)f->slot_bytes, 0});
    const fc_status status = fc_conv_forward(&q);
    fc_scratch_lend(before);
    if (status != FC_OK)
        atomic_store(&f->status, (int)status);
}

/* The phases of a part follow each other, those that see more taps first: what a thread may have to wait for is
 * short. */
static void lone_phase_task(void *context, int64_t task, int slot)
{
    phases *f = context;
    const int64_t count = phase_count(f->c, f->grad_x);
    fc_work_alone(1);
    if (f->parts == 1)
        run_phase(f, phase_of_task(task, count), 0, slot);
    else
        run_phase(f, count - 1 - task % count, task / count, slot);
    fc_work_alone(0);
}

/* How many phases threads have to themselves: as many each if none has to wait long, all of them where they are
 * many. */
static int64_t shared_out_phases(const fc_problem *p, const fc_conv *c, const fc_view *grad_x)
{
    enum { PHASES_PER_THREAD = 8, REREADS = 4 };
    const int64_t count = phase_count(c, grad_x), threads = fc_parallel_slots(INT64_MAX), each = count / threads;
    if (threads == 1 || p->kernel_h < c->stride_h || p->kernel_w < c->stride_w)
        return 0; /* of these, some have no taps */
    if (count >= PHASES_PER_THREAD * threads)
        return count;
    /* Each reads all of grad_y, where threads that share a phase read a part of it, but all of the weight. */
    if (each == 0 || p->x.n * p->x.h * p->x.w * p->in_channels >
                         REREADS * p->kernel_h * p->kernel_w * p->in_channels * p->out_channels)
        return 0;
    double all = 0, most = 0, one = 0;
    for (int64_t task = 0; task < each * threads; task++) {
        fc_problem q;
        const double cost = phase_at(p, c, grad_x, phase_of_task(task, count), &q) ? fc_forward_cost(&q) : 0;
        one = cost + (task % each ? one : 0);
        all += cost;
        most = one > most ? one : most;
    }
    return most * (double)threads <= all * 1.1 ? each * threads : 0;
}

/* What the phase that takes most takes, on all threads or `alone`. */
static int64_t phase_scratch(const fc_problem *p, const fc_conv *c, const fc_view *grad_x, int alone)
{
    int64_t most = 0;
    fc_problem q;
    fc_work_alone(alone);
    for (int64_t i = 0; i < phase_count(c, grad_x); i++)
        if (phase_at(p, c, grad_x, i, &q))
            most = fc_max(most, fc_forward_scratch(&q));
    fc_work_alone(0);
    return fc_round_up(most, FC_LINE_BYTES);
}

/* Phases share nothing: the first `apart` each on one thread, then the others one after the other, each on all threads
 * and with the memory of all. */
static void run_in(phases *f, int slots)
{
    const int64_t count = phase_count(f->c, f->grad_x);
    if (f->apart)
        fc_parallel_in(slots, f->apart * f->parts, lone_phase_task, f);
    f->slot_bytes *= slots; /* slot 0 is all of the memory now */
    for (int64_t task = f->apart; task < count && atomic_load(&f->status) == FC_OK; task++)
        run_phase(f, phase_of_task(task, count), 0, 0);
}

/* Gaps are filled when there is memory for all. */
static fc_status run_phases(const fc_problem *p, const fc_conv *c, const fc_view *grad_x)
{
    phases f = {.p = p, .c = c, .grad_x = grad_x, .apart = shared_out_phases(p, c, grad_x)};
    const int slots = f.apart ? fc_parallel_slots(INT64_MAX) : 1;
    const int64_t count = phase_count(c, grad_x);
    f.parts = f.apart ? parts_of(p, c, grad_x) : 1;
    if (f.parts > 1) /* as many for each thread */
        f.apart = count;
    const fc_problem part = part_of(p, 0, f.parts);
    if (f.apart)
        f.slot_bytes = phase_scratch(&part, c, grad_x, 1);
    if (f.apart < count && count > 1) /* a single one takes its own before it writes */
        f.slot_bytes = fc_max(f.slot_bytes, fc_ceil_div(phase_scratch(&part, c, grad_x, 0), slots));
    f.slot_bytes = fc_round_up(f.slot_bytes, FC_LINE_BYTES);
    if (f.slot_bytes && !(f.memory = fc_scratch_acquire_parts(0, slots, f.slot_bytes)))
        return FC_ENOMEM;
    fill_gaps(p, c);
    run_in(&f, slots);
    fc_scratch_release(f.memory);
    return (fc_status)atomic_load(&f.status);
}

static fc_status run_packed_phases(fc_problem *p, const fc_conv *c, const fc_view *grad_x)
{
    char *packed = fc_scratch_acquire((size_t)fc_packed_direct(p) * p->item);
    if (!packed)
        return FC_ENOMEM;
    p->narrow = 1;
    fc_pack_direct(p, packed);
    fc_use_packed(p, packed);
    const fc_status status = run_phases(p, c, grad_x);
    fc_scratch_release(packed);
    return status;
}

/* All phases for the output channels of one panel, whose packed taps stay in the second-level cache, on one thread. */
static void panel_task(void *context, int64_t panel, int slot)
{
    phases *all = context;
    char *packed = all->memory + slot * (all->packed_bytes + all->slot_bytes);
    fc_problem q = part_of(all->p, panel, all->p->out_channels / (2 * all->p->k->vector_lanes));
    q.narrow = 1;
    fc_pack_direct(&q, packed);
    fc_use_packed(&q, packed);
    phases f = {.p = &q, .c = all->c, .grad_x = all->grad_x, .parts = 1, .slot_bytes = all->slot_bytes};
    f.memory = packed + all->packed_bytes;
    fc_work_alone(1);
    run_in(&f, 1);
    fc_work_alone(0);
    if (atomic_load(&f.status) != FC_OK)
        atomic_store(&all->status, atomic_load(&f.status));
}

static fc_status run_panels(const fc_problem *p, const fc_conv *c, const fc_view *grad_x)
{
    const int64_t panels = p->out_channels / (2 * p->k->vector_lanes), item = (int64_t)p->item;
    const int slots = fc_parallel_slots(panels);
    const fc_problem panel = part_of(p, 0, panels);
    phases f = {.p = p, .c = c, .grad_x = grad_x};
    f.packed_bytes = fc_round_up(fc_packed_direct(&panel) * item, FC_LINE_BYTES);
    f.slot_bytes = phase_scratch(&panel, c, grad_x, 1);
    f.memory = fc_scratch_acquire_parts(0, slots, f.packed_bytes + f.slot_bytes);
    if (!f.memory)
        return FC_ENOMEM;
    fill_gaps(p, c);
    fc_parallel_in(slots, panels, panel_task, &f);
    fc_scratch_release(f.memory);
    return (fc_status)atomic_load(&f.status);
}

/* Whether kind(phase) is `wanted` for any of them. */
static int some_phase(int (*kind)(const fc_problem *), int wanted, const fc_problem *p, const fc_conv *c,
                      const fc_view *grad_x)
{
    fc_problem q;
    for (int64_t i = 0; i < phase_count(c, grad_x); i++)
        if (phase_at(p, c, grad_x, i, &q) && kind(&q) == wanted)
            return 1;
    return 0;
}

typedef struct {
    const fc_conv *c;
    const fc_view *grad_y, *grad_x, *weight;
} call;

/* All phases at once against one after the other: per image, in the cost of the methods. */
static int together_pays(const fc_problem *p, const fc_conv *c, const fc_view *grad_x)
{
    if (!fc_conv_phases_serves(p, 1))
        return 0;
    double apart = 0;
    fc_problem q;
    for (int64_t i = 0; i < phase_count(c, grad_x); i++)
        if (phase_at(p, c, grad_x, i, &q))
            apart += fc_forward_cost(&q);
    return fc_phases_grad_input_pay(p, apart);
}

/* A weight much larger than the grad_y it meets is best read once: each panel runs through all phases. Only where the
 * method does not change with the number of channels: whole panels that are direct too. */
static int by_panels_pays(const fc_problem *p, const call *a)
{
    enum { PANEL_REREADS = 16 };
    const fc_view *w = a->weight, *grad_y = a->grad_y;
    fc_problem panel = *p;
    panel.out_channels = 2 * p->k->vector_lanes;
    return fc_elements(w) > fc_elements(grad_y) * PANEL_REREADS && p->out_channels % panel.out_channels == 0 &&
           a->c->groups == 1 && p->out_channels / panel.out_channels >= fc_parallel_slots(INT64_MAX) &&
           !some_phase(fc_is_direct, 0, p, a->c, a->grad_x) && !some_phase(fc_is_direct, 0, &panel, a->c, a->grad_x);
}

static fc_status run_apart(fc_problem *p, const void *context)
{
    const call *a = context;
    const fc_conv *c = a->c;
    const int by_channels = fc_is_depthwise(p) || fc_is_grouped(p), strides = c->stride_h * c->stride_w > 1;
    if (by_channels && !p->nonfinite && strides)
        return fc_conv_depthwise_grad_input(p);
    const int packs = strides && a->weight->h * a->weight->w > 1 && !by_channels && !p->nonfinite &&
                      some_phase(fc_takes_packed, 1, p, c, a->grad_x);
    if (packs && by_panels_pays(p, a))
        return run_panels(p, c, a->grad_x);
    return packs ? run_packed_phases(p, c, a->grad_x) : run_phases(p, c, a->grad_x);
}

static fc_status run_call(fc_problem *p, const void *context)
{
    const call *a = context;
    return !p->nonfinite && together_pays(p, a->c, a->grad_x) ? fc_conv_phases_grad_input(p, run_apart, a)
                                                              : run_apart(p, context);
}

/* Whether every output of a 1x1 problem was seen by one input or by none. */
static int sees_all(const fc_conv *c, const fc_view *grad_y, const fc_view *w, const fc_view *grad_x)
{
    return w->h * w->w == 1 && c->pad_top == 0 && c->pad_left == 0 &&
           grad_y->h == fc_ceil_div(grad_x->h, c->stride_h) && grad_y->w == fc_ceil_div(grad_x->w, c->stride_w);
}

fc_status fc_conv2d_grad_input(fc_dtype dtype, const fc_conv *c, const fc_view *grad_y, const fc_view *w,
                               const fc_epilogue *epilogue, const fc_view *grad_x)
{
    if (fc_is_empty(grad_x))
        return FC_OK;
    fc_problem p = fc_make_problem(dtype, c, grad_y, w, grad_x);
    if (p.algorithm == FC_WINOGRAD && !fc_conv_winograd_serves(&p))
        return FC_EALGORITHM;
    fc_set_epilogue(&p, epilogue);
    fc_swap(&p.in_channels, &p.out_channels); /* of the problem: grad_y's channels go in, grad_x's come out */
    fc_swap(&p.weight_k, &p.weight_c);
    if (!fc_is_empty(grad_y) && fc_grad_input_patches_serves(&p))
        return fc_grad_input_patches(&p);
    const call a = {c, grad_y, grad_x, w};
    /* Winograd's method leaves the error of its neighbours in an input that no output saw. */
    fill tail = {.p = &p,
                 .c = c,
                 .seen_h = seen(grad_y->h, c->stride_h, w->h, c->dilation_h, c->pad_top),
                 .seen_w = seen(grad_y->w, c->stride_w, w->w, c->dilation_w, c->pad_left)};
    const fc_status status = sees_all(c, grad_y, w, grad_x) ? run_call(&p, &a) : fc_guard(&p, w, run_call, &a);
    if (status == FC_OK && (tail.seen_h < grad_x->h || tail.seen_w < grad_x->w))
        fc_parallel(p.y.n * p.y.h, fill_tail_row, &tail);
    return status;
}
