/* pool.h: table of the pool kernels. */
#ifndef FC_KERNELS_POOL_H
#define FC_KERNELS_POOL_H
#include <stdint.h>

typedef struct {
    int unused;
} fc_pool_kernels;
#endif
