"""Loss and accuracy of a model, its predictions, and models from checkpoints."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .batches import Normalisation, ordered_batches
from .checkpoint import Checkpoint, checkpoint_path, load_checkpoint
from .networks import create_model
from .recipes import TrainConfig

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Evaluation:
    """Loss (mean cross-entropy), accuracy, and the confusion matrix.

    Attributes
    ----------
    loss : float
    accuracy : float
        Between 0 and 1.
    confusion : ndarray, (classes, classes), int64
        `confusion[i, j]` images of class i were taken for class j.
    """

    loss: float
    accuracy: float
    confusion: Array


def evaluate(
    model: Any,
    images: Array,
    labels: Array,
    normalise: Normalisation,
    batch_size: int = 256,
    after_batch: Callable[[int], bool] | None = None,
) -> Evaluation | None:
    """Evaluate a model on labelled images.

    Parameters
    ----------
    model : Module
        Put into `eval()` mode, and left in it.
    images : ndarray, (N, C, H, W), any real dtype
    labels : ndarray, (N,), integers
    normalise : Normalisation
    batch_size : int
    after_batch : callable, optional
        Called with the size of every finished batch; False ends the evaluation.

    Returns
    -------
    Evaluation, or None if `after_batch` ended it.

    Raises
    ------
    ValueError
        If the model does not fit the images or has too few classes.
    """
    model.eval()
    total, confusion = 0.0, None
    for x, y in ordered_batches(images, labels, normalise, batch_size):
        logp = log_softmax(model(x))
        classes = logp.shape[1]
        if y.max() >= classes:
            raise ValueError(f"evaluate: label {y.max()}, the model has {classes} classes")
        if confusion is None:
            confusion = np.zeros((classes, classes), dtype=np.int64)
        total -= float(logp[np.arange(len(y)), y].sum())
        np.add.at(confusion, (y, logp.argmax(axis=1)), 1)
        if after_batch is not None and not after_batch(len(y)):
            return None
    if confusion is None:
        raise ValueError("evaluate: there are no images")
    return Evaluation(total / len(labels), float(np.trace(confusion)) / len(labels), confusion)


def log_softmax(logits: Array) -> Array:
    """log(softmax) along axis 1 in float64, for metrics."""
    z = logits.astype(np.float64)
    z -= z.max(axis=1, keepdims=True)
    result: Array = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    return result


@dataclass
class TrainedModel:
    """A model from a checkpoint, with what is needed to feed it.

    Attributes
    ----------
    model : Module
        In eval mode.
    config : TrainConfig
    classes : tuple of str
    image_shape : (C, H, W)
    normalise : Normalisation
    max_value : float
        The value of a fully bright pixel in the training images.
    meta : dict
        The checkpoint's other values (epoch, step, history …).
    """

    model: Any
    config: TrainConfig
    classes: tuple[str, ...]
    image_shape: tuple[int, int, int]
    normalise: Normalisation
    max_value: float
    meta: dict[str, Any]

    def predict(self, images: Array, batch_size: int = 256) -> Array:
        """Class probabilities, (N, classes) float64, of images (N, C, H, W) in training units.

        Raises
        ------
        ValueError
            If the images do not have the shape the model was trained on.
        """
        if images.ndim != 4 or images.shape[1:] != self.image_shape:
            raise ValueError(
                f"predict: images have shape {images.shape}, expected (N, "
                f"{', '.join(map(str, self.image_shape))})"
            )
        labels = np.zeros(len(images), dtype=np.int64)
        batches = ordered_batches(images, labels, self.normalise, batch_size) if len(images) else ()
        parts = [np.exp(log_softmax(self.model(x))) for x, _ in batches]
        return np.concatenate([np.empty((0, len(self.classes))), *parts])


def load_model(path: str | Path) -> TrainedModel:
    """Read a checkpoint and build its model, ready for prediction.

    Parameters
    ----------
    path : path
        A checkpoint file or the folder of a run.

    Raises
    ------
    ValueError
        If the file is corrupt, not a fastconv checkpoint, or its weights do not fit its model.
    OSError
        If it cannot be read.
    """
    path = checkpoint_path(path)
    checkpoint = load_checkpoint(path)
    try:
        return trained_model(checkpoint)
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"{path}: {reason}") from None


def _check_weights(
    weights: dict[str, Array], name: str, image: tuple[int, int, int], classes: int
) -> None:
    """Whether a model of such images and classes can have these weights; before it is made.

    Its last layer has a row for each class. Where the weights grow with the image, so that a
    few bytes could ask for a model of many GiB, they have at least a quarter of its pixels: one
    weight each in a first layer that is dense, `120 * 16 * (size / 4 - 3)**2` in LeNet-5.
    """
    from fastconv import models

    if name not in models.names():
        return  # create_model tells
    if not any(array.shape[:1] == (classes,) for array in weights.values()):
        raise ValueError(f"none of the weights has a row for each of {classes} classes")
    grows = {"in_features", "image_size"} & set(models.options(name))
    total = sum(array.size for array in weights.values())
    if grows and math.prod(image) > 4 * total:
        raise ValueError(f"{total} weights are too few for images of {image}")


def trained_model(checkpoint: Checkpoint) -> TrainedModel:
    """Build the model of a checkpoint."""
    config = TrainConfig.from_json(checkpoint.meta["config"])
    data = checkpoint.meta["data"]
    channels, height, width = (int(n) for n in data["image_shape"])
    classes = tuple(str(c) for c in data["classes"])
    if not (1 <= channels <= 4096 and 1 <= height <= 1 << 16 and 1 <= width <= 1 << 16):
        raise ValueError(f"image shape {(channels, height, width)} is out of range")
    if not 1 <= len(classes) <= 100_000:
        raise ValueError(f"{len(classes)} classes are out of range")
    mean, std = (tuple(float(v) for v in data[key]) for key in ("mean", "std"))
    if len(mean) != channels or len(std) != channels or not all(s > 0 for s in std):
        raise ValueError("normalisation does not fit the image shape")
    shape = (channels, height, width)
    _check_weights(checkpoint.model, config.model, shape, len(classes))
    rng = np.random.Generator(np.random.PCG64(0))  # the weights are replaced
    model = create_model(config.model, shape, len(classes), rng)
    model.load_state_dict(checkpoint.model)
    model.eval()
    return TrainedModel(
        model, config, classes, shape, Normalisation(mean, std), float(data["max_value"]),
        checkpoint.meta,
    )  # fmt: skip
