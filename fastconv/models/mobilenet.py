"""MobileNetV2 (Sandler et al. 2018, "Inverted Residuals and Linear Bottlenecks").

state_dict keys and shapes are torchvision's, so its weights load as they are.
"""

import numpy as np
import numpy.typing as npt

from .. import nn
from ..nn.module import Rng, as_generator

# Table 2 of the paper: expansion, channels, blocks, stride of the first block
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
FIRST, LAST = 32, 1280


def mobilenet_v2(
    num_classes: int = 1000,
    in_channels: int = 3,
    *,
    width_mult: float = 1.0,
    dropout: float = 0.2,
    rng: Rng = None,
    dtype: npt.DTypeLike = np.float32,
) -> nn.Sequential:
    """MobileNetV2 for images of about 224x224; 3,504,872 parameters by default.

    `width_mult` scales the channels of every layer, to multiples of 8; the last convolution has
    never fewer than 1280.
    """
    if not width_mult > 0:
        raise ValueError(f"mobilenet_v2: width_mult must be positive, got {width_mult}")
    make = _Builder(rng, dtype)
    channels = _multiple_of_8(FIRST * width_mult)
    last = _multiple_of_8(LAST * max(1.0, width_mult))
    features = nn.Sequential(make.conv(in_channels, channels, 3, stride=2))
    for expansion, width, blocks, stride in STAGES:
        outputs = _multiple_of_8(width * width_mult)
        for i in range(blocks):
            features.append(make.block(channels, outputs, stride if i == 0 else 1, expansion))
            channels = outputs
    features.append(make.conv(channels, last, 1))
    classifier = nn.Sequential(nn.Dropout(dropout, rng=make.rng), make.linear(last, num_classes))
    return nn.Sequential(
        {
            "features": features,
            "avgpool": nn.AdaptiveAvgPool2d(1),
            "flatten": nn.Flatten(),
            "classifier": classifier,
        }
    )


class _Builder:
    """Makes the layers of one network: one generator, one dtype."""

    def __init__(self, rng: Rng, dtype: npt.DTypeLike) -> None:
        self.rng, self.dtype = as_generator(rng), dtype

    def plain(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1
    ) -> list[nn.Module]:
        """Convolution with padding (kernel - 1) / 2 and batch norm; He normal over fan_out."""
        conv = nn.Conv2d(
            inputs,
            outputs,
            kernel,
            stride,
            kernel // 2,
            groups=groups,
            bias=False,
            rng=self.rng,
            dtype=self.dtype,
        )
        nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu", rng=self.rng)
        return [conv, nn.BatchNorm2d(outputs, dtype=self.dtype)]

    def conv(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1
    ) -> nn.Sequential:
        """Convolution, batch norm, ReLU6."""
        layers = self.plain(inputs, outputs, kernel, stride, groups)
        return nn.Sequential(*layers, nn.ReLU6(inplace=True))

    def block(self, inputs: int, outputs: int, stride: int, expansion: int) -> nn.Module:
        """1x1 to `expansion` times the channels, 3x3 depthwise, 1x1 back without activation."""
        hidden = inputs * expansion
        layers = [] if expansion == 1 else [self.conv(inputs, hidden, 1)]
        layers.append(self.conv(hidden, hidden, 3, stride, groups=hidden))
        body = {"conv": nn.Sequential(*layers, *self.plain(hidden, outputs, 1))}
        return nn.Residual(body) if stride == 1 and inputs == outputs else nn.Sequential(body)

    def linear(self, inputs: int, outputs: int) -> nn.Linear:
        layer = nn.Linear(inputs, outputs, rng=self.rng, dtype=self.dtype)
        nn.init.normal_(layer.weight, 0.0, 0.01, rng=self.rng)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
        return layer


def _multiple_of_8(channels: float) -> int:
    """The nearest multiple of 8, at least 8 and at least 90 % of `channels`."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * channels else rounded + 8
