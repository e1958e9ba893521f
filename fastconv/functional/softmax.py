"""Softmax and its logarithm along an axis, and their gradients, in NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv.functional._checks import LIMIT, Array, check_out, float_array, integer
from fastconv.functional.activation import gradient_like


def softmax(input: Array, dim: int | None = None, *, out: Array | None = None) -> Array:
    """exp(x) / sum(exp(x)) along the axis `dim`.

    Parameters
    ----------
    input : ndarray
        At least one axis, float32 or float64. A line of -inf only gives NaN (torch).
    dim : int, optional
        The axis along which the results sum to 1. It must be given for more than two axes, of
        which torch would take axis 0 of 3 and axis 1 of others; default: the last of `(C,)` and
        `(N, C)`.
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
        An input that is not float32 or float64, or no `dim` for more than two axes.
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
    dim : int, optional
        The axis whose elements share one distribution; may be left out as in `softmax`.

    Returns
    -------
    ndarray
        Gradient of the input: shape, dtype and memory format of `input`.

    Raises
    ------
    TypeError
        An array that is not float32 or float64, two dtypes, or no `dim` for more than two axes.
    ValueError
        `dim` is no axis of the input; or shapes differ.
    """
    x, axis = _along("softmax_backward", input, dim)
    g = gradient_like("softmax_backward", grad_output, x)
    s = np.exp(_log_softmax(x, axis))
    with np.errstate(invalid="ignore"):
        return np.asarray(s * (g - _sum(g * s, axis)))


def log_softmax(input: Array, dim: int | None = None, *, out: Array | None = None) -> Array:
    """x - log(sum(exp(x))) along the axis `dim`.

    Parameters
    ----------
    input : ndarray
        At least one axis, float32 or float64.
    dim : int, optional
        The axis whose elements share one distribution; may be left out as in `softmax`.
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
    dim : int, optional
        The axis whose elements share one distribution; may be left out as in `softmax`.

    Returns
    -------
    ndarray
        Gradient of the input: shape, dtype and memory format of `input`.

    Raises
    ------
    TypeError
        An array that is not float32 or float64, two dtypes, or no `dim` for more than two axes.
    ValueError
        `dim` is no axis of the input; or shapes differ.
    """
    x, axis = _along("log_softmax_backward", input, dim)
    g = gradient_like("log_softmax_backward", grad_output, x)
    with np.errstate(invalid="ignore"):
        return np.asarray(g - np.exp(_log_softmax(x, axis)) * _sum(g, axis))


def _along(function: str, input: Array, dim: Any) -> tuple[Array, int]:
    x = float_array(function, "input", input)
    return x, axis_of(function, dim, x.shape)


def axis_of(function: str, dim: Any, shape: tuple[int, ...]) -> int:
    """What `dim` of softmax and its relatives means for an input of this shape."""
    axes = len(shape)
    if dim is None and axes > 2:
        raise TypeError(
            f"{function}: dim must be given for an input with {axes} axes: the axis along which "
            "the results sum to 1, dim=1 for classes in (N, C, H, W), dim=-1 for the last axis"
        )
    axis = -1 if dim is None else integer(function, "dim", dim, -LIMIT)
    if not -axes <= axis < axes:
        raise ValueError(f"{function}: dim must be an axis of input {shape}, got {axis}")
    return axis


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
