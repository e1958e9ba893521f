"""Geometry and argument rules shared by the reference functions.

Everything is one axis at a time: a window that starts at `start` with `kernel` taps `dilation`
apart touches the positions `start + k * dilation`, `k = 0 .. kernel - 1`. Padding is a pair
`(before, after)`.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Size = int | Sequence[int]
OptionalSize = int | None | Sequence[int | None]
Pair = tuple[int, int]
Padding = int | str | Sequence[int] | Sequence[Sequence[int]]


def integer(function: str, name: str, value: Any, minimum: int) -> int:
    """`value` as a Python int of at least `minimum`; bool and float are refused."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{function}: {name} must be an int, got {value!r}")
    number = operator.index(value)
    if number < minimum:
        raise ValueError(f"{function}: {name} must be at least {minimum}, got {number}")
    return number


def per_axis(function: str, name: str, value: Any, rank: int, minimum: int) -> tuple[int, ...]:
    """One int per spatial axis: an int is repeated, a tuple must have `rank` entries."""
    if isinstance(value, (list, tuple)):
        value = tuple(value) * (rank if len(value) == 1 else 1)
        if len(value) != rank:
            raise ValueError(f"{function}: {name} needs {rank} entries, got {value!r}")
        return tuple(integer(function, name, entry, minimum) for entry in value)
    return (integer(function, name, value, minimum),) * rank


def extent(kernel: int, dilation: int) -> int:
    """Positions from the first to the last tap of a window: `(kernel - 1) * dilation + 1`."""
    return (kernel - 1) * dilation + 1


def axis_padding(mode: str, size: int, kernel: int, stride: int, dilation: int) -> Pair:
    """The pair `(before, after)` that a padding word means on one axis."""
    reach = extent(kernel, dilation) - 1
    if mode == "valid":
        return 0, 0
    if mode == "full":
        return reach, reach
    if mode == "causal":
        return reach, 0
    out_size = -(-size // stride)  # ceil(size / stride)
    total = max((out_size - 1) * stride + reach + 1 - size, 0)
    half = total // 2
    return (half, total - half) if mode == "same" else (total - half, half)


def paddings(
    function: str,
    padding: Any,
    words: Sequence[str],
    sizes: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
) -> tuple[Pair, ...]:
    """`(before, after)` for each spatial axis, from any form of `padding`."""
    rank = len(sizes)
    if isinstance(padding, str):
        if padding not in words:
            raise ValueError(
                f"{function}: padding must be numbers or one of {list(words)}, got {padding!r}"
            )
        return tuple(
            axis_padding(padding, *axis)
            for axis in zip(sizes, kernel, stride, dilation, strict=True)
        )
    if isinstance(padding, (list, tuple)) and any(isinstance(p, (list, tuple)) for p in padding):
        if len(padding) != rank or not all(
            isinstance(p, (list, tuple)) and len(p) == 2 for p in padding
        ):
            raise ValueError(
                f"{function}: padding needs {rank} pairs (before, after), got {padding!r}"
            )
        pairs = [per_axis(function, "padding", pair, 2, 0) for pair in padding]
    else:
        pairs = [(p, p) for p in per_axis(function, "padding", padding, rank, 0)]
    return tuple((before, after) for before, after in pairs)


def conv_size(size: int, kernel: int, pad: Pair, stride: int, dilation: int = 1) -> int:
    """`floor((size + before + after - extent) / stride) + 1`: how many windows fit."""
    return (size + sum(pad) - extent(kernel, dilation)) // stride + 1


def taps(start: int, kernel: int, dilation: int, size: int) -> tuple[slice, slice]:
    """The taps `k` of a window with `0 <= start + k * dilation < size`.

    Returns two slices of equal length: the positions in the input, and the taps in the kernel.
    Padding is not multiplied by zero, it is left out: an infinite weight makes no NaN there.
    """
    first = max(0, -(start // dilation))  # the least k with start + k * dilation >= 0
    last = min(kernel, -((start - size) // dilation))  # one past the greatest k that stays inside
    last = max(first, last)
    begin = start + first * dilation
    return slice(begin, begin + (last - first) * dilation, dilation), slice(first, last)


def batched(function: str, name: str, array: Array, rank: int) -> tuple[Array, bool]:
    """`array` with a batch axis, and whether it had one. `rank` is the number of spatial axes."""
    if array.ndim not in (rank + 1, rank + 2):
        raise ValueError(
            f"{function}: {name} must have {rank + 2} axes (or {rank + 1} unbatched), "
            f"got shape {array.shape}"
        )
    return (array, True) if array.ndim == rank + 2 else (array[np.newaxis], False)


def same_dtype(function: str, **arrays: Array | None) -> np.dtype[Any]:
    """The one dtype of all `arrays`; otherwise TypeError naming the odd one."""
    first: tuple[str, np.dtype[Any]] | None = None
    for name, array in arrays.items():
        if array is None:
            continue
        dtype = array.dtype.newbyteorder("=")
        if first is None:
            first = name, dtype
        elif dtype != first[1]:
            raise TypeError(
                f"{function}: {name} is {dtype}, {first[0]} is {first[1]}; convert one with .astype"
            )
    assert first is not None
    return first[1]


def expect_shape(function: str, name: str, array: Array, shape: Sequence[int]) -> None:
    """Raise ValueError unless `array.shape == shape`."""
    if array.shape != tuple(shape):
        raise ValueError(f"{function}: {name} must have shape {tuple(shape)}, got {array.shape}")


def expect_word(function: str, name: str, value: str, words: Sequence[str]) -> None:
    """Raise ValueError unless `value` is one of `words`."""
    if value not in words:
        raise ValueError(f"{function}: {name} must be one of {list(words)}, got {value!r}")


def deliver(function: str, result: Array, out: Array | None) -> Array:
    """`result`, or `out` filled with it."""
    if out is None:
        return result
    expect_shape(function, "out", out, result.shape)
    if out.dtype != result.dtype:
        raise TypeError(f"{function}: out must be {result.dtype}, got {out.dtype}")
    out[...] = result
    return out
