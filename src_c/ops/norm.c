/* norm.c: batch normalisation, forward and gradient.
 *
 * Sums run over chunks in the array's precision and about a pivot, then over chunks in double precision: CHUNKS of them
 * per task one after the other, and the tasks in order. A chunk is a part of an image, or several whole small ones, of
 * at most FC_NORM_CHUNK pixels. The same for every layout and number of threads: what is summed in which order is told
 * in kernels/norm.tmpl.h, where a vector holds channels (channels-last) or pixels (channels-first).
 *
 * The pivot is the mean of the batch where that is known, otherwise of the chunk's first FC_NORM_TYPICAL pixels. The
 * sum of squares of a chunk is found from its k differences d to the pivot as sum d^2 - (sum d)^2 / k. What is
 * subtracted is k (mean - pivot)^2 <= k / 64 * (sum of squares): at most 16 times what remains, whatever the mean is
 * and wherever an outlier lies, and about 1/64 of it for values in no particular order. So the gradient, too, needs to
 * read x only once before the map: the sum of g (x - mean) follows from that of g (x - pivot), the mean and the sum of
 * g.
 */
#include "../scratch.h"
#include "../threads.h"
#include "norm.h"

#include <math.h>
#include <string.h>

enum {
    CHUNKS = 2,        /* chunks per task where there are many: with 64 channels 20 us */
    LEAST_PARTS = 4,   /* tasks along the pixels that are enough to share out: then each takes whole pixels */
    TASK_VALUES = 1 << 14, /* of a task of whole channels, at least: 10 us */
    SUMS = 5,          /* what a kernel puts out by channel */
};

/* ---- chunks ------------------------------------------------------------------------------------------------------*/
static void cut_chunks(fc_norm_call *call)
{
    const int64_t pieces = fc_parts(call->plane, FC_NORM_CHUNK),
                  four = 4 * 64; /* pixels: whole steps of every kernel */
    call->chunk_images = fc_greater(1, FC_NORM_CHUNK / call->plane);
    call->chunk_pixels = pieces == 1 ? call->plane : fc_parts(fc_parts(call->plane, pieces), four) * four;
    call->chunks = fc_parts(call->x.n, call->chunk_images) * fc_parts(call->plane, call->chunk_pixels);
}

typedef struct {
    int64_t n, images, begin, pixels; /* pixels [begin, begin + pixels) of images [n, n + images) */
} chunk;

static chunk chunk_at(const fc_norm_call *call, int64_t i)
{
    const int64_t pieces = fc_parts(call->plane, call->chunk_pixels);
    chunk k = {.n = i / pieces * call->chunk_images, .begin = i % pieces * call->chunk_pixels};
    k.images = fc_lesser(call->chunk_images, call->x.n - k.n);
    k.pixels = fc_lesser(call->chunk_pixels, call->plane - k.begin);
    return k;
}

/* Pixels of the chunks before this one */
static int64_t pixels_before(const fc_norm_call *call, int64_t i)
{
    if (i >= call->chunks)
        return call->pixels;
    const chunk k = chunk_at(call, i);
    return k.n * call->plane + k.begin;
}

/* ---- sums --------------------------------------------------------------------------------------------------------*/
/* A value of an array of the call's precision */
static double value(const fc_norm_call *call, const char *array, int64_t i)
{
    return call->dtype == FC_F32 ? ((const float *)array)[i] : ((const double *)array)[i];
}

/* The sums of a kernel, and the same in double precision, [lanes] each */
typedef struct {
    char *values[SUMS];
    double *doubles[SUMS];
    char *partial, *tiles;
} sums_slot;

static size_t slot_bytes(const fc_norm_call *call)
{
    return SUMS * (fc_norm_aligned(call->lanes * (int64_t)call->item) + fc_norm_aligned(call->lanes * 8)) +
           2 * FC_NORM_PARTIAL_BYTES + 4 * call->tile_bytes;
}

