/* norm.c: batch normalisation, forward and gradient.
 *
 * Sums run over pixels q = n * height * width + h * width + w in chunks of FC_NORM_CHUNK, in the array's precision and about a pivot
 * (the mean of the chunk's first 16 pixels, or of the batch), then over chunks in double precision: CHUNKS of them per task
 * one after the other, and the tasks in order. The same for every layout and number of threads.
 *
 * The sum of squares of a chunk is found from its k differences d to the pivot as sum d^2 - (sum d)^2 / k. What is
 * subtracted is k (mean - pivot)^2 <= k / 16 * (sum of squares): at most 16 times what remains, whatever the mean is and
 * wherever an outlier lies, and about 1/16 of it for values in no particular order.
 */
#include "../scratch.h"
#include "../threads.h"
#include "norm.h"

#include <math.h>
#include <string.h>

enum {
    CHUNKS = 8,       /* chunks per task where there are many */
    LEAST_PARTS = 4,  /* tasks along the pixels that are enough to share out: then each takes whole pixels */
    TASK_LANES = 64,  /* channels of a task otherwise */
};

/* ---- sums --------------------------------------------------------------------------------------------------------*/
/* A value of an array of the call's precision */
static double value(const fc_norm_call *call, const char *array, int64_t i)
{
    return call->dtype == FC_F32 ? ((const float *)array)[i] : ((const double *)array)[i];
}

/* The sums of a kernel in double precision, [lanes] each */
typedef struct {
    char *pivot, *sum, *second;
    double *pivots, *sums, *seconds;
    char *tiles;
} sums_slot;

