/* norm.h: one batch normalisation as its drivers see it. */
#ifndef FC_OPS_NORM_H
#define FC_OPS_NORM_H
#include "windows.h"

enum {
    FC_NORM_CHUNK = 256, /* pixels summed in the array's precision, and pixels of a tile */
    FC_NORM_LANES = 16,  /* channels of a tile; with 256 pixels of float32 16 KiB */
};

/* Pixel q = n * height * width + h * width + w. */
typedef struct {
    const fc_kernels *k;
    size_t item;
    fc_dtype dtype;
    const fc_batch_norm *norm;
    fc_view x, g, y;
    int64_t channels, plane, pixels;
    int64_t lanes, lane_parts, pixel_parts;
    double *mean, *inv; /* [channels] */
    double *first, *second; /* [pixel_parts][channels]: of each task */
    char *centre, *gain, *slope, *shift; /* [channels] */
    char *slots;
    int slot_count;
    size_t slot_bytes, tile_bytes;
} fc_norm_call;

static inline size_t fc_norm_aligned(int64_t bytes) { return ((size_t)bytes + 63) / 64 * 64; }

/* The distance of two neighbouring pixels if it is the same for all and channels are contiguous, otherwise 0. */
int64_t fc_norm_pixel_step(const fc_view *);
char *fc_norm_pixel_at(const fc_norm_call *, const fc_view *, int64_t q, int64_t c);
/* Pixels [q, q + count) and channels [c, c + lanes) from or to (store) tile[count][FC_NORM_LANES]. */
void fc_norm_move_tile(const fc_norm_call *, const fc_view *, int64_t q, int64_t count, int64_t c, int64_t lanes,
                       char *tile, int store);

/* For all pixels y = (x - centre) * gain + shift, or with has_g
 * y = g * gain + (x - centre) * slope + shift. FC_ENOMEM: nothing was written. */
fc_status fc_norm_map(fc_norm_call *, int has_g);
#endif
