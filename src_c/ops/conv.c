/* conv.c: the entry points: what kind of problem it is, and who solves it.
 *
 *     fc_conv2d              the problem as it stands
 *     fc_conv2d_grad_input   conv_grad_input.c
 *     fc_conv2d_grad_weight  the problem with the weight as the output
 */
#include "../scratch.h"
#include "../threads.h"
#include "conv.h"
#include "windows.h"
#include "winograd_tiles.h"

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
    return y->stride_c == 1 &&
           fc_should_stream(p->batch * y->h * y->w * p->groups * p->out_channels * item,
                            p->batch * p->x.h * p->x.w * p->groups * p->in_channels * item) &&
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

/* ---- the same problem in an easier shape ---------------------------------------------------------------------------*/
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

/* A 5x5 kernel on an image of one row has one row that meets more than padding; dilated kernels on small images are alike.
 * The others are cut off. Returns whether there were any. */
static int trim(fc_problem *p)
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

/* ---- choice: a pure function of the shape --------------------------------------------------------------------------*/
typedef struct {
    const char *name, *reason;
    fc_status (*run)(const fc_problem *);
    int64_t (*scratch)(const fc_problem *);
    int64_t (*packed)(const fc_problem *);
    fc_status (*pack)(const fc_problem *, char *to);
} method;

static const method depthwise = {"depthwise",         "one input and one output channel per group: lanes are channels",
                                 fc_conv_depthwise,   fc_conv_depthwise_scratch,
                                 fc_packed_depthwise, fc_pack_depthwise};
static const method grouped = {
    "grouped",           "few channels per group: lanes are the output channels of several groups",
    fc_conv_depthwise,   fc_conv_depthwise_scratch,
    fc_packed_depthwise, fc_pack_depthwise};
static const method pixels = {
    "pixels",         "few output channels per group: lanes are neighbouring outputs of a row",
    fc_conv_pixels,   fc_conv_pixels_scratch,
    fc_packed_pixels, fc_pack_pixels};
static const method taps = {
    "taps",         "few output channels, many input channels: one product per input pixel, then sums over taps",
    fc_conv_taps,   fc_conv_taps_scratch,
    fc_packed_taps, fc_pack_taps};
static const method winograd = {
    "winograd",
    "2 to 5 taps along one axis or both, stride 1, or 3x3 and 4x4 with stride 2, enough "
    "channels: along an axis 5 or 6 multiplications per 2 to 4 outputs, 9 or 10 per 4 with stride 2",
    fc_conv_winograd,
    fc_conv_winograd_scratch,
    fc_packed_winograd,
    fc_pack_winograd};
static const method direct = {"direct",         "matrix products over taps and channels, accumulated in registers",
                              fc_conv_direct,   fc_conv_direct_scratch,
                              fc_packed_direct, fc_pack_direct};

static const method phases = {
    "winograd",       "a stride, enough channels: the phases of the image as channels, and 3 to 5 taps of each",
    fc_conv_phases,   fc_conv_phases_scratch,
    fc_packed_phases, fc_pack_phases};
static const method whole = {
    "direct",         "one output, which sees all inputs: one matrix product over channels and taps",
    fc_conv_whole,    fc_conv_whole_scratch,
    fc_packed_direct, fc_pack_whole};

int fc_is_depthwise(const fc_problem *p) { return p->in_channels == 1 && p->out_channels == 1 && p->groups > 1; }

/* Whole groups fill a vector of outputs, and a vector holds all inputs that they see. */
int fc_is_grouped(const fc_problem *p)
{
    return p->k->depthwise->spread_rows && p->groups > 1 && p->out_channels > 1 && p->in_channels <= p->out_channels &&
           2 * p->out_channels <= p->k->vector_lanes && p->k->vector_lanes % p->out_channels == 0;
}

/* Pairs of an output row and a row of the kernel that meet in x: direct convolution leaves out the others. Stride and dilation 1. */
static int64_t rows_inside(const fc_problem *p)
{
    int64_t pairs = 0;
    for (int64_t u = 0; u < p->kernel_h; u++)
        pairs += fc_max(0, fc_min(p->y.h, p->x.h + p->pad_top - u) - fc_max(0, p->pad_top - u));
    return pairs;
}