static sums_slot slot_of(const fc_norm_call *call, int slot)
{
    char *at = call->slots + (size_t)slot * call->slot_bytes;
    sums_slot s;
    for (int i = 0; i < SUMS; i++, at += fc_norm_aligned(call->lanes * (int64_t)call->item))
        s.values[i] = at;
    for (int i = 0; i < SUMS; i++, at += fc_norm_aligned(call->lanes * 8))
        s.doubles[i] = (double *)at;
    s.partial = at;
    s.tiles = at + 2 * FC_NORM_PARTIAL_BYTES;
    return s;
}

static void widen(const fc_norm_call *call, const char *from, double *to, int64_t count)
{
    if (call->dtype == FC_F32)
        for (int64_t i = 0; i < count; i++)
            to[i] = ((const float *)from)[i];
    else
        memcpy(to, from, (size_t)count * 8);
}

/* By channel: mean, sum of squared differences to it, sum of g, sum of g * (x - mean) */
typedef struct {
    double *restrict mean, *restrict square, *restrict grad, *restrict product;
} moments;

static moments moments_at(const fc_norm_call *call, int64_t part, int64_t c)
{
    const int64_t at = part * call->channels + c;
    return (moments){call->means + at, call->squares + at, call->grads + at, call->products + at};
}

/* From the sums of a chunk about its pivot, d (pivot, sum, square, grad, product), to moments in place: d[0], d[2],
 * d[3], d[4]. */
static moments to_moments(const fc_norm_call *call, double *const *d, int64_t count, int64_t lanes)
{
    const double inv = 1 / (double)count;
    double *restrict mean = d[0], *restrict sum = d[1], *restrict square = d[2];
    if (call->wanted & FC_NORM_STATISTICS)
        for (int64_t i = 0; i < lanes; i++) {
            const double off = sum[i] * inv, rest = square[i] - off * sum[i];
            mean[i] += off;
            square[i] = rest < 0 ? 0 : rest;
            sum[i] = off;
        }
    if (call->wanted == FC_NORM_BOTH)
        for (int64_t i = 0; i < lanes; i++)
            d[4][i] -= sum[i] * d[3][i];
    return (moments){d[0], d[2], d[3], d[4]};
}

/* The moments of `count` and of `more` values together (Chan, Golub & LeVeque 1979); of none (count 0) and more: those
 * of more. */
static void combine(const fc_norm_call *call, moments all, int64_t count, moments other, int64_t more, int64_t lanes)
{
    const double share = (double)more / (double)(count + more), both = (double)count * share;
    if (count == 0) {
        double *const to[] = {all.mean, all.square, all.grad, all.product};
        double *const from[] = {other.mean, other.square, other.grad, other.product};
        for (int i = 0; i < 4; i++)
            if (call->wanted & (i < 2 ? FC_NORM_STATISTICS : FC_NORM_GRADIENT))
                memcpy(to[i], from[i], (size_t)lanes * 8);
        return;
    }
    if (call->wanted == FC_NORM_BOTH) /* first, while the means are the old ones */
        for (int64_t i = 0; i < lanes; i++) {
            const double delta = other.mean[i] - all.mean[i];
            all.product[i] += other.product[i] + delta * ((1 - share) * other.grad[i] - share * all.grad[i]);
            all.grad[i] += other.grad[i];
        }
    if (call->wanted & FC_NORM_STATISTICS)
        for (int64_t i = 0; i < lanes; i++) {
            const double delta = other.mean[i] - all.mean[i];
            all.mean[i] += delta * share;
            all.square[i] += other.square[i] + delta * delta * both;
        }
    if (call->wanted == FC_NORM_GRADIENT)
        for (int64_t i = 0; i < lanes; i++) {
            all.grad[i] += other.grad[i];
            all.product[i] += other.product[i];
        }
}

