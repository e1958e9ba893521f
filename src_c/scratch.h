/* scratch.h: working memory of one call. */
#ifndef FC_SCRATCH_H
#define FC_SCRATCH_H
#include <stddef.h>

/* Returns `bytes` (rounded up) bytes aligned to 64, or NULL. The contents are undefined. */
void *fc_scratch_acquire(size_t bytes);
void fc_scratch_release(void *block);
#endif
