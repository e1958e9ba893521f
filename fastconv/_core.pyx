"""The compiled half: unpacks arrays into views, releases the GIL and calls C. No decisions are made here.

Arrays come checked by fastconv.functional: float32 or float64 of one kind, native, aligned, 3-D (N, C, L) or 4-D
(N, C, H, W).
"""
from cpython.buffer cimport (
    PyBUF_C_CONTIGUOUS, PyBUF_STRIDED, PyBUF_STRIDED_RO, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
)
from libc.stdint cimport int64_t


cdef extern from "fastconv.h" nogil:
    ctypedef enum fc_status:
        FC_OK
        FC_ENOMEM
        FC_EINDEX
        FC_EALGORITHM

    ctypedef enum fc_dtype:
        FC_F32
        FC_F64

    ctypedef struct fc_view:
        void *data
        int64_t n, c, h, w
        int64_t stride_n, stride_c, stride_h, stride_w

    ctypedef struct fc_conv:
        int64_t stride_h, stride_w
        int64_t dilation_h, dilation_w
        int64_t pad_top, pad_left
        int64_t groups
        int algorithm
        const void *prepared

    ctypedef struct fc_epilogue:
        const void *scale
        const void *bias
        const fc_view *residual
        double lower, upper

    ctypedef struct fc_explanation:
        const char *algorithm
        const char *reason
        int64_t scratch_bytes

    fc_status fc_conv2d(fc_dtype, const fc_conv *, const fc_view *x, const fc_view *weight, const fc_epilogue *,
                        const fc_view *y)
    fc_status fc_conv2d_grad_input(fc_dtype, const fc_conv *, const fc_view *grad_y, const fc_view *weight,
                                   const fc_epilogue *, const fc_view *grad_x)
    fc_status fc_conv2d_grad_weight(fc_dtype, const fc_conv *, const fc_view *grad_y, const fc_view *x,
                                    const fc_view *grad_weight)
    int64_t fc_conv2d_prepared_bytes(fc_dtype, const fc_conv *, const fc_view *x, const fc_view *weight,
                                     const fc_view *y)
    fc_status fc_conv2d_prepare(fc_dtype, const fc_conv *, const fc_view *x, const fc_view *weight, const fc_view *y,
                                void *prepared)
    fc_status fc_conv2d_explain(fc_dtype, const fc_conv *, const fc_view *x, const fc_view *weight, const fc_view *y,
                                fc_explanation *)
    fc_status fc_channel_sum(fc_dtype, const fc_view *x, void *sum)
    fc_status fc_linear(fc_dtype, const fc_view *x, const fc_view *weight, const void *bias, double lower, double upper,
                        const fc_view *y)
    fc_status fc_copy(fc_dtype, const fc_view *x, const fc_view *y)
    void fc_copy_channels(fc_dtype, const fc_view *x, const fc_view *y, int adds)
    const char *const *fc_isa_names(int *count)
    const char *fc_isa()
    int fc_use_isa(const char *name)
    void fc_set_num_threads(int threads)
    int fc_get_num_threads()
    int fc_flush_denormals(int on)
    void fc_clear_workspace()
    int64_t fc_workspace_bytes()
    int64_t fc_scratch_limit(int64_t blocks)

cdef extern from *:
    """
    #if defined(__clang__)
    #define FC_COMPILER "clang " __clang_version__
    #else
    #define FC_COMPILER "gcc " __VERSION__
    #endif
    """
    const char *FC_COMPILER

cdef double INFINITY = float("inf")


cdef int _check(fc_status status) except -1:
    if status == FC_OK:
        return 0
    if status == FC_ENOMEM:
        raise MemoryError("fastconv: scratch memory could not be allocated")
    if status == FC_EINDEX:
        raise IndexError("an index lies outside its plane")
    if status == FC_EALGORITHM:
        raise ValueError("the algorithm cannot serve this shape")
    raise SystemError("fastconv: unknown status")


