"""Interleaved timing: candidates take turns in short bursts; the minimum of all samples counts."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

Call = Callable[[], object]

_SAMPLE = (
    20e-6  # seconds: shorter calls are repeated within one sample, so that the clock costs < 1 %
)
_BURST = 4e-3  # seconds of samples per turn
_SETTLE = 50e-3  # seconds: at most this long a turn waits for the other library's threads to sleep
_HOPELESS = 1.6  # a slower variant of the same library, this much behind after two turns, drops out
_HOPELESS_AT_ONCE = 5  # and this much behind after two calls


def _sample(call: Call, repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - start) / repeats


def _others_run() -> bool:
    """Whether another thread of this process is running, or waits to run."""
    tasks = Path("/proc/self/task")
    own = str(threading.get_native_id())
    try:
        states = [
            (t / "stat").read_text().rpartition(")")[2].split()[0]
            for t in tasks.iterdir()
            if t.name != own
        ]
    except OSError:  # not Linux, or a thread has just ended
        return True
    return "R" in states


def _settle() -> None:
    """Rest until the other library's threads have stopped spinning (an OpenMP runtime's spin for
    milliseconds after a parallel region, how many depends on the processor)."""
    start = time.perf_counter()
    time.sleep(1e-3)
    while _others_run() and time.perf_counter() - start < _SETTLE:
        time.sleep(1e-3)


def _turn(call: Call, estimate: float, settle: bool) -> float:
    """One untimed call, then samples for about `_BURST` seconds; the best of them."""
    if settle:
        _settle()
    call()
    repeats = max(1, int(_SAMPLE / estimate))
    samples = max(1, min(50, int(_BURST / (estimate * repeats))))
    return min(_sample(call, repeats) for _ in range(samples))


def interleaved(
    calls: Mapping[str, Call], budget: float, *, rivals: str = "torch", settle: bool = False
) -> dict[str, float]:
    """Best seconds per call of each candidate.

    Candidates run A B C A B C ... until `budget` seconds are spent, three turns each or more. Of
    those whose name starts with `rivals`, one that is far behind the best of them drops out.
    """
    best = {
        name: max(min(_sample(call, 1) for _ in range(2)), 1e-7) for name, call in calls.items()
    }

    def hopeful(names: list[str], factor: float) -> list[str]:
        leader = min((best[name] for name in names if name.startswith(rivals)), default=0.0)
        return [n for n in names if not n.startswith(rivals) or best[n] <= factor * leader]

    start, turns = time.perf_counter(), 0
    running = hopeful(list(calls), _HOPELESS_AT_ONCE)
    while turns < 3 or time.perf_counter() - start < budget:
        for name in running:
            best[name] = min(best[name], _turn(calls[name], best[name], settle))
        turns += 1
        if turns == 2:
            running = hopeful(running, _HOPELESS)
    return best
