"""IDX files, the format of MNIST and Fashion-MNIST, plain or gzip-compressed.

A file is: two zero bytes, a dtype code, the number of axes, one big-endian uint32 per axis,
and the values in C order, big-endian (described on the MNIST page of LeCun, Cortes, Burges).
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from .dataset import Array, Dataset, file_size, make_dataset

_DTYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_MAX_AXES = 4

# Deflate packs at most 258 bytes into 2 bits: no stream grows more than 1032 times.
MAX_DEFLATE_RATIO = 1032

FASHION_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
    "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip


def read_idx(path: str | Path) -> Array:
    """Read one IDX file.

    The header is checked against the size of the file before anything is allocated; for a
    gzip file, against the largest size such a file can unpack to.

    Parameters
    ----------
    path : path to the file, plain or gzip (told by its first bytes)

    Returns
    -------
    ndarray
        Of the shape and dtype the header names, in native byte order.

    Raises
    ------
    ValueError
        If the file is not IDX, is truncated or corrupt, or goes on after its last value.
    OSError
        If it cannot be opened.
    """
    path = Path(path)
    size = file_size(path)
    with path.open("rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        if not packed:
            return _read_stream(raw, path, size, packed=False)
        try:
            with gzip.GzipFile(fileobj=raw) as stream:
                return _read_stream(cast(IO[bytes], stream), path, size, packed=True)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise ValueError(f"{path}: corrupt gzip file ({error})") from None


def _read_stream(stream: IO[bytes], path: Path, size: int, *, packed: bool) -> Array:
    head = stream.read(4)
    if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in _DTYPES:
        raise ValueError(f"{path}: not an IDX file (it starts with {head.hex(' ') or 'nothing'})")
    axes = head[3]
    if not 1 <= axes <= _MAX_AXES:
        raise ValueError(f"{path}: IDX header names {axes} axes, expected 1 to {_MAX_AXES}")
    sizes = stream.read(4 * axes)
    if len(sizes) < 4 * axes:
        raise ValueError(f"{path}: truncated IDX header")
    shape = struct.unpack(f">{axes}I", sizes)
    dtype = np.dtype(_DTYPES[head[2]])
    count = math.prod(shape) * dtype.itemsize
    header = 4 + 4 * axes
    if not packed and header + count != size:
        raise ValueError(
            f"{path}: header promises shape {shape}, {header + count} bytes; the file has {size}"
        )
    if packed and header + count > MAX_DEFLATE_RATIO * size:
        raise ValueError(
            f"{path}: header promises shape {shape}, {count} bytes; "
            f"{size} bytes of gzip cannot hold that"
        )
    data = np.empty(count, dtype=np.uint8)
    filled = read_into(stream, data)
    if filled < count:
        raise ValueError(f"{path}: truncated, {filled} of {count} bytes of shape {shape}")
    if stream.read(1):
        raise ValueError(f"{path}: more data than the {count} bytes of shape {shape}")
    return data.view(dtype).reshape(shape).astype(dtype.newbyteorder("="), copy=False)


def read_into(stream: IO[bytes], data: Array) -> int:
    """Fill the bytes of `data` from `stream`; return how many there were."""
    view = memoryview(data.data).cast("B")
    reader: Any = stream
    filled = 0
    while filled < len(view):
        count = reader.readinto(view[filled : filled + (1 << 20)])
        if not count:
            break
        filled += count
    return filled


def load_idx(path: str | Path, name: str | None = None) -> Dataset:
    """Load MNIST-like data: images and labels in IDX files.

    Parameters
    ----------
    path : path
        A folder with `train-images-idx3-ubyte` and `train-labels-idx1-ubyte` (and the same with
        `t10k` or `test` for the test part), or one images file, whose labels file stands beside
        it. A `.gz` ending, dots for dashes, and prefixes (`emnist-letters-train-…`) are accepted.
    name : str, optional
        Default: the name of the folder.

    Returns
    -------
    Dataset
        Without test files, 20 % of every class are set aside (`stratified_split`).

    Raises
    ------
    ValueError
        If a file is missing, corrupt, or does not fit the others.
    """
    path = Path(path)
    folder = path if path.is_dir() else path.parent
    if path.is_dir():
        found = [p for p in sorted(folder.iterdir()) if is_images_name(p.name)]
        train = [p for p in found if "train" in p.name]
        if len(train) != 1:
            names = ", ".join(p.name for p in train) or "none"
            raise ValueError(f"{path}: expected one IDX file of training images, found {names}")
        images = train[0]
    elif is_images_name(path.name):
        images = path
    else:
        raise ValueError(f"{path}: the name of an IDX images file contains 'images'")
    test = None
    if "train" in images.name:
        test = _beside(images, "train", "t10k") or _beside(images, "train", "test")
    return make_dataset(
        name or folder.resolve().name,
        _read_pair(images),
        None if test is None else _read_pair(test),
        FASHION_CLASSES if name == "fashion-mnist" else None,
    )


def is_images_name(name: str) -> bool:
    """True for the name of an IDX file of images."""
    return "images" in name and ("idx" in name or "ubyte" in name)


def _beside(images: Path, old: str, new: str) -> Path | None:
    name = images.name.replace(old, new).removesuffix(".gz")
    for candidate in (images.with_name(name + ".gz"), images.with_name(name)):
        if candidate.exists():
            return candidate
    return None


def _read_pair(images: Path) -> tuple[Array, Array]:
    stem = images.with_name(images.name.replace("idx3", "idx1"))
    labels = _beside(stem, "images", "labels")
    if labels is None:
        wanted = stem.name.replace("images", "labels")
        raise ValueError(f"{images}: labels file {wanted} is not beside it")
    x, y = read_idx(images), read_idx(labels)
    if x.ndim not in (3, 4):
        raise ValueError(f"{images}: holds shape {x.shape}, expected images (N, H, W)")
    if y.shape != x.shape[:1]:
        raise ValueError(f"{labels}: holds shape {y.shape}, {images.name} has {len(x)} images")
    return x, y
