"""Named layers of known networks: the shapes that every benchmark of this folder runs.

A `Conv`, `Pool` or `Norm` is pure data; `conv_arrays` and the like make the arrays. One-dimensional
layers have one spatial size and one-element tuples. `CONVS`, `POOLS` and `NORMS` are the rows of
`table.py`; the pytest files take the subset they name.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Sizes = tuple[int, ...]
Layout = Literal["channels_last", "channels_first"]


@dataclass(frozen=True)
class Conv:
    """One convolution: `batch` images of `channels` x `sizes`, `outputs` kernels of `kernel`."""

    name: str
    batch: int
    channels: int
    outputs: int
    sizes: Sizes
    kernel: Sizes
    stride: Sizes
    padding: Sizes
    dilation: Sizes
    groups: int = 1
    dtype: str = "float32"
    transposed: bool = False

    @property
    def axes(self) -> int:
        return len(self.sizes)

    @property
    def input_shape(self) -> Sizes:
        return (self.batch, self.channels, *self.sizes)

    @property
    def weight_shape(self) -> Sizes:
        if self.transposed:
            return (self.channels, self.outputs // self.groups, *self.kernel)
        return (self.outputs, self.channels // self.groups, *self.kernel)

    @property
    def output_shape(self) -> Sizes:
        geometry = zip(
            self.sizes, self.kernel, self.stride, self.padding, self.dilation, strict=True
        )
        if self.transposed:
            sizes = [(n - 1) * s - 2 * p + d * (k - 1) + 1 for n, k, s, p, d in geometry]
        else:
            sizes = [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in geometry]
        return (self.batch, self.outputs, *sizes)

    @property
    def flops(self) -> int:
        """Two per product of the direct sum, the same for the forward pass and each gradient."""
        positions = self.sizes if self.transposed else self.output_shape[2:]
        return 2 * self.batch * math.prod(positions) * math.prod(self.weight_shape)

    def terms(self, operation: str) -> int:
        """How many products one element of the result sums, at most."""
        results = {
            "forward": self.output_shape,
            "grad_input": self.input_shape,
            "grad_weight": self.weight_shape,
        }[operation]
        return max(1, self.flops // 2 // math.prod(results))


@dataclass(frozen=True)
class Pool:
    """One pooling layer; `kind` is "max" or "avg"."""

    name: str
    kind: str
    shape: Sizes
    kernel: Sizes
    stride: Sizes
    padding: Sizes
    return_indices: bool = False

    @property
    def axes(self) -> int:
        return len(self.kernel)


@dataclass(frozen=True)
class Norm:
    """One elementwise or normalising layer; `kind` names it."""

    name: str
    kind: str
    shape: Sizes


def conv(
    name: str,
    batch: int,
    channels: int,
    outputs: int,
    sizes: int | Sizes,
    kernel: int | Sizes,
    stride: int = 1,
    padding: int | None = None,
    *,
    axes: int = 2,
    dilation: int = 1,
    **others: Any,
) -> Conv:
    """A `Conv` from single numbers; padding None means `kernel // 2`."""

    def spread(value: int | Sizes) -> Sizes:
        return value if isinstance(value, tuple) else (value,) * axes

    pad = spread(kernel)[0] // 2 if padding is None else padding
    return Conv(
        name,
        batch,
        channels,
        outputs,
        spread(sizes),
        spread(kernel),
        spread(stride),
        spread(pad),
        spread(dilation),
        **others,
    )


def conv1d(
    name: str, batch: int, channels: int, outputs: int, length: int, kernel: int, **others: Any
) -> Conv:
    return conv(name, batch, channels, outputs, length, kernel, axes=1, **others)


_RESNET = ((64, 56), (128, 28), (256, 14), (512, 7))
_POINTWISE = (  # ResNet-50: channels, outputs, size, stride
    *((64, 256, 56, 1), (256, 64, 56, 1), (256, 128, 56, 1), (512, 128, 28, 1), (128, 512, 28, 1)),
    *((1024, 256, 14, 1), (256, 1024, 14, 1), (2048, 512, 7, 1), (512, 2048, 7, 1)),
    *((256, 512, 56, 2), (512, 1024, 28, 2), (1024, 2048, 14, 2)),
)
_CIFAR = ((16, 32), (32, 16), (64, 8))

CONVS: tuple[Conv, ...] = (
    *(conv(f"3x3 {c}@{n} b{b}", b, c, c, n, 3) for b in (1, 16) for c, n in _RESNET),
    *(conv(f"3x3 {c}@{n} b128 (CIFAR)", 128, c, c, n, 3) for c, n in _CIFAR),
    *(conv(f"3x3 s2 {c}->{2 * c}@{n}", 1, c, 2 * c, n, 3, 2) for c, n in _RESNET[:3]),
    conv("5x5 64@28", 1, 64, 64, 28, 5),
    *(conv(f"1x1{' s2' * (s - 1)} {c}->{o}@{n}", 1, c, o, n, 1, s) for c, o, n, s in _POINTWISE),
    *(conv(f"7x7 s2 3->64@224 b{b} (stem)", b, 3, 64, 224, 7, 2) for b in (1, 8)),
    conv("3x3 64->3@64", 1, 64, 3, 64, 3),
    conv("3x3 32->1@128", 1, 32, 1, 128, 3),
    conv("3x3 1->1@512", 1, 1, 1, 512, 3),
    conv("3x3 8@8 (call overhead)", 1, 8, 8, 8, 3),
    conv("5x5 1->6@28 p2 b64 (LeNet)", 64, 1, 6, 28, 5),
    conv("5x5 6->16@14 b64 (LeNet)", 64, 6, 16, 14, 5, 1, 0),
    conv("depthwise 3x3 144@56", 1, 144, 144, 56, 3, groups=144),
    conv("depthwise 3x3 s2 96@112", 1, 96, 96, 112, 3, 2, groups=96),
    conv("depthwise 3x3 384@14", 1, 384, 384, 14, 3, groups=384),
    conv("depthwise 3x3 960@7", 1, 960, 960, 7, 3, groups=960),
    conv("depthwise 7x7 96@56", 1, 96, 96, 56, 7, groups=96),
    conv("depthwise 5x5 s2 96@56", 1, 96, 96, 56, 5, 2, groups=96),
    conv1d("conv1d k3 64@1000 b16", 16, 64, 64, 1000, 3),
    conv1d("conv1d k80 s4 1->128@16000 b16", 16, 1, 128, 16000, 80, stride=4, padding=0),
    conv1d("conv1d k2 d64 64@4000 b4", 4, 64, 64, 4000, 2, padding=0, dilation=64),
    conv1d("conv1d k9 s2 32->64@2000 b16", 16, 32, 64, 2000, 9, stride=2),
    conv1d("conv1d depthwise k31 256@500 b8", 8, 256, 256, 500, 31, groups=256),
    conv("transposed 4x4 s2 128->64@16 b8", 8, 128, 64, 16, 4, 2, 1, transposed=True),
    conv1d(
        "transposed1d k16 s8 256->128@100 b4",
        4,
        256,
        128,
        100,
        16,
        stride=8,
        padding=4,
        transposed=True,
    ),
    conv("float64 3x3 64@56", 1, 64, 64, 56, 3, dtype="float64"),
    conv("float64 3x3 16@32 b128 (CIFAR)", 128, 16, 16, 32, 3, dtype="float64"),
)

POOLS: tuple[Pool, ...] = (
    Pool("max_pool2d 3x3 s2 64@112 b16", "max", (16, 64, 112, 112), (3, 3), (2, 2), (1, 1)),
    Pool(
        "max_pool2d 3x3 s2 64@112 b16 +indices",
        "max",
        (16, 64, 112, 112),
        (3, 3),
        (2, 2),
        (1, 1),
        True,
    ),
    Pool("max_pool2d 2x2 64@112 b16", "max", (16, 64, 112, 112), (2, 2), (2, 2), (0, 0)),
    Pool("max_pool2d 2x2 6@28 b64 (LeNet)", "max", (64, 6, 28, 28), (2, 2), (2, 2), (0, 0)),
    Pool("avg_pool2d 2x2 64@56 b16", "avg", (16, 64, 56, 56), (2, 2), (2, 2), (0, 0)),
    Pool("avg_pool2d 3x3 s1 p1 64@56 b16", "avg", (16, 64, 56, 56), (3, 3), (1, 1), (1, 1)),
    Pool("avg_pool2d 7x7 512@7 b16", "avg", (16, 512, 7, 7), (7, 7), (7, 7), (0, 0)),
    Pool("max_pool1d k4 64@4000 b16", "max", (16, 64, 4000), (4,), (4,), (0,)),
    Pool("avg_pool1d k4 64@4000 b16", "avg", (16, 64, 4000), (4,), (4,), (0,)),
)

NORMS: tuple[Norm, ...] = (
    Norm("batch_norm training 64@56 b16", "batch_norm_training", (16, 64, 56, 56)),
    Norm("batch_norm training 512@7 b16", "batch_norm_training", (16, 512, 7, 7)),
    Norm("batch_norm eval 64@56 b16", "batch_norm_eval", (16, 64, 56, 56)),
    Norm("relu 64@56 b16", "relu", (16, 64, 56, 56)),
)


def identifier(name: str) -> str:
    """A name that pytest's `-k` can take: "3x3 64@56" becomes "3x3_64_56"."""
    return re.sub(r"\W+", "_", name).strip("_")


def formatted(array: Array, layout: Layout) -> Array:
    """The same values, stored (N, ..., C) or (N, C, ...); axes are always (N, C, ...)."""
    if layout == "channels_first":
        return np.ascontiguousarray(array)
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(array, 1, -1)), -1, 1)


def normal(shape: Sizes, dtype: str, seed: int) -> Array:
    return np.random.default_rng(seed).standard_normal(shape, dtype=dtype)  # type: ignore[arg-type]


def pool_output_shape(case: Pool) -> Sizes:
    geometry = zip(case.shape[2:], case.kernel, case.stride, case.padding, strict=True)
    return (*case.shape[:2], *((n + 2 * p - k) // s + 1 for n, k, s, p in geometry))


@dataclass
class ConvArrays:
    """Input, weight and the gradient that arrives at the output, in one memory format."""

    case: Conv
    layout: Layout
    input: Array = field(init=False)
    weight: Array = field(init=False)
    grad_output: Array = field(init=False)

    def __post_init__(self) -> None:
        case = self.case
        self.input = formatted(normal(case.input_shape, case.dtype, 1), self.layout)
        self.weight = normal(case.weight_shape, case.dtype, 2)
        self.grad_output = formatted(normal(case.output_shape, case.dtype, 3), self.layout)
