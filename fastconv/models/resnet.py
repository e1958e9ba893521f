"""Residual networks as data: block counts in dictionaries, one builder per family.

He et al. 2015, "Deep Residual Learning for Image Recognition". `resnet18` to `resnet152` have
torchvision's state_dict keys and shapes, so its weights load as they are.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from .. import nn
from ..functional._checks import empty, is_channels_last
from ..functional._memory import add_channels_into, pad_channels_into
from ..nn.module import Array, Rng, as_generator

IMAGENET_BLOCKS = {
    18: ("basic", (2, 2, 2, 2)),
    34: ("basic", (3, 4, 6, 3)),
    50: ("bottleneck", (3, 4, 6, 3)),
    101: ("bottleneck", (3, 4, 23, 3)),
    152: ("bottleneck", (3, 8, 36, 3)),
}
CIFAR_BLOCKS = {20: 3, 32: 5, 44: 7, 56: 9, 110: 18}  # per stage; depth = 6 n + 2


class SubsampleAndPad(nn.Module):
    """The parameter-free shortcut (option A): every `stride`-th pixel, then zero channels.

    `(N, C, H, W)` -> `(N, out_channels, ceil(H / stride), ceil(W / stride))`.
    """

    def __init__(self, out_channels: int, stride: int = 2) -> None:
        self.out_channels, self.stride = out_channels, stride

    def forward(self, x: Array) -> Array:
        self._keep(x.shape)
        s = self.stride
        y = empty("SubsampleAndPad", self.output_shape(x.shape), x.dtype, is_channels_last(x))
        pad_channels_into(y, x[:, :, ::s, ::s])
        return y

    def backward(self, grad: Array) -> Array:
        (shape,) = self._take()
        grad_x = empty("SubsampleAndPad", shape, grad.dtype, is_channels_last(grad))
        grad_x[...] = 0
        add_channels_into(grad_x[:, :, :: self.stride, :: self.stride], grad)
        return grad_x

    def _backward_onto(self, grad: Array, total: Array) -> None:
        self._take()
        add_channels_into(total[:, :, :: self.stride, :: self.stride], grad)

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        if len(shape) != 4 or shape[1] > self.out_channels:
            raise ValueError(
                f"SubsampleAndPad: input must be (N, C, H, W) with C <= {self.out_channels}, "
                f"got shape {shape}"
            )
        sizes = (-(-size // self.stride) for size in shape[2:])
        return shape[0], self.out_channels, *sizes

    def extra_repr(self) -> str:
        return f"out_channels={self.out_channels}, stride={self.stride}"


class _Builder:
    """Makes the layers of one network: one generator, one dtype, no conv bias before a norm."""

    def __init__(self, rng: Rng, dtype: npt.DTypeLike) -> None:
        self.rng, self.dtype = as_generator(rng), dtype

    def conv(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
        """Padding (kernel - 1) / 2; He normal over fan_out."""
        layer = nn.Conv2d(
            inputs,
            outputs,
            kernel,
            stride,
            kernel // 2,
            bias=False,
            rng=self.rng,
            dtype=self.dtype,
        )
        nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu", rng=self.rng)
        return layer

    def norm(self, channels: int) -> nn.BatchNorm2d:
        return nn.BatchNorm2d(channels, dtype=self.dtype)

    def basic(self, inputs: int, width: int, stride: int) -> dict[str, nn.Module]:
        """Two 3x3 convolutions."""
        return {
            "conv1": self.conv(inputs, width, 3, stride),
            "bn1": self.norm(width),
            "relu": nn.ReLU(inplace=True),
            "conv2": self.conv(width, width, 3),
            "bn2": self.norm(width),
        }

    def bottleneck(self, inputs: int, width: int, stride: int) -> dict[str, nn.Module]:
        """1x1 to `width`, 3x3, 1x1 to 4 * width; the stride is in the 3x3 (ResNet v1.5)."""
        return {
            "conv1": self.conv(inputs, width, 1),
            "bn1": self.norm(width),
            "relu1": nn.ReLU(inplace=True),
            "conv2": self.conv(width, width, 3, stride),
            "bn2": self.norm(width),
            "relu2": nn.ReLU(inplace=True),
            "conv3": self.conv(width, 4 * width, 1),
            "bn3": self.norm(4 * width),
        }

    def projection(self, inputs: int, outputs: int, stride: int) -> nn.Sequential:
        """Shortcut of option B: 1x1 convolution and norm."""
        return nn.Sequential(self.conv(inputs, outputs, 1, stride), self.norm(outputs))

    def head(self, features: int, num_classes: int) -> dict[str, nn.Module]:
        fc = nn.Linear(features, num_classes, rng=self.rng, dtype=self.dtype)
        return {"avgpool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "fc": fc}


def resnet(
    depth: int,
    num_classes: int = 1000,
    in_channels: int = 3,
    *,
    rng: Rng = None,
    dtype: npt.DTypeLike = np.float32,
) -> nn.Sequential:
    """ResNet-18/34/50/101/152 for images of about 224x224, with torchvision's keys."""
    kind, counts = _lookup("resnet", depth, IMAGENET_BLOCKS)
    make = _Builder(rng, dtype)
    block, expansion = (make.basic, 1) if kind == "basic" else (make.bottleneck, 4)
    layers: dict[str, nn.Module] = {
        "conv1": make.conv(in_channels, 64, 7, 2),
        "bn1": make.norm(64),
        "relu": nn.ReLU(inplace=True),
        "maxpool": nn.MaxPool2d(3, stride=2, padding=1),
    }
    channels = 64
    for stage, blocks in enumerate(counts):
        width = 64 * 2**stage
        outputs = width * expansion
        layers[f"layer{stage + 1}"] = sequence = nn.Sequential()
        for i in range(blocks):
            stride = 2 if stage > 0 and i == 0 else 1
            changes = stride != 1 or channels != outputs
            shortcut = make.projection(channels, outputs, stride) if changes else None
            body = block(channels, width, stride)
            sequence.append(nn.Residual(body, shortcut, nn.ReLU(inplace=True)))
            channels = outputs
    return nn.Sequential({**layers, **make.head(channels, num_classes)})


