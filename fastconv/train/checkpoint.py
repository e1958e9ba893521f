"""Checkpoints: one safetensors file, replaced atomically, never unpickled.

The tensors are the model's `state_dict` under its own keys, so that any safetensors reader finds
the weights, and arrays of the optimizer under `optimizer/…`. Everything else (configuration,
position, random states, history) is JSON in the file's metadata, under the key `fastconv`.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

FORMAT = 1
CHECKPOINT_NAME = "checkpoint.safetensors"
_KEY = "fastconv"
_PREFIX = "optimizer/"
_FIELDS = {"format": int, "config": dict, "data": dict, "epoch": int, "step": int, "history": list}
_RECORD = (
    "epoch", "lr", "train_loss", "train_accuracy", "test_loss", "test_accuracy", "seconds",
    "images_per_second",
)  # fmt: skip


@dataclass
class Checkpoint:
    """What a checkpoint file holds.

    Attributes
    ----------
    model : dict of str to ndarray
        The model's state_dict.
    optimizer : dict
        The optimizer's state_dict.
    meta : dict
        JSON values: format, config, data, epoch, step, history, and the random states.
    """

    model: dict[str, Array]
    optimizer: dict[str, Any]
    meta: dict[str, Any]


def require_safetensors() -> Any:
    """The module safetensors.

    Raises
    ------
    ImportError
        With the cure, if it is not installed.
    """
    try:
        import safetensors.numpy
    except ImportError:
        raise ImportError('checkpoints need safetensors: pip install "fastconv[train]"') from None
    return safetensors


def write_atomically(path: str | Path, data: bytes) -> None:
    """Replace the file at `path` by `data`: at any moment it is the old one or the new one, whole.

    The bytes go to a temporary file in the same folder and to the disk (fsync), then the
    temporary file is renamed over `path`, and the folder is synced.

    Raises
    ------
    OSError
        If writing fails; `path` is then as before, and the temporary file is removed.
    """
    path = Path(path)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    _sync_folder(path.parent)


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of a run that was killed while it wrote, its pictures too."""
    for name in (CHECKPOINT_NAME, "metrics.json", "*.png"):
        for leftover in folder.glob(f".{name}.*.tmp"):
            with contextlib.suppress(OSError):
                leftover.unlink()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":  # Windows cannot open folders
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:
        pass  # some network file systems do not sync folders
    finally:
        os.close(handle)


def save_checkpoint(path: str | Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint atomically.

    Raises
    ------
    OSError
        If it cannot be written; an earlier file at `path` is then unchanged.
    ImportError
        If safetensors is missing.
    """
    tensors = {key: np.asarray(value, order="C") for key, value in checkpoint.model.items()}
    meta = {**checkpoint.meta, "format": FORMAT}
    meta["optimizer"] = _pack(checkpoint.optimizer, _PREFIX, tensors)
    text = json.dumps(meta, allow_nan=False)
    write_atomically(path, require_safetensors().numpy.save(tensors, metadata={_KEY: text}))


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint.

    Parameters
    ----------
    path : path
        The file, or the folder of a run.

    Raises
    ------
    ValueError
        If the file is not safetensors, is truncated or corrupt, or was not written by fastconv.
    OSError
        If it cannot be read.
    ImportError
        If safetensors is missing.
    """
    path = checkpoint_path(path)
    meta, tensors = _read(path, whole=True)
    model = {key: value for key, value in tensors.items() if not key.startswith(_PREFIX)}
    try:
        optimizer = _unpack(meta.pop("optimizer", None), tensors)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise ValueError(f"{path}: corrupt optimizer state ({error!r})") from None
    return Checkpoint(model, optimizer, meta)


def load_config(path: str | Path) -> dict[str, Any]:
    """The configuration of a checkpoint's run; of the file only the header is read.

    Errors are those of `load_checkpoint`.
    """
    config: dict[str, Any] = _read(checkpoint_path(path), whole=False)[0]["config"]
    return config


def _read(path: Path, whole: bool) -> tuple[dict[str, Any], dict[str, Array]]:
    """The training state of a file, and its arrays if it is to be read whole."""
    safetensors = require_safetensors()
    path.stat()  # FileNotFoundError with the name
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            text = (file.metadata() or {}).get(_KEY)
            keys = file.keys() if whole else ()
            tensors = {key: file.get_tensor(key) for key in keys}
    except (safetensors.SafetensorError, AttributeError, TypeError, KeyError) as error:
        raise ValueError(f"{path}: not a readable safetensors file ({error})") from None
    if text is None:
        raise ValueError(
            f"{path}: safetensors file without a fastconv training state; weights alone are read "
            "by model.load_state_dict(safetensors.numpy.load_file(path))"
        )
    return _parse(text, path), tensors


def checkpoint_path(path: str | Path) -> Path:
    """The checkpoint file of a run's folder; a file is returned as it is."""
    path = Path(path)
    return path / CHECKPOINT_NAME if path.is_dir() else path


def _parse(text: str, path: Path) -> dict[str, Any]:
    try:
        meta = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path}: corrupt training state ({error})") from None
    for field, kind in _FIELDS.items():
        if not isinstance(meta, dict) or not isinstance(meta.get(field), kind):
            raise ValueError(f"{path}: corrupt training state, {field} is missing or malformed")
    numbers = [r.get(name) if isinstance(r, dict) else None for r in meta["history"]
               for name in _RECORD]  # fmt: skip
    if not all(isinstance(value, (int, float)) for value in numbers):
        raise ValueError(f"{path}: corrupt training state, history is malformed")
    if meta["format"] != FORMAT:
        raise ValueError(
            f"{path}: checkpoint format {meta['format']}, this fastconv reads format {FORMAT}"
        )
    result: dict[str, Any] = meta
    return result


def _pack(value: Any, key: str, tensors: dict[str, Array]) -> Any:
    """Turn nested dicts and lists into JSON; arrays go to `tensors` and leave their key behind."""
    if isinstance(value, np.ndarray):
        tensors[key] = np.asarray(value, order="C")
        return {"tensor": key}
    if isinstance(value, dict):
        return {"dict": [[k, _pack(v, f"{key}{k}/", tensors)] for k, v in value.items()]}
    if isinstance(value, (list, tuple)):
        return [_pack(v, f"{key}{i}/", tensors) for i, v in enumerate(value)]
    if isinstance(value, np.generic):
        return value.item()
    return value


def _unpack(value: Any, tensors: dict[str, Array]) -> Any:
    """Undo `_pack` (tuples come back as lists)."""
    if isinstance(value, dict):
        if "tensor" in value:
            return tensors[value["tensor"]]
        return {k: _unpack(v, tensors) for k, v in value["dict"]}
    if isinstance(value, list):
        return [_unpack(v, tensors) for v in value]
    return value
