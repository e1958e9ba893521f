"""One benchmark: compare with a float64 oracle, then time, then say what was measured."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from cases import Array

import fastconv


def tolerance(terms: int, dtype: Any) -> float:
    """Largest error accepted relative to the rms of a sum of `terms` rounded products."""
    return float(32 * np.finfo(dtype).eps * math.sqrt(terms + 8))


def relative_error(result: Array, expected: Array) -> float:
    """Largest difference relative to the rms of `expected`; infinite for NaN or a wrong shape."""
    if result.shape != expected.shape:
        return math.inf
    rms = math.sqrt(float(np.square(expected, dtype=np.float64).mean())) or 1.0
    difference = float(np.abs(result - expected).max(initial=0.0)) / rms
    return difference if difference == difference else math.inf


def run(
    benchmark: Any,
    call: Callable[[], Array],
    expected: Array,
    *,
    group: str,
    terms: int,
    flops: int | None = None,
    once: bool = False,
    isa: str | None = None,
) -> None:
    """Check `call()` against `expected`, then time it; `once` for calls that take seconds."""
    with fastconv.use_isa(isa or fastconv.config()["isa"]):
        result = call()
        worst = relative_error(result, expected)
        assert worst <= tolerance(terms, result.dtype), f"{group}: error {worst:.2e} of the rms"
        benchmark.group = group
        benchmark.extra_info["correct"] = True
        benchmark.extra_info["threads"] = fastconv.get_num_threads()
        benchmark.extra_info["isa"] = isa or ""
        if once:
            benchmark.pedantic(call, rounds=1, iterations=1)
        else:
            benchmark(call)
    if flops is not None and benchmark.stats is not None:
        benchmark.extra_info["gflops"] = flops / benchmark.stats.stats.min * 1e-9
