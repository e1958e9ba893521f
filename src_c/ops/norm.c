/* norm.c: batch normalisation, forward and gradient.
 *
 * Sums run over pixels q = n * height * width + h * width + w in chunks of CHUNK, in the array's precision and about a pivot
 * (the mean of the chunk's first 16 pixels, or of the batch), then over chunks in double precision: CHUNKS of them per task
 * one after the other, and the tasks in order. The same for every layout and number of threads.
 *
 * The sum of squares of a chunk is found from its k differences d to the pivot as sum d^2 - (sum d)^2 / k. What is
 * subtracted is k (mean - pivot)^2 <= k / 16 * (sum of squares): at most 16 times what remains, whatever the mean is and
 * wherever an outlier lies, and about 1/16 of it for values in no particular order.
 */
#include "../scratch.h"
#include "../threads.h"
#include "windows.h"

#include <math.h>
#include <string.h>

enum {
    CHUNK = 256,        /* pixels summed in the array's precision */
    CHUNKS = 8,         /* chunks per task */
    TILE_LANES = 16,    /* channels of a tile; with 256 pixels of float32 16 KiB */
    TASK_LANES = 64,    /* channels of a task when there are few pixels */
    TASK_VALUES = 1 << 16,
};

typedef struct {
    const fc_kernels *k;
    size_t item;
    fc_dtype dtype;
    const fc_batch_norm *norm;
    fc_view x, g, y;
    int64_t channels, plane, pixels;
    int64_t lanes, lane_parts, pixel_parts;
    double *mean, *inv; /* [channels] */
    double *first, *second; /* [pixel_parts][channels]: of each task */
    char *centre, *gain, *slope, *shift; /* [channels] */
    char *slots;
    size_t slot_bytes, tile_bytes;
} norm_call;

static size_t aligned(int64_t bytes) { return ((size_t)bytes + 63) / 64 * 64; }

/* ---- pixels ------------------------------------------------------------------------------------------------------*/
/* The distance of two neighbouring pixels if it is the same for all and channels are contiguous, otherwise 0. */
static int64_t pixel_step(const fc_view *v)
{
    if (v->stride_c != 1 && v->c > 1)
        return 0;
    const int64_t step = v->w > 1 ? v->stride_w : v->h > 1 ? v->stride_h : v->stride_n;
    const int rows = v->h == 1 || v->stride_h == v->w * step;
    const int images = v->n == 1 || v->stride_n == v->h * v->w * step;
    return rows && images ? step : 0;
}

static int is_linear(const fc_view *v) { return v->h == 1 || v->stride_h == v->w * v->stride_w; }

static char *pixel_at(const norm_call *call, const fc_view *v, int64_t q, int64_t c)
{
    const int64_t n = q / call->plane, p = q % call->plane;
    return (char *)v->data + (n * v->stride_n + c * v->stride_c + p / v->w * v->stride_h + p % v->w * v->stride_w) *
                                 (int64_t)call->item;
}

/* Pixels [q, q + count) and channels [c, c + lanes) from or to tile[count][TILE_LANES]. */
static void move_tile(const norm_call *call, const fc_view *v, int64_t q, int64_t count, int64_t c, int64_t lanes, char *tile,
                      int store)
{
    const int64_t row = is_linear(v) ? call->plane : v->w; /* pixels in a line */
    while (count > 0) {
        const int64_t run = fc_lesser(count, row - q % row);
        fc_image image = {pixel_at(call, v, q, c), 1, run, lanes, 0, is_linear(v) && v->w == 1 ? v->stride_h : v->stride_w,
                          v->stride_c};
        const fc_window window = {.rows = 1, .row_step = 1, .columns = run, .column_step = 1};
        if (store)
            fc_store_window(call->k, call->item, &image, &window, tile, &(fc_pitch){run * TILE_LANES, TILE_LANES, 1});
        else
            fc_load_window(call->k, call->item, &image, &window, tile, &(fc_pitch){run * TILE_LANES, TILE_LANES, 1});
        tile += run * TILE_LANES * (int64_t)call->item;
        q += run;
        count -= run;
    }
}

/* Pixels [q, q + count) with contiguous channels: in place, or in the tile. */
static const char *read_pixels(const norm_call *call, const fc_view *v, int64_t q, int64_t count, int64_t c, int64_t lanes,
                               char *tile, int64_t *pixel)
{
    const int64_t step = pixel_step(v);
    *pixel = step ? step : TILE_LANES;
    if (step)
        return pixel_at(call, v, q, c);
    move_tile(call, v, q, count, c, lanes, tile, 0);
    return tile;
}