/* The arrays of a chunk, in place or as tiles */
static void read_chunk(const fc_norm_call *call, const chunk *k, int64_t c, int64_t lanes, char *tiles, fc_norm_sums *s)
{
    const int64_t q = k->n * call->plane + k->begin, count = k->images * k->pixels;
    const fc_view *const views[] = {&call->x, &call->g, &call->out, &call->gated};
    fc_norm_pixels *const arrays[] = {&s->x, &s->g, &s->y, &s->gated};
    for (int i = 0; i < 4; i++) {
        char *tile = tiles + (size_t)i * call->tile_bytes;
        if (!views[i]->data)
            continue;
        if (call->by_planes)
            *arrays[i] =
                (fc_norm_pixels){fc_norm_pixel_at(call, views[i], q, c), views[i]->stride_c, views[i]->stride_n};
        else if (i < 3)
            *arrays[i] = fc_norm_read(call, views[i], q, count, c, lanes, tile);
        else if (fc_norm_pixel_step(views[i]))
            *arrays[i] = (fc_norm_pixels){fc_norm_pixel_at(call, views[i], q, c), fc_norm_pixel_step(views[i]),
                                          views[i]->stride_n};
        else
            *arrays[i] = (fc_norm_pixels){tile, FC_NORM_LANES, call->plane * FC_NORM_LANES};
    }
}

/* The moments of one part for channels [c, c + lanes) */
static void sum_part(const fc_norm_call *call, int64_t part, int64_t c, int64_t lanes, const sums_slot *slot)
{
    const fc_norm_channels by = call->by_planes ? call->by : fc_norm_by_channel(call, c);
    const moments all = moments_at(call, part, c);
    const int64_t first = part * call->part, end = fc_lesser(call->chunks, first + call->part);
    fc_norm_sums s = {.wanted = call->wanted,
                      .gate = call->gate,
                      .maps = call->maps,
                      .images_follow = call->together,
                      .centre = slot->values[0],
                      .sum = slot->values[1],
                      .square = slot->values[2],
                      .grad = slot->values[3],
                      .product = slot->values[4],
                      .partial = slot->partial};
    for (int64_t i = first, seen = 0; i < end; i++) {
        const chunk k = chunk_at(call, i);
        s.images = k.images, s.pixels = k.pixels;
        s.typical = fc_lesser(k.images, fc_parts(FC_NORM_TYPICAL, k.pixels));
        read_chunk(call, &k, c, lanes, slot->tiles, &s);
        if (call->by_planes)
            call->k->norm->sums_plane(c, lanes, &by, &s);
        else
            call->k->norm->sums_last(lanes, &by, &s);
        char *const last = slot->tiles + 3 * call->tile_bytes;
        if (s.gated.data == last)
            fc_norm_move_tile(call, &call->gated, k.n * call->plane + k.begin, k.images * k.pixels, c, lanes, last, 1);
        for (int q = 0; q < SUMS; q++)
            if (call->wanted & (q < 3 ? FC_NORM_STATISTICS : FC_NORM_GRADIENT))
                widen(call, slot->values[q], slot->doubles[q], lanes);
        const int64_t more = k.images * k.pixels;
        combine(call, all, seen, to_moments(call, slot->doubles, more, lanes), more, lanes);
        seen += more;
    }
}

static void sum_channels(const fc_norm_call *call, int64_t part, int64_t c, int64_t lanes, int slot)
{
    const sums_slot s = slot_of(call, slot);
    sum_part(call, part, c, lanes, &s);
    if (call->by.stream && (call->maps || call->gate == FC_GATE_OUTPUT)) /* the sums write, too */
        call->k->fence();
}

/* Row 0 of the moments: those of the batch */
static void combine_parts(const fc_norm_call *call, int64_t c, int64_t lanes)
{
    for (int64_t part = 1; part < call->pixel_parts; part++) {
        const int64_t seen = pixels_before(call, part * call->part), end = pixels_before(call, (part + 1) * call->part);
        combine(call, moments_at(call, 0, c), seen, moments_at(call, part, c), end - seen, lanes);
    }
}

