"""Adaptive pooling: window i of an axis is floor(i * in / out) .. ceil((i + 1) * in / out)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastconv.reference._shapes import Array, OptionalSize, batched, deliver, expect_shape, integer
from fastconv.reference.pool import _hand_out, _max_pool, _scatter_add


def adaptive_windows(size: int, out_size: int) -> list[range]:
    """The positions of each of `out_size` windows that together cover `size`."""
    return [range(i * size // out_size, -(-(i + 1) * size // out_size)) for i in range(out_size)]


def _windows(function: str, sizes: Sequence[int], output_size: Any) -> list[list[range]]:
    """Windows of each spatial axis; an entry None of `output_size` keeps that axis as it is."""
    wanted = output_size if isinstance(output_size, (list, tuple)) else (output_size,) * len(sizes)
    if len(wanted) != len(sizes):
        raise ValueError(f"{function}: output_size needs {len(sizes)} entries, got {output_size!r}")
    if min(sizes) < 1:
        raise ValueError(f"{function}: every spatial size must be at least 1, got {list(sizes)}")
    return [
        adaptive_windows(size, size if n is None else integer(function, "output_size", n, 1))
        for size, n in zip(sizes, wanted, strict=True)
    ]


def _average(image: Array, rows: list[range], cols: list[range]) -> Array:
    output = np.empty((*image.shape[:2], len(rows), len(cols)), image.dtype.newbyteorder("="))
    for i, r in enumerate(rows):
        for j, c in enumerate(cols):
            total = image[:, :, r.start : r.stop, c.start : c.stop].sum(axis=(2, 3))
            output[:, :, i, j] = total / (len(r) * len(c))
    return output


def _average_backward(
    grad_output: Array, rows: list[range], cols: list[range], shape: Sequence[int]
) -> Array:
    grad_input = np.zeros(shape, grad_output.dtype.newbyteorder("="))
    for i, r in enumerate(rows):
        for j, c in enumerate(cols):
            share = grad_output[:, :, i, j] / (len(r) * len(c))
            grad_input[:, :, r.start : r.stop, c.start : c.stop] += share[
                :, :, np.newaxis, np.newaxis
            ]
    return grad_input


def adaptive_avg_pool2d(
    input: Array, output_size: OptionalSize, *, out: Array | None = None
) -> Array:
    """Mean over windows that cut each axis into `output_size` parts; 1 gives the global mean.

    input (N, C, H, W) or (C, H, W) -> (N, C, oH, oW) or (C, oH, oW).
    """
    x, is_batch = batched("adaptive_avg_pool2d", "input", input, 2)
    y = _average(x, *_windows("adaptive_avg_pool2d", x.shape[2:], output_size))
    return deliver("adaptive_avg_pool2d", y if is_batch else y[0], out)


def adaptive_avg_pool2d_backward(grad_output: Array, input_shape: Sequence[int]) -> Array:
    """Gradient of `adaptive_avg_pool2d`; the output size is read off `grad_output`."""
    name = "adaptive_avg_pool2d_backward"
    g, is_batch = batched(name, "grad_output", grad_output, 2)
    shape = tuple(input_shape) if is_batch else (1, *input_shape)
    expect_shape(name, "grad_output", g, (*shape[:2], *g.shape[2:]))
    rows, cols = _windows(name, shape[2:], g.shape[2:])
    gx = _average_backward(g, rows, cols, shape)
    return gx if is_batch else gx[0]


def adaptive_max_pool2d(
    input: Array,
    output_size: OptionalSize,
    return_indices: bool = False,
    *,
    out: Array | None = None,
) -> Any:
    """Maximum over windows that cut each axis into `output_size` parts.

    input (N, C, H, W) or (C, H, W) -> output, or (output, int64 indices into H*W).
    """
    x, is_batch = batched("adaptive_max_pool2d", "input", input, 2)
    values, indices = _max_pool(x, *_windows("adaptive_max_pool2d", x.shape[2:], output_size))
    return _hand_out(
        "adaptive_max_pool2d", values, indices, () if is_batch else 0, return_indices, out
    )


def adaptive_max_pool2d_backward(
    grad_output: Array, indices: Array, input_shape: Sequence[int]
) -> Array:
    """Gradient of `adaptive_max_pool2d`: the winner of each window takes its gradient."""
    return _scatter_add("adaptive_max_pool2d_backward", grad_output, indices, input_shape, 2)


def adaptive_avg_pool1d(
    input: Array, output_size: OptionalSize, *, out: Array | None = None
) -> Array:
    """Mean over windows that cut L into `output_size` parts: input (N, C, L) or (C, L)."""
    x, is_batch = batched("adaptive_avg_pool1d", "input", input, 1)
    (cols,) = _windows("adaptive_avg_pool1d", x.shape[2:], output_size)
    y = _average(x[:, :, np.newaxis], [range(1)], cols)[:, :, 0]
    return deliver("adaptive_avg_pool1d", y if is_batch else y[0], out)


def adaptive_avg_pool1d_backward(grad_output: Array, input_shape: Sequence[int]) -> Array:
    """Gradient of `adaptive_avg_pool1d`; the output size is read off `grad_output`."""
    name = "adaptive_avg_pool1d_backward"
    g, is_batch = batched(name, "grad_output", grad_output, 1)
    shape = tuple(input_shape) if is_batch else (1, *input_shape)
    expect_shape(name, "grad_output", g, (*shape[:2], *g.shape[2:]))
    (cols,) = _windows(name, shape[2:], g.shape[2:])
    image = (*shape[:2], 1, shape[2])
    gx = _average_backward(g[:, :, np.newaxis], [range(1)], cols, image)[:, :, 0]
    return gx if is_batch else gx[0]


def adaptive_max_pool1d(
    input: Array,
    output_size: OptionalSize,
    return_indices: bool = False,
    *,
    out: Array | None = None,
) -> Any:
    """Maximum over windows that cut L into `output_size` parts.

    input (N, C, L) or (C, L) -> output, or (output, int64 indices into L).
    """
    x, is_batch = batched("adaptive_max_pool1d", "input", input, 1)
    (cols,) = _windows("adaptive_max_pool1d", x.shape[2:], output_size)
    values, indices = _max_pool(x[:, :, np.newaxis], [range(1)], cols)
    keep = (slice(None) if is_batch else 0, slice(None), 0)
    return _hand_out("adaptive_max_pool1d", values, indices, keep, return_indices, out)


def adaptive_max_pool1d_backward(
    grad_output: Array, indices: Array, input_shape: Sequence[int]
) -> Array:
    """Gradient of `adaptive_max_pool1d`: the winner of each window takes its gradient."""
    return _scatter_add("adaptive_max_pool1d_backward", grad_output, indices, input_shape, 1)
