"""Activations and their gradients, element by element. A NaN goes through all of them.

Common to all: `input` is a float32 or float64 array of any shape; the result has its shape, dtype
and memory format; `out` may be `input` itself. A backward function takes the gradient of the result
and the input of the forward one, of equal shape and dtype.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastconv import _core
from fastconv.functional._arrays import choice
from fastconv.functional._checks import (
    LIMIT,
    Array,
    check_out,
    float_array,
    integer,
    number,
    same_dtype,
)
from fastconv.functional._memory import is_gapless, new_like


def relu(input: Array, *, out: Array | None = None) -> Array:
    """max(x, 0).

    Parameters
    ----------
    input : ndarray
        Any shape, float32 or float64.
    out : ndarray, optional
        Array of the same shape and dtype to write; may be `input`.

    Returns
    -------
    ndarray
        Of input's shape.

    Raises
    ------
    TypeError
        An input that is not float32 or float64.
    """
    return _map("relu", _core.RELU, input, out)


def relu_backward(grad_output: Array, input: Array) -> Array:
    """Gradient of `relu`: 0 where input <= 0. The result of `relu` may stand for its input.

    Parameters
    ----------
    grad_output : ndarray
        Gradient of the result; shape and dtype of `input`.
    input : ndarray
        What the forward function took.

    Returns
    -------
    ndarray
        Gradient of the input: shape, dtype and memory format of `input`.

    Raises
    ------
    TypeError
        An array that is not float32 or float64, or two dtypes.
    ValueError
        Shapes differ.
    """
    return _grad("relu_backward", _core.RELU, grad_output, input)


def relu6(input: Array, *, out: Array | None = None) -> Array:
    """min(max(x, 0), 6).

    Parameters
    ----------
    input : ndarray
        Any shape, float32 or float64.
    out : ndarray, optional
        Array of the same shape and dtype to write; may be `input`.

    Returns
    -------
    ndarray
        Shape, dtype and memory format of `input`.

    Raises
    ------
    TypeError
        An array that is not float32 or float64.
    ValueError
        `out` does not fit.
    """
    return _map("relu6", _core.RELU6, input, out)


def relu6_backward(grad_output: Array, input: Array) -> Array:
    """Gradient of `relu6`: 0 where input <= 0 or input >= 6.

    Parameters
    ----------
    grad_output : ndarray
        Gradient of the result; shape and dtype of `input`.
    input : ndarray
        What the forward function took.

    Returns
    -------
    ndarray
        Gradient of the input: shape, dtype and memory format of `input`.

    Raises
    ------
    TypeError
        An array that is not float32 or float64, or two dtypes.
    ValueError
        Shapes differ.
    """
    return _grad("relu6_backward", _core.RELU6, grad_output, input)


def leaky_relu(input: Array, negative_slope: float = 0.01, *, out: Array | None = None) -> Array:
    """x where x > 0, else negative_slope * x.

    Parameters
    ----------
    input : ndarray
        Any shape, float32 or float64.
    negative_slope : float
        Slope below zero.
    out : ndarray, optional
        Array of the same shape and dtype to write; may be `input`.

    Returns
    -------
    ndarray
        Shape, dtype and memory format of `input`.

    Raises
    ------
    TypeError
        An array that is not float32 or float64.
    ValueError
        `out` does not fit.
    """
    slope = number("leaky_relu", "negative_slope", negative_slope)
    return _map("leaky_relu", _core.LEAKY_RELU, input, out, slope)


def leaky_relu_backward(grad_output: Array, input: Array, negative_slope: float = 0.01) -> Array:
    """Gradient of `leaky_relu`: negative_slope where input <= 0.

    Parameters
    ----------
    grad_output : ndarray
        Gradient of the result; shape and dtype of `input`.
    input : ndarray
        What the forward function took.
    negative_slope : float
        Slope below zero.

    Returns
    -------
    ndarray
        Gradient of the input: shape, dtype and memory format of `input`.

    Raises
    ------
    TypeError
        An array that is not float32 or float64, or two dtypes.
    ValueError
        Shapes differ.
    """
    slope = number("leaky_relu_backward", "negative_slope", negative_slope)
    return _grad("leaky_relu_backward", _core.LEAKY_RELU, grad_output, input, slope)


def sigmoid(input: Array, *, out: Array | None = None) -> Array:
    """1 / (1 + exp(-x)).

    Parameters
    ----------
    input : ndarray
        Any shape, float32 or float64.
    out : ndarray, optional
        Array of the same shape and dtype to write; may be `input`.

    Returns
    -------
    ndarray
        Shape, dtype and memory format of `input`.

    Raises
    ------
    TypeError
        An array that is not float32 or float64.
    ValueError
        `out` does not fit.
    """
    return _map("sigmoid", _core.SIGMOID, input, out)


def sigmoid_backward(grad_output: Array, input: Array) -> Array:
    """Gradient of `sigmoid`: s * (1 - s).

    Parameters
    ----------
    grad_output : ndarray
        Gradient of the result; shape and dtype of `input`.
    input : ndarray
        What the forward function took.

    Returns
    -------
    ndarray
        Gradient of the input: shape, dtype and memory format of `input`.

    Raises
    ------
    TypeError
        An array that is not float32 or float64, or two dtypes.
    ValueError
        Shapes differ.
    """
    return _grad("sigmoid_backward", _core.SIGMOID, grad_output, input)


def tanh(input: Array, *, out: Array | None = None) -> Array:
    """Hyperbolic tangent.

    Parameters
    ----------
    input : ndarray
        Any shape, float32 or float64.
    out : ndarray, optional
        Array of the same shape and dtype to write; may be `input`.

    Returns
    -------
    ndarray
        Shape, dtype and memory format of `input`.

    Raises
    ------
    TypeError
        An array that is not float32 or float64.
    ValueError
        `out` does not fit.
    """
    return _map("tanh", _core.TANH, input, out)


def tanh_backward(grad_output: Array, input: Array) -> Array:
    """Gradient of `tanh`: 1 - tanh(x)**2.

    Parameters
    ----------
    grad_output : ndarray
        Gradient of the result; shape and dtype of `input`.
    input : ndarray
        What the forward function took.

    Returns
    -------
    ndarray
        Gradient of the input: shape, dtype and memory format of `input`.

    Raises
    ------
    TypeError
        An array that is not float32 or float64, or two dtypes.
    ValueError
        Shapes differ.
    """
    return _grad("tanh_backward", _core.TANH, grad_output, input)


def silu(input: Array, *, out: Array | None = None) -> Array:
    """x / (1 + exp(-x)) (Elfwing, Uchibe & Doya 2018).

    Parameters
    ----------
    input : ndarray
        Any shape, float32 or float64.
    out : ndarray, optional
        Array of the same shape and dtype to write; may be `input`.

    Returns
    -------
    ndarray
        Shape, dtype and memory format of `input`.

    Raises
    ------
    TypeError
        An array that is not float32 or float64.
    ValueError
        `out` does not fit.
    """
    return _map("silu", _core.SILU, input, out)


def silu_backward(grad_output: Array, input: Array) -> Array:
    """Gradient of `silu`: s + x * s * (1 - s), s the sigmoid of x.

    Parameters
    ----------
    grad_output : ndarray
        Gradient of the result; shape and dtype of `input`.
    input : ndarray
        What the forward function took.

    Returns
    -------
    ndarray
        Gradient of the input: shape, dtype and memory format of `input`.

    Raises
    ------
    TypeError
        An array that is not float32 or float64, or two dtypes.
    ValueError
        Shapes differ.
    """
    return _grad("silu_backward", _core.SILU, grad_output, input)


def gelu(input: Array, approximate: str = "none", *, out: Array | None = None) -> Array:
    """x * Phi(x), Phi the normal distribution (Hendrycks & Gimpel 2016).

    approximate="tanh": x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x**3))) / 2. Other parameters
    as in `relu`.

    Parameters
    ----------
    input : ndarray
        Any shape, float32 or float64.
    approximate : {"none", "tanh"}
        "none": by the error function. "tanh": 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x**3))).
    out : ndarray, optional
        Array of the same shape and dtype to write; may be `input`.

    Returns
    -------
    ndarray
        Shape, dtype and memory format of `input`.

    Raises
    ------
    TypeError
        An array that is not float32 or float64.
    ValueError
        `approximate` is neither "none" nor "tanh".
    """
    return _map("gelu", _gelu("gelu", approximate), input, out)


def gelu_backward(grad_output: Array, input: Array, approximate: str = "none") -> Array:
    """Gradient of `gelu`: Phi(x) + x * phi(x), or the derivative of the tanh formula.

    Parameters
    ----------
    grad_output : ndarray
        Gradient of the result; shape and dtype of `input`.
    input : ndarray
        What the forward function took.
    approximate : {"none", "tanh"}
        "none": by the error function. "tanh": 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x**3))).

    Returns
    -------
    ndarray
        Gradient of the input: shape, dtype and memory format of `input`.

    Raises
    ------
    TypeError
        An array that is not float32 or float64, or two dtypes.
    ValueError
        `approximate` is neither "none" nor "tanh"; or shapes differ.
    """
    return _grad("gelu_backward", _gelu("gelu_backward", approximate), grad_output, input)


def softmax(input: Array, dim: int | None = None, *, out: Array | None = None) -> Array:
    """exp(x) / sum(exp(x)) along the axis `dim`.

    Parameters
    ----------
    input : ndarray
        At least one axis, float32 or float64. A slice of -inf only gives NaN (torch).
    dim : int
        The axis along which the results sum to 1. It must be given: without, torch took axis 1 of
        matrices and images, but 0 of vectors and of 3 axes.
    out : ndarray, optional
        Array of the same shape and dtype to write; may be `input`.

    Returns
    -------
    ndarray
        Of input's shape.

    Raises
    ------
    ValueError
        An axis that input does not have.
    TypeError
        An input that is not float32 or float64.
    """
    x, axis = _along("softmax", input, dim)
    return _deliver("softmax", np.exp(_log_softmax(x, axis)), out)


def softmax_backward(grad_output: Array, input: Array, dim: int | None = None) -> Array:
    """Gradient of `softmax`: s * (g - sum(g * s)).

    Parameters
    ----------
    grad_output : ndarray
        Gradient of the result; shape and dtype of `input`.
    input : ndarray
        What the forward function took.
    dim : int
        The axis whose elements share one distribution; it must be given.

    Returns
    -------
    ndarray
        Gradient of the input: shape, dtype and memory format of `input`.

    Raises
    ------
    TypeError
        An array that is not float32 or float64, or two dtypes.
    ValueError
        `dim` is no axis of the input; or shapes differ.
    """
    x, axis = _along("softmax_backward", input, dim)
    g = _gradient("softmax_backward", grad_output, x)
    s = np.exp(_log_softmax(x, axis))
    with np.errstate(invalid="ignore"):
        return np.asarray(s * (g - _sum(g * s, axis)))


def log_softmax(input: Array, dim: int | None = None, *, out: Array | None = None) -> Array:
    """x - log(sum(exp(x))) along the axis `dim`.

    Parameters
    ----------
    input : ndarray
        Any shape, float32 or float64.
    dim : int
        The axis whose elements share one distribution; it must be given.
    out : ndarray, optional
        Array of the same shape and dtype to write; may be `input`.

    Returns
    -------
    ndarray
        Shape, dtype and memory format of `input`.

    Raises
    ------
    TypeError
        An array that is not float32 or float64.
    ValueError
        `dim` is no axis of the input.
    """
    x, axis = _along("log_softmax", input, dim)
    return _deliver("log_softmax", _log_softmax(x, axis), out)


def log_softmax_backward(grad_output: Array, input: Array, dim: int | None = None) -> Array:
    """Gradient of `log_softmax`: g - softmax(x) * sum(g).

    Parameters
    ----------
    grad_output : ndarray
        Gradient of the result; shape and dtype of `input`.
    input : ndarray
        What the forward function took.
    dim : int
        The axis whose elements share one distribution; it must be given.

    Returns
    -------
    ndarray
        Gradient of the input: shape, dtype and memory format of `input`.

    Raises
    ------
    TypeError
        An array that is not float32 or float64, or two dtypes.
    ValueError
        `dim` is no axis of the input; or shapes differ.
    """
    x, axis = _along("log_softmax_backward", input, dim)
    g = _gradient("log_softmax_backward", grad_output, x)
    with np.errstate(invalid="ignore"):
        return np.asarray(g - np.exp(_log_softmax(x, axis)) * _sum(g, axis))


def mask_of_clamp(
    grad_output: Array, output: Array, clamp: tuple[float, float], owned: bool = False
) -> Array:
    """Gradient of min(max(x, lower), upper), told from its result, for (0, inf) and (0, 6).

    owned: grad_output may be written over.
    """
    code = _core.RELU if clamp[1] == math.inf else _core.RELU6
    g, y = grad_output, output
    same = g.shape == y.shape and g.strides == y.strides and g.dtype is y.dtype
    if owned and same and g.flags.writeable and is_gapless(y):
        _core.elementwise_grad(code, g, y, g, 0.0)
        return g
    return _grad("relu_backward", code, g, y)


# ---- shared --------------------------------------------------------------------------------------


def _gelu(function: str, approximate: str) -> int:
    exact = choice(function, "approximate", approximate, ("none", "tanh")) == "none"
    return _core.GELU if exact else _core.GELU_TANH


def _gapless(x: Array) -> tuple[Array, Array]:
    """x, or a copy of it, that fills its memory without gaps, and an empty array like it."""
    y = new_like(x)
    if x.flags.c_contiguous or x.strides == y.strides:
        return x, y
    copy = new_like(x)
    copy[...] = x
    return copy, y


def _map(function: str, code: int, input: Array, out: Array | None, alpha: float = 0.0) -> Array:
    x = float_array(function, "input", input)
    if out is not None:
        out = check_out(function, out, x.shape, x.dtype)
        if out is x and is_gapless(x):
            _core.elementwise(code, x, x, alpha)
            return out
    x, y = _gapless(x)
    if out is not None and out.strides == y.strides and not np.may_share_memory(out, x):
        y = out
    _core.elementwise(code, x, y, alpha)
    if out is None:
        return y
    if y is not out:
        out[...] = y
    return out


def _gradient(function: str, grad_output: Array, x: Array) -> Array:
    g = float_array(function, "grad_output", grad_output)
    same_dtype(function, "grad_output", g, "input", x)
    if g.shape != x.shape:
        raise ValueError(
            f"{function}: grad_output must have shape {x.shape} as input, got {g.shape}"
        )
    return g


def _grad(function: str, code: int, grad_output: Array, input: Array, alpha: float = 0.0) -> Array:
    x = float_array(function, "input", input)
    g = _gradient(function, grad_output, x)
    x, grad_input = _gapless(x)
    if g.strides != x.strides:
        copy = new_like(x)
        copy[...] = g
        g = copy
    _core.elementwise_grad(code, g, x, grad_input, alpha)
    return grad_input


def _along(function: str, input: Array, dim: Any) -> tuple[Array, int]:
    x = float_array(function, "input", input)
    axis = along(function, dim)
    if not -x.ndim <= axis < x.ndim:
        raise ValueError(f"{function}: dim must be an axis of input {x.shape}, got {axis}")
    return x, axis


def along(function: str, dim: Any) -> int:
    """The argument `dim` of softmax and its relatives. No default serves vectors and images."""
    if dim is None:
        raise TypeError(
            f"{function}: dim must be given: the axis along which the results sum to 1, dim=1 for "
            "classes in (N, C) or (N, C, H, W), dim=-1 for the last axis"
        )
    return integer(function, "dim", dim, -LIMIT)


def _sum(x: Array, axis: int) -> Array:
    """Along one axis, which is kept; in one order for every layout of x."""
    rows = np.ascontiguousarray(np.moveaxis(x, axis, -1))
    return np.moveaxis(rows.sum(axis=-1, keepdims=True), -1, axis)


def _log_softmax(x: Array, axis: int) -> Array:
    y = np.empty_like(x, subok=False)  # before x is read: what has no room ends here
    if y.size == 0:
        return y
    with np.errstate(invalid="ignore"):  # -inf - -inf
        np.subtract(x, x.max(axis=axis, keepdims=True), out=y)  # the greatest exponent is 0
        y -= np.log(_sum(np.exp(y), axis))
    return y


def _deliver(function: str, result: Array, out: Array | None) -> Array:
    if out is None:
        return result
    out = check_out(function, out, result.shape, result.dtype)
    out[...] = result
    return out
