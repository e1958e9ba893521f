"""Small models every course starts with: logistic and softmax regression, MLP, LeNet-5."""

import numpy as np
import numpy.typing as npt

from .. import nn
from ..nn.module import Rng, as_generator


def logistic_regression(
    in_channels: int = 1,
    image_size: int = 28,
    *,
    in_features: int | None = None,
    rng: Rng = None,
    dtype: npt.DTypeLike = np.float32,
) -> nn.Sequential:
    """Flatten and Linear to one logit `(N, 1)`; train it with `nn.BCEWithLogitsLoss`.

    `in_features` replaces `in_channels * image_size**2` for data that are not images.
    """
    return softmax_regression(
        1, in_channels, image_size, in_features=in_features, rng=rng, dtype=dtype
    )


def softmax_regression(
    num_classes: int = 10,
    in_channels: int = 1,
    image_size: int = 28,
    *,
    in_features: int | None = None,
    rng: Rng = None,
    dtype: npt.DTypeLike = np.float32,
) -> nn.Sequential:
    """Flatten and Linear to `(N, num_classes)`; train it with `nn.CrossEntropyLoss`."""
    features = in_channels * image_size**2 if in_features is None else in_features
    fc = nn.Linear(features, num_classes, rng=rng, dtype=dtype)
    return nn.Sequential({"flatten": nn.Flatten(), "fc": fc})


def mlp(
    num_classes: int = 10,
    in_channels: int = 1,
    image_size: int = 28,
    *,
    hidden: tuple[int, ...] = (256, 128),
    dropout: float = 0.0,
    in_features: int | None = None,
    rng: Rng = None,
    dtype: npt.DTypeLike = np.float32,
) -> nn.Sequential:
    """Multi-layer perceptron: Linear and ReLU per entry of `hidden`, then Linear.

    With `dropout` > 0 a Dropout follows every ReLU.
    """
    generator = as_generator(rng)
    size = in_channels * image_size**2 if in_features is None else in_features
    layers: dict[str, nn.Module] = {"flatten": nn.Flatten()}
    for i, width in enumerate(hidden, start=1):
        layers[f"fc{i}"] = nn.Linear(size, width, rng=generator, dtype=dtype)
        layers[f"relu{i}"] = nn.ReLU(inplace=True)
        if dropout > 0:
            layers[f"dropout{i}"] = nn.Dropout(dropout, rng=generator)
        size = width
    head = nn.Linear(size, num_classes, rng=generator, dtype=dtype)
    layers[f"fc{len(hidden) + 1}"] = head
    return nn.Sequential(layers)


def lenet5(
    num_classes: int = 10,
    in_channels: int = 1,
    image_size: int = 28,
    *,
    rng: Rng = None,
    dtype: npt.DTypeLike = np.float32,
) -> nn.Sequential:
    """LeNet-5 (LeCun et al. 1998) with ReLU and max pooling; 61,706 parameters by default.

    Images of 28x28 are padded to the paper's 32x32 by the first convolution; other sizes
    (at least 16x16) go in as they are.
    """
    generator = as_generator(rng)
    padding = 2 if image_size == 28 else 0
    side = ((image_size + 2 * padding - 4) // 2 - 4) // 2
    if side < 1:
        raise ValueError(f"lenet5: image_size must be at least 16, got {image_size}")

    def conv(inputs: int, outputs: int, pad: int) -> nn.Conv2d:
        return nn.Conv2d(inputs, outputs, 5, padding=pad, rng=generator, dtype=dtype)

    def linear(inputs: int, outputs: int) -> nn.Linear:
        return nn.Linear(inputs, outputs, rng=generator, dtype=dtype)

    return nn.Sequential(
        {
            "conv1": conv(in_channels, 6, padding),
            "relu1": nn.ReLU(inplace=True),
            "pool1": nn.MaxPool2d(2),
            "conv2": conv(6, 16, 0),
            "relu2": nn.ReLU(inplace=True),
            "pool2": nn.MaxPool2d(2),
            "flatten": nn.Flatten(),
            "fc1": linear(16 * side * side, 120),
            "relu3": nn.ReLU(inplace=True),
            "fc2": linear(120, 84),
            "relu4": nn.ReLU(inplace=True),
            "fc3": linear(84, num_classes),
        }
    )
