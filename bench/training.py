"""The same training run by fastconv and by torch: seconds per epoch and test accuracy.

    python bench/training.py --data fashion-mnist --threads 2 --epochs 2        # the ratio
    python bench/training.py --data fashion-mnist --seeds 0,1,2 --json run.json # whole recipe

Both start from the same weights and see the same images in the same order with the same
augmentation, learning rates and weight decay; only network, loss and optimizer step are the
library's own. The libraries take turns, one epoch each. Seconds are those of the training steps,
augmentation included, evaluation not. Torch's memory format is its better one, chosen over ten
steps each. Without torch fastconv runs alone; --only runs one of the two, for its accuracy.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))  # fastconv's source tree

import fastconv
from fastconv.data import Dataset, load_dataset
from fastconv.train import TrainConfig, recipe
from fastconv.train.fit import Run
from fastconv.train.progress import Progress, describe
from fastconv.train.signals import StopRequest

TRIAL_STEPS = 10  # per memory format of torch


class TorchRun(Run):
    """A run whose steps are torch's; evaluated by fastconv with torch's weights."""

    def __init__(self, dataset: Dataset, config: TrainConfig, channels_last: bool) -> None:
        import torch
        from network_export import torch_twin

        super().__init__(dataset, config, folder=None)
        self.format = torch.channels_last if channels_last else torch.contiguous_format
        self.network = torch_twin(self.model).to(memory_format=self.format).train()
        self.loss = torch.nn.CrossEntropyLoss(label_smoothing=config.label_smoothing)
        parameters = list(self.network.parameters())
        self.sgd = torch.optim.SGD(
            [
                {"params": [p for p in parameters if p.ndim > 1]},
                {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
            ],
            lr=config.lr,
            momentum=config.momentum,
            nesterov=config.momentum > 0,
            weight_decay=config.weight_decay,
        )

    def _train_step(self, chosen: Any) -> None:
        import torch

        images, given = self._batch(chosen)
        x = torch.from_numpy(images).contiguous(memory_format=self.format)
        labels = torch.from_numpy(given.astype("int64"))
        for group in self.sgd.param_groups:
            group["lr"] = self.scheduler.get_last_lr()[0]
        logits = self.network(x)
        loss = self.loss(logits, labels)
        self.sgd.zero_grad()
        loss.backward()
        self.sgd.step()
        self.scheduler.step()
        self.loss_sum += loss.item() * len(labels)
        self.correct += int((logits.argmax(1) == labels).sum())

    def _finish_epoch(self, stop: StopRequest) -> dict[str, Any] | None:
        values = self.network.state_dict().values()  # the same arrays in the same order
        names = self.model.state_dict()
        self.model.load_state_dict(dict(zip(names, (v.numpy() for v in values), strict=True)))
        return super()._finish_epoch(stop)


def better_format(dataset: Dataset, config: TrainConfig) -> bool:
    """Whether torch's steps are faster in channels-last memory."""
    count = min(len(dataset.train_labels), config.batch_size)
    seconds = []
    for channels_last in (False, True):
        run = TorchRun(dataset, config, channels_last)
        best = float("inf")
        for _ in range(TRIAL_STEPS):
            start = time.perf_counter()
            run._train_step(slice(0, count))
            best = min(best, time.perf_counter() - start)
        seconds.append(best)
    return seconds[1] < seconds[0]


def train(runs: Iterable[Run]) -> None:
    """The runs to their ends, an epoch each in turn."""
    pending = list(runs)
    with StopRequest() as stop:
        while pending and not stop.signal:
            for run in pending:
                record = run._train_epoch(stop, Progress())
                name = "torch" if isinstance(run, TorchRun) else "fastconv"
                if record is not None:
                    print(f"{name:8s} epoch {record['epoch']:2d}  {describe(record)}", flush=True)
            pending = [run for run in pending if run.epoch < run.config.epochs]
    if stop.signal:
        raise KeyboardInterrupt


def row(seed: int, ours: Run | None, theirs: Run | None) -> str:
    """One row of the table: the median epoch in seconds, the last accuracy in percent."""
    cells = [str(seed)]
    for run in (ours, theirs):
        if run is None:
            cells += ["", ""]
            continue
        cells += [f"{median(run):.1f}", f"{100 * run.history[-1]['test_accuracy']:.2f}"]
    if ours is None or theirs is None:
        cells.append("")
    else:
        cells.append(f"{median(theirs) / median(ours):.2f}")
    return f"| {' | '.join(cells)} |"


def median(run: Run) -> float:
    seconds = sorted(record["seconds"] for record in run.history)
    return float(seconds[len(seconds) // 2])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--model", help="default: the recipe's")
    parser.add_argument("--epochs", type=int, help="default: the recipe's")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--threads", type=int, default=fastconv.get_num_threads())
    parser.add_argument("--only", choices=["fastconv", "torch"], help="one library alone")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    fastconv.set_num_threads(options.threads)
    dataset = load_dataset(options.data)
    config = recipe(options.data, dataset)
    chosen = {"model": options.model, "epochs": options.epochs}
    config = replace(config, **{key: value for key, value in chosen.items() if value is not None})
    with_torch = options.only != "fastconv" and importlib.util.find_spec("torch") is not None
    if options.only == "torch" and not with_torch:
        parser.error("--only torch: torch is not installed")
    channels_last = False
    if with_torch:
        import torch

        torch.set_num_threads(options.threads)
        channels_last = better_format(dataset, config)

    rows, results = [], []
    for seed in map(int, options.seeds.split(",")):
        seeded = replace(config, seed=seed)
        ours = None if options.only == "torch" else Run(dataset, seeded, folder=None)
        theirs = TorchRun(dataset, seeded, channels_last) if with_torch else None
        train(run for run in (ours, theirs) if run is not None)
        rows.append(row(seed, ours, theirs))
        results.append(
            {
                "config": seeded.to_json(),
                "fastconv": None if ours is None else ours.history,
                "torch": None if theirs is None else theirs.history,
            }
        )
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")
    print("\n| seed | fastconv s/epoch | accuracy % | torch s/epoch | accuracy % | ratio |")
    print("|--:|--:|--:|--:|--:|--:|", *rows, sep="\n")


if __name__ == "__main__":
    main()
