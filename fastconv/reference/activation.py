"""Activations and their gradients, each as its formula. A NaN goes through all of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from fastconv.reference._shapes import Array, deliver, expect_shape, expect_word, same_dtype


def _apply(
    function: str, formula: Callable[[Array], Any], input: Array, out: Array | None
) -> Array:
    result = np.asarray(formula(input)).astype(input.dtype.newbyteorder("="))
    return deliver(function, result, out)


def _chain(function: str, grad_output: Array, input: Array, slope: Any) -> Array:
    """grad_input = grad_output * slope."""
    dtype = same_dtype(function, grad_output=grad_output, input=input)
    expect_shape(function, "grad_output", grad_output, input.shape)
    return np.asarray(grad_output * slope).astype(dtype)


def _gate(function: str, grad_output: Array, input: Array, closed: Array) -> Array:
    """grad_output where the gate is open, 0 where it is closed, whatever grad_output is there."""
    dtype = same_dtype(function, grad_output=grad_output, input=input)
    expect_shape(function, "grad_output", grad_output, input.shape)
    return np.where(closed, 0, grad_output).astype(dtype)


def relu(input: Array, *, out: Array | None = None) -> Array:
    """max(x, 0)."""
    return _apply("relu", lambda x: np.where(x <= 0, 0, x), input, out)


def relu_backward(grad_output: Array, input: Array) -> Array:
    """Gradient of `relu`: 0 where x <= 0."""
    return _gate("relu_backward", grad_output, input, input <= 0)


def relu6(input: Array, *, out: Array | None = None) -> Array:
    """min(max(x, 0), 6)."""
    return _apply("relu6", lambda x: np.where(x <= 0, 0, np.where(x >= 6, 6, x)), input, out)


def relu6_backward(grad_output: Array, input: Array) -> Array:
    """Gradient of `relu6`: 0 where x <= 0 or x >= 6."""
    return _gate("relu6_backward", grad_output, input, (input <= 0) | (input >= 6))


def leaky_relu(input: Array, negative_slope: float = 0.01, *, out: Array | None = None) -> Array:
    """x where x > 0, negative_slope * x elsewhere."""
    return _apply("leaky_relu", lambda x: np.where(x > 0, x, negative_slope * x), input, out)


def leaky_relu_backward(grad_output: Array, input: Array, negative_slope: float = 0.01) -> Array:
    """Gradient of `leaky_relu`: negative_slope where x <= 0."""
    return _chain("leaky_relu_backward", grad_output, input, np.where(input > 0, 1, negative_slope))


def _sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)), with the exponential of a number <= 0 only, which cannot overflow."""
    e = np.exp(-np.abs(x))
    return np.asarray(np.where(x >= 0, 1, e) / (1 + e))


def sigmoid(input: Array, *, out: Array | None = None) -> Array:
    """1 / (1 + exp(-x))."""
    return _apply("sigmoid", _sigmoid, input, out)


def sigmoid_backward(grad_output: Array, input: Array) -> Array:
    """Gradient of `sigmoid`: s * (1 - s), the second factor as the sigmoid of -x."""
    return _chain("sigmoid_backward", grad_output, input, _sigmoid(input) * _sigmoid(-input))


def tanh(input: Array, *, out: Array | None = None) -> Array:
    """(exp(x) - exp(-x)) / (exp(x) + exp(-x))."""
    return _apply("tanh", np.tanh, input, out)


def tanh_backward(grad_output: Array, input: Array) -> Array:
    """Gradient of `tanh`: 1 - tanh(x)**2."""
    return _chain("tanh_backward", grad_output, input, 1 - np.tanh(input) ** 2)


def silu(input: Array, *, out: Array | None = None) -> Array:
    """x * sigmoid(x) (Elfwing, Uchibe & Doya 2018)."""
    return _apply("silu", lambda x: x * _sigmoid(x), input, out)


