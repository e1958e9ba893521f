/* buffers.c: a stack of freed blocks. The block given back last is the one most likely still in the cache. */
#define _GNU_SOURCE
#include "buffers.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#ifdef __linux__
#include <sys/mman.h>
#endif

enum {
    ALIGN = 64,
    HUGE_PAGE = 1 << 21,
    /* Sizes are rounded up so that nearly equal ones share a block: from LEAST_HUGE on to whole huge pages (512 page
     * faults and TLB entries become one), or by less than a sixteenth, where a caller may hold any number of blocks. */
    ROUND_SMALL = 1 << 14,
    ROUND_LARGE = 1 << 16,
    LEAST_HUGE = 1 << 20,
    MOST_BLOCKS = 4096,
    /* bytes that need no bound: the blocks of a small network differ more in size than 5/4 allows */
    SMALL_POOL = 8 << 20,
};

struct fc_buffers {
    fc_block kept[MOST_BLOCKS]; /* oldest first */
    int kept_count;
    size_t most_kept, kept_bytes, out_bytes, most_out;
};

/* One lock for all pools, held while a list is searched and blocks are allocated or freed; it is taken across a fork,
 * so that the child finds every pool whole. */
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

static void lock(void) { pthread_mutex_lock(&mutex); }
static void unlock(void) { pthread_mutex_unlock(&mutex); }

fc_buffers *fc_buffers_new(size_t most_kept)
{
    static bool fork_handler;
    fc_buffers *pool = calloc(1, sizeof *pool);
    if (!pool)
        return NULL;
    pool->most_kept = most_kept;
    lock();
    if (!fork_handler)
        fork_handler = pthread_atfork(lock, unlock, unlock) == 0;
    unlock();
    return pool;
}

void fc_buffers_delete(fc_buffers *pool)
{
    fc_buffers_clear(pool);
    free(pool);
}

static fc_block remove_kept(fc_buffers *pool, int index)
{
    const fc_block b = pool->kept[index];
    pool->kept_count--;
    for (int i = index; i < pool->kept_count; i++)
        pool->kept[i] = pool->kept[i + 1];
    pool->kept_bytes -= b.bytes;
    return b;
}

/* The newest block that fits: a step may waste half of it, a caller, who may hold any number of them, a sixteenth. */
static fc_block take_kept(fc_buffers *pool, size_t bytes)
{
    const size_t most = pool->most_kept ? bytes + bytes / 16 : 2 * bytes;
    for (int i = pool->kept_count - 1; i >= 0; i--)
        if (pool->kept[i].bytes >= bytes && pool->kept[i].bytes <= most)
            return remove_kept(pool, i);
    return (fc_block){NULL, 0};
}

/* Bytes that may be kept while `out` are out. */
static size_t most_kept(const fc_buffers *pool, size_t out)
{
    if (pool->most_kept)
        return pool->most_kept;
    const size_t most = pool->most_out / 4 * 5 > SMALL_POOL ? pool->most_out / 4 * 5 : SMALL_POOL;
    return most > out ? most - out : 0;
}

static void free_oldest(fc_buffers *pool, size_t most)
{
    while (pool->kept_count && pool->kept_bytes > most)
        free(remove_kept(pool, 0).data);
}

static fc_block allocate(size_t bytes)
{
    fc_block b = {NULL, bytes};
    if (posix_memalign(&b.data, bytes >= LEAST_HUGE ? HUGE_PAGE : ALIGN, bytes))
        return (fc_block){NULL, 0};
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    if (bytes >= LEAST_HUGE)
        madvise(b.data, bytes, MADV_HUGEPAGE);
#endif
    return b;
}

fc_block fc_buffers_take(fc_buffers *pool, size_t bytes)
{
    const size_t large = pool->most_kept ? ROUND_LARGE : HUGE_PAGE, unit = bytes < LEAST_HUGE ? ROUND_SMALL : large;
    if (bytes > SIZE_MAX / 2)
        return (fc_block){NULL, 0};
    bytes = (bytes + unit - 1) / unit * unit;
    lock();
    fc_block b = take_kept(pool, bytes);
    const size_t out = pool->out_bytes + (b.data ? b.bytes : bytes);
    if (out > pool->most_out)
        pool->most_out = out;
    free_oldest(pool, most_kept(pool, out));
    if (!b.data)
        b = allocate(bytes);
    if (!b.data) { /* what is kept may be what is missing */
        free_oldest(pool, 0);
        b = allocate(bytes);
    }
    pool->out_bytes += b.bytes;
    unlock();
    return b;
}

void fc_buffers_give(fc_buffers *pool, fc_block b)
{
    lock();
    pool->out_bytes -= b.bytes;
    const size_t most = most_kept(pool, pool->out_bytes);
    if (b.bytes > most || pool->kept_count == MOST_BLOCKS) {
        free(b.data);
    } else {
        free_oldest(pool, most - b.bytes);
        pool->kept[pool->kept_count++] = b;
        pool->kept_bytes += b.bytes;
    }
    unlock();
}

void fc_buffers_clear(fc_buffers *pool)
{
    lock();
    free_oldest(pool, 0);
    pool->most_out = pool->out_bytes;
    unlock();
}

void fc_buffers_count(fc_buffers *pool, int64_t *kept, int64_t *out)
{
    lock();
    *kept = (int64_t)pool->kept_bytes;
    *out = (int64_t)pool->out_bytes;
    unlock();
}
