/* scratch.h: working memory of one call. */
#ifndef FC_SCRATCH_H
#define FC_SCRATCH_H
#include <stddef.h>
#include <stdint.h>

/* Returns `bytes` (rounded up) bytes aligned to 64, or NULL. The contents are undefined. */
void *fc_scratch_acquire(size_t bytes);
void fc_scratch_release(void *block);
/* The calling thread's blocks lie in `memory` (aligned to 64) as long as they fit, one at a time, until what was lent
 * before, which this returns, is lent again: calls inside a task neither allocate nor wait for each other. */
typedef struct {
    void *memory;
    size_t bytes;
    int used;
} fc_lent;
fc_lent fc_scratch_lend(fc_lent);

/* The same for `shared` bytes and `slots` parts of `each` bytes, NULL also when their sum is no size. */
static inline void *fc_scratch_acquire_parts(int64_t shared, int slots, int64_t each)
{
    int64_t bytes;
    if (__builtin_mul_overflow(each, slots, &bytes) || __builtin_add_overflow(bytes, shared, &bytes) ||
        bytes > INT64_MAX / 2)
        return NULL;
    return fc_scratch_acquire((size_t)bytes);
}

/* Bytes that a call takes: its own and `each` for every thread. */
typedef struct {
    int64_t shared, each;
} fc_need;
/* In all, with the threads of now; more than there is where that is no size. */
int64_t fc_need_bytes(fc_need);

/* A call that consists of others must not write before it is known that the last one will have enough memory: it takes
 * one block, `own` bytes for itself (NULL if there is none) and what is lent to the others, which have it one after the
 * other. */
typedef struct {
    char *own;
    fc_lent before;
} fc_shared_scratch;
fc_shared_scratch fc_scratch_share(int64_t own, int64_t others);
void fc_scratch_unshare(fc_shared_scratch);
#endif
