# Bindings of pooling, normalisation and elementwise kernels; included by _core.pyx.
from libc.stdint cimport uint8_t


cdef extern from "fastconv.h" nogil:
    ctypedef struct fc_pool_axis:
        int64_t kernel, stride, dilation, pad_before, pad_after

    ctypedef struct fc_pool:
        fc_pool_axis h, w
        int adaptive
        int count_include_pad
        int64_t divisor

    fc_status fc_max_pool2d(fc_dtype, const fc_pool *, const fc_view *x, const fc_view *y, const fc_view *index,
                            uint8_t *tap, int by_planes)
    fc_status fc_max_pool2d_tap_grad(fc_dtype, const fc_pool *, const fc_view *grad_y, const uint8_t *tap,
                                     int by_planes, const fc_view *grad_x)
    fc_status fc_conv2d_pooled_grad_weight(fc_dtype, const fc_conv *, const fc_pool *, const fc_view *y,
                                           const fc_view *grad, const uint8_t *tap, const fc_view *x,
                                           const fc_view *grad_weight)
    fc_status fc_avg_pool2d(fc_dtype, const fc_pool *, const fc_view *x, const fc_view *y)
    fc_status fc_avg_pool2d_grad(fc_dtype, const fc_pool *, const fc_view *grad_y, const fc_view *grad_x)
    fc_status fc_index_add(fc_dtype, const fc_view *value, const fc_view *index, const fc_view *plane)
    fc_status fc_index_set(fc_dtype, const fc_view *value, const fc_view *index, const fc_view *plane)
    fc_status fc_index_get(fc_dtype, const fc_view *plane, const fc_view *index, const fc_view *value)


cdef int _pool(fc_pool *pool, tuple axes, bint include_pad, int64_t divisor) except -1:
    """axes: (kernel, stride, dilation, pad_before, pad_after) of h and of w in one tuple; empty for adaptive
    windows."""
    pool.adaptive = len(axes) == 0
    pool.count_include_pad = include_pad
    pool.divisor = divisor
    if axes:
        (pool.h.kernel, pool.h.stride, pool.h.dilation, pool.h.pad_before, pool.h.pad_after,
         pool.w.kernel, pool.w.stride, pool.w.dilation, pool.w.pad_before, pool.w.pad_after) = axes
    return 0


def max_pool2d(x, y, index, tap, bint by_planes, tuple axes):
    """index: int64 array of y's shape or None; tap: C-contiguous uint8 (N, H, W, C), or by planes, or None."""
    cdef fc_view vx, vy, vi, vt
    cdef fc_pool pool
    cdef fc_status status
    cdef const fc_view *wanted = NULL
    cdef uint8_t *taps = NULL
    _pool(&pool, axes, False, 0)
    _read(x, &vx)
    cdef fc_dtype dtype = _dtype(_write(y, &vy))
    if index is not None:
        _write(index, &vi)
        wanted = &vi
    if tap is not None:
        _write(tap, &vt)
        taps = <uint8_t *>vt.data
    with nogil:
        status = fc_max_pool2d(dtype, &pool, &vx, &vy, wanted, taps, by_planes)
    _check(status)


def max_pool2d_tap_grad(grad_y, tap, bint by_planes, grad_x, tuple axes):
    cdef fc_view vy, vt, vx
    cdef fc_pool pool
    cdef fc_status status
    _pool(&pool, axes, False, 0)
    _read(grad_y, &vy)
    _read(tap, &vt)
    cdef fc_dtype dtype = _dtype(_write(grad_x, &vx))
    with nogil:
        status = fc_max_pool2d_tap_grad(dtype, &pool, &vy, <const uint8_t *>vt.data, by_planes, &vx)
    _check(status)


def conv2d_pooled_grad_weight(grad, tap, x, grad_weight, tuple y_shape, tuple geometry, tuple axes):
    """Of a convolution and the pool behind it: grad is that of the pool's result, tap C-contiguous uint8 (N, H, W, C).
    False where the two gradients one after the other are the way."""
    cdef fc_view vg, vt, vx, vy, vw
    cdef fc_pool pool
    cdef fc_conv conv = _conv(geometry)
    cdef fc_status status
    _pool(&pool, axes, False, 0)
    _read(grad, &vg)
    _read(tap, &vt)
    _read(x, &vx)
    for_shape(&vy, y_shape)
    cdef fc_dtype dtype = _dtype(_write(grad_weight, &vw))
    with nogil:
        status = fc_conv2d_pooled_grad_weight(dtype, &conv, &pool, &vy, &vg, <const uint8_t *>vt.data, &vx, &vw)
    if status == FC_EALGORITHM:
        return False
    _check(status)
    return True


