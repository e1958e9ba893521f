"""The models a training run can name: the classifiers of `fastconv.models`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


def model_names() -> list[str]:
    """The names `create_model` knows."""
    from fastconv import models

    classifiers = [name for name in models.names() if "num_classes" in models.options(name)]
    return sorted(classifiers, key=_name_order)


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
    try:
        shape = model.output_shape((1, *image_shape))
    except ValueError as error:
        raise ValueError(f"{name} cannot take images {image_shape}: {error}") from error
    if shape != (1, classes):
        raise ValueError(
            f"{name} maps images {image_shape} to {shape[1:]}, not to {classes} classes"
        )
    return model
