"""A folder with one folder of images per class. Needs Pillow."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .dataset import Array, Dataset, make_dataset

_SUFFIXES = frozenset(
    (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
)
_TEST_NAMES = ("test", "val", "valid", "validation")
_GRAY_MODES = ("1", "L", "I;16", "I", "F")
_MAX_BYTES = 4 << 30
_EXIF_ORIENTATION, _EXIF_SIDEWAYS = 0x0112, (5, 6, 7, 8)


def pillow() -> Any:
    """The module PIL.Image.

    Raises
    ------
    ImportError
        With the cure, if Pillow is not installed.
    """
    try:
        from PIL import Image
    except ImportError:
        raise ImportError(
            'reading image files needs Pillow: pip install "fastconv[train]"'
        ) from None
    return Image


def _guarded(path: Path, action: Callable[[], Any]) -> Any:
    """Run a Pillow action; whatever a bad file makes it raise becomes ValueError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", pillow().DecompressionBombWarning)
            return action()
    except (FileNotFoundError, PermissionError, MemoryError):
        raise
    except Exception as error:  # Pillow's readers raise almost anything for corrupt files
        raise ValueError(f"{path}: not a readable image ({error})") from None


def image_header(path: Path) -> tuple[int, int, bool]:
    """Height, width and whether the image is grey, from its header alone.

    Raises
    ------
    ValueError
        If the file is not an image Pillow can identify.
    """

    def read() -> tuple[int, int, bool]:
        with pillow().open(path) as image:
            width, height = image.size
            if image.getexif().get(_EXIF_ORIENTATION) in _EXIF_SIDEWAYS:
                width, height = height, width
            return height, width, image.mode in _GRAY_MODES

    result: tuple[int, int, bool] = _guarded(path, read)
    return result


def read_image(path: str | Path, channels: int, size: tuple[int, int] | None = None) -> Array:
    """Decode one image file.

    Parameters
    ----------
    path : path
    channels : int
        1 (grey) or 3 (RGB); the image is converted.
    size : (height, width), optional
        Resize to this, bilinear with antialiasing.

    Returns
    -------
    ndarray, (H, W, channels), uint8

    Raises
    ------
    ValueError
        If the file is corrupt, truncated or not an image.
    OSError
        If it cannot be opened.
    """
    path = Path(path)

    def read() -> Array:
        from PIL import ImageOps

        with pillow().open(path) as image:
            image = ImageOps.exif_transpose(image)
            if image.mode.startswith("I") and channels == 1:  # 16-bit grey
                image = image.point(lambda v: v / 256).convert("L")
            image = image.convert("L" if channels == 1 else "RGB")
            if size is not None and image.size != (size[1], size[0]):
                image = image.resize((size[1], size[0]), pillow().Resampling.BILINEAR)
            return np.asarray(image, dtype=np.uint8).reshape(image.size[1], image.size[0], channels)

    result: Array = _guarded(path, read)
    return result


def _class_folders(root: Path) -> dict[str, list[Path]]:
    """The image files of every class folder in `root`, both sorted by name."""
    classes = {}
    for folder in sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith(".")):
        files = sorted(p for p in folder.iterdir() if p.suffix.lower() in _SUFFIXES)
        if files:
            classes[folder.name] = files
    return classes


def load_folder(path: str | Path, image_size: int | None = None) -> Dataset:
    """Load a folder of class folders with images.

    Parameters
    ----------
    path : path
        `PATH/cat/1.png …`, split by `stratified_split`; or `PATH/train/cat/1.png …` with
        `PATH/test` (or `val`, `valid`, `validation`) of the same classes.
    image_size : int, optional
        Resize every image to this height and width. Needed if the images differ in size.

    Returns
    -------
    Dataset
        Grey (C = 1) if every image is, RGB (C = 3) otherwise.

    Raises
    ------
    ValueError
        If there are no class folders, classes or sizes differ, an image is corrupt, or the
        decoded images would take more than 4 GiB.
    ImportError
        If Pillow is missing.
    """
    root = Path(path)
    test_root = next((root / n for n in _TEST_NAMES if (root / n).is_dir()), None)
    split = (root / "train").is_dir() and test_root is not None
    train = _class_folders(root / "train" if split else root)
    if len(train) < 2:
        raise ValueError(
            f"{path}: expected 2 or more class folders with images, found {len(train)}"
        )
    test = _class_folders(test_root) if split and test_root is not None else {}
    unknown = sorted(set(test) - set(train))
    if unknown:
        raise ValueError(f"{test_root}: class {unknown[0]} is not among the training classes")
    size, channels = _common_format(root, train, test, image_size)
    names = tuple(train)
    train_part = _decode(train, names, size, channels)
    test_part = _decode(test, names, size, channels) if split else None
    return make_dataset(root.resolve().name, train_part, test_part, names)


def _common_format(
    root: Path, train: dict[str, list[Path]], test: dict[str, list[Path]], image_size: int | None
) -> tuple[tuple[int, int], int]:
    files = [f for part in (train, test) for members in part.values() for f in members]
    headers = [image_header(f) for f in files]
    channels = 1 if all(gray for _, _, gray in headers) else 3
    sizes = {(height, width) for height, width, _ in headers}
    if image_size is not None:
        size = (image_size, image_size)
    elif len(sizes) == 1:
        size = sizes.pop()
    else:
        (h0, w0), (h1, w1) = min(sizes), max(sizes)
        raise ValueError(
            f"{root}: images differ in size, from {w0}x{h0} to {w1}x{h1}; "
            "choose one with --image-size N (image_size=N)"
        )
    total = len(files) * size[0] * size[1] * channels
    if total > _MAX_BYTES:
        raise ValueError(
            f"{root}: {len(files)} images of {size[1]}x{size[0]} take {total >> 20} MiB decoded, "
            f"more than {_MAX_BYTES >> 20}; choose a smaller --image-size N (image_size=N)"
        )
    return size, channels


def _decode(
    classes: dict[str, list[Path]], names: tuple[str, ...], size: tuple[int, int], channels: int
) -> tuple[Array, Array]:
    count = sum(len(files) for files in classes.values())
    images = np.empty((count, *size, channels), dtype=np.uint8)
    labels = np.empty(count, dtype=np.int64)
    position = 0
    for name, files in classes.items():
        for file in files:
            images[position] = read_image(file, channels, size)
            labels[position] = names.index(name)
            position += 1
    return images, labels
