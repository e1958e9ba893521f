/* winograd.h: the transforms of Winograd convolution on 6 x 6 tiles (Lavin and Gray 2015); lanes are channels.
 *
 * F(m x m, r x r), m + r = 7:  y = A_m' [(G_r w G_r') o (B' x B)] A_m,  x 6 x 6, w r x r, y m x m, o elementwise.
 * F(r x r, m x m):  the gradient of the weight, dw = A_r' [(G_m dy G_m') o (B' x B)] A_r, with the same B.
 * The 36 products of tiles and channels in the middle are matrix products. Positions are numbered e = 6 * row + column.
 * Kernels of one row or one column: F(m, r), y = A_m' [(G_r w) o (B' x)], with 6 points.
 *
 * Transformed tiles stand in bricks: v[part of channels][e][tile][channel of the part], `brick` tiles, a part being a
 * cache line of channels, with pitches that are constants of the compiler, so that every address in the loops is a
 * pointer and a displacement. Several bricks make a block (ops/winograd_tiles.h). r is 3, 4 or 5. r = 2 has m = 4 and
 * tiles of 5 x 5: on tiles of 6 its error would be 3 times that of a direct sum; so it is 1.1 to 1.4 times
 * (docs/accuracy.md). It also serves stride 2, by phases (ops/conv_winograd.c).
 */
#ifndef FC_KERNELS_WINOGRAD_H
#define FC_KERNELS_WINOGRAD_H
#include <stdint.h>

enum {
    FC_WINOGRAD_TILE = 6, /* input tile */
    FC_WINOGRAD_SMALL_TILE = 5, /* for kernels of 2 taps */
    FC_WINOGRAD_MAX_OUT = 4,
    FC_WINOGRAD_MAX_KERNEL = 5,
    FC_WINOGRAD_MAX_POINTS = 36,
    FC_WINOGRAD_PHASES = 4, /* of stride 2 */
    FC_WINOGRAD_FEW = 4, /* tiles whose sums of a row of points are registers */
    /* Neighbouring tiles that are transformed together: what lies between the passes, 18 columns of 6 vectors, 7 KiB,
     * stays in the first-level cache beside as much of x and of the results. */
    FC_WINOGRAD_RUN = 4,
    /* u of two rows of points by two vectors of outputs of so many channels: 12 x 16 x 64 bytes, 12 KiB. */
    FC_WINOGRAD_PAIR_CHANNELS = 16, /* FC_WINOGRAD_PACKED or less */
    FC_WINOGRAD_ROWS_SLACK = 3, /* tiles of v behind those of a row that may be read: a single one is multiplied as 4 */
    /* Of few channels: elements of a row of pixels under tiles that are transformed together; 6 such rows, 12 KiB, lie
     * between the passes. */
    FC_WINOGRAD_THIN_ROW = 512,
};

/* Squares under neighbouring tiles of 6 x 6, with `columns` columns of pixels: v[i][e][c] = (B' x B)[e], where tile i
 * begins at column start[i] and v[i] is at a tile of a brick. Columns outside [first, end) are 0; row r of the others
 * begins at x[r], channel 0, its pixels `pitch[r]` bytes apart. c < channels rounded up to a vector, or to a part if
 * `whole_parts`. Without `last_row` the last row of points is not written. */
typedef struct {
    const void *x[FC_WINOGRAD_TILE];
    int64_t pitch[FC_WINOGRAD_TILE];
    int64_t columns, first, end, channels;
    int64_t tiles, start[FC_WINOGRAD_RUN];
    void *v[FC_WINOGRAD_RUN];
    int whole_parts, last_row;
} fc_winograd_inputs;

/* Few channels: to[j * place + i * lanes + l] = from[(i * places + j) * pixel + l] for i < pixels, j < places, l <
 * lanes. Up to 3 elements behind the last of a pixel are read, and written behind the last of a place. */
