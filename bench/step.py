"""A training step, millisecond by millisecond, and its ratio to torch where that is installed.

    python bench/step.py                              # resnet20, one thread
    python bench/step.py --model resnet18 --threads 2 --steps 5
    python bench/step.py --model lenet5 --no-fusion

A step is forward, loss, backward and SGD with momentum. The table groups the calls of the extension
by what they compute. "bytes" are those of all arrays a call is given, each counted once; the floor
is the larger of bytes / bandwidth and operations / peak, both measured at the start on the same
threads (a copy between 256 MiB arrays; a matrix product). Work that is in the cache, or done by a
faster algorithm than the direct sum, can be under its floor.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

MODELS = {  # name: (batch, channels, image size, classes)
    "lenet5": (64, 1, 28, 10),
    "resnet20": (128, 3, 32, 10),
    "resnet18": (8, 3, 224, 1000),
}
KINDS = {
    "conv2d": "convolution, forward",
    "conv2d_grad_input": "convolution, gradient of the input",
    "conv2d_grad_weight": "convolution, gradient of the weight",
    "conv2d_pooled_grad_weight": "convolution, gradient of the weight",
    "linear": "linear layers",
    "channel_sum": "gradient of biases",
    "batch_norm": "batch norm (+ sum, ReLU), forward",
    "batch_norm_grad": "batch norm (+ sum, ReLU), backward",
    "max_pool2d": "max pool, forward",
    "max_pool2d_tap_grad": "max pool, backward",
    "avg_pool2d": "average pool",
    "avg_pool2d_grad": "average pool",
    "elementwise": "activations",
    "elementwise_grad": "activations",
    "add": "sums of branches",
    "copy": "copies",
    "copy_channels": "copies",
    "sgd_step": "optimizer",
}


@dataclass
class Row:
    calls: int = 0
    seconds: float = 0.0
    bytes: int = 0
    flops: int = 0

    def floor(self, bandwidth: float, peak: float) -> float:
        return max(self.bytes / bandwidth, self.flops / peak)


class Recorder:
    """Times the calls of the extension while `rows` is a dict."""

    def __init__(self) -> None:
        from fastconv import _core

        self.rows: dict[str, Row] | None = None
        self.own = 0.0  # seconds of counting
        for name in KINDS:
            setattr(_core, name, self._timed(name, getattr(_core, name)))

    def _timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            if self.rows is None:
                return function(*arguments)
            start = time.perf_counter()
            result = function(*arguments)
            end = time.perf_counter()
            row = self.rows.setdefault(KINDS[name], Row())
            row.calls += 1
            row.seconds += end - start
            row.bytes += total_bytes(arguments)
            row.flops += flops(name, arguments)
            self.own += time.perf_counter() - end
            return result

        return call


def total_bytes(arguments: Any) -> int:
    import numpy as np

    if isinstance(arguments, np.ndarray):
        return arguments.nbytes
    if isinstance(arguments, tuple | list):
        return sum(map(total_bytes, arguments))
    return 0


def flops(name: str, arguments: tuple[Any, ...]) -> int:
    """Two per product of the direct sum."""
    places = {
        "conv2d": (1, 3), "linear": (1, 3), "conv2d_grad_input": (1, 0),
        "conv2d_grad_weight": (2, 0),
    }  # fmt: skip
    if name not in places:
        return 0
    weight, y = (arguments[place] for place in places[name])
    pixels = int(y.size) // int(y.shape[1])
    return 2 * pixels * int(weight.size)


def best_of(call: Callable[[], object], times: int) -> float:
    best = float("inf")
    for _ in range(times):
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return best


def machine() -> tuple[float, float]:
    """Bytes per second of a copy (read and written), and operations per second of a product."""
    import numpy as np

    import fastconv.functional as F
    from fastconv import _core

    n = (256 << 20) // 4
    x, y = np.ones(n, np.float32), np.empty(n, np.float32)
    image = (1, 1, 1, n)
    seconds = best_of(lambda: _core.copy(x.reshape(image), y.reshape(image)), 5)
    rows, results = np.ones((4096, 1024), np.float32), np.empty((4096, 512), np.float32)
    weight = np.ones((512, 1024), np.float32)
    product = best_of(lambda: F.linear(rows, weight, out=results), 5)
    return 2 * x.nbytes / seconds, 2 * 4096 * 1024 * 512 / product


def our_step(name: str) -> tuple[Any, Callable[[], float], Any, Any]:
    """The model, one step of it (which returns the loss), and the data."""
    import numpy as np

    from fastconv import models, nn, optim

    batch, channels, size, classes = MODELS[name]
    rng = np.random.default_rng(0)
    model = getattr(models, name)(rng=0)
    x = rng.standard_normal((batch, channels, size, size), dtype=np.float32)
    labels = rng.integers(0, classes, batch)
    optimizer = optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    criterion = nn.CrossEntropyLoss()

    def step() -> float:
        loss = float(criterion(model(x), labels))
        optimizer.zero_grad()
        model.backward_parameters(criterion.backward())
        optimizer.step()
        return loss

    return model, step, x, labels


def torch_step(model: Any, x: Any, labels: Any, channels_last: bool) -> Callable[[], float]:
    """The same step in torch, from the same weights."""
    import torch
    from network_export import torch_twin

    network = torch_twin(model).train()
    data = torch.from_numpy(x.copy())
    if channels_last:
        network = network.to(memory_format=torch.channels_last)
        data = data.contiguous(memory_format=torch.channels_last)
    target = torch.from_numpy(labels)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    criterion = torch.nn.CrossEntropyLoss()

    def step() -> float:
        optimizer.zero_grad()
        loss = criterion(network(data), target)
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return step


def compare(name: str, threads: int, budget: float) -> None:
    """Losses of three steps side by side, then the ratio of the times."""
    try:
        import torch
    except ModuleNotFoundError:
        print("torch is not installed: no ratio")
        return
    from timing import interleaved

    torch.set_num_threads(threads)
    model, ours, x, labels = our_step(name)
    theirs = {f: torch_step(model, x, labels, f == "last") for f in ("first", "last")}
    losses = [[step() for _ in range(3)] for step in (ours, *theirs.values())]
    for other in losses[1:]:
        worst = max(abs(a - b) for a, b in zip(losses[0], other, strict=True))
        assert worst < 1e-3 * losses[0][0], f"losses differ: {losses}"
    calls = {"fastconv": ours, **{f"torch channels-{f}": step for f, step in theirs.items()}}
    best = interleaved(calls, budget, settle=threads > 1)
    print("  ".join(f"{key} {seconds * 1e3:.2f} ms" for key, seconds in best.items()))
    rival = min(seconds for key, seconds in best.items() if key.startswith("torch"))
    print(f"torch / fastconv: {rival / best['fastconv']:.2f}")


def profile(name: str, steps: int, bandwidth: float, peak: float) -> None:
    """The fastest of `steps` steps as a table."""
    recorder = Recorder()
    _, step, _, _ = our_step(name)
    for _ in range(3):
        step()
    best, rows, faults = float("inf"), dict[str, Row](), 0
    for _ in range(steps):
        recorder.rows, recorder.own = {}, 0.0
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        start = time.perf_counter()
        step()
        seconds = time.perf_counter() - start - recorder.own
        if seconds < best:
            best, rows = seconds, recorder.rows
            faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
        recorder.rows = None
    rest = best - sum(row.seconds for row in rows.values())
    print(f"\n| {name}, batch {MODELS[name][0]} | calls | ms | share | floor ms | MB | GFLOP |")
    print("|:--|--:|--:|--:|--:|--:|--:|")
    for kind, row in sorted(rows.items(), key=lambda item: -item[1].seconds):
        floor = row.floor(bandwidth, peak)
        print(
            f"| {kind} | {row.calls} | {row.seconds * 1e3:.2f} | {row.seconds / best:.1%} "
            f"| {floor * 1e3:.2f} | {row.bytes / 1e6:.1f} | {row.flops / 1e9:.2f} |"
        )
    print(f"| Python, NumPy, loss | | {rest * 1e3:.2f} | {rest / best:.1%} | | | |")
    floor = sum(row.floor(bandwidth, peak) for row in rows.values())
    print(f"| **step** | | **{best * 1e3:.2f}** | 100 % | {floor * 1e3:.2f} | | |")
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"\npage faults in that step: {faults}; peak memory of the process: {memory:.0f} MiB")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", choices=sorted(MODELS), default="resnet20")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=10, help="the fastest is shown (default 10)")
    parser.add_argument("--budget", type=float, default=10.0, help="seconds for the ratio")
    parser.add_argument("--no-fusion", action="store_true", help="layer by layer")
    options = parser.parse_args(arguments)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(options.threads)
    import fastconv

    fastconv.set_num_threads(options.threads)
    fastconv.nn.fusion(not options.no_fusion)
    bandwidth, peak = machine()
    print(
        f"fastconv {fastconv.__version__} ({fastconv.config()['isa']}), "
        f"{options.threads} threads: {bandwidth / 1e9:.1f} GB/s, {peak / 1e9:.0f} GFLOP/s"
    )
    profile(options.model, options.steps, bandwidth, peak)
    compare(options.model, options.threads, options.budget)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
