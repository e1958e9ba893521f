"""ZeroPad2d and ReflectionPad2d."""

from typing import ClassVar

from .. import functional as F
from ..functional._checks import LIMIT, float_array
from ..functional.padding import check_pair
from ._sizes import PerAxis, Size
from .module import Array, Module


class _Pad2d(Module):
    """Pads `(N, C, H, W)` images by `padding`: an int, or (left, right, top, bottom)."""

    mode: ClassVar[str]
    padding: PerAxis

    def __init__(self, padding: Size) -> None:
        self.padding = padding

    def forward(self, x: Array) -> Array:
        x = float_array(type(self).__name__, "input", x)
        self._check(x.shape)
        y: Array = F.pad(x, self.padding, self.mode)
        self._keep(x.shape)
        return y

    def backward(self, grad: Array) -> Array:
        (shape,) = self._take()
        return F.pad_backward(grad, shape, self.padding, self.mode)

    def _check(self, shape: tuple[int, ...]) -> None:
        if len(shape) not in (3, 4):
            raise ValueError(
                f"{type(self).__name__}: input must have shape (N, C, H, W) or (C, H, W), "
                f"got {shape}"
            )

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        self._check(shape)
        left, right, top, bottom = self.padding
        for axis, pair in ((-2, (top, bottom)), (-1, (left, right))):
            check_pair(type(self).__name__, "padding", axis, shape[axis], pair, self.mode)
        return *shape[:-2], shape[-2] + top + bottom, shape[-1] + left + right

    def extra_repr(self) -> str:
        return str(self.padding)


class ZeroPad2d(_Pad2d):
    """Zeros around `(N, C, H, W)` images: an int, or (left, right, top, bottom), as torch.nn's.

    Negative sizes crop. `padding=` of a convolution does the same without a copy.
    """

    mode = "constant"
    padding = PerAxis(-LIMIT, 4)


class ReflectionPad2d(_Pad2d):
    """Mirrored rows and columns around `(N, C, H, W)` images, as torch.nn's: an int, or (left,
    right, top, bottom), each smaller than its axis."""

    mode = "reflect"
    padding = PerAxis(0, 4)
