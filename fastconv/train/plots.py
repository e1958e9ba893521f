"""Pictures of a run: the curves, and the filters of the first layer. Needs matplotlib."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .checkpoint import write_atomically

Array = npt.NDArray[Any]

# Blue and orange of Okabe and Ito's palette, told apart with any colour vision.
_TRAIN, _TEST = "#0072B2", "#D55E00"


def require_matplotlib() -> Any:
    """The class matplotlib.figure.Figure; no window system and no global state is used.

    Raises
    ------
    ImportError
        With the cure, if matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError('pictures need matplotlib: pip install "fastconv[train]"') from None
    return Figure


def plot_curves(
    history: list[dict[str, Any]], path: str | Path, title: str = "", label_smoothing: float = 0.0
) -> None:
    """Draw loss and error rate over the epochs into a PNG file.

    Parameters
    ----------
    history : list of dict
        As in `FitResult.history`, at least one epoch.
    path : path
    title : str
    label_smoothing : float
        Named in the legend, because it raises the training loss but not the test loss.

    Raises
    ------
    ValueError
        If the history is empty.
    """
    if not history:
        raise ValueError("plot_curves: history is empty, expected at least one epoch")
    figure = require_matplotlib()(figsize=(9, 3.4), layout="constrained")
    loss, error = figure.subplots(1, 2)
    epochs = [record["epoch"] for record in history]
    marker = "o" if len(epochs) < 30 else ""
    smoothed = f" (label smoothing {label_smoothing:g})" if label_smoothing else ""
    for part, note, colour in (("train", smoothed, _TRAIN), ("test", "", _TEST)):
        style: dict[str, Any] = {"color": colour, "marker": marker, "markersize": 3}
        style["label"] = part + note
        loss.plot(epochs, [r[f"{part}_loss"] for r in history], **style)
        error.plot(epochs, [100 * (1 - r[f"{part}_accuracy"]) for r in history], **style)
    loss.set(xlabel="epoch", ylabel="cross-entropy", yscale="log")
    loss.yaxis.set_major_locator(_ticker().LogLocator(subs=(1, 2, 5)))
    loss.yaxis.set_major_formatter(_ticker().FuncFormatter(lambda value, _: f"{value:g}"))
    loss.minorticks_off()
    # Linear below 1 %, so that a faultless epoch has a place.
    error.set(xlabel="epoch", ylabel="error (%)")
    error.set_yscale("symlog", linthresh=1)
    worst = 100 * max(1 - r[f"{part}_accuracy"] for r in history for part in ("train", "test"))
    error.set_ylim(0, max(1.3 * worst, 1))  # the automatic limit cuts the mark of a single epoch
    ticks = [t for t in (0, 0.5, 1, 2, 5, 10, 20, 50, 100) if t <= 1.3 * error.get_ylim()[1]]
    error.set_yticks(ticks, [f"{t:g}" for t in ticks], minor=False)
    error.minorticks_off()
    for axes in (loss, error):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        if len(epochs) == 1:
            axes.set_xlim(epochs[0] - 0.5, epochs[0] + 0.5)
    loss.legend(frameon=False)
    right = f"{100 * history[-1]['test_accuracy']:.2f} % of the test images right"
    figure.suptitle(f"{title}: {right}" if title else right, fontsize=11)
    _save(figure, path)


def _ticker() -> Any:
    from matplotlib import ticker

    return ticker


def first_filters(state: dict[str, Array], image_shape: tuple[int, int, int]) -> Array:
    """The filters of the first layer as pictures.

    Parameters
    ----------
    state : dict of str to ndarray
        A state_dict, in layer order.
    image_shape : (C, H, W)

    Returns
    -------
    ndarray, (filters, height, width, channels)
        The first convolution's weight; or, of a network without one, the rows of the first
        linear layer over the pixels.

    Raises
    ------
    ValueError
        If no layer sees pixels directly.
    """
    for value in state.values():
        if value.ndim == 4:
            return value.transpose(0, 2, 3, 1)
        if value.ndim == 3:
            return value.transpose(0, 2, 1)[:, np.newaxis]
        if value.ndim == 2 and value.shape[1] == math.prod(image_shape):
            return value.reshape(-1, *image_shape).transpose(0, 2, 3, 1)
    raise ValueError("first_filters: no layer of this model sees the pixels directly")


def plot_filters(filters: Array, path: str | Path, title: str = "", limit: int = 64) -> None:
    """Draw filters into a PNG file, each scaled by its own largest weight.

    Parameters
    ----------
    filters : ndarray, (filters, height, width, channels)
        One channel: blue is negative, white zero, red positive. Three: RGB, grey is zero.
        Otherwise the channels are summed.
    path : path
    title : str
    limit : int
        At most so many filters are drawn.
    """
    if filters.shape[3] not in (1, 3):
        filters = filters.sum(axis=3, keepdims=True)
    filters = filters[:limit].astype(np.float64)
    columns = min(len(filters), 16 if len(filters) > 32 else 8)
    rows = -(-len(filters) // columns)
    figure = require_matplotlib()(
        figsize=(0.8 * columns + 0.2, 0.8 * rows + 0.5), layout="constrained"
    )
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in panels:
        axes.axis("off")
    for axes, picture in zip(panels, filters, strict=False):
        peak = float(np.abs(picture).max()) or 1.0
        if picture.shape[2] == 3:
            axes.imshow(0.5 + 0.5 * picture / peak)
        else:
            axes.imshow(picture[..., 0], cmap="RdBu_r", vmin=-peak, vmax=peak)
    if title:
        figure.suptitle(title, fontsize=10)
    _save(figure, path)


def _save(figure: Any, path: str | Path) -> None:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    write_atomically(path, buffer.getvalue())
