static const fc_norm_kernels N(norm_table) = {0};
