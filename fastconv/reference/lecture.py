"""Convolution as a lecture introduces it: three ways to compute it, and the arithmetic of layers.

The three ways give the same numbers, in one and in two dimensions:

1. `flip_and_filter`: flip the kernel, slide it over the signal, take an inner product at each
position. 2. `translate_and_scale`: add up copies of the kernel, each moved to a signal entry and
scaled by it. 3. `toeplitz_matrix`: a convolution is linear, so it is a matrix; the matrix repeats a
few parameters.

>>> flip_and_filter([2, -1, 1], [1, 1, 2])
array([ 2,  1,  4, -1,  2])
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fastconv.reference._shapes import Array, conv_size, integer

Layer = int | tuple[int, int] | tuple[int, int, int]


def _constant(rows: list[list[float]], scale: float = 1.0) -> Array:
    array = np.array(rows, np.float64) * scale
    array.setflags(write=False)
    return array


#: Each pixel becomes a weighted mean of itself and its four neighbours.
BLUR = _constant([[0, 1, 0], [1, 4, 1], [0, 1, 0]], 1 / 8)
#: Minus the discrete Laplacian: zero where the image is flat, large at edges of any direction.
EDGE = _constant([[0, -1, 0], [-1, 4, -1], [0, -1, 0]])
#: The image plus its edges; the entries add up to 1, so that flat areas keep their value.
SHARPEN = _constant([[0, -1, 0], [-1, 5, -1], [0, -1, 0]])
#: Horizontal differences (vertical edges), smoothed vertically (Sobel & Feldman 1968).
SOBEL_X = _constant([[1, 0, -1], [2, 0, -2], [1, 0, -1]])
#: Vertical differences (horizontal edges), smoothed horizontally.
SOBEL_Y = _constant([[1, 2, 1], [0, 0, 0], [-1, -2, -1]])


def _operands(function: str, signal: npt.ArrayLike, kernel: npt.ArrayLike) -> tuple[Array, Array]:
    x, w = np.asarray(signal), np.asarray(kernel)
    if x.ndim != w.ndim or x.ndim not in (1, 2) or not x.size or not w.size:
        raise ValueError(
            f"{function}: signal and kernel must both be non-empty 1-D or 2-D, "
            f"got {x.shape} and {w.shape}"
        )
    return x, w


def flip_and_filter(signal: npt.ArrayLike, kernel: npt.ArrayLike) -> Array:
    """Full convolution by sliding the flipped kernel: (N,) * (K,) -> (N + K - 1,), or images."""
    x, w = _operands("flip_and_filter", signal, kernel)
    flipped = np.flip(w)
    padded = np.pad(x, [(size - 1, size - 1) for size in w.shape])
    y = np.empty([n + k - 1 for n, k in zip(x.shape, w.shape, strict=True)], np.result_type(x, w))
    for position in np.ndindex(y.shape):
        window = padded[
            tuple(slice(p, p + size) for p, size in zip(position, w.shape, strict=True))
        ]
        y[position] = (window * flipped).sum()
    return y


def translate_and_scale(signal: npt.ArrayLike, kernel: npt.ArrayLike) -> Array:
    """Full convolution as a sum of copies of the kernel, one for each signal entry."""
    x, w = _operands("translate_and_scale", signal, kernel)
    y = np.zeros([n + k - 1 for n, k in zip(x.shape, w.shape, strict=True)], np.result_type(x, w))
    for position in np.ndindex(x.shape):
        y[tuple(slice(p, p + size) for p, size in zip(position, w.shape, strict=True))] += (
            x[position] * w
        )
    return y


def toeplitz_matrix(kernel: npt.ArrayLike, signal_shape: int | Sequence[int]) -> Array:
    """The matrix T of a full convolution: `T @ signal.ravel()` is the convolution, flattened.

    Kernel (K,) and signal_shape N give (N + K - 1, N); kernel (kH, kW) and (H, W) give ((H + kH -
    1) * (W + kW - 1), H * W), block Toeplitz with Toeplitz blocks. Column p is the kernel moved to
    position p, so that the entries are many and the parameters as few as the kernel's.
    """
    w = np.asarray(kernel)
    shape = tuple(signal_shape) if isinstance(signal_shape, (list, tuple)) else (signal_shape,)
    sizes = tuple(integer("toeplitz_matrix", "signal_shape", n, 1) for n in shape)
    _operands("toeplitz_matrix", np.empty(sizes), w)
    columns = []
    for position in np.ndindex(sizes):
        impulse = np.zeros(sizes, w.dtype)
        impulse[position] = 1
        columns.append(translate_and_scale(impulse, w).ravel())
    return np.stack(columns, axis=1)


def conv_output_size(
    input_size: int, kernel_size: int, padding: int = 0, stride: int = 1, dilation: int = 1
) -> int:
    """Number of windows on one axis: `floor((W - ((K - 1)*D + 1) + 2*P) / S) + 1`.

    With S = 1 and P = 0 this is W - K + 1.
    """
    name = "conv_output_size"
    size = integer(name, "input_size", input_size, 1)
    kernel = integer(name, "kernel_size", kernel_size, 1)
    pad = integer(name, "padding", padding, 0)
    steps = integer(name, "stride", stride, 1), integer(name, "dilation", dilation, 1)
    windows = conv_size(size, kernel, (pad, pad), *steps)
    if windows < 1:
        raise ValueError(
            f"{name}: kernel_size {kernel} does not fit into input_size {size} with padding {pad}"
        )
    return windows


def receptive_field(layers: Sequence[Layer]) -> int:
    """How many input positions of one axis an output of the last layer sees.

    Each layer is a kernel size K, or (K, stride), or (K, stride, dilation), first layer first. A
    layer adds (K - 1) * dilation steps, each as long as the product of the strides before it; L
    layers of size K and stride 1 see 1 + L*(K - 1).
    """
    field, step = 1, 1
    for layer in layers:
        kernel, stride, dilation = (*((layer,) if isinstance(layer, int) else layer), 1, 1)[:3]
        field += (kernel - 1) * dilation * step
        step *= stride
    return field


def dense_parameters(inputs: int, outputs: int, bias: bool = False) -> int:
    """Weights of a fully connected layer: every output has its own weight for every input."""
    return outputs * (inputs + bias)


def locally_connected_parameters(
    outputs: int, kernel_size: Sequence[int], in_channels: int = 1, bias: bool = False
) -> int:
    """Weights when every output sees one window only, with weights of its own."""
    return outputs * (math.prod(kernel_size) * in_channels + bias)


def conv_parameters(
    kernel_size: Sequence[int], in_channels: int = 1, out_channels: int = 1, bias: bool = False
) -> int:
    """Weights when the outputs of a channel share one window of weights, wherever they are."""
    return out_channels * (math.prod(kernel_size) * in_channels + bias)
