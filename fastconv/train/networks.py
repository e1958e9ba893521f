"""The models a training run can name: those of `fastconv.models`, and the small `resnet8`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from fastconv.nn import Conv2d, Module

_WIDTHS = (32, 64, 128)


def model_names() -> list[str]:
    """The names `create_model` knows."""
    from fastconv import models

    classifiers = [name for name in models.names() if "num_classes" in models.options(name)]
    return sorted({"resnet8", *classifiers}, key=_name_order)


def _name_order(name: str) -> tuple[str, int]:
    """Sort resnet8 before resnet20."""
    digits = name[len(name.rstrip("0123456789")) :]
    return name.removesuffix(digits), int(digits or 0)


def create_model(
    name: str, image_shape: tuple[int, int, int], classes: int, rng: np.random.Generator
) -> Any:
    """The model `name` for images (C, H, W) and so many classes.

    Raises
    ------
    ValueError
        If the name is unknown, or the model cannot take such images.
    """
    from fastconv import models

    if name not in model_names():
        raise ValueError(f"no model named {name!r}; there are {', '.join(model_names())}")
    channels, height, width = image_shape
    if name not in models.names():
        return resnet8(classes, channels, rng)
    known = models.options(name)
    wanted = {
        "num_classes": classes,
        "in_channels": channels,
        "in_features": channels * height * width,
        "image_size": height,
        "rng": rng,
    }
    if "image_size" in known and "in_features" not in known and height != width:
        raise ValueError(f"{name} takes square images, these are {height}x{width}")
    model = models.create(name, **{k: v for k, v in wanted.items() if k in known})
    shape = model.output_shape((1, *image_shape))
    if shape != (1, classes):
        raise ValueError(
            f"{name} maps images {image_shape} to {shape[1:]}, not to {classes} classes"
        )
    return model


def resnet8(num_classes: int, in_channels: int, rng: np.random.Generator) -> Module:
    """ResNet-8 for images of about 8x8: one basic block per stage, widths 32, 64, 128.

    The arrangement of the CIFAR networks (He et al. 2015, "Deep Residual Learning for Image
    Recognition", section 4.2) at twice their width, with projection shortcuts (option B);
    308,074 parameters for 10 classes and one channel.
    """
    from fastconv import nn

    def conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> Conv2d:
        layer = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False, rng=rng)
        nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu", rng=rng)
        return layer

    layers: dict[str, Module] = {
        "conv1": conv(in_channels, _WIDTHS[0], 3),
        "bn1": nn.BatchNorm2d(_WIDTHS[0]),
        "relu": nn.ReLU(inplace=True),
    }
    channels = _WIDTHS[0]
    for stage, width in enumerate(_WIDTHS, start=1):
        stride = 1 if stage == 1 else 2
        body: dict[str, Module] = {
            "conv1": conv(channels, width, 3, stride),
            "bn1": nn.BatchNorm2d(width),
            "relu": nn.ReLU(inplace=True),
            "conv2": conv(width, width, 3),
            "bn2": nn.BatchNorm2d(width),
        }
        shortcut = None
        if stage > 1:
            shortcut = nn.Sequential(conv(channels, width, 1, stride), nn.BatchNorm2d(width))
        layers[f"layer{stage}"] = nn.Residual(body, shortcut, nn.ReLU(inplace=True))
        channels = width
    layers["avgpool"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    layers["fc"] = nn.Linear(channels, num_classes, rng=rng)
    return nn.Sequential(layers)
