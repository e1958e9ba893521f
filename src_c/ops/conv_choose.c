/* conv_choose.c: who solves a convolution and its gradients: costs of the methods, and the least of them.
 *
 * The choice is a pure function of the shape of one image, of the weight, and of the vector length: neither the batch,
 * nor threads, nor the memory format, nor the machine enter, so the bits depend on none of them. Only the gradient of
 * the weight, a sum over the batch, counts the batch's tiles.
 *
 * A cost is in vector multiplications per image at the peak, two per cycle; it is a double because it may not fit in 64
 * bits. Where the constants come from:
 *
 *     multiplications          counted
 *     latency, loads, stores   instruction tables: 4 cycles, 2 loads and 1 store a cycle, twice for what
 *                              straddles cache lines
 *     transforms, copies       measured, on the machine named beside each constant
 *     0.9, 0.95                a method that is not the plainest has to be better by more than the model's error
 */
#include "../threads.h"
#include "conv_choose.h"
#include "conv_depthwise.h"
#include "winograd_tiles.h"

/* ---- methods ------------------------------------------------------------------------------------------------------*/
/* Rows of planes, of few channels, are read and written by pixels where they lie: direct would turn them. The sums of
 * one tap have the same order, so the same bits; a scale would be multiplied in another way. Measured up to 128
 * channels. */
static int runs_by_pixels(const fc_problem *p)
{
    enum { MAX_CHANNELS = 128 };
    return p->kernel_h * p->kernel_w == 1 && p->out_channels <= FC_PIXELS_MAX_CHANNELS &&
           p->in_channels <= MAX_CHANNELS && p->y.w >= p->k->vector_lanes && p->x.stride_c != 1 && p->y.stride_c != 1 &&
           p->groups == 1 && !p->packed && !p->epilogue.scale;
}

/* Direct turns planes of x and y; lanes along the row copy what they read, and are not all outputs. Cycles for a vector
 * of 16: TURN turns it, COPY takes it into a strip, WRITE is what blocks of turned outputs lose; 1.05 for what the
 * model leaves out. Measured (Zen 4, 28 shapes of 1 to 512 channels): of those that this sends to planes the slowest is
 * as fast as before. No bit depends on it. */
static int runs_by_planes(const fc_problem *p)
{
    enum { TURN = 8, COPY = 8, COPY_STRIDED = 20, WRITE = 2 };
    if (!fc_conv_planes_serves(p))
        return 0;
    const int64_t lanes = p->k->vector_lanes, taps = p->kernel_h * p->kernel_w * p->in_channels,
                  x = fc_ceil_div(p->x.h * p->x.w * p->in_channels, lanes),
                  y = fc_ceil_div(p->y.h * p->y.w * p->out_channels, lanes);
    const double of_planes = (double)(p->y.h * fc_ceil_div(p->y.w, lanes)) *
                             (double)(fc_round_up(p->out_channels, p->k->pixels->planes_channels) * taps) * 1.05,
                 of_direct = (double)(p->y.h * p->y.w) * (double)(fc_ceil_div(p->out_channels, lanes) * taps);
    return of_planes + (double)(x * (p->stride_w == 1 ? COPY : COPY_STRIDED)) <
           of_direct + (double)(x * TURN + y * (TURN + WRITE));
}

static fc_status run_products(const fc_problem *p)
{
    return runs_by_pixels(p) ? fc_conv_pixels(p) : runs_by_planes(p) ? fc_conv_planes(p) : fc_conv_direct(p);
}

static fc_need products_scratch(const fc_problem *p)
{
    return runs_by_pixels(p)   ? fc_conv_pixels_scratch(p)
           : runs_by_planes(p) ? fc_conv_planes_scratch(p)
                               : fc_conv_direct_scratch(p);
}

static const fc_method depthwise = {FC_BY_DEPTHWISE,
                                    "depthwise",
                                    "one input and one output channel per group: lanes are channels",
                                    fc_conv_depthwise,
                                    fc_conv_depthwise_scratch,
                                    fc_packed_depthwise,
                                    fc_pack_depthwise};
