static const fc_pool_kernels N(pool_table) = {0};
