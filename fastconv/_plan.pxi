# Bindings of inference plans; included by _core.pyx.
from libc.stdlib cimport free, realloc
from libc.string cimport memset


cdef extern from "fastconv.h" nogil:
    ctypedef enum fc_place:
        FC_NOWHERE
        FC_ARENA
        FC_INPUT
        FC_OUTPUT
        FC_CONSTANT

    ctypedef struct fc_operand:
        fc_place place
        int64_t offset
        fc_view view

    ctypedef enum fc_step_kind:
        FC_STEP_CONV
        FC_STEP_LINEAR
        FC_STEP_LINEAR_F16
        FC_STEP_MAX_POOL
        FC_STEP_AVG_POOL
        FC_STEP_MAP
        FC_STEP_ADD
        FC_STEP_COPY

    ctypedef struct fc_step:
        fc_step_kind kind
        fc_operand x, y, other
        fc_conv conv
        fc_view weight
        const void *bias
        const float *scale
        double lower, upper
        fc_pool pool
        fc_elementwise function
        double alpha
        int chain

    int fc_chain_serves(fc_dtype, const fc_step *steps)
    fc_status fc_run_steps(fc_dtype, const fc_step *steps, int64_t count, void *arena, const fc_view *input,
                           const fc_view *output, double *seconds)

NOWHERE, IN_ARENA, IN_INPUT, IN_OUTPUT, IN_CONSTANT = FC_NOWHERE, FC_ARENA, FC_INPUT, FC_OUTPUT, FC_CONSTANT


cdef int _operand(fc_operand *operand, tuple given) except -1:
    """given: (place, offset in bytes, shape (N, C, H, W), strides in elements), with an array in place of the offset
    for a constant; or None."""
    memset(operand, 0, sizeof(fc_operand))
    if given is None:
        operand.place = FC_NOWHERE
        return 0
    place, offset, shape, strides = given
    operand.place = <fc_place>(<int>place)
    cdef fc_view *v = &operand.view
    if operand.place == FC_CONSTANT:
        v.data = _data(offset, PyBUF_STRIDED_RO)
    else:
        operand.offset = offset
    v.n, v.c, v.h, v.w = shape
    v.stride_n, v.stride_c, v.stride_h, v.stride_w = strides
    return 0


cdef int _caller_view(object array, fc_view *view, int flags) except -1:
    """An array (N, C), (N, C, L) or (N, C, H, W) of the caller; returns the itemsize."""
    cdef Py_buffer buffer
    cdef int size = _fill(array, view, flags)
    PyObject_GetBuffer(array, &buffer, flags)
    if buffer.ndim == 2:
        view.n, view.c, view.h, view.w = buffer.shape[0], buffer.shape[1], 1, 1
        view.stride_n, view.stride_c = buffer.strides[0] // size, buffer.strides[1] // size
        view.stride_h = view.stride_w = view.c
    PyBuffer_Release(&buffer)
    return size


cdef int _dense(fc_view *view, tuple shape, void *data) except -1:
    """A C-contiguous weight (K, C, kH, kW)."""
    view.data = data
    view.n, view.c, view.h, view.w = shape
    view.stride_w = 1
    view.stride_h = view.w
    view.stride_c = view.h * view.w
    view.stride_n = view.c * view.stride_c
    return 0


def prepared_bytes(int itemsize, tuple x, weight, tuple y, tuple geometry):
    """What `prepare` writes for operands x and y and a C-contiguous weight; 0: there is nothing to prepare."""
    cdef fc_operand ox, oy
    cdef fc_view vw
    cdef fc_conv conv = _conv(geometry)
    _operand(&ox, x)
    _operand(&oy, y)
    _read(weight, &vw)
    return fc_conv2d_prepared_bytes(_dtype(itemsize), &conv, &ox.view, &vw, &oy.view)


def prepare(int itemsize, tuple x, weight, tuple y, tuple geometry, prepared):
    """prepared: an array of prepared_bytes bytes, aligned to 64."""
    cdef fc_operand ox, oy
    cdef fc_view vw
    cdef fc_conv conv = _conv(geometry)
    cdef void *to = _data(prepared, PyBUF_STRIDED)
    _operand(&ox, x)
    _operand(&oy, y)
    _read(weight, &vw)
    cdef fc_dtype dtype = _dtype(itemsize)
    cdef fc_status status
    with nogil:
        status = fc_conv2d_prepare(dtype, &conv, &ox.view, &vw, &oy.view, to)
    _check(status)


