/* copy.c: layout changes of whole arrays, and sums over everything but the channel. */
#include "../scratch.h"
#include "../threads.h"
#include "conv.h"

#include <string.h>

enum {
    BLOCK_PIXELS = 256, /* a transposed block of 64 channels: 64 KiB */
    BLOCK_CHANNELS = 64,
    SLICES = 16,
};

typedef struct {
    const fc_kernels *k;
    size_t item;
    const fc_view *x, *y;
} copy_job;

static void copy_row(void *context, int64_t task, int slot)
{
    (void)slot;
    const copy_job *j = context;
    const fc_view *x = j->x, *y = j->y;
    const int64_t item = (int64_t)j->item, n = task / x->h, h = task % x->h;
    /* seen through fc_load_window, y is a strip when its channels are contiguous, else x is one for fc_store_window */
    char *to = (char *)y->data + (n * y->stride_n + h * y->stride_h) * item;
    const fc_image from = fc_image_of(x, j->item, n, 0, x->c), into = fc_image_of(y, j->item, n, 0, y->c);
    const fc_window window = {h, 1, 1, 0, x->w, 1};
    if (y->stride_c == 1)
        fc_load_window(j->k, j->item, &from, &window, to, &(fc_pitch){0, y->stride_w, 1});
    else if (x->stride_c == 1)
        fc_store_window(j->k, j->item, &into, &window,
                        (const char *)x->data + (n * x->stride_n + h * x->stride_h) * item,
                        &(fc_pitch){0, x->stride_w, 1});
    else
        for (int64_t c = 0; c < x->c; c++)
            for (int64_t w = 0; w < x->w; w++)
                memcpy(to + (c * y->stride_c + w * y->stride_w) * item,
                       (const char *)x->data +
                           (n * x->stride_n + c * x->stride_c + h * x->stride_h + w * x->stride_w) * item,
                       j->item);
}

fc_status fc_copy(fc_dtype dtype, const fc_view *x, const fc_view *y)
{
    copy_job job = {fc_get_kernels(dtype), dtype == FC_F32 ? 4 : 8, x, y};
    fc_parallel(x->n * x->h, copy_row, &job);
    return FC_OK;
}

typedef struct {
    copy_job arrays;
    int adds;
} channels_job;

static void channels_row(void *context, int64_t task, int slot)
{
    (void)slot;
    const channels_job *job = context;
    const copy_job *j = &job->arrays;
    const fc_view *x = j->x, *y = j->y;
    const int64_t item = (int64_t)j->item, n = task / x->h, h = task % x->h, common = x->c < y->c ? x->c : y->c;
    const char *from = (const char *)x->data + (n * x->stride_n + h * x->stride_h) * item;
    char *to = (char *)y->data + (n * y->stride_n + h * y->stride_h) * item;
    for (int64_t w = 0; w < x->w; w++, from += x->stride_w * item, to += y->stride_w * item)
        if (job->adds) {
            j->k->elementwise->add(common, to, from, to);
        } else {
            memcpy(to, from, (size_t)(common * item));
            memset(to + common * item, 0, (size_t)((y->c - common) * item));
        }
}

void fc_copy_channels(fc_dtype dtype, const fc_view *x, const fc_view *y, int adds)
{
    channels_job job = {{fc_get_kernels(dtype), dtype == FC_F32 ? 4 : 8, x, y}, adds};
    fc_parallel(x->n * x->h, channels_row, &job);
}

/* ---- sum[c] = sum_{n,h,w} x[n][c][h][w] -----------------------------------------------------------------------------
 * Pixels of the batch in SLICES slices, each summed in order (block by block, so that errors grow with the block and
 * the number of blocks, not with the number of pixels); the slices are added in order. Few channels: pixel p of a block
 * is added to sum p % fold, so that a row of additions is BLOCK_CHANNELS long. A function of the shape alone. */
typedef struct {
    const fc_kernels *k;
    size_t item;
    const fc_view *x;
    int64_t slices;
    char *partial; /* [slice][channel] */
    char *blocks;  /* per thread */
    int64_t block_bytes;
} sum_job;

