"""A residual network for time series."""

import numpy as np
import numpy.typing as npt

from .. import nn
from ..nn.module import Rng, as_generator

BLOCK_WIDTHS = (64, 128, 128)
BLOCK_KERNELS = (8, 5, 3)


def resnet1d(
    num_classes: int = 10,
    in_channels: int = 1,
    *,
    widths: tuple[int, ...] = BLOCK_WIDTHS,
    rng: Rng = None,
    dtype: npt.DTypeLike = np.float32,
) -> nn.Sequential:
    """ResNet of Wang, Yan & Oates 2017, "Time Series Classification from Scratch".

    `(N, in_channels, L)` -> `(N, num_classes)`, any L. One block per entry of `widths`: three
    convolutions with kernels 8, 5 and 3, padding "same", and a 1x1 shortcut with batch norm
    where the width changes (batch norm alone where it does not).
    """
    generator = as_generator(rng)

    def conv(inputs: int, outputs: int, kernel: int) -> nn.Conv1d:
        layer = nn.Conv1d(
            inputs, outputs, kernel, padding="same", bias=False, rng=generator, dtype=dtype
        )
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", rng=generator)
        return layer

    def block(inputs: int, outputs: int) -> nn.Residual:
        body: dict[str, nn.Module] = {}
        for i, kernel in enumerate(BLOCK_KERNELS, start=1):
            body[f"conv{i}"] = conv(inputs if i == 1 else outputs, outputs, kernel)
            body[f"bn{i}"] = nn.BatchNorm1d(outputs, dtype=dtype)
            if i < len(BLOCK_KERNELS):
                body[f"relu{i}"] = nn.ReLU(inplace=True)
        shortcut = nn.Sequential()
        if inputs != outputs:
            shortcut.append(conv(inputs, outputs, 1))
        shortcut.append(nn.BatchNorm1d(outputs, dtype=dtype))
        return nn.Residual(body, shortcut, nn.ReLU(inplace=True))

    layers: dict[str, nn.Module] = {}
    channels = in_channels
    for i, width in enumerate(widths, start=1):
        layers[f"layer{i}"] = block(channels, width)
        channels = width
    layers["avgpool"] = nn.AdaptiveAvgPool1d(1)
    layers["flatten"] = nn.Flatten()
    layers["fc"] = nn.Linear(channels, num_classes, rng=generator, dtype=dtype)
    return nn.Sequential(layers)
