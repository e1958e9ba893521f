/* scratch.c: a small cache of aligned blocks, shared by all threads.
 *
 * A driver acquires one block at the start of a call (its own part and one part per thread) and releases it at the end.
 * Released blocks are kept for the next call up to KEEP_BYTES in all and KEEP_BLOCKS in number, the oldest make room
 * for the newest; nothing is keyed by shape.
 */
#define _GNU_SOURCE
#include "scratch.h"
#include "fastconv.h"
#include "threads.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#ifdef __linux__
#include <sys/mman.h>
#endif

/* AddressSanitizer knows what of a block the caller asked for: nothing of a kept one, nothing past its end. */
#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define FC_ASAN 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(FC_ASAN)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(address, bytes) ((void)(address), (void)(bytes))
#define ASAN_UNPOISON_MEMORY_REGION(address, bytes) ((void)(address), (void)(bytes))
#endif

enum {
    ALIGN = 64,         /* a cache line, and the widest vector */
    HEADER = ALIGN,     /* keeps the user's part aligned */
    KEEP_BLOCKS = 16,
    ROUND = 4096,       /* sizes are rounded up so that similar shapes share a block */
    HUGE_PAGE = 1 << 21,
};
static const size_t KEEP_BYTES = (size_t)64 << 20;

typedef struct {
    size_t bytes;
} header;

static struct {
    pthread_mutex_t mutex;
    bool fork_handler;
    header *blocks[KEEP_BLOCKS];
    int count;
    size_t bytes;
} cache = {.mutex = PTHREAD_MUTEX_INITIALIZER};

/* The lock is taken across a fork, so that the child finds the cache whole. */
static void before_fork(void) { pthread_mutex_lock(&cache.mutex); }
static void after_fork(void) { pthread_mutex_unlock(&cache.mutex); }

/* blocks[0] is the one released longest ago */
static header *remove_cached(int index)
{
    header *block = cache.blocks[index];
    cache.count--;
    for (int i = index; i < cache.count; i++)
        cache.blocks[i] = cache.blocks[i + 1];
    cache.bytes -= block->bytes;
    return block;
}

static header *take_cached(size_t bytes)
{
    int best = -1;
    for (int i = 0; i < cache.count; i++)
        if (cache.blocks[i]->bytes >= bytes && (best < 0 || cache.blocks[i]->bytes < cache.blocks[best]->bytes))
            best = i;
    if (best < 0)
        return NULL;
    return remove_cached(best);
}

static atomic_llong blocks_left = -1; /* see fc_scratch_limit; negative: any number */

int64_t fc_scratch_limit(int64_t blocks) { return atomic_exchange(&blocks_left, blocks); }

static bool take_one_of_limit(void)
{
    long long left = atomic_load(&blocks_left);
    while (left > 0 && !atomic_compare_exchange_weak(&blocks_left, &left, left - 1))
        ;
    return left != 0;
}

static header *allocate(size_t bytes)
{
    void *block = NULL;
    if (!take_one_of_limit() || posix_memalign(&block, bytes >= HUGE_PAGE ? HUGE_PAGE : ALIGN, bytes + HEADER))
        return NULL;
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    if (bytes >= HUGE_PAGE)
        madvise(block, bytes + HEADER, MADV_HUGEPAGE);
#endif
    ((header *)block)->bytes = bytes;
    return block;
}

static FC_THREAD_LOCAL fc_lent lent;

fc_lent fc_scratch_lend(fc_lent now)
{
    const fc_lent before = lent;
    lent = now;
    return before;
}

void *fc_scratch_acquire(size_t bytes)
{
    if (lent.memory && !lent.used && bytes <= lent.bytes) {
        lent.used = 1;
        return lent.memory;
    }
    const size_t wanted = bytes;
    bytes = (bytes + ROUND - 1) / ROUND * ROUND;
    pthread_mutex_lock(&cache.mutex);
    if (!cache.fork_handler)
        cache.fork_handler = pthread_atfork(before_fork, after_fork, after_fork) == 0;
    header *block = take_cached(bytes);
    pthread_mutex_unlock(&cache.mutex);
    if (!block)
        block = allocate(bytes);
    if (!block)
        return NULL;
    char *user = (char *)block + HEADER;
    ASAN_UNPOISON_MEMORY_REGION(user, wanted);
    ASAN_POISON_MEMORY_REGION(user + wanted, block->bytes - wanted);
    return user;
}

void fc_scratch_release(void *user)
{
    if (!user)
        return;
    if (user == lent.memory) {
        lent.used = 0;
        return;
    }
    header *block = (header *)((char *)user - HEADER);
    ASAN_POISON_MEMORY_REGION(user, block->bytes);
    if (block->bytes > KEEP_BYTES) {
        free(block);
        return;
    }
    pthread_mutex_lock(&cache.mutex);
    while (cache.count == KEEP_BLOCKS || cache.bytes + block->bytes > KEEP_BYTES)
        free(remove_cached(0));
    cache.blocks[cache.count++] = block;
    cache.bytes += block->bytes;
    pthread_mutex_unlock(&cache.mutex);
}

int64_t fc_need_bytes(fc_need n)
{
    int64_t bytes;
    if (__builtin_mul_overflow(n.each, (int64_t)fc_parallel_slots(INT64_MAX), &bytes) ||
        __builtin_add_overflow(bytes, n.shared, &bytes))
        return INT64_MAX / 2;
    return bytes;
}

fc_shared_scratch fc_scratch_share(int64_t own, int64_t others)
{
    fc_shared_scratch s = {.own = fc_scratch_acquire_parts(own, 1, others)};
    if (s.own)
        s.before = fc_scratch_lend((fc_lent){s.own + own, (size_t)others, 0});
    return s;
}

void fc_scratch_unshare(fc_shared_scratch s)
{
    if (!s.own)
        return;
    fc_scratch_lend(s.before);
    fc_scratch_release(s.own);
}

void fc_clear_workspace(void)
{
    pthread_mutex_lock(&cache.mutex);
    for (int i = 0; i < cache.count; i++)
        free(cache.blocks[i]);
    cache.count = 0;
    cache.bytes = 0;
    pthread_mutex_unlock(&cache.mutex);
}

int64_t fc_workspace_bytes(void)
{
    pthread_mutex_lock(&cache.mutex);
    int64_t bytes = (int64_t)cache.bytes;
    pthread_mutex_unlock(&cache.mutex);
    return bytes;
}
