/* pooled.h: the gradient of a convolution's weight behind a maximum pool (ops/conv_pooled.c). */
#ifndef FC_KERNELS_POOLED_H
#define FC_KERNELS_POOLED_H
#include <stdint.h>

enum { FC_POOLED_BYTES = 32, FC_POOLED_ROWS = 5 };

/* For each k < channels and the windows i < height, j < width of one image:
 *     sum[k][u][q] += grad[i * grad_row + j * grad_pixel + k]
 *                     * x[i * step_h + j * step_w + offset[tap[(i * width + j) * channels + k]] + u * row + q]
 * for the rows of taps u and q < FC_POOLED_BYTES / sizeof(T). */
typedef struct {
    const void *x;
    int64_t row, step_h, step_w;
    const int64_t *offset; /* of the winner, by its number in the window */
    const uint8_t *tap;
    const void *grad;
    int64_t grad_row, grad_pixel;
    int64_t height, width, channels;
    void *sum;
} fc_pooled;

/* By rows of taps, for an even number of channels; NULL where there is none */
typedef void (*fc_pooled_kernels[FC_POOLED_ROWS + 1])(const fc_pooled *);
#endif