def cifar_resnet(
    depth: int,
    num_classes: int = 10,
    in_channels: int = 3,
    *,
    rng: Rng = None,
    dtype: npt.DTypeLike = np.float32,
) -> nn.Sequential:
    """ResNet-20/32/44/56/110 for 32x32 images (section 4.2 of the paper), shortcuts option A."""
    blocks = _lookup("cifar_resnet", depth, CIFAR_BLOCKS)
    make = _Builder(rng, dtype)
    layers: dict[str, nn.Module] = {
        "conv1": make.conv(in_channels, 16, 3),
        "bn1": make.norm(16),
        "relu": nn.ReLU(inplace=True),
    }
    channels = 16
    for stage, width in enumerate((16, 32, 64)):
        layers[f"layer{stage + 1}"] = sequence = nn.Sequential()
        for i in range(blocks):
            stride = 2 if stage > 0 and i == 0 else 1
            shortcut = SubsampleAndPad(width, stride) if channels != width else None
            body = make.basic(channels, width, stride)
            sequence.append(nn.Residual(body, shortcut, nn.ReLU(inplace=True)))
            channels = width
    return nn.Sequential({**layers, **make.head(channels, num_classes)})


def resnet8(
    num_classes: int = 10,
    in_channels: int = 3,
    *,
    rng: Rng = None,
    dtype: npt.DTypeLike = np.float32,
) -> nn.Sequential:
    """ResNet-8 for images of about 8x8: one basic block per stage, widths 32, 64, 128.

    The CIFAR networks at twice their width, with projection shortcuts (option B); 308,650
    parameters for 10 classes and 3 channels.
    """
    make = _Builder(rng, dtype)
    layers: dict[str, nn.Module] = {
        "conv1": make.conv(in_channels, 32, 3),
        "bn1": make.norm(32),
        "relu": nn.ReLU(inplace=True),
    }
    channels = 32
    for stage, width in enumerate((32, 64, 128), start=1):
        stride = 1 if stage == 1 else 2
        body = make.basic(channels, width, stride)
        shortcut = make.projection(channels, width, stride) if stage > 1 else None
        layers[f"layer{stage}"] = nn.Residual(body, shortcut, nn.ReLU(inplace=True))
        channels = width
    return nn.Sequential({**layers, **make.head(channels, num_classes)})