static const fc_method flat = {
    FC_BY_FLAT,
    "depthwise",
    "one input and one output channel per group, few of them: lanes are the elements of a row of pixels",
    fc_conv_depthwise_flat,
    fc_conv_depthwise_flat_scratch,
    fc_packed_depthwise_flat,
    fc_pack_depthwise_flat};
static const fc_method grouped = {FC_BY_GROUPS,
                                  "grouped",
                                  "few channels per group: lanes are the output channels of several groups",
                                  fc_conv_depthwise,
                                  fc_conv_depthwise_scratch,
                                  fc_packed_depthwise,
                                  fc_pack_depthwise};
static const fc_method inputs = {
    FC_BY_INPUTS,
    "depthwise",
    "one output and few input channels per group: a depthwise convolution for each input, summed",
    fc_conv_depthwise_inputs,
    fc_conv_depthwise_inputs_scratch,
    fc_packed_depthwise_inputs,
    fc_pack_depthwise_inputs};
static const fc_method pixels = {FC_BY_PIXELS,
                                 "pixels",
                                 "few output channels per group: lanes are neighbouring outputs of a row",
                                 fc_conv_pixels,
                                 fc_conv_pixels_scratch,
                                 fc_packed_pixels,
                                 fc_pack_pixels};
static const fc_method taps = {
    FC_BY_TAPS,
    "taps",
    "few output channels, many input channels: one product per input pixel, then sums over taps",
    fc_conv_taps,
    fc_conv_taps_scratch,
    fc_packed_taps,
    fc_pack_taps};
static const fc_method dots = {FC_BY_DOTS,
                               "dots",
                               "few output channels: lanes are input channels, added up at the end",
                               fc_conv_dots,
                               fc_conv_dots_scratch,
                               fc_packed_dots,
                               fc_pack_dots};
static const fc_method winograd = {
    FC_BY_WINOGRAD,
    "winograd",
    "several taps, stride 1, or a stride below their number, enough channels: along an axis 5 or 6 "
    "multiplications per 2 to 4 outputs and as many taps, 9 or 10 per 4 for 3 or 4 taps of stride 2",
    fc_conv_winograd,
    fc_conv_winograd_scratch,
    fc_packed_winograd,
    fc_pack_winograd};
static const fc_method rows = {FC_BY_ROWS,
                               "winograd",
                               "few input channels, few rows or a stride down the column; several rows of 3 or 5 taps: "
                               "along the row only, 6 multiplications per 4 or 2 outputs of each row of taps",
                               fc_conv_winograd_rows,
                               fc_conv_winograd_rows_scratch,
                               fc_packed_winograd_rows,
                               fc_pack_winograd_rows};
static const fc_method direct = {
    FC_BY_PRODUCTS, "direct",         "matrix products over taps and channels, accumulated in registers",
    run_products,   products_scratch, fc_packed_direct,
    fc_pack_direct};

static const fc_method phases = {
    FC_BY_PHASES,
    "winograd",
    "a stride, enough channels: the phases of the image as channels, and 3 to 5 taps of each",
    fc_conv_phases,
    fc_conv_phases_scratch,
    fc_packed_phases,
    fc_pack_phases};
static const fc_method whole = {FC_BY_WHOLE,
                                "direct",
                                "one output, which sees all inputs: one matrix product over channels and taps",
                                fc_conv_whole,
                                fc_conv_whole_scratch,
                                fc_packed_direct,
                                fc_pack_whole};

int fc_is_depthwise(const fc_problem *p) { return p->in_channels == 1 && p->out_channels == 1 && p->groups > 1; }

/* Whole groups fill a vector of outputs, and a vector holds all inputs that they see. */
int fc_is_grouped(const fc_problem *p)
{
    return p->k->depthwise->spread_rows && p->groups > 1 && p->out_channels > 1 && p->in_channels <= p->out_channels &&
           2 * p->out_channels <= p->k->vector_lanes && p->k->vector_lanes % p->out_channels == 0;
}

