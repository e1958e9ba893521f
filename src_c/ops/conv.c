/* conv.c: the entry points. conv_choose.c says who solves a problem, conv_layout.c turns it into an easier one.
 *
 *     fc_conv2d              the problem as it stands
 *     fc_conv2d_grad_input   conv_grad_input.c
 *     fc_conv2d_grad_weight  the problem with the weight as the output
 */
#include "../scratch.h"
#include "../threads.h"
#include "conv_choose.h"
#include "windows.h"

#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

/* Asked once: `known` keeps the answer, 0 at first. A benign race: every thread writes the same value. */
static int64_t of_cache(int64_t *known, int name, int64_t least, int64_t otherwise)
{
    int64_t value = __atomic_load_n(known, __ATOMIC_RELAXED);
    if (!value) {
        const long told = name < 0 ? 0 : sysconf(name);
        value = told >= least ? told : otherwise;
        __atomic_store_n(known, value, __ATOMIC_RELAXED);
    }
    return value;
}

#ifdef _SC_LEVEL2_CACHE_SIZE
enum { L1_WAYS = _SC_LEVEL1_DCACHE_ASSOC, L2_BYTES = _SC_LEVEL2_CACHE_SIZE };
#else
enum { L1_WAYS = -1, L2_BYTES = -1 };
#endif

int64_t fc_l2_bytes(void)
{
    static int64_t known;
    return of_cache(&known, L2_BYTES, 128 << 10, 1 << 20);
}

int fc_has_wide_l1(void)
{
    static int64_t known;
    return of_cache(&known, L1_WAYS, 1, 8) >= 12;
}

int fc_streams(const fc_problem *p)
{
    enum { LINE = 64 };
    const int64_t item = (int64_t)p->item;
    const fc_view *y = &p->y;
    return y->stride_c == 1 && fc_fills_cache(p->batch * y->h * y->w * p->groups * p->out_channels * item) &&
           p->k->vector_lanes * item == LINE && (uintptr_t)y->data % LINE == 0 && p->out_channels * item % LINE == 0 &&
           (y->stride_w | y->stride_h | y->stride_n) * item % LINE == 0;
}

static const fc_epilogue identity = {.lower = -__builtin_inf(), .upper = __builtin_inf()};

fc_problem fc_make_problem(fc_dtype dtype, const fc_conv *c, const fc_view *x, const fc_view *w, const fc_view *y)
{
    const int64_t out = w->n / c->groups;
    return (fc_problem){
        .k = fc_get_kernels(dtype),
        .item = dtype == FC_F32 ? sizeof(float) : sizeof(double),
        .x = *x,
        .y = *y,
        .groups = c->groups,
        .in_channels = w->c,
        .out_channels = out,
        .kernel_h = w->h,
        .kernel_w = w->w,
        .stride_h = c->stride_h,
        .stride_w = c->stride_w,
        .dilation_h = c->dilation_h,
        .dilation_w = c->dilation_w,
        .pad_top = c->pad_top,
        .pad_left = c->pad_left,
        .weight = w->data,
        .weight_g = out * w->stride_n,
        .weight_k = w->stride_n,
        .weight_c = w->stride_c,
        .weight_u = w->stride_h,
        .weight_v = w->stride_w,
        .epilogue = identity,
        .algorithm = (fc_algorithm)c->algorithm,
        .batch = y->n,
    };
}

void fc_set_epilogue(fc_problem *p, const fc_epilogue *e)
{
    p->epilogue = *e;
    p->epilogue.residual = NULL;
    if (e->residual)
        p->residual = *e->residual;
}

/* ---- forward: by the residues of a dilation, or as it is ----------------------------------------------------------*/
/* The strips of a residue's problem have no gaps. Small d gains nothing. */
static fc_problem residue_problem(const fc_problem *p, int64_t a)
{
    const int64_t d = p->dilation_h, item = (int64_t)p->item;
    fc_problem q = *p;
    const fc_residue r = fc_residue_of(a, d, p->pad_top, p->x.h, p->y.h);
    q.dilation_h = 1;
    q.pad_top = r.pad;
    q.y.data = (char *)p->y.data + a * p->y.stride_h * item;
    q.y.h = r.y_size;
    q.y.stride_h *= d;
    q.residual.data = (char *)fc_residual_at(p, 0, 0, a, 0);
    q.residual.stride_h *= d;
    q.x.data = (char *)p->x.data + r.first * p->x.stride_h * item;
    q.x.h = r.x_size;
    q.x.stride_h *= d;
    return q;
}

