/* buffers.c: a stack of freed blocks. The block given back last is the one most likely still in the cache. */
#define _GNU_SOURCE
#include "buffers.h"

#include <pthread.h>
#include <stdlib.h>
#ifdef __linux__
#include <sys/mman.h>
#endif

enum {
    ALIGN = 64,
    HUGE_PAGE = 1 << 21,
    ROUND_SMALL = 1 << 14, /* sizes are rounded up so that nearly equal ones share a block */
    LEAST_HUGE = 1 << 20,  /* from here on whole huge pages: 512 page faults and TLB entries become one */
    MOST_BLOCKS = 4096,
    /* bytes that need no bound: the blocks of a small network differ more in size than 5/4 allows */
    SMALL_POOL = 8 << 20,
};

typedef struct {
    void *data;
    size_t bytes;
} block;

struct fc_buffers {
    pthread_mutex_t mutex;
    block kept[MOST_BLOCKS], out[MOST_BLOCKS];
    int kept_count, out_count;
    size_t kept_bytes, out_bytes, most_out;
};

fc_buffers *fc_buffers_new(void)
{
    fc_buffers *pool = calloc(1, sizeof *pool);
    if (pool && pthread_mutex_init(&pool->mutex, NULL)) {
        free(pool);
        return NULL;
    }
    return pool;
}

void fc_buffers_delete(fc_buffers *pool)
{
    fc_buffers_clear(pool);
    pthread_mutex_destroy(&pool->mutex);
    free(pool);
}

static block remove_kept(fc_buffers *pool, int index)
{
    const block b = pool->kept[index];
    pool->kept_count--;
    for (int i = index; i < pool->kept_count; i++)
        pool->kept[i] = pool->kept[i + 1];
    pool->kept_bytes -= b.bytes;
    return b;
}

/* The newest block that fits without wasting half of itself. */
static block take_kept(fc_buffers *pool, size_t bytes)
{
    for (int i = pool->kept_count - 1; i >= 0; i--)
        if (pool->kept[i].bytes >= bytes && pool->kept[i].bytes / 2 <= bytes)
            return remove_kept(pool, i);
    return (block){NULL, 0};
}

static size_t most_bytes(const fc_buffers *pool)
{
    return pool->most_out / 4 * 5 > SMALL_POOL ? pool->most_out / 4 * 5 : SMALL_POOL;
}

static block allocate(size_t bytes)
{
    block b = {NULL, bytes};
    if (posix_memalign(&b.data, bytes >= LEAST_HUGE ? HUGE_PAGE : ALIGN, bytes))
        return (block){NULL, 0};
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    if (bytes >= LEAST_HUGE)
        madvise(b.data, bytes, MADV_HUGEPAGE);
#endif
    return b;
}

void *fc_buffers_take(fc_buffers *pool, size_t bytes)
{
    const size_t unit = bytes >= LEAST_HUGE ? HUGE_PAGE : ROUND_SMALL;
    if (bytes > SIZE_MAX / 2)
        return NULL;
    bytes = (bytes + unit - 1) / unit * unit;
    pthread_mutex_lock(&pool->mutex);
    block b = {NULL, 0};
    if (pool->out_count < MOST_BLOCKS) {
        b = take_kept(pool, bytes);
        const size_t out = pool->out_bytes + (b.data ? b.bytes : bytes);
        if (out > pool->most_out)
            pool->most_out = out;
        while (pool->kept_count && out + pool->kept_bytes > most_bytes(pool))
            free(remove_kept(pool, 0).data);
        if (!b.data)
            b = allocate(bytes);
    }
    if (b.data) {
        pool->out[pool->out_count++] = b;
        pool->out_bytes += b.bytes;
    }
    pthread_mutex_unlock(&pool->mutex);
    return b.data;
}

void fc_buffers_give(fc_buffers *pool, void *data)
{
    pthread_mutex_lock(&pool->mutex);
    int i = pool->out_count - 1;
    while (pool->out[i].data != data)
        i--;
    const block b = pool->out[i];
    pool->out[i] = pool->out[--pool->out_count];
    pool->out_bytes -= b.bytes;
    if (pool->kept_count == MOST_BLOCKS) {
        free(b.data);
    } else {
        pool->kept[pool->kept_count++] = b;
        pool->kept_bytes += b.bytes;
    }
    pthread_mutex_unlock(&pool->mutex);
}

void fc_buffers_clear(fc_buffers *pool)
{
    pthread_mutex_lock(&pool->mutex);
    while (pool->kept_count)
        free(remove_kept(pool, pool->kept_count - 1).data);
    pool->most_out = pool->out_bytes;
    pthread_mutex_unlock(&pool->mutex);
}

void fc_buffers_count(fc_buffers *pool, int64_t *kept, int64_t *out)
{
    pthread_mutex_lock(&pool->mutex);
    *kept = (int64_t)pool->kept_bytes;
    *out = (int64_t)pool->out_bytes;
    pthread_mutex_unlock(&pool->mutex);
}
