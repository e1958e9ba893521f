"""Max pooling over windows, forward and backward.

The first maximum of a window in row-major order wins; a NaN beats every number, and the last NaN of
a window the others; padding never wins. Results lie in memory as the input does (channels first or
last), gradients as `grad_output`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastconv import _core
from fastconv.functional._checks import Array, batched, empty, flag, float_array, is_channels_last
from fastconv.functional._memory import new_array
from fastconv.functional._windows import (
    Axes,
    Padding,
    Size,
    check_positions,
    grad_of,
    index_add,
    input_shape_of,
    output_for,
    windows,
)


def max_pool2d(
    input: Array,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
    *,
    out: Array | None = None,
) -> Any:
    """Maximum of each window.

    Parameters
    ----------
    input : ndarray
        `(N, C, H, W)` or `(C, H, W)`, float32 or float64.
    kernel_size : int or (int, int)
        Height and width of the window.
    stride : int or (int, int), optional
        Distance of two windows; default `kernel_size`.
    padding : int, (int, int), ((top, bottom), (left, right)) or str
        Padding around the input, at most half of the window's extent on each side, or "valid",
        "same" (output = ceil(input / stride), the odd row at the end) or "same_lower".
    dilation : int or (int, int)
        Distance of two elements of a window.
    ceil_mode : bool
        Add a last, partial window, unless it would start in the right or bottom padding.
    return_indices : bool
        Also return where the maxima were.
    out : ndarray, optional
        Array of the result's shape and dtype to write; must not share memory with `input`.

    Returns
    -------
    output : ndarray
        `(N, C, oH, oW)` or `(C, oH, oW)`.
    indices : ndarray, int64
        Of the same shape, positions `h * W + w`; only with `return_indices`.

    Raises
    ------
    ValueError
        Windows that do not fit, or that hold no input element.
    TypeError
        An input that is not float32 or float64, arguments that are not integers.
    """
    arguments = kernel_size, stride, padding, dilation, ceil_mode
    return _max_pool("max_pool2d", input, 2, arguments, return_indices, out)


def max_pool1d(
    input: Array,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
    *,
    out: Array | None = None,
) -> Any:
    """Maximum of each window of a signal: `max_pool2d` with one spatial axis.

    Parameters
    ----------
    input : ndarray
        `(N, C, L)` or `(C, L)`, float32 or float64.
    kernel_size, stride, padding, dilation, ceil_mode, return_indices, out
        As in `max_pool2d`; `padding` may be `((left, right),)`.

    Returns
    -------
    output : ndarray
        `(N, C, oL)` or `(C, oL)`.
    indices : ndarray, int64
        Of the same shape, positions in L; only with `return_indices`.

    Raises
    ------
    ValueError, TypeError
        As in `max_pool2d`.
    """
    arguments = kernel_size, stride, padding, dilation, ceil_mode
    return _max_pool("max_pool1d", input, 1, arguments, return_indices, out)


def max_pool2d_backward(grad_output: Array, indices: Array, input_shape: Sequence[int]) -> Array:
    """Gradient of `max_pool2d`: the winner of each window takes its gradient.

    Parameters
    ----------
    grad_output : ndarray
        `(N, C, oH, oW)` or `(C, oH, oW)`, float32 or float64.
    indices : ndarray, int64
        Of the same shape, from `max_pool2d(..., return_indices=True)`. Gradients of equal indices
        add up in row-major order.
    input_shape : tuple of int
        `(N, C, H, W)` or `(C, H, W)`.

    Returns
    -------
    ndarray
        `grad_input` of shape `input_shape`.

    Raises
    ------
    ValueError
        Shapes that do not fit, an index outside `0 .. H * W - 1`.
    TypeError
        Indices that are not int64.
    """
    return index_add("max_pool2d_backward", grad_output, indices, input_shape, 2)


def max_pool1d_backward(grad_output: Array, indices: Array, input_shape: Sequence[int]) -> Array:
    """Gradient of `max_pool1d`: the winner of each window takes its gradient.

    Parameters
    ----------
    grad_output : ndarray
        `(N, C, oL)` or `(C, oL)`, float32 or float64.
    indices : ndarray, int64
        Of the same shape, from `max_pool1d(..., return_indices=True)`.
    input_shape : tuple of int
        `(N, C, L)` or `(C, L)`.

    Returns
    -------
    ndarray
        `grad_input` of shape `input_shape`.

    Raises
    ------
    ValueError, TypeError
        As in `max_pool2d_backward`.
    """
    return index_add("max_pool1d_backward", grad_output, indices, input_shape, 1)


def _max_pool(
    function: str,
    input: Array,
    axes: int,
    arguments: tuple[Any, ...],
    return_indices: bool,
    out: Array | None,
) -> Any:
    x, is_batch = batched(function, "input", float_array(function, "input", input), axes)
    sizes, geometry = windows(function, x.shape[2:], *arguments)
    indices = None
    if flag(function, "return_indices", return_indices):
        check_positions(function, x.shape[2:], geometry[0::5][-axes:])
        shape = (*x.shape[:2], *sizes)
        indices = empty(function, shape, np.dtype(np.int64), is_channels_last(x))
    y = output_for(function, x, is_batch, sizes, out, input)
    _core.max_pool2d(x, y, indices, None, False, geometry)
    result = out if out is not None else y if is_batch else y[0]
    if indices is None:
        return result
    return result, indices if is_batch else indices[0]


# ---- for layers: the winner as one byte per output ---------------------------------------------


def _max_pool2d_argmax(
    input: Array,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
) -> tuple[Array, Array]:
    """`max_pool2d`, and what `_max_pool2d_argmax_backward` needs.

    The second array is uint8 (the number of the winner within its window, 1/8 of the bytes of
    indices) for windows of up to 255 elements, otherwise int64 indices. input: (N, C, H, W).
    """
    return _argmax("max_pool2d", input, 2, (kernel_size, stride, padding, dilation, ceil_mode))


def _max_pool1d_argmax(
    input: Array,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
) -> tuple[Array, Array]:
    """`_max_pool2d_argmax` for input (N, C, L)."""
    return _argmax("max_pool1d", input, 1, (kernel_size, stride, padding, dilation, ceil_mode))


def _max_pool2d_argmax_backward(
    grad_output: Array,
    argmax: Array,
    input_shape: Sequence[int],
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
) -> Array:
    """Gradient of `_max_pool2d_argmax`; the arguments as given to it."""
    arguments = kernel_size, stride, padding, dilation, ceil_mode
    return _argmax_backward("max_pool2d_backward", grad_output, argmax, input_shape, 2, arguments)


def _max_pool1d_argmax_backward(
    grad_output: Array,
    argmax: Array,
    input_shape: Sequence[int],
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
) -> Array:
    """Gradient of `_max_pool1d_argmax`; the arguments as given to it."""
    arguments = kernel_size, stride, padding, dilation, ceil_mode
    return _argmax_backward("max_pool1d_backward", grad_output, argmax, input_shape, 1, arguments)


def _tap_count(geometry: Axes) -> int:
    return geometry[0] * geometry[5]


def _tap_shape(x: Array, sizes: tuple[int, ...]) -> tuple[tuple[int, ...], bool]:
    """Shape of the uint8 record, and whether its lanes are planes (n, c) rather than channels.

    Kernels take a cache line of lanes at a time. Channels-first arrays whose channels do not fill
    whole lines count all planes as lanes.
    """
    n, c = x.shape[:2]
    lanes = 64 // x.itemsize
    planes_follow = n == 1 or c == 1 or x.strides[0] == c * x.strides[1]
    if is_channels_last(x) or c % lanes == 0 or n * c == 1 or not planes_follow:
        return (n, *sizes, c), False
    return (-(-n * c // lanes), *sizes, lanes), True


def _argmax(
    function: str, input: Array, axes: int, arguments: tuple[Any, ...]
) -> tuple[Array, Array]:
    x = float_array(function, "input", input)
    if x.ndim != axes + 2:
        raise ValueError(f"{function}: input must have {axes + 2} axes, got shape {x.shape}")
    sizes, geometry = windows(function, x.shape[2:], *arguments)
    if _tap_count(geometry) > 255:
        result: tuple[Array, Array] = _max_pool(function, x, axes, arguments, True, None)
        return result
    y = output_for(function, x, True, sizes, None, x)
    shape, by_planes = _tap_shape(x, sizes)
    taps = new_array(shape, np.dtype(np.uint8))
    _core.max_pool2d(x, y, None, taps, by_planes, geometry)
    return y, taps


def _argmax_backward(
    function: str,
    grad_output: Array,
    argmax: Array,
    input_shape: Sequence[int],
    axes: int,
    arguments: tuple[Any, ...],
) -> Array:
    if argmax.dtype == np.int64:
        return index_add(function, grad_output, argmax, input_shape, axes)
    g = float_array(function, "grad_output", grad_output)
    shape = input_shape_of(function, input_shape, g, axes)
    sizes, geometry = windows(function, shape[2:], *arguments)
    g, _ = grad_of(function, g, shape, sizes)
    n, c = shape[:2]
    lanes = 64 // g.itemsize
    by_planes = c % lanes != 0 and argmax.shape[-1] == lanes
    wanted = (-(-n * c // lanes), *sizes, lanes) if by_planes else (n, *sizes, c)
    if argmax.dtype != np.uint8 or argmax.shape != wanted or not argmax.flags.c_contiguous:
        raise ValueError(
            f"{function}: argmax must be C-contiguous uint8 of shape {wanted}, "
            f"got {argmax.dtype} {argmax.shape}"
        )
    if by_planes:
        g = np.ascontiguousarray(g)
    grad_input = empty(function, shape, g.dtype, not by_planes and is_channels_last(g))
    _core.max_pool2d_tap_grad(g, argmax, by_planes, grad_input, geometry)
    return grad_input
