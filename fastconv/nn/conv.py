"""Convolution layers: Conv1d, Conv2d, ConvTranspose1d, ConvTranspose2d."""

import math
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from .. import functional as F
from ..functional import conv as _conv
from ..functional._arrays import choice, empty_ordered
from ..functional._checks import AXES, flag, float_dtype, integer
from ..functional.activation import mask_of_clamp
from ..functional.norm import NO_CLAMP, Clamp
from ..functional.padding import check_pair
from . import init
from ._sizes import Padding, PaddingSpec, PerAxis, Size, pad_pairs, window_shape
from .module import Array, Module, Rng, as_generator
from .parameter import Parameter

PADDING_MODES = ("zeros", "reflect", "replicate", "circular", "symmetric")


class _Conv(Module):
    """What the four layers share: arguments, weights, printing."""

    axes: ClassVar[int]
    function: ClassVar[Any]  # the pair in fastconv.functional
    gradient: ClassVar[Any]
    transposed: ClassVar[bool] = False
    fresh = True
    padding_names: ClassVar[tuple[str, ...]] = ("valid", "same", "same_lower", "full")
    bias: Parameter | None
    kernel_size, stride, dilation = PerAxis(), PerAxis(), PerAxis()
    padding = PaddingSpec()

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size,
        padding: Padding,
        dilation: Size,
        groups: int,
        bias: bool,
        rng: Rng,
        dtype: npt.DTypeLike,
    ) -> None:
        who = type(self).__name__
        self.in_channels = integer(who, "in_channels", in_channels, 1)
        self.out_channels = integer(who, "out_channels", out_channels, 1)
        self.groups = integer(who, "groups", groups, 1)
        if self.in_channels % self.groups or self.out_channels % self.groups:
            raise ValueError(
                f"{who}: groups must divide in_channels and out_channels, "
                f"got groups {self.groups}, in_channels {self.in_channels}, "
                f"out_channels {self.out_channels}"
            )
        self.kernel_size = kernel_size
        self.stride = stride
        self.dilation = dilation
        self.padding = padding
        dtype, generator = float_dtype(who, dtype), as_generator(rng, who)
        shape = self._weight_shape()
        self.weight = Parameter(empty_ordered(who, shape, dtype, tuple(range(len(shape)))))
        with_bias = flag(who, "bias", bias)
        self.register_parameter(
            "bias", Parameter(np.empty(self.out_channels, dtype)) if with_bias else None
        )
        init.reset_linear_(self.weight, self.bias, generator)

    def forward(self, x: Array) -> Array:
        bias = None if self.bias is None else self.bias.data
        y: Array = self.function(x, self.weight.data, bias, **self._options())
        self._keep(x, None, NO_CLAMP, False)
        return y

    def backward(self, grad: Array) -> Array:
        grad_x: Array = self._backward(grad, need_input=True)
        return grad_x

    def _go_back(self, grad: Array, owned: bool) -> tuple[Array, bool]:
        return self._backward(grad, need_input=True, owned=owned), True

    def backward_parameters(self, grad: Array) -> None:
        self._backward(grad, need_input=False)

    def _backward(
        self, grad: Array, need_input: bool, added: Array | None = None, owned: bool = False
    ) -> Any:
        x, y, clamp, pooled = self._take()
        if y is not None:
            grad = mask_of_clamp(grad, y, clamp, owned)
        need_bias = self.bias is not None and self.bias.requires_grad and not pooled
        mask = (need_input, self.weight.requires_grad, need_bias)
        grad_x, grad_weight, grad_bias = self._gradients(grad, x, mask, added)
        self.weight.accumulate(grad_weight)
        if self.bias is not None:
            self.bias.accumulate(grad_bias)
        return grad_x

    def _gradients(self, grad: Array, x: Array, mask: Any, added: Array | None) -> Any:
        """Of input (plus `added`, which `_ForwardConv` knows), weight and bias."""
        return self.gradient(grad, x, self.weight.data, **self._options(), output_mask=mask)

    def _options(self) -> dict[str, Any]:
        """The keyword arguments that function and gradient have in common."""
        return {
            "stride": self.stride,
            "padding": self.padding,
            "dilation": self.dilation,
            "groups": self.groups,
        }

    def _weight_shape(self) -> tuple[int, ...]:
        channels = self.out_channels, self.in_channels // self.groups
        if self.transposed:
            channels = self.in_channels, self.out_channels // self.groups
        return *channels, *self.kernel_size

    def _checked(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The spatial sizes of an input shape; refuses attributes that do not fit each other."""
        bias = None if self.bias is None else self.bias.shape
        if self.weight.size == 0:
            raise ValueError(f"{self!r}: has no weights any more: compile(release=True) took them")
        if self.weight.shape != self._weight_shape() or bias not in (None, (self.out_channels,)):
            raise ValueError(
                f"{self!r}: weight has shape {self.weight.shape} and bias {bias}; set the other "
                "attributes as these are"
            )
        if len(shape) != self.axes + 2 or shape[1] != self.in_channels:
            sizes = ", ".join(AXES[self.axes])
            raise ValueError(
                f"{type(self).__name__}: input must have {self.axes + 2} axes and "
                f"{self.in_channels} channels, (N, {self.in_channels}, {sizes}), got shape {shape}"
            )
        return shape[2:]

    def _with_output(self, shape: tuple[int, ...], sizes: tuple[int, ...]) -> tuple[int, ...]:
        """The output's shape for an input of `shape`, of these spatial sizes."""
        if min(sizes) < 1:
            raise ValueError(f"{self!r}: an input of shape {shape} leaves no output {sizes}")
        return shape[0], self.out_channels, *sizes

    def macs(self, shape: tuple[int, ...]) -> int:
        """Multiply-accumulates for an input of `shape`; taps in the padding are counted."""
        outputs = self.output_shape(shape)
        sites = shape if self.transposed else outputs
        return shape[0] * math.prod(sites[2:]) * self.weight.size

    def extra_repr(self) -> str:
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}"
        text += f", stride={self.stride}"
        if self.padding != (0,) * self.axes:
            text += f", padding={self.padding!r}"
        if self.dilation != (1,) * self.axes:
            text += f", dilation={self.dilation}"
        if self.groups != 1:
            text += f", groups={self.groups}"
        return text + (", bias=False" if self.bias is None else "")


