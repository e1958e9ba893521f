"""Progress of a training run: tqdm bars on a terminal, one line per epoch elsewhere, or nothing."""

from __future__ import annotations

import sys
import time
from typing import Any


def require_tqdm() -> Any:
    """The class tqdm.tqdm.

    Raises
    ------
    ImportError
        With the cure, if tqdm is not installed.
    """
    try:
        from tqdm import tqdm
    except ImportError:
        raise ImportError('the progress bar needs tqdm: pip install "fastconv[train]"') from None
    return tqdm


class Progress:
    """Nothing is shown; the other two derive from this."""

    def start_epoch(self, epoch: int, epochs: int, images: int, done: int) -> None:
        """Begin epoch number `epoch` (from 1), of which `done` of `images` images are done."""

    def step(self, images: int, loss: float, accuracy: float) -> None:
        """One step over `images` images; loss and accuracy are means of the epoch so far."""

    def end_epoch(self, record: dict[str, Any] | None) -> None:
        """The epoch ended, with its record, or was broken off."""


class Lines(Progress):
    """One line per epoch, for log files."""

    def __init__(self) -> None:
        self._head = ""

    def start_epoch(self, epoch: int, epochs: int, images: int, done: int) -> None:
        self._head = f"epoch {epoch:{len(str(epochs))}d}/{epochs}"

    def end_epoch(self, record: dict[str, Any] | None) -> None:
        if record is not None:
            rate = f"{record['images_per_second']:.0f} images/s"
            print(f"{self._head}  {describe(record)}, {rate}", file=sys.stderr, flush=True)


class Bars(Progress):
    """One tqdm bar per epoch; it stays as a line when the epoch ends."""

    def __init__(self) -> None:
        self._tqdm = require_tqdm()
        self._bar: Any = None
        self._shown = 0.0

    def start_epoch(self, epoch: int, epochs: int, images: int, done: int) -> None:
        self._bar = self._tqdm(
            total=images,
            initial=done,
            desc=f"epoch {epoch:{len(str(epochs))}d}/{epochs}",
            unit=" images",
            unit_scale=True,
            bar_format="{desc} |{bar}| {rate_noinv_fmt}, {remaining}{postfix}",
            file=sys.stderr,
            dynamic_ncols=True,
        )

    def step(self, images: int, loss: float, accuracy: float) -> None:
        self._bar.update(images)
        if time.monotonic() - self._shown > 0.1:
            self._shown = time.monotonic()
            self._bar.set_postfix_str(f"loss {loss:.4f}, accuracy {100 * accuracy:.2f} %")

    def end_epoch(self, record: dict[str, Any] | None) -> None:
        if self._bar is None:
            return
        if record is not None:
            self._bar.set_postfix_str(describe(record))
        self._bar.close()
        self._bar = None


def describe(record: dict[str, Any]) -> str:
    """The numbers of one epoch in one phrase."""
    return (
        f"loss {record['train_loss']:.4f}, accuracy {100 * record['train_accuracy']:.2f} %, "
        f"test {100 * record['test_accuracy']:.2f} %"
    )


def make_progress(kind: str) -> Progress:
    """`"bars"`, `"lines"`, `"none"`, or `"auto"`: bars on a terminal, lines elsewhere.

    Raises
    ------
    ValueError
        For another word.
    ImportError
        If bars are wanted and tqdm is missing.
    """
    if kind == "auto":
        kind = "bars" if sys.stderr.isatty() else "lines"
    if kind not in ("bars", "lines", "none"):
        raise ValueError(f"progress is {kind!r}, expected 'auto', 'bars', 'lines' or 'none'")
    return {"bars": Bars, "lines": Lines, "none": Progress}[kind]()