/* Groups of so few channels that lanes of channels would be mostly empty: for each pair of an input and an output
 * channel of a group, one depthwise problem over every C-th and every K-th channel. Each pair reads the arrays anew, so
 * few pairs. */
static int is_almost_depthwise(const fc_problem *p)
{
    enum { MAX_PAIRS = 4 };
    return p->in_channels * p->out_channels <= MAX_PAIRS && 2 * p->groups >= p->k->vector_lanes;
}

/* Vector multiplications of direct convolution for each pair of an input and a vector of output channels. It leaves out
 * rows of padding, and columns where a dilation makes them many. */
static double direct_products(const fc_problem *p)
{
    const int64_t rows = p->stride_h == 1 ? fc_pairs_inside(p->kernel_h, p->y.h, 1, p->dilation_h, p->pad_top, p->x.h)
                                          : p->kernel_h * p->y.h,
                  columns = p->stride_w == 1 && p->dilation_w > 1
                                ? fc_pairs_inside(p->kernel_w, p->y.w, 1, p->dilation_w, p->pad_left, p->x.w)
                                : p->kernel_w * p->y.w;
    return (double)rows * (double)columns;
}

/* Of a stride, the channels of a phase are whole parts. */
static int64_t winograd_inputs(const fc_problem *p, const fc_tiles *t)
{
    return t->phases == 1 ? p->in_channels : fc_round_up(p->in_channels, t->k->line);
}

/* Per tile and pair of channels Winograd multiplies once for each of its points and direct (taps) * (outputs of the
 * tile). The transforms, and products that are stored between them, cost per tile as much as so many vector
 * multiplications for each vector of input channels, and of output channels. Of squares, both together: 275 where a
 * core multiplies one vector of 16 per cycle (Zen 4, measured), 1100 where it multiplies two and writes 40 GB/s to its
 * second-level cache (Emerald Rapids, measured); 510 is between them. Of lines 50 each; forward, of vectors of up to
 * 32 bytes, of which every core multiplies two, 75 (Zen 3, 72 shapes: so the choice takes 1.01 times as long as the
 * faster method, with 50 1.05 times). Measured for 36 and 6 points, and not less for 25 and 5, each phase's.
 * Transforming the weights takes as long as the products of 1.5 tiles where caches are written fast (Zen 4, measured),
 * of 9 where the second level takes 40 GB/s and the third 24 (Emerald Rapids, by bytes); 4 is between them, sqrt(1.5 *
 * 9) = 3.7. It counts where Winograd gains least, with 2 taps, and where u is largest, with phases. Of few tiles it is
 * done on the way, by 48 multiplications for the 36 of 3 x 3 with stride 2: 4 / 3. The gradient of the weight stores
 * no products, and of the points of grad_y as many as there are. */
static double tiles_cost(const fc_problem *p, int gradient)
{
    enum { INPUT_OPS = 280, OUTPUT_OPS = 230, LINE_OPS = 50, NARROW_LINE_OPS = 75 };
    const fc_tiles t = fc_make_tiles(p);
    const int square = t.in_h == t.in_w, is_narrow = !gradient && !fc_has_line_vectors(p);
    const int64_t line_ops = is_narrow ? NARROW_LINE_OPS : LINE_OPS;
    const int64_t in = gradient ? p->in_channels : winograd_inputs(p, &t);
    const int64_t output_ops = gradient ? OUTPUT_OPS * t.points / FC_WINOGRAD_MAX_POINTS : OUTPUT_OPS;
    const int64_t out_vectors = fc_ceil_div(p->out_channels, p->k->vector_lanes),
                  in_vectors = fc_ceil_div(in, p->k->vector_lanes);
    return (double)fc_image_products(&t) * (double)(in * out_vectors) +
           (double)(t.residues_h * t.rows * t.columns) *
               (double)((square ? INPUT_OPS : line_ops) * t.phases * in_vectors +
                        (square ? output_ops : line_ops) * out_vectors);
}

