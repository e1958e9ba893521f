"""Dropout."""

import numpy as np

from ..functional._checks import flag, float_array, number
from .module import Array, Module, Rng, as_generator


class Dropout(Module):
    """In training, zero each entry with probability `p` and scale the others by 1 / (1 - p).

    Srivastava et al. 2014. In eval() it is the identity. The masks come from `rng`, a Generator
    or a seed; `nn.rng_state(model)` saves it for an exact resume. `inplace=True` writes over the
    input where nothing is recorded for backward; elsewhere a layer before may need its result.
    """

    def __init__(self, p: float = 0.5, inplace: bool = False, *, rng: Rng = None) -> None:
        self.p = number("Dropout", "p", p, 0, 1)
        self.inplace = flag("Dropout", "inplace", inplace)
        self.rng = as_generator(rng, "Dropout")

    def forward(self, x: Array) -> Array:
        x = float_array("Dropout", "input", x)
        scale: Array | None = None
        if self.training and self.p > 0:
            keep = self.rng.random(x.shape, dtype=np.float32) >= self.p
            scale = keep * x.dtype.type(1 / (1 - self.p) if self.p < 1 else 0)
        self._keep(scale)
        with np.errstate(invalid="ignore"):  # 0 * inf is NaN, as in torch
            if scale is None:
                return x
            return np.multiply(x, scale, out=x if self.inplace and not self.recording else None)

    def backward(self, grad: Array) -> Array:
        (scale,) = self._take()
        with np.errstate(invalid="ignore"):
            return grad if scale is None else grad * scale

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return shape

    def extra_repr(self) -> str:
        return f"p={self.p}" + (", inplace=True" if self.inplace else "")
