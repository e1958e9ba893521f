"""Max unpooling: put each value back at the position from which max pooling took it, zeros
elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fastconv.reference._shapes import Array, Padding, Size, deliver, integer, paddings, per_axis
from fastconv.reference.pool import WORDS, _check_indices


def _output_sizes(
    function: str,
    sizes: Sequence[int],
    kernel_size: Size,
    stride: Size | None,
    padding: Padding,
    output_size: Sequence[int] | None,
) -> tuple[int, ...]:
    """The sizes before pooling: (in - 1)*stride - before - after + kernel, or `output_size` if
    within one stride.
    """
    rank = len(sizes)
    kernel = per_axis(function, "kernel_size", kernel_size, rank, 1)
    steps = kernel if stride is None else per_axis(function, "stride", stride, rank, 1)
    pads = paddings(function, padding, WORDS[:1], sizes, kernel, steps, (1,) * rank)
    usual = [
        (n - 1) * s - sum(pad) + k for n, s, pad, k in zip(sizes, steps, pads, kernel, strict=True)
    ]
    wanted = tuple(usual if output_size is None else output_size)[-rank:]
    if len(wanted) != rank:
        raise ValueError(f"{function}: output_size needs {rank} entries, got {output_size!r}")
    wanted = tuple(integer(function, "output_size", n, 1) for n in wanted)
    for n, default, s in zip(wanted, usual, steps, strict=True):
        if output_size is not None and not default - s < n < default + s:
            raise ValueError(
                f"{function}: output_size {n} must lie in {default - s + 1}..{default + s - 1}"
            )
    return wanted


def _unpool(function: str, input: Array, indices: Array, sizes: Sequence[int]) -> Array:
    rank = len(sizes)
    if input.ndim not in (rank + 1, rank + 2):
        raise ValueError(
            f"{function}: input must have {rank + 1} or {rank + 2} axes, got shape {input.shape}"
        )
    plane = int(np.prod(sizes))
    _check_indices(function, indices, input.shape, plane)
    planes = int(np.prod(input.shape[:-rank]))
    output = np.zeros((planes, plane), input.dtype.newbyteorder("="))
    count = int(np.prod(input.shape[-rank:]))
    values, where = input.reshape(planes, count), indices.reshape(planes, count)
    for k in range(planes):
        for j in range(values.shape[1]):
            output[k, where[k, j]] = values[k, j]
    return output.reshape(*input.shape[:-rank], *sizes)


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
    """Undo `max_pool2d`: input and indices (N, C, H, W) or (C, H, W); of equals the last wins."""
    sizes = _output_sizes(
        "max_unpool2d", input.shape[-2:], kernel_size, stride, padding, output_size
    )
    return deliver("max_unpool2d", _unpool("max_unpool2d", input, indices, sizes), out)


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
    """Undo `max_pool1d`: input and indices (N, C, L) or (C, L); of equals the last wins."""
    sizes = _output_sizes(
        "max_unpool1d", input.shape[-1:], kernel_size, stride, padding, output_size
    )
    return deliver("max_unpool1d", _unpool("max_unpool1d", input, indices, sizes), out)


def _gather(function: str, grad_output: Array, indices: Array, rank: int) -> Array:
    plane = int(np.prod(grad_output.shape[-rank:]))
    _check_indices(function, indices, (*grad_output.shape[:-rank], *indices.shape[-rank:]), plane)
    planes = int(np.prod(grad_output.shape[:-rank]))
    count = int(np.prod(indices.shape[-rank:]))
    g, where = grad_output.reshape(planes, plane), indices.reshape(planes, count)
    grad_input = np.empty(where.shape, grad_output.dtype.newbyteorder("="))
    for k in range(planes):
        for j in range(where.shape[1]):
            grad_input[k, j] = g[k, where[k, j]]
    return grad_input.reshape(indices.shape)


def max_unpool2d_backward(grad_output: Array, indices: Array) -> Array:
    """Gradient of `max_unpool2d`: each value takes the gradient of the position it was put at."""
    return _gather("max_unpool2d_backward", grad_output, indices, 2)


def max_unpool1d_backward(grad_output: Array, indices: Array) -> Array:
    """Gradient of `max_unpool1d`: each value takes the gradient of the position it was put at."""
    return _gather("max_unpool1d_backward", grad_output, indices, 1)
