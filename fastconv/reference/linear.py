"""Linear layer: y[o] = b[o] + sum_k w[o, k] * x[k], for each row of the input."""

from __future__ import annotations

import numpy as np

from fastconv.reference._shapes import Array, deliver, expect_shape, same_dtype


def _check(function: str, input: Array, weight: Array) -> None:
    if weight.ndim != 2:
        raise ValueError(
            f"{function}: weight must be (out_features, in_features), got shape {weight.shape}"
        )
    if input.ndim < 1 or input.shape[-1] != weight.shape[1]:
        raise ValueError(
            f"{function}: weight expects {weight.shape[1]} features on the last axis, "
            f"input has shape {input.shape}"
        )


def linear(
    input: Array, weight: Array, bias: Array | None = None, *, out: Array | None = None
) -> Array:
    """Each output feature is the inner product of the input with its row of the weight.

    input (..., in_features), weight (out_features, in_features), bias (out_features,)
    -> (..., out_features).
    """
    dtype = same_dtype("linear", input=input, weight=weight, bias=bias)
    _check("linear", input, weight)
    output = np.zeros((*input.shape[:-1], len(weight)), dtype)
    for o, row in enumerate(weight):
        output[..., o] = (input * row).sum(axis=-1)
    if bias is not None:
        expect_shape("linear", "bias", bias, (len(weight),))
        output += bias
    return deliver("linear", output, out)


def linear_backward(grad_output: Array, input: Array, weight: Array) -> tuple[Array, Array, Array]:
    """Gradients of `linear` with respect to input, weight and bias."""
    name = "linear_backward"
    dtype = same_dtype(name, grad_output=grad_output, input=input, weight=weight)
    _check(name, input, weight)
    expect_shape(name, "grad_output", grad_output, (*input.shape[:-1], len(weight)))
    rows = int(np.prod(input.shape[:-1]))
    x, g = input.reshape(rows, weight.shape[1]), grad_output.reshape(rows, len(weight))
    grad_input = np.zeros(input.shape, dtype)
    grad_weight = np.zeros(weight.shape, dtype)
    for o, row in enumerate(weight):
        grad_input += grad_output[..., o, np.newaxis] * row
        grad_weight[o] = (g[:, o, np.newaxis] * x).sum(axis=0)
    return grad_input, grad_weight, g.sum(axis=0)
