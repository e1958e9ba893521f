/* winograd_tiles.h: the output tiles of a batch and the transform of the inputs under them. */
#ifndef FC_WINOGRAD_TILES_H
#define FC_WINOGRAD_TILES_H
#include "conv.h"

typedef struct {
    int row, column; /* of its first pixel, and of its first tap */
    /* FC_LAST_ROW, FC_LAST_COLUMN: whether it has a tap at the last place of its columns (rows), so that its last row
     * (column) of points, those at infinity, are not 0. The gradient of a tap that it does not have lands in the
     * padding of the kernel (padded_h, padded_w), so it may be anything. */
    int last_points;
} fc_tile_phase;

/* At most: 16 x 36 x 64 floats = 147 KiB of v for each tile of 64 channels. */
enum { FC_MAX_PHASES = 16 };

/* Tiles are numbered through images, of a dilation through its residues of rows in each (below), tile rows and tile
 * columns; where pixels of a tile stand apart in a row, through the residues of a tile column, so that neighbouring
 * tiles read neighbouring pixels. Outputs along an axis that are no multiple of a tile's: as many of its last tiles as
 * outputs are missing have one less, and do not need the last point, infinity, which only a tile's last output sees. 14
 * outputs are 4 + 4 + 3 + 3, whose 6 + 6 + 5 + 5 points are 22 and not 24: 484 products instead of 576 in the plane. */
typedef struct {
    const fc_problem *p;
    const fc_winograd_kernels *k; /* of squares or lines */
    /* A convolution may be a sum of several with fewer taps and stride 1, its phases: with stride 2, those by the even
     * and the odd taps, whose inputs are the even and the odd pixels of a tile; of a larger or an oblong kernel its
     * pieces, neighbouring taps, whose inputs are as many pixels further on. Taps that a phase has beyond the kernel
     * are 0: without one at the last place along an axis it is 0 at the last point, infinity, there. The sum is one
     * over phases and channels. */
    int64_t step, phases; /* the stride, along an axis with several taps */
    fc_tile_phase phase[FC_MAX_PHASES];
    fc_range phases_at[2][2]; /* those that a point has: in the last row or not, in the last column or not */
    int64_t points, taps; /* positions of a tile; taps of a phase along an axis, which index *k */
    int64_t padded_h, padded_w; /* taps of the kernel with those that are 0 */
    int64_t gap_h, gap_w; /* dilation: pixels that are neighbours to a tile stand so far apart */
    int64_t residues_h, residues_w; /* an image is so many of tiles, and a column of a residue so many of tiles */
    int64_t in_h, in_w, out_h, out_w; /* inputs of a tile's phase, and outputs */
    int64_t span_h, span_w; /* pixels of x under a tile */
    int64_t rows, columns, count; /* tiles per column and row of an image (a residue of its rows); of the whole batch */
    int64_t whole_rows, whole_columns; /* those before the ones with an output less */
    int64_t parts; /* of channels, all phases */
    int64_t chunk; /* channels whose phases follow each other in v */
    int64_t share; /* tiles of a brick */
    int64_t longest_run; /* tiles of one row that are transformed together */
    int upright; /* lines are columns */
    int in_place; /* x is channels-last */
    int fetch; /* x does not lie in the second-level cache; tiles of one row read it as a stream */
    const char *zeros; /* in_channels of them: what lies outside x */
} fc_tiles;

/* In a block tiles stand by kinds, in an order in which those that need a point are neighbours. */
enum { FC_SHORT_COLUMN, FC_WHOLE, FC_SHORT_ROW, FC_SHORT_BOTH, FC_TILE_KINDS };

/* Tiles [first, end); those of a kind stand at slots [kinds[kind], kinds[kind + 1]), where the first of the batch would
 * be at `start`. */
typedef struct {
    int64_t first, end, kinds[FC_TILE_KINDS + 1], start[FC_TILE_KINDS];
} fc_tile_block;

/* Tiles of one tile row, and the slots of the first whole and of the first short one of a block. */
typedef struct {
    int64_t n, row, column, count;
    int64_t whole, others;
} fc_tile_run;