/* Vector multiplications of direct convolution for each pair of an input and a vector of output channels. */
static double direct_products(const fc_problem *p)
{
    const int64_t rows = p->stride_h == 1 && p->dilation_h == 1 ? rows_inside(p) : p->kernel_h * p->y.h;
    return (double)(rows * p->kernel_w) * (double)p->y.w;
}

/* Per tile and pair of channels Winograd multiplies once for each of its points and direct (taps) * (outputs of the tile).
 * The transforms, and products that are stored between them, cost per tile as much as so many vector multiplications for each vector
 * of input channels, and of output channels: 150 and 125 for squares, 50 for lines, measured for 36 and 6 points, and not less for 25 and
 * 5, each phase's. Transforming the weights takes as long as the products of 1.5 tiles where caches are written fast (Zen 4, measured), of 9
 * where the second level takes 40 GB/s and the third 24 (Emerald Rapids, by bytes); 4 is between them, sqrt(1.5 * 9) = 3.7. It counts
 * where Winograd gains least, with 2 taps. double: the number of operations may not fit in 64 bits. */
static double winograd_cost(const fc_problem *p)
{
    enum { INPUT_OPS = 150, OUTPUT_OPS = 125, LINE_OPS = 50 };
    const double weight_tiles = 4;
    const fc_tiles t = fc_make_tiles(p);
    const int square = p->kernel_h == p->kernel_w;
    const int64_t in = p->in_channels, out_vectors = fc_ceil_div(p->out_channels, p->k->vector_lanes),
                  in_vectors = fc_ceil_div(in, p->k->vector_lanes);
    const double weights = t.taps == 2 ? weight_tiles * (double)(fc_tile_products(&t) * in * out_vectors) : 0;
    return (double)fc_image_products(&t) * (double)(in * out_vectors) +
           (double)(t.rows * t.columns) * (double)((square ? INPUT_OPS : LINE_OPS) * t.phases * in_vectors +
                                                   (square ? OUTPUT_OPS : LINE_OPS) * out_vectors) +
           weights;
}

static int winograd_pays(const fc_problem *p)
{
    if (!fc_conv_winograd_serves(p))
        return 0;
    const double by_taps =
        direct_products(p) * (double)(p->in_channels * fc_ceil_div(p->out_channels, p->k->vector_lanes));
    return p->in_channels >= 8 && p->out_channels >= 8 && winograd_cost(p) * 10 <= by_taps * 9;
}

/* ---- few outputs: costs per image in vector multiplications at the peak, two per cycle. double: they may not fit in 64 bits -----*/
/* A panel of one vector keeps no more than max_rows accumulators busy, of which LATENCY are needed, and takes a load for each and
 * one for the weights. Each row of taps is a loop of its own; an output that is no whole vector goes through a buffer. */
static double direct_cost(const fc_problem *p)
{
    enum { LATENCY = 8, LOOP = 3, WRITE = 2, TAIL = 16 };
    const int64_t lanes = p->k->vector_lanes, out = p->out_channels, vectors = fc_ceil_div(out, lanes);
    const double rows = p->k->gemm->max_rows;
    const double single = (rows + 1 > LATENCY ? rows + 1 : LATENCY) / rows;
    return direct_products(p) * (double)p->in_channels * ((double)(vectors / 2 * 2) + (double)(vectors % 2) * single) +
           (double)(p->y.h * p->y.w) * (double)(vectors * (WRITE + LOOP * p->kernel_h) + (out % lanes ? TAIL : 0));
}

/* Lanes along the row: not all of the last vector are outputs; most loads straddle cache lines, a quarter. Each input is turned. */
static double pixels_cost(const fc_problem *p)
{
    const double multiplications = (double)(p->y.h * fc_ceil_div(p->y.w, p->k->vector_lanes)) *
                                   (double)(p->out_channels * p->kernel_h * p->kernel_w * p->in_channels);
    return multiplications * 1.25 + (double)(p->y.h * p->y.w * p->stride_h * p->stride_w) * (double)p->in_channels;
}

/* Rows that are not much shorter than a vector. A group's window is turned by itself, in pieces of cache lines: that costs as much as
 * some 4 taps per input, of which there are stride_h * stride_w for each output. */
static int pixels_serves(const fc_problem *p)
{
    enum { TURNING_TAPS = 4 };
    return p->out_channels <= FC_PIXELS_MAX_CHANNELS && 2 * p->y.w >= p->k->vector_lanes &&
           (p->groups == 1 || p->kernel_h * p->kernel_w >= TURNING_TAPS * p->stride_h * p->stride_w);
}