static void sum_task(void *context, int64_t task, int slot)
{
    const fc_norm_call *call = context;
    const int64_t c = task % call->lane_parts * call->lanes;
    sum_channels(call, task / call->lane_parts, c, fc_lesser(call->lanes, call->channels - c), slot);
}

/* ---- plan --------------------------------------------------------------------------------------------------------*/
static void set(const fc_norm_call *call, char *array, int64_t c, double v)
{
    if (call->dtype == FC_F32)
        ((float *)array)[c] = (float)v;
    else
        ((double *)array)[c] = v;
}

static double parameter(const fc_norm_call *call, const void *array, int64_t c, double otherwise)
{
    return array ? value(call, array, c) : otherwise;
}

/* Channels of a task where pixels are few: those that a kernel sums at a time, 64 with AVX-512, 128 with AVX2, but no
 * more than leave every thread a task. */
static int64_t task_lanes(const fc_norm_call *call)
{
    enum { LEAST = 64 };
    const int64_t most = FC_NORM_PARTIAL_BYTES / (FC_NORM_FOUR * call->k->vector_lanes * (int64_t)call->item),
                  share = fc_parts(call->channels, fc_parallel_slots(call->channels));
    return fc_greater(LEAST, fc_lesser(most, fc_parts(share, LEAST) * LEAST));
}

/* How the sums walk, and what a task of them takes. By planes a task does everything for its channels, whose values are
 * still in the second-level cache when they are mapped; with maps of their own the sums go in the order of memory.
 * Pixels are mapped by rows of all channels: that pays for the second read (512 channels at 7x7, 1.1 times as fast as
 * pieces of 64 channels, from the second-level cache). */
static void cut_tasks(fc_norm_call *call, const fc_view *const *views, int count)
{
    int in_place = 1, planes = call->gate != FC_GATE_OUTPUT;
    for (int i = 0; i < count; i++) {
        in_place &= fc_norm_pixel_step(views[i]) != 0;
        planes &= fc_norm_is_plane(views[i]);
    }
    call->by_planes = planes && (!in_place || call->channels == 1);
    const int tiles = !in_place && !call->by_planes;
    const int64_t pieces =
        fc_parts(call->plane, call->chunk_pixels); /* of an image; a part is a whole one where there are many */
    call->part = fc_greater(1, fc_lesser(fc_greater(CHUNKS, pieces), call->chunks / LEAST_PARTS));
    call->pixel_parts = fc_parts(call->chunks, call->part);
    call->together = call->by_planes && !call->maps && call->channels >= 8 * fc_parallel_slots(call->channels);
    if (tiles)
        call->lanes = FC_NORM_LANES;
    else if (call->by_planes)
        call->lanes =
            fc_greater(1, TASK_VALUES / (call->together ? call->pixels : fc_parts(call->pixels, call->pixel_parts)));
    else
        call->lanes = call->pixel_parts >= LEAST_PARTS ? call->channels : task_lanes(call);
    call->lanes = fc_lesser(call->lanes, call->channels);
    call->lane_parts = fc_parts(call->channels, call->lanes);
    call->tile_bytes = tiles ? fc_norm_aligned(FC_NORM_CHUNK * FC_NORM_LANES * (int64_t)call->item) : 0;
    call->slot_bytes = slot_bytes(call);
    call->slot_count = fc_parallel_slots(call->together ? call->lane_parts : call->pixel_parts * call->lane_parts);
}

/* One image of n pixels and n images of one pixel are the same. */
static void merge_pixels(fc_view *v)
{
    if (v->data)
        v->w = v->n, v->stride_w = v->stride_n, v->n = 1;
}

/* Cuts the sums, fills `by` and acquires all scratch: only this may fail, and nothing is written yet. `views` are those
 * that sums read or write, `other` is what the map reads beside x. */