def silu_backward(grad_output: Array, input: Array) -> Array:
    """Gradient of `silu`: s + x * s * (1 - s)."""
    s = _sigmoid(input)
    return _chain("silu_backward", grad_output, input, s + input * s * _sigmoid(-input))


_erf = np.vectorize(math.erf, otypes=[np.float64])


def _tanh_argument(x: Array) -> Array:
    return np.asarray(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))


def _gelu(x: Array, approximate: str) -> Array:
    if approximate == "tanh":
        return np.asarray(0.5 * x * (1 + np.tanh(_tanh_argument(x))))
    return np.asarray(0.5 * x * (1 + _erf(x / math.sqrt(2))))


def gelu(input: Array, approximate: str = "none", *, out: Array | None = None) -> Array:
    """x * Phi(x), Phi the normal distribution function (Hendrycks & Gimpel 2016), or "tanh"."""
    expect_word("gelu", "approximate", approximate, ("none", "tanh"))
    return _apply("gelu", lambda x: _gelu(x, approximate), input, out)


def gelu_backward(grad_output: Array, input: Array, approximate: str = "none") -> Array:
    """Gradient of `gelu`: Phi(x) + x * phi(x), or the derivative of the tanh formula."""
    expect_word("gelu_backward", "approximate", approximate, ("none", "tanh"))
    x = input
    if approximate == "tanh":
        t = np.tanh(_tanh_argument(x))
        inner = math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x**2)
        slope = 0.5 * (1 + t) + 0.5 * x * (1 - t**2) * inner
    else:
        density = np.exp(-0.5 * x**2) / math.sqrt(2 * math.pi)
        slope = 0.5 * (1 + _erf(x / math.sqrt(2))) + x * density
    return _chain("gelu_backward", grad_output, input, slope)


def _axis(function: str, input: Array, dim: int | None) -> int:
    if dim is None:
        if input.ndim > 2:
            raise TypeError(f"{function}: dim must be given for {input.ndim} axes")
        dim = -1
    if not -input.ndim <= dim < input.ndim:
        raise ValueError(f"{function}: dim {dim} is out of range for shape {input.shape}")
    return dim


def _log_softmax(x: Array, dim: int) -> Array:
    if not x.size:
        return x
    shifted = x - x.max(axis=dim, keepdims=True)  # the greatest exponent is 0: no overflow
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=dim, keepdims=True)))


def softmax(input: Array, dim: int | None = None, *, out: Array | None = None) -> Array:
    """exp(x) / sum(exp(x)) along `dim`."""
    axis = _axis("softmax", input, dim)
    return _apply("softmax", lambda x: np.exp(_log_softmax(x, axis)), input, out)


def softmax_backward(grad_output: Array, input: Array, dim: int | None = None) -> Array:
    """Gradient of `softmax`: s * (g - sum(g * s))."""
    axis = _axis("softmax_backward", input, dim)
    expect_shape("softmax_backward", "grad_output", grad_output, input.shape)
    s = np.exp(_log_softmax(input, axis))
    total = (grad_output * s).sum(axis=axis, keepdims=True)
    return _chain("softmax_backward", grad_output - total, input, s)


def log_softmax(input: Array, dim: int | None = None, *, out: Array | None = None) -> Array:
    """x - log(sum(exp(x))) along `dim`."""
    axis = _axis("log_softmax", input, dim)
    return _apply("log_softmax", lambda x: _log_softmax(x, axis), input, out)


def log_softmax_backward(grad_output: Array, input: Array, dim: int | None = None) -> Array:
    """Gradient of `log_softmax`: g - softmax(x) * sum(g)."""
    axis = _axis("log_softmax_backward", input, dim)
    expect_shape("log_softmax_backward", "grad_output", grad_output, input.shape)
    s = np.exp(_log_softmax(input, axis))
    return _chain(
        "log_softmax_backward",
        grad_output - s * grad_output.sum(axis=axis, keepdims=True),
        input,
        1,
    )