/* The products of an input are stored, and each output loads and adds one vector per tap and vector of channels. */
static double taps_cost(const fc_problem *p)
{
    enum { STORE = 6, SUM = 2 };
    const int64_t lanes = p->k->vector_lanes, taps = p->kernel_h * p->kernel_w;
    return (double)(p->x.h * p->x.w) * (double)(fc_ceil_div(taps * p->out_channels, lanes) * (p->in_channels + STORE)) +
           (double)(p->y.h * p->y.w) * (double)(taps * fc_ceil_div(p->out_channels, lanes) * SUM);
}

/* The fastest method where direct leaves lanes of output channels empty, NULL where that is direct nevertheless. Less than a
 * twentieth is no reason. */
static const method *for_few_outputs(const fc_problem *p)
{
    const method *best = NULL;
    double least = direct_cost(p) * 0.95;
    if (pixels_serves(p) && pixels_cost(p) < least)
        best = &pixels, least = pixels_cost(p);
    return fc_conv_taps_serves(p) && taps_cost(p) < least ? &taps : best;
}

/* A phase's pixel is copied a vector at a time; an element of its weight by itself. */
double fc_phases_cost(const fc_problem *p, int gradient)
{
    enum { COPY_OPS = 8, WEIGHT_OPS = 10 };
    const fc_problem q = fc_phases_problem(p, gradient);
    const fc_view *v = gradient ? &q.y : &q.x;
    const int64_t channels = gradient ? q.out_channels : q.in_channels;
    return winograd_cost(&q) + (double)(v->h * v->w * fc_ceil_div(channels, p->k->vector_lanes) * COPY_OPS) +
           (double)(q.in_channels * q.out_channels * q.kernel_h * q.kernel_w) * WEIGHT_OPS;
}

static double least_cost(const fc_problem *p)
{
    const method *few = for_few_outputs(p);
    return few == &taps ? taps_cost(p) : few == &pixels ? pixels_cost(p) : direct_cost(p);
}

static int phases_pay(const fc_problem *p)
{
    return fc_conv_phases_serves(p, 0) && fc_phases_cost(p, 0) < least_cost(p) * 0.9;
}

/* Lanes of channels: taps of a row share what they read. */
static void turn_tall(fc_problem *p)
{
    if ((fc_is_depthwise(p) || fc_is_grouped(p)) && p->kernel_w == 1 && p->kernel_h > 1 && p->y.h >= NARROW)
        turn(p);
}

/* Pairs of an output and a tap along an axis that meet in x. */
static int64_t pairs_inside(int64_t taps, int64_t outputs, int64_t stride, int64_t dilation, int64_t pad, int64_t size)
{
    int64_t pairs = 0;
    for (int64_t t = 0; t < taps; t++) {
        const fc_range r = fc_seeing_outputs(t, outputs, stride, dilation, pad, size);
        pairs += r.end - r.first;
    }
    return pairs;
}

/* Direct convolution multiplies by the padding beside a row, not by that above and below. Turned, it is the other way round: 1x7 at
 * 17x17 has a tenth less to do. Less than 1 / 32 is no reason. */
static int is_better_turned(const fc_problem *p)
{
    const int64_t rows = pairs_inside(p->kernel_h, p->y.h, p->stride_h, p->dilation_h, p->pad_top, p->x.h);
    const int64_t columns = pairs_inside(p->kernel_w, p->y.w, p->stride_w, p->dilation_w, p->pad_left, p->x.w);
    const double now = (double)rows * (double)(p->kernel_w * p->y.w),
                 then = (double)columns * (double)(p->kernel_h * p->y.h);
    return p->y.h >= NARROW && then * 32 < now * 31;
}

