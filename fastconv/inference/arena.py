"""Where each activation lies in the one block of memory of a run, and the weights of a plan."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import _core
from .graph import Array, Buffer

ALIGN = 64  # bytes: a cache line, and the widest vector
HUGE = 1 << 21  # bytes of a huge page


def place(buffers: Sequence[Buffer], itemsize: int) -> int:
    """Give every buffer its offset and return the bytes of the arena.

    Two buffers may share memory when no step needs both. The largest is placed first, each into
    the smallest gap that holds it (Pisarchyk and Lee 2020, "Efficient Memory Management for Deep
    Neural Net Inference": greedy by size).
    """
    total = 0
    placed: list[Buffer] = []
    sizes = {id(b): -(-b.elements * itemsize // ALIGN) * ALIGN for b in buffers}
    for buffer in sorted(buffers, key=lambda b: -b.elements):
        size = sizes[id(buffer)]
        best, smallest, end = -1, 0, 0
        for other in placed:  # in the order of their offsets
            if other.last < buffer.first or other.first > buffer.last:
                continue
            gap = other.offset - end
            if gap >= size and (best < 0 or gap < smallest):
                best, smallest = end, gap
            end = max(end, other.offset + sizes[id(other)])
        buffer.offset = end if best < 0 else best
        total = max(total, buffer.offset + size)
        placed.append(buffer)
        placed.sort(key=lambda b: b.offset)
    return total


def aligned(size: int, dtype: Any = np.uint8) -> Array:
    """An uninitialised array of `size` entries whose first one is aligned to 64 bytes."""
    itemsize = np.dtype(dtype).itemsize
    raw = np.empty(size * itemsize + ALIGN, np.uint8)
    start = -raw.ctypes.data % ALIGN
    return raw[start : start + size * itemsize].view(dtype)


class Pages:
    """Memory for the weights of a plan, which stays as long as they do.

    They are read once per call, mostly from memory, whose lines the processor fetches ahead up to
    the end of a page: so they share one block of whole huge pages, of `expected` bytes, and then
    blocks as large as all before. What nobody writes to takes no physical memory; where the system
    grants no more, a block is as small as its first array.
    """

    def __init__(self, expected: int) -> None:
        self._pool, self._block = _core.Buffers(), np.empty(0, np.uint8)
        self._used = 0  # of the block
        self._expected, self._taken = expected, 0

    def take(self, size: int) -> Array:
        """`size` bytes, uninitialised, whose first one is aligned to 64."""
        whole = -(-size // ALIGN) * ALIGN
        if whole > self._block.size - self._used:
            block = max(whole, self._taken or self._expected)
            block = block if block < HUGE // 2 else -(-block // HUGE) * HUGE
            try:
                memory = self._pool.take(block)
            except MemoryError:
                memory = self._pool.take(whole)
            self._block, self._used = np.frombuffer(memory, np.uint8), 0
        array = self._block[self._used : self._used + size]
        self._used += whole
        self._taken += whole
        return array

    def give_back(self, last: Array) -> None:
        """The array that was taken last is not needed."""
        whole = -(-last.size // ALIGN) * ALIGN
        self._used -= whole
        self._taken -= whole
