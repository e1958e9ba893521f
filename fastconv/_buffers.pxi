# Memory that the steps of a training loop use again and again; included by _core.pyx.
cimport cython
from cpython.buffer cimport PyBuffer_FillInfo


cdef extern from "buffers.h" nogil:
    ctypedef struct fc_buffers:
        pass
    fc_buffers *fc_buffers_new()
    void fc_buffers_delete(fc_buffers *)
    void *fc_buffers_take(fc_buffers *, size_t bytes)
    void fc_buffers_give(fc_buffers *, void *block)
    void fc_buffers_clear(fc_buffers *)
    void fc_buffers_count(fc_buffers *, int64_t *kept, int64_t *out)


cdef class Buffers:
    """A pool of memory blocks. `take` gives one; it comes back by itself when nothing refers to it any more."""
    cdef fc_buffers *pool

    def __cinit__(self):
        self.pool = fc_buffers_new()
        if self.pool == NULL:
            raise MemoryError("fastconv: a pool of buffers could not be made")

    def __dealloc__(self):
        if self.pool != NULL:
            fc_buffers_delete(self.pool)

    def __reduce__(self):
        return Buffers, ()  # a copy of a model has a pool of its own

    def take(self, size_t count):
        """A writable buffer of `count` bytes."""
        cdef Block block = Block.__new__(Block)
        block.data = fc_buffers_take(self.pool, count)
        if block.data == NULL:
            raise MemoryError("fastconv: a buffer could not be allocated")
        block.count = count
        block.owner = self
        return block

    def clear(self):
        """Free the blocks that nobody uses."""
        fc_buffers_clear(self.pool)

    def count(self):
        """(bytes kept for the next `take`, bytes in use)"""
        cdef int64_t kept
        cdef int64_t used
        fc_buffers_count(self.pool, &kept, &used)
        return kept, used


@cython.no_gc  # its owner refers to nothing, so there are no cycles; and the owner must be there in __dealloc__
cdef class Block:
    cdef void *data
    cdef size_t count
    cdef Buffers owner

    def __dealloc__(self):
        if self.data != NULL:
            fc_buffers_give(self.owner.pool, self.data)

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        PyBuffer_FillInfo(buffer, self, self.data, self.count, 0, flags)
