"""Checks and memory formats shared by the plain NumPy functions (padding, fold, losses)."""

from __future__ import annotations

from collections.abc import Collection
from itertools import pairwise
from typing import Any

import numpy as np

from fastconv._messages import shown, typed
from fastconv.functional._checks import Array, integer, not_an_array

# Orders of the axes in memory, by rank: as indexed, or with the channels last. Rank 3 is (N, C, L)
# or (C, H, W); the rank alone does not tell which.
_FORMATS: dict[int, tuple[tuple[int, ...], ...]] = {
    2: ((1, 0),),
    3: ((0, 2, 1), (1, 2, 0)),
    4: ((0, 2, 3, 1),),
    5: ((0, 2, 3, 4, 1),),
}


def real_array(function: str, name: str, value: Any) -> Array:
    """Return `value` as a native, aligned array of any real dtype."""
    if not isinstance(value, np.ndarray):
        raise not_an_array(function, name, value)
    array: Array = value if type(value) is np.ndarray else np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{function}: {name} must have a real dtype, got {array.dtype}")
    if array.dtype.isnative and array.flags.aligned:
        return array
    return np.require(array, dtype=array.dtype.newbyteorder("="), requirements="A")


def choice(function: str, name: str, value: Any, words: Collection[str]) -> str:
    """Return `value` if it is one of `words`."""
    if isinstance(value, str) and value in words:
        return value
    listed = ", ".join(repr(word) for word in words)
    if not isinstance(value, str):
        raise TypeError(f"{function}: {name} must be a str, one of {listed}, got {typed(value)}")
    raise ValueError(f"{function}: {name} must be one of {listed}, got {shown(value)}")


def shape(function: str, name: str, value: Any) -> tuple[int, ...]:
    """Return a shape argument as a tuple of ints >= 0."""
    if not isinstance(value, (tuple, list)):
        raise not_a_shape(function, name, value)
    return tuple(integer(function, name, v, 0, 2**62, "a tuple of ints") for v in value)


def not_a_shape(function: str, name: str, value: Any) -> TypeError:
    """The error for what is no shape; for an array with the way to its shape."""
    given = "an array; use its .shape" if isinstance(value, np.ndarray) else typed(value)
    return TypeError(f"{function}: {name} must be a tuple of ints, got {given}")


def memory_order(array: Array) -> tuple[int, ...]:
    """The axes of `array` from the slowest to the fastest in memory.

    As indexed, or with the channels last where the strides say so (also for slices of such arrays);
    as indexed for anything else.
    """
    array = np.asarray(array)
    rank = array.ndim
    as_indexed = tuple(range(rank))
    if not array.flags.c_contiguous:
        for order in (as_indexed, *_FORMATS.get(rank, ())):
            strides = [abs(array.strides[axis]) for axis in order if array.shape[axis] > 1]
            if all(a >= b for a, b in pairwise(strides)):
                return order
    return as_indexed


def empty_ordered(
    function: str, shape: tuple[int, ...], dtype: np.dtype[Any], order: tuple[int, ...]
) -> Array:
    """An uninitialised array of `shape` whose axes lie in memory in `order`."""
    count = dtype.itemsize
    for size in shape:
        count *= max(size, 1)  # as NumPy counts: an empty array must be addressable too
    try:
        if count >= 2**62 or max(shape, default=0) >= 2**62:
            raise MemoryError
        if order == tuple(range(len(order))):
            return np.empty(shape, dtype)
        return np.empty([shape[axis] for axis in order], dtype).transpose(np.argsort(order))
    except MemoryError:
        message = f"{function}: an output of shape {shape} would need {count} bytes"
        raise MemoryError(message) from None


def in_order(array: Array, order: tuple[int, ...]) -> Array:
    """`array` with its axes in memory in `order`: itself, or a copy."""
    moved = np.asarray(array).transpose(order)
    if moved.flags.c_contiguous:
        return np.asarray(array)
    return np.ascontiguousarray(moved).transpose(np.argsort(order))
