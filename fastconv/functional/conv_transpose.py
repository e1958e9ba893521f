"""Transposed convolution: the gradient of a convolution in its input, as a forward function."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .. import _core
from .._messages import shown
from . import _checks as check
from ._checks import Array
from ._conv_plan import check_weight, checked_bias, core_geometry, weight_layout
from .conv import Gradients, _channel_sum, _checked_out, _grad_output, _mask


class _Call(NamedTuple):
    input: Array
    weight: Array
    had_batch: bool
    output_shape: tuple[int, ...]
    geometry: tuple[int, int, int, int, int, int, int, int]


def _prepare(
    function: str,
    axes: int,
    input: Any,
    weight: Any,
    stride: Any,
    padding: Any,
    output_padding: Any,
    groups: Any,
    dilation: Any,
) -> _Call:
    x = check.float_array(function, "input", input)
    w = check.float_array(function, "weight", weight)
    layout = weight_layout(axes, transposed=True)
    check_weight(function, w.shape, axes, layout)
    check.same_dtype(function, "weight", w, "input", x)
    given = x.shape
    x, had_batch = check.batched(function, "input", x, axes)
    groups = check.integer(function, "groups", groups, 1)
    if x.shape[1] != w.shape[0]:
        raise check.wrong_channels(function, given, w.shape, groups, w.shape[0], layout)
    if w.shape[0] % groups:
        raise ValueError(
            f"{function}: groups must divide in_channels, got groups {groups}, weight {w.shape}"
        )
    if 0 in x.shape[2:]:
        raise ValueError(f"{function}: input must not have an empty spatial axis, got {given}")
    stride = check.per_axis(function, "stride", stride, axes)
    dilation = check.per_axis(function, "dilation", dilation, axes)
    extra = check.per_axis(function, "output_padding", output_padding, axes, 0)
    if isinstance(padding, str):
        if padding != "valid":
            raise ValueError(
                f"{function}: padding must be an int, a tuple or 'valid', got {shown(padding)}"
            )
        padding = 0
    pads = check.explicit_padding(function, padding, axes)
    sizes = []
    for size, k, s, d, e, (before, after) in zip(
        x.shape[2:], w.shape[2:], stride, dilation, extra, pads, strict=True
    ):
        if e >= max(s, d):
            raise ValueError(
                f"{function}: output_padding must be less than stride or dilation, got {e} "
                f"(stride {s}, dilation {d})"
            )
        sizes.append((size - 1) * s - before - after + d * (k - 1) + 1 + e)
        if sizes[-1] < 1:
            raise ValueError(
                f"{function}: the output would have size {sizes[-1]}: "
                "(in - 1) * stride - padding + dilation * (k - 1) + 1 + output_padding "
                "must be at least 1 "
                f"(input {x.shape}, weight {w.shape}, padding {pads})"
            )
    shape = (x.shape[0], w.shape[1] * groups, *sizes)
    check.addressable(function, sizes, pads, max(x.shape[1], shape[1]), w.shape, w.itemsize)
    return _Call(x, w, had_batch, shape, core_geometry(stride, dilation, pads, groups, "auto"))


def _forward(
    function: str,
    axes: int,
    input: Any,
    weight: Any,
    bias: Any,
    stride: Any,
    padding: Any,
    output_padding: Any,
    groups: Any,
    dilation: Any,
    out: Any,
) -> Array:
    call = _prepare(
        function, axes, input, weight, stride, padding, output_padding, groups, dilation
    )
    x, w = call.input, call.weight
    b = checked_bias(function, bias, w, call.output_shape[1])
    if out is None:
        y = check.empty(function, call.output_shape, x.dtype, check.is_channels_last(x))
    else:
        shape, had_batch = call.output_shape, call.had_batch
        y = _checked_out(function, out, shape, had_batch, x, input=x, weight=w, bias=b)
    _core.conv2d_grad_input(x, w, b, y, call.geometry)
    if out is not None:
        return out  # type: ignore[no-any-return]
    return y if call.had_batch else y[0]


def _backward(
    function: str,
    axes: int,
    grad_output: Any,
    input: Any,
    weight: Any,
    stride: Any,
    padding: Any,
    output_padding: Any,
    groups: Any,
    dilation: Any,
    output_mask: Any,
) -> Gradients:
    want_input, want_weight, want_bias = _mask(function, output_mask)
    call = _prepare(
        function, axes, input, weight, stride, padding, output_padding, groups, dilation
    )
    g = _grad_output(function, grad_output, call.input, call.had_batch, call.output_shape)
    grad_input = grad_weight = None
    if want_input:
        last = check.is_channels_last(call.input)
        grad_input = check.empty(function, call.input.shape, g.dtype, last)
        _core.conv2d(g, call.weight, None, grad_input, call.geometry)
        if not call.had_batch:
            grad_input = grad_input[0]
    if want_weight:
        grad_weight = np.empty(call.weight.shape, call.weight.dtype)
        _core.conv2d_grad_weight(call.input, g, grad_weight, call.geometry)
    return grad_input, grad_weight, _channel_sum(g) if want_bias else None


def conv_transpose1d(
    input: Array,
    weight: Array,
    bias: Array | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
    *,
    out: Array | None = None,
) -> Array:
    """Spread signals over kernels: the adjoint of `conv1d` ("deconvolution").

    Parameters
    ----------
    input : ndarray, shape (N, C, L) or (C, L), float32 or float64
    weight : ndarray, shape (C, K / groups, k)
    bias : ndarray, shape (K,), optional
    stride, dilation : int
    padding : int or ((before, after),)
        Elements cut from the ends of the output.
    output_padding : int
        Elements added at the end of the output; less than stride or dilation.
    groups : int
    out : ndarray, optional

    Returns
    -------
    ndarray, shape (N, K, L_out) or (K, L_out)
        ``L_out = (L - 1) * stride - before - after + dilation * (k - 1) + 1 + output_padding``

    Raises
    ------
    TypeError, ValueError
        As `conv1d`; also when the output would be empty.
    """
    return _forward(
        "conv_transpose1d",
        1,
        input,
        weight,
        bias,
        stride,
        padding,
        output_padding,
        groups,
        dilation,
        out,
    )


def conv_transpose1d_backward(
    grad_output: Array,
    input: Array,
    weight: Array,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
    *,
    output_mask: tuple[bool, bool, bool] = (True, True, True),
) -> Gradients:
    """Gradients of `conv_transpose1d` with respect to input, weight and bias.

    Parameters
    ----------
    grad_output : ndarray, shape of the output
    input, weight, stride, padding, output_padding, groups, dilation
        As given to `conv_transpose1d`.
    output_mask : three bools
        Which gradients to compute; the others are None.

    Returns
    -------
    (grad_input, grad_weight, grad_bias)

    Raises
    ------
    TypeError, ValueError
        As `conv_transpose1d`.
    """
    return _backward(
        "conv_transpose1d_backward",
        1,
        grad_output,
        input,
        weight,
        stride,
        padding,
        output_padding,
        groups,
        dilation,
        output_mask,
    )


def conv_transpose2d(
    input: Array,
    weight: Array,
    bias: Array | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
    *,
    out: Array | None = None,
) -> Array:
    """Spread images over kernels: the adjoint of `conv2d` ("deconvolution", Zeiler et al. 2010).

    Parameters
    ----------
    input : ndarray, shape (N, C, H, W) or (C, H, W), float32 or float64
    weight : ndarray, shape (C, K / groups, kH, kW)
    bias : ndarray, shape (K,), optional
    stride, dilation : int or (int, int)
    padding : int, (int, int) or ((top, bottom), (left, right))
        Rows and columns cut from the borders of the output.
    output_padding : int or (int, int)
        Rows and columns added at the end of the output; less than stride or dilation.
    groups : int
    out : ndarray, optional

    Returns
    -------
    ndarray, shape (N, K, H_out, W_out) or (K, H_out, W_out)
        ``H_out = (H - 1) * sh - top - bottom + dh * (kH - 1) + 1 + output_padding``

    Raises
    ------
    TypeError, ValueError
        As `conv2d`; also when the output would be empty.
    """
    return _forward(
        "conv_transpose2d",
        2,
        input,
        weight,
        bias,
        stride,
        padding,
        output_padding,
        groups,
        dilation,
        out,
    )


def conv_transpose2d_backward(
    grad_output: Array,
    input: Array,
    weight: Array,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
    *,
    output_mask: tuple[bool, bool, bool] = (True, True, True),
) -> Gradients:
    """Gradients of `conv_transpose2d` with respect to input, weight and bias.

    Parameters
    ----------
    grad_output : ndarray, shape of the output
    input, weight, stride, padding, output_padding, groups, dilation
        As given to `conv_transpose2d`.
    output_mask : three bools
        Which gradients to compute; the others are None.

    Returns
    -------
    (grad_input, grad_weight, grad_bias)

    Raises
    ------
    TypeError, ValueError
        As `conv_transpose2d`.
    """
    return _backward(
        "conv_transpose2d_backward",
        2,
        grad_output,
        input,
        weight,
        stride,
        padding,
        output_padding,
        groups,
        dilation,
        output_mask,
    )
