/* linear.h: products of few rows with a matrix that is read once, where it lies. */
#ifndef FC_KERNELS_LINEAR_H
#define FC_KERNELS_LINEAR_H
#include <stdint.h>

/* y[r * y_row + k] = clamp(sum_{c < length} x[r * x_row + c] * w(k, c) + bias[k * bias_step], lower, upper) for r <
 * rows and k < columns; bias may be NULL. The sum runs over c in order, each product added by one operation, as in the
 * tiles of gemm.h: which of the kernels computes an output does not show in its bits. */
typedef struct {
    const void *x;
    int64_t x_row, rows, length;
    const void *w;
    int64_t w_row, columns;
    const void *bias;
    int bias_step; /* 1, or 0: one value for all k */
    int by_one; /* `runs` reads the rows of w for one vector of y at a time instead of two: half as many streams */
    double lower, upper;
    void *y;
    int64_t y_row;
} fc_thin_product;

/* y[r * y_row + k] = clamp(scale[k] * sum_c x[r * x_row + c] * w[k / 32][c][k % 32] + bias[k], lower, upper) over
 * c < length: w in binary16, a panel of outputs after the other, whole ones; a panel's row is a cache line. The sum
 * runs over c in order, in float. */
enum { FC_F16_PANEL = 32 };

typedef struct {
    const float *x;
    int64_t x_row, rows, length;
    const uint16_t *w;
    int64_t columns;
    const float *scale, *bias; /* bias may be NULL */
    float lower, upper;
    float *y;
    int64_t y_row;
} fc_f16_product;

typedef struct {
    int max_rows; /* of `runs` and `f16` */
    void (*runs)(const fc_thin_product *); /* w(k, c) = w[k * w_row + c] */
    void (*rows)(const fc_thin_product *); /* w(k, c) = w[c * w_row + k] */
    void (*f16)(const fc_f16_product *); /* of float alone */
} fc_linear_kernels;
#endif