def chain_serves(int itemsize, list shapes):
    """shapes: (x, weight, y, geometry) of three convolutions that follow each other, (N, C, H, W) each. 0, 1 or 2, see
    fc_chain_serves."""
    cdef fc_step steps[3]
    memset(steps, 0, sizeof(steps))
    for i, (x, weight, y, geometry) in enumerate(shapes):
        for_shape(&steps[i].x.view, x)
        for_shape(&steps[i].y.view, y)
        _dense(&steps[i].weight, weight, NULL)
        steps[i].conv = _conv(geometry)
    return fc_chain_serves(_dtype(itemsize), steps)


cdef class Steps:
    """The steps of a plan as an array of C structs. Operands are tuples as in _operand."""

    cdef fc_step *steps
    cdef int64_t count
    cdef fc_dtype dtype
    cdef list held  # arrays that the steps point into

    def __cinit__(self, int itemsize):
        self.dtype = _dtype(itemsize)
        self.held = []

    def __dealloc__(self):
        free(self.steps)

    def __len__(self):
        return self.count

    cdef fc_step *_add(self, fc_step_kind kind, x, y, other) except NULL:
        cdef fc_step *grown = <fc_step *>realloc(self.steps, (self.count + 1) * sizeof(fc_step))
        if grown == NULL:
            raise MemoryError("fastconv: the steps of a plan could not be stored")
        self.steps = grown
        cdef fc_step *step = &grown[self.count]
        memset(step, 0, sizeof(fc_step))
        step.kind = kind
        _operand(&step.x, x)
        _operand(&step.y, y)
        _operand(&step.other, other)
        self.held.append((x, y, other))
        self.count += 1
        return step

    def conv(self, x, y, other, tuple weight_shape, weight, prepared, bias, tuple geometry, double lower,
             double upper, bint chain):
        """weight: C-contiguous, or None where it is prepared; bias: contiguous 1-D or None; they are kept. chain:
        this step and the next two run depth first."""
        cdef fc_step *step = self._add(FC_STEP_CONV, x, y, other)
        step.conv = _conv(geometry)
        step.conv.prepared = _data(prepared, PyBUF_STRIDED_RO)
        _dense(&step.weight, weight_shape, _data(weight, PyBUF_STRIDED_RO))
        step.bias = _data(bias, PyBUF_STRIDED_RO)
        step.lower, step.upper = lower, upper
        step.chain = chain
        self.held.append((weight, prepared, bias))

    def linear(self, x, y, weight, bias, double lower, double upper):
        """weight: C-contiguous (K, C, 1, 1); bias: contiguous 1-D or None; they are kept."""
        cdef fc_step *step = self._add(FC_STEP_LINEAR, x, y, None)
        _read(weight, &step.weight)
        step.bias = _data(bias, PyBUF_STRIDED_RO)
        step.lower, step.upper = lower, upper
        self.held.append((weight, bias))

    def linear_f16(self, x, y, tuple weight_shape, packed, scale, bias, double lower, double upper):
        """packed: uint16 (ceil(K / 32), C, 32), see fc_linear_f16; scale: float32 (K,); bias: the same or None; they
        are kept. weight_shape: (K, C, 1, 1)."""
        cdef fc_step *step = self._add(FC_STEP_LINEAR_F16, x, y, None)
        _dense(&step.weight, weight_shape, _data(packed, PyBUF_STRIDED_RO))
        step.scale = <const float *>_data(scale, PyBUF_STRIDED_RO)
        step.bias = _data(bias, PyBUF_STRIDED_RO)
        step.lower, step.upper = lower, upper
        self.held.append((packed, scale, bias))

    def pool(self, x, y, bint mean, tuple axes, bint include_pad, int64_t divisor):
        _pool(&self._add(FC_STEP_AVG_POOL if mean else FC_STEP_MAX_POOL, x, y, None).pool, axes, include_pad, divisor)

    def map(self, x, y, int function, double alpha):
        cdef fc_step *step = self._add(FC_STEP_MAP, x, y, None)
        step.function = <fc_elementwise>function
        step.alpha = alpha

    def add(self, x, y, other, double lower, double upper):
        cdef fc_step *step = self._add(FC_STEP_ADD, x, y, other)
        step.lower, step.upper = lower, upper

    def copy(self, x, y):
        self._add(FC_STEP_COPY, x, y, None)

    def run(self, x, y, arena, int64_t first, int64_t end, seconds):
        """Run steps first .. end. x, y: the caller's arrays, 2-D to 4-D; seconds: float64 array of all steps, or
        None."""
        cdef fc_view vx, vy
        cdef fc_status status
        cdef double *times = <double *>_data(seconds, PyBUF_STRIDED)
        cdef void *memory = _data(arena, PyBUF_STRIDED)
        _caller_view(x, &vx, PyBUF_STRIDED_RO)
        _caller_view(y, &vy, PyBUF_STRIDED)
        with nogil:
            status = fc_run_steps(self.dtype, self.steps + first, end - first, memory, &vx, &vy,
                                  times + first if times != NULL else NULL)
        _check(status)