/* Lays the problem out and picks its method; NULL when the algorithm asked for cannot serve it. */
static const method *choose(fc_problem *p)
{
    fc_lay_down(p);
    if (p->algorithm == FC_WINOGRAD)
        return fc_conv_winograd_serves(p) ? &winograd : NULL;
    trim(p);
    turn_tall(p);
    if (fc_is_depthwise(p))
        return &depthwise;
    if (fc_is_grouped(p))
        return &grouped;
    const int half_empty = 2 * p->out_channels <= p->k->vector_lanes; /* Winograd's lanes are output channels too */
    if (p->algorithm == FC_AUTO && !half_empty && winograd_pays(p))
        return &winograd;
    if (!half_empty && phases_pay(p))
        return &phases;
    if (fc_conv_whole_serves(p))
        return &whole;
    const method *few = for_few_outputs(p);
    if (few)
        return few;
    if (is_better_turned(p))
        turn(p);
    fc_unroll_rows(p);
    return &direct;
}

double fc_forward_cost(const fc_problem *problem)
{
    fc_problem p = *problem;
    return choose(&p) == &winograd ? winograd_cost(&p) : least_cost(&p);
}

int fc_is_direct(const fc_problem *problem)
{
    fc_problem p = *problem;
    return choose(&p) == &direct;
}

int fc_runs_by_rows(const fc_problem *problem)
{
    fc_problem p = *problem;
    p.weight_u = 0, p.weight_v = 1; /* tell whether it is turned */
    const method *m = choose(&p);
    return (m == &direct || m == &depthwise) && p.weight_u == 0 && p.kernel_h == problem->kernel_h &&
           p.kernel_w == problem->kernel_w;
}

int fc_takes_packed(const fc_problem *problem)
{
    fc_problem p = *problem;
    const method *m = choose(&p);
    return m == &direct || m == &winograd;
}

/* Rows a, a + d, a + 2 d, .. of the output see rows of one residue modulo the dilation d only: d problems without vertical
 * dilation, whose strips have no gaps. Small d gains nothing. */
static fc_problem residue_problem(const fc_problem *p, int64_t a)
{
    const int64_t d = p->dilation_h, item = (int64_t)p->item;
    fc_problem q = *p;
    const int64_t start = a - p->pad_top, residue = (start % d + d) % d;
    q.dilation_h = 1;
    q.pad_top = (residue - start) / d;
    q.y.data = (char *)p->y.data + a * p->y.stride_h * item;
    q.y.h = fc_ceil_div(p->y.h - a, d);
    q.y.stride_h *= d;
    q.residual.data = (char *)fc_residual_at(p, 0, 0, a, 0);
    q.residual.stride_h *= d;
    q.x.data = (char *)p->x.data + residue * p->x.stride_h * item;
    q.x.h = residue < p->x.h ? fc_ceil_div(p->x.h - residue, d) : 0;
    q.x.stride_h *= d;
    return q;
}

typedef struct {
    const fc_problem *p;
    const method *m;
    atomic_int status;
} residues;

static void residue_task(void *context, int64_t a, int slot)
{
    (void)slot;
    residues *r = context;
    const fc_problem q = residue_problem(r->p, a);
    const fc_status status = r->m->run(&q);
    if (status != FC_OK)
        atomic_store(&r->status, (int)status);
}

/* Each residue takes its own scratch, for as many threads as there are: whether there is enough is found out before the first one
 * writes. What is released here is what they take. */
static int can_allocate(const residues *r, int64_t count, int64_t slots)
{
    int64_t most = 0;
    for (int64_t a = 0; a < count; a++) {
        const fc_problem q = residue_problem(r->p, a);
        most = fc_max(most, r->m->scratch(&q));
    }
    char *held = NULL, *block = NULL;
    for (int64_t i = 0; i < slots; i++, held = block) {
        block = fc_scratch_acquire_parts((int64_t)sizeof held, (int)slots, most);
        if (!block)
            break;
        memcpy(block, &held, sizeof held); /* a list */
    }
    while (held) {
        char *next;
        memcpy(&next, held, sizeof next);
        fc_scratch_release(held);
        held = next;
    }
    return block != NULL;
}

/* One after the other, each on all threads, or where that is as even, side by side: they need not wait for each other. */
static fc_status run_by_residue(fc_problem *p, const method *m)
{
    char *packed = NULL;
    if (m == &direct && !p->packed) {
        packed = fc_scratch_acquire((size_t)fc_packed_direct(p) * p->item);
        if (!packed)
            return FC_ENOMEM;
        fc_pack_direct(p, packed);
        fc_use_packed(p, packed);
    }
    residues r = {.p = p, .m = m};
    const int64_t count = fc_min(p->dilation_h, p->y.h), slots = fc_parallel_slots(INT64_MAX);
    const int together = slots > 1 && count % slots == 0;
    if (!can_allocate(&r, count, together ? slots : 1))
        atomic_store(&r.status, (int)FC_ENOMEM);
    else if (together)
        fc_parallel(count, residue_task, &r);
    else
        for (int64_t a = 0; a < count && atomic_load(&r.status) == FC_OK; a++)
            residue_task(&r, a, 0);
    fc_scratch_release(packed);
    return (fc_status)atomic_load(&r.status);
}

