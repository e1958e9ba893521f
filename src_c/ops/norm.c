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
    CHUNKS = 8,      /* chunks per task */
    TASK_LANES = 64, /* channels of a task when there are few pixels */
};

/* Pixels [q, q + count) with contiguous channels: in place, or in the tile. */
static const char *read_pixels(const fc_norm_call *call, const fc_view *v, int64_t q, int64_t count, int64_t c,
                               int64_t lanes, char *tile, int64_t *pixel)
{
    const int64_t step = fc_norm_pixel_step(v);
    *pixel = step ? step : FC_NORM_LANES;
    if (step)
        return fc_norm_pixel_at(call, v, q, c);
    fc_norm_move_tile(call, v, q, count, c, lanes, tile, 0);
    return tile;
}

/* ---- sums --------------------------------------------------------------------------------------------------------*/
/* A result of `kernel` in the array's precision as double */
static double value(const fc_norm_call *call, const char *array, int64_t i)
{
    return call->dtype == FC_F32 ? ((const float *)array)[i] : ((const double *)array)[i];
}

/* Mean and sum of squared differences of two sets together (Chan, Golub & LeVeque 1979). */
static void combine(double *mean, double *square, double count, double other_mean, double other_square,
                    double other_count)
{
    const double total = count + other_count, delta = other_mean - *mean;
    *mean += delta * (other_count / total);
    *square += other_square + delta * delta * (count * (other_count / total));
}

static void sum_task(void *context, int64_t task, int slot)
{
    const fc_norm_call *call = context;
    const int64_t part = task / call->lane_parts, c = task % call->lane_parts * call->lanes;
    const int64_t lanes = fc_lesser(call->lanes, call->channels - c);
    const int64_t begin = part * FC_NORM_CHUNK * CHUNKS, end = fc_lesser(call->pixels, begin + FC_NORM_CHUNK * CHUNKS);
    const size_t values = fc_norm_aligned(call->lanes * (int64_t)call->item);
    char *sum = call->slots + (size_t)slot * call->slot_bytes, *square = sum + values, *pivot = square + values;
    char *tile = pivot + values;
    double *mean = call->first + part * call->channels + c, *squares = call->second + part * call->channels + c;
    for (int64_t q = begin; q < end; q += FC_NORM_CHUNK) {
        const int64_t count = fc_lesser(FC_NORM_CHUNK, end - q);
        int64_t pixel;
        const char *x = read_pixels(call, &call->x, q, count, c, lanes, tile, &pixel);
        call->k->norm->sums(count, x, pixel, lanes, pivot, sum, square);
        for (int64_t i = 0; i < lanes; i++) {
            const double s = value(call, sum, i) / (double)count;
            const double rest = value(call, square, i) - s * s * (double)count;
            const double m = value(call, pivot, i) + s, r = rest < 0 ? 0 : rest;
            if (q == begin)
                mean[i] = m, squares[i] = r;
            else
                combine(&mean[i], &squares[i], (double)(q - begin), m, r, (double)count);
        }
    }
}

static void grad_sum_task(void *context, int64_t task, int slot)
{
    const fc_norm_call *call = context;
    const int64_t part = task / call->lane_parts, c = task % call->lane_parts * call->lanes;
    const int64_t lanes = fc_lesser(call->lanes, call->channels - c);
    const int64_t begin = part * FC_NORM_CHUNK * CHUNKS, end = fc_lesser(call->pixels, begin + FC_NORM_CHUNK * CHUNKS);
    char *sum = call->slots + (size_t)slot * call->slot_bytes,
         *product = sum + fc_norm_aligned(call->lanes * (int64_t)call->item);
    char *tile = product + fc_norm_aligned(call->lanes * (int64_t)call->item);
    double *sums = call->first + part * call->channels + c, *products = call->second + part * call->channels + c;
    for (int64_t q = begin; q < end; q += FC_NORM_CHUNK) {
        const int64_t count = fc_lesser(FC_NORM_CHUNK, end - q);
        int64_t g_pixel, x_pixel;
        const char *g = read_pixels(call, &call->g, q, count, c, lanes, tile, &g_pixel);
        const char *x = read_pixels(call, &call->x, q, count, c, lanes, tile + call->tile_bytes, &x_pixel);
        call->k->norm->grad_sums(count, g, g_pixel, x, x_pixel, lanes, call->centre + c * (int64_t)call->item, sum,
                                 product);
        for (int64_t i = 0; i < lanes; i++) {
            sums[i] = (q == begin ? 0 : sums[i]) + value(call, sum, i);
            products[i] = (q == begin ? 0 : products[i]) + value(call, product, i);
        }
    }
}

