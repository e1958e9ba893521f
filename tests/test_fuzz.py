"""Random calls of every public function, in a process of their own (`fuzz_calls.py`)."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from guarded_arrays import MARGIN, guard

import fastconv.functional as F

TESTS = Path(__file__).parent
PEAK_KIB = 1 << 20  # of resident memory; the calls want at most tens of MiB


def fuzz(seed, calls, folder):
    """Run the fuzzer; fails with the call under way when the process dies."""
    progress = folder / "progress"
    words = ["--seed", str(seed), "--calls", str(calls), "--progress", str(progress)]
    path = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path}
    if os.environ.get("FASTCONV_SANITIZER"):  # no limit of the address space there
        environment["ASAN_OPTIONS"] = os.environ.get("ASAN_OPTIONS", "") + (
            ":max_allocation_size_mb=2048"
        )
    done = subprocess.run(
        [sys.executable, str(TESTS / "fuzz_calls.py"), *words],
        env=environment, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        number = int.from_bytes(progress.read_bytes() if progress.exists() else b"", "little")
        pytest.fail(
            f"exit code {done.returncode}; python tests/fuzz_calls.py --call {seed}:{number}\n"
            + done.stderr[-3000:]
        )
    return json.loads(done.stdout)


def check(report):
    lines = [f"--call {f['call']}: {f['what']}: {f['arguments']}" for f in report["failures"]]
    assert not lines, "\n".join(lines[:20])
    assert report["peak_kib"] < PEAK_KIB or os.environ.get("FASTCONV_SANITIZER")


def test_random_calls(tmp_path, trust_counts):
    report = fuzz(0, 3000, tmp_path)
    trust_counts["calls fuzzed"] += report["calls"]
    check(report)
    outcomes = report["outcomes"]
    assert all(any(name in outcomes for name in (f, f"nn.{f}")) for f in F.__all__)
    kinds = {kind for counts in outcomes.values() for kind in counts}
    assert kinds == {"result", "ValueError", "TypeError", "MemoryError"}


@pytest.mark.long
@pytest.mark.parametrize("seed", range(1, 9))
def test_many_random_calls(seed, tmp_path, trust_counts):
    report = fuzz(seed, 25_000, tmp_path)
    trust_counts["calls fuzzed"] += report["calls"]
    check(report)


@pytest.mark.parametrize("may_write", [False, True])
def test_a_write_beside_an_array_is_seen(rng, may_write):
    """Before, behind and, in a strided array, between the elements."""
    for _ in range(50):
        guarded = guard(rng, np.zeros((2, 3)), writable=may_write)
        assert not guarded.touched()
        outside = np.flatnonzero(~guarded._owned)
        assert (outside < MARGIN).any()
        assert (outside >= len(guarded._owned) - MARGIN).any()
        guarded._buffer[rng.choice(outside)] ^= 1
        assert guarded.touched()
    inside = guard(rng, np.zeros((2, 3)), writable=may_write, plain=True)
    inside.array[0, 0] = 1
    assert inside.touched() == (not may_write)
