/* elementwise.h: table of the elementwise kernels. */
#ifndef FC_KERNELS_ELEMENTWISE_H
#define FC_KERNELS_ELEMENTWISE_H
#include <stdint.h>

typedef struct {
    int unused;
} fc_elementwise_kernels;
#endif
