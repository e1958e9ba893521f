static const fc_elementwise_kernels N(elementwise_table) = {0};
