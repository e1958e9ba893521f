# Bindings of the optimizers' steps; included by _core.pyx.
from libc.stdlib cimport calloc, free


cdef extern from "fastconv.h" nogil:
    ctypedef struct fc_update:
        void *data
        const void *grad
        void *first
        void *second
        int64_t count
        double numbers[2]

    ctypedef struct fc_sgd:
        double lr, momentum, weight_decay
        int nesterov

    ctypedef struct fc_adam:
        double beta1, beta2, eps, weight_decay, shrink

    void fc_sgd_step(fc_dtype, const fc_sgd *, fc_update *updates, int64_t count)
    void fc_adam_step(fc_dtype, const fc_adam *, fc_update *updates, int64_t count)


cdef int _update(fc_update *update, tuple entry) except -1:
    """entry: (data, grad, first or None, second or None, number, number), arrays in C order of one size and dtype."""
    data, grad, first, second, update.numbers[0], update.numbers[1] = entry
    cdef void *pointer
    cdef int size = _flat(data, PyBUF_C_CONTIGUOUS | PyBUF_WRITABLE, &update.data, &update.count)
    _alike(grad, PyBUF_C_CONTIGUOUS, &pointer, update.count, size)
    update.grad = pointer
    if first is not None:
        _alike(first, PyBUF_C_CONTIGUOUS | PyBUF_WRITABLE, &update.first, update.count, size)
    if second is not None:
        _alike(second, PyBUF_C_CONTIGUOUS | PyBUF_WRITABLE, &update.second, update.count, size)
    return size


cdef int _alike(object array, int flags, void **data, int64_t count, int size) except -1:
    """`_flat` of an array that must have `count` elements of `size` bytes."""
    cdef int64_t found
    cdef int found_size = _flat(array, flags, data, &found)
    if found != count or found_size != size:
        raise ValueError(
            f"step: arrays of an entry must be alike, got {count} elements of {size} bytes and "
            f"{found} of {found_size}"
        )
    return 0


cdef fc_update *_updates(list entries, int *size) except NULL:
    cdef fc_update *updates = <fc_update *>calloc(len(entries) + 1, sizeof(fc_update))
    cdef Py_ssize_t i
    cdef int found
    if updates == NULL:
        raise MemoryError("fastconv: the list of updates could not be allocated")
    try:
        for i in range(len(entries)):
            found = _update(&updates[i], entries[i])
            if i > 0 and found != size[0]:
                raise ValueError(f"step: entries must be of one dtype, got {size[0]} and {found} bytes")
            size[0] = found
    except BaseException:
        free(updates)
        raise
    return updates


def sgd_step(list entries, double lr, double momentum, double weight_decay, bint nesterov):
    """entries: (data, grad, velocity or None, None, share, 0) per parameter, all of one dtype."""
    cdef int size = 4
    cdef fc_update *updates = _updates(entries, &size)
    cdef int64_t count = len(entries)
    cdef fc_sgd sgd
    sgd.lr, sgd.momentum, sgd.weight_decay, sgd.nesterov = lr, momentum, weight_decay, nesterov
    with nogil:
        fc_sgd_step(_dtype(size), &sgd, updates, count)
    free(updates)


def adam_step(list entries, double beta1, double beta2, double eps, double weight_decay, double shrink):
    """entries: (data, grad, exp_avg, exp_avg_sq, rate, root) per parameter, all of one dtype."""
    cdef int size = 4
    cdef fc_update *updates = _updates(entries, &size)
    cdef int64_t count = len(entries)
    cdef fc_adam adam
    adam.beta1, adam.beta2, adam.eps, adam.weight_decay, adam.shrink = beta1, beta2, eps, weight_decay, shrink
    with nogil:
        fc_adam_step(_dtype(size), &adam, updates, count)
    free(updates)
