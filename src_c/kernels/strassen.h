/* strassen.h: a matrix product by halves of all three sizes, seven products of which one is cut in two.
 *
 * Winograd's variant of Strassen's method (Higham 2002, "Accuracy and Stability of Numerical Algorithms", 23.1): with
 *     s1 = a21 + a22, s2 = s1 - a11, s3 = a11 - a21, s4 = a12 - s2
 *     t1 = b12 - b11, t2 = b22 - t1, t3 = b22 - b12, t4 = b21 - t2
 * the four quarters of a * b are
 *     c11 = a11 b11 + a12 b21              u = a11 b11 + s2 t2
 *     c12 = u + s1 t1 + s4 b22
 *     c21 = u + s3 t3 + a22 t4
 *     c22 = u + s3 t3 + s1 t1
 * a is 2 `rows` pixels by channels, rows 0 .. rows - 1 in a11 and a12; b is two panels of two vectors of output
 * channels, the first in b11 and b21. */
#ifndef FC_KERNELS_STRASSEN_H
#define FC_KERNELS_STRASSEN_H
#include <stdint.h>

enum {
    FC_STRASSEN_PRODUCTS = 8, /* a11 b11, a12 b21, two halves of s2 t2, s3 t3, s1 t1, s4 b22, a22 t4 */
    FC_STRASSEN_TILES = 5,
    FC_STRASSEN_SUMS = 4,
    FC_STRASSEN_COPIES = 3, /* a11, a12, a22 */
};

/* Step s of the product brings the line at ahead + s * ahead_step into the second-level cache, which may lie beyond the
 * end of an array. */
typedef struct {
    const void *a, *b, *ahead;
    int64_t a_row, ahead_step;
} fc_factors;

/* One register tile of each quarter: y (+)= a * b, with the epilogue of fc_gemm. */
typedef struct {
    fc_factors product[FC_STRASSEN_PRODUCTS];
    int64_t length; /* half of the channels, even */
    void *tiles; /* tiles[FC_STRASSEN_TILES][rows][2 vectors], of which the last is zero */
    void *y;
    int64_t y_row;
    int accumulate, finish, stream; /* as of fc_gemm */
    const void *scale, *bias, *residual;
    int64_t residual_row;
    double lower, upper;
} fc_strassen;

typedef struct {
    void (*tile)(const fc_strassen *);
    /* s1 .. s4 of 2 `rows` pixels of 2 `length` channels, and behind them a11, a12 and a22 if `copies`: s_tile elements
     * from one to the next, s_row from row to row. length is a multiple of the vector. Returns whether the sums are
     * finite. */
    int (*inputs)(int64_t length, const void *a, int64_t a_row, void *s, int64_t s_row, int64_t s_tile, int copies);
    /* t1 .. t4 of two panels that are `panel` elements apart. Returns the same. */
    int (*weights)(int64_t length, const void *b, int64_t panel, void *t);
} fc_strassen_kernels;
#endif
