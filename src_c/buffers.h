/* buffers.h: memory of arrays that come and go again and again, as in the steps of a training loop. */
#ifndef FC_BUFFERS_H
#define FC_BUFFERS_H
#include <stddef.h>
#include <stdint.h>

typedef struct fc_buffers fc_buffers;
typedef struct {
    void *data; /* aligned to 64; NULL: no memory */
    size_t bytes;
} fc_block;

/* `most_kept` bytes of blocks given back are kept; with 0 as many as, with those that are out, 5/4 of the most that
 * was ever out at a time. NULL: no memory. */
fc_buffers *fc_buffers_new(size_t most_kept);
/* Frees what is kept, and the pool; no block may be out. */
void fc_buffers_delete(fc_buffers *);
/* At least `bytes` bytes: the last block given back that fits, or a new one. */
fc_block fc_buffers_take(fc_buffers *, size_t bytes);
void fc_buffers_give(fc_buffers *, fc_block);
/* Frees the blocks that are kept. */
void fc_buffers_clear(fc_buffers *);
/* Bytes of the blocks that are kept and of those that are out. */
void fc_buffers_count(fc_buffers *, int64_t *kept, int64_t *out);
#endif
