"""The command `fastconv`: train, evaluate, predict, info, selftest.

Exit codes: 0 done, 1 selftest found a fault, 2 bad input (one line on stderr says what), 130
interrupted by Ctrl-C.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._arguments import make_parser

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from .data import Dataset
    from .train.evaluate import Evaluation, TrainedModel
    from .train.recipes import TrainConfig

_RUNS = "runs"
# Options that become fields of TrainConfig.
_CONFIG_OPTIONS = (
    "model", "epochs", "lr", "batch_size", "seed", "momentum", "weight_decay", "label_smoothing",
    "shift", "pad_mode", "flip", "image_size",
)  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments after the program's name. Default: those of the process.

    Returns
    -------
    int
        The exit code.
    """
    try:
        options = make_parser().parse_args(argv)
    except SystemExit as stop:  # --help, --version, or a wrong command line
        return stop.code if isinstance(stop.code, int) else 2
    name = f"fastconv {options.command}"
    try:
        code = _COMMANDS[options.command](options)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:  # `fastconv … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ValueError, OSError, MemoryError, ImportError) as error:
        print(f"{name}: error: {_one_line(error)}", file=sys.stderr)
        return 2


def _one_line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror}"
    if isinstance(error, MemoryError):
        return f"not enough memory {error}".strip()
    return " ".join(str(error).split()) or type(error).__name__