#define ADD_BLOCK(type)                                                                                                \
    do {                                                                                                               \
        type sum[BLOCK_CHANNELS] = {0}, *total = (type *)j->partial + slice * x->c + c;                                \
        const type *f = (const type *)from;                                                                            \
        for (int64_t p = 0; p < pixels / fold; p++, f += fold * pitch)                                                 \
            for (int64_t i = 0; i < fold * channels; i++)                                                              \
                sum[i] += f[i];                                                                                        \
        for (int64_t i = 0; i < pixels % fold * channels; i++)                                                         \
            sum[i] += f[i];                                                                                            \
        for (int64_t p = 0; p < fold; p++)                                                                             \
            for (int64_t i = 0; i < channels; i++)                                                                     \
                total[i] += sum[p * channels + i];                                                                     \
    } while (0)

/* Whether the pixels of all images are one row, few channels without gaps. */
static int is_one_row(const fc_view *v)
{
    return v->stride_c == 1 && (v->stride_w == v->c || v->c >= BLOCK_CHANNELS) &&
           (v->h == 1 || v->stride_h == v->w * v->stride_w) && (v->n == 1 || v->stride_n == v->h * v->w * v->stride_w);
}

/* block[pixel][channel]: `channels` of the pixels from `first` on */
static void gather(const sum_job *j, int64_t c, int64_t channels, int64_t first, int64_t pixels, char *block)
{
    const fc_view *x = j->x;
    for (int64_t done = 0, run; done < pixels; done += run) {
        const int64_t line = (first + done) / x->w, w = (first + done) % x->w;
        run = fc_min(x->w - w, pixels - done);
        const fc_image image = fc_image_of(x, j->item, line / x->h, c, channels);
        const fc_window window = {line % x->h, 1, 1, w, run, 1};
        fc_load_window(j->k, j->item, &image, &window, block + done * channels * (int64_t)j->item,
                       &(fc_pitch){0, channels, 1});
    }
}

static void sum_slice(void *context, int64_t slice, int slot)
{
    const sum_job *j = context;
    const fc_view *x = j->x;
    const int64_t item = (int64_t)j->item, all = x->n * x->h * x->w, end = (slice + 1) * all / j->slices;
    const int64_t fold = fc_max(1, BLOCK_CHANNELS / x->c);
    char *block = j->blocks + slot * j->block_bytes;
    memset(j->partial + slice * x->c * item, 0, (size_t)(x->c * item));
    for (int64_t first = slice * all / j->slices; first < end; first += BLOCK_PIXELS)
        for (int64_t c = 0; c < x->c; c += BLOCK_CHANNELS) {
            const int64_t pixels = fc_min(BLOCK_PIXELS, end - first), channels = fc_min(BLOCK_CHANNELS, x->c - c);
            const char *from = (const char *)x->data + (first * x->stride_w + c) * item;
            int64_t pitch = x->stride_w;
            if (!is_one_row(x)) {
                gather(j, c, channels, first, pixels, block);
                from = block, pitch = channels;
            }
            if (item == 4)
                ADD_BLOCK(float);
            else
                ADD_BLOCK(double);
        }
}

#define ADD_PARTS(type)                                                                                                \
    for (int64_t c = 0; c < x->c; c++) {                                                                               \
        type total = 0;                                                                                                \
        for (int64_t s = 0; s < job.slices; s++)                                                                       \
            total += ((const type *)job.partial)[s * x->c + c];                                                        \
        ((type *)sum)[c] = total;                                                                                      \
    }

fc_status fc_channel_sum(fc_dtype dtype, const fc_view *x, void *sum)
{
    const int64_t item = dtype == FC_F32 ? 4 : 8, slices = fc_ceil_div(x->n * x->h * x->w, BLOCK_PIXELS);
    sum_job job = {
        .k = fc_get_kernels(dtype), .item = (size_t)item, .x = x, .slices = fc_max(1, fc_min(SLICES, slices))};
    const int64_t partial = fc_round_up(job.slices * x->c * item, 64);
    job.block_bytes = BLOCK_PIXELS * BLOCK_CHANNELS * item;
    const int slots = fc_parallel_slots(job.slices);
    job.partial = fc_scratch_acquire_parts(partial, slots, job.block_bytes);
    if (!job.partial)
        return FC_ENOMEM;
    job.blocks = job.partial + partial;
    fc_parallel_in(slots, job.slices, sum_slice, &job);
    if (dtype == FC_F32) {
        ADD_PARTS(float)
    } else {
        ADD_PARTS(double)
    }
    fc_scratch_release(job.partial);
    return FC_OK;
}