class _ForwardConv(_Conv):
    """Conv1d and Conv2d: adds padding_mode."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Padding = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        *,
        rng: Rng = None,
        dtype: npt.DTypeLike = np.float32,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            bias,
            rng,
            dtype,
        )
        self.padding_mode = choice(type(self).__name__, "padding_mode", padding_mode, PADDING_MODES)

    def _options(self) -> dict[str, Any]:
        return {**super()._options(), "padding_mode": self.padding_mode}

    def _gradients(self, grad: Array, x: Array, mask: Any, added: Array | None) -> Any:
        if added is None:
            return super()._gradients(grad, x, mask, added)
        weight, options = self.weight.data, self._options()
        return _conv.gradients(self.axes, grad, x, weight, mask, added, **options)

    def backward_plus(self, grad: Array, added: Array) -> Array:
        """backward(grad) + added, in one pass where the stride is 1."""
        grad_x: Array = self._backward(grad, need_input=True, added=added)
        return grad_x

    def run(self, x: Array, clamp: Clamp, pooled: bool = False) -> Array:
        """clamp(forward(x)) as one kernel.

        pooled: the MaxPool that follows masks the gradient and sums it for the bias.
        """
        bias = None if self.bias is None else self.bias.data
        y = _conv.clamped(self.axes, x, self.weight.data, bias, clamp, **self._options())
        self._keep(x, None if pooled else y, clamp, pooled)
        return y

    def backward_pooled(self, grad: Array, owned: bool, activation: Any, pool: Any) -> None:
        """`backward_parameters` of a run with a pool; the gradient between them need not exist."""
        pooled = grad, taps, batched, shape = pool.masked(grad, owned)
        x = self._saved[0]
        weight, options = self.weight.data, self._options()
        found = None
        if taps.dtype == np.uint8:
            images, sizes = grad if batched else grad[None], shape[-2:]
            kept = images, taps, sizes, pool.windows_on(sizes)
            found = _conv.pooled_weight_gradient(*kept, x, weight, **options)
        if found is None:
            self.backward_parameters(activation.backward(pool.spread(*pooled)))
            return
        activation._saved = self._saved = None
        self.weight.accumulate(found)

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        sizes = window_shape(
            self._checked(shape), self.padding, self.kernel_size, self.stride, self.dilation
        )
        if self.padding_mode != "zeros":
            who, inputs = type(self).__name__, shape[2:]
            pairs = pad_pairs(self.padding, inputs, self.kernel_size, self.stride, self.dilation)
            for axis, (size, pair) in enumerate(zip(inputs, pairs, strict=True), 2):
                check_pair(who, "padding", axis, size, pair, self.padding_mode)
        return self._with_output(shape, sizes)

    def extra_repr(self) -> str:
        mode = "" if self.padding_mode == "zeros" else f", padding_mode={self.padding_mode!r}"
        return super().extra_repr() + mode


class Conv1d(_ForwardConv):
    """1-D convolution: `(N, in_channels, L)` -> `(N, out_channels, L_out)`.

    Arguments, initialisation and state_dict keys of torch.nn.Conv1d; `padding` also takes
    `((before, after),)`, "same_lower", "full" and "causal" (see `functional.conv1d`).
    """

    function = staticmethod(F.conv1d)
    gradient = staticmethod(F.conv1d_backward)
    axes = 1
    padding_names = (*_Conv.padding_names, "causal")


class Conv2d(_ForwardConv):
    """2-D convolution: `(N, in_channels, H, W)` -> `(N, out_channels, H_out, W_out)`.

    Arguments, initialisation and state_dict keys of torch.nn.Conv2d; `padding` also takes
    `((top, bottom), (left, right))`, "same_lower" and "full" (see `functional.conv2d`).
    """

    function = staticmethod(F.conv2d)
    gradient = staticmethod(F.conv2d_backward)
    axes = 2


class _TransposedConv(_Conv):
    """ConvTranspose1d and ConvTranspose2d: adds output_padding."""

    transposed = True
    padding_names = ("valid",)
    output_padding = PerAxis(0)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Padding = 0,
        output_padding: Size = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Size = 1,
        *,
        rng: Rng = None,
        dtype: npt.DTypeLike = np.float32,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            bias,
            rng,
            dtype,
        )
        self.output_padding = output_padding

    def _options(self) -> dict[str, Any]:
        return {**super()._options(), "output_padding": self.output_padding}

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        sizes = self._checked(shape)
        pairs = pad_pairs(self.padding, sizes, self.kernel_size, self.stride, self.dilation)
        windows = self.stride, pairs, self.kernel_size, self.dilation, self.output_padding
        terms = zip(sizes, *windows, strict=True)
        result = tuple(
            (size - 1) * step - before - after + (k - 1) * d + 1 + extra
            for size, step, (before, after), k, d, extra in terms
        )
        return self._with_output(shape, result)

    def extra_repr(self) -> str:
        extra = self.output_padding
        return super().extra_repr() + (f", output_padding={extra}" if any(extra) else "")


class ConvTranspose1d(_TransposedConv):
    """The gradient of Conv1d as a layer: `(N, in_channels, L)` -> `(N, out_channels, L_out)`.

    L_out = (L - 1) * stride - 2 * padding + dilation * (kernel_size - 1) + output_padding + 1.
    Arguments, initialisation and keys of torch.nn.ConvTranspose1d.
    """

    function = staticmethod(F.conv_transpose1d)
    gradient = staticmethod(F.conv_transpose1d_backward)
    axes = 1


class ConvTranspose2d(_TransposedConv):
    """The gradient of Conv2d as a layer: `(N, in_channels, H, W)` -> `(N, out_channels, ...)`.

    Sizes per axis as in `ConvTranspose1d`. Arguments, initialisation and keys of
    torch.nn.ConvTranspose2d.
    """

    function = staticmethod(F.conv_transpose2d)
    gradient = staticmethod(F.conv_transpose2d_backward)
    axes = 2