/* first[c] = mean of the batch, second[c] = sum of squared differences to it */
static void statistics(fc_norm_call *call)
{
    fc_parallel_in(call->slot_count, call->pixel_parts * call->lane_parts, sum_task, call);
    double *mean = call->first, *squares = call->second;
    for (int64_t part = 1; part < call->pixel_parts; part++) {
        const int64_t begin = part * FC_NORM_CHUNK * CHUNKS,
                      count = fc_lesser(FC_NORM_CHUNK * CHUNKS, call->pixels - begin);
        for (int64_t c = 0; c < call->channels; c++) {
            const int64_t i = part * call->channels + c;
            combine(&mean[c], &squares[c], (double)begin, call->first[i], call->second[i], (double)count);
        }
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

/* Cuts the sums and acquires the scratch; `views` are those that sums read. */
static fc_status prepare(fc_norm_call *call, const fc_view *const *views, int count, char **scratch)
{
    call->channels = call->x.c;
    call->plane = call->x.h * call->x.w;
    call->pixels = call->x.n * call->plane;
    call->pixel_parts = fc_parts(call->pixels, FC_NORM_CHUNK * CHUNKS);
    int together = 1;
    for (int i = 0; i < count; i++)
        together &= fc_norm_pixel_step(views[i]) != 0;
    call->lanes = !together ? FC_NORM_LANES : call->pixel_parts >= 16 ? call->channels : TASK_LANES;
    call->lanes = fc_lesser(call->lanes, call->channels);
    call->lane_parts = fc_parts(call->channels, call->lanes);
    call->tile_bytes = together ? 0 : fc_norm_aligned(FC_NORM_CHUNK * FC_NORM_LANES * (int64_t)call->item);
    call->slot_bytes = 3 * fc_norm_aligned(call->lanes * (int64_t)call->item) + 2 * call->tile_bytes;

    const size_t doubles = fc_norm_aligned(call->channels * 8),
                 values = fc_norm_aligned(call->channels * (int64_t)call->item);
    const size_t parts = fc_norm_aligned(call->pixel_parts * call->channels * 8);
    call->slot_count = fc_parallel_slots(call->pixel_parts * call->lane_parts);
    char *at = fc_scratch_acquire(2 * doubles + 2 * parts + 4 * values + (size_t)call->slot_count * call->slot_bytes);
    if (!at)
        return FC_ENOMEM;
    *scratch = at;
    call->mean = (double *)at, at += doubles;
    call->inv = (double *)at, at += doubles;
    call->first = (double *)at, at += parts;
    call->second = (double *)at, at += parts;
    call->centre = at, at += values;
    call->gain = at, at += values;
    call->slope = at, at += values;
    call->shift = at, at += values;
    call->slots = at;
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

fc_status fc_batch_norm_forward(fc_dtype dtype, const fc_batch_norm *norm, const fc_view *x, const fc_view *y)
{
    if (is_empty(x))
        return FC_OK;
    fc_norm_call call = {
        .k = fc_get_kernels(dtype), .item = dtype == FC_F32 ? 4 : 8, .dtype = dtype, .norm = norm, .x = *x, .y = *y};
    char *scratch;
    const fc_view *const views[] = {x};
    if (prepare(&call, views, 1, &scratch))
        return FC_ENOMEM;
    find_mean(&call, 1);
    for (int64_t c = 0; c < call.channels; c++) {
        /* the difference to a centre that the array's precision holds is exact near the mean; the rest goes to the shift */
        set(&call, call.centre, c, call.mean[c]);
        const double scale = parameter(&call, norm->weight, c, 1) * call.inv[c];
        set(&call, call.gain, c, scale);
        set(&call, call.shift, c,
            parameter(&call, norm->bias, c, 0) - (call.mean[c] - value(&call, call.centre, c)) * scale);
    }
    const fc_status status = fc_norm_map(&call, 0);
    if (status == FC_OK && norm->training)
        update_running(&call);
    fc_scratch_release(scratch);
    return status;
}

fc_status fc_batch_norm_grad(fc_dtype dtype, const fc_batch_norm *norm, const fc_view *grad_y, const fc_view *x,
                             const fc_view *grad_x, void *grad_weight, void *grad_bias)
{
    if (is_empty(x)) {
        if (grad_weight)
            memset(grad_weight, 0, (size_t)x->c * (dtype == FC_F32 ? 4 : 8));
        if (grad_bias)
            memset(grad_bias, 0, (size_t)x->c * (dtype == FC_F32 ? 4 : 8));
        return FC_OK;
    }
    fc_norm_call call = {.k = fc_get_kernels(dtype),
                         .item = dtype == FC_F32 ? 4 : 8,
                         .dtype = dtype,
                         .norm = norm,
                         .x = *x,
                         .g = *grad_y,
                         .y = *grad_x};
    char *scratch;
    const fc_view *const views[] = {x, grad_y};
    if (prepare(&call, views, 2, &scratch))
        return FC_ENOMEM;
    find_mean(&call, 0);
    for (int64_t c = 0; c < call.channels; c++)
        set(&call, call.centre, c, call.mean[c]);
    const int needs_sums = norm->training || grad_weight || grad_bias;
    if (needs_sums)
        fc_parallel_in(call.slot_count, call.pixel_parts * call.lane_parts, grad_sum_task, &call);
    const double pixels = (double)call.pixels;
    for (int64_t c = 0; c < call.channels; c++) {
        double sum = 0, product = 0;
        for (int64_t part = 0; needs_sums && part < call.pixel_parts; part++) {
            sum += call.first[part * call.channels + c];
            product += call.second[part * call.channels + c];
        }
        const double inv = call.inv[c], off = call.mean[c] - value(&call, call.centre, c); /* centre = mean - off */
        product -= off * sum;
        if (grad_weight)
            set(&call, grad_weight, c, product * inv);
        if (grad_bias)
            set(&call, grad_bias, c, sum);
        const double gain = parameter(&call, norm->weight, c, 1) * inv, slope = -gain * inv * inv * product / pixels;
        set(&call, call.gain, c, gain);
        set(&call, call.slope, c, slope);
        set(&call, call.shift, c, -gain * sum / pixels - slope * off);
    }
    if (!norm->training) { /* grad_x = grad_y * gain */
        memset(call.centre, 0, (size_t)call.channels * call.item);
        memset(call.shift, 0, (size_t)call.channels * call.item);
        call.x = *grad_y;
    }
    const fc_status status = fc_norm_map(&call, norm->training);
    fc_scratch_release(scratch);
    return status;
}
