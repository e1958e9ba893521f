/* norm.h: one batch normalisation as its drivers see it. */
#ifndef FC_OPS_NORM_H
#define FC_OPS_NORM_H
#include "windows.h"

enum {
    FC_NORM_CHUNK = 1024, /* pixels summed in the array's precision, at most */
    FC_NORM_TILE = 256,   /* pixels of a tile of the maps */
    FC_NORM_LANES = 16,   /* channels of a tile; with 256 pixels of float32 16 KiB */
    FC_NORM_MAP_TILES = 3, /* x, what is read beside it, and y */
};

/* Pixel q = n * height * width + h * width + w. */
typedef struct {
    const fc_kernels *k;
    size_t item;
    fc_dtype dtype;
    const fc_batch_norm *norm;
    fc_norm_gate gate;
    fc_view g, x, r, y; /* r: the residual, data null where there is none; y: the map's result */
    fc_view out, gated; /* FC_GATE_OUTPUT: y of the forward call, and the residual's gradient; maps: gated is y */
    int64_t channels, plane, pixels;
    int64_t chunk_images, chunk_pixels, chunks; /* what is summed in the array's precision */
    int64_t lanes, lane_parts, pixel_parts, part; /* channels and chunks of a task of the sums */
    fc_norm_wanted wanted;
    int maps; /* the sums write grad_x as they go, fc_norm_sums.maps */
    void *grad_weight, *grad_bias; /* may be null */
    int by_planes, together; /* sums over planes; a task maps its channels, too */
    double *mean, *inv; /* [channels] */
    /* [pixel_parts][channels], of each task and in the end (row 0) of the batch: mean, sum of squared differences to
     * it, sum of g, sum of g * (x - mean); without statistics the last is about the centre */
    double *means, *squares, *grads, *products;
    char *centre, *gain, *shift, *slope, *offset; /* [channels] */
    fc_norm_channels by; /* the same for the kernels */
    char *slots; /* of the sums, and afterwards of a map by tiles */
    int slot_count, map_slot_count;
    size_t slot_bytes, tile_bytes;
} fc_norm_call;

static inline size_t fc_norm_aligned(int64_t bytes) { return ((size_t)bytes + 63) / 64 * 64; }

/* The parameters of channels c, c + 1, ... */
fc_norm_channels fc_norm_by_channel(const fc_norm_call *, int64_t c);
/* The distance of two neighbouring pixels if it is the same for all and channels are contiguous, otherwise 0. */
int64_t fc_norm_pixel_step(const fc_view *);
/* Whether an array that is written in place should bypass the caches (fc_norm_channels.stream); run: neighbouring
 * values where planes are walked, otherwise 0; reads: arrays of its size that are read meanwhile. */
int fc_norm_streams(const fc_norm_call *, const fc_view *, int64_t run, int64_t reads);
char *fc_norm_pixel_at(const fc_norm_call *, const fc_view *, int64_t q, int64_t c);
/* Pixels [q, q + count) and channels [c, c + lanes) from or to (store) tile[count][FC_NORM_LANES]. */
void fc_norm_move_tile(const fc_norm_call *, const fc_view *, int64_t q, int64_t count, int64_t c, int64_t lanes,
                       char *tile, int store);
/* The same pixels in place, or (pixel step 0) in the tile, which is loaded; of a null view a null pointer. `image` is
 * the distance of two images. */
fc_norm_pixels fc_norm_read(const fc_norm_call *, const fc_view *, int64_t q, int64_t count, int64_t c, int64_t lanes,
                            char *tile);

/* The tiles of fc_norm_map where it goes by tiles, otherwise 0; other: what it reads beside x, r or g. */
int64_t fc_norm_map_tiles(const fc_norm_call *, const fc_view *other);
/* For all pixels y = clamp((x - centre) * gain + shift + r), or for_grad
 * y = g * gain + (x - centre) * slope + offset. By tiles it needs map_slot_count slots of FC_NORM_MAP_TILES tiles. */
void fc_norm_map(fc_norm_call *, int for_grad);
/* The same for the planes of channels [c, c + lanes), in the calling thread. */
void fc_norm_map_channels(const fc_norm_call *, int for_grad, int64_t c, int64_t lanes);
/* Sets by.stream for the map. */
void fc_norm_choose_stream(fc_norm_call *, int for_grad);
/* Whether every channel of every image is one run of values without gaps. */
int fc_norm_is_plane(const fc_view *);
#endif