@contextlib.contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Run the body with `count` threads, or the default for None."""
    from . import num_threads

    if count is not None and count < 1:
        raise ValueError(f"--threads is {count}, expected >= 1")
    with num_threads(count) if count is not None else contextlib.nullcontext():
        yield


# --- train -----------------------------------------------------------------------------------


def _train(options: argparse.Namespace) -> int:
    from .data import load_dataset
    from .train import checkpoint, plots, progress, recipes
    from .train.fit import Run
    from .train.signals import StopRequest

    checkpoint.require_safetensors()  # now, not after an hour of training
    plots.require_matplotlib()
    display = progress.make_progress(options.progress)
    if options.resume:
        config, folder = _resumed(options)
        dataset = load_dataset(config.data, config.image_size)
    else:
        source = options.data or "digits"
        dataset = load_dataset(source, options.image_size)
        config = replace(recipes.recipe(source, dataset), **_given(options))
        folder = _new_folder(options.output, dataset.name, config.model)
    with _threads(options.threads):
        run = Run(dataset, config, folder, checkpoint_every=options.checkpoint_every)
        run.restore() if options.resume else run.start()
        print(_headline(dataset, config, run.model), file=sys.stderr)
        with StopRequest() as stop:
            run.train(stop, display)
    return _finish(run, folder, stop.signal)


def _given(options: argparse.Namespace) -> dict[str, Any]:
    """The configuration options that were on the command line."""
    return {n: getattr(options, n) for n in _CONFIG_OPTIONS if getattr(options, n) is not None}


def _resumed(options: argparse.Namespace) -> tuple[TrainConfig, Path]:
    """The configuration and folder of the run to resume."""
    from .train.checkpoint import load_config
    from .train.recipes import TrainConfig

    folder = options.output or _newest_run(options.data, options.model)
    path = folder / _checkpoint_name()
    if not path.is_file():
        raise ValueError(f"{path}: there is no checkpoint to resume")
    config = TrainConfig.from_json(load_config(path))
    given = _given(options)
    for name, value in given.items():
        own = getattr(config, name)
        if own != value and not (name == "epochs" and value > own):
            raise ValueError(
                f"--{name.replace('_', '-')} {value}: the run in {folder} has {own}; a resumed "
                "run keeps its configuration, and may only get more epochs"
            )
    epochs = given.get("epochs", config.epochs)
    return replace(config, data=options.data or config.data, epochs=epochs), folder


def _newest_run(data: str | None, model: str | None) -> Path:
    """The folder of the run, on this data and with this model if given, that was written last."""
    from .train.checkpoint import load_config

    def written(checkpoint: Path) -> float:
        return checkpoint.stat().st_mtime

    for path in sorted(Path(_RUNS).glob(f"*/{_checkpoint_name()}"), key=written, reverse=True):
        # another program's, or half a file
        with contextlib.suppress(ValueError, OSError, KeyError):
            config = load_config(path)
            same = data in (None, config["data"]) or Path(data).samefile(config["data"])
            if same and model in (None, config["model"]):
                return path.parent
    which = f" on --data {data}" if data else ""
    which += f" with --model {model}" if model else ""
    raise ValueError(f"--resume: no run{which} in {_RUNS}; name its folder with --output")


def _checkpoint_name() -> str:
    from .train.checkpoint import CHECKPOINT_NAME

    return CHECKPOINT_NAME


def _new_folder(output: Path | None, data: str, model: str) -> Path:
    """The folder of a new run; an earlier run is never overwritten."""
    if output is not None:
        if (output / _checkpoint_name()).exists():
            raise ValueError(
                f"{output}: holds a checkpoint already; --resume continues that run, "
                "another --output starts a new one"
            )
        return output
    stem = f"{data}-{model}"
    number = 1
    while (folder := Path(_RUNS, stem if number == 1 else f"{stem}-{number}")).exists():
        number += 1
    return folder


def _headline(dataset: Dataset, config: TrainConfig, model: Any) -> str:
    from . import get_num_threads

    channels, height, width = dataset.image_shape
    parameters = sum(p.size for p in model.parameters())
    threads = get_num_threads()
    return (
        f"{dataset.name}: {len(dataset.train_labels):,} training and "
        f"{len(dataset.test_labels):,} test images, {channels}x{height}x{width}, "
        f"{len(dataset.classes)} classes; {config.model}, {parameters:,} parameters, "
        f"{threads} thread{'s' if threads > 1 else ''}"
    )


def _finish(run: Any, folder: Path, stopped: int) -> int:
    from .train import plots

    written = ["checkpoint.safetensors", "metrics.json"]
    if run.history:
        config, name = run.config, run.dataset.name
        title = f"{config.model} on {name}"
        plots.plot_curves(run.history, folder / "curves.png", title, config.label_smoothing)
        written.append("curves.png")
        with contextlib.suppress(ValueError):  # a model whose first layer sees no pixels
            filters = plots.first_filters(run.model.state_dict(), run.dataset.image_shape)
            plots.plot_filters(filters, folder / "filters.png", f"first-layer filters, {title}")
            written.append("filters.png")
        last, seconds = run.history[-1], sum(record["seconds"] for record in run.history)
        print(
            f"test accuracy {100 * last['test_accuracy']:.2f} %, loss {last['test_loss']:.4f}; "
            f"{last['epoch']} epoch{'s' if last['epoch'] > 1 else ''}, {seconds:.1f} s of training"
        )
    print(f"{folder}: {', '.join(written)}")
    if stopped:
        print(f"stopped in epoch {run.epoch + 1}; continue with: fastconv train --resume "
              f"--output {folder}", file=sys.stderr)  # fmt: skip
        return 128 + stopped
    return 0


# --- evaluate, predict -----------------------------------------------------------------------


def _evaluate(options: argparse.Namespace) -> int:
    from .data import load_dataset
    from .train import evaluate, load_model

    if options.batch_size < 1:
        raise ValueError(f"--batch-size is {options.batch_size}, expected >= 1")
    trained = load_model(options.checkpoint)
    dataset = load_dataset(options.data or trained.config.data, trained.config.image_size)
    if dataset.image_shape != trained.image_shape:
        raise ValueError(
            f"{dataset.name}: images are {dataset.image_shape}, the model was trained on "
            f"{trained.image_shape}"
        )
    own, other = trained.classes[: len(dataset.classes)], dataset.classes
    numbered = other == tuple(str(i) for i in range(len(other)))
    if own != other and not numbered:
        raise ValueError(
            f"{dataset.name}: classes are {', '.join(other)}; the model knows "
            f"{', '.join(trained.classes)}"
        )
    test = options.part == "test"
    images = dataset.test_images if test else dataset.train_images
    labels = dataset.test_labels if test else dataset.train_labels
    with _threads(options.threads):
        result = evaluate(trained.model, images, labels, trained.normalise, options.batch_size)
    assert result is not None
    print(f"{dataset.name}, {len(labels):,} {options.part} images: "
          f"accuracy {100 * result.accuracy:.2f} %, loss {result.loss:.4f}")  # fmt: skip
    _print_classes(trained, result)
    return 0


def _print_classes(trained: TrainedModel, result: Evaluation) -> None:
    """Per class: its images, how many were recognised, and what it was most often taken for."""
    width = max(5, *(len(c) for c in trained.classes))
    print(f"{'class':<{width}}  images  right (%)  most often taken for")
    for i, name in enumerate(trained.classes):
        row = result.confusion[i].copy()
        total, right = int(row.sum()), int(row[i])
        if total == 0:
            continue
        row[i] = 0
        worst = int(row.argmax())
        confused = f"{trained.classes[worst]} ({row[worst]})" if row[worst] else ""
        print(f"{name:<{width}}  {total:6d}  {100 * right / total:9.2f}  {confused}".rstrip())


def _predict(options: argparse.Namespace) -> int:
    from .train import load_model

    if options.top < 1:
        raise ValueError(f"--top is {options.top}, expected >= 1")
    trained = load_model(options.checkpoint)
    with _threads(options.threads):
        for name in options.images:
            images = _read_images(Path(name), trained, options.invert)
            for i, row in enumerate(trained.predict(images)):
                best = row.argsort()[::-1][: options.top]
                words = ", ".join(f"{trained.classes[k]} {100 * row[k]:.1f} %" for k in best)
                print(f"{name}{f'[{i}]' if len(images) > 1 else ''}: {words}")
    return 0


def _read_images(path: Path, trained: TrainedModel, invert: bool) -> npt.NDArray[np.float32]:
    """Images (N, C, H, W) in the units of the training images."""
    import numpy as np

    from .data import read_image
    from .data.dataset import channels_last, file_size
    from .data.npz import read_npy

    channels, height, width = trained.image_shape
    if path.suffix == ".npy":
        size = file_size(path)
        with path.open("rb") as stream:
            array = read_npy(stream, size, str(path))
        if array.shape == trained.image_shape:
            array = array.transpose(1, 2, 0)
        if array.ndim == 2 or (array.ndim == 3 and array.shape[2] == channels):
            array = array[np.newaxis]
        images = channels_last(array, str(path))
        if images.shape[1:] != trained.image_shape:
            raise ValueError(
                f"{path}: images have shape {images.shape[1:]}, the model was trained on "
                f"{trained.image_shape}"
            )
        return images
    if channels not in (1, 3):
        raise ValueError(f"{path}: the model takes {channels} channels, image files have 1 or 3")
    image = read_image(path, channels, (height, width)).astype(np.float32)
    if invert:
        image = 255 - image
    return (image * np.float32(trained.max_value / 255))[np.newaxis].transpose(0, 3, 1, 2)


# --- info ------------------------------------------------------------------------------------


def _info(options: argparse.Namespace) -> int:
    if options.checkpoint is not None:
        return _checkpoint_info(options.checkpoint)
    from importlib import metadata

    from . import show_config
    from .data import dataset_names, find_fashion_mnist
    from .train.networks import model_names

    show_config()
    for package in ("numpy", "safetensors", "tqdm", "matplotlib", "pillow"):
        try:
            version = metadata.version(package)
        except metadata.PackageNotFoundError:
            version = 'not installed (pip install "fastconv[train]")'
        print(f"{package:16} {version}")
    print(f"{'models':16} {', '.join(model_names())}")
    found = {"digits": "embedded", "fashion-mnist": str(find_fashion_mnist() or "not installed")}
    print(f"{'data':16} {', '.join(f'{n} ({found[n]})' for n in dataset_names())}")
    return 0


def _checkpoint_info(path: str) -> int:
    from .train import load_model

    trained = load_model(path)
    config, meta = trained.config, trained.meta
    parameters = sum(p.size for p in trained.model.parameters())
    channels, height, width = trained.image_shape
    print(f"model       {config.model}, {parameters:,} parameters")
    print(f"data        {config.data}, {channels}x{height}x{width}, "
          f"{len(trained.classes)} classes: {', '.join(trained.classes[:12])}"
          f"{' …' if len(trained.classes) > 12 else ''}")  # fmt: skip
    position = f", step {meta['step']} of the next" if meta["step"] else ""
    print(f"trained     {meta['epoch']} of {config.epochs} epochs{position}")
    if meta["history"]:
        last = meta["history"][-1]
        print(f"accuracy    test {100 * last['test_accuracy']:.2f} %, "
              f"training {100 * last['train_accuracy']:.2f} %")  # fmt: skip
    shown = {k: v for k, v in config.to_json().items() if k not in ("data", "model")}
    print(f"options     {', '.join(f'{k} {v}' for k, v in shown.items() if v is not None)}")
    return 0


# --- selftest --------------------------------------------------------------------------------


def _selftest(options: argparse.Namespace) -> int:
    from . import selftest

    return selftest.main()


_COMMANDS = {
    "train": _train, "evaluate": _evaluate, "predict": _predict, "info": _info,
    "selftest": _selftest,
}  # fmt: skip
