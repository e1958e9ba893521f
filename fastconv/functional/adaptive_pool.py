"""Adaptive pooling: window i of an axis spans floor(i * in / out) .. ceil((i + 1) * in / out)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastconv import _core
from fastconv._messages import shown
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
    check_positions,
    grad_of,
    index_add,
    input_shape_of,
    output_for,
)

OptionalSize = int | None | Sequence[int | None]


def adaptive_avg_pool2d(
    input: Array, output_size: OptionalSize, *, out: Array | None = None
) -> Array:
    """Mean over windows that cut each axis into `output_size` parts.

    Parameters
    ----------
    input : ndarray
        `(N, C, H, W)` or `(C, H, W)`, float32 or float64.
    output_size : int or (int, int)
        Sizes of the output; None keeps the input's; 1 is the mean of the plane.
    out : ndarray, optional
        Array of the result's shape and dtype to write; must not share memory with `input`.

    Returns
    -------
    ndarray
        `(N, C, oH, oW)` or `(C, oH, oW)`.

    Raises
    ------
    ValueError
        Sizes less than 1.
    TypeError
        An input that is not float32 or float64, sizes that are not integers.
    """
    return _average("adaptive_avg_pool2d", input, output_size, 2, out)


def adaptive_avg_pool1d(
    input: Array, output_size: OptionalSize, *, out: Array | None = None
) -> Array:
    """Mean over windows that cut a signal into `output_size` parts.

    Parameters
    ----------
    input : ndarray
        `(N, C, L)` or `(C, L)`, float32 or float64.
    output_size, out
        As in `adaptive_avg_pool2d`.

    Returns
    -------
    ndarray
        `(N, C, output_size)` or `(C, output_size)`.

    Raises
    ------
    ValueError, TypeError
        As in `adaptive_avg_pool2d`.
    """
    return _average("adaptive_avg_pool1d", input, output_size, 1, out)


def adaptive_avg_pool2d_backward(grad_output: Array, input_shape: Sequence[int]) -> Array:
    """Gradient of `adaptive_avg_pool2d`.

    Parameters
    ----------
    grad_output : ndarray
        `(N, C, oH, oW)` or `(C, oH, oW)`, float32 or float64.
    input_shape : tuple of int
        `(N, C, H, W)` or `(C, H, W)`.

    Returns
    -------
    ndarray
        `grad_input` of shape `input_shape`.

    Raises
    ------
    ValueError
        Shapes that do not fit.
    """
    return _average_backward("adaptive_avg_pool2d_backward", grad_output, input_shape, 2)


def adaptive_avg_pool1d_backward(grad_output: Array, input_shape: Sequence[int]) -> Array:
    """Gradient of `adaptive_avg_pool1d`.

    Parameters
    ----------
    grad_output : ndarray
        `(N, C, oL)` or `(C, oL)`, float32 or float64.
    input_shape : tuple of int
        `(N, C, L)` or `(C, L)`.

    Returns
    -------
    ndarray
        `grad_input` of shape `input_shape`.

    Raises
    ------
    ValueError
        Shapes that do not fit.
    """
    return _average_backward("adaptive_avg_pool1d_backward", grad_output, input_shape, 1)


def adaptive_max_pool2d(
    input: Array,
    output_size: OptionalSize,
    return_indices: bool = False,
    *,
    out: Array | None = None,
) -> Any:
    """Maximum over windows that cut each axis into `output_size` parts.

    Ties and NaN as in `max_pool2d`.

    Parameters
    ----------
    input, output_size, out
        As in `adaptive_avg_pool2d`.
    return_indices : bool
        Also return where the maxima were.

    Returns
    -------
    output : ndarray
        `(N, C, oH, oW)` or `(C, oH, oW)`.
    indices : ndarray, int64
        Of the same shape, positions `h * W + w`; only with `return_indices`.

    Raises
    ------
    ValueError, TypeError
        As in `adaptive_avg_pool2d`.
    """
    return _maximum("adaptive_max_pool2d", input, output_size, 2, return_indices, out)


def adaptive_max_pool1d(
    input: Array,
    output_size: OptionalSize,
    return_indices: bool = False,
    *,
    out: Array | None = None,
) -> Any:
    """Maximum over windows that cut a signal into `output_size` parts.

    Ties and NaN as in `max_pool1d`.

    Parameters
    ----------
    input, output_size, out
        As in `adaptive_avg_pool1d`.
    return_indices : bool
        Also return where the maxima were.

    Returns
    -------
    output : ndarray
        `(N, C, output_size)` or `(C, output_size)`.
    indices : ndarray, int64
        Of the same shape, positions in L; only with `return_indices`.

    Raises
    ------
    ValueError, TypeError
        As in `adaptive_avg_pool2d`.
    """
    return _maximum("adaptive_max_pool1d", input, output_size, 1, return_indices, out)


def adaptive_max_pool2d_backward(
    grad_output: Array, indices: Array, input_shape: Sequence[int]
) -> Array:
    """Gradient of `adaptive_max_pool2d`: the winner of each window takes its gradient.

    Parameters
    ----------
    grad_output : ndarray
        `(N, C, oH, oW)` or `(C, oH, oW)`, float32 or float64.
    indices : ndarray, int64
        Of the same shape, from `adaptive_max_pool2d(..., return_indices=True)`.
    input_shape : tuple of int
        `(N, C, H, W)` or `(C, H, W)`.

    Returns
    -------
    ndarray
        `grad_input` of shape `input_shape`.

    Raises
    ------
    ValueError, TypeError
        As in `max_pool2d_backward`.
    """
    return index_add("adaptive_max_pool2d_backward", grad_output, indices, input_shape, 2)


def adaptive_max_pool1d_backward(
    grad_output: Array, indices: Array, input_shape: Sequence[int]
) -> Array:
    """Gradient of `adaptive_max_pool1d`: the winner of each window takes its gradient.

    Parameters
    ----------
    grad_output : ndarray
        `(N, C, oL)` or `(C, oL)`, float32 or float64.
    indices : ndarray, int64
        Of the same shape, from `adaptive_max_pool1d(..., return_indices=True)`.
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
    return index_add("adaptive_max_pool1d_backward", grad_output, indices, input_shape, 1)


