"""Arrays between canaries: any memory layout, with a check that nothing around them was written."""

import numpy as np

MARGIN = 128  # bytes before and after; more than a vector of any instruction set


class GuardedArray:
    """An array inside a buffer of canaries.

    `array` is a view of any order, steps, signs and alignment into `_buffer`; `_owned` marks the
    bytes of the buffer that are its elements.
    """

    def __init__(self, array, buffer, owned, writable):
        self.array, self._buffer, self._owned = array, buffer, owned
        self._writable = writable
        self.remember()

    def remember(self):
        """What the memory holds now is what it must hold later."""
        self._before = self._buffer.copy()

    def touched(self, may_write=None):
        """Whether memory was written that should not be: all of an input, the gaps of an output."""
        writable = self._writable if may_write is None else may_write
        changed = self._buffer != self._before
        return bool((changed & ~self._owned).any() if writable else changed.any())


KINDS = ("plain", "last", "permuted", "gaps", "backwards", "wild")


def layout(rng, shape, width, kind, *, zero_steps=False):
    """Strides of a random layout, and the bytes before and behind the first element it spans."""
    rank = len(shape)
    order, steps, signs = list(range(rank)), [1] * rank, [1] * rank
    if kind == "last" and rank > 2:
        order = [0, *range(2, rank), 1]
    if kind in ("permuted", "wild"):
        order = [int(axis) for axis in rng.permutation(rank)]
    if kind in ("gaps", "wild"):
        steps = [int(rng.integers(1, 4)) for _ in order]
    if kind in ("backwards", "wild"):
        signs = [int(rng.choice([-1, 1])) for _ in order]
    if kind == "wild" and zero_steps:
        steps = [0 if rng.random() < 0.1 else step for step in steps]
    strides, stride = [0] * rank, width
    for axis in reversed(order):
        strides[axis] = signs[axis] * steps[axis] * stride
        stride *= max(steps[axis], 1) * max(shape[axis], 1)
    reach = [(size - 1) * step if size else 0 for size, step in zip(shape, strides, strict=True)]
    return strides, -sum(min(0, r) for r in reach), width + sum(max(0, r) for r in reach)


def guard(rng, values, *, writable=False, plain=False):
    """The values in memory of a random layout; `plain`: C-contiguous, native and aligned.

    Outputs (`writable`) are filled with NaN, and their elements do not overlap.
    """
    values = np.asarray(values)
    dtype, kind, shift = values.dtype, "plain" if plain else rng.choice(KINDS), 0
    width = dtype.itemsize
    strides, before, after = layout(rng, values.shape, width, kind, zero_steps=not writable)
    if kind == "wild" and not writable:
        shift = int(rng.choice([0, 0, 1, width // 2]))
        if rng.random() < 0.3:
            dtype = dtype.newbyteorder()
    buffer = rng.integers(0, 256, before + after + 2 * MARGIN + 128, np.uint8)
    shift += -(buffer.ctypes.data + MARGIN) % 64  # aligned to a cache line, then shifted
    offset = MARGIN + shift + before
    array = np.ndarray(values.shape, dtype, buffer, offset, strides)
    owned = np.zeros(buffer.shape, bool)
    if values.size:
        np.ndarray((*values.shape, width), bool, owned, offset, (*strides, 1))[...] = True
        array[...] = np.nan if writable and dtype.kind == "f" else values
    if not writable and not plain and rng.random() < 0.3:
        array.flags.writeable = False
    return GuardedArray(array, buffer, owned, writable)
