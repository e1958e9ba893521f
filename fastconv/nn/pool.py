"""Pooling layers: MaxPool, AvgPool, AdaptiveAvgPool and AdaptiveMaxPool, each 1d and 2d."""

from typing import TYPE_CHECKING, Any, ClassVar

from .. import functional as F
from ..functional import pool as _pool
from ..functional._checks import batched as check_batched
from ..functional._checks import flag, float_array, integer, per_axis
from ..functional._windows import windows
from ..functional.activation import mask_of_clamp
from ..functional.conv import _channel_sum
from ..functional.norm import NO_CLAMP, Clamp
from ._sizes import Padding, PaddingSpec, PerAxis, Size, window_shape
from .module import Array, Module
from .parameter import Parameter


class _Pool(Module):
    axes: ClassVar[int]
    function: ClassVar[Any]
    gradient: ClassVar[Any]

    def _spatial(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        if len(shape) != self.axes + 2:
            raise ValueError(
                f"{type(self).__name__}: input must have {self.axes + 2} axes, got shape {shape}"
            )
        return shape[2:]


class _WindowPool(_Pool):
    """A window of `kernel_size` moved by `stride` (None: kernel_size)."""

    padding_names: ClassVar[tuple[str, ...]] = ("valid", "same", "same_lower")
    kernel_size, stride, dilation = PerAxis(), PerAxis(), PerAxis()
    padding = PaddingSpec()

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None,
        padding: Padding,
        dilation: Size,
        ceil_mode: bool,
    ) -> None:
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding = padding
        self.dilation = dilation
        self.ceil_mode = flag(type(self).__name__, "ceil_mode", ceil_mode)

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        sizes = window_shape(
            self._spatial(shape),
            self.padding,
            self.kernel_size,
            self.stride,
            self.dilation,
            self.ceil_mode,
        )
        if min(sizes) < 1:
            raise ValueError(f"{self!r}: an input of shape {shape} leaves no output {sizes}")
        return *shape[:2], *sizes


class _MaxPool(_WindowPool):
    """The largest entry of each window; keeps its place in the window, one byte, for backward."""

    fresh = True
    record: ClassVar[Any]
    record_gradient: ClassVar[Any]

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Padding = 0,
        dilation: Size = 1,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__(kernel_size, stride, padding, dilation, ceil_mode)

    def _arguments(self) -> tuple[Any, ...]:
        return self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode

    def windows_on(self, sizes: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Output sizes of images of `sizes`, and the windows as `_core` takes them."""
        return windows(f"max_pool{self.axes}d", sizes, *self._arguments())

    def forward(self, x: Array) -> Array:
        return self.run(x)

    def run(self, x: Array, clamp: Clamp = NO_CLAMP, bias: Parameter | None = None) -> Array:
        """forward; with a clamp that x has gone through, backward masks the gradient for it.

        bias: that of the convolution before, whose gradient is then the sum of the masked one.
        """
        if not self.recording:
            result: Array = self.function(x, *self._arguments())
            return result
        who = f"max_pool{self.axes}d"
        images, batched = check_batched(who, "input", float_array(who, "input", x), self.axes)
        y: Array
        y, taps = self.record(images, *self._arguments())
        y = y if batched else y[0]
        self._keep(taps, batched, x.shape, None if clamp is NO_CLAMP else y, clamp, bias)
        return y

    def backward(self, grad: Array) -> Array:
        return self._backward(grad, False)

    def _go_back(self, grad: Array, owned: bool) -> tuple[Array, bool]:
        return self._backward(grad, owned), True

    def _backward(self, grad: Array, owned: bool) -> Array:
        return self.spread(*self.masked(grad, owned))

    def masked(self, grad: Array, owned: bool) -> tuple[Array, Array, bool, tuple[int, ...]]:
        """The gradient behind the clamp, added up for the bias, and where it belongs."""
        taps, batched, shape, y, clamp, bias = self._take()
        if y is not None:
            grad = mask_of_clamp(grad, y, clamp, owned)
        if bias is not None and bias.requires_grad:
            bias.accumulate(_channel_sum(grad if batched else grad[None]))
        return grad, taps, batched, shape

    def spread(self, grad: Array, taps: Array, batched: bool, shape: tuple[int, ...]) -> Array:
        """The gradient of the input."""
        grad_x: Array
        if batched:
            grad_x = self.record_gradient(grad, taps, shape, *self._arguments())
            return grad_x
        (grad_x,) = self.record_gradient(grad[None], taps, (1, *shape), *self._arguments())
        return grad_x

    def extra_repr(self) -> str:
        return (
            f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding!r}, "
            f"dilation={self.dilation}, ceil_mode={self.ceil_mode}"
        )


class MaxPool1d(_MaxPool):
    """Maximum over windows of `(N, C, L)`; arguments of torch.nn.MaxPool1d."""

    axes = 1
    function = staticmethod(F.max_pool1d)
    record = staticmethod(_pool._max_pool1d_argmax)
    record_gradient = staticmethod(_pool._max_pool1d_argmax_backward)


class MaxPool2d(_MaxPool):
    """Maximum over windows of `(N, C, H, W)`; arguments of torch.nn.MaxPool2d."""

    axes = 2
    function = staticmethod(F.max_pool2d)
    record = staticmethod(_pool._max_pool2d_argmax)
    record_gradient = staticmethod(_pool._max_pool2d_argmax_backward)


class _AvgPool(_WindowPool):
    """The mean of each window, with torch's rules for the divisor at the border."""

    fresh = True

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Padding = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> None:
        super().__init__(kernel_size, stride, padding, 1, ceil_mode)
        who = type(self).__name__
        self.count_include_pad = flag(who, "count_include_pad", count_include_pad)
        if divisor_override is not None:
            divisor_override = integer(who, "divisor_override", divisor_override, 1)
        self.divisor_override = divisor_override

    def _options(self) -> dict[str, Any]:
        return {
            "kernel_size": self.kernel_size,
            "stride": self.stride,
            "padding": self.padding,
            "ceil_mode": self.ceil_mode,
            "count_include_pad": self.count_include_pad,
            "divisor_override": self.divisor_override,
        }

    def forward(self, x: Array) -> Array:
        y: Array = self.function(x, **self._options())
        self._keep(x.shape)
        return y

    def backward(self, grad: Array) -> Array:
        (shape,) = self._take()
        grad_x: Array = self.gradient(grad, shape, **self._options())
        return grad_x

    def extra_repr(self) -> str:
        text = f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding!r}"
        if self.ceil_mode:
            text += ", ceil_mode=True"
        if not self.count_include_pad:
            text += ", count_include_pad=False"
        if self.divisor_override is not None:
            text += f", divisor_override={self.divisor_override}"
        return text


