"""Data sets: the embedded digits, and readers for IDX, CIFAR, image folders and .npz files.

Every reader checks headers and sizes before it allocates, unpickles nothing, and raises
ValueError naming the file.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import numpy as np

from .._messages import typed
from .cifar import is_cifar_folder, is_pickled_cifar, load_cifar, read_cifar
from .dataset import Dataset, stratified_split
from .folder import load_folder, read_image
from .idx import is_images_name, load_idx, read_idx
from .npz import load_npz, read_npz

__all__ = [
    "Dataset",
    "dataset_names",
    "find_fashion_mnist",
    "load_cifar",
    "load_dataset",
    "load_digits",
    "load_folder",
    "load_idx",
    "load_npz",
    "read_cifar",
    "read_idx",
    "read_image",
    "read_npz",
    "stratified_split",
]

if not TYPE_CHECKING:  # a type checker knows the names

    def __getattr__(name: str) -> NoReturn:
        from .._absent import absent

        raise absent(__name__, name)


# Where Debian's package dataset-fashion-mnist puts its four files.
_FASHION_FOLDERS = ("/usr/share/datasets/fashion-mnist", "/usr/local/share/datasets/fashion-mnist")


def dataset_names() -> tuple[str, ...]:
    """The names `load_dataset` knows besides paths."""
    return ("digits", "fashion-mnist")


def load_digits() -> Dataset:
    """The embedded optical digits: 1,797 grey images of 8x8 pixels with values 0 to 16.

    The test part of the UCI set (13 writers who are in no other part), by E. Alpaydin and
    C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository,
    1998, doi:10.24432/C50P49, CC BY 4.0. See `DIGITS-LICENSE.txt` beside the file.

    The split is stored in the file: 359 test images, 20 % of every class (`stratified_split`
    with its default seed 0), and 1,438 training images.

    Returns
    -------
    Dataset
        Images (N, 1, 8, 8) uint8, 10 classes, max_value 16.
    """
    with resources.as_file(resources.files(__name__) / "digits.npz") as path:
        arrays = read_npz(path)
    images, labels, test = arrays["images"][..., np.newaxis], arrays["labels"], arrays["test"]
    labels = labels.astype(np.int64)
    return Dataset(
        "digits",
        np.ascontiguousarray(images[~test]).transpose(0, 3, 1, 2),
        labels[~test],
        np.ascontiguousarray(images[test]).transpose(0, 3, 1, 2),
        labels[test],
        tuple("0123456789"),
        max_value=16.0,
    )


def find_fashion_mnist() -> Path | None:
    """The folder of Debian's dataset-fashion-mnist, or None if it is not installed."""
    for folder in map(Path, _FASHION_FOLDERS):
        if any((folder / f"train-images-idx3-ubyte{end}").is_file() for end in (".gz", "")):
            return folder
    return None


def load_dataset(source: str | Path, image_size: int | None = None) -> Dataset:
    """Load a data set by name or from a file or folder.

    Parameters
    ----------
    source : str or path
        `digits`; `fashion-mnist` (Debian's package dataset-fashion-mnist); a folder or file of
        IDX data, plain or .gz (`load_idx`); CIFAR binary batches (`load_cifar`); a folder of
        class folders with images (`load_folder`); or an .npz file (`load_npz`).
    image_size : int, optional
        For image folders: resize to this height and width.

    Returns
    -------
    Dataset

    Raises
    ------
    ValueError
        If the source is unknown, or its files are missing, corrupt or do not fit together.
    TypeError
        If the source is neither a str nor a Path.
    """
    if not isinstance(source, (str, Path)):
        raise TypeError(f"load_dataset: source must be a str or a Path, got {typed(source)}")
    if image_size is not None and image_size < 1:
        raise ValueError(f"load_dataset: image_size is {image_size}, expected >= 1")
    path = Path(source)
    is_folder = str(source) not in dataset_names() and path.is_dir()
    if is_folder and not _is_binary_folder(path):
        if is_pickled_cifar(path):
            raise ValueError(f"{path}: this is the pickled CIFAR; nothing is unpickled, "
                             "take the binary version")  # fmt: skip
        return load_folder(path, image_size)
    if image_size is not None:
        raise ValueError(f"{source}: image_size resizes folders of images only")
    if source == "digits":
        return load_digits()
    if source == "fashion-mnist":
        return _load_fashion_mnist()
    if is_folder:
        return load_cifar(path) if is_cifar_folder(path) else load_idx(path)
    return _load_file(path)


def _is_binary_folder(path: Path) -> bool:
    return is_cifar_folder(path) or any(is_images_name(p.name) for p in path.iterdir())


def _load_fashion_mnist() -> Dataset:
    folder = find_fashion_mnist()
    if folder is None:
        raise ValueError(
            "fashion-mnist: not found; on Debian or Ubuntu `apt install dataset-fashion-mnist`, "
            "elsewhere name the folder with its four IDX files"
        )
    return load_idx(folder, "fashion-mnist")


def _load_file(path: Path) -> Dataset:
    if not path.exists():
        names = ", ".join(dataset_names())
        raise ValueError(f"{path}: no such file or folder, nor a known data set ({names})")
    if path.suffix == ".npz":
        return load_npz(path)
    if path.suffix == ".bin":
        return load_cifar(path)
    if is_images_name(path.name):
        return load_idx(path)
    raise ValueError(
        f"{path}: unknown kind of data; expected IDX images (…images-idx3-ubyte[.gz]), "
        "CIFAR batches (.bin), .npz, or a folder of class folders with images"
    )
