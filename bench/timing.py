"""Interleaved timing: candidates take turns in short bursts; the minimum of all samples counts."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

Call = Callable[[], object]

_SAMPLE = (
    20e-6  # seconds: shorter calls are repeated within one sample, so that the clock costs < 1 %
)
_BURST = 4e-3  # seconds of samples per turn
_SETTLE = 2e-3  # seconds of rest before a turn: the other library's threads stop spinning meanwhile
_HOPELESS = 1.6  # a slower variant of the same library, this much behind after two turns, drops out


def _sample(call: Call, repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - start) / repeats


def _turn(call: Call, estimate: float, settle: bool) -> float:
    """One untimed call, then samples for about `_BURST` seconds; the best of them."""
    if settle:
        time.sleep(_SETTLE)
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
    best = {name: max(_sample(call, 1), 1e-7) for name, call in calls.items()}
    start, turns = time.perf_counter(), 0
    running = list(calls)
    while turns < 3 or time.perf_counter() - start < budget:
        for name in running:
            best[name] = min(best[name], _turn(calls[name], best[name], settle))
        turns += 1
        if turns == 2:
            leader = min((best[name] for name in calls if name.startswith(rivals)), default=0.0)
            running = [
                n for n in running if not n.startswith(rivals) or best[n] <= _HOPELESS * leader
            ]
    return best