static double winograd_cost(const fc_problem *p)
{
    const fc_tiles t = fc_make_tiles(p);
    const double weight_tiles =
        t.residues_h * t.rows * t.columns <= FC_FEW_TILES && fc_multiplies_few_tiles(&t) ? 4.0 / 3 : 4;
    const int64_t out_vectors = fc_ceil_div(p->out_channels, p->k->vector_lanes);
    return tiles_cost(p, 0) + (t.taps == 2 || t.phases > 1
                                   ? weight_tiles * (double)(fc_tile_weights(&t) * winograd_inputs(p, &t) * out_vectors)
                                   : 0);
}

/* Pairs of a row of outputs and one of taps that see x. */
static int64_t rows_inside(const fc_problem *p)
{
    return fc_pairs_inside(p->kernel_h, p->y.h, p->stride_h, p->dilation_h, p->pad_top, p->x.h);
}

/* By rows a tile of each vector of outputs has 6 sums over rows of taps and channels, which are transformed and stored,
 * and a tile of inputs is transformed once for all of them (Zen 4, measured: 22 to 34, the latter with AVX2; 20). A
 * vector that is alone where there could be two takes as long as they: its sums wait for each other. */
static double rows_cost(const fc_problem *p)
{
    enum { OUTPUT_OPS = 34, INPUT_OPS = 24, TAIL = 8 };
    const int64_t lanes = p->k->vector_lanes,
                  vectors = fc_round_up(fc_ceil_div(p->out_channels, lanes), p->k->winograd_line->rows_vectors),
                  rows = fc_min(fc_extent(p->y.h, p->kernel_h, p->stride_h, p->dilation_h), p->x.h),
                  pairs = rows_inside(p);
    const int64_t of_row =
        vectors * OUTPUT_OPS + (p->out_channels % lanes ? TAIL * (FC_WINOGRAD_TILE + 1 - p->kernel_w) : 0);
    return (double)fc_winograd_rows_tiles(p) *
           ((double)(FC_WINOGRAD_TILE * pairs) * (double)(vectors * p->in_channels) + (double)(p->y.h * of_row) +
            (double)rows * (double)(fc_ceil_div(p->in_channels, lanes) * INPUT_OPS));
}

/* A panel of one vector keeps no more than single_rows accumulators busy, of which LATENCY are needed, and takes a load
 * for each and one for the weights. Each row of taps is a loop of its own; an output that is no whole vector goes
 * through a buffer. Of several taps x is mostly copied with its padding: a load and a store, of a pixel's vectors (the
 * last three measured, Emerald Rapids). */
static double direct_cost(const fc_problem *p)
{
    enum { LATENCY = 8, LOOP = 3, WRITE = 2, TAIL = 8, COPY = 4 };
    const int64_t lanes = p->k->vector_lanes, out = p->out_channels, vectors = fc_ceil_div(out, lanes);
    const double rows = p->k->gemm->single_rows;
    const double single = (rows + 1 > LATENCY ? rows + 1 : LATENCY) / rows;
    const double copy = p->kernel_h * p->kernel_w > 1
                            ? (double)(p->x.h * p->x.w) * (double)(fc_ceil_div(p->in_channels, lanes) * COPY)
                            : 0;
    return direct_products(p) * (double)p->in_channels * ((double)(vectors / 2 * 2) + (double)(vectors % 2) * single) +
           (double)(p->y.h * p->y.w) * (double)(vectors * (WRITE + LOOP * p->kernel_h) + (out % lanes ? TAIL : 0)) +
           copy;
}

/* Lanes along the row: not all of the last vector are outputs; most loads straddle cache lines, a quarter. Each input
 * is turned, and each output turned back, some channels of a pixel at a time, which are no whole vectors: 2 and 3
 * (Emerald Rapids, measured). */
static double pixels_cost(const fc_problem *p)
{
    enum { TURN_IN = 2, TURN_OUT = 3 };
    const double multiplications = (double)(p->y.h * fc_ceil_div(p->y.w, p->k->vector_lanes)) *
                                   (double)(p->out_channels * p->kernel_h * p->kernel_w * p->in_channels);
    return multiplications * 1.25 +
           (double)(p->y.h * p->y.w) *
               (double)(p->stride_h * p->stride_w * p->in_channels * TURN_IN + p->out_channels * TURN_OUT);
}

