"""What people write without fastconv: loops, vectorised NumPy, scipy.signal, for any layer.

Images are (N, C, H, W); one-dimensional layers come as images of height 1 (`as_image`). `pads` are
symmetric, as in every case. The vectorised functions in float64 are the oracle of the benchmarks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from cases import Array, Conv, ConvArrays, Sizes
from numpy.lib.stride_tricks import sliding_window_view

Calls = dict[str, Callable[[], Array]]
Geometry = tuple[Sizes, Sizes, Sizes]  # stride, padding, dilation


def as_image(array: Array) -> Array:
    return array[:, :, None] if array.ndim == 3 else array


def _geometry(arrays: ConvArrays) -> Geometry:
    case = arrays.case
    if case.axes == 2:
        return case.stride, case.padding, case.dilation
    return (1, *case.stride), (0, *case.padding), (1, *case.dilation)


def _padded(x: Array, padding: Sizes) -> Array:
    return np.pad(x, ((0, 0), (0, 0), (padding[0],) * 2, (padding[1],) * 2))


def _windows(x: Array, kernel: Sizes, geometry: Geometry) -> Array:
    """View (N, C, oH, oW, kH, kW) of every window."""
    stride, padding, dilation = geometry
    span = tuple(d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True))
    view = sliding_window_view(_padded(x, padding), span, axis=(2, 3))
    return view[:, :, :: stride[0], :: stride[1], :: dilation[0], :: dilation[1]]


# --- vectorised: im2col and one batched matrix product -------------------------------------------


def _columns(x: Array, w: Array, groups: int, geometry: Geometry) -> Array:
    """(N, groups, C/groups * kH * kW, oH * oW), the im2col matrix."""
    view = _windows(x, w.shape[2:], geometry).transpose(0, 1, 4, 5, 2, 3)
    positions = view.shape[4] * view.shape[5]
    return np.ascontiguousarray(view).reshape(len(x), groups, -1, positions)


def forward(x: Array, w: Array, groups: int, geometry: Geometry) -> Array:
    kernels = w.reshape(groups, len(w) // groups, -1)
    columns = _columns(x, w, groups, geometry)
    view = _windows(x, w.shape[2:], geometry)
    return (kernels @ columns).reshape(len(x), len(w), *view.shape[2:4])


def grad_input(g: Array, x: Array, w: Array, groups: int, geometry: Geometry) -> Array:
    stride, padding, dilation = geometry
    n, o, height, width = g.shape
    kernels = w.reshape(groups, o // groups, -1)
    columns = kernels.transpose(0, 2, 1) @ g.reshape(n, groups, o // groups, -1)
    columns = columns.reshape(n, x.shape[1], *w.shape[2:], height, width)
    image = np.zeros_like(_padded(x, padding), order="C")
    for u in range(w.shape[2]):
        rows = slice(u * dilation[0], u * dilation[0] + (height - 1) * stride[0] + 1, stride[0])
        for v in range(w.shape[3]):
            left = v * dilation[1]
            cols = slice(left, left + (width - 1) * stride[1] + 1, stride[1])
            image[:, :, rows, cols] += columns[:, :, u, v]
    return image[:, :, padding[0] :, padding[1] :][:, :, : x.shape[2], : x.shape[3]]


def grad_weight(g: Array, x: Array, w: Array, groups: int, geometry: Geometry) -> Array:
    n, o = g.shape[:2]
    columns = _columns(x, w, groups, geometry)
    products = g.reshape(n, groups, o // groups, -1) @ columns.swapaxes(2, 3)
    return products.sum(axis=0).reshape(w.shape)


def vectorised_calls(arrays: ConvArrays) -> Calls:
    """A transposed convolution is the gradient of a convolution, and the other way round."""
    case, geometry = arrays.case, _geometry(arrays)
    x, w, g = as_image(arrays.input), as_image(arrays.weight), as_image(arrays.grad_output)
    shapes = {
        "forward": case.output_shape,
        "grad_input": case.input_shape,
        "grad_weight": case.weight_shape,
    }
    rest = (w, case.groups, geometry)
    if case.transposed:
        calls: Calls = {
            "forward": lambda: grad_input(x, g, *rest),
            "grad_input": lambda: forward(g, *rest),
            "grad_weight": lambda: grad_weight(x, g, *rest),
        }
    else:
        calls = {
            "forward": lambda: forward(x, *rest),
            "grad_input": lambda: grad_input(g, x, *rest),
            "grad_weight": lambda: grad_weight(g, x, *rest),
        }
    return {name: lambda name=name: calls[name]().reshape(shapes[name]) for name in calls}


# --- naive: four loops around NumPy, seven loops around Python numbers ---------------------------


def _positions(arrays: ConvArrays, image: Array) -> Iterator[tuple[Any, ...]]:
    """For every output element: n, o, i, j, its window of `image`."""
    case, (stride, _, dilation) = arrays.case, _geometry(arrays)
    n_range, o_range, rows, cols = map(range, as_image(arrays.grad_output).shape)
    kernel = as_image(arrays.weight).shape[2:]
    inner, outer = case.channels // case.groups, case.outputs // case.groups
    spans = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    for n in n_range:
        for o in o_range:
            first = o // outer * inner
            for i in rows:
                top = i * stride[0]
                for j in cols:
                    left = j * stride[1]
                    window = image[
                        n,
                        first : first + inner,
                        top : top + spans[0] : dilation[0],
                        left : left + spans[1] : dilation[1],
                    ]
                    yield n, o, i, j, window


def naive_calls(arrays: ConvArrays) -> Calls:
    """One loop per output axis, as in a course's first assignment; not for transposed layers."""
    x, w, g = as_image(arrays.input), as_image(arrays.weight), as_image(arrays.grad_output)
    padding = _geometry(arrays)[1]

    def forward() -> Array:
        y = np.empty(g.shape, x.dtype)
        for n, o, i, j, window in _positions(arrays, _padded(x, padding)):
            y[n, o, i, j] = np.sum(window * w[o])
        return y.reshape(arrays.case.output_shape)

    def grad_input() -> Array:
        image = np.zeros_like(_padded(x, padding))
        for n, o, i, j, window in _positions(arrays, image):
            window += g[n, o, i, j] * w[o]
        image = image[:, :, padding[0] :, padding[1] :][:, :, : x.shape[2], : x.shape[3]]
        return image.reshape(arrays.case.input_shape)

    def grad_weight() -> Array:
        result = np.zeros_like(w)
        for n, o, i, j, window in _positions(arrays, _padded(x, padding)):
            result[o] += g[n, o, i, j] * window
        return result.reshape(arrays.case.weight_shape)

    return {"forward": forward, "grad_input": grad_input, "grad_weight": grad_weight}