cdef int _fill(object array, fc_view *view, int flags) except -1:
    """Fills the view of a 4-D (N, C, H, W), 3-D (N, C, L) or 1-D (C,) array and returns its itemsize. The caller
    holds a reference to the array for as long as it uses the view, so the buffer is given back at once."""
    cdef Py_buffer buffer
    PyObject_GetBuffer(array, &buffer, flags)
    cdef int size = <int>buffer.itemsize
    cdef bint plane = buffer.ndim == 4
    cdef int last = buffer.ndim - 1
    view.data = buffer.buf
    if buffer.ndim >= 3:
        view.n, view.c, view.w = buffer.shape[0], buffer.shape[1], buffer.shape[last]
        view.stride_n = buffer.strides[0] // size
        view.stride_c = buffer.strides[1] // size
        view.stride_w = buffer.strides[last] // size
        view.h = buffer.shape[2] if plane else 1
        view.stride_h = buffer.strides[2] // size if plane else 0
    PyBuffer_Release(&buffer)
    if view.c == 1:
        view.stride_c = 1  # NumPy exports any stride for an axis of length 1: one channel is both formats
    return size


cdef inline int _read(object array, fc_view *view) except -1:
    return _fill(array, view, PyBUF_STRIDED_RO)


cdef inline int _write(object array, fc_view *view) except -1:
    return _fill(array, view, PyBUF_STRIDED)


cdef inline fc_dtype _dtype(int itemsize) noexcept nogil:
    return FC_F32 if itemsize == 4 else FC_F64


cdef int _epilogue(fc_epilogue *epilogue, object bias) except -1:
    """bias: a contiguous 1-D array, or None."""
    cdef fc_view view
    epilogue.scale = NULL
    epilogue.residual = NULL
    epilogue.lower = -INFINITY
    epilogue.upper = INFINITY
    epilogue.bias = NULL
    if bias is not None:
        _read(bias, &view)
        epilogue.bias = view.data
    return 0


cdef inline fc_conv _conv(tuple geometry) except *:
    """(stride_h, stride_w, dilation_h, dilation_w, pad_top, pad_left, groups, algorithm)"""
    cdef fc_conv conv
    (conv.stride_h, conv.stride_w, conv.dilation_h, conv.dilation_w, conv.pad_top, conv.pad_left, conv.groups,
     conv.algorithm) = geometry
    conv.prepared = NULL
    return conv


def conv2d(x, weight, bias, y, tuple geometry, double lower=-INFINITY, double upper=INFINITY, scale=None,
           residual=None, prepared=None):
    """y = clamp(conv(x, weight) * scale + bias + residual, lower, upper). bias, scale, residual (channels-last, like y)
    and prepared (what `prepare` filled for these shapes) may be None."""
    cdef fc_view vx, vw, vy, view, vr
    cdef fc_epilogue epilogue
    cdef fc_conv conv = _conv(geometry)
    cdef fc_status status
    _read(x, &vx)
    _read(weight, &vw)
    _epilogue(&epilogue, bias)
    if scale is not None:
        _read(scale, &view)
        epilogue.scale = view.data
    if residual is not None:
        _read(residual, &vr)
        epilogue.residual = &vr
    epilogue.lower = lower
    epilogue.upper = upper
    if prepared is not None:
        _read(prepared, &view)
        conv.prepared = view.data
    cdef fc_dtype dtype = _dtype(_write(y, &vy))
    with nogil:
        status = fc_conv2d(dtype, &conv, &vx, &vw, &epilogue, &vy)
    _check(status)


def conv2d_grad_input(grad_y, weight, bias, grad_x, tuple geometry, residual=None):
    """residual (channels-last, added to grad_x; only where the strides are 1) may be None."""
    cdef fc_view vy, vw, vx, vr
    cdef fc_epilogue epilogue
    cdef fc_conv conv = _conv(geometry)
    cdef fc_status status
    _read(grad_y, &vy)
    _read(weight, &vw)
    _epilogue(&epilogue, bias)
    if residual is not None:
        _read(residual, &vr)
        epilogue.residual = &vr
    cdef fc_dtype dtype = _dtype(_write(grad_x, &vx))
    with nogil:
        status = fc_conv2d_grad_input(dtype, &conv, &vy, &vw, &epilogue, &vx)
    _check(status)


