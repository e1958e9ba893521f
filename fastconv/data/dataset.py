"""The `Dataset` every reader returns, and the fixed splits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

SPLIT_SEED = 0
TEST_FRACTION = 0.2


@dataclass(frozen=True)
class Dataset:
    """Images and labels, split into training and test.

    Attributes
    ----------
    name : str
        What the data is called in messages and in checkpoints.
    train_images, test_images : ndarray, (N, C, H, W), uint8 or float32
        Transposed views of (N, H, W, C) memory (channels-last).
    train_labels, test_labels : ndarray, (N,), int64
        Class numbers, 0 <= label < len(classes).
    classes : tuple of str
        The name of each class.
    max_value : float
        The value of a fully bright pixel: 16 for the digits, 255 for bytes, 1 for floats.
    """

    name: str
    train_images: Array
    train_labels: Array
    test_images: Array
    test_labels: Array
    classes: tuple[str, ...]
    max_value: float = 255.0

    def __post_init__(self) -> None:
        for part in ("train", "test"):
            images, labels = getattr(self, f"{part}_images"), getattr(self, f"{part}_labels")
            for name, value in (("images", images), ("labels", labels)):
                if not isinstance(value, np.ndarray):
                    from ..functional._checks import not_an_array

                    raise not_an_array("Dataset", f"{part}_{name}", value)
            if images.ndim != 4:
                raise ValueError(
                    f"Dataset: {part}_images must have shape (N, C, H, W), got {images.shape}"
                )
            class_labels(labels, len(images), f"Dataset: {part}_labels")
            count = len(self.classes)
            if len(labels) and labels.max() >= count:
                raise ValueError(
                    f"Dataset: {part}_labels must be less than the number of classes, {count}, "
                    f"got {labels.max()}"
                )

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """The shape (C, H, W) of one image."""
        _, channels, height, width = self.train_images.shape
        return int(channels), int(height), int(width)

    def __repr__(self) -> str:
        return (
            f"Dataset({self.name!r}, train {self.train_images.shape}, "
            f"test {self.test_images.shape}, {len(self.classes)} classes)"
        )


def file_size(path: Path) -> int:
    """The size in bytes of a regular file; anything else (a folder, a pipe) raises ValueError."""
    if not path.is_file():
        path.stat()  # FileNotFoundError, PermissionError
        raise ValueError(f"{path}: is not a regular file")
    return path.stat().st_size


def channels_last(images: Array, source: str) -> Array:
    """View or copy images as (N, C, H, W) over channels-last memory, uint8 or float32.

    Parameters
    ----------
    images : ndarray
        (N, H, W), (N, H, W, C) or (N, C, H, W) with C in 1, 3, 4; the last axis is tried first.
        Booleans, integers of any width and floats are accepted.
    source : str
        Named in the error messages.

    Raises
    ------
    ValueError
        If the rank, the sizes or the dtype are none of these, or a value is NaN or infinite.
    """
    if images.ndim == 3:
        images = images[..., np.newaxis]
    elif images.ndim == 4 and images.shape[3] not in (1, 3, 4) and images.shape[1] in (1, 3, 4):
        images = images.transpose(0, 2, 3, 1)
    if images.ndim != 4 or images.shape[3] not in (1, 3, 4):
        raise ValueError(
            f"{source}: images have shape {images.shape}, expected (N, H, W), (N, H, W, C) or "
            "(N, C, H, W) with C = 1, 3 or 4"
        )
    if 0 in images.shape:
        raise ValueError(f"{source}: images have shape {images.shape}, every axis must be >= 1")
    if images.dtype.kind not in "buif":
        raise ValueError(f"{source}: images have dtype {images.dtype}, expected real numbers")
    if images.dtype != np.uint8:
        images = images.astype(np.float32)
        if not np.isfinite(images).all():
            raise ValueError(f"{source}: images contain NaN or infinity")
    return np.ascontiguousarray(images).transpose(0, 3, 1, 2)


def class_labels(labels: Array, count: int, source: str) -> Array:
    """Labels as int64 of shape (count,); (count, 1) is accepted.

    Raises
    ------
    ValueError
        If the shape or the dtype differs, or a label is negative.
    """
    if labels.shape == (count, 1):
        labels = labels[:, 0]
    if labels.shape != (count,):
        advice = "; one-hot: use labels.argmax(1)" if labels.ndim == 2 else ""
        raise ValueError(f"{source}: labels have shape {labels.shape}, expected ({count},){advice}")
    if labels.dtype.kind not in "bui":
        raise ValueError(f"{source}: labels have dtype {labels.dtype}, expected integers")
    if count and labels.min() < 0:
        raise ValueError(f"{source}: label {labels.min()} is negative")
    if count and labels.max() >= 100_000:
        raise ValueError(f"{source}: label {labels.max()} is too large, expected < 100000 classes")
    return labels.astype(np.int64)


def make_dataset(
    name: str,
    train: tuple[Array, Array],
    test: tuple[Array, Array] | None,
    classes: tuple[str, ...] | None = None,
    max_value: float | None = None,
) -> Dataset:
    """Check images and labels and put them into a `Dataset`.

    Without a test part, `stratified_split` sets 20 % of the training part aside.

    Raises
    ------
    ValueError
        If images and labels do not belong together, or the two parts differ in image shape.
    """
    images = channels_last(train[0], name)
    labels = class_labels(train[1], len(images), name)
    if test is None:
        mask = stratified_split(labels)
        if not mask.any() or mask.all():
            raise ValueError(f"{name}: {len(labels)} images are too few for a training/test split")
        # Index the (N, H, W, C) memory, so that the parts stay channels-last.
        memory = images.transpose(0, 2, 3, 1)
        test_images, test_labels = memory[mask].transpose(0, 3, 1, 2), labels[mask]
        images, labels = memory[~mask].transpose(0, 3, 1, 2), labels[~mask]
    else:
        test_images = channels_last(test[0], name)
        test_labels = class_labels(test[1], len(test_images), name)
    if images.shape[1:] != test_images.shape[1:]:
        raise ValueError(
            f"{name}: training images are {images.shape[1:]}, test images {test_images.shape[1:]}"
        )
    count = int(max(labels.max(), test_labels.max())) + 1
    if classes is None:
        classes = tuple(str(i) for i in range(count))
    if count > len(classes):
        raise ValueError(f"{name}: label {count - 1} is out of range for {len(classes)} classes")
    if max_value is None:
        is_bytes = images.dtype == np.uint8 or images.max() > 1
        max_value = 255.0 if is_bytes else 1.0
    return Dataset(name, images, labels, test_images, test_labels, classes, max_value)


def stratified_split(
    labels: Array, fraction: float = TEST_FRACTION, seed: int = SPLIT_SEED
) -> npt.NDArray[np.bool_]:
    """Choose the test part of a data set that comes without one.

    Of every class, the first `round(fraction * count)` members of a permutation seeded with
    `seed` are the test part: the same labels always give the same split.

    Parameters
    ----------
    labels : ndarray, (N,), integers
    fraction : float
        0 < fraction < 1.
    seed : int

    Returns
    -------
    ndarray, (N,), bool
        True where the image belongs to the test part.

    Raises
    ------
    ValueError
        If `fraction` is not inside (0, 1).
    """
    if not 0 < fraction < 1:
        raise ValueError(f"stratified_split: fraction is {fraction}, expected 0 < fraction < 1")
    rng = np.random.Generator(np.random.PCG64(seed))
    mask = np.zeros(len(labels), dtype=np.bool_)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        mask[rng.permutation(members)[: round(fraction * len(members))]] = True
    return mask
