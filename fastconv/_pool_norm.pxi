# Bindings of pooling, normalisation and elementwise kernels; included by _core.pyx.
