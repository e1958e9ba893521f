"""im2col and col2im: the windows of an image as columns, and columns summed into an image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fastconv.reference._shapes import (
    Array,
    Padding,
    Size,
    batched,
    deliver,
    expect_shape,
    per_axis,
)
from fastconv.reference.conv import Windows, make_windows


def _windows(
    function: str,
    sizes: Sequence[int],
    kernel_size: Size,
    dilation: Size,
    padding: Padding,
    stride: Size,
) -> Windows:
    kernel = per_axis(function, "kernel_size", kernel_size, 2, 1)
    return make_windows(function, sizes, kernel, stride, padding, dilation)


def _unfold(image: Array, windows: Windows) -> Array:
    batch, channels = image.shape[:2]
    columns = np.zeros(
        (batch, channels, *windows.kernel, *windows.out_sizes), image.dtype.newbyteorder("=")
    )
    for i, j, (rows, cols), (u, v) in windows:
        columns[:, :, u, v, i, j] = image[:, :, rows, cols]
    return columns.reshape(batch, channels * np.prod(windows.kernel), np.prod(windows.out_sizes))


def _fold(columns: Array, windows: Windows) -> Array:
    taps = windows.kernel[0] * windows.kernel[1]
    batch, channels = columns.shape[0], columns.shape[1] // taps
    columns = columns.reshape(batch, channels, *windows.kernel, *windows.out_sizes)
    image = np.zeros((batch, channels, *windows.sizes), columns.dtype.newbyteorder("="))
    for i, j, (rows, cols), (u, v) in windows:
        image[:, :, rows, cols] += columns[:, :, u, v, i, j]
    return image


def _check_columns(function: str, name: str, columns: Array, windows: Windows) -> None:
    taps = windows.kernel[0] * windows.kernel[1]
    count = windows.out_sizes[0] * windows.out_sizes[1]
    if columns.shape[1] % taps or columns.shape[2] != count:
        raise ValueError(
            f"{function}: {name} must be (batch, channels * {taps}, {count}) for these windows, "
            f"got {columns.shape}"
        )


def unfold(
    input: Array,
    kernel_size: Size,
    dilation: Size = 1,
    padding: Padding = 0,
    stride: Size = 1,
    *,
    out: Array | None = None,
) -> Array:
    """Windows as columns: (N, C, H, W) -> (N, C*kH*kW, windows); also without N."""
    x, is_batch = batched("unfold", "input", input, 2)
    y = _unfold(x, _windows("unfold", x.shape[2:], kernel_size, dilation, padding, stride))
    return deliver("unfold", y if is_batch else y[0], out)


def unfold_backward(
    grad_output: Array,
    input_shape: Sequence[int],
    kernel_size: Size,
    dilation: Size = 1,
    padding: Padding = 0,
    stride: Size = 1,
) -> Array:
    """Gradient of `unfold`: the columns summed back into an image of `input_shape`."""
    name = "unfold_backward"
    g, is_batch = batched(name, "grad_output", grad_output, 1)
    windows = _windows(name, input_shape[-2:], kernel_size, dilation, padding, stride)
    _check_columns(name, "grad_output", g, windows)
    gx = _fold(g, windows)
    expect_shape(name, "grad_output's image", gx if is_batch else gx[0], input_shape)
    return gx if is_batch else gx[0]


def fold(
    input: Array,
    output_size: Size,
    kernel_size: Size,
    dilation: Size = 1,
    padding: Padding = 0,
    stride: Size = 1,
    *,
    out: Array | None = None,
) -> Array:
    """Columns summed into an image: (N, C*kH*kW, windows) -> (N, C, H, W); also without N."""
    x, is_batch = batched("fold", "input", input, 1)
    sizes = per_axis("fold", "output_size", output_size, 2, 1)
    windows = _windows("fold", sizes, kernel_size, dilation, padding, stride)
    _check_columns("fold", "input", x, windows)
    y = _fold(x, windows)
    return deliver("fold", y if is_batch else y[0], out)


def fold_backward(
    grad_output: Array,
    output_size: Size,
    kernel_size: Size,
    dilation: Size = 1,
    padding: Padding = 0,
    stride: Size = 1,
) -> Array:
    """Gradient of `fold`: the windows of `grad_output` as columns."""
    name = "fold_backward"
    g, is_batch = batched(name, "grad_output", grad_output, 2)
    sizes = per_axis(name, "output_size", output_size, 2, 1)
    expect_shape(name, "grad_output", g, (*g.shape[:2], *sizes))
    gx = _unfold(g, _windows(name, sizes, kernel_size, dilation, padding, stride))
    return gx if is_batch else gx[0]
