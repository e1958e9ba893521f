"""Convolution in one and two dimensions, and its gradients."""

from __future__ import annotations

from math import inf
from typing import Any

import numpy as np

from .. import _core
from .._messages import shown
from . import _checks as check
from ._checks import Array, Pads
from ._conv_plan import NO_PADS, Algorithm, Geometry, PaddingMode, checked_bias, prepare
from ._memory import add, copy_into, new_array

Gradients = tuple[Array | None, Array | None, Array | None]


def _pad_argument(pads: Pads) -> tuple[int, ...]:
    """Per-axis pairs -> the flat, last-axis-first form of `pad`."""
    return tuple(p for pair in reversed(pads) for p in pair)


def _is_padded(pads: Pads) -> bool:
    return pads not in NO_PADS.values()


def _padded_input(x: Array, pads: Pads, padding_mode: str) -> Array:
    if not _is_padded(pads):
        return x
    from .padding import pad

    return pad(x, _pad_argument(pads), mode=padding_mode)


def _checked_out(
    function: str,
    out: Any,
    shape: tuple[int, ...],
    had_batch: bool,
    like: Array,
    **inputs: Array | None,
) -> Array:
    """`out` with a batch axis."""
    result = check.check_out(function, out, shape if had_batch else shape[1:], like.dtype)
    check.no_overlap(function, result, **inputs)
    return result if had_batch else result[None]


def _forward(
    function: str,
    axes: int,
    input: Any,
    weight: Any,
    bias: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: Any,
    padding_mode: Any,
    algorithm: Any,
    out: Any,
    clamp: tuple[float, float] = (-inf, inf),
) -> Array:
    x, w, had_batch, (shape, geometry, extra_pads) = prepare(
        function, axes, input, weight, stride, padding, dilation, groups, padding_mode, algorithm
    )
    b = None if bias is None else checked_bias(function, bias, w, w.shape[0])
    if out is None:
        y = check.empty(function, shape, x.dtype, check.is_channels_last(x))
    else:
        y = _checked_out(function, out, shape, had_batch, x, input=x, weight=w, bias=b)
    if padding_mode != "zeros":
        x = _padded_input(x, extra_pads, padding_mode)
    _core.conv2d(x, w, b, y, geometry, *clamp)
    if out is not None:
        return out  # type: ignore[no-any-return]
    return y if had_batch else y[0]


def clamped(
    axes: int,
    input: Array,
    weight: Array,
    bias: Array | None,
    clamp: tuple[float, float],
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
    padding_mode: str,
) -> Array:
    """min(max(conv1d or conv2d, lower), upper) in one pass, for layers."""
    options = stride, padding, dilation, groups, padding_mode, "auto", None
    return _forward(f"conv{axes}d", axes, input, weight, bias, *options, clamp)


def gradients(
    axes: int,
    grad_output: Array,
    input: Array,
    weight: Array,
    output_mask: tuple[bool, bool, bool],
    added: Array | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
    padding_mode: str,
) -> Gradients:
    """Those of conv1d or conv2d, for layers; `added`, of input's shape, is added to the first."""
    options = stride, padding, dilation, groups, padding_mode, "auto", output_mask, added
    return _backward(f"conv{axes}d_backward", axes, grad_output, input, weight, *options)


_POOLED_BYTES = 32  # of a row of taps: one vector of the kernel that multiplies by winners


def pooled_weight_gradient(
    grad_output: Array,
    taps: Array,
    pool_input: tuple[int, ...],
    pool: tuple[tuple[int, ...], tuple[int, ...]],
    input: Array,
    weight: Array,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
    padding_mode: str,
) -> Array | None:
    """That of conv2d before a maximum pool; None where the gradient between them is needed.

    grad_output: of the pool's result; taps, pool_input: what the pool kept; pool: its output sizes
    and windows. Layers that were changed since get None too, and the old way's messages.
    """
    if padding_mode != "zeros" or weight[0, :, 0].nbytes > _POOLED_BYTES:
        return None
    options = stride, padding, dilation, groups, padding_mode, "auto"
    x, w, _, plan = prepare("conv2d_backward", 2, input, weight, *options)
    g, (images, channels) = grad_output, grad_output.shape[:2]
    sizes, windows = pool
    fits = plan.output_shape == (images, channels, *pool_input) and g.shape[2:] == sizes
    if not fits or g.dtype != w.dtype:
        return None
    if taps.shape != (images, *sizes, channels):  # by planes, see pool._tap_shape
        planes = np.moveaxis(taps, -1, 1).reshape(-1, *sizes)[: images * channels]
        taps = np.ascontiguousarray(np.moveaxis(planes.reshape(g.shape), 1, -1))
    if g.strides[1] != g.itemsize:
        g = check.empty("conv2d_backward", g.shape, g.dtype, True)
        copy_into(g, grad_output)
    grad_weight = new_array(w.shape, w.dtype)
    geometry = plan.output_shape, plan.geometry, windows
    done = _core.conv2d_pooled_grad_weight(g, taps, x, grad_weight, *geometry)
    return grad_weight if done else None


