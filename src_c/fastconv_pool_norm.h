/* fastconv_pool_norm.h: pooling, normalisation and elementwise entry points; included by fastconv.h. */
