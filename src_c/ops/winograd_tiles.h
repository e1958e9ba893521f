/* winograd_tiles.h: the output tiles of a batch and the transform of the inputs under them. */
#ifndef FC_WINOGRAD_TILES_H
#define FC_WINOGRAD_TILES_H
#include "conv.h"

enum { FC_MAX_OUT = FC_WINOGRAD_TILE - FC_WINOGRAD_MIN_KERNEL + 1 };

/* Tiles are numbered through images, tile rows and tile columns. */
typedef struct {
    const fc_problem *p;
    const fc_winograd_kernels *k; /* of squares or lines */
    int64_t points, taps;         /* positions of a tile; the size of the kernel, which indexes *k */
    int upright;                  /* lines are columns */
    int64_t in_h, in_w, out_h, out_w; /* inputs and outputs of a tile */
    int64_t rows, columns, count; /* tiles per image column and row; of the whole batch */
    int64_t chunk;                /* channels that lie together */
    int64_t row, point, part;     /* pitches of v[chunk][point][tile][channel of the chunk], elements */
    int64_t longest_run;          /* tiles of one row that are transformed together */
    int in_place;                 /* x is channels-last */
    const char *zeros;            /* in_channels of them: what lies outside x */
} fc_tiles;

/* Tiles of one tile row. */
typedef struct {
    int64_t n, row, column, count;
} fc_tile_run;

/* Pitches grow by this, a cache line, so that the 36 streams of a transform fall into different L1 sets. */
enum { FC_PITCH_PAD_BYTES = 64 };

/* Inputs and outputs along an axis of a tile for this kernel size. */
static inline int64_t fc_tile_inputs(int64_t kernel) { return kernel == 1 ? 1 : FC_WINOGRAD_TILE; }
static inline int64_t fc_tile_outputs(int64_t kernel) { return fc_tile_inputs(kernel) - kernel + 1; }
fc_tiles fc_make_tiles(const fc_problem *);
/* Sets the layout of v: blocks of up to `block` tiles, `chunk` channels together (whole vectors, or all channels). */
void fc_set_block(fc_tiles *, int64_t block, int64_t chunk);
/* Elements of v. */
int64_t fc_tiles_elements(const fc_tiles *);
int64_t fc_tiles_strip_bytes(const fc_tiles *);
/* The run that starts at `tile` and ends at `end` or at the end of its row. */
fc_tile_run fc_run_at(const fc_tiles *, int64_t tile, int64_t end);
/* v[.][e][t] = B' x B of tiles [first, end); strip: fc_tiles_strip_bytes of memory */
void fc_transform_inputs(const fc_tiles *, int64_t group, int64_t first, int64_t end, char *strip, char *v);
#endif
