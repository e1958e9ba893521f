"""Linear, Flatten, Unflatten and Identity."""

import math

import numpy as np
import numpy.typing as npt

from .. import functional as F
from .._messages import shown, typed
from ..functional._checks import LIMIT, flag, float_array, float_dtype, integer
from . import init
from .module import Array, Module, Rng, as_generator
from .parameter import Parameter


class Linear(Module):
    """y = x W^T + b: `(..., in_features)` -> `(..., out_features)`, as torch.nn.Linear."""

    bias: Parameter | None
    fresh = True

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        rng: Rng = None,
        dtype: npt.DTypeLike = np.float32,
    ) -> None:
        self.in_features = integer("Linear", "in_features", in_features, 1)
        self.out_features = integer("Linear", "out_features", out_features, 1)
        dtype, generator = float_dtype("Linear", dtype), as_generator(rng, "Linear")
        self.weight = Parameter(np.empty((self.out_features, self.in_features), dtype))
        with_bias = flag("Linear", "bias", bias)
        self.register_parameter(
            "bias", Parameter(np.empty(self.out_features, dtype)) if with_bias else None
        )
        init.reset_linear_(self.weight, self.bias, generator)

    def forward(self, x: Array) -> Array:
        bias = None if self.bias is None else self.bias.data
        y: Array = F.linear(x, self.weight.data, bias)
        self._keep(x)
        return y

    def backward(self, grad: Array) -> Array:
        (x,) = self._take()
        grad_x, grad_weight, grad_bias = F.linear_backward(grad, x, self.weight.data)
        self.weight.accumulate(grad_weight)
        if self.bias is not None:
            self.bias.accumulate(grad_bias)
        return grad_x

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        outputs, inputs = self.out_features, self.in_features
        bias = None if self.bias is None else self.bias.shape
        if self.weight.shape != (outputs, inputs) or bias not in (None, (outputs,)):
            raise ValueError(
                f"{self!r}: weight has shape {self.weight.shape} and bias {bias}; set in_features "
                "and out_features as these are"
            )
        if not shape or shape[-1] != self.in_features:
            flat = math.prod(shape[1:]) == self.in_features
            raise ValueError(
                f"Linear: the last axis of the input must be {self.in_features}, got shape {shape}"
                + ("; put a Flatten before" if flat else "")
            )
        return *shape[:-1], self.out_features

    def macs(self, shape: tuple[int, ...]) -> int:
        """Multiply-accumulates for an input of `shape`."""
        return math.prod(shape) * self.out_features

    def extra_repr(self) -> str:
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"bias={self.bias is not None}"
        )


class Flatten(Module):
    """Join axes `start_dim` to `end_dim` (inclusive) in row-major order, as torch.nn.Flatten."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        self.start_dim = integer("Flatten", "start_dim", start_dim, -LIMIT)
        self.end_dim = integer("Flatten", "end_dim", end_dim, -LIMIT)

    def forward(self, x: Array) -> Array:
        x = float_array("Flatten", "input", x)
        self._keep(x.shape)
        return x.reshape(self.output_shape(x.shape))

    def backward(self, grad: Array) -> Array:
        (shape,) = self._take()
        grad = float_array("Flatten.backward", "grad", grad)
        expected = self.output_shape(shape)
        if grad.shape != expected:
            raise ValueError(
                f"Flatten.backward: grad must have the shape of the output, {expected}, "
                f"got {grad.shape}"
            )
        return grad.reshape(shape)

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        axes = range(len(shape))
        try:
            first, last = axes[self.start_dim], axes[self.end_dim]
        except IndexError:
            raise ValueError(f"{self!r}: input has only {len(shape)} axes, {shape}") from None
        if first > last:
            raise ValueError(f"{self!r}: start_dim comes after end_dim in shape {shape}")
        return *shape[:first], math.prod(shape[first : last + 1]), *shape[last + 1 :]

    def extra_repr(self) -> str:
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class Unflatten(Module):
    """Split axis `dim` into axes of `unflattened_size`, one of which may be -1, as torch.nn's."""

    def __init__(self, dim: int, unflattened_size: tuple[int, ...]) -> None:
        self.dim = integer("Unflatten", "dim", dim, -LIMIT)
        if not isinstance(unflattened_size, (tuple, list)) or not unflattened_size:
            raise TypeError(
                f"Unflatten: unflattened_size must be a tuple of ints, got "
                f"{typed(unflattened_size)}"
            )
        who = "Unflatten", "an entry of unflattened_size"
        self.unflattened_size = tuple(integer(*who, size, -1) for size in unflattened_size)

    def forward(self, x: Array) -> Array:
        x = float_array("Unflatten", "input", x)
        self._keep(x.shape)
        return x.reshape(self.output_shape(x.shape))

    def backward(self, grad: Array) -> Array:
        (shape,) = self._take()
        grad = float_array("Unflatten.backward", "grad", grad)
        expected = self.output_shape(shape)
        if grad.shape != expected:
            raise ValueError(
                f"Unflatten.backward: grad must have the shape of the output, {expected}, "
                f"got {grad.shape}"
            )
        return grad.reshape(shape)

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        sizes, axes = self.unflattened_size, range(len(shape))
        if not -len(shape) <= self.dim < len(shape):
            raise ValueError(
                f"Unflatten: dim is {self.dim}, input has only {len(shape)} axes, {shape}"
            )
        at = axes[self.dim]
        known = math.prod(size for size in sizes if size != -1)
        if sizes.count(-1) == 1 and known:
            sizes = tuple(shape[at] // known if size == -1 else size for size in sizes)
        if -1 in sizes or math.prod(sizes) != shape[at]:
            raise ValueError(
                f"Unflatten: axis {at} of an input of shape {shape} has {shape[at]} entries, "
                f"which are not split into {shown(self.unflattened_size)}"
            )
        return *shape[:at], *sizes, *shape[at + 1 :]

    def extra_repr(self) -> str:
        return f"dim={self.dim}, unflattened_size={self.unflattened_size}"


class Identity(Module):
    """y = x. Takes and ignores any arguments, as torch.nn.Identity, to stand in for a layer."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        pass

    def forward(self, x: Array) -> Array:
        return x

    def backward(self, grad: Array) -> Array:
        return grad

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return shape