static fc_status prepare(fc_norm_call *call, const fc_view *const *views, int count, const fc_view *other,
                         char **scratch)
{
    const fc_batch_norm *norm = call->norm;
    call->channels = call->x.c;
    call->plane = call->x.h * call->x.w;
    call->pixels = call->x.n * call->plane;
    cut_chunks(call);
    cut_tasks(call, views, count);

    const size_t doubles = fc_norm_aligned(call->channels * 8),
                 values = fc_norm_aligned(call->channels * (int64_t)call->item);
    const size_t parts = fc_norm_aligned(call->pixel_parts * call->channels * 8);
    const int64_t map_tiles = fc_norm_map_tiles(call, other);
    if (map_tiles) {
        const int64_t tile = (int64_t)fc_norm_aligned(FC_NORM_TILE * FC_NORM_LANES * (int64_t)call->item);
        call->map_slot_count = fc_parallel_slots(map_tiles);
        call->slot_bytes = (size_t)fc_greater((int64_t)call->slot_bytes, FC_NORM_MAP_TILES * tile);
        call->together = 0;
    }
    char *at =
        fc_scratch_acquire_parts((int64_t)(2 * doubles + 4 * parts + 5 * values),
                                 (int)fc_greater(call->slot_count, call->map_slot_count), (int64_t)call->slot_bytes);
    if (!at)
        return FC_ENOMEM;
    *scratch = at;
    call->mean = (double *)at, at += doubles;
    call->inv = (double *)at, at += doubles;
    call->means = (double *)at, at += parts;
    call->squares = (double *)at, at += parts;
    call->grads = (double *)at, at += parts;
    call->products = (double *)at, at += parts;
    call->centre = at, at += values;
    call->gain = at, at += values;
    call->shift = at, at += values;
    call->slope = at, at += values;
    call->offset = at, at += values;
    call->slots = at;
    call->by = (fc_norm_channels){.centre = call->centre,
                                  .gain = call->gain,
                                  .shift = call->shift,
                                  .offset = call->offset,
                                  .lower = norm->lower,
                                  .upper = norm->upper,
                                  .low = norm->lower == -INFINITY ? NAN : norm->lower,
                                  .high = norm->upper == INFINITY ? NAN : norm->upper};
    return FC_OK;
}

/* ---- entry points ------------------------------------------------------------------------------------------------*/
/* mean and inv of channels [c, c + lanes) from the batch, the saved values or the running statistics */
static void find_mean(const fc_norm_call *call, int forward, int64_t c, int64_t lanes)
{
    const fc_batch_norm *b = call->norm;
    for (int64_t i = c; i < c + lanes; i++) {
        if (b->saved && !forward) {
            call->mean[i] = b->saved[i], call->inv[i] = b->saved[call->channels + i];
            continue;
        }
        const double var = b->training ? call->squares[i] / (double)call->pixels : value(call, b->running_var, i);
        call->mean[i] = b->training ? call->means[i] : value(call, b->running_mean, i);
        call->inv[i] = 1 / sqrt(var + b->eps);
        if (b->saved)
            b->saved[i] = call->mean[i], b->saved[call->channels + i] = call->inv[i];
    }
}

/* The difference to a centre that the array's precision holds is exact near the mean; the rest goes to the shift. */
static void find_line(const fc_norm_call *call, int64_t c, int64_t lanes)
{
    for (int64_t i = c; i < c + lanes; i++) {
        set(call, call->centre, i, call->mean[i]);
        const double gain = parameter(call, call->norm->weight, i, 1) * call->inv[i];
        set(call, call->gain, i, gain);
        set(call, call->shift, i,
            parameter(call, call->norm->bias, i, 0) - (call->mean[i] - value(call, call->centre, i)) * gain);
    }
}

