"""Max and average pooling, forward and backward, as loops over windows.

Max: the first maximum of a window in row-major order wins; a NaN beats everything, and the last NaN
of a window is the index. Padding never wins. Average: the divisor is the area of the window within
the padded input, or the number of its input elements (`count_include_pad=False`), or
`divisor_override`. One-dimensional data are images of height 1; an index counts positions of the L
or H*W plane.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastconv.reference._shapes import (
    Array,
    Padding,
    Pair,
    Size,
    batched,
    deliver,
    expect_shape,
    extent,
    integer,
    paddings,
    per_axis,
    taps,
)

WORDS = ("valid", "same", "same_lower")


def pool_size(
    size: int, kernel: int, pad: Pair, stride: int, dilation: int, ceil_mode: bool
) -> int:
    """Number of windows; `ceil_mode` adds a partial one unless it starts in the right padding."""
    room = size + sum(pad) - extent(kernel, dilation)
    if not ceil_mode:
        return room // stride + 1
    windows = -(-room // stride) + 1
    return windows - 1 if (windows - 1) * stride >= size + pad[0] else windows


class Pooling:
    """The windows of a 2-D pooling: window (i, j) holds the positions rows[i] x cols[j]."""

    def __init__(
        self,
        function: str,
        sizes: Sequence[int],
        kernel_size: Size,
        stride: Size | None,
        padding: Padding,
        dilation: Size = 1,
        ceil_mode: bool = False,
    ) -> None:
        if min(sizes) < 1:
            raise ValueError(
                f"{function}: every spatial size must be at least 1, got {list(sizes)}"
            )
        self.kernel = per_axis(function, "kernel_size", kernel_size, 2, 1)
        self.stride = self.kernel if stride is None else per_axis(function, "stride", stride, 2, 1)
        self.dilation = per_axis(function, "dilation", dilation, 2, 1)
        self.pads = paddings(
            function, padding, WORDS, sizes, self.kernel, self.stride, self.dilation
        )
        windows = []
        for size, k, s, d, pad in zip(
            sizes, self.kernel, self.stride, self.dilation, self.pads, strict=True
        ):
            if max(pad) > extent(k, d) // 2:
                raise ValueError(
                    f"{function}: padding {pad} is more than half the window's span {extent(k, d)}"
                )
            count = pool_size(size, k, pad, s, d, ceil_mode)
            if count < 1:
                raise ValueError(
                    f"{function}: window spans {extent(k, d)}, padded input is {size} + {pad}"
                )
            starts = [i * s - pad[0] for i in range(count)]
            held = [range(size)[taps(start, k, d, size)[0]] for start in starts]
            if min(map(len, held)) < 1:
                raise ValueError(
                    f"{function}: a window of kernel_size {k}, dilation {d} holds no input element"
                )
            areas = [min(start + extent(k, d), size + pad[1]) - start for start in starts]
            windows.append((held, areas))
        (self.rows, self.row_areas), (self.cols, self.col_areas) = windows

    def divisor(self, i: int, j: int, count_include_pad: bool, override: int | None) -> int:
        """What the sum over window (i, j) is divided by."""
        if override is not None:
            return override
        if count_include_pad:
            return self.row_areas[i] * self.col_areas[j]
        return len(self.rows[i]) * len(self.cols[j])


def _maximum(image: Array, rows: Sequence[int], cols: Sequence[int]) -> tuple[Array, Array]:
    """Greatest element of one window of every plane, and its flat index."""
    width = image.shape[3]
    best = image[:, :, rows[0], cols[0]]
    index = np.full(best.shape, rows[0] * width + cols[0], np.int64)
    for h in rows:
        for w in cols:
            value = image[:, :, h, w]
            wins = (value > best) | np.not_equal(value, value)  # v != v: NaN
            best = np.where(wins, value, best)
            index = np.where(wins, h * width + w, index)
    return best, index


def _max_pool(
    image: Array, rows: Sequence[Sequence[int]], cols: Sequence[Sequence[int]]
) -> tuple[Array, Array]:
    shape = (*image.shape[:2], len(rows), len(cols))
    output = np.empty(shape, image.dtype.newbyteorder("="))
    indices = np.empty(shape, np.int64)
    for i in range(shape[2]):
        for j in range(shape[3]):
            output[:, :, i, j], indices[:, :, i, j] = _maximum(image, rows[i], cols[j])
    return output, indices


def _hand_out(
    function: str, output: Array, indices: Array, keep: Any, return_indices: bool, out: Array | None
) -> Any:
    """Bring both arrays to the caller's rank (`keep` indexes the added axes away)."""
    values = deliver(function, output[keep], out)
    return (values, indices[keep]) if return_indices else values


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

    input (N, C, H, W) or (C, H, W) -> output, or (output, int64 indices into H*W).
    """
    x, is_batch = batched("max_pool2d", "input", input, 2)
    p = Pooling("max_pool2d", x.shape[2:], kernel_size, stride, padding, dilation, ceil_mode)
    keep = () if is_batch else 0
    return _hand_out("max_pool2d", *_max_pool(x, p.rows, p.cols), keep, return_indices, out)


def _check_indices(function: str, indices: Array, shape: Sequence[int], plane: int) -> None:
    expect_shape(function, "indices", indices, shape)
    if indices.dtype != np.int64:
        raise TypeError(f"{function}: indices must be int64, got {indices.dtype}")
    if indices.size and not 0 <= indices.min() <= indices.max() < plane:
        raise ValueError(
            f"{function}: indices must lie in 0..{plane - 1}, got {indices.min()}..{indices.max()}"
        )


def _scatter_add(
    function: str, grad_output: Array, indices: Array, input_shape: Sequence[int], rank: int
) -> Array:
    """Each gradient goes to the element that its index names; `rank` spatial axes."""
    plane = int(np.prod(input_shape[-rank:]))
    if len(input_shape) not in (rank + 1, rank + 2) or grad_output.ndim != len(input_shape):
        raise ValueError(
            f"{function}: input_shape {tuple(input_shape)} does not fit "
            f"grad_output {grad_output.shape}"
        )
    expect_shape(
        function, "grad_output", grad_output, (*input_shape[:-rank], *grad_output.shape[-rank:])
    )
    _check_indices(function, indices, grad_output.shape, plane)
    planes = int(np.prod(input_shape[:-rank]))
    grad_input = np.zeros((planes, plane), grad_output.dtype.newbyteorder("="))
    windows = int(np.prod(grad_output.shape[-rank:]))
    g, where = grad_output.reshape(planes, windows), indices.reshape(planes, windows)
    for k in range(planes):
        for j in range(g.shape[1]):
            grad_input[k, where[k, j]] += g[k, j]
    return grad_input.reshape(tuple(input_shape))


def max_pool2d_backward(grad_output: Array, indices: Array, input_shape: Sequence[int]) -> Array:
    """Gradient of `max_pool2d`: the winner of each window takes its gradient."""
    return _scatter_add("max_pool2d_backward", grad_output, indices, input_shape, 2)


def _avg_pool(image: Array, p: Pooling, count_include_pad: bool, override: int | None) -> Array:
    output = np.empty((*image.shape[:2], len(p.rows), len(p.cols)), image.dtype.newbyteorder("="))
    for i, rows in enumerate(p.rows):
        for j, cols in enumerate(p.cols):
            window = image[:, :, rows.start : rows.stop, cols.start : cols.stop]
            output[:, :, i, j] = window.sum(axis=(2, 3)) / p.divisor(
                i, j, count_include_pad, override
            )
    return output


def _avg_pool_backward(
    grad_output: Array,
    shape: Sequence[int],
    p: Pooling,
    count_include_pad: bool,
    override: int | None,
) -> Array:
    grad_input = np.zeros(shape, grad_output.dtype.newbyteorder("="))
    for i, rows in enumerate(p.rows):
        for j, cols in enumerate(p.cols):
            share = grad_output[:, :, i, j] / p.divisor(i, j, count_include_pad, override)
            grad_input[:, :, rows.start : rows.stop, cols.start : cols.stop] += share[
                :, :, np.newaxis, np.newaxis
            ]
    return grad_input


def _override(function: str, divisor_override: int | None) -> int | None:
    return (
        None
        if divisor_override is None
        else integer(function, "divisor_override", divisor_override, 1)
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
    """Mean of each window: input (N, C, H, W) or (C, H, W) -> output of the same rank."""
    x, is_batch = batched("avg_pool2d", "input", input, 2)
    p = Pooling("avg_pool2d", x.shape[2:], kernel_size, stride, padding, 1, ceil_mode)
    y = _avg_pool(x, p, count_include_pad, _override("avg_pool2d", divisor_override))
    return deliver("avg_pool2d", y if is_batch else y[0], out)


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
    """Gradient of `avg_pool2d`: every input element of a window takes gradient / divisor."""
    name = "avg_pool2d_backward"
    g, is_batch = batched(name, "grad_output", grad_output, 2)
    shape = tuple(input_shape) if is_batch else (1, *input_shape)
    if len(shape) != 4:
        raise ValueError(
            f"{name}: input_shape {tuple(input_shape)} does not fit grad_output {grad_output.shape}"
        )
    p = Pooling(name, shape[2:], kernel_size, stride, padding, 1, ceil_mode)
    expect_shape(name, "grad_output", g, (*shape[:2], len(p.rows), len(p.cols)))
    gx = _avg_pool_backward(g, shape, p, count_include_pad, _override(name, divisor_override))
    return gx if is_batch else gx[0]


def _flat(function: str, stride: Size | None, padding: Padding) -> tuple[Size | None, Padding]:
    """1-D stride and padding as those of an image of height 1."""
    if stride is not None:
        stride = (1, per_axis(function, "stride", stride, 1, 1)[0])
    if not isinstance(padding, str):
        padding = ((0, 0), paddings(function, padding, (), (1,), (1,), (1,), (1,))[0])
    return stride, padding


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
    """Maximum of each window: input (N, C, L) or (C, L) -> output, or (output, indices into L)."""
    name = "max_pool1d"
    x, is_batch = batched(name, "input", input, 1)
    image = x[:, :, np.newaxis]
    kernel = (1, per_axis(name, "kernel_size", kernel_size, 1, 1)[0])
    spread = (1, per_axis(name, "dilation", dilation, 1, 1)[0])
    p = Pooling(name, image.shape[2:], kernel, *_flat(name, stride, padding), spread, ceil_mode)
    keep = (slice(None) if is_batch else 0, slice(None), 0)
    return _hand_out(name, *_max_pool(image, p.rows, p.cols), keep, return_indices, out)


def max_pool1d_backward(grad_output: Array, indices: Array, input_shape: Sequence[int]) -> Array:
    """Gradient of `max_pool1d`: the winner of each window takes its gradient."""
    return _scatter_add("max_pool1d_backward", grad_output, indices, input_shape, 1)


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
    """Mean of each window: input (N, C, L) or (C, L) -> output of the same rank."""
    name = "avg_pool1d"
    x, is_batch = batched(name, "input", input, 1)
    image = x[:, :, np.newaxis]
    kernel = (1, per_axis(name, "kernel_size", kernel_size, 1, 1)[0])
    p = Pooling(name, image.shape[2:], kernel, *_flat(name, stride, padding), 1, ceil_mode)
    y = _avg_pool(image, p, count_include_pad, _override(name, divisor_override))[:, :, 0]
    return deliver(name, y if is_batch else y[0], out)


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
    """Gradient of `avg_pool1d`: every input element of a window takes gradient / divisor."""
    name = "avg_pool1d_backward"
    g, is_batch = batched(name, "grad_output", grad_output, 1)
    shape = tuple(input_shape) if is_batch else (1, *input_shape)
    kernel = (1, per_axis(name, "kernel_size", kernel_size, 1, 1)[0])
    if len(shape) != 3:
        raise ValueError(
            f"{name}: input_shape {tuple(input_shape)} does not fit grad_output {grad_output.shape}"
        )
    image = (*shape[:2], 1, shape[2])
    p = Pooling(name, image[2:], kernel, *_flat(name, stride, padding), 1, ceil_mode)
    expect_shape(name, "grad_output", g, (*shape[:2], len(p.cols)))
    override = _override(name, divisor_override)
    gx = _avg_pool_backward(g[:, :, np.newaxis], image, p, count_include_pad, override)[:, :, 0]
    return gx if is_batch else gx[0]