/* Rows that are not much shorter than a vector, and several taps: of one, direct reads x as it lies in less time than
 * turning takes. A group's window is turned by itself, in pieces of cache lines: that costs as much as some 4 taps per
 * input, of which there are stride_h * stride_w for each output. */
static int pixels_serves(const fc_problem *p)
{
    enum { TURNING_TAPS = 4 };
    return p->kernel_h * p->kernel_w > 1 && p->out_channels <= FC_PIXELS_MAX_CHANNELS &&
           2 * p->y.w >= p->k->vector_lanes &&
           (p->groups == 1 || p->kernel_h * p->kernel_w >= TURNING_TAPS * p->stride_h * p->stride_w);
}

/* The products of an input are stored, and each output loads and adds one vector per tap and vector of channels, most
 * of which straddle cache lines. By rows it is less, which is not counted: it changed no choice for the better. */
static double taps_cost(const fc_problem *p)
{
    const int64_t lanes = p->k->vector_lanes, taps = p->kernel_h * p->kernel_w;
    return (double)(p->x.h * p->x.w) *
               (double)(fc_ceil_div(taps * p->out_channels, lanes) * (p->in_channels + FC_TAPS_STORE)) +
           (double)(p->y.h * p->y.w) * (double)(taps * fc_ceil_div(p->out_channels, lanes) * FC_TAPS_SUM);
}

/* A tile of pixels loads its weights once and each of its pixels, most of which straddle cache lines. Adding up the
 * lanes of a vector of sums takes 5 shuffles and additions each, storing them and copying the line 3. The last tile of
 * a row is a whole one, and an output that sees the padding is by itself, where one step of a sum waits for the other
 * (4 cycles). Measured (Zen 4, 7 shapes): 1.3 to 1.5 times as long. */
static double dots_cost(const fc_problem *p)
{
    enum { SUM = 8, LATENCY = 4 };
    const double slower = 1.4; /* than these counts */
    const int64_t lanes = p->k->vector_lanes, out = p->out_channels, pixels = lanes / out, taps = p->kernel_w;
    const int64_t runs = p->dilation_w == 1 ? 1 : taps;
    const int64_t steps = p->kernel_h * runs * fc_ceil_div(p->in_channels * taps / runs, lanes);
    const fc_range first = fc_seeing_outputs(0, p->y.w, p->stride_w, p->dilation_w, p->pad_left, p->x.w),
                   last = fc_seeing_outputs(taps - 1, p->y.w, p->stride_w, p->dilation_w, p->pad_left, p->x.w);
    const int64_t inside = fc_max(0, fc_min(first.end, last.end) - fc_max(first.first, last.first)),
                  tiles = fc_ceil_div(inside, pixels);
    const int64_t tile = steps * fc_max(out * pixels, out + pixels) + SUM * out * pixels,
                  single = steps * fc_max(out, LATENCY) + SUM * out;
    return slower * ((double)(p->y.h * tiles) * (double)tile + (double)(p->y.h * (p->y.w - inside)) * (double)single);
}

/* The fastest method where direct leaves lanes of output channels empty, NULL where that is direct nevertheless, and
 * its cost. Less than a twentieth is no reason. */
static const fc_method *for_few_outputs(const fc_problem *p, double *cost)
{
    const double by_products = direct_cost(p);
    const fc_method *best = NULL;
    double least = by_products * 0.95;
    if (pixels_serves(p) && pixels_cost(p) < least)
        best = &pixels, least = pixels_cost(p);
    if (fc_conv_taps_serves(p) && taps_cost(p) < least)
        best = &taps, least = taps_cost(p);
    if (fc_conv_dots_serves(p) && dots_cost(p) < least)
        best = &dots, least = dots_cost(p);
    *cost = best ? least : by_products;
    return best;
}

/* A phase's pixel is copied a vector at a time; an element of its weight by itself. */
static double phases_cost(const fc_problem *p, int gradient)
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
    double cost;
    for_few_outputs(p, &cost);
    return cost;
}

