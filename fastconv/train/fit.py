"""The training loop, with checkpoints from which a run resumes bit for bit.

One random generator draws the order of the images and the augmentation. A checkpoint holds its
state at the start of the epoch (from which the order is drawn again) and now, beside weights,
optimizer, schedule, dropout generators and the sums behind the metrics. A run that was stopped or
killed and resumed therefore ends with the bits of one that never was.
"""

from __future__ import annotations

import json
import math
import time
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastconv._messages import typed
from fastconv.data import Dataset

from .batches import Normalisation, augment, batch_bounds
from .checkpoint import (
    CHECKPOINT_NAME,
    Checkpoint,
    load_checkpoint,
    remove_leftovers,
    save_checkpoint,
    write_atomically,
)
from .evaluate import evaluate
from .networks import create_model
from .progress import Progress, make_progress
from .recipes import TrainConfig
from .signals import StopRequest

METRICS_NAME = "metrics.json"


@dataclass(frozen=True)
class FitResult:
    """How a run ended.

    Attributes
    ----------
    model : Module
        The trained model, in eval mode.
    history : list of dict
        One record per finished epoch: epoch, lr, train_loss, train_accuracy, test_loss,
        test_accuracy, seconds, images_per_second.
    signal : int
        0, or the signal that stopped the run (SIGINT: 2).
    """

    model: Any
    history: list[dict[str, Any]]
    signal: int


def fit(
    dataset: Dataset,
    config: TrainConfig,
    folder: str | Path | None = None,
    *,
    model: Any = None,
    resume: bool = False,
    checkpoint_every: int = 0,
    progress: str | Progress = "auto",
) -> FitResult:
    """Train a model on a data set.

    Parameters
    ----------
    dataset : Dataset
    config : TrainConfig
    folder : path, optional
        Where `checkpoint.safetensors` and `metrics.json` are written; made if it is missing.
        Without it nothing is written.
    model : Module, optional
        Default: the one `config` names. A model of your own must be built the same way, from
        the same seed, when a run is resumed.
    resume : bool
        Continue from the checkpoint in `folder`. `config` must be the run's own, but may have
        more epochs: see Notes.
    checkpoint_every : int
        Write a checkpoint every so many steps, besides every epoch (0: only every epoch).
    progress : "auto", "bars", "lines", "none" or Progress

    Returns
    -------
    FitResult

    Raises
    ------
    ValueError
        If model, data and configuration do not fit together, the checkpoint belongs to another
        run, or the loss becomes infinite or NaN.
    OSError
        If `folder` cannot be written.
    ImportError
        If safetensors or tqdm is needed and missing.

    Notes
    -----
    The first SIGINT or SIGTERM ends the run after the current step, with a checkpoint; a second
    one raises KeyboardInterrupt and leaves the last checkpoint as it is.

    A run resumed with more epochs, finished or not, goes on under the schedule of the longer run,
    at the step it has reached: the rate jumps once, from the falling end of the short cycle to the
    place of that step in the long one, and falls from there. The epochs done keep the rates they
    had, so the result is not that of a run which had all epochs from the start.
    """
    if not isinstance(dataset, Dataset):
        raise TypeError(
            "fit: dataset must be a Dataset, as fastconv.data.load_dataset gives it, "
            f"got {typed(dataset)}"
        )
    if not isinstance(config, TrainConfig):
        raise TypeError(f"fit: config must be a TrainConfig, got {typed(config)}")
    from fastconv.nn import Module

    if model is not None and not isinstance(model, Module):
        raise TypeError(f"fit: model must be a Module, got {typed(model)}")
    if resume and folder is None:
        raise ValueError("fit: resume needs the folder of the run")
    display = make_progress(progress) if isinstance(progress, str) else progress
    run = Run(dataset, config, None if folder is None else Path(folder), model, checkpoint_every)
    if resume:
        run.restore()
    else:
        run.start()
    with StopRequest() as stop:
        run.train(stop, display)
    run.model.eval()
    return FitResult(run.model, run.history, stop.signal)


