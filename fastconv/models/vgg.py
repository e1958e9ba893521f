"""VGG-11 and VGG-16 (Simonyan & Zisserman 2014), with torchvision's state_dict keys and shapes."""

import numpy as np
import numpy.typing as npt

from .. import nn
from ..nn.module import Rng, as_generator

# Configurations A and D of table 1: 3x3 convolutions per stage; a 2x2 max pool ends each stage
STAGES = {11: (1, 1, 2, 2, 2), 16: (2, 2, 3, 3, 3)}
WIDTHS = (64, 128, 256, 512, 512)
HIDDEN, SIDE = 4096, 7


def vgg(
    depth: int,
    num_classes: int = 1000,
    in_channels: int = 3,
    *,
    batch_norm: bool = False,
    dropout: float = 0.5,
    rng: Rng = None,
    dtype: npt.DTypeLike = np.float32,
) -> nn.Sequential:
    """VGG-11 or VGG-16 for images of at least 32x32 (224x224 in the paper).

    With `batch_norm` a norm follows every convolution.
    """
    if depth not in STAGES:
        raise ValueError(f"vgg: depth must be one of {list(STAGES)}, got {depth}")
    generator = as_generator(rng)
    features = nn.Sequential()
    channels = in_channels
    for blocks, width in zip(STAGES[depth], WIDTHS, strict=True):
        for _ in range(blocks):
            conv = nn.Conv2d(channels, width, 3, padding=1, rng=generator, dtype=dtype)
            nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu", rng=generator)
            _zero_bias(conv)
            features.append(conv)
            if batch_norm:
                features.append(nn.BatchNorm2d(width, dtype=dtype))
            features.append(nn.ReLU(inplace=True))
            channels = width
        features.append(nn.MaxPool2d(2))

    def linear(inputs: int, outputs: int) -> nn.Linear:
        layer = nn.Linear(inputs, outputs, rng=generator, dtype=dtype)
        nn.init.normal_(layer.weight, 0.0, 0.01, rng=generator)
        _zero_bias(layer)
        return layer

    classifier = nn.Sequential(
        linear(channels * SIDE**2, HIDDEN),
        nn.ReLU(inplace=True),
        nn.Dropout(dropout, rng=generator),
        linear(HIDDEN, HIDDEN),
        nn.ReLU(inplace=True),
        nn.Dropout(dropout, rng=generator),
        linear(HIDDEN, num_classes),
    )
    return nn.Sequential(
        {
            "features": features,
            "avgpool": nn.AdaptiveAvgPool2d(SIDE),
            "flatten": nn.Flatten(),
            "classifier": classifier,
        }
    )


def _zero_bias(layer: nn.Conv2d | nn.Linear) -> None:
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def vgg11(
    num_classes: int = 1000,
    in_channels: int = 3,
    *,
    dropout: float = 0.5,
    rng: Rng = None,
    dtype: npt.DTypeLike = np.float32,
) -> nn.Sequential:
    """VGG-11: 132,863,336 parameters for 1000 classes."""
    return vgg(11, num_classes, in_channels, dropout=dropout, rng=rng, dtype=dtype)


def vgg11_bn(
    num_classes: int = 1000,
    in_channels: int = 3,
    *,
    dropout: float = 0.5,
    rng: Rng = None,
    dtype: npt.DTypeLike = np.float32,
) -> nn.Sequential:
    """VGG-11 with batch norm: 132,868,840 parameters for 1000 classes."""
    return vgg(11, num_classes, in_channels, batch_norm=True, dropout=dropout, rng=rng, dtype=dtype)


def vgg16(
    num_classes: int = 1000,
    in_channels: int = 3,
    *,
    dropout: float = 0.5,
    rng: Rng = None,
    dtype: npt.DTypeLike = np.float32,
) -> nn.Sequential:
    """VGG-16: 138,357,544 parameters for 1000 classes."""
    return vgg(16, num_classes, in_channels, dropout=dropout, rng=rng, dtype=dtype)


def vgg16_bn(
    num_classes: int = 1000,
    in_channels: int = 3,
    *,
    dropout: float = 0.5,
    rng: Rng = None,
    dtype: npt.DTypeLike = np.float32,
) -> nn.Sequential:
    """VGG-16 with batch norm: 138,365,992 parameters for 1000 classes."""
    return vgg(16, num_classes, in_channels, batch_norm=True, dropout=dropout, rng=rng, dtype=dtype)
