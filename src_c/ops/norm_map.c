/* norm_map.c: the maps of batch normalisation over arrays of any layout. */
#include "../threads.h"
#include "norm.h"

enum {
    TASK_VALUES = 1 << 16, /* 256 KiB of float32, about 20 us */
    LEAST_RUN = 1 << 11, /* bytes, 32 lines of the cache: those at the ends of a run do not bypass it */
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

int fc_norm_streams(const fc_norm_call *call, const fc_view *v, int64_t run, int64_t reads)
{
    const int64_t size = call->pixels * call->channels * (int64_t)call->item;
    const int64_t pixel = fc_norm_pixel_step(v) * (int64_t)call->item;
    const int aligned = pixel > 0 && pixel % FC_STREAM_ALIGN == 0 && (uintptr_t)v->data % FC_STREAM_ALIGN == 0;
    const int long_runs = run * (int64_t)call->item >= LEAST_RUN;
    return (aligned || long_runs) && fc_should_stream(size, reads * size);
}

static int is_linear(const fc_view *v) { return v->h == 1 || v->stride_h == v->w * v->stride_w; }

int fc_norm_is_plane(const fc_view *v)
{
    return v->w == 1 ? v->h == 1 || v->stride_h == 1 : v->stride_w == 1 && is_linear(v);
}

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
                          v->stride_c,
                          0};
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

fc_norm_pixels fc_norm_read(const fc_norm_call *call, const fc_view *v, int64_t q, int64_t count, int64_t c,
                            int64_t lanes, char *tile)
{
    if (!v->data)
        return (fc_norm_pixels){NULL, 0, 0};
    const int64_t step = fc_norm_pixel_step(v);
    if (step)
        return (fc_norm_pixels){fc_norm_pixel_at(call, v, q, c), step, v->stride_n};
    fc_norm_move_tile(call, v, q, count, c, lanes, tile, 0);
    return (fc_norm_pixels){tile, FC_NORM_LANES, call->plane * FC_NORM_LANES};
}

fc_norm_channels fc_norm_by_channel(const fc_norm_call *call, int64_t c)
{
    fc_norm_channels by = call->by;
    const int64_t at = c * (int64_t)call->item;
    by.centre = call->centre + at;
    by.gain = call->gain + at;
    by.shift = call->shift + at;
    by.slope = by.slope ? call->slope + at : NULL;
    by.offset = call->offset + at;
    return by;
}

/* ---- maps --------------------------------------------------------------------------------------------------------*/
/* How the maps walk: pixels in place, planes of contiguous rows, or tiles. Tasks run from the end of the arrays to
 * their start: the sums before went the other way, so what they read last is still in the cache. */
typedef enum { PIXELS, PLANES, TILES } walk;
typedef struct {
    const fc_norm_call *call;
    walk walk;
    int for_grad;
    const fc_view *other; /* what is read beside x: the residual or the gradient */
    int64_t tasks;
    int64_t step, parts; /* values (planes) or pixels per task, and tasks per plane */
    int64_t group, planes; /* planes per task */
} map_call;

static void map_pixels(const map_call *map, int64_t c, int64_t lanes, int64_t count, fc_norm_pixels other,
                       fc_norm_pixels x, fc_norm_pixels y)
{
    const fc_norm_call *call = map->call;
    const fc_norm_channels by = fc_norm_by_channel(call, c);
    if (map->for_grad)
        call->k->norm->grad_last(count, lanes, &by, call->gate, other, x, y);
    else
        call->k->norm->map_last(count, lanes, &by, x, other, y);
}

static fc_norm_pixels planes_at(const fc_norm_call *call, const fc_view *v, int64_t q, int64_t c)
{
    return (fc_norm_pixels){v->data ? fc_norm_pixel_at(call, v, q, c) : NULL, v->stride_c, v->stride_n};
}

/* Neighbouring values: of a plane, or of a row where one of the arrays has gaps after its rows */
static int64_t run_of(const map_call *map)
{
    const fc_norm_call *call = map->call;
    const int linear = is_linear(&call->x) && is_linear(&call->y) && (!map->other->data || is_linear(map->other));
    return linear ? call->plane : call->x.w;
}

/* Values [begin, end) of the planes of channels [c, c + channels) of images [n, n + images) */
static void map_planes(const map_call *map, int64_t n, int64_t images, int64_t c, int64_t channels, int64_t begin,
                       int64_t end)
{
    const fc_norm_call *call = map->call;
    const int64_t row = run_of(map);
    for (int64_t p = begin; p < end;) {
        const int64_t run = fc_lesser(end - p, row - p % row), q = n * call->plane + p;
        const fc_norm_pixels x = planes_at(call, &call->x, q, c), y = planes_at(call, &call->y, q, c),
                             other = planes_at(call, map->other, q, c);
        if (map->for_grad)
            call->k->norm->grad_plane(images, channels, run, c, &call->by, call->gate, other, x, y);
        else
            call->k->norm->map_plane(images, channels, run, c, &call->by, x, other, y);
        p += run;
    }
}