typedef struct {
    const void *from;
    void *to;
    int64_t pixel, pixels, place, places, lanes;
} fc_winograd_thin_split;

/* Squares under neighbouring tiles of few channels, whose lanes are the channels of one tile after the other:
 * v[e * point + i] = (B' x B)[e] for i < lanes rounded up to a vector, where lane i of row r, column j of the squares
 * is x[r * row + at[j] + i]. Rows are `length` long, at most FC_WINOGRAD_THIN_ROW. */
typedef struct {
    const void *x;
    void *v;
    int64_t row, length, at[FC_WINOGRAD_TILE], lanes, point;
} fc_winograd_thin_inputs;

/* sum[e * sum_point + c * sum_row + k] (+)= sum_{t < tiles} v[e * point + t * channels + c] d[e][t][k], 1 < channels, k
 * < vectors of outputs, as four sums over every fourth tile. Bricks of d hold `share` tiles each. */
typedef struct {
    const void *v, *d;
    void *sum;
    int64_t point, part, d_brick, sum_row, sum_point;
    int64_t tiles, share, channels, vectors;
    int accumulate;
} fc_winograd_thin_product;

/* m[e][t][k] (+)= sum_{f < phases, c < phase_channels} v[e][t][f][c] u[f][e * u_point + c * width + k], e < points,
 * first <= t < first + tiles, k < width. The channels of several phases are whole parts. Bricks hold `share` tiles
 * each, the last one the rest; v and m start at the brick of the first. With one vector tiles go in pairs: of an odd
 * number the one behind the last of a brick is read and written too. */
typedef struct {
    const void *v, *u[FC_WINOGRAD_PHASES];
    void *m;
    int64_t part, v_brick, u_point, m_brick; /* pitches, elements */
    int64_t first, tiles, share;
    int64_t channels, phase_channels; /* of all phases, of one */
    int phases, points, vectors; /* width / vector_lanes, 1 or 2 */
    int accumulate; /* start from m instead of 0 */
    /* Memory to bring into the second-level cache meanwhile, so many cache lines per point, or 0; may lie beyond an
     * array. */
    const char *ahead;
    int64_t ahead_lines;
} fc_winograd_product;

/* The same with the sum over tiles: sum[e * sum_point + c * sum_row + k] (+)= sum_{first <= t < first + tiles}
 * v[e][t][c] d[e][t][k], e < points, c < channels, k < vectors of outputs. */
typedef struct {
    const void *v, *d;
    void *sum;
    int64_t part, v_brick, d_brick, sum_row, sum_point;
    int64_t first, tiles, share, channels, vectors;
    int points, accumulate;
} fc_winograd_product_at;

/* m[e][t][k] (+)= sum_{c < channels} v[e][t][c] (G w G')[e][c][k], k < one vector of outputs, the weights transformed
 * on the way: w[u * row + v * tap + c * step + k], 3 x 3 taps, or 2 x 2 where the tile is 5 x 5; there `phase` is not 0
 * for 3 x 3 taps of stride 2, the pitch of v's four phases (ops/winograd_tiles.h). m and v are at the first of the
 * tiles, all of one brick; `part` is the pitch of v's parts. Of e all but the last row, and but the last column where
 * tiles are 4 or 5 x 5; an edge is one of these, m and v at its first point, points `pitch` apart: the last row with
 * the `corner`, or the last column without it, for which row and tap are exchanged. Where not an edge, 10 cache lines
 * (5 of 2 x 2 taps) come into the second-level cache for each channel, those at ahead + c / line * ahead_part + c %
 * line * ahead_row (bytes; may lie beyond an array): the taps of a vector that begins anywhere. */
typedef struct {
    const void *v, *w;
    void *m;
    const char *ahead;
    int64_t part, pitch, phase, row, tap, step, channels, ahead_row, ahead_part;
    int accumulate, corner;
} fc_winograd_few;

