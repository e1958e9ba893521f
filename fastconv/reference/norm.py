"""Batch normalisation: each channel gets mean 0 and variance 1 over batch and positions.

    y = (x - mean) / sqrt(var + eps) * weight + bias

(Ioffe & Szegedy 2015.) In training the biased statistics of the batch are used, and the running
statistics move by `momentum` towards the mean and the *unbiased* variance; otherwise the running
statistics are used.
"""

from __future__ import annotations

import numpy as np

from fastconv.reference._shapes import Array, deliver, expect_shape, same_dtype


def _check(
    function: str,
    input: Array,
    running_mean: Array | None,
    running_var: Array | None,
    weight: Array | None,
    bias: Array | None,
    training: bool,
    eps: float,
) -> None:
    per_channel = {
        "running_mean": running_mean,
        "running_var": running_var,
        "weight": weight,
        "bias": bias,
    }
    if input.ndim < 2:
        raise ValueError(
            f"{function}: input must be (N, C) or (N, C, ...), got shape {input.shape}"
        )
    same_dtype(function, input=input, **per_channel)
    for name, array in per_channel.items():
        if array is not None:
            expect_shape(function, name, array, (input.shape[1],))
    if not training and (running_mean is None or running_var is None):
        raise ValueError(
            f"{function}: running_mean and running_var are needed when training is False"
        )
    if not eps >= 0:
        raise ValueError(f"{function}: eps must be at least 0, got {eps!r}")
    if training and input[:, 0].size == 1:
        raise ValueError(
            f"{function}: training needs more than 1 value per channel, got input {input.shape}"
        )


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
    """Normalise each channel of input (N, C, ...); training updates the running statistics.

    running_mean, running_var, weight, bias: (C,) or None; the running ones may be None only in
    training. An empty batch leaves the running statistics as they are.
    """
    _check("batch_norm", input, running_mean, running_var, weight, bias, training, eps)
    output = np.empty(input.shape, input.dtype.newbyteorder("="))
    for c in range(input.shape[1] if input.size else 0):
        x = input[:, c]
        if training:
            mean, var = x.mean(), x.var()
            if running_mean is not None:
                running_mean[c] = (1 - momentum) * running_mean[c] + momentum * mean
            if running_var is not None:
                unbiased = var * x.size / (x.size - 1)
                running_var[c] = (1 - momentum) * running_var[c] + momentum * unbiased
        else:
            assert running_mean is not None
            assert running_var is not None
            mean, var = running_mean[c], running_var[c]
        y = (x - mean) / np.sqrt(var + eps)
        if weight is not None:
            y = y * weight[c]
        output[:, c] = y if bias is None else y + bias[c]
    return deliver("batch_norm", output, out)


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
    """Gradients of `batch_norm` with respect to input, weight and bias (None where those are None).

    With z = (x - mean) / sqrt(var + eps) and g the gradient of z, training subtracts what moves the
    batch's own statistics: grad_x = (g - mean(g) - z * mean(g * z)) / sqrt(var + eps). The running
    statistics are not touched.
    """
    name = "batch_norm_backward"
    _check(name, input, running_mean, running_var, weight, bias, training, eps)
    expect_shape(name, "grad_output", grad_output, input.shape)
    dtype = same_dtype(name, grad_output=grad_output, input=input)
    channels = input.shape[1]
    grad_input = np.zeros(input.shape, dtype)
    grad_weight, grad_bias = np.zeros(channels, dtype), np.zeros(channels, dtype)
    for c in range(channels if input.size else 0):
        x, g = input[:, c], grad_output[:, c]
        if training:
            mean, var = x.mean(), x.var()
        else:
            assert running_mean is not None
            assert running_var is not None
            mean, var = running_mean[c], running_var[c]
        scale = 1 / np.sqrt(var + eps)
        z = (x - mean) * scale
        grad_weight[c], grad_bias[c] = (g * z).sum(), g.sum()
        if weight is not None:
            g = g * weight[c]
        if training:
            g = g - g.mean() - z * (g * z).mean()
        grad_input[:, c] = g * scale
    return grad_input, None if weight is None else grad_weight, None if bias is None else grad_bias
