"""Max unpooling: each value back to the position max pooling took it from, zeros elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from fastconv import _core
from fastconv._messages import shown, typed
from fastconv.functional._checks import (
    Array,
    batched,
    check_out,
    empty,
    explicit_padding,
    float_array,
    is_channels_last,
    no_overlap,
    per_axis,
)
from fastconv.functional._windows import Padding, Size, index_array, outside


def max_unpool2d(
    input: Array,
    indices: Array,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    output_size: Sequence[int] | None = None,
    *,
    out: Array | None = None,
) -> Array:
    """Undo `max_pool2d`.

    Parameters
    ----------
    input : ndarray
        `(N, C, H, W)` or `(C, H, W)`, float32 or float64.
    indices : ndarray, int64
        Of the same shape, positions in the plane of the result; of equal ones the last in row-major
        order wins.
    kernel_size, stride, padding
        As given to `max_pool2d`; padding as numbers or "valid".
    output_size : sequence of int, optional
        Spatial sizes of the result (of a longer sequence the last count), each within one stride of
        the default `(in - 1) * stride - before - after + kernel`.
    out : ndarray, optional
        Array of the result's shape and dtype to write; must not share memory with the inputs.

    Returns
    -------
    ndarray
        `(N, C, oH, oW)` or `(C, oH, oW)`.

    Raises
    ------
    ValueError
        Shapes that do not fit, an index outside `0 .. oH * oW - 1`.
    TypeError
        Indices that are not int64.
    """
    arguments = kernel_size, stride, padding, output_size
    return _unpool("max_unpool2d", input, indices, 2, arguments, out)


def max_unpool1d(
    input: Array,
    indices: Array,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    output_size: Sequence[int] | None = None,
    *,
    out: Array | None = None,
) -> Array:
    """Undo `max_pool1d`.

    Parameters
    ----------
    input : ndarray
        `(N, C, L)` or `(C, L)`, float32 or float64.
    indices : ndarray, int64
        Of the same shape, positions in the result.
    kernel_size, stride, padding, output_size, out
        As in `max_unpool2d`.

    Returns
    -------
    ndarray
        `(N, C, oL)` or `(C, oL)`.

    Raises
    ------
    ValueError, TypeError
        As in `max_unpool2d`.
    """
    arguments = kernel_size, stride, padding, output_size
    return _unpool("max_unpool1d", input, indices, 1, arguments, out)


def max_unpool2d_backward(grad_output: Array, indices: Array) -> Array:
    """Gradient of `max_unpool2d`: each value takes the gradient of the position it was put at.

    Parameters
    ----------
    grad_output : ndarray
        `(N, C, oH, oW)` or `(C, oH, oW)`, float32 or float64.
    indices : ndarray, int64
        `(N, C, H, W)` or `(C, H, W)`, as given to `max_unpool2d`.

    Returns
    -------
    ndarray
        `grad_input` of the shape of `indices`.

    Raises
    ------
    ValueError
        Shapes that do not fit, an index outside `0 .. oH * oW - 1`.
    TypeError
        Indices that are not int64.
    """
    return _unpool_backward("max_unpool2d_backward", grad_output, indices, 2)


def max_unpool1d_backward(grad_output: Array, indices: Array) -> Array:
    """Gradient of `max_unpool1d`: each value takes the gradient of the position it was put at.

    Parameters
    ----------
    grad_output : ndarray
        `(N, C, oL)` or `(C, oL)`, float32 or float64.
    indices : ndarray, int64
        `(N, C, L)` or `(C, L)`, as given to `max_unpool1d`.

    Returns
    -------
    ndarray
        `grad_input` of the shape of `indices`.

    Raises
    ------
    ValueError, TypeError
        As in `max_unpool2d_backward`.
    """
    return _unpool_backward("max_unpool1d_backward", grad_output, indices, 1)


def _output_sizes(
    function: str,
    sizes: tuple[int, ...],
    kernel_size: Size,
    stride: Size | None,
    padding: Padding,
    output_size: Sequence[int] | None,
) -> tuple[int, ...]:
    axes = len(sizes)
    kernel = per_axis(function, "kernel_size", kernel_size, axes)
    steps = kernel if stride is None else per_axis(function, "stride", stride, axes)
    if isinstance(padding, str):
        if padding != "valid":
            raise ValueError(
                f"{function}: padding must be numbers or 'valid', got {shown(padding)}"
            )
        padding = 0
    pads = explicit_padding(function, padding, axes)
    usual = [
        (n - 1) * s - sum(pad) + k for n, s, pad, k in zip(sizes, steps, pads, kernel, strict=True)
    ]
    if output_size is None:
        if min(usual) < 1:
            raise ValueError(f"{function}: the result would have spatial sizes {tuple(usual)}")
        return tuple(usual)
    if not isinstance(output_size, (tuple, list)):
        raise TypeError(
            f"{function}: output_size must be a tuple of ints, got {typed(output_size)}"
        )
    wanted = per_axis(function, "output_size", tuple(output_size)[-axes:], axes)
    for size, default, step in zip(wanted, usual, steps, strict=True):
        if not default - step < size < default + step:
            raise ValueError(
                f"{function}: output_size must lie between {default - step} and {default + step}, "
                f"exclusive, got {size}"
            )
    return wanted


def _unpool(
    function: str,
    input: Array,
    indices: Array,
    axes: int,
    arguments: tuple[Any, ...],
    out: Array | None,
) -> Array:
    x = float_array(function, "input", input)
    where = index_array(function, indices, x.shape)
    x, is_batch = batched(function, "input", x, axes)
    where = where if is_batch else where[None]
    sizes = _output_sizes(function, x.shape[2:], *arguments)
    shape = (*x.shape[:2], *sizes)
    if out is not None:
        out = check_out(function, out, shape if is_batch else shape[1:], x.dtype)
        no_overlap(function, out, input=input, indices=indices)
    plane = empty(function, shape, x.dtype, is_channels_last(x))
    if not _core.index_set(x, where, plane):
        raise outside(function, where, prod(sizes))
    result = plane if is_batch else plane[0]
    if out is None:
        return result
    out[...] = result
    return out


def _unpool_backward(function: str, grad_output: Array, indices: Array, axes: int) -> Array:
    g = float_array(function, "grad_output", grad_output)
    g, is_batch = batched(function, "grad_output", g, axes)
    planes = g.shape[:2] if is_batch else g.shape[1:2]
    spatial = indices.shape[-axes:] if isinstance(indices, np.ndarray) else ()
    where = index_array(function, indices, (*planes, *spatial))
    where = where if is_batch else where[None]
    last = is_channels_last(g)
    if g.ndim == 4 and g.strides[2] != g.shape[3] * g.strides[3]:
        copy = empty(function, g.shape, g.dtype, last)
        copy[...] = g
        g = copy
    grad_input = empty(function, where.shape, g.dtype, last)
    if not _core.index_get(g, where, grad_input):
        raise outside(function, where, int(np.prod(g.shape[2:])))
    return grad_input if is_batch else grad_input[0]
