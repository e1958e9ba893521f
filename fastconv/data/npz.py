""".npz archives of images and labels; nothing is unpickled."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import IO

import numpy as np

from .._messages import shown
from .dataset import Array, Dataset, file_size, make_dataset
from .idx import MAX_DEFLATE_RATIO, read_into

# (images, labels) of the training part, then of the test part.
_SPLIT_NAMES = (
    ("x_train", "y_train", "x_test", "y_test"),
    ("train_images", "train_labels", "test_images", "test_labels"),
    ("X_train", "y_train", "X_test", "y_test"),
)
_WHOLE_NAMES = (("images", "labels"), ("x", "y"), ("X", "y"), ("X", "Y"), ("data", "labels"),
                ("data", "target"), ("images", "target"))  # fmt: skip


def read_npz(path: str | Path) -> dict[str, Array]:
    """Read every array of an .npz archive.

    Each array's header is checked against the size of its member, and that against the size
    of the archive, before the array is allocated. Arrays of Python objects are refused.

    Parameters
    ----------
    path : path

    Returns
    -------
    dict of str to ndarray

    Raises
    ------
    ValueError
        If the archive is corrupt or truncated, or holds anything but plain arrays.
    OSError
        If it cannot be read.
    """
    path = Path(path)
    size = file_size(path)
    try:
        with zipfile.ZipFile(path) as archive:
            members = [m for m in archive.infolist() if m.filename.endswith(".npy")]
            total = sum(m.file_size for m in members)
            if total > MAX_DEFLATE_RATIO * size:
                raise ValueError(f"{path}: promises {total} bytes, {size} cannot hold that")
            return {m.filename[:-4]: _read_member(archive, m, path) for m in members}
    except (FileNotFoundError, PermissionError, MemoryError):
        raise
    except Exception as error:  # zipfile raises almost anything for corrupt archives
        if isinstance(error, ValueError) and str(error).startswith(f"{path}: "):
            raise
        reason = " ".join(str(error).split())[:100]
        raise ValueError(f"{path}: corrupt or unsupported .npz archive ({reason})") from None


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> Array:
    with archive.open(member) as stream:
        return read_npy(stream, member.file_size, f"{path}: {member.filename}")


def read_npy(stream: IO[bytes], size: int, source: str) -> Array:
    """Read one .npy stream of `size` bytes, checking its header first.

    Raises
    ------
    ValueError
        Naming `source`, if the stream is not a plain array of exactly `size` bytes.
    """
    try:
        version = np.lib.format.read_magic(stream)
        if version == (1, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
        elif version == (2, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_2_0(stream)
        else:
            raise ValueError(f"version {version} is not supported")
    except Exception as error:  # the header is a Python literal: its parsers raise almost anything
        reason = " ".join(str(error).split())[:100]
        raise ValueError(f"{source}: not a readable .npy array ({reason})") from None
    if dtype.hasobject or dtype.kind not in "buif":
        raise ValueError(f"{source}: dtype {dtype} is not a plain number; nothing is unpickled")
    if any(n < 0 for n in shape):
        raise ValueError(f"{source}: negative size in shape {shape}")
    count = math.prod(shape) * dtype.itemsize
    if stream.tell() + count != size:
        raise ValueError(f"{source}: header promises shape {shape} of {dtype}, {count} bytes; "
                         f"there are {size - stream.tell()}")  # fmt: skip
    data = np.empty(count, dtype=np.uint8)
    if read_into(stream, data) < count or stream.read(1):
        raise ValueError(f"{source}: truncated or too long for shape {shape} of {dtype}")
    try:
        array = data.view(dtype).reshape(shape, order="F" if fortran else "C")
    except (ValueError, OverflowError):  # too many axes; sizes of an empty array past 2**63
        raise ValueError(f"{source}: NumPy has no arrays of shape {shown(shape)}") from None
    return array.astype(dtype.newbyteorder("="), copy=False)


def load_npz(path: str | Path) -> Dataset:
    """Load images and labels from an .npz archive.

    Parameters
    ----------
    path : path
        With arrays named `x_train, y_train, x_test, y_test` (as Keras' mnist.npz) or
        `train_images, train_labels, test_images, test_labels` (as MedMNIST), or one pair
        `images, labels` or `x, y`, which is split by `stratified_split`. Images are (N, H, W),
        (N, H, W, C) or (N, C, H, W); labels are integers (N,) or (N, 1).

    Raises
    ------
    ValueError
        If the archive is corrupt, or these names are missing.
    """
    path = Path(path)
    arrays = read_npz(path)
    for a, b, c, d in _SPLIT_NAMES:
        if a in arrays and b in arrays:
            test = (arrays[c], arrays[d]) if c in arrays and d in arrays else None
            return make_dataset(path.stem, (arrays[a], arrays[b]), test)
    for a, b in _WHOLE_NAMES:
        if a in arrays and b in arrays:
            return make_dataset(path.stem, (arrays[a], arrays[b]), None)
    names = ", ".join(sorted(arrays)) or "nothing"
    raise ValueError(
        f"{path}: holds {names}; expected x_train, y_train, x_test, y_test or images, labels"
    )
