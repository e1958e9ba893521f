"""Losses of two equal arrays: squared error, and binary cross entropy of logits."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv.functional._arrays import choice, in_order, memory_order
from fastconv.functional._checks import Array, float_array, same_dtype
from fastconv.functional._reduction import REDUCTIONS, grad_of_losses, mean


def mse_loss(input: Array, target: Array, reduction: str = "mean") -> Any:
    """Squared error (input - target)**2.

    Parameters
    ----------
    input : ndarray
        Any shape, float32 or float64.
    target : ndarray
        Shape and dtype of `input`; it is not broadcast.
    reduction : {"mean", "sum", "none"}
        "mean" divides by the number of entries; the mean over nothing is NaN.

    Returns
    -------
    numpy scalar or ndarray
        A scalar of the input's dtype; for "none" an array of the input's shape.

    Raises
    ------
    ValueError
        Shapes that differ, an unknown reduction.
    TypeError
        Arrays that are not float32 or float64, or of different dtypes.
    """
    x, t = _pair("mse_loss", input, target, reduction)
    with np.errstate(all="ignore"):
        difference = x - t
        return _reduce(difference * difference, input, reduction)


def mse_loss_backward(
    grad_output: Any, input: Array, target: Array, reduction: str = "mean"
) -> Array:
    """Gradient of `mse_loss` with respect to input: 2 * (input - target).

    Parameters
    ----------
    grad_output : float or ndarray
        Gradient of the loss: a number, or for reduction "none" an array of the input's shape.
    input, target, reduction
        As given to `mse_loss`.

    Returns
    -------
    ndarray
        Shape, dtype and memory format of `input`.

    Raises
    ------
    ValueError, TypeError
        As `mse_loss`; also when `grad_output` does not fit.
    """
    name = "mse_loss_backward"
    x, t = _pair(name, input, target, reduction)
    scale = _scale(name, grad_output, x, reduction)
    with np.errstate(all="ignore"):
        return in_order((x - t) * (2 * scale), memory_order(input))


def binary_cross_entropy_with_logits(
    input: Array,
    target: Array,
    weight: Array | None = None,
    reduction: str = "mean",
    pos_weight: Array | None = None,
) -> Any:
    """Binary cross entropy: -weight * (pos_weight * t * log(s) + (1 - t) * log(1 - s)).

    s = sigmoid(input), t = target; -log(s) = softplus(-input) and -log(1 - s) = softplus(input)
    are computed without overflow or cancellation.

    Parameters
    ----------
    input : ndarray
        Logits of any shape, float32 or float64.
    target : ndarray
        Shape and dtype of `input`, in 0 to 1 (not checked, as in torch).
    weight, pos_weight : ndarray, optional
        Factor of each loss, and of its positive part; broadcast to the shape of `input`.
    reduction : {"mean", "sum", "none"}
        "mean" divides by the number of entries; the mean over nothing is NaN.

    Returns
    -------
    numpy scalar or ndarray
        A scalar of the input's dtype; for "none" an array of the input's shape.

    Raises
    ------
    ValueError
        Shapes that do not fit, an unknown reduction.
    TypeError
        Arrays that are not float32 or float64, or of different dtypes.
    """
    name = "binary_cross_entropy_with_logits"
    x, t = _pair(name, input, target, reduction)
    w = _factor(name, "weight", weight, x)
    p = _factor(name, "pos_weight", pos_weight, x)
    with np.errstate(all="ignore"):
        tail = np.log1p(np.exp(-np.abs(x)))  # softplus(x) - max(x, 0), the same for -x
        positive = t if p is None else t * p
        losses = positive * (tail + np.maximum(-x, 0)) + (1 - t) * (tail + np.maximum(x, 0))
        return _reduce(losses if w is None else losses * w, input, reduction)


def binary_cross_entropy_with_logits_backward(
    grad_output: Any,
    input: Array,
    target: Array,
    weight: Array | None = None,
    reduction: str = "mean",
    pos_weight: Array | None = None,
) -> Array:
    """Gradient of `binary_cross_entropy_with_logits` with respect to input.

    weight * ((1 - t) * s - pos_weight * t * (1 - s)).

    Parameters
    ----------
    grad_output : float or ndarray
        Gradient of the loss: a number, or for reduction "none" an array of the input's shape.
    input, target, weight, reduction, pos_weight
        As given to `binary_cross_entropy_with_logits`.

    Returns
    -------
    ndarray
        Shape, dtype and memory format of `input`.

    Raises
    ------
    ValueError, TypeError
        As `binary_cross_entropy_with_logits`; also when `grad_output` does not fit.
    """
    name = "binary_cross_entropy_with_logits_backward"
    x, t = _pair(name, input, target, reduction)
    w = _factor(name, "weight", weight, x)
    p = _factor(name, "pos_weight", pos_weight, x)
    scale = _scale(name, grad_output, x, reduction)
    with np.errstate(all="ignore"):
        small = np.exp(-np.abs(x))
        large = 1 / (1 + small)  # sigmoid(|x|)
        small *= large  # sigmoid(-|x|)
        above = x >= 0
        slope = (1 - t) * np.where(above, large, small)
        slope -= (t if p is None else t * p) * np.where(above, small, large)
        if w is not None:
            slope *= w
        return in_order(slope * scale, memory_order(input))


def _pair(function: str, input: Any, target: Any, reduction: Any) -> tuple[Array, Array]:
    """Input and target, checked and C-contiguous: the bits depend on the values alone."""
    choice(function, "reduction", reduction, REDUCTIONS)
    x = float_array(function, "input", input)
    t = float_array(function, "target", target)
    same_dtype(function, "target", t, "input", x)
    if t.shape != x.shape:
        raise ValueError(
            f"{function}: target must have the input's shape {x.shape}, got {t.shape} "
            f"(nothing is broadcast)"
        )
    return np.asarray(x, order="C"), np.asarray(t, order="C")


def _factor(function: str, name: str, value: Any, x: Array) -> Array | None:
    """An optional factor that broadcasts to the shape of x."""
    if value is None:
        return None
    factor = float_array(function, name, value)
    same_dtype(function, name, factor, "input", x)
    try:
        return np.broadcast_to(factor, x.shape)
    except ValueError:
        raise ValueError(
            f"{function}: {name} must broadcast to the input's shape {x.shape}, got {factor.shape}"
        ) from None


def _reduce(losses: Array, input: Array, reduction: str) -> Any:
    if reduction == "none":
        return in_order(np.asarray(losses), memory_order(input))
    total = np.sum(losses)
    return total if reduction == "sum" else mean(total, losses.size)


def _scale(function: str, grad_output: Any, x: Array, reduction: str) -> Array:
    """The gradient of every loss, or one number for all."""
    g = grad_of_losses(function, grad_output, x.shape, x, reduction)
    return g / max(x.size, 1) if reduction == "mean" else np.asarray(g, order="C")
