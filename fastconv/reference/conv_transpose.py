"""Transposed convolution: the gradient of a convolution, used forwards.

    y[n, o, i*stride + u*dilation - top, j*stride + ...] += w[c, o, u, v] * x[n, c, i, j],   then +
    b[o]

Each input element scatters a copy of the kernel. The windows are those of the convolution that
would lead from the output back to the input.
"""

from __future__ import annotations

import numpy as np

from fastconv.reference._shapes import (
    Array,
    Padding,
    Size,
    batched,
    deliver,
    expect_shape,
    extent,
    paddings,
    per_axis,
    same_dtype,
)
from fastconv.reference.conv import (
    Grads,
    Mask,
    Windows,
    _add_bias,
    _flat,
    _flat_padding,
    _flat_stride,
    _group_channels,
    _masked,
)


def _windows(
    function: str,
    input: Array,
    weight: Array,
    stride: Size,
    padding: Padding,
    output_padding: Size,
    dilation: Size,
) -> Windows:
    """One window on the output for each input element."""
    sizes, kernel = input.shape[2:], weight.shape[2:]
    stride2 = per_axis(function, "stride", stride, 2, 1)
    dilation2 = per_axis(function, "dilation", dilation, 2, 1)
    extra = per_axis(function, "output_padding", output_padding, 2, 0)
    pads = paddings(function, padding, ("valid",), sizes, kernel, stride2, dilation2)
    out_sizes = []
    for size, k, s, d, pair, more in zip(
        sizes, kernel, stride2, dilation2, pads, extra, strict=True
    ):
        if more >= max(s, d):
            raise ValueError(
                f"{function}: output_padding {more} must be less than stride {s} or dilation {d}"
            )
        out_sizes.append((size - 1) * s - sum(pair) + extent(k, d) + more)
    if min(out_sizes) < 1 or min(sizes) < 1:
        raise ValueError(
            f"{function}: input {list(sizes)} gives output {out_sizes}; sizes must be at least 1"
        )
    return Windows(
        (out_sizes[0], out_sizes[1]),
        (kernel[0], kernel[1]),
        (stride2[0], stride2[1]),
        (dilation2[0], dilation2[1]),
        (pads[0], pads[1]),
        (sizes[0], sizes[1]),
    )


def _conv_transpose2d(
    function: str,
    input: Array,
    weight: Array,
    bias: Array | None,
    stride: Size,
    padding: Padding,
    output_padding: Size,
    groups: int,
    dilation: Size,
) -> Array:
    dtype = same_dtype(function, input=input, weight=weight, bias=bias)
    ins, outs = _group_channels(function, input, weight, groups, transposed=True)
    windows = _windows(function, input, weight, stride, padding, output_padding, dilation)
    output = np.zeros((len(input), weight.shape[1] * len(ins), *windows.sizes), dtype)
    for i, j, (rows, cols), (u, v) in windows:
        for c, o in zip(ins, outs, strict=True):
            output[:, o, rows, cols] += np.tensordot(
                input[:, c, i, j], weight[c, :, u, v], axes=(1, 0)
            )
    _add_bias(function, output, bias)
    return output


def _conv_transpose2d_backward(
    function: str,
    grad_output: Array,
    input: Array,
    weight: Array,
    stride: Size,
    padding: Padding,
    output_padding: Size,
    groups: int,
    dilation: Size,
    output_mask: Mask,
) -> Grads:
    dtype = same_dtype(function, grad_output=grad_output, input=input, weight=weight)
    ins, outs = _group_channels(function, input, weight, groups, transposed=True)
    windows = _windows(function, input, weight, stride, padding, output_padding, dilation)
    shape = (len(input), weight.shape[1] * len(ins), *windows.sizes)
    expect_shape(function, "grad_output", grad_output, shape)
    grad_input = np.zeros(input.shape, dtype)
    grad_weight = np.zeros(weight.shape, dtype)
    for i, j, (rows, cols), (u, v) in windows:
        for c, o in zip(ins, outs, strict=True):
            g = grad_output[:, o, rows, cols]  # (batch, output channels of the group, taps, taps)
            grad_input[:, c, i, j] = np.tensordot(
                g, weight[c, :, u, v], axes=([1, 2, 3], [1, 2, 3])
            )
            grad_weight[c, :, u, v] += np.tensordot(input[:, c, i, j], g, axes=(0, 0))
    return _masked((grad_input, grad_weight, grad_output.sum(axis=(0, 2, 3))), output_mask)