class Run:
    """The state of one training run: what a checkpoint holds, and the loop that advances it."""

    def __init__(
        self,
        dataset: Dataset,
        config: TrainConfig,
        folder: Path | None,
        model: Any = None,
        checkpoint_every: int = 0,
    ) -> None:
        from fastconv import nn, optim

        if checkpoint_every < 0:
            raise ValueError(f"checkpoint_every is {checkpoint_every}, expected >= 0")
        self.checkpoint_every = checkpoint_every
        _, height, width = dataset.image_shape
        if config.shift >= min(height, width):
            raise ValueError(
                f"shift is {config.shift}, expected less than the images of {height}x{width}"
            )
        self.dataset, self.config, self.folder = dataset, config, folder
        if model is None:
            rng = np.random.Generator(np.random.PCG64([config.seed, 0]))
            model = create_model(config.model, dataset.image_shape, len(dataset.classes), rng)
        self.model = model
        self.normalise = Normalisation.of(dataset.train_images)
        self.bounds = batch_bounds(len(dataset.train_labels), config.batch_size)
        self.criterion = nn.CrossEntropyLoss(label_smoothing=config.label_smoothing)
        self.optimizer = optim.SGD(
            optim.weight_decay_groups(model, config.weight_decay),
            lr=config.lr,
            momentum=config.momentum,
            nesterov=config.momentum > 0,
        )
        self.scheduler = optim.OneCycleLR(
            self.optimizer,
            max_lr=config.lr,
            total_steps=config.epochs * len(self.bounds),
            cycle_momentum=False,
        )
        self.rng = np.random.Generator(np.random.PCG64([config.seed, 1]))
        self.epoch, self.step = 0, 0
        self.history: list[dict[str, Any]] = []
        self._begin_epoch()

    def _begin_epoch(self) -> None:
        self.loss_sum, self.correct, self.seconds = 0.0, 0, 0.0
        self.epoch_rng_state = self.rng.bit_generator.state

    # --- checkpoints -------------------------------------------------------------------------

    def start(self) -> None:
        """Make the folder and write the checkpoint of step 0."""
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
        self.save()

    def save(self) -> None:
        """Write checkpoint and metrics, each atomically."""
        if self.folder is None:
            return
        optimizer = {
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
        }
        state = Checkpoint(self.model.state_dict(), optimizer, self._meta())
        save_checkpoint(self.folder / CHECKPOINT_NAME, state)
        metrics = {
            "config": self.config.to_json(),
            "epochs_done": len(self.history),
            "history": self.history,
        }
        text = json.dumps(metrics, indent=1, allow_nan=False) + "\n"
        write_atomically(self.folder / METRICS_NAME, text.encode())

    def _meta(self) -> dict[str, Any]:
        from fastconv.nn import rng_state

        data = self.dataset
        return {
            "config": self.config.to_json(),
            "data": {
                "name": data.name,
                "classes": list(data.classes),
                "image_shape": list(data.image_shape),
                "mean": list(self.normalise.mean),
                "std": list(self.normalise.std),
                "max_value": data.max_value,
                "crc32": fingerprint(data),
            },
            "epoch": self.epoch,
            "step": self.step,
            "history": self.history,
            "sums": [self.loss_sum, self.correct, self.seconds],
            "rng": self.rng.bit_generator.state,
            "epoch_rng": self.epoch_rng_state,
            "model_rng": rng_state(self.model),
        }

    def restore(self) -> None:
        """Take over the state of the checkpoint in the folder.

        Raises
        ------
        ValueError
            If it is corrupt, or was written with other data or another configuration.
        """
        from fastconv.nn import set_rng_state

        assert self.folder is not None
        path = self.folder / CHECKPOINT_NAME
        if not path.is_file():
            raise ValueError(f"{path}: there is no checkpoint to resume")
        remove_leftovers(self.folder)
        checkpoint = load_checkpoint(path)
        meta = checkpoint.meta
        self._check_same_run(path, meta)
        try:
            self.model.load_state_dict(checkpoint.model)
            self.optimizer.load_state_dict(checkpoint.optimizer["optimizer"])
            self.scheduler.load_state_dict(checkpoint.optimizer["scheduler"])
            for key in ("epoch_rng", "rng"):  # the first to see that it is a state
                self.rng.bit_generator.state = meta[key]
            self.epoch_rng_state = meta["epoch_rng"]
            set_rng_state(self.model, meta["model_rng"])
            loss_sum, correct, seconds = meta["sums"]
            self.loss_sum, self.correct = float(loss_sum), int(correct)
            self.seconds = float(seconds)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise ValueError(f"{path}: cannot resume from it ({error})") from None
        self.epoch, self.step, self.history = meta["epoch"], meta["step"], meta["history"]
        if self.config.epochs > meta["config"]["epochs"]:
            self.save()  # from now on it is the longer run

    def _check_same_run(self, path: Path, meta: dict[str, Any]) -> None:
        saved, own = meta["config"], self.config.to_json()
        for name, value in own.items():
            longer = name == "epochs" and isinstance(saved.get(name), int) and saved[name] <= value
            if name != "data" and saved.get(name) != value and not longer:
                raise ValueError(
                    f"{path}: was written with {name} = {saved.get(name)}, got {value}; "
                    "a resumed run keeps its configuration, and may only get more epochs"
                )
        if meta["data"].get("crc32") != fingerprint(self.dataset):
            raise ValueError(f"{path}: was written with other data than {self.dataset!r}")
        if not (0 <= meta["epoch"] <= self.config.epochs and 0 <= meta["step"] <= len(self.bounds)):
            raise ValueError(f"{path}: position {meta['epoch']}, {meta['step']} is out of range")

    # --- the loop ----------------------------------------------------------------------------

    def train(self, stop: StopRequest, display: Progress) -> None:
        """Train to the last epoch, or until a stop is requested; save in both cases."""
        try:
            while self.epoch < self.config.epochs and not stop.signal:
                record = self._train_epoch(stop, display)
                display.end_epoch(record)
                self.save()
        finally:
            display.end_epoch(None)

    def _train_epoch(self, stop: StopRequest, display: Progress) -> dict[str, Any] | None:
        """Finish the current epoch; None if it was broken off."""
        shuffle = np.random.Generator(np.random.PCG64())
        shuffle.bit_generator.state = self.epoch_rng_state
        count = len(self.dataset.train_labels)
        order = shuffle.permutation(count)
        if self.step == 0:
            self.rng.bit_generator.state = shuffle.bit_generator.state
        done = self.bounds[self.step][0] if self.step < len(self.bounds) else count
        display.start_epoch(self.epoch + 1, self.config.epochs, count, done)
        self.model.train()
        while self.step < len(self.bounds):
            started = time.perf_counter()
            start, end = self.bounds[self.step]
            self._train_step(order[start:end])
            self.step += 1
            self.seconds += time.perf_counter() - started
            display.step(end - start, self.loss_sum / end, self.correct / end)
            if stop.signal:
                return None
            if self.checkpoint_every and self.steps_done % self.checkpoint_every == 0:
                self.save()
        return self._finish_epoch(stop)

    @property
    def steps_done(self) -> int:
        """Steps since the start of the run."""
        return self.epoch * len(self.bounds) + self.step

    def _batch(self, chosen: Any) -> tuple[Any, Any]:
        """Those training images, augmented and normalised, and their labels."""
        config, data = self.config, self.dataset
        pixels = data.train_images.transpose(0, 2, 3, 1)[chosen].transpose(0, 3, 1, 2)
        images = augment(pixels, self.rng, config.shift, config.pad_mode, config.flip)
        return self.normalise(images), data.train_labels[chosen]

    def _train_step(self, chosen: Any) -> None:
        images, labels = self._batch(chosen)
        logits = self.model.forward(images)
        loss = float(self.criterion.forward(logits, labels))
        if not math.isfinite(loss):
            raise ValueError(
                f"training diverged: the loss is {loss} in epoch {self.epoch + 1}, step "
                f"{self.step + 1}; lower the learning rate (lr {self.config.lr})"
            )
        self.optimizer.zero_grad()
        self.model.backward_parameters(self.criterion.backward())
        self.optimizer.step()
        self.scheduler.step()
        self.loss_sum += loss * len(labels)
        self.correct += int((logits.argmax(axis=1) == labels).sum())

    def _finish_epoch(self, stop: StopRequest) -> dict[str, Any] | None:
        """Evaluate, append the epoch's record and move on; None if a stop came in between."""
        config, data, count = self.config, self.dataset, len(self.dataset.train_labels)
        result = evaluate(
            self.model, data.test_images, data.test_labels, self.normalise,
            after_batch=lambda _: not stop.signal,
        )  # fmt: skip
        if result is None:
            return None
        record = {
            "epoch": self.epoch + 1,
            "lr": self.scheduler.lr(config.lr, self.scheduler.last_step - 1),
            "train_loss": self.loss_sum / count,
            "train_accuracy": self.correct / count,
            "test_loss": result.loss,
            "test_accuracy": result.accuracy,
            "seconds": round(self.seconds, 3),
            "images_per_second": round(count / self.seconds, 1),
        }
        if not math.isfinite(result.loss):
            raise ValueError(f"training diverged: the test loss is {result.loss}")
        self.history.append(record)
        self.epoch, self.step = self.epoch + 1, 0
        self._begin_epoch()
        return record


def fingerprint(dataset: Dataset) -> int:
    """CRC-32 of the training images and labels, to notice that a run is resumed with others."""
    pixels = dataset.train_images.transpose(0, 2, 3, 1)
    value = zlib.crc32(np.ascontiguousarray(pixels).view(np.uint8).reshape(-1).data)
    return zlib.crc32(dataset.train_labels.view(np.uint8).data, value)
