"""Losses as modules: `value = loss(logits, target)`, then `grad = loss.backward()`."""

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from .. import functional as F
from .._messages import typed
from ..functional import loss as _loss
from ..functional._arrays import choice
from ..functional._checks import LIMIT, float_array, integer, number
from .module import Array, Module

REDUCTIONS = ("mean", "sum", "none")


class _Loss(Module):
    """Keeps what the last call was given, or found out; `backward` gives the gradient of the input.

    With reduction "mean" or "sum" the value is a NumPy scalar and `backward()` needs no argument
    (a number scales the gradient). With "none" the value is an array, and `backward(grad)` takes
    the gradient of every entry.
    """

    function: ClassVar[Any]
    gradient: ClassVar[Any]

    def __init__(self, reduction: str = "mean") -> None:
        self.reduction = choice(type(self).__name__, "reduction", reduction, REDUCTIONS)

    def _options(self) -> dict[str, Any]:
        return {"reduction": self.reduction}

    def forward(self, input: Array, target: Array) -> Any:
        value = self.function(input, target, **self._cast_options(input))
        self._keep(input, target)
        return value

    def _cast_options(self, input: Array) -> dict[str, Any]:
        """The options, their arrays in the input's dtype."""
        dtype = float_array(type(self).__name__, "input", input).dtype
        options = self._options()
        arrays = [name for name, value in options.items() if isinstance(value, np.ndarray)]
        if arrays:
            with np.errstate(over="ignore"):
                options.update({name: options[name].astype(dtype) for name in arrays})
        return options

    def backward(self, grad: Any = None) -> Array:
        """Gradient of the input; `grad` is that of the loss (1 if not given)."""
        if grad is None and self.reduction == "none":
            raise ValueError(
                f"{type(self).__name__}.backward: with reduction 'none' pass grad, an array of "
                "the loss's shape"
            )
        return self._gradient(1.0 if grad is None else grad, *self._take())

    def _gradient(self, grad: Any, *kept: Any) -> Array:
        grad_input: Array = self.gradient(grad, *kept, **self._cast_options(kept[0]))
        return grad_input

    def extra_repr(self) -> str:
        return "" if self.reduction == "mean" else f"reduction={self.reduction!r}"


class CrossEntropyLoss(_Loss):
    """-log softmax(input)[target]: input `(N, C)` or `(N, C, ...)`, as torch.nn's.

    `target` holds class indices `(N, ...)`, or probabilities of the input's shape. `weight` has
    one entry per class; it is cast to the input's dtype. Between `forward` and `backward`
    `target` and `weight` must not change; `input` may, since its softmax is kept.
    """

    weight: Array | None

    def __init__(
        self,
        weight: npt.ArrayLike | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(reduction)
        self.register_buffer("weight", _floats("CrossEntropyLoss: weight", weight))
        self.ignore_index = integer("CrossEntropyLoss", "ignore_index", ignore_index, -LIMIT)
        self.label_smoothing = number("CrossEntropyLoss", "label_smoothing", label_smoothing, 0, 1)

    def forward(self, input: Array, target: Array) -> Any:
        value, kept = _loss.cross_entropy_kept(input, target, **self._cast_options(input))
        self._keep(kept)
        return value

    def _gradient(self, grad: Any, *kept: Any) -> Array:
        return _loss.cross_entropy_kept_backward(grad, *kept)

    def _options(self) -> dict[str, Any]:
        return {
            "weight": self.weight,
            "ignore_index": self.ignore_index,
            "reduction": self.reduction,
            "label_smoothing": self.label_smoothing,
        }


class NLLLoss(_Loss):
    """-input[target] of log-probabilities, as LogSoftmax gives them, and class indices.

    Shapes, `weight` and `ignore_index` as in `CrossEntropyLoss`, which takes logits.
    """

    function, gradient = staticmethod(F.nll_loss), staticmethod(F.nll_loss_backward)
    weight: Array | None

    def __init__(
        self,
        weight: npt.ArrayLike | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
    ) -> None:
        super().__init__(reduction)
        self.register_buffer("weight", _floats("NLLLoss: weight", weight))
        self.ignore_index = integer("NLLLoss", "ignore_index", ignore_index, -LIMIT)

    def _options(self) -> dict[str, Any]:
        return {
            "weight": self.weight,
            "ignore_index": self.ignore_index,
            "reduction": self.reduction,
        }


class BCEWithLogitsLoss(_Loss):
    """Binary cross entropy of sigmoid(input): input and target of one shape, target in 0..1.

    `weight` multiplies every term, `pos_weight` the terms of positive targets; both broadcast and
    are cast to the input's dtype.
    """

    function = staticmethod(F.binary_cross_entropy_with_logits)
    gradient = staticmethod(F.binary_cross_entropy_with_logits_backward)
    weight: Array | None
    pos_weight: Array | None

    def __init__(
        self,
        weight: npt.ArrayLike | None = None,
        reduction: str = "mean",
        pos_weight: npt.ArrayLike | None = None,
    ) -> None:
        super().__init__(reduction)
        self.register_buffer("weight", _floats("BCEWithLogitsLoss: weight", weight))
        self.register_buffer("pos_weight", _floats("BCEWithLogitsLoss: pos_weight", pos_weight))

    def _options(self) -> dict[str, Any]:
        return {
            "weight": self.weight,
            "reduction": self.reduction,
            "pos_weight": self.pos_weight,
        }


class MSELoss(_Loss):
    """(input - target)^2, for input and target of one shape."""

    function, gradient = staticmethod(F.mse_loss), staticmethod(F.mse_loss_backward)


def _floats(who: str, values: npt.ArrayLike | None) -> Array | None:
    if values is None:
        return None
    try:
        array = np.array(values)
    except ValueError:  # lists of several lengths
        array = np.array(None)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{who} must hold real numbers, got {typed(values)}")
    return array.astype(np.float64)
