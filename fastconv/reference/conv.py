"""Convolution and transposed convolution, forward and backward, as loops over positions.

    y[n, o, i, j] = b[o] + sum_{c, u, v} w[o, c, u, v] * x[n, c, i*stride + u*dilation - top,
    j*stride + ...]

is a *correlation* (the kernel is not flipped), as in every deep-learning library; see `signal` for
the flipped kind. One-dimensional data are images of height 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from fastconv.reference._shapes import (
    Array,
    Padding,
    Pair,
    Size,
    batched,
    conv_size,
    deliver,
    expect_shape,
    expect_word,
    extent,
    integer,
    paddings,
    per_axis,
    same_dtype,
    taps,
)
from fastconv.reference.padding import MODES, pad, pad_backward

WORDS_2D = ("valid", "same", "same_lower", "full")
WORDS_1D = (*WORDS_2D, "causal")
PADDING_MODES = ("zeros", *MODES[1:])

Grads = tuple[Array | None, Array | None, Array | None]
Mask = tuple[bool, bool, bool]


@dataclass(frozen=True)
class Windows:
    """Windows of `kernel` taps over an image of `sizes`; `out_sizes` of them along each axis."""

    sizes: Pair
    kernel: Pair
    stride: Pair
    dilation: Pair
    pads: tuple[Pair, Pair]
    out_sizes: Pair

    def __iter__(self) -> Iterator[tuple[int, int, tuple[slice, slice], tuple[slice, slice]]]:
        """For each window (i, j): its rows and columns in the image, and the taps on them."""
        for i in range(self.out_sizes[0]):
            top = i * self.stride[0] - self.pads[0][0]
            rows, kernel_rows = taps(top, self.kernel[0], self.dilation[0], self.sizes[0])
            for j in range(self.out_sizes[1]):
                left = j * self.stride[1] - self.pads[1][0]
                cols, kernel_cols = taps(left, self.kernel[1], self.dilation[1], self.sizes[1])
                yield i, j, (rows, cols), (kernel_rows, kernel_cols)


def make_windows(
    function: str,
    sizes: Sequence[int],
    kernel: Sequence[int],
    stride: Size,
    padding: Padding,
    dilation: Size,
    words: Sequence[str] = WORDS_2D,
) -> Windows:
    """Check the arguments of a 2-D convolution and lay out its windows."""
    stride2 = per_axis(function, "stride", stride, 2, 1)
    dilation2 = per_axis(function, "dilation", dilation, 2, 1)
    pads = paddings(function, padding, words, sizes, kernel, stride2, dilation2)
    out_sizes = [
        conv_size(size, k, pad_pair, s, d)
        for size, k, pad_pair, s, d in zip(sizes, kernel, pads, stride2, dilation2, strict=True)
    ]
    if min(out_sizes) < 1:
        spans = [extent(k, d) for k, d in zip(kernel, dilation2, strict=True)]
        raise ValueError(
            f"{function}: kernel spans {spans}, larger than the padded input {list(sizes)} + {pads}"
        )
    return Windows(
        (sizes[0], sizes[1]),
        (kernel[0], kernel[1]),
        (stride2[0], stride2[1]),
        (dilation2[0], dilation2[1]),
        (pads[0], pads[1]),
        (out_sizes[0], out_sizes[1]),
    )


def _group_channels(
    function: str, input: Array, weight: Array, groups: int, *, transposed: bool = False
) -> tuple[list[slice], list[slice]]:
    """Which input and output channels each group owns."""
    groups = integer(function, "groups", groups, 1)
    if weight.ndim != 4:
        raise ValueError(
            f"{function}: weight has the wrong number of axes for this input: {weight.shape}"
        )
    if min(weight.shape) < 1:
        raise ValueError(f"{function}: every size of weight must be at least 1, got {weight.shape}")
    channels_in = weight.shape[0] if transposed else weight.shape[1] * groups
    channels_out = weight.shape[1] * groups if transposed else weight.shape[0]
    if input.shape[1] != channels_in:
        raise ValueError(
            f"{function}: weight expects {channels_in} input channels, input has {input.shape[1]} "
            f"(input {input.shape}, weight {weight.shape}, groups {groups})"
        )
    if weight.shape[0] % groups:
        raise ValueError(
            f"{function}: groups {groups} does not divide weight.shape[0] {weight.shape[0]}"
        )
    inner, outer = channels_in // groups, channels_out // groups
    return (
        [slice(g * inner, (g + 1) * inner) for g in range(groups)],
        [slice(g * outer, (g + 1) * outer) for g in range(groups)],
    )


def _add_bias(function: str, output: Array, bias: Array | None) -> None:
    if bias is not None:
        expect_shape(function, "bias", bias, (output.shape[1],))
        output += bias[:, np.newaxis, np.newaxis]


def _pad_tuple(pads: tuple[Pair, Pair]) -> tuple[int, int, int, int]:
    """`(left, right, top, bottom)`, the order that `pad` wants."""
    return (*pads[1], *pads[0])


def _padded(input: Array, windows: Windows, padding_mode: str) -> tuple[Array, Windows]:
    """The image with its border filled, and the windows over it, for a mode other than zeros."""
    if padding_mode == "zeros":
        return input, windows
    image = pad(input, _pad_tuple(windows.pads), padding_mode)
    sizes = (image.shape[2], image.shape[3])
    rest = (windows.kernel, windows.stride, windows.dilation)
    return image, Windows(sizes, *rest, ((0, 0), (0, 0)), windows.out_sizes)


def _conv2d(
    function: str,
    input: Array,
    weight: Array,
    bias: Array | None,
    stride: Size,
    padding: Padding,
    dilation: Size,
    groups: int,
    padding_mode: str,
    words: Sequence[str],
) -> Array:
    dtype = same_dtype(function, input=input, weight=weight, bias=bias)
    expect_word(function, "padding_mode", padding_mode, PADDING_MODES)
    ins, outs = _group_channels(function, input, weight, groups)
    windows = make_windows(
        function, input.shape[2:], weight.shape[2:], stride, padding, dilation, words
    )
    image, windows = _padded(input, windows, padding_mode)
    output = np.empty((len(input), len(weight), *windows.out_sizes), dtype)
    for i, j, (rows, cols), (u, v) in windows:
        for c, o in zip(ins, outs, strict=True):
            window = image[:, c, rows, cols]  # (batch, channels of the group, taps, taps)
            output[:, o, i, j] = np.tensordot(
                window, weight[o, :, u, v], axes=([1, 2, 3], [1, 2, 3])
            )
    _add_bias(function, output, bias)
    return output


def _conv2d_backward(
    function: str,
    grad_output: Array,
    input: Array,
    weight: Array,
    stride: Size,
    padding: Padding,
    dilation: Size,
    groups: int,
    padding_mode: str,
    output_mask: Mask,
    words: Sequence[str],
) -> Grads:
    dtype = same_dtype(function, grad_output=grad_output, input=input, weight=weight)
    expect_word(function, "padding_mode", padding_mode, PADDING_MODES)
    ins, outs = _group_channels(function, input, weight, groups)
    windows = make_windows(
        function, input.shape[2:], weight.shape[2:], stride, padding, dilation, words
    )
    expect_shape(
        function, "grad_output", grad_output, (len(input), len(weight), *windows.out_sizes)
    )
    pads = windows.pads
    image, windows = _padded(input, windows, padding_mode)
    grad_image = np.zeros(image.shape, dtype)
    grad_weight = np.zeros(weight.shape, dtype)
    for i, j, (rows, cols), (u, v) in windows:
        for c, o in zip(ins, outs, strict=True):
            g = grad_output[:, o, i, j]  # (batch, output channels of the group)
            grad_image[:, c, rows, cols] += np.tensordot(g, weight[o, :, u, v], axes=(1, 0))
            grad_weight[o, :, u, v] += np.tensordot(g, image[:, c, rows, cols], axes=(0, 0))
    if padding_mode != "zeros":
        grad_image = pad_backward(grad_image, input.shape, _pad_tuple(pads), padding_mode)
    grads = (grad_image, grad_weight, grad_output.sum(axis=(0, 2, 3)))
    return _masked(grads, output_mask)


def _masked(grads: tuple[Array, Array, Array], mask: Mask) -> Grads:
    first, second, third = (
        grad if wanted else None for grad, wanted in zip(grads, mask, strict=True)
    )
    return first, second, third


def conv2d(
    input: Array,
    weight: Array,
    bias: Array | None = None,
    stride: Size = 1,
    padding: Padding = 0,
    dilation: Size = 1,
    groups: int = 1,
    *,
    padding_mode: str = "zeros",
    algorithm: str = "auto",
    out: Array | None = None,
) -> Array:
    """Two-dimensional convolution: one inner product for each output position.

    input (N, C, H, W) or (C, H, W), weight (O, C/groups, kH, kW), bias (O,) -> (N, O, oH, oW) or
    (O, oH, oW), oH = (H + top + bottom - (kH - 1)*dilation - 1) // stride + 1. `algorithm` is
    accepted and ignored.
    """
    x, is_batch = batched("conv2d", "input", input, 2)
    y = _conv2d(
        "conv2d", x, weight, bias, stride, padding, dilation, groups, padding_mode, WORDS_2D
    )
    return deliver("conv2d", y if is_batch else y[0], out)


def conv2d_backward(
    grad_output: Array,
    input: Array,
    weight: Array,
    stride: Size = 1,
    padding: Padding = 0,
    dilation: Size = 1,
    groups: int = 1,
    *,
    padding_mode: str = "zeros",
    algorithm: str = "auto",
    output_mask: Mask = (True, True, True),
) -> Grads:
    """Gradients of `conv2d` for input, weight and bias; None where `output_mask` is False.

    Each output position hands its gradient back to the input and the weights it was made of.
    """
    name = "conv2d_backward"
    x, is_batch = batched(name, "input", input, 2)
    g = grad_output if is_batch else grad_output[np.newaxis]
    rest = (stride, padding, dilation, groups, padding_mode, output_mask, WORDS_2D)
    gx, gw, gb = _conv2d_backward(name, g, x, weight, *rest)
    return (gx if is_batch or gx is None else gx[0]), gw, gb


def _flat_stride(function: str, name: str, value: Size) -> tuple[int, int]:
    """A 1-D stride or dilation as that of an image of height 1."""
    return 1, per_axis(function, name, value, 1, 1)[0]


def _flat_padding(function: str, padding: Padding) -> Padding:
    """A 1-D padding as that of an image of height 1; a word does not pad an axis of size 1."""
    if isinstance(padding, str):
        return padding
    return (0, 0), paddings(function, padding, (), (1,), (1,), (1,), (1,))[0]


def _flat(function: str, name: str, array: Array) -> Array:
    """`(out, in, taps)` as `(out, in, 1, taps)`."""
    if array.ndim != 3:
        raise ValueError(f"{function}: {name} must have 3 axes, got shape {array.shape}")
    return array[:, :, np.newaxis, :]


def conv1d(
    input: Array,
    weight: Array,
    bias: Array | None = None,
    stride: Size = 1,
    padding: Padding = 0,
    dilation: Size = 1,
    groups: int = 1,
    *,
    padding_mode: str = "zeros",
    algorithm: str = "auto",
    out: Array | None = None,
) -> Array:
    """One-dimensional convolution, that of an image of height 1.

    input (N, C, L) or (C, L), weight (O, C/groups, K), bias (O,) -> (N, O, oL) or (O, oL).
    `padding="causal"` pads `(K - 1)*dilation` before and nothing after: output t sees inputs up to
    t*stride.
    """
    name = "conv1d"
    x, is_batch = batched(name, "input", input, 1)
    steps = (_flat_stride(name, "stride", stride), _flat_padding(name, padding))
    spread = _flat_stride(name, "dilation", dilation)
    kernel = _flat(name, "weight", weight)
    image = x[:, :, np.newaxis]
    y = _conv2d(name, image, kernel, bias, *steps, spread, groups, padding_mode, WORDS_1D)[:, :, 0]
    return deliver(name, y if is_batch else y[0], out)


def conv1d_backward(
    grad_output: Array,
    input: Array,
    weight: Array,
    stride: Size = 1,
    padding: Padding = 0,
    dilation: Size = 1,
    groups: int = 1,
    *,
    padding_mode: str = "zeros",
    algorithm: str = "auto",
    output_mask: Mask = (True, True, True),
) -> Grads:
    """Gradients of `conv1d` for input, weight and bias; None where `output_mask` is False."""
    name = "conv1d_backward"
    x, is_batch = batched(name, "input", input, 1)
    g = grad_output if is_batch else grad_output[np.newaxis]
    gx, gw, gb = _conv2d_backward(
        name,
        _flat(name, "grad_output", g),
        x[:, :, np.newaxis],
        _flat(name, "weight", weight),
        _flat_stride(name, "stride", stride),
        _flat_padding(name, padding),
        _flat_stride(name, "dilation", dilation),
        groups,
        padding_mode,
        output_mask,
        WORDS_1D,
    )
    if gx is not None:
        gx = gx[:, :, 0] if is_batch else gx[0, :, 0]
    return gx, (None if gw is None else gw[:, :, 0]), gb