/* Two rows of points of 3 x 3 taps: u[e][c][k] = (G w G')[e] for the 12 points of rows 0 and 5 (pair 0), 1 and 2, or 3
 * and 4, c < channels, no more than FC_WINOGRAD_PAIR_CHANNELS, k < one or two vectors; w[u * row + v * tap + c * step +
 * k]. The 10 cache lines at ahead + c * ahead_row (bytes; may lie beyond an array) come into the second-level cache, a
 * third of them with each pair. */
typedef struct {
    const void *w;
    void *u;
    const char *ahead;
    int64_t row, tap, step, channels, ahead_row;
    int vectors, pair;
} fc_winograd_pair;

/* m[at[i]][t][k] (+)= sum_{c < channels} v[at[i]][t][c] u[from[i]][c][k] of such u: at[i] are points, from[i] which of
 * the 12 these are. They stand in runs, a run for `tiles` tiles from `first` on. Bricks as in fc_winograd_product. */
typedef struct {
    const void *v, *u;
    void *m;
    int64_t part, v_brick, m_brick, share, channels;
    int vectors, accumulate, runs;
    struct {
        int64_t first, tiles;
        int points;
    } run[4];
    int at[2 * FC_WINOGRAD_TILE], from[2 * FC_WINOGRAD_TILE];
} fc_winograd_pair_product;

/* w[k * row + (3 * i + j) * tap + c] = (A_3' [ sum over tiles of v[e][t][c] d[e][t][k] ] A_3)[i][j] for one part of c
 * and one of k, k < outputs, for tiles of one brick: of the columns of points but the last one, and of the last one,
 * `whole` tiles from `first` on have all six points and `others` behind them five. tap = 1 means
 * w[k * row + 9 * c + 3 * i + j], c < channels; with tap > 1 whole vectors of c are stored. The 9 cache lines of
 * outputs that lie at ahead + k * ahead_row (bytes) come into the cache, to be written. */
typedef struct {
    const void *v, *d;
    void *w;
    const char *ahead;
    int64_t channels, outputs, row, tap, ahead_row, first[2], whole[2], others[2];
} fc_winograd_few_at;

/* What the output tiles of a panel share; null pointers mean scale 1 and bias 0. */
typedef struct {
    int64_t channels;
    const void *scale, *bias;
    double lower, upper;
    int64_t residual_row, residual_pixel, y_row, y_pixel;
    void *check; /* or NULL */
    int stream; /* whole tiles bypass the caches; y and its pitches are aligned to the vector */
} fc_winograd_output;

/* Lines summed over rows of taps: m[e] = sum_{r < rows, c < channels} v[r * row + tile and e][c] u[r][c][e][k], k <
 * `vectors` of outputs. A tile of v is 6 points, each a cache line of channels. */
typedef struct {
    const void *v, *u;
    int64_t row, rows, channels; /* pitch of v's rows, elements */
    int vectors;
} fc_winograd_lines;

/* What is wanted of tiles of 5 x 5: without the bits, neither the last row (column) of points is written nor that of
 * pixels read. */
enum { FC_LAST_ROW = 1, FC_LAST_COLUMN = 2, FC_WHOLE_TILE = FC_LAST_ROW | FC_LAST_COLUMN };
/* Zeros fill the last part of channels: that of another phase follows. */
enum { FC_WHOLE_PARTS = 4 };

/* Of squares, as written here, or of lines, whose transforms are those of the columns alone: B' x, G_r w, A_m' m. A
 * tile of these is a row of 6 inputs, or a column, whose `row` and `pixel` are exchanged. "36" and "6" are 25 and 5
 * where r = 2. */
