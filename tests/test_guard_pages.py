"""Every kernel on arrays between pages that may not be touched (`guard_pages.py`)."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from guard_pages import placed

import fastconv
import fastconv.functional as F

TESTS = Path(__file__).parent
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), os.environ["PYTHONPATH"]])}


def run(isa, calls, seed, folder):
    """How many calls were made, each in both places; fails with the one under way."""
    progress = folder / "progress"
    words = ["--isa", isa, "--calls", str(calls), "--seed", str(seed), "--progress", str(progress)]
    done = subprocess.run(
        [sys.executable, str(TESTS / "guard_pages.py"), *words],
        env=ENVIRONMENT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, f"{isa}, {progress.read_text()}: {done.stderr[-3000:]}"
    return int(done.stdout)


@pytest.mark.parametrize("isa", fastconv.isas())
def test_nothing_is_read_beyond_an_array(isa, tmp_path, trust_counts):
    made = run(isa, 1500, 0, tmp_path)
    assert made > 1000
    trust_counts["calls between guard pages"] += 2 * made


@pytest.mark.long
@pytest.mark.parametrize("seed", range(1, 5))
@pytest.mark.parametrize("isa", fastconv.isas())
def test_nothing_is_read_beyond_an_array_in_many_calls(isa, seed, tmp_path, trust_counts):
    trust_counts["calls between guard pages"] += 2 * run(isa, 15_000, seed, tmp_path)


@pytest.mark.parametrize("kernel", [(9, 7), (10, 7), (11, 6)])
def test_large_windows_of_few_channels(isa, kernel):
    """Averages of windows of more than 64 taps, four neighbours at a time, of parts of vectors."""
    rng = np.random.default_rng(0)
    for channels in (1, 3, 7, 9, 17, 35):
        x = rng.standard_normal((1, channels, 11, 26)).astype(np.float32)
        given = placed(rng, x, True, "last")
        np.testing.assert_array_equal(F.avg_pool2d(given, kernel, 1), F.avg_pool2d(x, kernel, 1))


@pytest.mark.parametrize("at_end", [False, True])
def test_a_guard_page_catches(at_end):
    """One byte beyond: the process dies."""
    code = (
        f"import sys; sys.path.insert(0, {str(TESTS)!r}); import ctypes, guard_pages, numpy as np\n"
        f"a = guard_pages.guarded_empty({at_end})[0](5, np.float32)\n"
        f"a[:] = 1; ctypes.string_at(a.ctypes.data + ({a_byte(at_end)}), 1)"
    )
    done = subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True)
    assert done.returncode != 0


def a_byte(at_end):
    """The offset of the first byte behind five float32, or of the one before."""
    return 5 * np.dtype(np.float32).itemsize if at_end else -1
