"""Linear layer: y[..., o] = bias[o] + sum_k weight[o, k] * input[..., k].

The matrix products are NumPy's (its BLAS library): the bits of a result may depend on the number
of rows, and the threads are those of that library.
"""

from __future__ import annotations

import math

import numpy as np

from fastconv.functional._arrays import empty_ordered
from fastconv.functional._checks import Array, check_out, float_array, no_overlap, same_dtype


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
    w = np.ascontiguousarray(w)
    with np.errstate(all="ignore"):  # infinities and NaN are values like others
        if y.flags.c_contiguous:
            np.matmul(_rows(x), w.T, out=y.reshape(math.prod(shape[:-1]), shape[-1]))
        else:
            y[...] = np.matmul(_rows(x), w.T).reshape(shape)
        if b is not None:
            y += b
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
    with np.errstate(all="ignore"):
        grad_input = np.matmul(grad_rows, w).reshape(x.shape)
        return grad_input, np.matmul(grad_rows.T, rows), grad_rows.sum(axis=0)


def _operands(function: str, input: Array, weight: Array) -> tuple[Array, Array]:
    """Input and weight, checked. Callers make the weight contiguous: BLAS sees one layout only."""
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
            f"(input {x.shape}, weight {w.shape})"
        )
    return x, w


def _rows(array: Array) -> Array:
    """(..., features) -> (rows, features), C-contiguous."""
    rows = array.reshape(math.prod(array.shape[:-1]), array.shape[-1])
    return np.ascontiguousarray(rows)