def conv_transpose2d(
    input: Array,
    weight: Array,
    bias: Array | None = None,
    stride: Size = 1,
    padding: Padding = 0,
    output_padding: Size = 0,
    groups: int = 1,
    dilation: Size = 1,
    *,
    out: Array | None = None,
) -> Array:
    """Two-dimensional transposed convolution: each input element scatters the kernel.

    input (N, C, H, W) or (C, H, W), weight (C, O/groups, kH, kW), bias (O,) -> (N, O, oH, oW) or
    (O, oH, oW), oH = (H - 1)*stride - top - bottom + (kH - 1)*dilation + 1 + output_padding.
    """
    name = "conv_transpose2d"
    x, is_batch = batched(name, "input", input, 2)
    y = _conv_transpose2d(name, x, weight, bias, stride, padding, output_padding, groups, dilation)
    return deliver(name, y if is_batch else y[0], out)


def conv_transpose2d_backward(
    grad_output: Array,
    input: Array,
    weight: Array,
    stride: Size = 1,
    padding: Padding = 0,
    output_padding: Size = 0,
    groups: int = 1,
    dilation: Size = 1,
    *,
    output_mask: Mask = (True, True, True),
) -> Grads:
    """Gradients of `conv_transpose2d` for input, weight and bias; None where masked off."""
    name = "conv_transpose2d_backward"
    x, is_batch = batched(name, "input", input, 2)
    g = grad_output if is_batch else grad_output[np.newaxis]
    rest = (stride, padding, output_padding, groups, dilation, output_mask)
    gx, gw, gb = _conv_transpose2d_backward(name, g, x, weight, *rest)
    return (gx if is_batch or gx is None else gx[0]), gw, gb


def conv_transpose1d(
    input: Array,
    weight: Array,
    bias: Array | None = None,
    stride: Size = 1,
    padding: Padding = 0,
    output_padding: Size = 0,
    groups: int = 1,
    dilation: Size = 1,
    *,
    out: Array | None = None,
) -> Array:
    """One-dimensional transposed convolution.

    input (N, C, L) or (C, L), weight (C, O/groups, K), bias (O,) -> (N, O, oL) or (O, oL).
    """
    name = "conv_transpose1d"
    x, is_batch = batched(name, "input", input, 1)
    steps = (_flat_stride(name, "stride", stride), _flat_padding(name, padding))
    extra = (0, per_axis(name, "output_padding", output_padding, 1, 0)[0])
    spread = _flat_stride(name, "dilation", dilation)
    kernel = _flat(name, "weight", weight)
    image = x[:, :, np.newaxis]
    y = _conv_transpose2d(name, image, kernel, bias, *steps, extra, groups, spread)[:, :, 0]
    return deliver(name, y if is_batch else y[0], out)


def conv_transpose1d_backward(
    grad_output: Array,
    input: Array,
    weight: Array,
    stride: Size = 1,
    padding: Padding = 0,
    output_padding: Size = 0,
    groups: int = 1,
    dilation: Size = 1,
    *,
    output_mask: Mask = (True, True, True),
) -> Grads:
    """Gradients of `conv_transpose1d` for input, weight and bias; None where masked off."""
    name = "conv_transpose1d_backward"
    x, is_batch = batched(name, "input", input, 1)
    g = grad_output if is_batch else grad_output[np.newaxis]
    gx, gw, gb = _conv_transpose2d_backward(
        name,
        _flat(name, "grad_output", g),
        x[:, :, np.newaxis],
        _flat(name, "weight", weight),
        _flat_stride(name, "stride", stride),
        _flat_padding(name, padding),
        (0, per_axis(name, "output_padding", output_padding, 1, 0)[0]),
        groups,
        _flat_stride(name, "dilation", dilation),
        output_mask,
    )
    if gx is not None:
        gx = gx[:, :, 0] if is_batch else gx[0, :, 0]
    return gx, (None if gw is None else gw[:, :, 0]), gb
