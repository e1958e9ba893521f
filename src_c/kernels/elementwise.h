/* elementwise.h: table of the elementwise kernels. */
#ifndef FC_KERNELS_ELEMENTWISE_H
#define FC_KERNELS_ELEMENTWISE_H
#include <stdint.h>

typedef struct {
    /* y[i] = f(x[i]); y may be x. stream: what is written bypasses the caches; it is aligned to 64 bytes then. */
    void (*map)(fc_elementwise, int64_t count, double alpha, const void *x, void *y, int stream);
    /* grad_x[i] = f'(x[i]) * grad_y[i] */
    void (*grad)(fc_elementwise, int64_t count, double alpha, const void *grad_y, const void *x, void *grad_x,
                 int stream);
    /* y[i] = a[i] + b[i]; y may be a or b */
    void (*add)(int64_t count, const void *a, const void *b, void *y);
} fc_elementwise_kernels;
#endif