/* u and the sums of a gradient: pitches grow by a cache line, so that 36 streams fall into different L1 sets. */
enum { FC_PITCH_PAD_BYTES = FC_LINE_BYTES };

/* Inputs and outputs along an axis of a phase's tile for so many taps. */
static inline int64_t fc_tile_inputs(int64_t taps)
{
    return taps == 1 ? 1 : taps == 2 ? FC_WINOGRAD_SMALL_TILE : FC_WINOGRAD_TILE;
}
static inline int64_t fc_tile_outputs(int64_t taps) { return fc_tile_inputs(taps) - taps + 1; }

/* A 3 x 3 kernel with stride 2 has phases with one tap along an axis, which have the same transformed weight at all
 * points of it. */
static inline int fc_has_single_taps(const fc_tiles *t)
{
    return t->step == 2 && t->p->kernel_h == 3 && t->p->kernel_w == 3;
}
/* The phases that are not 0 at a point. */
static inline fc_range fc_phases_at(const fc_tiles *t, int e)
{
    const int last_row = t->in_h > 1 && e / t->in_w == t->in_h - 1,
              last_column = t->in_w > 1 && e % t->in_w == t->in_w - 1;
    return t->phases_at[last_row][last_column];
}
fc_tiles fc_make_tiles(const fc_problem *);

/* Every gap_h-th row of an image: x from h.first on, y from `row` on. */
typedef struct {
    int64_t n, row;
    fc_residue h;
} fc_tile_image;
fc_tile_image fc_tile_image_at(const fc_tiles *, int64_t index);
/* Channels of its x and y */
fc_image fc_tile_image_x(const fc_tiles *, const fc_tile_image *, int64_t channel, int64_t channels);
fc_image fc_tile_image_y(const fc_tiles *, const fc_tile_image *, int64_t channel, int64_t channels);

/* Pixels of a residue are not next to each other in planes. Runs a problem with planes and a dilation on copies of x
 * and y with channels last, in stretches of images; where these are too large, in place, element by element. need: of
 * `run`, whose output y is; NULL where y is grad_y. */
typedef fc_need fc_need_of(const fc_problem *);
fc_status fc_run_on_pixels(const fc_problem *, fc_run *run, fc_need_of *need);
fc_need fc_pixels_scratch(const fc_problem *, fc_need_of *need);

/* Transformed weights of a phase for each pair of channels: one tap has the same value at all points along its axis. */
static inline int64_t fc_phase_weights(const fc_tiles *t, int64_t index)
{
    const int points = fc_has_single_taps(t) ? t->phase[index].last_points : FC_WHOLE_TILE;
    return (points & FC_LAST_ROW ? t->in_h : 1) * (points & FC_LAST_COLUMN ? t->in_w : 1);
}
/* Of all: 5 + 25 + 5 + 1 of a 3 x 3 kernel with stride 2. */
static inline int64_t fc_tile_weights(const fc_tiles *t)
{
    return fc_has_single_taps(t) ? (t->in_h + 1) * (t->in_w + 1) : t->phases * t->points;
}

/* The first output of a tile row or column, and their number, where a whole tile has `out` of them and there are
 * `size`. */
static inline int64_t fc_tile_start(int64_t index, int64_t whole, int64_t out)
{
    return index * out - fc_max(0, index - whole);
}
static inline int64_t fc_tile_length(int64_t index, int64_t whole, int64_t out, int64_t size)
{
    return fc_min(out - (index >= whole), size - fc_tile_start(index, whole, out));
}
/* The first column of outputs of a tile, and their number; they stand gap_w apart. */
static inline int64_t fc_tile_left(const fc_tiles *t, int64_t column)
{
    const int64_t n = t->residues_w;
    return n == 1 ? fc_tile_start(column, t->whole_columns, t->out_w)
                  : column % n + t->gap_w * fc_tile_start(column / n, t->whole_columns / n, t->out_w);
}
static inline int64_t fc_tile_width(const fc_tiles *t, int64_t column, int64_t left)
{
    const int64_t rest = t->p->y.w - left;
    return fc_min(t->out_w - (column >= t->whole_columns), t->gap_w == 1 ? rest : fc_ceil_div(rest, t->gap_w));
}
/* What is wanted of a tile, for its kernels. */
static inline int fc_tile_wanted(const fc_tiles *t, int64_t row, int64_t column)
{
    const int rows = row < t->whole_rows, columns = column < t->whole_columns;
    return t->upright ? (rows ? FC_LAST_COLUMN : 0) : (rows ? FC_LAST_ROW : 0) | (columns ? FC_LAST_COLUMN : 0);
}
/* Multiplications of `rows` by `columns` tiles, of which some are whole, for each pair of channels: one for each point
 * and phase, but for the last row (column) of points of short tiles, and of phases without a tap there. */