def _mask(function: str, output_mask: Any) -> tuple[bool, bool, bool]:
    if not isinstance(output_mask, (tuple, list)) or len(output_mask) != 3:
        raise ValueError(
            f"{function}: output_mask must be three bools (input, weight, bias), "
            f"got {shown(output_mask)}"
        )
    return bool(output_mask[0]), bool(output_mask[1]), bool(output_mask[2])


def _grad_output(
    function: str, grad_output: Any, like: Array, had_batch: bool, shape: tuple[int, ...]
) -> Array:
    g = check.float_array(function, "grad_output", grad_output)
    check.same_dtype(function, "grad_output", g, "input", like)
    expected = shape if had_batch else shape[1:]
    if g.shape != expected:
        raise ValueError(
            f"{function}: grad_output must have the shape of the output, {expected}, got {g.shape}"
        )
    return g if had_batch else g[None]


def _channel_sum(g: Array) -> Array:
    total = np.empty(g.shape[1], g.dtype)
    _core.channel_sum(g, total)
    return total


def _backward(
    function: str,
    axes: int,
    grad_output: Any,
    input: Any,
    weight: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: Any,
    padding_mode: Any,
    algorithm: Any,
    output_mask: Any,
    added: Array | None = None,
) -> Gradients:
    want_input, want_weight, want_bias = _mask(function, output_mask)
    x, w, had_batch, (shape, geometry, extra_pads) = prepare(
        function, axes, input, weight, stride, padding, dilation, groups, padding_mode, algorithm
    )
    g = _grad_output(function, grad_output, x, had_batch, shape)
    # Arrays first: Python is slow after a kernel, which pushes Python's own data out of the caches.
    grad_weight = new_array(w.shape, w.dtype) if want_weight else None
    grad_input = _unwritten_gradient(function, x, extra_pads) if want_input else None
    if grad_weight is not None:
        seen = x if padding_mode == "zeros" else _padded_input(x, extra_pads, padding_mode)
        _core.conv2d_grad_weight(g, seen, grad_weight, geometry)
    if grad_input is not None:
        fits = added is not None and _is_addable(added, grad_input, geometry)
        _core.conv2d_grad_input(g, w, None, grad_input, geometry, added if fits else None)
        if _is_padded(extra_pads):
            from .padding import pad_backward

            pads = _pad_argument(extra_pads)
            grad_input = pad_backward(grad_input, x.shape, pads, mode=padding_mode)
        grad_input = grad_input if had_batch else grad_input[0]
        if added is not None and not fits:
            grad_input = add(grad_input, added, True)
    return grad_input, grad_weight, _channel_sum(g) if want_bias else None


def _unwritten_gradient(function: str, x: Array, extra_pads: Pads) -> Array:
    """For the input's gradient, in its format. With a padding mode: for the padded input's."""
    shape = x.shape
    if _is_padded(extra_pads):
        shape = *shape[:2], *(s + sum(p) for s, p in zip(shape[2:], extra_pads, strict=True))
    return check.empty(function, shape, x.dtype, check.is_channels_last(x))


def _is_addable(added: Array, grad_input: Array, geometry: Geometry) -> bool:
    """Whether the kernels can add it in the same pass."""
    return (
        added.shape == grad_input.shape
        and added.strides == grad_input.strides
        and added.dtype is grad_input.dtype
        and geometry[:2] == (1, 1)
        and check.is_channels_last(grad_input)
    )


def conv1d(
    input: Array,
    weight: Array,
    bias: Array | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    *,
    padding_mode: PaddingMode = "zeros",
    algorithm: Algorithm = "auto",
    out: Array | None = None,
) -> Array:
    """Cross-correlate signals with kernels: what networks call a 1-D convolution.

    ``y[n, k, i] = bias[k] + sum_{c, u} weight[k, c, u] * x[n, c, i*stride + u*dilation - before]``

    Parameters
    ----------
    input : ndarray, shape (N, C, L) or (C, L), float32 or float64
    weight : ndarray, shape (K, C / groups, k)
    bias : ndarray, shape (K,), optional
    stride, dilation : int
    padding : int, ((before, after),), "valid", "same", "same_lower", "full" or "causal"
        "same" gives ``ceil(L / stride)`` outputs, the odd element of padding at the end
        (ONNX SAME_UPPER); "causal" pads ``dilation * (k - 1)`` before, so that output i sees inputs
        up to ``i * stride``.
    groups : int
        Divides C and K; output group g sees input group g.
    padding_mode : {"zeros", "reflect", "replicate", "circular", "symmetric"}
    algorithm : {"auto", "direct", "winograd"}
    out : ndarray, optional
        Written and returned.

    Returns
    -------
    ndarray, shape (N, K, L_out) or (K, L_out)
        ``L_out = floor((L + before + after - dilation * (k - 1) - 1) / stride) + 1``, in the memory
        format of `input`.

    Raises
    ------
    TypeError
        An argument is no float32 or float64 array, dtypes differ, or an integer argument is no int.
    ValueError
        Shapes do not fit each other, or the kernel does not fit the padded input.

    Examples
    --------
    >>> x = np.array([[[1.0, 2.0, 3.0, 4.0]]])
    >>> conv1d(x, np.array([[[1.0, 0.0, -1.0]]]))
    array([[[-2., -2.]]])
    """
    return _forward(
        "conv1d",
        1,
        input,
        weight,
        bias,
        stride,
        padding,
        dilation,
        groups,
        padding_mode,
        algorithm,
        out,
    )