/* Winograd's lanes are output channels too: half empty, it pays where a pixel's inputs are whole vectors. */
static int winograd_pays(const fc_problem *p)
{
    const double margin = 2 * p->out_channels <= p->k->vector_lanes ? 0.7 : 0.9;
    const int64_t least_in = 2 * p->out_channels <= p->k->vector_lanes ? p->k->vector_lanes : 8;
    if (!fc_conv_winograd_serves(p) || p->in_channels < least_in)
        return 0;
    const double cost = winograd_cost(p);
    return cost <= least_cost(p) * margin && !(fc_conv_phases_serves(p, 0) && phases_cost(p, 0) < cost);
}

/* Rows read all weights for each block, squares once for many tiles: beyond 8 channels they must be a fifth cheaper
 * (5x5 with stride (2, 1), 64 -> 96 at 40x40, would take 1.25 of the time). */
static double price_of_rows(const fc_problem *p)
{
    enum { FEW = 8 };
    return p->in_channels > FEW ? 1.2 : 1;
}

/* Shorter sums would be so exact that the transform stands out: its error is 2.0 times that of a plain sum of 6 rows
 * of 3 taps, 2.4 times of 3; outputs of few rows see as few rows of taps. Of a vector and a half of outputs direct
 * multiplies no more than that. */
static int rows_pay(const fc_problem *p)
{
    enum { LEAST_ROWS = 6 };
    const int64_t lanes = p->k->vector_lanes, out = p->out_channels, seen = fc_ceil_div(rows_inside(p), p->y.h);
    const double margin = out > lanes && 2 * out <= 3 * lanes ? 0.6 : 0.9;
    if (!fc_conv_winograd_rows_serves(p) || seen * p->in_channels < LEAST_ROWS || 2 * out <= lanes)
        return 0;
    const double cost = rows_cost(p);
    return cost <= least_cost(p) * margin &&
           !(fc_conv_phases_serves(p, 0) && phases_cost(p, 0) < cost * price_of_rows(p));
}

/* The error of squares is 1.5 to 2 times that of rows (docs/accuracy.md): they have to be faster by a tenth. */
static int prefers_rows(const fc_problem *p)
{
    return fc_conv_winograd_rows_serves(p) && rows_cost(p) * 0.9 * price_of_rows(p) < winograd_cost(p);
}

static const fc_method *for_winograd(const fc_problem *p)
{
    if (p->algorithm == FC_WINOGRAD)
        return !fc_conv_winograd_serves(p) ? NULL : prefers_rows(p) ? &rows : &winograd;
    const int squares = winograd_pays(p);
    if (rows_pay(p) && (!squares || prefers_rows(p)))
        return &rows;
    return squares ? &winograd : NULL;
}

static int phases_pay(const fc_problem *p)
{
    return fc_conv_phases_serves(p, 0) && 2 * p->out_channels > p->k->vector_lanes &&
           phases_cost(p, 0) < least_cost(p) * 0.9;
}

/* ---- forward ------------------------------------------------------------------------------------------------------*/
const fc_method *fc_choose(fc_problem *p)
{
    fc_lay_down(p);
    if (p->algorithm == FC_WINOGRAD)
        return for_winograd(p);
    fc_trim(p);
    fc_turn_tall(p);
    if (fc_is_depthwise(p))
        return fc_conv_depthwise_flat_serves(p) ? &flat : &depthwise;
    if (fc_is_grouped(p))
        return &grouped;
    if (is_almost_depthwise(p) && p->out_channels == 1 && p->groups >= p->k->vector_lanes &&
        p->kernel_h * p->kernel_w > 1)
        return &inputs;
    const fc_method *by_winograd = p->algorithm == FC_AUTO ? for_winograd(p) : NULL;
    if (by_winograd)
        return by_winograd;
    if (phases_pay(p))
        return &phases;
    if (fc_conv_whole_serves(p))
        return &whole;
    double cost;
    const fc_method *few = for_few_outputs(p, &cost);
    if (!few)
        fc_turn_where_better(p);
    if (!few || few == &dots)
        fc_unroll_rows(p);
    return few ? few : &direct;
}