static void update_running(const fc_norm_call *call)
{
    const fc_batch_norm *b = call->norm;
    for (int64_t c = 0; c < call->channels; c++) {
        const double unbiased = call->squares[c] / (double)(call->pixels - 1);
        if (b->running_mean)
            set(call, b->running_mean, c,
                (1 - b->momentum) * value(call, b->running_mean, c) + b->momentum * call->mean[c]);
        if (b->running_var)
            set(call, b->running_var, c, (1 - b->momentum) * value(call, b->running_var, c) + b->momentum * unbiased);
    }
}

static int is_empty(const fc_view *x) { return x->n == 0 || x->c == 0 || x->h == 0 || x->w == 0; }

/* ---- forward -----------------------------------------------------------------------------------------------------*/
static void forward_task(void *context, int64_t task, int slot)
{
    const fc_norm_call *call = context;
    const int64_t c = task * call->lanes, lanes = fc_lesser(call->lanes, call->channels - c);
    for (int64_t part = 0; part < call->pixel_parts; part++)
        sum_channels(call, part, c, lanes, slot);
    combine_parts(call, c, lanes);
    find_mean(call, 1, c, lanes);
    find_line(call, c, lanes);
    fc_norm_map_channels(call, 0, c, lanes);
}

fc_status fc_batch_norm_forward(fc_dtype dtype, const fc_batch_norm *norm, const fc_view *x, const fc_view *residual,
                                const fc_view *y)
{
    if (is_empty(x))
        return FC_OK;
    fc_norm_call call = {.k = fc_get_kernels(dtype),
                         .item = dtype == FC_F32 ? 4 : 8,
                         .dtype = dtype,
                         .norm = norm,
                         .wanted = FC_NORM_STATISTICS,
                         .x = *x,
                         .y = *y};
    if (residual)
        call.r = *residual;
    if (x->h * x->w == 1)
        merge_pixels(&call.x), merge_pixels(&call.y), merge_pixels(&call.r);
    char *scratch;
    const fc_view *const views[] = {&call.x};
    if (prepare(&call, views, 1, &call.r, &scratch))
        return FC_ENOMEM;
    if (norm->training && call.together) {
        fc_norm_choose_stream(&call, 0);
        fc_parallel_in(call.slot_count, call.lane_parts, forward_task, &call);
    } else {
        if (norm->training) {
            fc_parallel_in(call.slot_count, call.pixel_parts * call.lane_parts, sum_task, &call);
            combine_parts(&call, 0, call.channels);
        }
        find_mean(&call, 1, 0, call.channels);
        find_line(&call, 0, call.channels);
        fc_norm_map(&call, 0);
    }
    if (norm->training)
        update_running(&call);
    fc_scratch_release(scratch);
    return FC_OK;
}

/* ---- gradient ----------------------------------------------------------------------------------------------------*/
/* The gradients of weight and bias, and what the map needs: slope and offset. */
static void find_slope(const fc_norm_call *call, int64_t c, int64_t lanes)
{
    const double pixels = (double)call->pixels;
    for (int64_t i = c; i < c + lanes; i++) {
        const double inv = call->inv[i], off = call->mean[i] - value(call, call->centre, i); /* centre = mean - off */
        const double sum = call->grads[i];
        const double product = call->products[i] - (call->wanted == FC_NORM_BOTH ? 0 : off * sum);
        if (call->grad_weight)
            set(call, call->grad_weight, i, product * inv);
        if (call->grad_bias)
            set(call, call->grad_bias, i, sum);
        const double gain = parameter(call, call->norm->weight, i, 1) * inv,
                     slope = -gain * inv * inv * product / pixels;
        set(call, call->slope, i, slope);
        set(call, call->offset, i, -gain * sum / pixels - slope * off);
    }
}

/* Sums that are taken about the mean need it first, the others find it. */
static void find_before_sums(const fc_norm_call *call, int64_t c, int64_t lanes)
{
    if (call->wanted == FC_NORM_GRADIENT) {
        find_mean(call, 0, c, lanes);
        find_line(call, c, lanes);
    }
}