typedef struct {
    int brick; /* tiles */
    int line; /* channels of a part */
    int64_t point; /* pitch of e in a brick, elements */
    void (*inputs)(const fc_winograd_inputs *); /* of squares of 6 x 6; the other tiles go one by one */
    /* v[e][c] = (B' x B)[e] for c < channels rounded up to a vector, or to a part where `last` says so, v at a tile of
     * a brick; x[i * row + j * pixel + c] */
    void (*input)(const void *x, int64_t row, int64_t pixel, int64_t channels, int last, void *v);
    /* the same for pixels anywhere: x[e] points at channel 0 of pixel e */
    void (*input_border)(const void *const *x, int64_t channels, int last, void *v);
    void (*multiply)(const fc_winograd_product *);
    /* indexed by the number of tiles: 1, 2 and 4, of squares with AVX-512; where one is missing, the next larger one
     * serves */
    void (*multiply_few[FC_WINOGRAD_FEW + 1])(const fc_winograd_few *);
    void (*multiply_few_edge[FC_WINOGRAD_FEW + 1])(const fc_winograd_few *);
    void (*weights_pair)(const fc_winograd_pair *); /* these two of squares, without AVX-512 */
    void (*multiply_pair)(const fc_winograd_pair_product *);
    void (*multiply_at)(const fc_winograd_product_at *);
    void (*multiply_few_at)(const fc_winograd_few_at *); /* of squares with AVX-512 */
    /* Of lines, float32 with AVX2 and AVX-512. v[tile][e][c] = (B' x)[e] of tiles `step` elements apart,
     * x[tile * step + j * channels + c]; reads and writes whole vectors, up to one beyond the last channel */
    void (*row_inputs)(const void *x, int64_t step, int64_t channels, int64_t tiles, void *v);
    /* indexed by r: y[column * y_pixel + k] as below, for as many columns as there are, tile after tile; without check
     */
    void (*rows[FC_WINOGRAD_MAX_KERNEL + 1])(const fc_winograd_lines *, const fc_winograd_output *,
                                             const void *residual, void *y, int64_t columns);
    int rows_vectors; /* of outputs, at most */
    void (*thin_split)(const fc_winograd_thin_split *); /* these three of squares of 6 x 6, float, with AVX */
    void (*thin_inputs)(const fc_winograd_thin_inputs *);
    void (*thin_multiply)(const fc_winograd_thin_product *);
    /* The others are indexed by r, the size of the kernel. m = 7 - r; 4 for r = 2.
     * u[e * pitch + i] = (G_r w G_r')[e] for i < count (a multiple of vector_lanes); w[u * row + v * tap + i], of lines
     * w[v * tap + i] */
    void (*weights[FC_WINOGRAD_MAX_KERNEL + 1])(const void *w, int64_t row, int64_t tap, int64_t count, void *u,
                                                int64_t pitch);
    /* y[row * y_row + column * y_pixel + k] = clamp((A_m' m A_m)[row][column] * scale[k] + bias[k] + residual, lower,
     * upper) for row < rows, column < columns, k < channels; where rows (columns) are less than m, the last row
     * (column) of points is set to 0 first: no other output needs it. m at a tile of a brick, residual[row *
     * residual_row + column * residual_pixel + k]. To check, a vector of T, the first vector of channels of A_m' m A_m
     * times 0 is added: NaN where one is not finite. */
    void (*output[FC_WINOGRAD_MAX_KERNEL + 1])(const fc_winograd_output *, void *m, const void *residual, void *y,
                                               int rows, int columns);
    /* d[e][k] = (G_m dy G_m')[e] for k < channels rounded up, d at a tile of a brick; dy[m * row + column] points at
     * channel 0 */
    void (*gradient[FC_WINOGRAD_MAX_KERNEL + 1])(const void *const *dy, int64_t channels, void *d);
    /* w[i * row + j * tap + k] = (A_r' u A_r)[i][j], of lines w[j * tap + k], for k < channels rounded up; taps without
     * their bit in `last` are not written, nor their points read */
    void (*weight_gradient[FC_WINOGRAD_MAX_KERNEL + 1])(const void *u, int64_t pitch, int last, int64_t channels,
                                                        void *w, int64_t row, int64_t tap);
} fc_winograd_kernels;
#endif