def _lookup(who: str, depth: int, table: dict[int, Any]) -> Any:
    if depth not in table:
        raise ValueError(f"{who}: depth must be one of {list(table)}, got {depth}")
    return table[depth]


def resnet20(
    num_classes: int = 10,
    in_channels: int = 3,
    *,
    rng: Rng = None,
    dtype: npt.DTypeLike = np.float32,
) -> nn.Sequential:
    """CIFAR ResNet-20: 269,722 parameters for 10 classes."""
    return cifar_resnet(20, num_classes, in_channels, rng=rng, dtype=dtype)


def resnet32(
    num_classes: int = 10,
    in_channels: int = 3,
    *,
    rng: Rng = None,
    dtype: npt.DTypeLike = np.float32,
) -> nn.Sequential:
    """CIFAR ResNet-32: 464,154 parameters for 10 classes."""
    return cifar_resnet(32, num_classes, in_channels, rng=rng, dtype=dtype)


def resnet44(
    num_classes: int = 10,
    in_channels: int = 3,
    *,
    rng: Rng = None,
    dtype: npt.DTypeLike = np.float32,
) -> nn.Sequential:
    """CIFAR ResNet-44: 658,586 parameters for 10 classes."""
    return cifar_resnet(44, num_classes, in_channels, rng=rng, dtype=dtype)


def resnet56(
    num_classes: int = 10,
    in_channels: int = 3,
    *,
    rng: Rng = None,
    dtype: npt.DTypeLike = np.float32,
) -> nn.Sequential:
    """CIFAR ResNet-56: 853,018 parameters for 10 classes."""
    return cifar_resnet(56, num_classes, in_channels, rng=rng, dtype=dtype)


def resnet110(
    num_classes: int = 10,
    in_channels: int = 3,
    *,
    rng: Rng = None,
    dtype: npt.DTypeLike = np.float32,
) -> nn.Sequential:
    """CIFAR ResNet-110: 1,727,962 parameters for 10 classes."""
    return cifar_resnet(110, num_classes, in_channels, rng=rng, dtype=dtype)


def resnet18(
    num_classes: int = 1000,
    in_channels: int = 3,
    *,
    rng: Rng = None,
    dtype: npt.DTypeLike = np.float32,
) -> nn.Sequential:
    """ResNet-18: 11,689,512 parameters for 1000 classes."""
    return resnet(18, num_classes, in_channels, rng=rng, dtype=dtype)


def resnet34(
    num_classes: int = 1000,
    in_channels: int = 3,
    *,
    rng: Rng = None,
    dtype: npt.DTypeLike = np.float32,
) -> nn.Sequential:
    """ResNet-34: 21,797,672 parameters for 1000 classes."""
    return resnet(34, num_classes, in_channels, rng=rng, dtype=dtype)


def resnet50(
    num_classes: int = 1000,
    in_channels: int = 3,
    *,
    rng: Rng = None,
    dtype: npt.DTypeLike = np.float32,
) -> nn.Sequential:
    """ResNet-50: 25,557,032 parameters for 1000 classes."""
    return resnet(50, num_classes, in_channels, rng=rng, dtype=dtype)


def resnet101(
    num_classes: int = 1000,
    in_channels: int = 3,
    *,
    rng: Rng = None,
    dtype: npt.DTypeLike = np.float32,
) -> nn.Sequential:
    """ResNet-101: 44,549,160 parameters for 1000 classes."""
    return resnet(101, num_classes, in_channels, rng=rng, dtype=dtype)


def resnet152(
    num_classes: int = 1000,
    in_channels: int = 3,
    *,
    rng: Rng = None,
    dtype: npt.DTypeLike = np.float32,
) -> nn.Sequential:
    """ResNet-152: 60,192,808 parameters for 1000 classes."""
    return resnet(152, num_classes, in_channels, rng=rng, dtype=dtype)
