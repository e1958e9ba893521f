/* gemm.h: the register-blocked matrix products that every convolution is made of. */
#ifndef FC_KERNELS_GEMM_H
#define FC_KERNELS_GEMM_H
#include <stdint.h>

/* Output tiles, the batch-reduce product (Georganas et al. 2019, "High-performance deep learning via a single building
 * block"):
 *     y[row][col] (+)=
 *         sum_{u < taps_h} sum_{v < taps_w} sum_{c < length}
 *             a[row * a_row + u * step_h + v * step_w + c] * b[(u * b_step_h + v * b_step_w + c) * width + col]
 * over `rows` > 0 rows of a and y. `pairs` panels of two vectors, b_panel elements apart, come before the one of the
 * columns that are left, at most `widest` vectors: how the columns are cut is the caller's choice. width is that of a
 * panel, in whole vectors. */
typedef struct {
    const void *a;
    int64_t a_row;
    int64_t taps_h, taps_w, step_h, step_w, length;
    const void *b;
    int64_t b_step_h, b_step_w, b_panel;
    void *y;
    int64_t y_row;
    int64_t columns, pairs;
    /* 0 or 1: one. More: so many products, each a_line and y_line further; of one panel, no scale, no residual */
    int64_t lines, a_line, y_line;
    int accumulate; /* start from y instead of 0 */
    int finish; /* apply the epilogue: y = clamp(y * scale[col] + bias[col] + residual[row][col], lower, upper) */
    const void *scale, *bias, *residual;
    int64_t residual_row;
    double lower, upper;
    /* Memory to bring into the second-level cache meanwhile, or NULL: in the s-th of the steps of the reduction that
     * fetch, the line at ahead + tile * ahead_tile + s * ahead_step of the first `ahead_tiles` tiles. May lie beyond
     * the end of an array. Of the `length` steps of a tap every ahead_every-th fetches from the first one on, a power
     * of two (AVX-512: 1; anything where ahead is NULL). */
    const void *ahead;
    int64_t ahead_step, ahead_tile, ahead_tiles, ahead_every;
    /* Of an a that may come from memory: the rows that the next tile reads come into that cache too (AVX-512), from
     * element fetch - 1 of each on. The tile after the last reads a + after. 0: they do not. Lines of y that are not
     * read are fetched too, and always for a single tap: the stores of a tile would wait for as many at once. */
    int64_t fetch, after;
    int warm; /* a and y are in the second-level cache */
    int stream; /* whole vectors bypass the caches; y and its pitch are aligned to them, which are cache lines */
    /* Not NULL (not AVX-512): the first tile, of 4 rows or more, makes b, of one tap and two whole vectors, which lies
     * here in rows so far apart. */
    const void *source;
    int64_t source_row;
} fc_gemm;

/* `count` lines of memory, `step` elements apart; may lie beyond the end of an array */
typedef struct {
    const void *first;
    int64_t step, count;
} fc_lines;

/* The same product with the reduction over the rows of both sides (gradients of weights):
 *     c[i][col] (+)= sum_{m < images} sum_{l < lines} sum_{p < depth}
 *                        a[m * a_image + l * a_line + p * a_step + i] * b[m * b_image + l * b_line + p * b_step + col]
 * for i < rows and col < columns (any number of each). */
typedef struct {
    const void *a;
    int64_t a_image, a_line, a_step;
    const void *b;
    int64_t b_image, b_line, b_step;
    int64_t images, lines, depth;
    void *c;
    int64_t c_row;
    int64_t rows, columns;
    int accumulate; /* start from c instead of 0 */
    /* To bring into the second-level cache meanwhile, one after the other, a line per step of the reduction. */
    fc_lines ahead[2];
} fc_gemm_at;

typedef struct {
    int max_rows; /* rows of the largest register tile */
    int single_rows; /* of one vector */
    int widest; /* vectors of the widest */
    void (*rows)(const fc_gemm *, int64_t rows);
    void (*at)(const fc_gemm_at *);
} fc_gemm_kernels;
#endif