fc_status fc_conv_forward(fc_problem *p)
{
    enum { SMALL_DILATION = 2 };
    const method *m = choose(p);
    if (!m)
        return FC_EALGORITHM;
    if (p->nonfinite)
        return fc_conv_by_regions(p);
    if (p->packed && m == &direct && !p->packed_v) /* by fc_conv2d_prepare */
        fc_use_packed(p, p->packed);
    if (p->packed_v && m != &direct && m != &winograd) /* packed for a phase that, laid down, runs otherwise */
        p->packed = NULL;
    const int gaps = p->kernel_h > 1 && p->stride_h == 1 && p->dilation_h > SMALL_DILATION &&
                     ((m != &depthwise && m != &grouped) || p->x.stride_c != 1);
    return gaps ? run_by_residue(p, m) : m->run(p);
}

int64_t fc_forward_scratch(const fc_problem *problem)
{
    fc_problem p = *problem;
    const method *m = choose(&p);
    return m ? m->scratch(&p) : 0;
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
    return plain ? forward(&p, NULL) : fc_guard(&p, w, y, forward, NULL);
}

int64_t fc_conv2d_prepared_bytes(fc_dtype dtype, const fc_conv *c, const fc_view *x, const fc_view *w, const fc_view *y)
{
    fc_problem p = fc_make_problem(dtype, c, x, w, y);
    const method *m = fc_is_empty(y) ? NULL : choose(&p);
    return m ? m->packed(&p) * (int64_t)p.item : 0;
}

fc_status fc_conv2d_prepare(fc_dtype dtype, const fc_conv *c, const fc_view *x, const fc_view *w, const fc_view *y,
                            void *prepared)
{
    fc_problem p = fc_make_problem(dtype, c, x, w, y);
    const method *m = choose(&p);
    return m && fc_is_finite(p.k, p.item, w) ? m->pack(&p, prepared) : FC_EALGORITHM;
}

/* Multiplications of direct convolution against those of the products and, for each pair of channels once per call, the sums of 36
 * points transformed back, which takes as long as 500 (Zen 3). The sums of lines go through memory: they need 32 tiles. The
 * weight's gradient sums over the batch, so here, unlike elsewhere, the batch may count. */
enum { TRANSFORM = 500, LEAST_TILES_OF_LINES = 32 };

static int winograd_gradient_pays(const fc_problem *p)
{
    if (!fc_conv_winograd_grad_serves(p) || !winograd_pays(p))
        return 0;
    const int64_t tiles = fc_make_tiles(p).count;
    if (p->kernel_h != p->kernel_w)
        return tiles >= LEAST_TILES_OF_LINES;
    return p->y.n * p->y.h * p->y.w * p->kernel_h * p->kernel_w > FC_WINOGRAD_MAX_POINTS * tiles + TRANSFORM;
}

/* The same of phases: stride_h * stride_w pairs of channels for each. */
static int phases_gradient_pay(const fc_problem *p)
{
    if (!phases_pay(p))
        return 0;
    fc_problem q = fc_phases_problem(p, 0);
    const int64_t tiles = fc_make_tiles(&q).count, pairs = p->stride_h * p->stride_w;
    if (q.kernel_h != q.kernel_w)
        return tiles >= LEAST_TILES_OF_LINES;
    return p->y.n * p->y.h * p->y.w * p->kernel_h * p->kernel_w > pairs * (FC_WINOGRAD_MAX_POINTS * tiles + TRANSFORM);
}

/* ---- gradient of the weight ----------------------------------------------------------------------------------------*/
static void set_zero(const fc_view *v, int64_t item)
{
    for (int64_t n = 0; n < v->n; n++)
        for (int64_t c = 0; c < v->c; c++)
            for (int64_t h = 0; h < v->h; h++)
                for (int64_t w = 0; w < v->w; w++)
                    memset((char *)v->data +
                               (n * v->stride_n + c * v->stride_c + h * v->stride_h + w * v->stride_w) * item,
                           0, (size_t)item);
}

