"""im2col and col2im: the windows of an image as columns, and the sum of columns back into an image.

columns[n, (c, u, v), (i, j)] =
    image[n, c, i * stride + u * dilation - top, j * stride + v * dilation - left]

Both directions run over the taps (u, v) of the kernel: one tap of all windows is one strided slice
of the image, so that neither a padded copy nor any other scratch is needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from fastconv._messages import shown
from fastconv.functional._arrays import empty_ordered, real_array, shape
from fastconv.functional._checks import (
    Array,
    batched,
    check_out,
    conv_padding,
    float_array,
    no_overlap,
    output_size,
    per_axis,
)

Size = int | Sequence[int]
Padding = int | str | Sequence[int] | Sequence[Sequence[int]]


def unfold(
    input: Array,
    kernel_size: Size,
    dilation: Size = 1,
    padding: Padding = 0,
    stride: Size = 1,
    *,
    out: Array | None = None,
) -> Array:
    """The windows of an image as columns (im2col).

    Parameters
    ----------
    input : ndarray
        `(N, C, H, W)` or `(C, H, W)`, any real dtype.
    kernel_size, dilation, stride : int or (int, int)
        The windows, as those of `conv2d` (the order of the arguments is torch's).
    padding : int, (int, int), pairs or str
        Zeros around the image, in any form `conv2d` takes.
    out : ndarray, optional
        Array of the result's shape and dtype to write; must not share memory with `input`.

    Returns
    -------
    ndarray
        `(N, C * kH * kW, windows)` or `(C * kH * kW, windows)`, C-contiguous; the windows in
        row-major order.

    Raises
    ------
    ValueError
        A wrong rank, sizes below 1, a kernel larger than the padded image.
    TypeError
        Sizes that are not ints, an input that is not a real array.
    MemoryError
        The result is too large to exist.
    """
    x, has_batch = batched("unfold", "input", real_array("unfold", "input", input), 2)
    windows = _windows("unfold", x.shape[2:], kernel_size, dilation, padding, stride)
    columns = windows.columns_shape(x.shape[:2])
    wanted = columns if has_batch else columns[1:]
    if out is not None:
        out = check_out("unfold", out, wanted, x.dtype)
        no_overlap("unfold", out, input=input)
        if not out.flags.c_contiguous:
            out[...] = _gather("unfold", x, windows).reshape(wanted)
        else:
            _gather("unfold", x, windows, out)
        return out
    return _gather("unfold", x, windows).reshape(wanted)


def unfold_backward(
    grad_output: Array,
    input_shape: Sequence[int],
    kernel_size: Size,
    dilation: Size = 1,
    padding: Padding = 0,
    stride: Size = 1,
) -> Array:
    """Gradient of `unfold` with respect to its input: the columns summed into an image.

    Parameters
    ----------
    grad_output : ndarray
        `(N, C * kH * kW, windows)` or `(C * kH * kW, windows)`, float32 or float64.
    input_shape : tuple of int
        Shape of the input of `unfold`, `(N, C, H, W)` or `(C, H, W)`.
    kernel_size, dilation, padding, stride
        As given to `unfold`.

    Returns
    -------
    ndarray
        `input_shape`; 0 where no window lies.

    Raises
    ------
    ValueError, TypeError
        As `unfold`; also when `grad_output` does not have the shape of the columns.
    """
    name = "unfold_backward"
    g = float_array(name, "grad_output", grad_output)
    size = shape(name, "input_shape", input_shape)
    if len(size) not in (3, 4):
        raise ValueError(
            f"{name}: input_shape must be (N, C, H, W) or (C, H, W), got {shown(size)}"
        )
    windows = _windows(name, size[-2:], kernel_size, dilation, padding, stride)
    columns = windows.columns_shape(size[:-2])
    if g.shape != columns:
        raise ValueError(
            f"{name}: grad_output must have shape {columns} (input_shape {size}, kernel "
            f"{windows.kernel}, {windows.out_sizes[0]} x {windows.out_sizes[1]} windows), "
            f"got {g.shape}"
        )
    return _scatter(name, g, size, windows)


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
    """Columns summed into an image (col2im), the adjoint of `unfold`.

    Parameters
    ----------
    input : ndarray
        `(N, C * kH * kW, windows)` or `(C * kH * kW, windows)`, float32 or float64.
    output_size : int or (int, int)
        Height and width of the image.
    kernel_size, dilation, padding, stride
        The windows, as in `unfold` of the image.
    out : ndarray, optional
        Array of the result's shape and dtype to write; must not share memory with `input`.

    Returns
    -------
    ndarray
        `(N, C, height, width)` or `(C, height, width)`: overlapping entries are summed, 0 where no
        window lies, what lies in the padding is dropped.

    Raises
    ------
    ValueError
        A wrong rank, sizes below 1, columns that do not fit the windows.
    TypeError
        Sizes that are not ints, an input that is not float32 or float64.
    MemoryError
        The result is too large to exist.
    """
    x = float_array("fold", "input", input)
    size = per_axis("fold", "output_size", output_size, 2)
    windows = _windows("fold", size, kernel_size, dilation, padding, stride)
    taps, count = prod(windows.kernel), prod(windows.out_sizes)
    if x.ndim not in (2, 3) or x.shape[-2] % taps or x.shape[-1] != count:
        raise ValueError(
            f"fold: input must have shape (N, C * {taps}, {count}) or (C * {taps}, {count}) for "
            f"output_size {size}, kernel {windows.kernel} and {windows.out_sizes[0]} x "
            f"{windows.out_sizes[1]} windows, got {x.shape}"
        )
    wanted = (*x.shape[:-2], x.shape[-2] // taps, *size)
    if out is not None:
        out = check_out("fold", out, wanted, x.dtype)
        no_overlap("fold", out, input=input)
    return _scatter("fold", x, wanted, windows, out)


def fold_backward(
    grad_output: Array,
    output_size: Size,
    kernel_size: Size,
    dilation: Size = 1,
    padding: Padding = 0,
    stride: Size = 1,
) -> Array:
    """Gradient of `fold` with respect to its input: the windows of `grad_output`.

    Parameters
    ----------
    grad_output : ndarray
        `(N, C, height, width)` or `(C, height, width)`, float32 or float64.
    output_size, kernel_size, dilation, padding, stride
        As given to `fold`.

    Returns
    -------
    ndarray
        `(N, C * kH * kW, windows)` or `(C * kH * kW, windows)`.

    Raises
    ------
    ValueError, TypeError
        As `fold`; also when `grad_output` does not end in `output_size`.
    """
    name = "fold_backward"
    g, has_batch = batched(name, "grad_output", float_array(name, "grad_output", grad_output), 2)
    size = per_axis(name, "output_size", output_size, 2)
    if g.shape[2:] != size:
        raise ValueError(
            f"{name}: grad_output must end in output_size {size}, got shape {grad_output.shape}"
        )
    windows = _windows(name, size, kernel_size, dilation, padding, stride)
    columns = windows.columns_shape(g.shape[:2])
    return _gather(name, g, windows).reshape(columns if has_batch else columns[1:])


@dataclass(frozen=True)
class _Windows:
    """All windows of an image: entry k of window i is at i * stride + k * dilation - before."""

    sizes: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    before: tuple[int, ...]
    dilation: tuple[int, ...]
    out_sizes: tuple[int, ...]

    def columns_shape(self, leading: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the columns of an image with the axes (N, C) or (C,) in front."""
        return (*leading[:-1], leading[-1] * prod(self.kernel), prod(self.out_sizes))

    def all_inside(self) -> bool:
        """Whether no window touches the padding."""
        steps = zip(self.out_sizes, self.stride, self.kernel, self.dilation, strict=True)
        last = [(out - 1) * s + (k - 1) * d for out, s, k, d in steps]
        return not any(self.before) and all(p < n for p, n in zip(last, self.sizes, strict=True))

    def taps(self) -> Iterator[tuple[tuple[int, int], tuple[slice, slice], tuple[slice, slice]]]:
        """Each tap (u, v), the windows for which it lies in the image, and where it lies there."""
        rows = [self._tap(0, u) for u in range(self.kernel[0])]
        cols = [self._tap(1, v) for v in range(self.kernel[1])]
        for u, row in enumerate(rows):
            for v, col in enumerate(cols):
                if row is not None and col is not None:
                    yield (u, v), (row[0], col[0]), (row[1], col[1])

    def _tap(self, axis: int, k: int) -> tuple[slice, slice] | None:
        """Windows and positions of tap k on one axis, None if it always lies outside."""
        stride, offset = self.stride[axis], k * self.dilation[axis] - self.before[axis]
        first = max(0, -(offset // stride))  # the least i with i * stride + offset >= 0
        end = min(self.out_sizes[axis], -((offset - self.sizes[axis]) // stride))
        if end <= first:
            return None
        start = first * stride + offset
        return slice(first, end), slice(start, start + (end - first - 1) * stride + 1, stride)


def _windows(
    function: str, sizes: Sequence[int], kernel: Any, dilation: Any, padding: Any, stride: Any
) -> _Windows:
    k = per_axis(function, "kernel_size", kernel, 2)
    d = per_axis(function, "dilation", dilation, 2)
    s = per_axis(function, "stride", stride, 2)
    pads = conv_padding(function, padding, sizes, k, s, d)
    out_sizes = tuple(
        output_size(function, *axis) for axis in zip("HW", sizes, k, s, pads, d, strict=True)
    )
    return _Windows(tuple(sizes), k, s, tuple(before for before, _ in pads), d, out_sizes)


def _gather(function: str, x: Array, windows: _Windows, out: Array | None = None) -> Array:
    """(N, C, H, W) -> (N, C, kH, kW, out_h, out_w)."""
    full = (*x.shape[:2], *windows.kernel, *windows.out_sizes)
    if out is None:
        columns = empty_ordered(function, full, x.dtype, tuple(range(6)))
    else:
        columns = out.reshape(full)
    if columns.size == 0:
        return columns
    if not windows.all_inside():
        columns.fill(0)
    for (u, v), (i, j), (row, col) in windows.taps():
        columns[:, :, u, v, i, j] = x[:, :, row, col]
    return columns


def _scatter(
    function: str, x: Array, image: tuple[int, ...], windows: _Windows, out: Array | None = None
) -> Array:
    """Columns of any layout -> the image, the taps added in row-major order."""
    order = tuple(range(len(image)))
    y = empty_ordered(function, image, x.dtype, order) if out is None else out
    y.fill(0)
    if x.size and y.size:
        columns = x.reshape(*image[:-2], *windows.kernel, *windows.out_sizes)
        with np.errstate(all="ignore"):
            for (u, v), (i, j), (row, col) in windows.taps():
                y[..., row, col] += columns[..., u, v, i, j]
    return y
