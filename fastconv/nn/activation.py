"""Activation layers: ReLU, LeakyReLU, ReLU6, Sigmoid, Tanh, GELU, SiLU, Softmax, LogSoftmax.

`inplace=True` writes the result over the input, as in torch. ReLU, ReLU6 and LeakyReLU tell their
gradient from the result, so they may do it in training too; SiLU needs its input and writes in
place only where nothing is recorded (`eval()`).
"""

import math
from typing import Any, ClassVar

from .. import functional as F
from ..functional._arrays import choice
from ..functional._checks import LIMIT, flag, integer, number
from ..functional.softmax import axis_of
from .module import PASSED, Array, Module


class _Activation(Module):
    """y = function(x) element by element; keeps x, or y where that serves as well."""

    function: ClassVar[Any]
    gradient: ClassVar[Any]
    keeps_output: ClassVar[bool] = False
    clamp: ClassVar[tuple[float, float]]  # of ReLU and ReLU6: y = min(max(x, lower), upper)
    inplace: bool = False

    def _options(self) -> dict[str, Any]:
        return {}

    def forward(self, x: Array) -> Array:
        write_over = self.inplace and (self.keeps_output or not self.recording)
        y: Array = self.function(x, **self._options(), out=x if write_over else None)
        self._keep(y if self.keeps_output else x)
        return y

    def pass_through(self) -> None:
        """The layer before has done this one's work, and will do its backward."""
        self._keep(PASSED)

    def backward(self, grad: Array) -> Array:
        (kept,) = self._take()
        if kept is PASSED:
            return grad
        grad_x: Array = self.gradient(grad, kept, **self._options())
        return grad_x

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return shape

    def extra_repr(self) -> str:
        return "inplace=True" if self.inplace else ""


class ReLU(_Activation):
    """max(x, 0)."""

    function, gradient = staticmethod(F.relu), staticmethod(F.relu_backward)
    keeps_output = True  # y > 0 exactly where x > 0; the next layer keeps y anyway
    clamp = 0.0, math.inf

    def __init__(self, inplace: bool = False) -> None:
        self.inplace = flag(type(self).__name__, "inplace", inplace)


class ReLU6(_Activation):
    """min(max(x, 0), 6)."""

    function, gradient = staticmethod(F.relu6), staticmethod(F.relu6_backward)
    keeps_output = True  # 0 < y < 6 exactly where 0 < x < 6
    clamp = 0.0, 6.0

    def __init__(self, inplace: bool = False) -> None:
        self.inplace = flag(type(self).__name__, "inplace", inplace)


class LeakyReLU(_Activation):
    """x where x > 0, else negative_slope * x; negative_slope must be 0 or more."""

    function, gradient = staticmethod(F.leaky_relu), staticmethod(F.leaky_relu_backward)
    keeps_output = True  # y > 0 exactly where x > 0, as negative_slope >= 0

    def __init__(self, negative_slope: float = 0.01, inplace: bool = False) -> None:
        self.negative_slope = number("LeakyReLU", "negative_slope", negative_slope, 0)
        self.inplace = flag(type(self).__name__, "inplace", inplace)

    def _options(self) -> dict[str, Any]:
        return {"negative_slope": self.negative_slope}

    def extra_repr(self) -> str:
        text = f"negative_slope={self.negative_slope}"
        return text + (", inplace=True" if self.inplace else "")


class Sigmoid(_Activation):
    """1 / (1 + exp(-x))."""

    function, gradient = staticmethod(F.sigmoid), staticmethod(F.sigmoid_backward)


class Tanh(_Activation):
    """tanh(x)."""

    function, gradient = staticmethod(F.tanh), staticmethod(F.tanh_backward)


class SiLU(_Activation):
    """x * sigmoid(x) (Elfwing et al. 2018)."""

    function, gradient = staticmethod(F.silu), staticmethod(F.silu_backward)

    def __init__(self, inplace: bool = False) -> None:
        self.inplace = flag(type(self).__name__, "inplace", inplace)


class GELU(_Activation):
    """x * Phi(x) (Hendrycks & Gimpel 2016); approximate="tanh" for the tanh formula."""

    function, gradient = staticmethod(F.gelu), staticmethod(F.gelu_backward)

    def __init__(self, approximate: str = "none") -> None:
        self.approximate = choice("GELU", "approximate", approximate, ("none", "tanh"))

    def _options(self) -> dict[str, Any]:
        return {"approximate": self.approximate}

    def extra_repr(self) -> str:
        return f"approximate={self.approximate!r}"


class _Softmax(_Activation):
    def __init__(self, dim: int | None = None) -> None:
        self.dim = None if dim is None else integer(type(self).__name__, "dim", dim, -LIMIT)

    def _options(self) -> dict[str, Any]:
        return {"dim": self.dim}

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        axis_of(repr(self), self.dim, shape)
        return shape

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class Softmax(_Softmax):
    """exp(x) / sum(exp(x)) along the axis `dim`; CrossEntropyLoss needs none before it."""

    function, gradient = staticmethod(F.softmax), staticmethod(F.softmax_backward)


class LogSoftmax(_Softmax):
    """x - log(sum(exp(x))) along the axis `dim`, for NLLLoss; CrossEntropyLoss is the two."""

    function, gradient = staticmethod(F.log_softmax), staticmethod(F.log_softmax_backward)