def conv1d_backward(
    grad_output: Array,
    input: Array,
    weight: Array,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    *,
    padding_mode: PaddingMode = "zeros",
    algorithm: Algorithm = "auto",
    output_mask: tuple[bool, bool, bool] = (True, True, True),
) -> Gradients:
    """Gradients of `conv1d` with respect to input, weight and bias.

    Parameters
    ----------
    grad_output : ndarray, shape (N, K, L_out) or (K, L_out)
    input, weight, stride, padding, dilation, groups, padding_mode, algorithm
        As given to `conv1d`.
    output_mask : three bools
        Which of (grad_input, grad_weight, grad_bias) to compute; the others are None.

    Returns
    -------
    (grad_input, grad_weight, grad_bias)
        Shapes of input, weight and (K,).

    Raises
    ------
    TypeError, ValueError
        As `conv1d`; also when `grad_output` does not have the shape of the output.
    """
    return _backward(
        "conv1d_backward",
        1,
        grad_output,
        input,
        weight,
        stride,
        padding,
        dilation,
        groups,
        padding_mode,
        algorithm,
        output_mask,
    )


def conv2d(
    input: Array,
    weight: Array,
    bias: Array | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    *,
    padding_mode: PaddingMode = "zeros",
    algorithm: Algorithm = "auto",
    out: Array | None = None,
) -> Array:
    """Cross-correlate images with kernels: what networks call a 2-D convolution.

    ``y[n, k, i, j] = bias[k] + sum_{c, u, v} weight[k, c, u, v]
    * x[n, c, i * sh + u * dh - top, j * sw + v * dw - left]``

    Parameters
    ----------
    input : ndarray, shape (N, C, H, W) or (C, H, W), float32 or float64
    weight : ndarray, shape (K, C / groups, kH, kW)
    bias : ndarray, shape (K,), optional
    stride, dilation : int or (int, int)
    padding : int, (int, int), ((top, bottom), (left, right)), "valid", "same", "same_lower", "full"
        "same" gives ``ceil(size / stride)`` outputs, the odd row and column of padding at the end
        (ONNX SAME_UPPER, TensorFlow; torch at stride 1).
    groups : int
        Divides C and K; output group g sees input group g. ``groups == C`` is a depthwise
        convolution.
    padding_mode : {"zeros", "reflect", "replicate", "circular", "symmetric"}
    algorithm : {"auto", "direct", "winograd"}
        "winograd" (Lavin and Gray 2015) does fewer multiplications with a larger rounding error. It
        serves kernels of up to 16x16 and of one row or column of 2 to 64 taps with stride 1, and,
        with dilation 1, with a stride below their size: squares up to 4, lines up to 16 (up to 5
        taps for each step of the stride, lines 10 or more); "auto" takes it where it is faster.
    out : ndarray, optional
        Written and returned.

    Returns
    -------
    ndarray, shape (N, K, H_out, W_out) or (K, H_out, W_out)
        ``H_out = floor((H + top + bottom - dh * (kH - 1) - 1) / sh) + 1``, in the memory format of
        `input`: channels-last when the channels of `input` lie next to each other.

    Raises
    ------
    TypeError
        An argument is no float32 or float64 array, dtypes differ, or an integer argument is no int.
    ValueError
        Shapes do not fit each other, the kernel does not fit the padded input, or the algorithm
        cannot serve them.
    """
    return _forward(
        "conv2d",
        2,
        input,
        weight,
        bias,
        stride,
        padding,
        dilation,
        groups,
        padding_mode,
        algorithm,
        out,
    )


def conv2d_backward(
    grad_output: Array,
    input: Array,
    weight: Array,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    *,
    padding_mode: PaddingMode = "zeros",
    algorithm: Algorithm = "auto",
    output_mask: tuple[bool, bool, bool] = (True, True, True),
) -> Gradients:
    """Gradients of `conv2d` with respect to input, weight and bias.

    Parameters
    ----------
    grad_output : ndarray, shape (N, K, H_out, W_out) or (K, H_out, W_out)
    input, weight, stride, padding, dilation, groups, padding_mode, algorithm
        As given to `conv2d`.
    output_mask : three bools
        Which of (grad_input, grad_weight, grad_bias) to compute; the others are None.

    Returns
    -------
    (grad_input, grad_weight, grad_bias)
        Shapes of input, weight and (K,).

    Raises
    ------
    TypeError, ValueError
        As `conv2d`; also when `grad_output` does not have the shape of the output.
    """
    return _backward(
        "conv2d_backward",
        2,
        grad_output,
        input,
        weight,
        stride,
        padding,
        dilation,
        groups,
        padding_mode,
        algorithm,
        output_mask,
    )
