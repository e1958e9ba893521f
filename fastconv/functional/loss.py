"""Classification losses: cross entropy and negative log-likelihood, with their gradients.
(The losses of pairs of equal arrays are in `pair_loss`.)

The classes are axis 1 of the input, or axis 0 of an unbatched `(C,)`. Everything is computed on
C-contiguous rows `(samples, C)`: the bits do not depend on the memory format of the input.
log softmax(x)[c] = x[c] - m - log(sum_k exp(x[k] - m)) with m = max(x): no exponential overflows.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastconv.functional._arrays import choice, in_order, memory_order
from fastconv.functional._checks import Array, float_array, integer, number, same_dtype
from fastconv.functional._reduction import REDUCTIONS, grad_of_losses, mean
from fastconv.functional.pair_loss import (
    binary_cross_entropy_with_logits,
    binary_cross_entropy_with_logits_backward,
    mse_loss,
    mse_loss_backward,
)

__all__ = [
    "binary_cross_entropy_with_logits",
    "binary_cross_entropy_with_logits_backward",
    "cross_entropy",
    "cross_entropy_backward",
    "mse_loss",
    "mse_loss_backward",
    "nll_loss",
    "nll_loss_backward",
]


def cross_entropy(
    input: Array,
    target: Array,
    weight: Array | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Any:
    """Cross entropy of logits: -sum_c weight[c] * t[c] * log_softmax(input)[c].

    Parameters
    ----------
    input : ndarray
        Logits `(N, C)`, `(C,)` or `(N, C, d1, ...)`, float32 or float64.
    target : ndarray
        Class indices `(N,)`, `()` or `(N, d1, ...)` of an integer dtype, or class probabilities of
        the input's shape and dtype.
    weight : ndarray, optional
        `(C,)`, a factor for each class.
    ignore_index : int
        Samples with this target count for nothing (class indices only).
    reduction : {"mean", "sum", "none"}
        "mean" divides by the sum of the weights of the target classes, ignored samples left out
        (probabilities: by the number of samples); the mean over nothing is NaN.
    label_smoothing : float
        In 0 to 1: the share of the uniform distribution mixed into the target
        (Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", 2016).

    Returns
    -------
    numpy scalar or ndarray
        A scalar of the input's dtype; for "none" the losses `(N,)`, `()` or `(N, d1, ...)`.

    Raises
    ------
    ValueError
        Shapes that do not fit; a class index that is neither in 0..C-1 nor `ignore_index`;
        `ignore_index >= 0` with probabilities; an unknown reduction; smoothing outside 0 to 1.
    TypeError
        Wrong dtypes; a boolean target.
    """
    options = weight, ignore_index, reduction, label_smoothing
    return cross_entropy_kept(input, target, *options)[0]


def cross_entropy_backward(
    grad_output: Any,
    input: Array,
    target: Array,
    weight: Array | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Array:
    """Gradient of `cross_entropy` with respect to its input.

    Parameters
    ----------
    grad_output : float or ndarray
        Gradient of the loss: a number, or for reduction "none" an array of the losses' shape.
    input, target, weight, ignore_index, reduction, label_smoothing
        As given to `cross_entropy`.

    Returns
    -------
    ndarray
        Shape, dtype and memory format of `input`; 0 for ignored samples.

    Raises
    ------
    ValueError, TypeError
        As `cross_entropy`; also when `grad_output` does not fit.
    """
    name = "cross_entropy_backward"
    c = _Classes(name, input, target, weight, ignore_index, reduction, label_smoothing)
    with np.errstate(all="ignore"):
        scale = c.scale(name, grad_output)
        return _gradient(c, scale, *_softmax_parts(c.rows)[1:])


# ---- for layers: what forward found out, kept for backward ---------------------------------------


def cross_entropy_kept(
    input: Array,
    target: Array,
    weight: Array | None,
    ignore_index: int,
    reduction: str,
    label_smoothing: float,
) -> tuple[Any, Any]:
    """cross_entropy, and what `cross_entropy_kept_backward` needs."""
    c = _Classes("cross_entropy", input, target, weight, ignore_index, reduction, label_smoothing)
    with np.errstate(all="ignore"):
        shifted, exponentials, sums = _softmax_parts(c.rows)
        log_sum, kept = np.log(sums), (c, exponentials, sums)
        if c.index is None:
            terms = c.soft_target() * (log_sum[:, None] - shifted)
            return c.reduce(terms.sum(axis=1)), kept
        losses = log_sum - shifted[c.samples, c.index]
        if c.smoothing or c.weight is not None:
            losses *= (1 - c.smoothing) * c.sample_weight()
        if c.smoothing:
            terms = log_sum[:, None] - shifted
            if c.weight is not None:
                terms *= c.weight
            losses += terms.sum(axis=1) * (c.smoothing / c.classes)
        return c.reduce(losses), kept


def cross_entropy_kept_backward(grad_output: Any, kept: Any) -> Array:
    """cross_entropy_backward of the call that `kept` comes from."""
    c, exponentials, sums = kept
    with np.errstate(all="ignore"):
        scale = c.scale("cross_entropy_backward", grad_output)
        return _gradient(c, scale, exponentials, sums)


def _gradient(c: _Classes, scale: Array, exponentials: Array, sums: Array) -> Array:
    """Of cross_entropy; scale: the gradients of the losses, (samples,) or one for all."""
    if scale.ndim:
        scale = scale[:, None]
    softmax = exponentials / sums[:, None]
    if c.index is None:
        soft = c.soft_target()
        return c.shaped((softmax * soft.sum(axis=1, keepdims=True) - soft) * scale)
    if not c.smoothing and c.weight is None:
        grad = softmax
        grad[c.samples, c.index] -= 1
    else:
        hard = (1 - c.smoothing) * c.sample_weight()
        uniform = c.smoothing / c.classes
        total = hard + uniform * (c.classes if c.weight is None else c.weight.sum())
        grad = softmax * total[:, None]
        grad[c.samples, c.index] -= hard
    if c.smoothing:
        grad -= uniform if c.weight is None else uniform * c.weight
    grad *= scale
    if c.ignored is not None:
        grad[c.ignored] = 0
    return c.shaped(grad)


def nll_loss(
    input: Array,
    target: Array,
    weight: Array | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Any:
    """Negative log-likelihood: -weight[y] * input[y] for the target class y.

    Parameters
    ----------
    input : ndarray
        Log-probabilities `(N, C)`, `(C,)` or `(N, C, d1, ...)`, float32 or float64.
    target : ndarray
        Class indices `(N,)`, `()` or `(N, d1, ...)` of an integer dtype.
    weight, ignore_index, reduction
        As in `cross_entropy`.

    Returns
    -------
    numpy scalar or ndarray
        A scalar of the input's dtype; for "none" the losses, of the target's shape.

    Raises
    ------
    ValueError, TypeError
        As `cross_entropy`; probabilities as target are a TypeError.
    """
    c = _Classes("nll_loss", input, target, weight, ignore_index, reduction)
    with np.errstate(all="ignore"):
        return c.reduce(-c.rows[c.samples, c.indices()] * c.sample_weight())


def nll_loss_backward(
    grad_output: Any,
    input: Array,
    target: Array,
    weight: Array | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Array:
    """Gradient of `nll_loss` with respect to its input.

    Parameters
    ----------
    grad_output : float or ndarray
        Gradient of the loss: a number, or for reduction "none" an array of the losses' shape.
    input, target, weight, ignore_index, reduction
        As given to `nll_loss`.

    Returns
    -------
    ndarray
        Shape, dtype and memory format of `input`; 0 for ignored samples.

    Raises
    ------
    ValueError, TypeError
        As `nll_loss`; also when `grad_output` does not fit.
    """
    name = "nll_loss_backward"
    c = _Classes(name, input, target, weight, ignore_index, reduction)
    grad = np.zeros(c.rows.shape, c.rows.dtype)
    with np.errstate(all="ignore"):
        scale = c.scale(name, grad_output)
        values = -c.sample_weight() * scale  # (samples,)
    if c.ignored is not None:
        values[c.ignored] = 0
    grad[c.samples, c.indices()] = values
    return c.shaped(grad)


class _Classes:
    """Checked arguments of a classification loss, as rows (samples, C).

    index: the class of every sample (0 where ignored), None when the target is probabilities.
    ignored: which samples are ignored, None when there are none.
    """

    def __init__(
        self,
        function: str,
        input: Any,
        target: Any,
        weight: Any,
        ignore_index: Any,
        reduction: Any,
        label_smoothing: Any = 0.0,
    ) -> None:
        x = float_array(function, "input", input)
        if x.ndim == 0 or x.shape[min(x.ndim - 1, 1)] == 0:
            raise ValueError(
                f"{function}: input must have shape (C,), (N, C) or (N, C, ...) with C >= 1, "
                f"got {x.shape}"
            )
        self.reduction = choice(function, "reduction", reduction, REDUCTIONS)
        self.smoothing = number(function, "label_smoothing", label_smoothing, 0, 1)
        self.input, self.axis = x, min(x.ndim - 1, 1)
        self.classes = x.shape[self.axis]
        self.rows = self._to_rows(x)
        self.samples = np.arange(len(self.rows))
        self.loss_shape = x.shape[: self.axis] + x.shape[self.axis + 1 :]
        self.weight = None
        if weight is not None:
            self.weight = float_array(function, "weight", weight)
            same_dtype(function, "weight", self.weight, "input", x)
            if self.weight.shape != (self.classes,):
                raise ValueError(
                    f"{function}: weight must have shape ({self.classes},), one entry per class "
                    f"of input {x.shape}, got {self.weight.shape}"
                )
        self.index: Array | None = None
        self.ignored: Array | None = None
        ignore_index = integer(function, "ignore_index", ignore_index, -(2**63), 2**63 - 1)
        t = np.asarray(target)
        if t.dtype.kind in "iu":
            self._take_indices(function, t, ignore_index)
        elif t.dtype.kind == "f" and function.startswith("cross_entropy"):
            self._take_probabilities(function, t, ignore_index)
        else:
            rule = "or float class probabilities" if function.startswith("cross") else "(N, ...)"
            raise TypeError(
                f"{function}: target must be integer class indices {rule}, got dtype {t.dtype}"
            )

    def _to_rows(self, array: Array) -> Array:
        if array.ndim == 2:
            return np.ascontiguousarray(array)
        moved = np.ascontiguousarray(np.moveaxis(array, self.axis, -1))
        return moved.reshape(math.prod(moved.shape[:-1]), self.classes)

    def _take_indices(self, function: str, target: Array, ignore_index: int) -> None:
        if target.shape != self.loss_shape:
            one_hot = target.shape == self.input.shape
            advice = f"; one-hot: use target.argmax({self.axis})" if one_hot else ""
            raise ValueError(
                f"{function}: target of class indices must have shape {self.loss_shape} for input "
                f"{self.input.shape}, got {target.shape}{advice}"
            )
        flat = target.reshape(-1)
        index = flat.astype(np.intp)
        if flat.size and index.view(np.uintp).max() < self.classes:  # a negative one is a large one
            self.index = index
            if not 0 <= ignore_index < self.classes:
                return
        ignored = flat == ignore_index
        wrong = ((flat < 0) | (flat >= self.classes)) & ~ignored
        if wrong.any():
            raise ValueError(
                f"{function}: target must be in 0..{self.classes - 1} or ignore_index "
                f"{ignore_index}, got {flat[wrong][0]} (input {self.input.shape})"
            )
        if ignored.any():
            self.ignored = ignored
            flat = np.where(ignored, 0, flat)
        self.index = flat.astype(np.intp)

    def _take_probabilities(self, function: str, target: Array, ignore_index: int) -> None:
        t = float_array(function, "target", target)
        if t.shape != self.input.shape:
            raise ValueError(
                f"{function}: target of class probabilities must have the input's shape "
                f"{self.input.shape}, got {t.shape}; class indices need an integer dtype: "
                f"target.astype(int)"
            )
        same_dtype(function, "target", t, "input", self.input)
        if ignore_index >= 0:
            raise ValueError(
                f"{function}: ignore_index must be negative when target holds probabilities, "
                f"got {ignore_index}"
            )
        self._probabilities = self._to_rows(t)

    def indices(self) -> Array:
        assert self.index is not None
        return self.index

    def sample_weight(self) -> Any:
        """The weight of each sample's class, (samples,)."""
        if self.weight is None:
            return np.ones(len(self.rows), self.rows.dtype)
        return self.weight[self.indices()]

    def soft_target(self) -> Array:
        """weight[c] * probability of class c for each sample, (samples, C)."""
        t = self._probabilities
        if self.smoothing:
            t = t * (1 - self.smoothing) + self.smoothing / self.classes
        return t if self.weight is None else t * self.weight

    def total(self) -> Any:
        """What "mean" divides by."""
        if self.index is None:
            return len(self.rows)
        if self.weight is None:
            return len(self.rows) - (0 if self.ignored is None else int(self.ignored.sum()))
        kept = self.sample_weight()
        return kept.sum() if self.ignored is None else kept[~self.ignored].sum()

    def reduce(self, losses: Array) -> Any:
        """The losses (samples,) as `reduction` wants them."""
        if self.ignored is not None:
            losses[self.ignored] = 0
        if self.reduction == "none":
            return losses.reshape(self.loss_shape)
        total = losses.sum()
        return total if self.reduction == "sum" else mean(total, self.total())

    def scale(self, function: str, grad_output: Any) -> Array:
        """The gradient of every sample's loss, (samples,), or () where it is the same for all.

        For callers that ignore floating point errors.
        """
        g = grad_of_losses(function, grad_output, self.loss_shape, self.input, self.reduction)
        if self.reduction == "none":
            return np.ascontiguousarray(g).reshape(-1)
        if self.reduction == "mean":
            total = self.total()
            g = g / total if total else g * 0
        return np.asarray(g, self.rows.dtype)

    def shaped(self, rows: Array) -> Array:
        """(samples, C) -> the shape and memory format of the input."""
        if self.input.ndim == 2 and self.input.flags.c_contiguous:
            return rows
        moved = rows.reshape(*self.loss_shape, self.classes)
        return in_order(np.moveaxis(moved, -1, self.axis), memory_order(self.input))


def _softmax_parts(rows: Array) -> tuple[Array, Array, Array]:
    """x - max(x), exp of that, and its sum, for each row."""
    shifted = rows - rows.max(axis=1, keepdims=True)
    exponentials = np.exp(shifted)
    return shifted, exponentials, exponentials.sum(axis=1)