static sums_slot slot_of(const fc_norm_call *call, int slot)
{
    const size_t values = fc_norm_aligned(call->lanes * (int64_t)call->item),
                 doubles = fc_norm_aligned(call->lanes * 8);
    sums_slot s = {.pivot = call->slots + (size_t)slot * call->slot_bytes};
    s.sum = s.pivot + values;
    s.second = s.sum + values;
    s.pivots = (double *)(s.second + values);
    s.sums = (double *)((char *)s.pivots + doubles);
    s.seconds = (double *)((char *)s.sums + doubles);
    s.tiles = (char *)s.seconds + doubles;
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

/* Mean and sum of squared differences of `count` and of `other_count` values together (Chan, Golub & LeVeque 1979). */
static void combine(double *restrict mean, double *restrict square, double count, const double *restrict other_mean,
                    const double *restrict other_square, double other_count, int64_t lanes)
{
    const double share = other_count / (count + other_count), both = count * share;
    for (int64_t i = 0; i < lanes; i++) {
        const double delta = other_mean[i] - mean[i];
        mean[i] += delta * share;
        square[i] += other_square[i] + delta * delta * both;
    }
}

typedef struct {
    int64_t part, c, lanes, begin, end;
} sums_range;

static sums_range range_of(const fc_norm_call *call, int64_t task)
{
    sums_range r = {.part = task / call->lane_parts, .c = task % call->lane_parts * call->lanes};
    r.lanes = fc_lesser(call->lanes, call->channels - r.c);
    r.begin = r.part * call->part;
    r.end = fc_lesser(call->pixels, r.begin + call->part);
    return r;
}

static void sum_task(void *context, int64_t task, int slot)
{
    const fc_norm_call *call = context;
    const sums_range r = range_of(call, task);
    const sums_slot s = slot_of(call, slot);
    double *mean = call->first + r.part * call->channels + r.c, *squares = call->second + r.part * call->channels + r.c;
    for (int64_t q = r.begin; q < r.end; q += FC_NORM_CHUNK) {
        const int64_t count = fc_lesser(FC_NORM_CHUNK, r.end - q);
        const fc_norm_pixels x = fc_norm_read(call, &call->x, q, count, r.c, r.lanes, s.tiles);
        call->k->norm->sums(count, x.data, x.pixel, r.lanes, s.pivot, s.sum, s.second);
        widen(call, s.pivot, s.pivots, r.lanes);
        widen(call, s.sum, s.sums, r.lanes);
        widen(call, s.second, s.seconds, r.lanes);
        const double inv = 1 / (double)count;
        for (int64_t i = 0; i < r.lanes; i++) {
            const double d = s.sums[i] * inv, rest = s.seconds[i] - d * s.sums[i];
            s.pivots[i] += d;
            s.seconds[i] = rest < 0 ? 0 : rest;
        }
        if (q == r.begin) {
            memcpy(mean, s.pivots, (size_t)r.lanes * 8);
            memcpy(squares, s.seconds, (size_t)r.lanes * 8);
        } else {
            combine(mean, squares, (double)(q - r.begin), s.pivots, s.seconds, (double)count, r.lanes);
        }
    }
}

static void grad_sum_task(void *context, int64_t task, int slot)
{
    const fc_norm_call *call = context;
    const sums_range r = range_of(call, task);
    const sums_slot s = slot_of(call, slot);
    const fc_norm_channels by = fc_norm_by_channel(call, r.c);
    double *sums = call->first + r.part * call->channels + r.c,
           *products = call->second + r.part * call->channels + r.c;
    memset(sums, 0, (size_t)r.lanes * 8);
    memset(products, 0, (size_t)r.lanes * 8);
    char *tile[4];
    for (int i = 0; i < 4; i++)
        tile[i] = s.tiles + (size_t)i * call->tile_bytes;
    for (int64_t q = r.begin; q < r.end; q += FC_NORM_CHUNK) {
        const int64_t count = fc_lesser(FC_NORM_CHUNK, r.end - q);
        const fc_norm_pixels g = fc_norm_read(call, &call->g, q, count, r.c, r.lanes, tile[0]);
        const fc_norm_pixels x = fc_norm_read(call, &call->x, q, count, r.c, r.lanes, tile[1]);
        fc_norm_pixels y = {NULL, 0}, gated = {NULL, 0};
        if (call->gate == FC_GATE_OUTPUT) {
            y = fc_norm_read(call, &call->out, q, count, r.c, r.lanes, tile[2]);
            const int64_t step = fc_norm_pixel_step(&call->gated);
            gated = step ? (fc_norm_pixels){fc_norm_pixel_at(call, &call->gated, q, r.c), step}
                         : (fc_norm_pixels){tile[3], FC_NORM_LANES};
        }
        call->k->norm->grad_sums(count, r.lanes, &by, call->gate, g, x, y, gated, s.sum, s.second);
        if (gated.data == tile[3])
            fc_norm_move_tile(call, &call->gated, q, count, r.c, r.lanes, tile[3], 1);
        widen(call, s.sum, s.sums, r.lanes);
        widen(call, s.second, s.seconds, r.lanes);
        for (int64_t i = 0; i < r.lanes; i++) {
            sums[i] += s.sums[i];
            products[i] += s.seconds[i];
        }
    }
}

/* first[c] = mean of the batch, second[c] = sum of squared differences to it */
static void statistics(fc_norm_call *call)
{
    fc_parallel_in(call->slot_count, call->pixel_parts * call->lane_parts, sum_task, call);
    for (int64_t part = 1; part < call->pixel_parts; part++) {
        const int64_t begin = part * call->part, count = fc_lesser(call->part, call->pixels - begin);
        const int64_t at = part * call->channels;
        combine(call->first, call->second, (double)begin, call->first + at, call->second + at, (double)count,
                call->channels);
    }
}

/* first[c] = sum of g, second[c] = sum of g * (x - centre) */
static void grad_sums(fc_norm_call *call)
{
    fc_parallel_in(call->slot_count, call->pixel_parts * call->lane_parts, grad_sum_task, call);
    for (int64_t i = call->channels; i < call->pixel_parts * call->channels; i++) {
        call->first[i % call->channels] += call->first[i];
        call->second[i % call->channels] += call->second[i];
    }
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

/* Cuts the sums, fills `by` and acquires all scratch: only this may fail, and nothing is written yet. `views` are those
 * that sums read or write, `other` is what the map reads beside x. */
static fc_status prepare(fc_norm_call *call, const fc_view *const *views, int count, const fc_view *other,
                         char **scratch)
{
    const fc_batch_norm *norm = call->norm;
    call->channels = call->x.c;
    call->plane = call->x.h * call->x.w;
    call->pixels = call->x.n * call->plane;
    const int64_t chunks = fc_parts(call->pixels, FC_NORM_CHUNK);
    call->part = FC_NORM_CHUNK * fc_greater(1, fc_lesser(CHUNKS, chunks / LEAST_PARTS));
    call->pixel_parts = fc_parts(call->pixels, call->part);
    int together = 1;
    for (int i = 0; i < count; i++)
        together &= fc_norm_pixel_step(views[i]) != 0;
    call->lanes = !together ? FC_NORM_LANES : call->pixel_parts >= LEAST_PARTS ? call->channels : TASK_LANES;
    call->lanes = fc_lesser(call->lanes, call->channels);
    call->lane_parts = fc_parts(call->channels, call->lanes);
    call->tile_bytes = together ? 0 : fc_norm_aligned(FC_NORM_CHUNK * FC_NORM_LANES * (int64_t)call->item);
    call->slot_bytes = 3 * fc_norm_aligned(call->lanes * (int64_t)call->item) + 3 * fc_norm_aligned(call->lanes * 8) +
                       4 * call->tile_bytes;

    const size_t doubles = fc_norm_aligned(call->channels * 8),
                 values = fc_norm_aligned(call->channels * (int64_t)call->item);
    const size_t parts = fc_norm_aligned(call->pixel_parts * call->channels * 8);
    call->slot_count = fc_parallel_slots(call->pixel_parts * call->lane_parts);
    const int64_t map_tiles = fc_norm_map_tiles(call, other);
    if (map_tiles) {
        const int64_t tile = (int64_t)fc_norm_aligned(FC_NORM_CHUNK * FC_NORM_LANES * (int64_t)call->item);
        call->map_slot_count = fc_parallel_slots(map_tiles);
        call->slot_bytes = (size_t)fc_greater((int64_t)call->slot_bytes, FC_NORM_MAP_TILES * tile);
    }
    char *at =
        fc_scratch_acquire_parts((int64_t)(2 * doubles + 2 * parts + 5 * values),
                                 (int)fc_greater(call->slot_count, call->map_slot_count), (int64_t)call->slot_bytes);
    if (!at)
        return FC_ENOMEM;
    *scratch = at;
    call->mean = (double *)at, at += doubles;
    call->inv = (double *)at, at += doubles;
    call->first = (double *)at, at += parts;
    call->second = (double *)at, at += parts;
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
/* mean and inv from the batch, the saved values or the running statistics. */
static void find_mean(fc_norm_call *call, int forward)
{
    const fc_batch_norm *b = call->norm;
    const int64_t channels = call->channels;
    if (b->saved && !forward) {
        memcpy(call->mean, b->saved, (size_t)channels * 8);
        memcpy(call->inv, b->saved + channels, (size_t)channels * 8);
        return;
    }
    if (b->training)
        statistics(call);
    for (int64_t c = 0; c < channels; c++) {
        const double mean = b->training ? call->first[c] : value(call, b->running_mean, c);
        const double var = b->training ? call->second[c] / (double)call->pixels : value(call, b->running_var, c);
        call->mean[c] = mean;
        call->inv[c] = 1 / sqrt(var + b->eps);
    }
    if (b->saved && forward) {
        memcpy(b->saved, call->mean, (size_t)channels * 8);
        memcpy(b->saved + channels, call->inv, (size_t)channels * 8);
    }
}

/* The difference to a centre that the array's precision holds is exact near the mean; the rest goes to the shift. */
static void find_line(fc_norm_call *call)
{
    for (int64_t c = 0; c < call->channels; c++) {
        set(call, call->centre, c, call->mean[c]);
        const double gain = parameter(call, call->norm->weight, c, 1) * call->inv[c];
        set(call, call->gain, c, gain);
        set(call, call->shift, c,
            parameter(call, call->norm->bias, c, 0) - (call->mean[c] - value(call, call->centre, c)) * gain);
    }
}

static void update_running(const fc_norm_call *call)
{
    const fc_batch_norm *b = call->norm;
    for (int64_t c = 0; c < call->channels; c++) {
        const double unbiased = call->second[c] / (double)(call->pixels - 1);
        if (b->running_mean)
            set(call, b->running_mean, c,
                (1 - b->momentum) * value(call, b->running_mean, c) + b->momentum * call->mean[c]);
        if (b->running_var)
            set(call, b->running_var, c, (1 - b->momentum) * value(call, b->running_var, c) + b->momentum * unbiased);
    }
}

static int is_empty(const fc_view *x) { return x->n == 0 || x->c == 0 || x->h == 0 || x->w == 0; }

fc_status fc_batch_norm_forward(fc_dtype dtype, const fc_batch_norm *norm, const fc_view *x, const fc_view *residual,
                                const fc_view *y)
{
    if (is_empty(x))
        return FC_OK;
    fc_norm_call call = {
        .k = fc_get_kernels(dtype), .item = dtype == FC_F32 ? 4 : 8, .dtype = dtype, .norm = norm, .x = *x, .y = *y};
    if (residual)
        call.r = *residual;
    char *scratch;
    const fc_view *const views[] = {x};
    if (prepare(&call, views, 1, &call.r, &scratch))
        return FC_ENOMEM;
    find_mean(&call, 1);
    find_line(&call);
    fc_norm_map(&call, 0);
    if (norm->training)
        update_running(&call);
    fc_scratch_release(scratch);
    return FC_OK;
}

/* The gradients of weight and bias, and what the map needs: slope and offset. */
static void find_slope(fc_norm_call *call, void *grad_weight, void *grad_bias)
{
    const double pixels = (double)call->pixels;
    for (int64_t c = 0; c < call->channels; c++) {
        const double inv = call->inv[c], off = call->mean[c] - value(call, call->centre, c); /* centre = mean - off */
        const double sum = call->first[c], product = call->second[c] - off * sum;
        if (grad_weight)
            set(call, grad_weight, c, product * inv);
        if (grad_bias)
            set(call, grad_bias, c, sum);
        const double gain = parameter(call, call->norm->weight, c, 1) * inv,
                     slope = -gain * inv * inv * product / pixels;
        set(call, call->slope, c, slope);
        set(call, call->offset, c, -gain * sum / pixels - slope * off);
    }
    call->by.slope = call->norm->training ? call->slope : NULL;
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
                         .x = *x,
                         .g = *grad_y,
                         .y = *grad_x};
    const fc_view *const views[] = {x, grad_y, y, grad_residual};
    if (call.gate == FC_GATE_OUTPUT)
        call.out = *y, call.gated = *grad_residual;
    char *scratch;
    const int gated = call.gate == FC_GATE_OUTPUT;
    if (prepare(&call, views, gated ? 4 : 2, gated ? &call.gated : &call.g, &scratch))
        return FC_ENOMEM;
    find_mean(&call, 0);
    find_line(&call);
    if (norm->training || grad_weight || grad_bias || call.gate == FC_GATE_OUTPUT) {
        call.by.stream = call.gate == FC_GATE_OUTPUT && !call.tile_bytes && fc_norm_streams(&call, &call.gated, 0);
        grad_sums(&call);
        find_slope(&call, grad_weight, grad_bias);
    }
    if (call.gate == FC_GATE_OUTPUT) /* the sums went through the gate already, and wrote what came out */
        call.g = call.gated, call.gate = FC_GATE_NONE;
    fc_norm_map(&call, 1);
    fc_scratch_release(scratch);
    return FC_OK;
}
