"""Batch normalisation, forward and backward (Ioffe & Szegedy 2015).

y = (x - mean) / sqrt(var + eps) * weight + bias, by channel. Sums run in a fixed order, whatever
the threads and the memory format, and are combined in float64: a mean that is large against the
standard deviation costs no accuracy beyond that of the input itself.
"""

from __future__ import annotations

import math
from math import prod

import numpy as np

from fastconv import _core
from fastconv.functional._checks import (
    Array,
    check_out,
    empty,
    flag,
    float_array,
    is_channels_last,
    no_overlap,
    number,
    same_dtype,
)

ByChannel = tuple[Array | None, Array | None, Array | None, Array | None]
Clamp = tuple[float, float]

_BY_CHANNEL = "running_mean", "running_var", "weight", "bias"
NO_CLAMP: Clamp = (-math.inf, math.inf)


def batch_norm(
    input: Array,
    running_mean: Array | None,
    running_var: Array | None,
    weight: Array | None = None,
    bias: Array | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    out: Array | None = None,
) -> Array:
    """Normalise each channel.

    Parameters
    ----------
    input : ndarray
        `(N, C)` or `(N, C, ...)`, float32 or float64.
    running_mean, running_var : ndarray or None
        `(C,)`. With `training` they are updated in place to
        `(1 - momentum) * running + momentum * batch` (the variance unbiased) unless None; without,
        they are the statistics to use.
    weight, bias : ndarray, optional
        `(C,)`; default 1 and 0.
    training : bool
        Use the mean and the biased variance of the batch.
    momentum : float
        Weight of this batch in the running statistics.
    eps : float
        Added to the variance; at least 0.
    out : ndarray, optional
        Array of input's shape and dtype to write; may be `input` itself.

    Returns
    -------
    ndarray
        Of input's shape. An empty batch gives an empty result and leaves the running statistics.

    Raises
    ------
    ValueError
        Shapes that do not fit, one value per channel in training, missing running statistics, a
        negative eps.
    TypeError
        Arrays that are not float32 or float64, or of different dtypes.
    """
    per_channel = running_mean, running_var, weight, bias
    return _forward(input, per_channel, training, momentum, eps, out, None)