double fc_forward_cost(const fc_problem *problem)
{
    fc_problem p = *problem;
    const fc_method *m = fc_choose(&p);
    return m == &winograd ? winograd_cost(&p) : m == &rows ? rows_cost(&p) : least_cost(&p);
}

int fc_is_direct(const fc_problem *problem)
{
    fc_problem p = *problem;
    return fc_choose(&p) == &direct;
}

int fc_runs_by_rows(const fc_problem *problem)
{
    fc_problem p = *problem;
    p.weight_u = 0, p.weight_v = 1; /* tell whether it is turned */
    const fc_method *m = fc_choose(&p);
    return (m == &direct || m == &depthwise) && p.weight_u == 0 && p.kernel_h == problem->kernel_h &&
           p.kernel_w == problem->kernel_w;
}

int fc_takes_packed(const fc_problem *problem)
{
    fc_problem p = *problem;
    const fc_method *m = fc_choose(&p);
    return m == &direct || m == &winograd;
}

/* ---- gradient of the input: phases of the stride, see conv_grad_input.c -------------------------------------------*/
int fc_phases_grad_input_pay(const fc_problem *p, double apart)
{
    return fc_conv_phases_serves(p, 1) && phases_cost(p, 1) < apart * 0.9;
}

/* ---- gradient of the weight ---------------------------------------------------------------------------------------*/
/* Multiplications of direct convolution against those of the products and, for each pair of channels once per call, the
 * sums of 36 points transformed back, which takes as long as 500 (Zen 3), of few tiles, where they are in registers, 54
 * and the way of 9 taps into the weight, as long as 150 (Zen 4), and those of all phases in proportion. The sums of
 * lines go through memory: they need 32 tiles. The weight's gradient sums over the batch, so here, unlike elsewhere,
 * the batch may count. */
enum { TRANSFORM = 500, FEW_TRANSFORM = 150, LEAST_TILES_OF_LINES = 32 };

/* Few channels: for each vector of outputs of a tile the products with what a sum costs, and the transform of its
 * outputs (out * out of them) with 36 stores; for each pixel its copies and its part of the transform of the inputs.
 * Taps that direct gathers are copied for each of kernel_w. Measured (Zen 4, AVX-512, 3 to 7 -> 16 and 64 channels).
 * The least tiles: of fewer the rms error, that of the transforms, exceeds 1.5 times that of a sequential sum. */
static int thin_gradient_pays(const fc_problem *p, const fc_tiles *t)
{
    enum { PRODUCTS = 42, STORES = 100, OUTPUT = 6, PIXEL = 11, GATHER = 8, LEAST_TILES = 128 };
    const int64_t vectors = fc_ceil_div(p->out_channels, p->k->vector_lanes), out = t->out_h * t->out_w,
                  tile = vectors * (PRODUCTS * p->in_channels + STORES + OUTPUT * out) + PIXEL * out,
                  pixel = p->kernel_h * fc_direct_grad_weight_cost(p) + (p->dilation_w > 1 ? GATHER * p->kernel_w : 0);
    return t->count >= LEAST_TILES && (double)(t->residues_h * t->rows * t->columns) * (double)tile <
                                          (double)(p->y.h * p->y.w) * (double)pixel * 0.9;
}

