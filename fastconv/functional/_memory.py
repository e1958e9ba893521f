"""Where results are allocated: small ones in NumPy's memory, large ones in a pool of buffers.

In a loop the same arrays come and go with every step. The operating system would give each of them
fresh pages, filled with zeros one page fault at a time; a pool hands the memory of the last step
out again. A block goes back when the last array that looks at it is gone, so an array that a user
keeps is never overwritten. Inside a model's training step the pool is the model's; all other calls
share `_core.results`.
"""

from __future__ import annotations

from contextvars import ContextVar, Token
from math import prod
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from fastconv import _core

Array = npt.NDArray[Any]

LEAST = 1 << 16  # bytes: smaller arrays come from the heap, without page faults
KERNEL_DTYPES = (np.dtype(np.float32), np.dtype(np.float64))  # native byte order
_LEAST_POOLED = 1 << 20  # bytes: a view of a block takes 1 us more, writing that much 30

_active: ContextVar[_core.Buffers | None] = ContextVar("fastconv_buffers", default=None)


class using:
    """Take large results from `pool` inside a `with` block, unless a pool is active already."""

    def __init__(self, pool: _core.Buffers) -> None:
        self._pool = pool
        self._token: Token[_core.Buffers | None] | None = None

    def __enter__(self) -> None:
        if _active.get() is None:
            self._token = _active.set(self._pool)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._token is not None:
            _active.reset(self._token)


def new_array(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """An uninitialised C-contiguous array; a large one is aligned to a cache line."""
    size = prod(shape) * dtype.itemsize
    if not LEAST <= size < 2**62:
        return np.empty(shape, dtype)
    pool = _active.get()
    if pool is None:
        if size < _LEAST_POOLED:
            return np.empty(shape, dtype)
        pool = _core.results
    try:
        return np.ndarray(shape, dtype, pool.take(size))
    except MemoryError:
        return np.empty(shape, dtype)  # says the shape and how much that is


def new_like(x: Array) -> Array:
    """An uninitialised array of x's shape, dtype and order of axes in memory, without gaps."""
    if x.nbytes < LEAST:
        return np.empty_like(x, subok=False)
    if x.flags.c_contiguous:
        return new_array(x.shape, x.dtype)
    if x.ndim == 4:
        rows = x.transpose(0, 2, 3, 1)
        if rows.flags.c_contiguous:
            return new_array(rows.shape, x.dtype).transpose(0, 3, 1, 2)
    order = sorted(range(x.ndim), key=lambda axis: (-abs(x.strides[axis]), axis))
    back = np.argsort(order)
    return new_array(tuple(x.shape[axis] for axis in order), x.dtype).transpose(back)


def copy_into(to: Array, x: Array) -> None:
    """to[...] = x for images in any two layouts, by the kernels where they know the dtype."""
    if x.dtype == to.dtype and x.dtype in KERNEL_DTYPES and x.flags.aligned and x.size:
        _core.copy(x, to)
    else:
        to[...] = x


def pad_channels_into(to: Array, x: Array) -> None:
    """to[:, : x.shape[1]] = x, and 0 in the other channels."""
    if _have_pixels(to, x):
        _core.copy_channels(x, to, False)
        return
    copy_into(to[:, : x.shape[1]], x)
    to[:, x.shape[1] :] = 0


def add_channels_into(to: Array, x: Array) -> None:
    """to += x[:, : to.shape[1]]"""
    if _have_pixels(to, x):
        _core.copy_channels(x, to, True)
    else:
        to += x[:, : to.shape[1]]


def _have_pixels(a: Array, b: Array) -> bool:
    """Whether both are float32 or float64 images whose channels are neighbours in memory."""
    step = a.itemsize
    return (
        a.ndim == 4
        and a.dtype == b.dtype
        and b.dtype in KERNEL_DTYPES
        and a.strides[1] == b.strides[1] == step
        and a.flags.aligned
        and b.flags.aligned
        and a.size > 0
        and b.size > 0
    )


def add(a: Array, b: Array, into_a: bool) -> Array:
    """a + b, written over a where that is allowed."""
    if a.strides != b.strides or a.dtype != b.dtype or a.shape != b.shape or not is_gapless(a):
        return np.add(a, b, out=a if into_a else None)
    y = a if into_a else new_like(a)
    _core.add(a, b, y)
    return y


def is_gapless(x: Array) -> bool:
    """Whether x is C- or Fortran-contiguous, or channels-last without gaps."""
    if x.flags.c_contiguous or x.flags.f_contiguous:
        return True
    return x.ndim > 2 and bool(x.transpose(0, *range(2, x.ndim), 1).flags.c_contiguous)
