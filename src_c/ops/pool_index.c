/* pool_index.c: max-pool gradients and unpooling with positions given by the caller.
 *
 * A task is a group of planes, or the channels of one image where they lie together; within a plane everything happens
 * in row-major order of the outputs, whatever the threads.
 */
#include "../kernels/kernels.h"
#include "../threads.h"
#include "windows.h"

#include <stdatomic.h>
#include <string.h>

enum {
    TASK_INDICES = 1 << 13, /* indices per task: about 8 us */
    CHANNELS = 64,          /* of a task of few large images with their channels together */
    SAMPLES = 32,           /* of windows of 3x3 that are 2 apart, all look as if 2x2 once in 2e11 times */
    COUNTED = 1 << 24,      /* floats count so far */
};

typedef struct {
    fc_view value, index, plane;
    size_t item;
    int (*run)(const fc_pool_index_task *);
    int64_t channels, channel_parts, items, group;
    int64_t window_h, window_w; /* fc_pool_index_task */
    int stream;
    _Atomic int outside;
} index_call;

/* The distance of two positions of a plane; strides of axes of one element mean nothing. */
static int64_t position_step(const fc_view *plane)
{
    return plane->w > 1 ? plane->stride_w : plane->h > 1 ? plane->stride_h : 0;
}

static void index_task(void *context, int64_t task, int slot)
{
    (void)slot;
    index_call *call = context;
    const fc_view *value = &call->value, *index = &call->index, *plane = &call->plane;
    const int64_t size = (int64_t)call->item;
    _Alignas(64) char place[FC_POOL_PLACE_BYTES];
    memset(place, 0, FC_POOL_PLACE_BEGIN);
    for (int64_t i = task * call->group; i < fc_lesser(call->items, (task + 1) * call->group); i++) {
        const int64_t n = i / call->channel_parts, c = i % call->channel_parts * call->channels;
        const fc_pool_index_task t = {
            .plane = (char *)plane->data + (n * plane->stride_n + c * plane->stride_c) * size,
            .plane_step = position_step(plane),
            .plane_size = plane->h * plane->w,
            .plane_channel = plane->stride_c,
            .index = (const int64_t *)index->data + n * index->stride_n + c * index->stride_c,
            .index_row = index->stride_h,
            .index_col = index->stride_w,
            .index_channel = index->stride_c,
            .value = (char *)value->data + (n * value->stride_n + c * value->stride_c) * size,
            .value_row = value->stride_h,
            .value_col = value->stride_w,
            .value_channel = value->stride_c,
            .n_rows = value->h,
            .n_cols = value->w,
            .channels = fc_lesser(call->channels, value->c - c),
            .window_h = call->window_h,
            .window_w = call->window_w,
            .plane_w = plane->w,
            .stream = call->stream,
            .place = place,
        };
        if (call->run(&t))
            atomic_store(&call->outside, 1);
    }
}

/* Whether a plane of windows that tile it should bypass the caches: pixels of whole lines, or rows of them */
static int streams(const index_call *call, int64_t outputs)
{
    const fc_view *plane = &call->plane;
    const int64_t size = (int64_t)call->item, align = FC_STREAM_ALIGN, step = position_step(plane);
    const int64_t run = plane->stride_c == 1 ? call->channels : step == 1 ? plane->w : 1;
    const int lines = run * size % align == 0 && (step == 1 || step * size % align == 0) &&
                      (plane->stride_c == 1 || plane->stride_c * size % align == 0) &&
                      plane->stride_n * size % align == 0 && (uintptr_t)plane->data % (uintptr_t)align == 0;
    return lines && fc_should_stream(plane->n * plane->c * plane->h * plane->w * size, outputs * (size + 8));
}

/* Whoever calls fc_index_add does not say what windows the positions come from, but mostly they do come from some.
 * Those that tile the plane but for its last rows and columns are known by its shape and some of the positions. */
static void guess_windows(index_call *call)
{
    const fc_view *index = &call->index, *plane = &call->plane;
    const int64_t outputs = index->n * index->c * index->h * index->w;
    if (outputs < 32 * SAMPLES || outputs > UINT32_MAX || plane->h * plane->w > COUNTED / call->channels)
        return;
    const int64_t rows = plane->h / index->h, cols = plane->w / index->w;
    for (uint64_t s = 0; s < SAMPLES; s++) {
        const uint64_t spread = s * 0x9E3779B97F4A7C15 >> 32; /* Fibonacci hashing (Knuth) */
        int64_t at = (int64_t)(spread * (uint64_t)outputs >> 32);
        const int64_t j = at % index->w, i = (at /= index->w) % index->h, c = (at /= index->h) % index->c;
        const int64_t position = ((const int64_t *)index->data)[at / index->c * index->stride_n + c * index->stride_c +
                                                                i * index->stride_h + j * index->stride_w];
        const int64_t row = position / plane->w, col = position % plane->w;
        if (row < i * rows || row >= (i + 1) * rows || col < j * cols || col >= (j + 1) * cols)
            return;
    }
    call->window_h = rows, call->window_w = cols;
    call->stream = streams(call, outputs);
}

static fc_status by_index(fc_dtype dtype, int (*run)(const fc_pool_index_task *), const fc_view *value,
                          const fc_view *index, const fc_view *plane, int guess)
{
    if (plane->n == 0 || plane->c == 0)
        return FC_OK;
    index_call call = {.value = *value, .index = *index, .plane = *plane, .item = dtype == FC_F32 ? 4 : 8, .run = run};
    call.channels = plane->stride_c != 1 ? 1 : plane->n >= 8 ? plane->c : fc_lesser(plane->c, CHANNELS);
    call.channel_parts = fc_parts(plane->c, call.channels);
    call.items = plane->n * call.channel_parts;
    call.group = fc_greater(1, TASK_INDICES / fc_greater(1, value->h * value->w * call.channels));
    atomic_init(&call.outside, 0);
    if (guess)
        guess_windows(&call);
    fc_parallel(fc_parts(call.items, call.group), index_task, &call);
    return atomic_load(&call.outside) ? FC_EINDEX : FC_OK;
}

fc_status fc_index_add(fc_dtype dtype, const fc_view *value, const fc_view *index, const fc_view *plane)
{
    return by_index(dtype, fc_get_kernels(dtype)->pool->scatter_add, value, index, plane, 1);
}

fc_status fc_index_set(fc_dtype dtype, const fc_view *value, const fc_view *index, const fc_view *plane)
{
    return by_index(dtype, fc_get_kernels(dtype)->pool->scatter_set, value, index, plane, 0);
}

fc_status fc_index_get(fc_dtype dtype, const fc_view *plane, const fc_view *index, const fc_view *value)
{
    return by_index(dtype, fc_get_kernels(dtype)->pool->gather, value, index, plane, 0);
}