/* ---- sums --------------------------------------------------------------------------------------------------------*/
/* A result of `kernel` in the array's precision as double */
static double value(const norm_call *call, const char *array, int64_t i)
{
    return call->dtype == FC_F32 ? ((const float *)array)[i] : ((const double *)array)[i];
}

/* Mean and sum of squared differences of two sets together (Chan, Golub & LeVeque 1979). */
static void combine(double *mean, double *square, double count, double other_mean, double other_square, double other_count)
{
    const double total = count + other_count, delta = other_mean - *mean;
    *mean += delta * (other_count / total);
    *square += other_square + delta * delta * (count * (other_count / total));
}

static void sum_task(void *context, int64_t task, int slot)
{
    const norm_call *call = context;
    const int64_t part = task / call->lane_parts, c = task % call->lane_parts * call->lanes;
    const int64_t lanes = fc_lesser(call->lanes, call->channels - c);
    const int64_t begin = part * CHUNK * CHUNKS, end = fc_lesser(call->pixels, begin + CHUNK * CHUNKS);
    const size_t values = aligned(call->lanes * (int64_t)call->item);
    char *sum = call->slots + (size_t)slot * call->slot_bytes, *square = sum + values, *pivot = square + values;
    char *tile = pivot + values;
    double *mean = call->first + part * call->channels + c, *squares = call->second + part * call->channels + c;
    for (int64_t q = begin; q < end; q += CHUNK) {
        const int64_t count = fc_lesser(CHUNK, end - q);
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
    const norm_call *call = context;
    const int64_t part = task / call->lane_parts, c = task % call->lane_parts * call->lanes;
    const int64_t lanes = fc_lesser(call->lanes, call->channels - c);
    const int64_t begin = part * CHUNK * CHUNKS, end = fc_lesser(call->pixels, begin + CHUNK * CHUNKS);
    char *sum = call->slots + (size_t)slot * call->slot_bytes, *product = sum + aligned(call->lanes * (int64_t)call->item);
    char *tile = product + aligned(call->lanes * (int64_t)call->item);
    double *sums = call->first + part * call->channels + c, *products = call->second + part * call->channels + c;
    for (int64_t q = begin; q < end; q += CHUNK) {
        const int64_t count = fc_lesser(CHUNK, end - q);
        int64_t g_pixel, x_pixel;
        const char *g = read_pixels(call, &call->g, q, count, c, lanes, tile, &g_pixel);
        const char *x = read_pixels(call, &call->x, q, count, c, lanes, tile + call->tile_bytes, &x_pixel);
        call->k->norm->grad_sums(count, g, g_pixel, x, x_pixel, lanes, call->centre + c * (int64_t)call->item, sum, product);
        for (int64_t i = 0; i < lanes; i++) {
            sums[i] = (q == begin ? 0 : sums[i]) + value(call, sum, i);
            products[i] = (q == begin ? 0 : products[i]) + value(call, product, i);
        }
    }
}

/* first[c] = mean of the batch, second[c] = sum of squared differences to it */
static void statistics(norm_call *call)
{
    fc_parallel(call->pixel_parts * call->lane_parts, sum_task, call);
    double *mean = call->first, *squares = call->second;
    for (int64_t part = 1; part < call->pixel_parts; part++) {
        const int64_t begin = part * CHUNK * CHUNKS, count = fc_lesser(CHUNK * CHUNKS, call->pixels - begin);
        for (int64_t c = 0; c < call->channels; c++) {
            const int64_t i = part * call->channels + c;
            combine(&mean[c], &squares[c], (double)begin, call->first[i], call->second[i], (double)count);
        }
    }
}

/* ---- plan --------------------------------------------------------------------------------------------------------*/
static void set(const norm_call *call, char *array, int64_t c, double v)
{
    if (call->dtype == FC_F32)
        ((float *)array)[c] = (float)v;
    else
        ((double *)array)[c] = v;
}

static double parameter(const norm_call *call, const void *array, int64_t c, double otherwise)
{
    return array ? value(call, array, c) : otherwise;
}

/* Cuts the sums and acquires the scratch; `views` are those that sums read. */
static fc_status prepare(norm_call *call, const fc_view *const *views, int count, char **scratch)
{
    call->channels = call->x.c;
    call->plane = call->x.h * call->x.w;
    call->pixels = call->x.n * call->plane;
    call->pixel_parts = fc_parts(call->pixels, CHUNK * CHUNKS);
    int together = 1;
    for (int i = 0; i < count; i++)
        together &= pixel_step(views[i]) != 0;
    call->lanes = !together ? TILE_LANES : call->pixel_parts >= 16 ? call->channels : TASK_LANES;
    call->lanes = fc_lesser(call->lanes, call->channels);
    call->lane_parts = fc_parts(call->channels, call->lanes);
    call->tile_bytes = together ? 0 : aligned(CHUNK * TILE_LANES * (int64_t)call->item);
    call->slot_bytes = 3 * aligned(call->lanes * (int64_t)call->item) + 2 * call->tile_bytes;

    const size_t doubles = aligned(call->channels * 8), values = aligned(call->channels * (int64_t)call->item);
    const size_t parts = aligned(call->pixel_parts * call->channels * 8);
    const size_t slots = (size_t)fc_get_num_threads();
    char *at = fc_scratch_acquire(2 * doubles + 2 * parts + 4 * values + slots * call->slot_bytes);
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

/* ---- maps --------------------------------------------------------------------------------------------------------*/
/* How the maps walk: pixels in place, planes of contiguous rows, or tiles. */
typedef enum { PIXELS, PLANES, TILES } walk;
typedef struct {
    const norm_call *call;
    walk walk;
    int has_g;
    int64_t step, parts; /* values (planes) or pixels per task, and tasks per plane */
    int64_t group, planes; /* planes per task */
} map_call;

static void map_pixels(const norm_call *call, int has_g, int64_t c, int64_t lanes, int64_t count, const char *g,
                       int64_t g_pixel, const char *x, int64_t x_pixel, char *y, int64_t y_pixel)
{
    const int64_t at = c * (int64_t)call->item;
    const fc_norm_affine affine = {call->centre + at, call->gain + at, call->shift + at};
    const fc_norm_grad grad = {call->centre + at, call->gain + at, call->slope + at, call->shift + at};
    if (has_g)
        call->k->norm->grad_last(count, g, g_pixel, x, x_pixel, lanes, &grad, y, y_pixel);
    else
        call->k->norm->affine_last(count, x, x_pixel, lanes, &affine, y, y_pixel);
}

static void map_plane(const norm_call *call, int has_g, int64_t plane, int64_t begin, int64_t end)
{
    const int64_t n = plane / call->channels, c = plane % call->channels;
    const fc_norm_affine affine = {call->centre, call->gain, call->shift};
    const fc_norm_grad grad = {call->centre, call->gain, call->slope, call->shift};
    const int linear = is_linear(&call->x) && is_linear(&call->y) && (!has_g || is_linear(&call->g));
    const int64_t row = linear ? call->plane : call->x.w;
    for (int64_t p = begin; p < end;) {
        const int64_t run = fc_lesser(end - p, row - p % row), q = n * call->plane + p;
        char *y = pixel_at(call, &call->y, q, c);
        const char *x = pixel_at(call, &call->x, q, c);
        if (has_g)
            call->k->norm->grad_plane(run, pixel_at(call, &call->g, q, c), x, c, &grad, y);
        else
            call->k->norm->affine_plane(run, x, c, &affine, y);
        p += run;
    }
}

static void map_task(void *context, int64_t task, int slot)
{
    const map_call *map = context;
    const norm_call *call = map->call;
    if (map->walk == PLANES) {
        for (int64_t i = task / map->parts * map->group; i < fc_lesser(map->planes, (task / map->parts + 1) * map->group); i++) {
            const int64_t begin = task % map->parts * map->step;
            map_plane(call, map->has_g, i, begin, fc_lesser(call->plane, begin + map->step));
        }
        return;
    }
    if (map->walk == PIXELS) {
        const int64_t q = task * map->step, count = fc_lesser(map->step, call->pixels - q);
        map_pixels(call, map->has_g, 0, call->channels, count, map->has_g ? pixel_at(call, &call->g, q, 0) : NULL,
                   pixel_step(&call->g), pixel_at(call, &call->x, q, 0), pixel_step(&call->x), pixel_at(call, &call->y, q, 0),
                   pixel_step(&call->y));
        return;
    }
    const int64_t lane_parts = fc_parts(call->channels, TILE_LANES);
    const int64_t c = task % lane_parts * TILE_LANES, lanes = fc_lesser(TILE_LANES, call->channels - c);
    const int64_t q = task / lane_parts * CHUNK, count = fc_lesser(CHUNK, call->pixels - q);
    const size_t tile = aligned(CHUNK * TILE_LANES * (int64_t)call->item);
    char *x = call->slots + (size_t)slot * 3 * tile, *g = x + tile, *y = g + tile;
    move_tile(call, &call->x, q, count, c, lanes, x, 0);
    if (map->has_g)
        move_tile(call, &call->g, q, count, c, lanes, g, 0);
    map_pixels(call, map->has_g, c, lanes, count, g, TILE_LANES, x, TILE_LANES, y, TILE_LANES);
    move_tile(call, &call->y, q, count, c, lanes, y, 1);
}

/* y = map(x) or map(g, x) for all values */
static fc_status run_map(norm_call *call, int has_g)
{
    map_call map = {.call = call, .has_g = has_g, .planes = call->x.n * call->channels};
    const fc_view *views[] = {&call->x, &call->y, &call->g};
    int pixels = 1, planes = 1;
    for (int i = 0; i < 2 + has_g; i++) {
        pixels &= pixel_step(views[i]) != 0;
        planes &= views[i]->stride_w == 1 && call->plane > 1;
    }
    map.walk = planes && call->channels == 1 ? PLANES : pixels ? PIXELS : planes ? PLANES : TILES;
    if (map.walk == PLANES) {
        map.step = fc_lesser(call->plane, TASK_VALUES);
        map.parts = fc_parts(call->plane, map.step);
        map.group = fc_greater(1, TASK_VALUES / call->plane);
        fc_parallel(fc_parts(map.planes, map.group) * map.parts, map_task, &map);
        return FC_OK;
    }
    if (map.walk == PIXELS) {
        map.step = fc_greater(1, TASK_VALUES / call->channels);
        fc_parallel(fc_parts(call->pixels, map.step), map_task, &map);
        return FC_OK;
    }
    const size_t tile = aligned(CHUNK * TILE_LANES * (int64_t)call->item);
    char *before = call->slots;
    call->slots = fc_scratch_acquire((size_t)fc_get_num_threads() * 3 * tile);
    if (!call->slots) {
        call->slots = before;
        return FC_ENOMEM;
    }
    fc_parallel(fc_parts(call->pixels, CHUNK) * fc_parts(call->channels, TILE_LANES), map_task, &map);
    fc_scratch_release(call->slots);
    call->slots = before;
    return FC_OK;
}

/* ---- entry points ------------------------------------------------------------------------------------------------*/
/* mean and inv from the batch, the saved values or the running statistics. */
static void find_mean(norm_call *call, int forward)
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

static void update_running(const norm_call *call)
{
    const fc_batch_norm *b = call->norm;
    for (int64_t c = 0; c < call->channels; c++) {
        const double unbiased = call->second[c] / (double)(call->pixels - 1);
        if (b->running_mean)
            set(call, b->running_mean, c, (1 - b->momentum) * value(call, b->running_mean, c) + b->momentum * call->mean[c]);
        if (b->running_var)
            set(call, b->running_var, c, (1 - b->momentum) * value(call, b->running_var, c) + b->momentum * unbiased);
    }
}

static int is_empty(const fc_view *x) { return x->n == 0 || x->c == 0 || x->h == 0 || x->w == 0; }

fc_status fc_batch_norm_forward(fc_dtype dtype, const fc_batch_norm *norm, const fc_view *x, const fc_view *y)
{
    if (is_empty(x))
        return FC_OK;
    norm_call call = {.k = fc_get_kernels(dtype), .item = dtype == FC_F32 ? 4 : 8, .dtype = dtype, .norm = norm, .x = *x,
                      .y = *y};
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
    const fc_status status = run_map(&call, 0);
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
    norm_call call = {.k = fc_get_kernels(dtype), .item = dtype == FC_F32 ? 4 : 8, .dtype = dtype, .norm = norm, .x = *x,
                      .g = *grad_y, .y = *grad_x};
    char *scratch;
    const fc_view *const views[] = {x, grad_y};
    if (prepare(&call, views, 2, &scratch))
        return FC_ENOMEM;
    find_mean(&call, 0);
    for (int64_t c = 0; c < call.channels; c++)
        set(&call, call.centre, c, call.mean[c]);
    const int needs_sums = norm->training || grad_weight || grad_bias;
    if (needs_sums)
        fc_parallel(call.pixel_parts * call.lane_parts, grad_sum_task, &call);
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
    const fc_status status = run_map(&call, norm->training);
    fc_scratch_release(scratch);
    return status;
}