typedef struct {
    const fc_problem *p;
    const fc_method *m;
    int64_t count, at_once, packed_bytes, each_bytes; /* of one of them, which has all threads or is alone on one */
    char *memory;
    atomic_int status;
} residues;

static void residue_task(void *context, int64_t a, int slot)
{
    residues *r = context;
    const fc_problem q = residue_problem(r->p, a);
    const fc_lent before = fc_scratch_lend((fc_lent){r->memory + slot * r->each_bytes, (size_t)r->each_bytes, 0});
    if (r->at_once > 1)
        fc_work_alone(1);
    const fc_status status = r->m->run(&q);
    if (r->at_once > 1)
        fc_work_alone(0);
    fc_scratch_lend(before);
    if (status != FC_OK)
        atomic_store(&r->status, (int)status);
}

/* One after the other, each on all threads, or where that is as even, side by side: they need not wait for each
 * other. */
static residues make_residues(const fc_problem *p, const fc_method *m)
{
    residues r = {.p = p, .m = m, .count = fc_min(p->dilation_h, p->y.h), .at_once = fc_parallel_slots(INT64_MAX)};
    fc_problem whole = *p;
    if (r.count % r.at_once)
        r.at_once = 1;
    if (m->kind == FC_BY_PRODUCTS && !p->packed) {
        r.packed_bytes = fc_round_up(fc_packed_direct(p) * (int64_t)p->item, 64);
        fc_expect_packed(&whole);
    }
    if (r.at_once > 1)
        fc_work_alone(1);
    for (int64_t a = 0; a < r.count; a++) {
        const fc_problem q = residue_problem(&whole, a);
        r.each_bytes = fc_max(r.each_bytes, fc_round_up(fc_need_bytes(m->scratch(&q)), 64));
    }
    if (r.at_once > 1)
        fc_work_alone(0);
    return r;
}

static fc_status run_by_residue(fc_problem *p, const fc_method *m)
{
    residues r = make_residues(p, m);
    char *scratch = fc_scratch_acquire_parts(r.packed_bytes, (int)r.at_once, r.each_bytes);
    if (!scratch)
        return FC_ENOMEM;
    r.memory = scratch + r.packed_bytes;
    if (r.packed_bytes) {
        fc_pack_direct(p, scratch);
        fc_use_packed(p, scratch);
    }
    if (r.at_once > 1)
        fc_parallel_in((int)r.at_once, r.count, residue_task, &r);
    else
        for (int64_t a = 0; a < r.count && atomic_load(&r.status) == FC_OK; a++)
            residue_task(&r, a, 0);
    fc_scratch_release(scratch);
    return (fc_status)atomic_load(&r.status);
}

static int runs_by_residue(const fc_problem *p, const fc_method *m)
{
    enum { SMALL_DILATION = 2 };
    const int reads_in_place = m->kind == FC_BY_DEPTHWISE || m->kind == FC_BY_GROUPS || m->kind == FC_BY_DOTS;
    return p->kernel_h > 1 && p->stride_h == 1 && p->dilation_h > SMALL_DILATION && m->kind != FC_BY_WINOGRAD &&
           !(reads_in_place && p->x.stride_c == 1);
}

/* Picks the method; a packed weight is kept if it is for that. */
static const fc_method *settle(fc_problem *p)
{
    const fc_method *m = fc_choose(p);
    if (!m)
        return NULL;
    if (p->packed && m->kind == FC_BY_PRODUCTS && !p->packed_v) /* by fc_conv2d_prepare */
        fc_use_packed(p, p->packed);
    if (p->packed_v && m->kind != FC_BY_PRODUCTS &&
        m->kind != FC_BY_WINOGRAD) /* packed for a phase that, laid down, runs otherwise */
        p->packed = NULL;
    return m;
}

fc_status fc_conv_forward(fc_problem *p)
{
    if (p->nonfinite) {
        fc_problem laid_out = *p;
        const fc_method *m = fc_choose(&laid_out);
        if (!m)
            return FC_EALGORITHM;
        /* The sums of direct: a clamp may hide an infinite weight from fc_guard, or not, by its products with padding,
         * which depend on the memory format and on the blocks. */
        if (m->kind == FC_BY_PRODUCTS) {
            *p = laid_out;
            return fc_direct_by_regions(p, NULL);
        }
        return fc_conv_by_regions(p);
    }
    const fc_method *m = settle(p);
    if (!m)
        return FC_EALGORITHM;
    return runs_by_residue(p, m) ? run_by_residue(p, m) : m->run(p);
}