def seven_loops(arrays: ConvArrays, outputs: range) -> Array:
    """The forward pass of the output channels `outputs` alone, one product at a time; no groups."""
    stride, padding, dilation = _geometry(arrays)
    x, w = _padded(as_image(arrays.input), padding), as_image(arrays.weight)
    batch, _, height, width = as_image(arrays.grad_output).shape
    channels, kernel_height, kernel_width = w.shape[1:]
    y = np.zeros((batch, len(outputs), height, width), x.dtype)
    for n in range(batch):
        for k, o in enumerate(outputs):
            for i in range(height):
                for j in range(width):
                    for c in range(channels):
                        for u in range(kernel_height):
                            row = i * stride[0] + u * dilation[0]
                            for v in range(kernel_width):
                                col = j * stride[1] + v * dilation[1]
                                y[n, k, i, j] += w[o, c, u, v] * x[n, c, row, col]
    return y


# --- scipy.signal: one plane and one kernel at a time --------------------------------------------


def scipy_forward(arrays: ConvArrays) -> Array:
    """Layers of one input channel, stride and dilation 1."""
    from scipy.signal import correlate2d

    x, w = _padded(as_image(arrays.input), _geometry(arrays)[1]), as_image(arrays.weight)
    planes = [[correlate2d(image[0], kernel[0], mode="valid") for kernel in w] for image in x]
    return np.array(planes).reshape(arrays.case.output_shape)


def scipy_applies(case: Conv) -> bool:
    plain = set(case.stride) == {1} and set(case.dilation) == {1}
    return case.channels == 1 and not case.transposed and plain