def conv2d_grad_weight(grad_y, x, grad_weight, tuple geometry):
    cdef fc_view vy, vx, vw
    cdef fc_conv conv = _conv(geometry)
    cdef fc_status status
    _read(grad_y, &vy)
    _read(x, &vx)
    cdef fc_dtype dtype = _dtype(_write(grad_weight, &vw))
    with nogil:
        status = fc_conv2d_grad_weight(dtype, &conv, &vy, &vx, &vw)
    _check(status)


def conv2d_explain(int itemsize, tuple x_shape, tuple weight_shape, tuple y_shape, tuple geometry):
    """Shapes are (N, C, H, W), channels-last strides are assumed."""
    cdef fc_view vx, vw, vy
    cdef fc_conv conv = _conv(geometry)
    cdef fc_explanation found
    for_shape(&vx, x_shape)
    for_shape(&vw, weight_shape)
    for_shape(&vy, y_shape)
    _check(fc_conv2d_explain(_dtype(itemsize), &conv, &vx, &vw, &vy, &found))
    return found.algorithm.decode(), found.reason.decode(), found.scratch_bytes


cdef int for_shape(fc_view *view, tuple shape) except -1:
    view.data = NULL
    view.n, view.c, view.h, view.w = shape
    view.stride_c = 1
    view.stride_w = view.c
    view.stride_h = view.c * view.w
    view.stride_n = view.c * view.w * view.h
    return 0


def channel_sum(x, out):
    """out: a contiguous 1-D array of C elements."""
    cdef fc_view vx, vsum
    cdef fc_status status
    _read(x, &vx)
    cdef fc_dtype dtype = _dtype(_write(out, &vsum))
    with nogil:
        status = fc_channel_sum(dtype, &vx, vsum.data)
    _check(status)


def linear(x, weight, bias, y):
    """y = x weight^T + bias for (rows, features, 1) arrays; x and y have adjacent features, the weight one adjacent
    axis. bias: a contiguous 1-D array, or None."""
    cdef fc_view vx, vw, vy
    cdef fc_epilogue epilogue
    cdef fc_status status
    _read(x, &vx)
    _read(weight, &vw)
    _epilogue(&epilogue, bias)
    cdef fc_dtype dtype = _dtype(_write(y, &vy))
    with nogil:
        status = fc_linear(dtype, &vx, &vw, epilogue.bias, -INFINITY, INFINITY, &vy)
    _check(status)


def copy(x, y):
    cdef fc_view vx, vy
    cdef fc_status status
    _read(x, &vx)
    cdef fc_dtype dtype = _dtype(_write(y, &vy))
    with nogil:
        status = fc_copy(dtype, &vx, &vy)
    _check(status)


def copy_channels(x, y, bint adds):
    """x and y: images of one size with contiguous channels, not as many in both; see fastconv.h."""
    cdef fc_view vx, vy
    _read(x, &vx)
    cdef fc_dtype dtype = _dtype(_write(y, &vy))
    with nogil:
        fc_copy_channels(dtype, &vx, &vy, adds)


def isas():
    cdef int count = 0
    cdef const char *const *names = fc_isa_names(&count)
    return [names[i].decode() for i in range(count)]


def isa():
    return fc_isa().decode()


def use_isa(str name):
    return fc_use_isa(name.encode())


def set_num_threads(int threads):
    fc_set_num_threads(threads)


def get_num_threads():
    return fc_get_num_threads()


def flush_denormals(bint on):
    return fc_flush_denormals(on)


def clear_workspace():
    fc_clear_workspace()


def workspace_bytes():
    return fc_workspace_bytes()


def limit_scratch(long long blocks):
    """For tests: see fc_scratch_limit."""
    return fc_scratch_limit(blocks)


def compiler():
    return FC_COMPILER.decode()


include "_pool_norm.pxi"
include "_plan.pxi"
include "_buffers.pxi"
include "_optimize.pxi"