def avg_pool2d(x, y, tuple axes, bint include_pad, int64_t divisor):
    cdef fc_view vx, vy
    cdef fc_pool pool
    cdef fc_status status
    _pool(&pool, axes, include_pad, divisor)
    _read(x, &vx)
    cdef fc_dtype dtype = _dtype(_write(y, &vy))
    with nogil:
        status = fc_avg_pool2d(dtype, &pool, &vx, &vy)
    _check(status)


def avg_pool2d_grad(grad_y, grad_x, tuple axes, bint include_pad, int64_t divisor):
    cdef fc_view vy, vx
    cdef fc_pool pool
    cdef fc_status status
    _pool(&pool, axes, include_pad, divisor)
    _read(grad_y, &vy)
    cdef fc_dtype dtype = _dtype(_write(grad_x, &vx))
    with nogil:
        status = fc_avg_pool2d_grad(dtype, &pool, &vy, &vx)
    _check(status)


def index_add(value, index, plane):
    """False when an index lies outside its plane."""
    cdef fc_view vv, vi, vp
    cdef fc_status status
    _read(value, &vv)
    _read(index, &vi)
    cdef fc_dtype dtype = _dtype(_write(plane, &vp))
    with nogil:
        status = fc_index_add(dtype, &vv, &vi, &vp)
    return status != FC_EINDEX


def index_set(value, index, plane):
    """False when an index lies outside its plane."""
    cdef fc_view vv, vi, vp
    cdef fc_status status
    _read(value, &vv)
    _read(index, &vi)
    cdef fc_dtype dtype = _dtype(_write(plane, &vp))
    with nogil:
        status = fc_index_set(dtype, &vv, &vi, &vp)
    return status != FC_EINDEX


def index_get(plane, index, value):
    """False when an index lies outside its plane."""
    cdef fc_view vp, vi, vv
    cdef fc_status status
    _read(plane, &vp)
    _read(index, &vi)
    cdef fc_dtype dtype = _dtype(_write(value, &vv))
    with nogil:
        status = fc_index_get(dtype, &vp, &vi, &vv)
    return status != FC_EINDEX


cdef extern from "fastconv.h" nogil:
    ctypedef struct fc_batch_norm:
        void *running_mean
        void *running_var
        const void *weight
        const void *bias
        int training
        double momentum, eps
        double *saved
        double lower, upper

    fc_status fc_batch_norm_forward(fc_dtype, const fc_batch_norm *, const fc_view *x, const fc_view *residual,
                                    const fc_view *y)
    fc_status fc_batch_norm_grad(fc_dtype, const fc_batch_norm *, const fc_view *grad_y, const fc_view *x,
                                 const fc_view *y, const fc_view *grad_x, const fc_view *grad_residual,
                                 void *grad_weight, void *grad_bias)


cdef void *_data(object array, int flags) except? NULL:
    """The data of a contiguous array, or NULL for None."""
    cdef fc_view view
    if array is None:
        return NULL
    _fill(array, &view, flags)
    return view.data


cdef int _norm(fc_batch_norm *norm, tuple by_channel, bint training, double momentum, double eps, object saved,
               tuple clamp, bint forward) except -1:
    """by_channel: running_mean, running_var, weight, bias: contiguous 1-D arrays or None; clamp: (lower, upper)."""
    cdef int running = PyBUF_STRIDED if forward and training else PyBUF_STRIDED_RO
    norm.running_mean = _data(by_channel[0], running)
    norm.running_var = _data(by_channel[1], running)
    norm.weight = _data(by_channel[2], PyBUF_STRIDED_RO)
    norm.bias = _data(by_channel[3], PyBUF_STRIDED_RO)
    norm.training = training
    norm.momentum = momentum
    norm.eps = eps
    norm.saved = <double *>_data(saved, PyBUF_STRIDED if forward else PyBUF_STRIDED_RO)
    norm.lower, norm.upper = clamp
    return 0


def batch_norm(x, residual, y, tuple by_channel, bint training, double momentum, double eps, saved, tuple clamp):
    """residual: of x's shape, or None; saved: contiguous float64 (2, C) to write, or None."""
    cdef fc_view vx, vr, vy
    cdef fc_batch_norm norm
    cdef fc_status status
    cdef const fc_view *added = NULL
    _norm(&norm, by_channel, training, momentum, eps, saved, clamp, True)
    _read(x, &vx)
    if residual is not None:
        _read(residual, &vr)
        added = &vr
    cdef fc_dtype dtype = _dtype(_write(y, &vy))
    with nogil:
        status = fc_batch_norm_forward(dtype, &norm, &vx, added, &vy)
    _check(status)