static inline int64_t fc_products_of(const fc_tiles *t, int64_t rows, int64_t whole_rows, int64_t columns,
                                     int64_t whole_columns)
{
    const fc_range at_row = t->phases_at[1][0], at_column = t->phases_at[0][1], at_both = t->phases_at[1][1];
    const int64_t h = rows * (t->in_h - 1), w = columns * (t->in_w - 1);
    return t->phases * h * w + (at_row.end - at_row.first) * whole_rows * w +
           (at_column.end - at_column.first) * whole_columns * h +
           (at_both.end - at_both.first) * whole_rows * whole_columns;
}
/* Of a whole tile, and of all tiles of an image. */
static inline int64_t fc_tile_products(const fc_tiles *t) { return fc_products_of(t, 1, 1, 1, 1); }
static inline int64_t fc_image_products(const fc_tiles *t)
{
    return t->residues_h * fc_products_of(t, t->rows, t->whole_rows, t->columns, t->whole_columns);
}
/* Sets the layout: blocks of up to `block` tiles, in as few bricks as hold them, filled alike. */
void fc_set_block(fc_tiles *, int64_t block);

/* Parts of so many channels. */
static inline int64_t fc_channel_parts(const fc_problem *p, int64_t channels)
{
    return fc_ceil_div(channels, p->k->winograd->line);
}
/* Elements of a part of a brick, and of a block of bricks. */
static inline int64_t fc_part_elements(const fc_tiles *t) { return t->points * t->k->point; }
static inline int64_t fc_block_elements(const fc_tiles *t, int64_t tiles, int64_t parts)
{
    return fc_ceil_div(tiles, t->share) * parts * fc_part_elements(t);
}
/* Asks for the first `bytes` of each pixel of a rectangle, which the tile below will read or write: rows of few
 * channels are too short for the hardware to see a stream in them. Pitches in bytes; may lie beyond the end of an
 * array. GCC drops calls of a function that does nothing but prefetch, if it does not inline them. */
static inline __attribute__((always_inline)) void fc_fetch_pixels(const char *at, int64_t h, int64_t w, int64_t row,
                                                                  int64_t pixel, int64_t bytes)
{
    enum { SECOND_LEVEL = 2 };
    if (pixel == bytes) /* a run */
        bytes *= w, w = 1;
    for (int64_t i = 0; i < h; i++)
        for (int64_t j = 0; j < w; j++)
            for (int64_t b = 0; b < bytes; b += FC_LINE_BYTES)
                __builtin_prefetch(at + i * row + j * pixel + b, 0, SECOND_LEVEL);
}
/* Whether the gradient of the weight sums over so few tiles, one brick, that a vector of its points stays in
 * registers. */
static inline int fc_sums_few_tiles(const fc_tiles *t)
{
    return t->phases == 1 && t->p->kernel_h * t->p->kernel_w == 9 && t->k->multiply_few_at && t->count <= t->k->brick;
}
/* Of so many tiles weights are transformed in registers, for FC_WINOGRAD_FEW tiles at a time, where a kernel for them
 * exists: 3 x 3 taps, with stride 2 too, or 2 x 2. Writing u takes longer. */
