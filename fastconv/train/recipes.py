"""`TrainConfig`, and the documented default recipe of every data set."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastconv.data import Dataset


@dataclass(frozen=True)
class TrainConfig:
    """How to train; everything that decides the bits of the result besides the data.

    Attributes
    ----------
    data : str
        Data set name or path, as given.
    model : str
        A name of `fastconv.models`.
    epochs, batch_size : int
        The images are split into ceil(N / batch_size) batches whose sizes differ by at most 1.
    lr : float
        The peak of the one-cycle schedule.
    momentum : float
        Nesterov momentum of SGD.
    weight_decay : float
        Of the weights; biases and batch norms are not decayed.
    label_smoothing : float
    shift : int
        Random shift by up to this many pixels along each axis.
    pad_mode : str
        What moves in at the border: "zeros" (black) or "reflect".
    flip : bool
        Random horizontal flip.
    seed : int
        Decides initial weights, order and augmentation.
    image_size : int or None
        Height and width of the images of a folder.
    """

    data: str = "digits"
    model: str = "resnet8"
    epochs: int = 20
    batch_size: int = 32
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.1
    shift: int = 1
    pad_mode: str = "zeros"
    flip: bool = False
    seed: int = 0
    image_size: int | None = None

    def __post_init__(self) -> None:
        _check_types(self)
        for name, least in (("epochs", 1), ("batch_size", 1), ("shift", 0), ("seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}, expected >= {least}")
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise ValueError(f"lr is {self.lr}, expected a positive number")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum is {self.momentum}, expected 0 <= momentum < 1")
        if not (math.isfinite(self.weight_decay) and self.weight_decay >= 0):
            raise ValueError(f"weight_decay is {self.weight_decay}, expected a number >= 0")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing is {self.label_smoothing}, expected in [0, 1)")
        if self.pad_mode not in ("zeros", "reflect"):
            raise ValueError(f"pad_mode is {self.pad_mode!r}, expected 'zeros' or 'reflect'")

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> TrainConfig:
        """The configuration `to_json` described.

        Raises
        ------
        ValueError
            If a field is unknown or malformed.
        """
        unknown = sorted(set(values) - {f.name for f in fields(cls)})
        if unknown:
            raise ValueError(f"unknown training option {unknown[0]!r}")
        return cls(**values)


def _check_types(config: TrainConfig) -> None:
    kinds: dict[str, tuple[type, ...]] = {
        "str": (str,), "int": (int,), "float": (int, float), "bool": (bool,),
        "int | None": (int, type(None)),
    }  # fmt: skip
    for field in fields(config):
        value = getattr(config, field.name)
        wrong_bool = isinstance(value, bool) and field.type != "bool"
        if wrong_bool or not isinstance(value, kinds[str(field.type)]):
            raise ValueError(f"{field.name} is {value!r}, expected {field.type}")


# Digits: 1,438 images of 8x8, so a small network, small shifts and label smoothing; digits are
# not mirror-symmetric, so no flips.
# Fashion-MNIST: ResNet-20 (He et al. 2015, section 4.2); shirts and shoes may be mirrored.
# Schedule: one cycle (Smith and Topin 2018, "Super-Convergence").
# Anything else: the augmentation of He et al. for small images, without the flip, which would be
# wrong for writing.
_RECIPES: dict[str, TrainConfig] = {
    "digits": TrainConfig(),
    "fashion-mnist": TrainConfig(
        data="fashion-mnist", model="resnet20", epochs=20, batch_size=128, lr=0.2,
        weight_decay=5e-4, shift=2, flip=True,
    ),
    "cifar": TrainConfig(
        model="resnet20", epochs=30, batch_size=128, lr=0.2, weight_decay=5e-4,
        shift=4, pad_mode="reflect", flip=True,
    ),
    "": TrainConfig(model="resnet20", epochs=20, batch_size=64, lr=0.1, shift=2),
}  # fmt: skip


def recipe(data: str, dataset: Dataset | None = None) -> TrainConfig:
    """The default configuration for a data set.

    Parameters
    ----------
    data : str
        What `fastconv.data.load_dataset` was given.
    dataset : Dataset, optional
        What it returned: tells CIFAR from other paths; images below 16x16 get the small
        resnet8, and shifts of at most an eighth of their side.

    Returns
    -------
    TrainConfig
    """
    is_cifar = dataset is not None and dataset.name in ("cifar10", "cifar100")
    config = _RECIPES[data if data in _RECIPES else "cifar" if is_cifar else ""]
    if dataset is not None:
        side = min(dataset.image_shape[1:])
        model = "resnet8" if side < 16 else config.model
        config = replace(config, model=model, shift=min(config.shift, side // 8))
    return replace(config, data=data)
