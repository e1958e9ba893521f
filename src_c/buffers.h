/* buffers.h: memory of arrays that come and go in the same order again and again, as in the steps of a training
 * loop. */
#ifndef FC_BUFFERS_H
#define FC_BUFFERS_H
#include <stddef.h>
#include <stdint.h>

typedef struct fc_buffers fc_buffers;

/* NULL: no memory */
fc_buffers *fc_buffers_new(void);
/* Frees what is kept, and the pool; no block may be out. */
void fc_buffers_delete(fc_buffers *);
/* A block of at least `bytes` bytes aligned to 64, or NULL: one given back before (the last one that fits), or a new
 * one. Blocks kept and out never sum to more than 5/4 of the most that was ever out at a time. */
void *fc_buffers_take(fc_buffers *, size_t bytes);
void fc_buffers_give(fc_buffers *, void *block);
/* Frees the blocks that are kept. */
void fc_buffers_clear(fc_buffers *);
/* Bytes of the blocks that are kept and of those that are out. */
void fc_buffers_count(fc_buffers *, int64_t *kept, int64_t *out);
#endif