static int winograd_gradient_pays(const fc_problem *p)
{
    int64_t row = p->kernel_w * p->in_channels * fc_ceil_div(p->out_channels, p->k->vector_lanes);
    /* Lanes of few outputs are taps too, which is counted for groups only: 32 groups of 8 channels are 1.25 times as
     * fast by taps as by Winograd, one group of 8 is 0.9 times as fast (Zen 4). */
    if (p->groups > 1)
        row = fc_min(row, fc_direct_grad_weight_cost(p));
    const double by_taps = direct_products(p) / (double)p->kernel_w * (double)row;
    if (!fc_conv_winograd_serves(p) || p->out_channels < 8)
        return 0;
    const fc_tiles t = fc_make_tiles(p);
    if (p->in_channels < 8)
        return fc_is_thin(&t) && thin_gradient_pays(p, &t);
    if (tiles_cost(p, 1) > by_taps * 0.9)
        return 0;
    if (t.in_h != t.in_w)
        return t.count >= LEAST_TILES_OF_LINES;
    const int64_t points = fc_tile_products(&t);
    return p->y.n * p->y.h * p->y.w * p->kernel_h * p->kernel_w >
           points * t.count + (fc_sums_few_tiles(&t) ? FEW_TRANSFORM : TRANSFORM) * points / FC_WINOGRAD_MAX_POINTS;
}

/* The same of phases: stride_h * stride_w pairs of channels for each. */
static int phases_gradient_pay(const fc_problem *p)
{
    if (!phases_pay(p))
        return 0;
    fc_problem q = fc_phases_problem(p, 0);
    const fc_tiles t = fc_make_tiles(&q);
    if (t.in_h != t.in_w)
        return t.count >= LEAST_TILES_OF_LINES;
    const int64_t points = fc_tile_products(&t), pairs = p->stride_h * p->stride_w;
    return p->y.n * p->y.h * p->y.w * p->kernel_h * p->kernel_w >
           pairs * (points * t.count + TRANSFORM * points / FC_WINOGRAD_MAX_POINTS);
}

/* Multiplications of vectors per output pixel and row of taps. Loads, permutations and sums that come and go take a
 * third more, a fifth where neighbouring outputs share inputs (3x3, 32 groups of 8 channels, Zen 4: 1.18 times as fast
 * with stride 1, 0.85 with 2) or vectors are shorter (AVX2, stride 2, groups of 4: 1.5 to 2.6 times). */
static int grouped_gradient_pays(const fc_problem *p)
{
    const int64_t products = p->in_channels * p->out_channels * p->kernel_w,
                  direct = fc_direct_grad_weight_cost(p) * p->k->vector_lanes;
    return p->stride_w == 1 || !fc_has_line_vectors(p) ? products * 6 < direct * 5 : products * 4 < direct * 3;
}

/* A sum that waits for the one before takes 8 multiplications where there are two a cycle, 4 where there is one: 0.7 is
 * between. */
static int correlate_pays(const fc_problem *p)
{
    const int64_t row = fc_direct_grad_weight_cost(p);
    return fc_correlate_grad_weight_cost(p) < (double)(p->y.h * p->y.w) * (double)(p->kernel_h * row) * 0.7;
}

fc_run *fc_choose_grad_weight(const fc_problem *p)
{
    if (p->algorithm == FC_WINOGRAD)
        return fc_conv_winograd_serves(p) ? fc_conv_winograd_grad_weight : NULL;
    if (fc_is_depthwise(p) || (fc_is_grouped(p) && grouped_gradient_pays(p)))
        return fc_conv_depthwise_grad_weight;
    if (is_almost_depthwise(p))
        return fc_conv_depthwise_grad_weight_by_pairs;
    if (correlate_pays(p))
        return fc_conv_correlate_grad_weight;
    if (p->algorithm == FC_AUTO && winograd_gradient_pays(p))
        return fc_conv_winograd_grad_weight;
    return phases_gradient_pay(p) ? fc_conv_phases_grad_weight : fc_conv_direct_grad_weight;
}

/* ---- introspection ------------------------------------------------------------------------------------------------*/
fc_status fc_conv2d_explain(fc_dtype dtype, const fc_conv *c, const fc_view *x, const fc_view *w, const fc_view *y,
                            fc_explanation *e)
{
    const fc_problem problem = fc_make_problem(dtype, c, x, w, y);
    fc_problem p = problem;
    const fc_method *m = fc_choose(&p);
    if (!m)
        return FC_EALGORITHM;
    e->algorithm = m->name;
    e->reason = m->reason;
    fc_work_alone(1);
    e->scratch_bytes = fc_forward_scratch(&problem);
    fc_work_alone(0);
    return FC_OK;
}
