"""Threads, forks and memory."""

from __future__ import annotations

import os
import signal
import threading
import warnings
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np

import fastconv
import fastconv.functional as F
from fastconv.functional._checks import Array

from .kernels import both, functions, in_format

_LARGE: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "3x3": ((4, 24, 28, 30), (32, 24, 3, 3), {"padding": 1}),
    "1x1": ((4, 40, 20, 21), (70, 40, 1, 1), {}),
    "7x7, stride 2": ((4, 3, 50, 50), (24, 3, 7, 7), {"stride": 2, "padding": 3}),
    "depthwise": ((4, 70, 20, 21), (70, 1, 3, 3), {"groups": 70, "padding": 1}),
    "one channel": ((4, 1, 40, 41), (8, 1, 5, 5), {}),
    "transposed": ((4, 17, 10, 11), (17, 9, 4, 4), {"stride": 2, "padding": 1}),
}


@cache
def _large(name: str) -> tuple[list[Array], dict[str, Any]]:
    x_shape, w_shape, arguments = _LARGE[name]
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal(x_shape, np.float32), rng.standard_normal(w_shape, np.float32)
    y = functions(F, name, 4)[0](x, w, **arguments)
    return [x, w, rng.standard_normal(y.shape[1], np.float32), y], arguments


def _bits(name: str, last: bool = False, images: slice = slice(None)) -> list[bytes]:
    """Output, gradients, and pool and normalisation of the output, as bytes."""
    (x, w, b, g), arguments = _large(name)
    x, g = in_format(x[images], last), in_format(g[images], last)
    y, *gradients = both(F, name, [x, w, b, g], arguments)
    pooled = F.max_pool2d(y, 3, 2, 1)
    normal = F.batch_norm(y, None, None, training=True)
    return [a.tobytes() for a in (y, gradients[0], pooled, normal, *gradients[1:])]


def _threads() -> Iterator[tuple[str, bool]]:
    for name in _LARGE:
        with fastconv.num_threads(1):
            want = _bits(name)
        for threads in range(2, max(8, fastconv.config()["cpus"]) + 1):
            with fastconv.num_threads(threads):
                yield f"{name}: {threads} threads", _bits(name) == want
        yield f"{name}: channels-last", _bits(name, last=True) == want
        alone = [_bits(name, images=slice(n, n + 1)) for n in range(4)]
        for i, what in enumerate(("output", "gradient of input", "pool")):
            joined = b"".join(part[i] for part in alone)
            yield f"{name}: {what} of images one by one", joined == want[i]


def _callers() -> Iterator[tuple[str, bool]]:
    want = {name: _bits(name) for name in _LARGE}
    wrong: list[str] = []
    done = [0]

    def call(start: int) -> None:
        for i in range(2 * len(_LARGE)):
            name = list(_LARGE)[(start + i) % len(_LARGE)]
            done[0] += 1
            if _bits(name) != want[name]:
                wrong.append(name)

    callers = [threading.Thread(target=call, args=(i,)) for i in range(8)]
    with fastconv.num_threads(4):
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
    yield from ((name, False) for name in wrong)
    yield from (("", True) for _ in range(done[0] - len(wrong)))


def _forks() -> Iterator[tuple[str, bool]]:
    """Children of a process whose workers are busy; a child that takes 20 s is a failure."""
    if not hasattr(os, "fork"):
        return
    want, stop = _bits("3x3"), threading.Event()

    def compute() -> None:
        while not stop.is_set():
            _bits("3x3")

    busy = threading.Thread(target=compute)
    with fastconv.num_threads(4), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of os.fork with threads
        busy.start()
        try:
            for i in range(5):
                child = os.fork()
                if child == 0:
                    signal.alarm(20)
                    os._exit(0 if _bits("3x3") == want else 1)
                yield f"parent, fork {i}", _bits("3x3") == want
                yield f"child, fork {i}", os.waitpid(child, 0)[1] == 0
        finally:
            stop.set()
            busy.join()


def _memory() -> Iterator[tuple[str, bool]]:
    """400 shapes; what the process keeps grows by less than 16 MiB over the last 300."""
    rng, before = np.random.default_rng(0), 0
    for call in range(400):
        n, c, k, h, w = (int(size) for size in rng.integers(1, (3, 40, 40, 30, 30)))
        x, weight = np.zeros((n, c, h + 2, w + 2), np.float32), np.zeros((k, c, 3, 3), np.float32)
        F.conv2d_backward(F.conv2d(x, weight, padding=1), x, weight, padding=1)
        kept = fastconv.config()["workspace_bytes"]
        yield f"workspace of {kept} bytes", kept <= 64 << 20
        if call == 100:
            before = _resident()
    yield f"resident memory {before} -> {_resident()}", _resident() - before < 16 << 20
    fastconv.clear_workspace()
    yield "workspace after clear_workspace", fastconv.config()["workspace_bytes"] == 0


def _resident() -> int:
    """Bytes in use, or 0 where the system does not tell."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


CHECKS = {
    "threads, batches, formats": _threads,
    "8 callers at once": _callers,
    "fork": _forks,
    "memory": _memory,
}