static void map_tile(const map_call *map, int64_t task, int slot)
{
    const fc_norm_call *call = map->call;
    const int64_t lane_parts = fc_parts(call->channels, FC_NORM_LANES);
    const int64_t c = task % lane_parts * FC_NORM_LANES, lanes = fc_lesser(FC_NORM_LANES, call->channels - c);
    const int64_t q = task / lane_parts * FC_NORM_TILE, count = fc_lesser(FC_NORM_TILE, call->pixels - q);
    const size_t tile = fc_norm_aligned(FC_NORM_TILE * FC_NORM_LANES * (int64_t)call->item);
    char *x = call->slots + (size_t)slot * call->slot_bytes, *other = x + tile;
    fc_norm_pixels y = {other + tile, FC_NORM_LANES, 0};
    map_pixels(map, c, lanes, count, fc_norm_read(call, map->other, q, count, c, lanes, other),
               fc_norm_read(call, &call->x, q, count, c, lanes, x), y);
    fc_norm_move_tile(call, &call->y, q, count, c, lanes, y.data, 1);
}

static void map_task(void *context, int64_t task, int slot)
{
    const map_call *map = context;
    const fc_norm_call *call = map->call;
    if (map->walk == TILES) {
        map_tile(map, task, slot);
    } else if (map->walk == PIXELS) {
        const int64_t q = task * map->step, count = fc_lesser(map->step, call->pixels - q);
        map_pixels(map, 0, call->channels, count, fc_norm_read(call, map->other, q, count, 0, call->channels, NULL),
                   fc_norm_read(call, &call->x, q, count, 0, call->channels, NULL),
                   fc_norm_read(call, &call->y, q, count, 0, call->channels, NULL));
    } else {
        const int64_t begin = task % map->parts * map->step, end = fc_lesser(call->plane, begin + map->step);
        const int64_t first = task / map->parts * map->group, last = fc_lesser(map->planes, first + map->group);
        for (int64_t i = first; i < last;) {
            const int64_t c = i % call->channels, count = fc_lesser(last - i, call->channels - c);
            map_planes(map, i / call->channels, 1, c, count, begin, end);
            i += count;
        }
    }
    if (call->by.stream)
        call->k->fence();
}

static walk walk_of(const fc_norm_call *call, const fc_view *other)
{
    const fc_view *views[] = {&call->x, &call->y, other};
    int pixels = 1, planes = 1;
    for (int i = 0; i < 2 + (other->data != NULL); i++) {
        pixels &= fc_norm_pixel_step(views[i]) != 0;
        planes &= views[i]->stride_w == 1 && call->plane > 1;
    }
    return planes && call->channels == 1 ? PLANES : pixels ? PIXELS : planes ? PLANES : TILES;
}

int64_t fc_norm_map_tiles(const fc_norm_call *call, const fc_view *other)
{
    if (walk_of(call, other) != TILES)
        return 0;
    return fc_parts(call->pixels, FC_NORM_TILE) * fc_parts(call->channels, FC_NORM_LANES);
}

static map_call map_of(const fc_norm_call *call, int for_grad)
{
    map_call map = {.call = call,
                    .for_grad = for_grad,
                    .other = for_grad ? &call->g : &call->r,
                    .planes = call->x.n * call->channels};
    map.walk = walk_of(call, map.other);
    return map;
}

void fc_norm_choose_stream(fc_norm_call *call, int for_grad)
{
    const map_call map = map_of(call, for_grad);
    const int64_t reads = 1 + (map.other->data != NULL) + call->norm->training; /* x for the sums, too */
    call->by.stream =
        map.walk != TILES && call->y.data != call->x.data && call->y.data != map.other->data &&
        fc_norm_streams(call, &call->y, map.walk == PLANES ? run_of(&map) : 0, reads); /* tiles stay in the cache */
}

void fc_norm_map_channels(const fc_norm_call *call, int for_grad, int64_t c, int64_t lanes)
{
    const map_call map = map_of(call, for_grad);
    map_planes(&map, 0, call->x.n, c, lanes, 0, call->plane);
    if (call->by.stream)
        call->k->fence();
}

void fc_norm_map(fc_norm_call *call, int for_grad)
{
    map_call map = map_of(call, for_grad);
    fc_norm_choose_stream(call, for_grad);
    if (map.walk == TILES) {
        map.tasks = fc_norm_map_tiles(call, map.other);
        fc_parallel_back(call->map_slot_count, map.tasks, map_task, &map);
        return;
    }
    if (map.walk == PLANES) {
        map.step = fc_lesser(call->plane, TASK_VALUES);
        map.parts = fc_parts(call->plane, map.step);
        map.group = fc_greater(1, TASK_VALUES / call->plane);
        map.tasks = fc_parts(map.planes, map.group) * map.parts;
    } else {
        map.step = fc_greater(1, TASK_VALUES / call->channels);
        map.tasks = fc_parts(call->pixels, map.step);
    }
    fc_parallel_back(fc_parallel_slots(map.tasks), map.tasks, map_task, &map);
}
