"""Linear layer: y[..., o] = bias[o] + sum_k weight[o, k] * input[..., k].

Each output is one sum in the order of k, whatever the number of rows and threads.
"""

from __future__ import annotations

import math

import numpy as np

from fastconv import _core
from fastconv.functional._arrays import empty_ordered
from fastconv.functional._checks import Array, check_out, float_array, no_overlap, same_dtype
from fastconv.functional._memory import new_array


def linear(
    input: Array, weight: Array, bias: Array | None = None, *, out: Array | None = None
) -> Array:
    """Matrix product with the transposed weight, plus bias.

    Parameters
    ----------
    input : ndarray
        `(..., in_features)`, float32 or float64.
    weight : ndarray
        `(out_features, in_features)`.
    bias : ndarray, optional
        `(out_features,)`.
    out : ndarray, optional
        Array of the result's shape and dtype to write; must not share memory with the inputs.

    Returns
    -------
    ndarray
        `(..., out_features)`.

    Raises
    ------
    ValueError
        Shapes that do not fit.
    TypeError
        Arrays that are not float32 or float64, or of different dtypes.
    MemoryError
        The result is too large to exist.
    """
    x, w = _operands("linear", input, weight)
    shape = (*x.shape[:-1], w.shape[0])
    b = None
    if bias is not None:
        b = float_array("linear", "bias", bias)
        same_dtype("linear", "bias", b, "input", x)
        if b.shape != shape[-1:]:
            raise ValueError(
                f"linear: bias must have shape {shape[-1:]} (weight {w.shape}), got {b.shape}"
            )
    if out is not None:
        y = check_out("linear", out, shape, x.dtype)
        no_overlap("linear", y, input=input, weight=weight, bias=bias)
    else:
        y = empty_ordered("linear", shape, x.dtype, tuple(range(x.ndim)))
    sizes = math.prod(shape[:-1]), shape[-1]
    rows = y.reshape(sizes) if y.flags.c_contiguous else np.empty(sizes, x.dtype)
    b = None if b is None else np.ascontiguousarray(b)
    _product(_rows(x), np.ascontiguousarray(w), b, rows)
    if not y.flags.c_contiguous:
        y[...] = rows.reshape(shape)
    return y


def linear_backward(grad_output: Array, input: Array, weight: Array) -> tuple[Array, Array, Array]:
    """Gradients of `linear`.

    Parameters
    ----------
    grad_output : ndarray
        `(..., out_features)`, gradient of the result.
    input, weight : ndarray
        As given to `linear`.

    Returns
    -------
    grad_input : ndarray
        `(..., in_features)`.
    grad_weight : ndarray
        `(out_features, in_features)`.
    grad_bias : ndarray
        `(out_features,)`.

    Raises
    ------
    ValueError
        Shapes that do not fit.
    TypeError
        Arrays that are not float32 or float64, or of different dtypes.
    """
    name = "linear_backward"
    x, w = _operands(name, input, weight)
    g = float_array(name, "grad_output", grad_output)
    same_dtype(name, "grad_output", g, "input", x)
    shape = (*x.shape[:-1], w.shape[0])
    if g.shape != shape:
        raise ValueError(
            f"{name}: grad_output must have shape {shape} (input {x.shape}, weight {w.shape}), "
            f"got {g.shape}"
        )
    w, rows, grad_rows = np.ascontiguousarray(w), _rows(x), _rows(g)
    grad_input = new_array(rows.shape, x.dtype)
    grad_weight, grad_bias = new_array(w.shape, w.dtype), np.empty(len(w), w.dtype)
    _product(grad_rows, w.T, None, grad_input)
    image = _image(grad_rows)
    _core.conv2d_grad_weight(image, _image(rows), grad_weight[:, :, None, None], _POINTWISE)
    _core.channel_sum(image, grad_bias)
    return grad_input.reshape(x.shape), grad_weight, grad_bias


# Stride, dilation, padding, groups, and the direct algorithm.
_POINTWISE = (1, 1, 1, 1, 0, 0, 1, 1)


def _product(rows: Array, weight: Array, bias: Array | None, out: Array) -> None:
    """out = rows weight^T + bias; a weight whose rows or columns are contiguous."""
    if weight.shape[1]:
        _core.linear(rows[:, :, None], weight[:, :, None], bias, out[:, :, None])
    else:
        out[...] = 0 if bias is None else bias


def _image(rows: Array) -> Array:
    """(rows, features) -> (1, features, 1, rows), channels-last."""
    return rows.T[None, :, None, :]


def _operands(function: str, input: Array, weight: Array) -> tuple[Array, Array]:
    """Input and weight, checked."""
    x = float_array(function, "input", input)
    w = float_array(function, "weight", weight)
    same_dtype(function, "weight", w, "input", x)
    if w.ndim != 2:
        raise ValueError(
            f"{function}: weight must have shape (out_features, in_features), got {w.shape}"
        )
    if x.ndim == 0 or x.shape[-1] != w.shape[1]:
        raise ValueError(
            f"{function}: weight expects {w.shape[1]} features on the last axis of input "
            f"(input {x.shape}, weight {w.shape}){_hint(x, w)}"
        )
    return x, w


def _hint(x: Array, w: Array) -> str:
    """What is likely meant by an input and a weight that do not fit."""
    if x.ndim and x.shape[-1] == w.shape[0]:
        return "; weight is (out_features, in_features): use weight.T if it is transposed"
    if x.ndim > 2 and math.prod(x.shape[1:]) == w.shape[1]:
        return "; use input.reshape(len(input), -1)"
    return ""


def _rows(array: Array) -> Array:
    """(..., features) -> (rows, features), C-contiguous."""
    rows = array.reshape(math.prod(array.shape[:-1]), array.shape[-1])
    return np.ascontiguousarray(rows)
