"""The shapes of bench/grid.py: many, distinct, valid, of every awkward kind; bench/step.py."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "bench"))

import grid  # noqa: E402
import step  # noqa: E402
from grid_cases import CONVS, POOLS, family  # noqa: E402

from fastconv import _core  # noqa: E402

KINDS = {  # shapes that other libraries fall off a cliff with
    "prime channels": lambda c: {c.channels, c.outputs} == {7, 13},
    "few channels": lambda c: {min(c.channels, c.outputs)} <= {1, 2, 3, 4, 5},
    "1x7": lambda c: c.kernel == (1, 7),
    "7x1": lambda c: c.kernel == (7, 1),
    "11x11 s4": lambda c: c.kernel == (11, 11) and c.stride == (4, 4),
    "dilation 4": lambda c: c.dilation == (4, 4),
    "groups of 32": lambda c: c.groups == 32 < c.channels,
    "stride 3": lambda c: c.stride == (3, 3),
    "patches": lambda c: c.kernel == c.stride == (16, 16) and not c.transposed,
    "31x31 depthwise": lambda c: c.kernel == (31, 31) and c.groups == c.channels,
    "1x1000": lambda c: c.sizes == (1, 1000),
    "1000x3": lambda c: c.sizes == (1000, 3),
    "long kernels": lambda c: c.axes == 1 and c.kernel[0] > 500,
    "batch 1": lambda c: c.batch == 1,
    "transposed": lambda c: c.transposed,
    "float64": lambda c: c.dtype == "float64",
}


def test_at_least_300_distinct_shapes():
    shapes = {replace(case, name="") for case in CONVS}
    assert len(shapes) == len(CONVS) >= 300
    assert len({case.name for case in (*CONVS, *POOLS)}) == len(CONVS) + len(POOLS)


def test_every_shape_is_valid():
    for case in CONVS:
        assert min(case.output_shape) > 0, case.name
        assert case.channels % case.groups == case.outputs % case.groups == 0, case.name
    for pool in POOLS:
        assert all(2 * p <= k for p, k in zip(pool.padding, pool.kernel, strict=True)), pool.name


@pytest.mark.parametrize("kind", KINDS)
def test_kind_is_there(kind):
    assert any(map(KINDS[kind], CONVS))


def test_algorithm_of_a_shape_is_told():
    told = {grid.algorithm(case) for case in CONVS} - {"grouped"}  # which the baseline has not
    assert told == {"", "direct", "winograd", "pixels", "taps", "dots", "depthwise"}


def row(case, ratio, torch, correct=True):
    times = {"torch": torch, "seconds": {"fastconv": torch / ratio}, "ratio": ratio}
    common = {"layout": "channels_last", "operation": "forward", "threads": 1}
    return {"case": case.name, "correct": correct, **common, **times}


def test_losses_and_tables():
    rows = [
        row(CONVS[0], 0.5, 1e-3),
        row(CONVS[1], 0.5, 1e-5),  # overhead
        row(CONVS[2], 2.0, 1e-3),
        row(CONVS[3], 2.0, 1e-3, correct=False),
    ]
    assert grid.losses(rows) == [rows[3], rows[0]]
    newer = row(CONVS[0], 4.0, 1e-3)
    assert grid.merged(rows, [newer]) == [newer, *rows[1:]]
    text = grid.tables(rows)
    assert f"| {family(CONVS[0].name)} | 4 |" in text
    assert f"| {CONVS[0].name} | forward | 0.50 |" in text
    assert CONVS[1].name not in text


def test_step_times_calls_that_there_are():
    assert [name for name in step.KINDS if not hasattr(_core, name)] == []
