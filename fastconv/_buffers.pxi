# Memory that is used again and again; included by _core.pyx.
cimport cython
from cpython.buffer cimport PyBuffer_FillInfo


cdef extern from "buffers.h" nogil:
    ctypedef struct fc_buffers:
        pass
    ctypedef struct fc_block:
        void *data
        size_t bytes
    fc_buffers *fc_buffers_new(size_t most_kept)
    void fc_buffers_delete(fc_buffers *)
    fc_block fc_buffers_take(fc_buffers *, size_t bytes)
    void fc_buffers_give(fc_buffers *, fc_block)
    void fc_buffers_clear(fc_buffers *)
    void fc_buffers_count(fc_buffers *, int64_t *kept, int64_t *out)


cdef class Buffers:
    """A pool of memory blocks. `take` gives one; it comes back by itself when nothing refers to it any more.

    Of what came back `most_kept` bytes are kept; with 0 as many as follow from what was in use (buffers.h).
    """
    cdef fc_buffers *pool
    cdef size_t most_kept

    def __cinit__(self, size_t most_kept=0):
        self.most_kept = most_kept
        self.pool = fc_buffers_new(most_kept)
        if self.pool == NULL:
            raise MemoryError("fastconv: a pool of buffers could not be made")

    def __dealloc__(self):
        if self.pool != NULL:
            fc_buffers_delete(self.pool)

    def __reduce__(self):
        return Buffers, (self.most_kept,)  # a copy of a model has a pool of its own

    def take(self, size_t count):
        """A writable buffer of `count` bytes."""
        cdef Block block = Block.__new__(Block)
        block.memory = fc_buffers_take(self.pool, count)
        if block.memory.data == NULL:
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
    cdef fc_block memory
    cdef size_t count
    cdef Buffers owner

    def __dealloc__(self):
        if self.memory.data != NULL:
            fc_buffers_give(self.owner.pool, self.memory)

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        PyBuffer_FillInfo(buffer, self, self.memory.data, self.count, 0, flags)


results = Buffers(64 << 20)  # of all calls outside a model's training step; keeps as much as the scratch memory does
