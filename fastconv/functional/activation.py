"""Activations and their gradients, element by element. A NaN goes through all of them.

Common to all: `input` is a float32 or float64 array of any shape; the result has its shape, dtype
and memory format; `out` may be `input` itself. A backward function takes the gradient of the result
and the input of the forward one, of equal shape and dtype.
"""

from __future__ import annotations

import math

import numpy as np

from fastconv import _core
from fastconv.functional._arrays import choice
from fastconv.functional._checks import Array, check_out, float_array, number, same_dtype
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


def gradient_like(function: str, grad_output: Array, x: Array) -> Array:
    g = float_array(function, "grad_output", grad_output)
    same_dtype(function, "grad_output", g, "input", x)
    if g.shape != x.shape:
        raise ValueError(
            f"{function}: grad_output must have shape {x.shape} as input, got {g.shape}"
        )
    return g


def _grad(function: str, code: int, grad_output: Array, input: Array, alpha: float = 0.0) -> Array:
    x = float_array(function, "input", input)
    g = gradient_like(function, grad_output, x)
    x, grad_input = _gapless(x)
    if g.strides != x.strides:
        copy = new_like(x)
        copy[...] = g
        g = copy
    _core.elementwise_grad(code, g, x, grad_input, alpha)
    return grad_input
