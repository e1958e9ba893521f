"""Minibatches: normalisation and augmentation, on channels-last memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Normalisation:
    """(pixel - mean) / std for every channel, as float32.

    Attributes
    ----------
    mean, std : tuple of float
        One per channel, in the units of the pixels.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, images: Array) -> Normalisation:
        """The mean and standard deviation of `images`, (N, C, H, W); a constant channel has std 1.

        Accumulated in float64, in blocks of 1024 images.
        """
        count = images.size // images.shape[1]
        mean = np.zeros(images.shape[1])
        square = np.zeros(images.shape[1])
        for start in range(0, len(images), 1024):
            block = images[start : start + 1024].astype(np.float64)
            mean += block.sum(axis=(0, 2, 3))
        mean /= count
        for start in range(0, len(images), 1024):
            block = images[start : start + 1024] - mean[:, None, None]
            square += (block * block).sum(axis=(0, 2, 3))
        std = np.sqrt(square / count)
        std[std == 0] = 1
        return cls(tuple(mean.tolist()), tuple(std.tolist()))

    def __call__(self, images: Array) -> Array:
        """Normalise (N, C, H, W) images; returns float32 over channels-last memory."""
        pixels = images.transpose(0, 2, 3, 1)
        scale = 1 / np.asarray(self.std)
        result = np.multiply(pixels, scale.astype(np.float32), dtype=np.float32)
        result -= (np.asarray(self.mean) * scale).astype(np.float32)
        return result.transpose(0, 3, 1, 2)


def batch_bounds(count: int, batch_size: int) -> list[tuple[int, int]]:
    """Split range(count) into ceil(count / batch_size) parts whose sizes differ by at most 1.

    No batch is ever a small remainder, whose batch statistics would be noise.
    """
    steps = -(-count // batch_size)
    return [(count * i // steps, count * (i + 1) // steps) for i in range(steps)]


def augment(
    images: Array, rng: np.random.Generator, shift: int, pad_mode: str, flip: bool
) -> Array:
    """Shift every image at random, and mirror half of them.

    Parameters
    ----------
    images : ndarray, (N, C, H, W)
        Not written to.
    rng : Generator
        Draws the shifts of all images, then the flips.
    shift : int
        Up to this many pixels along each axis, in both directions; less than H and W.
    pad_mode : "zeros" or "reflect"
    flip : bool

    Returns
    -------
    ndarray
        Of the same shape and dtype, over channels-last memory.
    """
    count, _, height, width = images.shape
    pixels = images.transpose(0, 2, 3, 1)
    offsets = rng.integers(0, 2 * shift + 1, size=(count, 2)) if shift else None
    mirrored = rng.integers(0, 2 if flip else 1, size=(count,))
    if offsets is not None:
        border = ((0, 0), (shift, shift), (shift, shift), (0, 0))
        padded = np.pad(pixels, border, mode="reflect" if pad_mode == "reflect" else "constant")
    result = np.empty(pixels.shape, dtype=pixels.dtype)
    for i in range(count):
        image = pixels[i]
        if offsets is not None:
            top, left = offsets[i]
            image = padded[i, top : top + height, left : left + width]
        result[i] = image[:, ::-1] if mirrored[i] else image
    return result.transpose(0, 3, 1, 2)


def ordered_batches(
    images: Array, labels: Array, normalise: Normalisation, batch_size: int
) -> Iterator[tuple[Array, Array]]:
    """Normalised batches in the order of the data set, for evaluation."""
    for start, stop in batch_bounds(len(images), batch_size):
        yield normalise(images[start:stop]), labels[start:stop]