static void find_after_sums(const fc_norm_call *call, int64_t c, int64_t lanes)
{
    combine_parts(call, c, lanes);
    if (call->wanted == FC_NORM_BOTH) {
        find_mean(call, 0, c, lanes);
        find_line(call, c, lanes);
    }
    find_slope(call, c, lanes);
}

static void grad_task(void *context, int64_t task, int slot)
{
    const fc_norm_call *call = context;
    const int64_t c = task * call->lanes, lanes = fc_lesser(call->lanes, call->channels - c);
    find_before_sums(call, c, lanes);
    for (int64_t part = 0; part < call->pixel_parts; part++)
        sum_channels(call, part, c, lanes, slot);
    find_after_sums(call, c, lanes);
    if (!call->maps)
        fc_norm_map_channels(call, 1, c, lanes);
}

fc_status fc_batch_norm_grad(fc_dtype dtype, const fc_batch_norm *norm, const fc_view *grad_y, const fc_view *x,
                             const fc_view *y, const fc_view *grad_x, const fc_view *grad_residual, void *grad_weight,
                             void *grad_bias)
{
    if (is_empty(x)) {
        if (grad_weight)
            memset(grad_weight, 0, (size_t)x->c * (dtype == FC_F32 ? 4 : 8));
        if (grad_bias)
            memset(grad_bias, 0, (size_t)x->c * (dtype == FC_F32 ? 4 : 8));
        return FC_OK;
    }
    const int clamps = norm->lower > -INFINITY || norm->upper < INFINITY;
    fc_norm_call call = {.k = fc_get_kernels(dtype),
                         .item = dtype == FC_F32 ? 4 : 8,
                         .dtype = dtype,
                         .norm = norm,
                         .gate = !clamps ? FC_GATE_NONE
                                 : y     ? FC_GATE_OUTPUT
                                         : FC_GATE_INPUT,
                         /* with saved statistics too: the same bits */
                         .wanted = norm->training && !clamps ? FC_NORM_BOTH : FC_NORM_GRADIENT,
                         .grad_weight = grad_weight,
                         .grad_bias = grad_bias,
                         .x = *x,
                         .g = *grad_y,
                         .y = *grad_x};
    const fc_view *const views[] = {&call.x, &call.g, &call.gated, &call.out};
    const int gated = call.gate == FC_GATE_OUTPUT, sums = norm->training || grad_weight || grad_bias || gated;
    call.maps = sums && !norm->training && !gated; /* grad_x needs no sum then: one pass does both */
    if (gated)
        call.out = *y, call.gated = *grad_residual;
    else if (call.maps)
        call.gated = *grad_x;
    if (x->h * x->w == 1)
        merge_pixels(&call.x), merge_pixels(&call.g), merge_pixels(&call.y), merge_pixels(&call.out),
            merge_pixels(&call.gated);
    char *scratch;
    if (prepare(&call, views, gated ? 4 : 2 + call.maps, gated ? &call.gated : &call.g, &scratch))
        return FC_ENOMEM;
    call.by.slope = norm->training ? call.slope : NULL;
    if (sums && call.together) {
        fc_norm_choose_stream(&call, 1);
        fc_parallel_in(call.slot_count, call.lane_parts, grad_task, &call);
        fc_scratch_release(scratch);
        return FC_OK;
    }
    find_before_sums(&call, 0, call.channels);
    if (sums) {
        call.by.stream = (gated || call.maps) && !call.tile_bytes &&
                         fc_norm_streams(&call, &call.gated, call.by_planes ? call.plane : 0, 2);
        fc_parallel_in(call.slot_count, call.pixel_parts * call.lane_parts, sum_task, &call);
        find_after_sums(&call, 0, call.channels);
    }
    if (gated) /* the sums went through the gate already, and wrote what came out */
        call.g = call.gated, call.gate = FC_GATE_NONE;
    if (!call.maps)
        fc_norm_map(&call, 1);
    fc_scratch_release(scratch);
    return FC_OK;
}
