"""Losses and their gradients. The class axis is axis 1, or axis 0 of an unbatched (C,)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from fastconv.reference._shapes import Array, expect_shape, expect_word, same_dtype
from fastconv.reference.activation import _log_softmax, _sigmoid, log_softmax_backward

REDUCTIONS = ("mean", "sum", "none")


def _reduce(losses: Array, reduction: str, total: Any) -> Any:
    """The losses, their sum, or their sum divided by `total`; the mean over nothing is NaN."""
    if reduction == "none":
        return losses
    if reduction == "sum":
        return losses.sum()
    return losses.sum() / total if total else losses.dtype.type(np.nan)


def _spread(
    function: str, grad_output: Any, shape: tuple[int, ...], reduction: str, total: Any
) -> Any:
    """The gradient of each single loss: the inverse of `_reduce`."""
    if reduction == "none":
        expect_shape(function, "grad_output", np.asarray(grad_output), shape)
        return np.asarray(grad_output)
    expect_shape(function, "grad_output", np.asarray(grad_output), ())
    if reduction == "sum":
        return np.full(shape, grad_output)
    return np.full(shape, grad_output / total if total else 0.0)


class _Classes:
    """Checked arguments of a classification loss, brought to (samples..., classes)."""

    def __init__(
        self,
        function: str,
        input: Array,
        target: Array,
        weight: Array | None,
        ignore_index: int,
        reduction: str,
    ) -> None:
        expect_word(function, "reduction", reduction, REDUCTIONS)
        if input.ndim < 1:
            raise ValueError(
                f"{function}: input must be (C,), (N, C) or (N, C, ...), got shape {input.shape}"
            )
        self.axis = 0 if input.ndim == 1 else 1
        self.dtype = same_dtype(function, input=input, weight=weight)
        self.input = np.moveaxis(input, self.axis, -1)
        self.target = np.asarray(target)
        self.classes = self.input.shape[-1]
        if self.classes < 1:
            raise ValueError(f"{function}: input must have at least 1 class, got {input.shape}")
        self.weight = np.ones(self.classes, self.dtype) if weight is None else weight
        expect_shape(function, "weight", self.weight, (self.classes,))
        self.ignore_index = ignore_index
        self.reduction = reduction
        self.probabilities = self.target.dtype.kind == "f"
        if not self.probabilities:
            self._check_indices(function)

    def _check_indices(self, function: str) -> None:
        if self.target.dtype.kind not in "iu":
            raise TypeError(
                f"{function}: target must be integer class indices, got {self.target.dtype}"
            )
        expect_shape(function, "target", self.target, self.input.shape[:-1])
        wrong = (self.target != self.ignore_index) & (
            (self.target < 0) | (self.target >= self.classes)
        )
        if wrong.any():
            raise ValueError(
                f"{function}: target must lie in 0..{self.classes - 1} "
                f"or be ignore_index {self.ignore_index}, "
                f"got {self.target[wrong].flat[0]}"
            )

    def samples(self) -> Iterator[tuple[tuple[int, ...], int]]:
        """Position and class of every sample that is not ignored."""
        for position in np.ndindex(self.target.shape):
            if self.target[position] != self.ignore_index:
                yield position, int(self.target[position])

    def total(self) -> Any:
        """What "mean" divides by: the weights of the target classes."""
        return sum((self.weight[y] for _, y in self.samples()), self.dtype.type(0))


def nll_loss(
    input: Array,
    target: Array,
    weight: Array | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Any:
    """-weight[y] * input[y] of log-probabilities (N, C), (C,) or (N, C, ...).

    target: class indices (N,), () or (N, ...). "mean" divides by the sum of the weights that occur.
    """
    k = _Classes("nll_loss", input, target, weight, ignore_index, reduction)
    if k.probabilities:
        raise TypeError(f"nll_loss: target must be integer class indices, got {k.target.dtype}")
    losses = np.zeros(k.target.shape, k.dtype)
    for n, y in k.samples():
        losses[n] = -k.weight[y] * k.input[(*n, y)]
    return _reduce(losses, reduction, k.total())


def nll_loss_backward(
    grad_output: Any,
    input: Array,
    target: Array,
    weight: Array | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Array:
    """Gradient of `nll_loss` with respect to input; ignored samples get 0."""
    name = "nll_loss_backward"
    k = _Classes(name, input, target, weight, ignore_index, reduction)
    if k.probabilities:
        raise TypeError(f"{name}: target must be integer class indices, got {k.target.dtype}")
    g = _spread(name, grad_output, k.target.shape, reduction, k.total())
    grad = np.zeros(k.input.shape, k.dtype)
    for n, y in k.samples():
        grad[(*n, y)] = -k.weight[y] * g[n]
    return np.ascontiguousarray(np.moveaxis(grad, -1, k.axis))


def _soft_targets(function: str, k: _Classes, label_smoothing: float) -> tuple[Array, Any]:
    """weight * probability of each class for each sample (0 where ignored), and what "mean" divides
    by.
    """
    if not 0.0 <= label_smoothing <= 1.0:
        raise ValueError(f"{function}: label_smoothing must lie in 0..1, got {label_smoothing}")
    if k.probabilities:
        expect_shape(function, "target", np.moveaxis(k.target, k.axis, -1), k.input.shape)
        same_dtype(function, input=k.input, target=k.target)
        if k.ignore_index >= 0:
            raise ValueError(
                f"{function}: ignore_index {k.ignore_index} needs class indices, "
                "target is probabilities"
            )
        hard, total = np.moveaxis(k.target, k.axis, -1), k.input.size // max(k.classes, 1)
        return ((1 - label_smoothing) * hard + label_smoothing / k.classes) * k.weight, total
    soft = np.zeros(k.input.shape, k.dtype)
    for n, y in k.samples():
        soft[n] = label_smoothing / k.classes
        soft[(*n, y)] += 1 - label_smoothing
    return soft * k.weight, k.total()


def cross_entropy(
    input: Array,
    target: Array,
    weight: Array | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Any:
    """-sum_c weight[c] * t[c] * log_softmax(input)[c] of logits (N, C), (C,) or (N, C, ...).

    target: class indices (N,), () or (N, ...), or probabilities of the input's shape and dtype.
    Smoothing mixes in the uniform distribution. "mean" divides by the sum of the weights that occur
    (probabilities: by the samples).
    """
    k = _Classes("cross_entropy", input, target, weight, ignore_index, reduction)
    soft, total = _soft_targets("cross_entropy", k, label_smoothing)
    log = _log_softmax(k.input, -1)
    # a class that the index does not name takes no part; a probability of 0 is a factor
    counts = True if k.probabilities else soft != 0
    terms = np.multiply(soft, log, out=np.zeros_like(log), where=counts)
    return _reduce(np.asarray(-terms.sum(axis=-1), k.dtype), reduction, total)


def cross_entropy_backward(
    grad_output: Any,
    input: Array,
    target: Array,
    weight: Array | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Array:
    """Gradient of `cross_entropy` for input: the log-softmax gradient of -weight * target."""
    name = "cross_entropy_backward"
    k = _Classes(name, input, target, weight, ignore_index, reduction)
    soft, total = _soft_targets(name, k, label_smoothing)
    g = _spread(name, grad_output, k.input.shape[:-1], reduction, total)
    grad_log = np.asarray(-soft * g[..., np.newaxis], k.dtype)
    grad = log_softmax_backward(grad_log, k.input, -1)
    return np.ascontiguousarray(np.moveaxis(grad, -1, k.axis))


def _check_pair(function: str, input: Array, target: Array, reduction: str) -> None:
    expect_word(function, "reduction", reduction, REDUCTIONS)
    same_dtype(function, input=input, target=target)
    expect_shape(function, "target", target, input.shape)


def mse_loss(input: Array, target: Array, reduction: str = "mean") -> Any:
    """(input - target)**2; target has the shape of input."""
    _check_pair("mse_loss", input, target, reduction)
    return _reduce((input - target) ** 2, reduction, input.size)


def mse_loss_backward(
    grad_output: Any, input: Array, target: Array, reduction: str = "mean"
) -> Array:
    """Gradient of `mse_loss` with respect to input: 2 * (input - target)."""
    _check_pair("mse_loss_backward", input, target, reduction)
    g = _spread("mse_loss_backward", grad_output, input.shape, reduction, input.size)
    return np.asarray(2 * (input - target) * g, input.dtype.newbyteorder("="))


def _one_or(array: Array | None, like: Array, function: str, name: str) -> Array:
    """`array`, or ones; it must broadcast to the shape of `like`."""
    if array is None:
        return np.ones((), like.dtype)
    same_dtype(function, input=like, **{name: array})
    try:
        return np.broadcast_to(array, like.shape)
    except ValueError:
        raise ValueError(
            f"{function}: {name} {array.shape} does not broadcast to input {like.shape}"
        ) from None


def _softplus(x: Array) -> Array:
    """log(1 + exp(x)), with the exponential of a number <= 0 only."""
    return np.asarray(np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))))


def binary_cross_entropy_with_logits(
    input: Array,
    target: Array,
    weight: Array | None = None,
    reduction: str = "mean",
    pos_weight: Array | None = None,
) -> Any:
    """-weight * (pos_weight * t * log(s) + (1 - t) * log(1 - s)), s = sigmoid(input).

    weight and pos_weight broadcast to the input's shape. -log(s) = softplus(-x), -log(1 - s) =
    softplus(x).
    """
    name = "binary_cross_entropy_with_logits"
    _check_pair(name, input, target, reduction)
    w, p = _one_or(weight, input, name, "weight"), _one_or(pos_weight, input, name, "pos_weight")
    losses = w * (p * target * _softplus(-input) + (1 - target) * _softplus(input))
    return _reduce(np.asarray(losses, input.dtype.newbyteorder("=")), reduction, input.size)


def binary_cross_entropy_with_logits_backward(
    grad_output: Any,
    input: Array,
    target: Array,
    weight: Array | None = None,
    reduction: str = "mean",
    pos_weight: Array | None = None,
) -> Array:
    """Gradient with respect to input: weight * ((1 - t) * s - pos_weight * t * (1 - s))."""
    name = "binary_cross_entropy_with_logits_backward"
    _check_pair(name, input, target, reduction)
    w, p = _one_or(weight, input, name, "weight"), _one_or(pos_weight, input, name, "pos_weight")
    g = _spread(name, grad_output, input.shape, reduction, input.size)
    slope = w * ((1 - target) * _sigmoid(input) - p * target * _sigmoid(-input))
    return np.asarray(slope * g, input.dtype.newbyteorder("="))
