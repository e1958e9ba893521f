"""Average pooling over windows, forward and backward.

The divisor of an average is the area of the window inside the padded input, or the number of input
elements in it, or `divisor_override`. Results lie in memory as the input does (channels first or
last), gradients as `grad_output`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastconv import _core
from fastconv.functional._checks import (
    Array,
    batched,
    empty,
    flag,
    float_array,
    integer,
    is_channels_last,
)
from fastconv.functional._windows import (
    Padding,
    Size,
    grad_of,
    input_shape_of,
    output_for,
    windows,
)


def avg_pool2d(
    input: Array,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    *,
    out: Array | None = None,
) -> Array:
    """Mean of each window.

    Parameters
    ----------
    input : ndarray
        `(N, C, H, W)` or `(C, H, W)`, float32 or float64.
    kernel_size, stride, padding, ceil_mode
        As in `max_pool2d`.
    count_include_pad : bool
        Divide by the area of the window inside the padded input, per axis
        `min(start + kernel, size + after) - start` (torch); otherwise by the number of input
        elements in the window.
    divisor_override : int, optional
        Divide by this instead; at least 1.
    out : ndarray, optional
        Array of the result's shape and dtype to write; must not share memory with `input`.

    Returns
    -------
    ndarray
        `(N, C, oH, oW)` or `(C, oH, oW)`.

    Raises
    ------
    ValueError
        Windows that do not fit.
    TypeError
        An input that is not float32 or float64, arguments that are not integers.
    """
    arguments = kernel_size, stride, padding, 1, ceil_mode
    return _avg_pool("avg_pool2d", input, 2, arguments, (count_include_pad, divisor_override), out)


def avg_pool1d(
    input: Array,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    *,
    out: Array | None = None,
) -> Array:
    """Mean of each window of a signal: `avg_pool2d` with one spatial axis.

    Parameters
    ----------
    input : ndarray
        `(N, C, L)` or `(C, L)`, float32 or float64.
    kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override, out
        As in `avg_pool2d`.

    Returns
    -------
    ndarray
        `(N, C, oL)` or `(C, oL)`.

    Raises
    ------
    ValueError, TypeError
        As in `avg_pool2d`.
    """
    arguments = kernel_size, stride, padding, 1, ceil_mode
    return _avg_pool("avg_pool1d", input, 1, arguments, (count_include_pad, divisor_override), out)


def avg_pool2d_backward(
    grad_output: Array,
    input_shape: Sequence[int],
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Array:
    """Gradient of `avg_pool2d`: each element of a window takes gradient / divisor.

    Parameters
    ----------
    grad_output : ndarray
        `(N, C, oH, oW)` or `(C, oH, oW)`, float32 or float64.
    input_shape : tuple of int
        `(N, C, H, W)` or `(C, H, W)`.
    kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
        As given to `avg_pool2d`.

    Returns
    -------
    ndarray
        `grad_input` of shape `input_shape`.

    Raises
    ------
    ValueError
        Shapes that do not fit.
    """
    arguments = kernel_size, stride, padding, 1, ceil_mode
    options = count_include_pad, divisor_override
    return _avg_pool_backward(
        "avg_pool2d_backward", grad_output, input_shape, 2, arguments, options
    )


def avg_pool1d_backward(
    grad_output: Array,
    input_shape: Sequence[int],
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Array:
    """Gradient of `avg_pool1d`: each element of a window takes gradient / divisor.

    Parameters
    ----------
    grad_output : ndarray
        `(N, C, oL)` or `(C, oL)`, float32 or float64.
    input_shape : tuple of int
        `(N, C, L)` or `(C, L)`.
    kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
        As given to `avg_pool1d`.

    Returns
    -------
    ndarray
        `grad_input` of shape `input_shape`.

    Raises
    ------
    ValueError
        Shapes that do not fit.
    """
    arguments = kernel_size, stride, padding, 1, ceil_mode
    options = count_include_pad, divisor_override
    return _avg_pool_backward(
        "avg_pool1d_backward", grad_output, input_shape, 1, arguments, options
    )


def _divisor(function: str, count_include_pad: Any, divisor_override: Any) -> tuple[bool, int]:
    include = flag(function, "count_include_pad", count_include_pad)
    if divisor_override is None:
        return include, 0
    divisor = integer(function, "divisor_override", divisor_override, 1, 2**62)
    return include, divisor


def _avg_pool(
    function: str,
    input: Array,
    axes: int,
    arguments: tuple[Any, ...],
    options: tuple[Any, Any],
    out: Array | None,
) -> Array:
    x, is_batch = batched(function, "input", float_array(function, "input", input), axes)
    sizes, geometry = windows(function, x.shape[2:], *arguments)
    divisor = _divisor(function, *options)
    y = output_for(function, x, is_batch, sizes, out, input)
    _core.avg_pool2d(x, y, geometry, *divisor)
    return out if out is not None else y if is_batch else y[0]


def _avg_pool_backward(
    function: str,
    grad_output: Array,
    input_shape: Sequence[int],
    axes: int,
    arguments: tuple[Any, ...],
    options: tuple[Any, Any],
) -> Array:
    g = float_array(function, "grad_output", grad_output)
    shape = input_shape_of(function, input_shape, g, axes)
    sizes, geometry = windows(function, shape[2:], *arguments)
    g, is_batch = grad_of(function, g, shape, sizes)
    divisor = _divisor(function, *options)
    grad_input = empty(function, shape, g.dtype, is_channels_last(g))
    _core.avg_pool2d_grad(g, grad_input, geometry, *divisor)
    return grad_input if is_batch else grad_input[0]