static int64_t elements(const fc_view *v) { return v->n * v->c * v->h * v->w; }

/* Groups of so few channels that lanes of channels would be mostly empty: for each pair of an input and an output channel
 * of a group, one depthwise problem over every C-th and every K-th channel. Each pair reads the arrays anew, so few pairs. */
static int is_almost_depthwise(const fc_problem *p)
{
    enum { MAX_PAIRS = 4 };
    return p->in_channels * p->out_channels <= MAX_PAIRS && 2 * p->groups >= p->k->vector_lanes;
}

/* Channel `first` of each group. */
static fc_view one_of_each(const fc_view *v, int64_t first, int64_t groups, size_t item)
{
    fc_view s = *v;
    s.data = (char *)v->data + first * v->stride_c * (int64_t)item;
    s.stride_c = v->c / groups * v->stride_c;
    s.c = groups;
    return s;
}

static fc_status grad_weight_by_pairs(const fc_problem *p)
{
    fc_status status = FC_OK;
    for (int64_t c = 0; c < p->in_channels; c++)
        for (int64_t k = 0; k < p->out_channels && status == FC_OK; k++) {
            fc_problem q = *p;
            q.x = one_of_each(&p->x, c, p->groups, p->item);
            q.y = one_of_each(&p->y, k, p->groups, p->item);
            q.in_channels = q.out_channels = 1;
            q.weight += (k * p->weight_k + c * p->weight_c) * (int64_t)p->item;
            status = fc_conv_depthwise_grad_weight(&q);
        }
    return status;
}

/* Multiplications of vectors per output pixel and row of taps. Loads, permutations and sums that come and go take a third more. */
static int grouped_gradient_pays(const fc_problem *p)
{
    const int64_t products = p->in_channels * p->out_channels * p->kernel_w;
    return products * 4 <= fc_direct_grad_weight_cost(p) * p->k->vector_lanes * 3;
}

static fc_status grad_weight_of(const fc_problem *p)
{
    if (p->algorithm == FC_WINOGRAD && !fc_conv_winograd_serves(p))
        return FC_EALGORITHM;
    if (p->algorithm == FC_WINOGRAD &&
        fc_conv_winograd_grad_serves(p)) /* 2 taps and stride 2: forward and grad_input only */
        return fc_conv_winograd_grad_weight(p);
    if (fc_is_depthwise(p))
        return fc_conv_depthwise_grad_weight(p);
    if (fc_is_grouped(p) && grouped_gradient_pays(p))
        return fc_conv_depthwise_grad_weight(p);
    if (is_almost_depthwise(p))
        return grad_weight_by_pairs(p);
    if (p->algorithm == FC_AUTO && winograd_gradient_pays(p))
        return fc_conv_winograd_grad_weight(p);
    return phases_gradient_pay(p) ? fc_conv_phases_grad_weight(p) : fc_conv_direct_grad_weight(p);
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
    if (p.algorithm != FC_WINOGRAD && trim(&p))
        set_zero(grad_weight, (int64_t)p.item);
    turn_tall(&p);
    const fc_status status = grad_weight_of(&p);
    if (status != FC_OK || (grad_weight->h * grad_weight->w == 1 && fc_sees_no_padding(&p)))
        return status;
    const int finite = elements(grad_weight) <= elements(grad_y) + elements(x)
                           ? fc_is_finite(p.k, p.item, grad_weight)
                           : fc_is_finite(p.k, p.item, grad_y) && fc_is_finite(p.k, p.item, x);
    return finite ? FC_OK : fc_conv_grad_weight_by_taps(dtype, c, grad_y, x, grad_weight);
}

/* ---- introspection ---------------------------------------------------------------------------------------------------*/
fc_status fc_conv2d_explain(fc_dtype dtype, const fc_conv *c, const fc_view *x, const fc_view *w, const fc_view *y,
                            fc_explanation *e)
{
    fc_problem p = fc_make_problem(dtype, c, x, w, y);
    const method *m = choose(&p);
    if (!m)
        return FC_EALGORITHM;
    e->algorithm = m->name;
    e->reason = m->reason;
    e->scratch_bytes = m->scratch(&p);
    return FC_OK;
}
