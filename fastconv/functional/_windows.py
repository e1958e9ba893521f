"""Windows of the pooling functions: their arguments, checked, as the kernels take them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from fastconv import _core
from fastconv._messages import shown
from fastconv.functional._arrays import not_a_shape
from fastconv.functional._checks import (
    AXES,
    LIMIT,
    Array,
    batched,
    check_out,
    conv_padding,
    empty,
    flag,
    float_array,
    is_channels_last,
    no_overlap,
    per_axis,
)

Size = int | Sequence[int]
Padding = int | str | Sequence[int] | Sequence[Sequence[int]]
Axes = tuple[int, ...]  # (kernel, stride, dilation, before, after) of height and of width

_WORDS = ("valid", "same", "same_lower")
_HEIGHT_OF_1D = (1, 1, 1, 0, 0)


def _windows_of_axis(
    function: str,
    axis: str,
    size: int,
    window: tuple[int, int, int, tuple[int, int]],
    ceil_mode: bool,
) -> int:
    """The number of windows on one axis, each of which holds at least one position."""
    kernel, stride, dilation, (before, after) = window
    extent = (kernel - 1) * dilation + 1
    if max(before, after) > extent // 2:
        raise ValueError(
            f"{function}: padding must be at most half of the window, got {(before, after)} on "
            f"axis {axis}, where the window spans {extent} "
            f"(kernel_size {kernel}, dilation {dilation})"
        )
    room = size + before + after - extent
    count = (-(-room // stride) if ceil_mode else room // stride) + 1
    if ceil_mode and (count - 1) * stride >= size + before:
        count -= 1
    if count < 1:
        raise ValueError(
            f"{function}: the window does not fit: axis {axis} has {size} elements + "
            f"padding {(before, after)}, the window spans {extent} "
            f"(kernel_size {kernel}, dilation {dilation})"
        )
    if size < dilation:  # taps further apart than the axis is long may miss it
        for start in range(-before, (count - 1) * stride - before + 1, stride):
            first = start + max(0, -(start // dilation)) * dilation
            if first >= size or first > start + extent - 1:
                raise ValueError(
                    f"{function}: the window at {start} of axis {axis} holds no input "
                    f"element ({size} elements, kernel_size {kernel}, dilation {dilation})"
                )
    return count


def windows(
    function: str,
    sizes: tuple[int, ...],
    kernel_size: Size,
    stride: Size | None,
    padding: Padding,
    dilation: Size,
    ceil_mode: bool,
) -> tuple[tuple[int, ...], Axes]:
    """Output sizes, and the windows as `_core` takes them."""
    arguments = kernel_size, stride, padding, dilation, ceil_mode
    try:
        return _remembered(function, sizes, arguments, _types(arguments))
    except TypeError:  # a list, or what is not right anyway
        return _windows(function, sizes, *arguments)


def _types(value: Any) -> Any:
    """The types in nested tuples: 1, True and 1.0 are equal, but not the same argument."""
    return tuple([_types(v) if type(v) is tuple else type(v) for v in value])


@lru_cache(maxsize=128)
def _remembered(
    function: str, sizes: tuple[int, ...], arguments: Any, types: Any
) -> tuple[tuple[int, ...], Axes]:
    """Layers ask the same again and again: 0.5 us instead of 4."""
    return _windows(function, sizes, *arguments)


def _windows(
    function: str,
    sizes: tuple[int, ...],
    kernel_size: Size,
    stride: Size | None,
    padding: Padding,
    dilation: Size,
    ceil_mode: bool,
) -> tuple[tuple[int, ...], Axes]:
    count = len(sizes)
    kernel = per_axis(function, "kernel_size", kernel_size, count)
    step = kernel if stride is None else per_axis(function, "stride", stride, count)
    spread = per_axis(function, "dilation", dilation, count)
    ceil_mode = flag(function, "ceil_mode", ceil_mode)
    if min(sizes) < 1:
        raise ValueError(f"{function}: every spatial size must be at least 1, got {sizes}")
    if isinstance(padding, str) and padding not in _WORDS:
        names = ", ".join(repr(word) for word in _WORDS)
        raise ValueError(
            f"{function}: padding must be an int, a tuple or one of {names}, got {shown(padding)}"
        )
    pads = conv_padding(function, padding, sizes, kernel, step, spread)
    each = list(zip(kernel, step, spread, pads, strict=True))
    out = tuple(
        _windows_of_axis(function, axis, size, window, ceil_mode)
        for axis, size, window in zip(AXES[count], sizes, each, strict=True)
    )
    axes = tuple(value for k, s, d, pair in each for value in (k, s, d, *pair))
    return out, axes if count == 2 else _HEIGHT_OF_1D + axes


def check_positions(function: str, sizes: tuple[int, ...], kernel: tuple[int, ...]) -> None:
    """A window is counted in 32 bits."""
    held = 1
    for size, k in zip(sizes, kernel, strict=True):
        held *= min(size, k)
    if held > LIMIT:
        raise ValueError(f"{function}: a window holds {held} elements, more than {LIMIT}")


def input_shape_of(function: str, value: Any, grad_output: Array, axes: int) -> tuple[int, ...]:
    """`input_shape` of a backward function as (N, C, ...); it has the rank of grad_output."""
    if not isinstance(value, (tuple, list)):
        raise not_a_shape(function, "input_shape", value)
    shape = per_axis(function, "input_shape", tuple(value), len(value), 0)
    if len(shape) not in (axes + 1, axes + 2) or len(shape) != grad_output.ndim:
        raise ValueError(
            f"{function}: input_shape must have as many axes as grad_output, {axes + 2} or "
            f"{axes + 1}, got {shown(shape)} and grad_output {grad_output.shape}"
        )
    if shape[:-axes] != grad_output.shape[:-axes]:
        raise ValueError(
            f"{function}: grad_output must have the batch and channels of input_shape {shape}, "
            f"got {grad_output.shape}"
        )
    if min(shape[-axes:]) < 1:
        raise ValueError(f"{function}: every spatial size must be at least 1, got {shape}")
    return shape if len(shape) == axes + 2 else (1, *shape)


def index_array(function: str, value: Any, shape: tuple[int, ...]) -> Array:
    """`indices`: int64 of the given shape; native and aligned, a copy only when it is not."""
    if not isinstance(value, np.ndarray):
        raise TypeError(
            f"{function}: indices must be a numpy.ndarray, got {type(value).__name__}; "
            f"use the indices that the forward function returned"
        )
    value = np.asarray(value)
    if value.dtype.newbyteorder("=") != np.int64:
        raise TypeError(
            f"{function}: indices must be int64, got {value.dtype}; use indices.astype(numpy.int64)"
        )
    if value.shape != shape:
        raise ValueError(f"{function}: indices must have shape {shape}, got {value.shape}")
    return np.require(value, dtype=np.int64, requirements="A")


def outside(function: str, indices: Array, plane: int) -> ValueError:
    """The error for indices that the kernel found outside 0 .. plane - 1."""
    return ValueError(
        f"{function}: indices must lie in 0..{plane - 1}, got {indices.min()}..{indices.max()}"
    )


def output_for(
    function: str,
    x: Array,
    is_batch: bool,
    sizes: tuple[int, ...],
    out: Array | None,
    source: Array,
) -> Array:
    """The batched output array (N, C, *sizes): new, in x's memory format, or a view of `out`."""
    shape = (*x.shape[:2], *sizes)
    if out is None:
        return empty(function, shape, x.dtype, is_channels_last(x))
    out = check_out(function, out, shape if is_batch else shape[1:], x.dtype)
    no_overlap(function, out, input=source)
    return out if is_batch else out[None]


def grad_of(
    function: str, g: Array, shape: tuple[int, ...], sizes: tuple[int, ...]
) -> tuple[Array, bool]:
    """grad_output with a batch axis; its spatial sizes must be `sizes`."""
    g, is_batch = batched(function, "grad_output", g, len(sizes))
    if g.shape[2:] != sizes:
        raise ValueError(
            f"{function}: grad_output must have spatial sizes {sizes} "
            f"(input_shape {shape if is_batch else shape[1:]}), got {g.shape[2:]}"
        )
    return g, is_batch


def index_add(
    function: str, grad_output: Array, indices: Array, input_shape: Sequence[int], axes: int
) -> Array:
    """Gradient of a maximum: each gradient to the position its index names."""
    g = float_array(function, "grad_output", grad_output)
    shape = input_shape_of(function, input_shape, g, axes)
    where = index_array(function, indices, g.shape)
    g, is_batch = batched(function, "grad_output", g, axes)
    where = where if is_batch else where[None]
    grad_input = empty(function, shape, g.dtype, is_channels_last(g))
    if not _core.index_add(g, where, grad_input):
        raise outside(function, where, int(np.prod(shape[2:])))
    return grad_input if is_batch else grad_input[0]