enum { FC_FEW_TILES = 2 * FC_WINOGRAD_FEW };
static inline int fc_multiplies_few_tiles(const fc_tiles *t)
{
    const int64_t taps = t->points == FC_WINOGRAD_MAX_POINTS ? 3 : 2;
    return t->k->multiply_few[FC_WINOGRAD_FEW] &&
           (fc_has_single_taps(t) || (t->phases == 1 && t->p->kernel_h == taps && t->p->kernel_w == taps));
}
/* Of so many tiles, a brick, weights of 3 x 3 taps are transformed by two rows of points, where a kernel for that
 * exists: of more, sums that are loaded and stored every few channels cost what u in the second-level cache does. */
static inline int fc_pairs_rows(const fc_tiles *t)
{
    return t->k->weights_pair && t->count <= t->k->brick && t->phases == 1 && t->p->kernel_h == 3 &&
           t->p->kernel_w == 3;
}
int64_t fc_tiles_strip_bytes(const fc_tiles *);
fc_tile_block fc_block_of(const fc_tiles *, int64_t first, int64_t end);
/* The run that starts at `tile` of a block and ends at `end` or at the end of its row. */
fc_tile_run fc_run_at(const fc_tiles *, const fc_tile_block *, int64_t tile, int64_t end);
/* Where a tile of a run stands in a block of so many parts, and how many of its kind follow it in the brick, itself
 * included. */
typedef struct {
    int64_t at, left, parts;
} fc_tile_place;
static inline fc_tile_place fc_place_at(const fc_tiles *t, int64_t slot, int64_t parts)
{
    const int64_t brick = slot / t->share, tile = slot - brick * t->share;
    return (fc_tile_place){brick * parts * fc_part_elements(t) + tile * t->k->line, t->share - tile, parts};
}
static inline fc_tile_place fc_first_place(const fc_tiles *t, const fc_tile_run *r, int64_t parts)
{
    return fc_place_at(t, r->column < t->whole_columns ? r->whole : r->others, parts);
}
/* Of the next tile of the run, in tile column `column`. */
static inline void fc_next_place(const fc_tiles *t, const fc_tile_run *r, int64_t column, fc_tile_place *p)
{
    p->at += t->k->line;
    if (column == t->whole_columns && column < t->columns)
        *p = fc_place_at(t, r->others, p->parts);
    else if (--p->left == 0)
        p->at += p->parts * fc_part_elements(t) - t->share * t->k->line, p->left = t->share;
}
/* The slots of a block that need point e, and how many points from e on are alike, in their phases too. */
typedef struct {
    int64_t first, count;
    int points;
} fc_tile_slots;
fc_tile_slots fc_slots_of(const fc_tiles *, const fc_tile_block *, int e);
/* v[e][slot] = B' x B of tiles [first, end) of a block; strip: fc_tiles_strip_bytes of memory. `channels` of x: a
 * group's, or some chunks of them, in bricks of t->parts parts. */
void fc_transform_channels(const fc_tiles *, const fc_tile_block *, fc_range channels, int64_t first, int64_t end,
                           char *strip, char *v);
static inline void fc_transform_inputs(const fc_tiles *t, const fc_tile_block *b, int64_t group, int64_t first,
                                       int64_t end, char *strip, char *v)
{
    const int64_t channel = group * t->p->in_channels;
    fc_transform_channels(t, b, (fc_range){channel, channel + t->p->in_channels}, first, end, strip, v);
}

/* ---- winograd_thin.c --------------------------------------------------------------------------------------------*/
/* From so many on a vector for each tile is as fast (3x3, 8 -> 16 channels at 33x33, Zen 4, AVX-512: 1.10 times; 5x5
 * 0.95 times). */
enum { FC_THIN_CHANNELS = 8 };
/* Whether the tiles of a gradient of the weight are squares of 6 x 6 of so few channels that their lanes are those of
 * neighbouring tiles, all of them whole ones: v[e * point + (tile - first) * channels + c]. */
int fc_is_thin(const fc_tiles *);
/* Of the copies of x, and pitch of a point for so many tiles, elements. */
int64_t fc_thin_strip_elements(void);
int64_t fc_thin_point(const fc_tiles *, int64_t tiles);
/* Of tiles [first, end) */
void fc_transform_thin_inputs(const fc_tiles *, int64_t group, int64_t first, int64_t end, int64_t point, char *strip,
                              char *v);
#endif
