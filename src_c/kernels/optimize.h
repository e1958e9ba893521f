/* optimize.h: table of the updates of optimizers. Plain loops: the compiler makes vectors of them. */
#ifndef FC_KERNELS_OPTIMIZE_H
#define FC_KERNELS_OPTIMIZE_H
#include <stdint.h>

typedef struct {
    /* velocity may be null (momentum 0) */
    void (*sgd)(int64_t count, const fc_sgd *, double share, void *data, const void *grad, void *velocity);
    void (*adam)(int64_t count, const fc_adam *, double rate, double root, void *data, const void *grad, void *mean,
                 void *square);
} fc_optimize_kernels;
#endif
