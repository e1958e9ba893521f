/* norm_map.c: the affine maps of batch normalisation over arrays of any layout. */
#include "../scratch.h"
#include "../threads.h"
#include "norm.h"

enum {
    TASK_VALUES = 1 << 16, /* 256 KiB of float32, about 20 us */
};

/* ---- pixels ------------------------------------------------------------------------------------------------------*/
int64_t fc_norm_pixel_step(const fc_view *v)
{
    if (v->stride_c != 1 && v->c > 1)
        return 0;
    const int64_t step = v->w > 1 ? v->stride_w : v->h > 1 ? v->stride_h : v->stride_n;
    const int rows = v->h == 1 || v->stride_h == v->w * step;
    const int images = v->n == 1 || v->stride_n == v->h * v->w * step;
    return rows && images ? step : 0;
}

static int is_linear(const fc_view *v) { return v->h == 1 || v->stride_h == v->w * v->stride_w; }

char *fc_norm_pixel_at(const fc_norm_call *call, const fc_view *v, int64_t q, int64_t c)
{
    const int64_t n = q / call->plane, p = q % call->plane;
    return (char *)v->data +
           (n * v->stride_n + c * v->stride_c + p / v->w * v->stride_h + p % v->w * v->stride_w) * (int64_t)call->item;
}

void fc_norm_move_tile(const fc_norm_call *call, const fc_view *v, int64_t q, int64_t count, int64_t c, int64_t lanes,
                       char *tile, int store)
{
    const int64_t row = is_linear(v) ? call->plane : v->w; /* pixels in a line */
    while (count > 0) {
        const int64_t run = fc_lesser(count, row - q % row);
        fc_image image = {fc_norm_pixel_at(call, v, q, c),
                          1,
                          run,
                          lanes,
                          0,
                          is_linear(v) && v->w == 1 ? v->stride_h : v->stride_w,
                          v->stride_c};
        const fc_window window = {.rows = 1, .row_step = 1, .columns = run, .column_step = 1};
        if (store)
            fc_store_window(call->k, call->item, &image, &window, tile,
                            &(fc_pitch){run * FC_NORM_LANES, FC_NORM_LANES, 1});
        else
            fc_load_window(call->k, call->item, &image, &window, tile,
                           &(fc_pitch){run * FC_NORM_LANES, FC_NORM_LANES, 1});
        tile += run * FC_NORM_LANES * (int64_t)call->item;
        q += run;
        count -= run;
    }
}

/* ---- maps --------------------------------------------------------------------------------------------------------*/
/* How the maps walk: pixels in place, planes of contiguous rows, or tiles. */
typedef enum { PIXELS, PLANES, TILES } walk;
typedef struct {
    const fc_norm_call *call;
    walk walk;
    int has_g;
    int64_t step, parts; /* values (planes) or pixels per task, and tasks per plane */
    int64_t group, planes; /* planes per task */
} map_call;

static void map_pixels(const fc_norm_call *call, int has_g, int64_t c, int64_t lanes, int64_t count, const char *g,
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

static void map_plane(const fc_norm_call *call, int has_g, int64_t plane, int64_t begin, int64_t end)
{
    const int64_t n = plane / call->channels, c = plane % call->channels;
    const fc_norm_affine affine = {call->centre, call->gain, call->shift};
    const fc_norm_grad grad = {call->centre, call->gain, call->slope, call->shift};
    const int linear = is_linear(&call->x) && is_linear(&call->y) && (!has_g || is_linear(&call->g));
    const int64_t row = linear ? call->plane : call->x.w;
    for (int64_t p = begin; p < end;) {
        const int64_t run = fc_lesser(end - p, row - p % row), q = n * call->plane + p;
        char *y = fc_norm_pixel_at(call, &call->y, q, c);
        const char *x = fc_norm_pixel_at(call, &call->x, q, c);
        if (has_g)
            call->k->norm->grad_plane(run, fc_norm_pixel_at(call, &call->g, q, c), x, c, &grad, y);
        else
            call->k->norm->affine_plane(run, x, c, &affine, y);
        p += run;
    }
}

static void map_task(void *context, int64_t task, int slot)
{
    const map_call *map = context;
    const fc_norm_call *call = map->call;
    if (map->walk == PLANES) {
        for (int64_t i = task / map->parts * map->group;
             i < fc_lesser(map->planes, (task / map->parts + 1) * map->group); i++) {
            const int64_t begin = task % map->parts * map->step;
            map_plane(call, map->has_g, i, begin, fc_lesser(call->plane, begin + map->step));
        }
        return;
    }
    if (map->walk == PIXELS) {
        const int64_t q = task * map->step, count = fc_lesser(map->step, call->pixels - q);
        map_pixels(call, map->has_g, 0, call->channels, count,
                   map->has_g ? fc_norm_pixel_at(call, &call->g, q, 0) : NULL, fc_norm_pixel_step(&call->g),
                   fc_norm_pixel_at(call, &call->x, q, 0), fc_norm_pixel_step(&call->x),
                   fc_norm_pixel_at(call, &call->y, q, 0), fc_norm_pixel_step(&call->y));
        return;
    }
    const int64_t lane_parts = fc_parts(call->channels, FC_NORM_LANES);
    const int64_t c = task % lane_parts * FC_NORM_LANES, lanes = fc_lesser(FC_NORM_LANES, call->channels - c);
    const int64_t q = task / lane_parts * FC_NORM_CHUNK, count = fc_lesser(FC_NORM_CHUNK, call->pixels - q);
    const size_t tile = fc_norm_aligned(FC_NORM_CHUNK * FC_NORM_LANES * (int64_t)call->item);
    char *x = call->slots + (size_t)slot * 3 * tile, *g = x + tile, *y = g + tile;
    fc_norm_move_tile(call, &call->x, q, count, c, lanes, x, 0);
    if (map->has_g)
        fc_norm_move_tile(call, &call->g, q, count, c, lanes, g, 0);
    map_pixels(call, map->has_g, c, lanes, count, g, FC_NORM_LANES, x, FC_NORM_LANES, y, FC_NORM_LANES);
    fc_norm_move_tile(call, &call->y, q, count, c, lanes, y, 1);
}

fc_status fc_norm_map(fc_norm_call *call, int has_g)
{
    map_call map = {.call = call, .has_g = has_g, .planes = call->x.n * call->channels};
    const fc_view *views[] = {&call->x, &call->y, &call->g};
    int pixels = 1, planes = 1;
    for (int i = 0; i < 2 + has_g; i++) {
        pixels &= fc_norm_pixel_step(views[i]) != 0;
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
    const size_t tile = fc_norm_aligned(FC_NORM_CHUNK * FC_NORM_LANES * (int64_t)call->item);
    const int64_t tasks = fc_parts(call->pixels, FC_NORM_CHUNK) * fc_parts(call->channels, FC_NORM_LANES);
    const int slots = fc_parallel_slots(tasks);
    char *before = call->slots;
    call->slots = fc_scratch_acquire((size_t)slots * 3 * tile);
    if (!call->slots) {
        call->slots = before;
        return FC_ENOMEM;
    }
    fc_parallel_in(slots, tasks, map_task, &map);
    fc_scratch_release(call->slots);
    call->slots = before;
    return FC_OK;
}