class AvgPool1d(_AvgPool):
    """Mean over windows of `(N, C, L)`; arguments of torch.nn.AvgPool1d and divisor_override."""

    axes = 1
    function, gradient = staticmethod(F.avg_pool1d), staticmethod(F.avg_pool1d_backward)


class AvgPool2d(_AvgPool):
    """Mean over windows of `(N, C, H, W)`; arguments of torch.nn.AvgPool2d."""

    axes = 2
    function, gradient = staticmethod(F.avg_pool2d), staticmethod(F.avg_pool2d_backward)


_Sizes = int | tuple[int | None, ...] | None


class _OutputSize:
    """The attribute `output_size`: an int or None for each axis, whatever is assigned to it."""

    if TYPE_CHECKING:

        def __get__(self, layer: Any, owner: type | None = None) -> tuple[int | None, ...]: ...

    def __set__(self, layer: Any, value: _Sizes) -> None:
        sizes = tuple(value) if isinstance(value, (tuple, list)) else (value,)
        if len(sizes) == 1:
            sizes = sizes * layer.axes
        wanted = tuple(1 if size is None else size for size in sizes)
        wanted = per_axis(type(layer).__name__, "output_size", wanted, layer.axes)
        layer.__dict__["output_size"] = tuple(
            None if size is None else want for size, want in zip(sizes, wanted, strict=True)
        )


class _AdaptivePool(_Pool):
    """Windows chosen so that the output has `output_size`; a None entry keeps the input's."""

    output_size = _OutputSize()

    def __init__(self, output_size: _Sizes) -> None:
        self.output_size = output_size

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        wanted = zip(self.output_size, self._spatial(shape), strict=True)
        return *shape[:2], *(size if want is None else want for want, size in wanted)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"


class _AdaptiveAvgPool(_AdaptivePool):
    fresh = True

    def forward(self, x: Array) -> Array:
        y: Array = self.function(x, self.output_size)
        self._keep(x.shape)
        return y

    def backward(self, grad: Array) -> Array:
        (shape,) = self._take()
        grad_x: Array = self.gradient(grad, shape)
        return grad_x


class AdaptiveAvgPool1d(_AdaptiveAvgPool):
    """Mean over windows: `(N, C, L)` -> `(N, C, output_size)`, as torch.nn's."""

    axes = 1
    function = staticmethod(F.adaptive_avg_pool1d)
    gradient = staticmethod(F.adaptive_avg_pool1d_backward)


class AdaptiveAvgPool2d(_AdaptiveAvgPool):
    """Mean over windows: `(N, C, H, W)` -> `(N, C, *output_size)`, as torch.nn's."""

    axes = 2
    function = staticmethod(F.adaptive_avg_pool2d)
    gradient = staticmethod(F.adaptive_avg_pool2d_backward)


class _AdaptiveMaxPool(_AdaptivePool):
    fresh = True

    def forward(self, x: Array) -> Array:
        if not self.recording:
            y: Array = self.function(x, self.output_size)
            return y
        y, indices = self.function(x, self.output_size, return_indices=True)
        self._keep(indices, x.shape)
        return y

    def backward(self, grad: Array) -> Array:
        indices, shape = self._take()
        grad_x: Array = self.gradient(grad, indices, shape)
        return grad_x


class AdaptiveMaxPool1d(_AdaptiveMaxPool):
    """Maximum over windows: `(N, C, L)` -> `(N, C, output_size)`, as torch.nn's."""

    axes = 1
    function = staticmethod(F.adaptive_max_pool1d)
    gradient = staticmethod(F.adaptive_max_pool1d_backward)


class AdaptiveMaxPool2d(_AdaptiveMaxPool):
    """Maximum over windows: `(N, C, H, W)` -> `(N, C, *output_size)`, as torch.nn's."""

    axes = 2
    function = staticmethod(F.adaptive_max_pool2d)
    gradient = staticmethod(F.adaptive_max_pool2d_backward)