int64_t fc_forward_scratch(const fc_problem *problem)
{
    fc_problem p = *problem;
    const fc_method *m = p.nonfinite ? NULL : settle(&p);
    if (!m)
        return 0;
    if (!runs_by_residue(&p, m))
        return fc_need_bytes(m->scratch(&p));
    const residues r = make_residues(&p, m);
    return fc_need_bytes((fc_need){r.packed_bytes + r.at_once * r.each_bytes, 0});
}

fc_problem fc_images(const fc_problem *p, int64_t first, int64_t count)
{
    fc_problem q = *p;
    q.x.n = q.y.n = count;
    q.x.data = (char *)p->x.data + first * p->x.stride_n * (int64_t)p->item;
    q.y.data = (char *)p->y.data + first * p->y.stride_n * (int64_t)p->item;
    q.residual.data = (char *)(uintptr_t)fc_residual_at(p, first, 0, 0, 0);
    return q;
}

int fc_is_empty(const fc_view *v) { return v->n == 0 || v->c == 0 || v->h == 0 || v->w == 0; }

static fc_status forward(fc_problem *p, const void *context)
{
    (void)context;
    return fc_conv_forward(p);
}

fc_status fc_conv2d(fc_dtype dtype, const fc_conv *c, const fc_view *x, const fc_view *w, const fc_epilogue *epilogue,
                    const fc_view *y)
{
    if (fc_is_empty(y))
        return FC_OK;
    fc_problem p = fc_make_problem(dtype, c, x, w, y);
    fc_set_epilogue(&p, epilogue);
    p.packed = c->prepared;
    const int plain = c->prepared || (w->h * w->w == 1 && fc_sees_no_padding(&p));
    return plain ? forward(&p, NULL) : fc_guard(&p, w, forward, NULL);
}

int64_t fc_conv2d_prepared_bytes(fc_dtype dtype, const fc_conv *c, const fc_view *x, const fc_view *w, const fc_view *y)
{
    fc_problem p = fc_make_problem(dtype, c, x, w, y);
    const fc_method *m = fc_is_empty(y) ? NULL : fc_choose(&p);
    return m ? m->packed(&p) * (int64_t)p.item : 0;
}

fc_status fc_conv2d_prepare(fc_dtype dtype, const fc_conv *c, const fc_view *x, const fc_view *w, const fc_view *y,
                            void *prepared)
{
    fc_problem p = fc_make_problem(dtype, c, x, w, y);
    const fc_method *m = fc_choose(&p);
    return m && fc_is_finite(p.k, p.item, w) ? m->pack(&p, prepared) : FC_EALGORITHM;
}

/* ---- gradient of the weight ---------------------------------------------------------------------------------------*/
static void set_zero(const fc_view *v, int64_t item)
{
    if (v->stride_w == 1 && v->stride_h == v->w && v->stride_c == v->h * v->w && v->stride_n == v->c * v->stride_c) {
        memset(v->data, 0, (size_t)(v->n * v->stride_n * item));
        return;
    }
    for (int64_t n = 0; n < v->n; n++)
        for (int64_t c = 0; c < v->c; c++)
            for (int64_t h = 0; h < v->h; h++)
                for (int64_t w = 0; w < v->w; w++)
                    memset((char *)v->data +
                               (n * v->stride_n + c * v->stride_c + h * v->stride_h + w * v->stride_w) * item,
                           0, (size_t)item);
}

fc_status fc_conv2d_grad_weight(fc_dtype dtype, const fc_conv *c, const fc_view *grad_y, const fc_view *x,
                                const fc_view *grad_weight)
{
    fc_problem p = fc_make_problem(dtype, c, x, grad_weight, grad_y);
    if (fc_is_empty(grad_y) || fc_is_empty(x)) {
        set_zero(grad_weight, (int64_t)p.item);
        return FC_OK;
    }
    fc_lay_down(&p);
    if (p.algorithm != FC_WINOGRAD && fc_trim(&p))
        set_zero(grad_weight, (int64_t)p.item);
    fc_turn_tall(&p);
    fc_run *run = fc_choose_grad_weight(&p);
    const fc_status status = run ? run(&p) : FC_EALGORITHM;
    if (status != FC_OK || (grad_weight->h * grad_weight->w == 1 && fc_sees_no_padding(&p)))
        return status;
    const int finite = fc_elements(grad_weight) <= fc_elements(grad_y) + fc_elements(x)
                           ? fc_is_finite(p.k, p.item, grad_weight)
                           : fc_is_finite(p.k, p.item, grad_y) && fc_is_finite(p.k, p.item, x);
    return finite ? FC_OK : fc_conv_grad_weight_by_taps(dtype, c, grad_y, x, grad_weight);
}