def batch_norm_backward(
    grad_output: Array,
    input: Array,
    running_mean: Array | None,
    running_var: Array | None,
    weight: Array | None = None,
    bias: Array | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> tuple[Array, Array | None, Array | None]:
    """Gradients of `batch_norm`.

    Parameters
    ----------
    grad_output : ndarray
        Gradient of the result, of input's shape.
    input, running_mean, running_var, weight, bias, training, momentum, eps
        As given to `batch_norm`; with `training` the statistics are computed again from `input`,
        and the running ones are not touched.

    Returns
    -------
    grad_input : ndarray
        Of input's shape.
    grad_weight, grad_bias : ndarray or None
        `(C,)`; None where `weight` or `bias` is None.

    Raises
    ------
    ValueError, TypeError
        As in `batch_norm`.
    """
    per_channel = running_mean, running_var, weight, bias
    return _backward(grad_output, input, per_channel, training, eps, None)[:3]


# ---- for layers: the batch's statistics kept between forward and backward ------------------------


def _batch_norm_saved(
    input: Array,
    running_mean: Array | None,
    running_var: Array | None,
    weight: Array | None,
    bias: Array | None,
    training: bool,
    momentum: float,
    eps: float,
    clamp: Clamp = NO_CLAMP,
    residual: Array | None = None,
    out: Array | None = None,
) -> tuple[Array, Array]:
    """clamp(batch_norm + residual), and the float64 (2, C) array that the backward needs.

    clamp: (lower, upper), (0, inf) for a ReLU; the same bits as one function after the other.
    residual: an array of input's shape and dtype, or None. out: None or `input`.
    """
    saved = np.empty((2, *input.shape[1:2]), np.float64)
    per_channel = running_mean, running_var, weight, bias
    y = _forward(input, per_channel, training, momentum, eps, out, saved, clamp, residual)
    return y, saved


def _batch_norm_saved_backward(
    grad_output: Array,
    input: Array,
    saved: Array,
    weight: Array | None,
    bias: Array | None,
    training: bool,
    clamp: Clamp = NO_CLAMP,
    output: Array | None = None,
    owns_input: bool = False,
    owns_grad: bool = False,
) -> tuple[Array, Array | None, Array | None, Array]:
    """Gradients of input, weight, bias and residual in two passes over the input.

    output: what `_batch_norm_saved` returned, where it added a residual. Without a clamp the last
    gradient is `grad_output` itself. owns_input, owns_grad: the two may be written over.
    """
    per_channel = None, None, weight, bias
    own = owns_input, owns_grad
    return _backward(grad_output, input, per_channel, training, 0.0, saved, clamp, output, own)


# ---- shared --------------------------------------------------------------------------------------


def _input(function: str, input: Array, training: bool) -> Array:
    flag(function, "training", training)
    x = float_array(function, "input", input)
    if x.ndim < 2:
        raise ValueError(f"{function}: input must be (N, C) or (N, C, ...), got shape {x.shape}")
    if training and x.size and x.size == x.shape[1]:
        raise ValueError(
            f"{function}: training needs more than 1 value per channel, got input {x.shape}; "
            "use a larger batch, or training=False (a layer: eval())"
        )
    return x


def _by_channel(function: str, x: Array, arrays: ByChannel) -> ByChannel:
    """running_mean, running_var, weight, bias as contiguous arrays of input's dtype."""
    dtype, shape = x.dtype, x.shape[1:2]
    for value in arrays:  # those of a layer are right in nearly every call
        if value is not None and not (
            type(value) is np.ndarray
            and value.dtype is dtype
            and value.shape == shape
            and value.flags.carray
        ):
            break
    else:
        return arrays
    checked: list[Array | None] = []
    for name, value in zip(_BY_CHANNEL, arrays, strict=True):
        if value is None:
            checked.append(None)
            continue
        array = float_array(function, name, value)
        same_dtype(function, name, array, "input", x)
        if array.shape != shape:
            raise ValueError(
                f"{function}: {name} must have shape {shape}, one entry per channel of "
                f"input {x.shape}, (N, C, ...), got {array.shape}"
            )
        checked.append(np.ascontiguousarray(array))
    return checked[0], checked[1], checked[2], checked[3]


def _image(array: Array) -> Array:
    """(N, C) -> (1, C, N), more than two spatial axes -> (N, C, L); a view where there is one."""
    if array.ndim == 2:
        return array.T[None]
    if array.ndim > 4:
        return array.reshape(*array.shape[:2], prod(array.shape[2:]))
    return array


def _empty_like(function: str, x: Array) -> Array:
    """An uninitialised array of x's shape, channels-last where x is."""
    if x.ndim == 2:
        return np.empty(x.shape, x.dtype)
    if x.ndim <= 4:
        return empty(function, x.shape, x.dtype, is_channels_last(x))
    n, c, *spatial = x.shape
    if is_channels_last(x):
        return np.moveaxis(np.empty((n, *spatial, c), x.dtype), -1, 1)
    return np.empty(x.shape, x.dtype)


def _writeable(function: str, arrays: ByChannel) -> None:
    for name, array in zip(("running_mean", "running_var"), arrays[:2], strict=True):
        if array is not None and not array.flags.writeable:
            raise ValueError(f"{function}: {name} is read-only, training updates it in place")


def _forward(
    input: Array,
    per_channel: ByChannel,
    training: bool,
    momentum: float,
    eps: float,
    out: Array | None,
    saved: Array | None,
    clamp: Clamp = NO_CLAMP,
    residual: Array | None = None,
) -> Array:
    name = "batch_norm"
    x = _input(name, input, training)
    arrays = _by_channel(name, x, per_channel)
    momentum, eps = number(name, "momentum", momentum), number(name, "eps", eps, 0)
    if training:
        if arrays is not per_channel:
            _writeable(name, per_channel)
    elif arrays[0] is None or arrays[1] is None:
        raise ValueError(
            f"{name}: running_mean and running_var must be arrays when training is False"
        )
    if out is None:
        y = _empty_like(name, x)
    else:
        y = check_out(name, out, x.shape, x.dtype)
        no_overlap(name, y, **dict(zip(_BY_CHANNEL, per_channel, strict=True)))
        if y is not input:
            no_overlap(name, y, input=input)
    image, target = _image(x), _image(y)
    merges = x.ndim <= 4 or np.may_share_memory(target, y)
    if not merges:  # more than two spatial axes that are not one
        target = np.empty(image.shape, x.dtype)
    added = None if residual is None else _image(residual)
    _core.batch_norm(image, added, target, arrays, training, momentum, eps, saved, clamp)
    if not merges:
        y[...] = target.reshape(y.shape)
    if training and arrays is not per_channel:  # running statistics that had to be copied
        for given, used in zip(per_channel[:2], arrays[:2], strict=True):
            if given is not None and used is not None and used is not given:
                given[...] = used
    return y


def _backward(
    grad_output: Array,
    input: Array,
    per_channel: ByChannel,
    training: bool,
    eps: float,
    saved: Array | None,
    clamp: Clamp = NO_CLAMP,
    output: Array | None = None,
    own: tuple[bool, bool] = (False, False),
) -> tuple[Array, Array | None, Array | None, Array]:
    """Gradients of input, weight, bias and residual; that of the residual may be grad_output.

    own: whether input and grad_output may be written over. A line that has been read is in the
    cache, while one of another array would have to be fetched before it is written.
    """
    name = "batch_norm_backward"
    x = _input(name, input, training)
    g = float_array(name, "grad_output", grad_output)
    same_dtype(name, "grad_output", g, "input", x)
    if g.shape != x.shape:
        raise ValueError(f"{name}: grad_output must have shape {x.shape} as input, got {g.shape}")
    if saved is not None and (saved.shape != (2, *x.shape[1:2]) or saved.dtype != np.float64):
        raise ValueError(f"{name}: saved must be float64 (2, C), got {saved.shape}")
    arrays = _by_channel(name, x, per_channel)
    eps = number(name, "eps", eps, 0)
    if not training and saved is None and (arrays[0] is None or arrays[1] is None):
        raise ValueError(
            f"{name}: running_mean and running_var must be arrays when training is False"
        )
    over_x = own[0] and x.ndim <= 4 and x.flags.writeable
    over_g = own[1] and g.strides == x.strides and g.ndim <= 4 and g.flags.writeable
    grad_input = x if over_x else g if over_g and output is None else _empty_like(name, x)
    grad_weight = None if arrays[2] is None else np.empty(x.shape[1], x.dtype)
    grad_bias = None if arrays[3] is None else np.empty(x.shape[1], x.dtype)
    grad_residual, y, gated = g, None, None
    if output is not None and clamp != NO_CLAMP:
        grad_residual = g if over_g else _empty_like(name, x)
        y, gated = _image(output), _image(grad_residual)
    _core.batch_norm_grad(
        _image(g),
        _image(x),
        y,
        _image(grad_input),
        gated,
        grad_weight,
        grad_bias,
        arrays,
        training,
        eps,
        saved,
        clamp,
    )
    return grad_input, grad_weight, grad_bias, grad_residual