def batch_norm_grad(grad_y, x, y, grad_x, grad_residual, grad_weight, grad_bias, tuple by_channel, bint training,
                    double eps, saved, tuple clamp):
    """saved: what batch_norm wrote, or None; y: what it returned, and grad_residual, of x's shape, to write, both or
    neither; grad_weight, grad_bias: contiguous (C,) to write, or None."""
    cdef fc_view vg, vx, vy, vgx, vgr
    cdef fc_batch_norm norm
    cdef fc_status status
    cdef const fc_view *result = NULL
    cdef const fc_view *gated = NULL
    _norm(&norm, by_channel, training, 0, eps, saved, clamp, False)
    cdef void *weight = _data(grad_weight, PyBUF_STRIDED)
    cdef void *bias = _data(grad_bias, PyBUF_STRIDED)
    _read(grad_y, &vg)
    _read(x, &vx)
    if y is not None:
        _read(y, &vy)
        _write(grad_residual, &vgr)
        result, gated = &vy, &vgr
    cdef fc_dtype dtype = _dtype(_write(grad_x, &vgx))
    with nogil:
        status = fc_batch_norm_grad(dtype, &norm, &vg, &vx, result, &vgx, gated, weight, bias)
    _check(status)


cdef extern from "fastconv.h" nogil:
    ctypedef enum fc_elementwise:
        FC_RELU
        FC_RELU6
        FC_LEAKY_RELU
        FC_SIGMOID
        FC_TANH
        FC_SILU
        FC_GELU
        FC_GELU_TANH

    void fc_elementwise_map(fc_dtype, fc_elementwise, int64_t count, double alpha, const void *x, void *y)
    void fc_elementwise_grad(fc_dtype, fc_elementwise, int64_t count, double alpha, const void *grad_y, const void *x,
                             void *grad_x)

    void fc_elementwise_add(fc_dtype, int64_t count, const void *a, const void *b, void *y)

RELU, RELU6, LEAKY_RELU, SIGMOID = FC_RELU, FC_RELU6, FC_LEAKY_RELU, FC_SIGMOID
TANH, SILU, GELU, GELU_TANH = FC_TANH, FC_SILU, FC_GELU, FC_GELU_TANH


cdef int _flat(object array, int flags, void **data, int64_t *count) except -1:
    """The values of an array that fills its memory without gaps, in memory order; returns the itemsize."""
    cdef Py_buffer buffer
    PyObject_GetBuffer(array, &buffer, flags)
    cdef int size = <int>buffer.itemsize
    data[0] = buffer.buf
    count[0] = buffer.len // size
    PyBuffer_Release(&buffer)
    return size


def elementwise(int function, x, y, double alpha):
    """x and y: gapless, of the same strides."""
    cdef void *px
    cdef void *py
    cdef int64_t count
    _flat(x, PyBUF_STRIDED_RO, &px, &count)
    cdef fc_dtype dtype = _dtype(_flat(y, PyBUF_STRIDED, &py, &count))
    with nogil:
        fc_elementwise_map(dtype, <fc_elementwise>function, count, alpha, px, py)


def elementwise_grad(int function, grad_y, x, grad_x, double alpha):
    """grad_y, x and grad_x: gapless, of the same strides."""
    cdef void *pg
    cdef void *px
    cdef void *py
    cdef int64_t count
    _flat(grad_y, PyBUF_STRIDED_RO, &pg, &count)
    _flat(x, PyBUF_STRIDED_RO, &px, &count)
    cdef fc_dtype dtype = _dtype(_flat(grad_x, PyBUF_STRIDED, &py, &count))
    with nogil:
        fc_elementwise_grad(dtype, <fc_elementwise>function, count, alpha, pg, px, py)


def add(a, b, y):
    """a, b and y: gapless, of the same strides; y may be a or b."""
    cdef void *pa
    cdef void *pb
    cdef void *py
    cdef int64_t count
    _flat(a, PyBUF_STRIDED_RO, &pa, &count)
    _flat(b, PyBUF_STRIDED_RO, &pb, &count)
    cdef fc_dtype dtype = _dtype(_flat(y, PyBUF_STRIDED, &py, &count))
    with nogil:
        fc_elementwise_add(dtype, count, pa, pb, py)
