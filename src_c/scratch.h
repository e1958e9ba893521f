/* scratch.h: working memory of one call. */
#ifndef FC_SCRATCH_H
#define FC_SCRATCH_H
#include <stddef.h>
#include <stdint.h>

/* Returns `bytes` (rounded up) bytes aligned to 64, or NULL. The contents are undefined. */
void *fc_scratch_acquire(size_t bytes);
void fc_scratch_release(void *block);
/* The calling thread's blocks lie in `memory` (aligned to 64) as long as they fit, one at a time, until it lends none
 * (NULL, 0): calls inside a task neither allocate nor wait for each other. */
void fc_scratch_lend(void *memory, size_t bytes);

/* The same for `shared` bytes and `slots` parts of `each` bytes, NULL also when their sum is no size. */
static inline void *fc_scratch_acquire_parts(int64_t shared, int slots, int64_t each)
{
    int64_t bytes;
    if (__builtin_mul_overflow(each, slots, &bytes) || __builtin_add_overflow(bytes, shared, &bytes) ||
        bytes > INT64_MAX / 2)
        return NULL;
    return fc_scratch_acquire((size_t)bytes);
}

/* Whether there is memory for `blocks` at a time of `slots` parts of `each` bytes. Some calls consist of several that
 * take their own, and must not write before it is known that the last one will have enough. What is released here is
 * what they take. */
int fc_scratch_suffices(int64_t blocks, int slots, int64_t each);
#endif
