"""CIFAR-10 and CIFAR-100, binary version (Krizhevsky 2009, "Learning Multiple Layers of Features
from Tiny Images").

A record is the label (CIFAR-100: coarse, then fine label), then 3 x 32 x 32 bytes: the red,
green and blue planes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .dataset import Array, Dataset, file_size, make_dataset

_PIXELS = 3 * 32 * 32


def read_cifar(path: str | Path, fine_labels: bool = False) -> tuple[Array, Array]:
    """Read one binary batch.

    Parameters
    ----------
    path : path
        A file of 3073-byte (CIFAR-10) or 3074-byte (CIFAR-100) records.
    fine_labels : bool
        True for CIFAR-100, whose second byte is the label.

    Returns
    -------
    images : ndarray, (N, 32, 32, 3), uint8
    labels : ndarray, (N,), uint8

    Raises
    ------
    ValueError
        If the file is empty or its size is not a multiple of the record, or a label is >= 10
        (CIFAR-100: >= 100).
    OSError
        If it cannot be read.
    """
    path = Path(path)
    head = 2 if fine_labels else 1
    size = file_size(path)
    if size == 0 or size % (head + _PIXELS):
        raise ValueError(
            f"{path}: {size} bytes are not a positive multiple of the {head + _PIXELS} bytes of a "
            f"CIFAR-{100 if fine_labels else 10} record"
        )
    records = np.fromfile(path, dtype=np.uint8).reshape(-1, head + _PIXELS)
    labels = records[:, head - 1]
    classes = 100 if fine_labels else 10
    if labels.max() >= classes:
        raise ValueError(f"{path}: label {labels.max()} is out of range for {classes} classes")
    images = records[:, head:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), labels.copy()


def load_cifar(path: str | Path) -> Dataset:
    """Load CIFAR-10 or CIFAR-100 from a folder of binary batches.

    Parameters
    ----------
    path : path
        A folder with `data_batch_1.bin` … and `test_batch.bin` (CIFAR-10) or `train.bin` and
        `test.bin` (CIFAR-100); or one `.bin` file, which is split by `stratified_split`
        (named `train.bin` or `test.bin`: CIFAR-100).

    Returns
    -------
    Dataset
        Images (N, 3, 32, 32); class names from `batches.meta.txt` or `fine_label_names.txt`.

    Raises
    ------
    ValueError
        If batches are missing or corrupt.
    """
    path = Path(path)
    if path.is_file():
        fine = path.name in ("train.bin", "test.bin")
        return make_dataset(path.stem, read_cifar(path, fine), None)
    batches = sorted(path.glob("data_batch_*.bin"))
    fine = not batches
    train = batches or [path / "train.bin"]
    test = path / ("test.bin" if fine else "test_batch.bin")
    missing = [p.name for p in (*train, test) if not p.is_file()]
    if missing:
        raise ValueError(f"{path}: CIFAR batch {missing[0]} is missing")
    parts = [read_cifar(p, fine) for p in train]
    images = np.concatenate([x for x, _ in parts])
    labels = np.concatenate([y for _, y in parts])
    names = path / ("fine_label_names.txt" if fine else "batches.meta.txt")
    return make_dataset(
        "cifar100" if fine else "cifar10",
        (images, labels),
        read_cifar(test, fine),
        _class_names(names, 100 if fine else 10),
    )


def _class_names(path: Path, count: int) -> tuple[str, ...]:
    """The names in `path`, one per line; numbers if the file is missing or has another count."""
    names: list[str] = []
    if path.is_file() and path.stat().st_size < 65536:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        names = [line.strip() for line in lines if line.strip()]
    return tuple(names) if len(names) == count else tuple(str(i) for i in range(count))


def is_cifar_folder(path: Path) -> bool:
    """True if `path` holds CIFAR binary batches."""
    return (path / "train.bin").exists() or any(path.glob("data_batch_*.bin"))


def is_pickled_cifar(path: Path) -> bool:
    """True if `path` holds the Python (pickle) version of CIFAR, which is never read."""
    pickled = path / "data_batch_1"
    return pickled.is_file() or ((path / "meta").is_file() and (path / "train").is_file())