def _output_sizes(function: str, sizes: tuple[int, ...], wanted: Any) -> tuple[int, ...]:
    if min(sizes) < 1:
        raise ValueError(f"{function}: every spatial size must be at least 1, got {sizes}")
    each = tuple(wanted) if isinstance(wanted, (tuple, list)) else (wanted,) * len(sizes)
    if len(each) != len(sizes):
        raise ValueError(
            f"{function}: output_size must be an int or {len(sizes)} ints, got {shown(wanted)}"
        )
    return tuple(
        size if n is None else integer(function, "output_size", n, 1)
        for size, n in zip(sizes, each, strict=True)
    )


def _average(
    function: str, input: Array, output_size: OptionalSize, axes: int, out: Array | None
) -> Array:
    x, is_batch = batched(function, "input", float_array(function, "input", input), axes)
    sizes = _output_sizes(function, x.shape[2:], output_size)
    y = output_for(function, x, is_batch, sizes, out, input)
    _core.avg_pool2d(x, y, (), False, 0)
    return out if out is not None else y if is_batch else y[0]


def _average_backward(
    function: str, grad_output: Array, input_shape: Sequence[int], axes: int
) -> Array:
    g = float_array(function, "grad_output", grad_output)
    shape = input_shape_of(function, input_shape, g, axes)
    g, is_batch = grad_of(function, g, shape, g.shape[-axes:])
    if min(g.shape[2:]) < 1:
        raise ValueError(f"{function}: grad_output has no window, got shape {grad_output.shape}")
    grad_input = empty(function, shape, g.dtype, is_channels_last(g))
    _core.avg_pool2d_grad(g, grad_input, (), False, 0)
    return grad_input if is_batch else grad_input[0]


def _maximum(
    function: str,
    input: Array,
    output_size: OptionalSize,
    axes: int,
    return_indices: bool,
    out: Array | None,
) -> Any:
    x, is_batch = batched(function, "input", float_array(function, "input", input), axes)
    sizes = _output_sizes(function, x.shape[2:], output_size)
    indices = None
    if flag(function, "return_indices", return_indices):
        largest = tuple(n // m + 2 for n, m in zip(x.shape[2:], sizes, strict=True))
        check_positions(function, x.shape[2:], largest)
        shape = (*x.shape[:2], *sizes)
        indices = empty(function, shape, np.dtype(np.int64), is_channels_last(x))
    y = output_for(function, x, is_batch, sizes, out, input)
    _core.max_pool2d(x, y, indices, None, False, ())
    result = out if out is not None else y if is_batch else y[0]
    if indices is None:
        return result
    return result, indices if is_batch else indices[0]
