"""Every algorithm keeps to the bound that docs/accuracy.md states for it."""

import re
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import fastconv
import fastconv.functional as F

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "bench"))

import accuracy  # noqa: E402

SMALL = [(c, 8) for c in accuracy.CHANNELS] + [(c, 24) for c in accuracy.CHANNELS if c <= 64]
LARGE = [(c, 24 if c > 64 else 57) for c in accuracy.CHANNELS]


@cache
def oracle(name, inputs, channels, size, dtype):
    """Arrays, results in wider floats, bounds."""
    arrays = accuracy.problem(name, inputs, channels, size, dtype)
    return arrays, accuracy.exact(name, *arrays), accuracy.bound(name, *arrays)


def check(name, inputs, channels, size, dtype):
    """All three results, of every instruction set; returns their number."""
    arrays, wanted, bounds = oracle(name, inputs, channels, size, dtype)
    for isa in fastconv.isas():
        with fastconv.use_isa(isa):
            got = accuracy.results(name, *arrays)
        for what, result, want, bound in zip(accuracy.RESULTS, got, wanted, bounds, strict=True):
            worst = (abs(result - want) - bound).max()
            assert worst <= 0, (isa, channels, size, what)
    return 3 * len(fastconv.isas())


@pytest.mark.parametrize("inputs", accuracy.INPUTS)
@pytest.mark.parametrize("name", accuracy.METHODS)
def test_error_bound(name, inputs, trust_counts):
    for channels, size in SMALL:
        count = check(name, inputs, channels, size, np.float32)
        trust_counts["results within their error bound"] += count
    oracle.cache_clear()


@pytest.mark.skipif(np.finfo(np.longdouble).eps > 1e-18, reason="needs a wider float than float64")
@pytest.mark.parametrize("inputs", accuracy.INPUTS)
@pytest.mark.parametrize("name", accuracy.METHODS)
def test_error_bound_of_float64(name, inputs, trust_counts):
    for channels in (1, 3, 17):
        count = check(name, inputs, channels, 9, np.float64)
        trust_counts["results within their error bound"] += count


@pytest.mark.long
@pytest.mark.parametrize("inputs", accuracy.INPUTS)
@pytest.mark.parametrize("name", accuracy.METHODS)
def test_error_bound_of_large_images(name, inputs, trust_counts):
    for channels, size in LARGE:
        count = check(name, inputs, channels, size, np.float32)
        trust_counts["results within their error bound"] += count
    oracle.cache_clear()


@pytest.mark.parametrize("name", accuracy.METHODS)
def test_each_row_runs_its_algorithm(name):
    x, w, _ = accuracy.problem(name, "normal", 4, 24)
    method = accuracy.METHODS[name]
    groups = 4 if method.outputs is None else 1
    found = fastconv.explain_conv2d(
        x.shape, w.shape, method.stride, groups=groups, algorithm=method.algorithm
    )
    assert found.algorithm == name.split()[0]


@pytest.mark.parametrize("name", accuracy.METHODS)
def test_equal_products(isa, name):
    """Roundings that all have the same sign: products * eps / 2, the bound no data can exceed.

    Twice that for Winograd, which rounds its transforms as well.
    """
    x, w, g = (np.full_like(a, 0.1) for a in accuracy.problem(name, "normal", 256, 12))
    got, want = accuracy.results(name, x, w, g), accuracy.exact(name, x, w, g)
    factor = 2 if name.startswith("winograd") else 1
    for result, wanted, count in zip(got, want, accuracy.terms(name, x, w, g), strict=True):
        bound = factor * (count + 1) * np.finfo(np.float32).eps / 2
        assert (abs(result - wanted) <= bound * abs(wanted)).all()


def test_winograd_errors_stay_within_their_tiles(isa):
    """Large values reach no output that is a tile and a kernel away from them."""
    x, w, _ = accuracy.problem("winograd 3x3", "normal", 16, 57)
    large = x.copy()
    large[:, :, 24:32, 24:32] *= 1e20
    a, b = (F.conv2d(v, w, algorithm="winograd") for v in (x, large))
    far = np.ones(a.shape[2:], bool)
    far[24 - 11 : 32 + 9, 24 - 11 : 32 + 9] = False
    assert np.array_equal(a[:, :, far], b[:, :, far])
    assert not np.array_equal(a, b)


def test_the_document_has_the_bounds_of_the_test():
    text = (ROOT / "docs" / "accuracy.md").read_text()
    rows = re.findall(r"^\| (.+?) \| (\w+) \| ([\d.]+) \| (.+) \|$", text, re.MULTILINE)
    assert [(row[0], row[1]) for row in rows] == [
        (name, result) for name in accuracy.METHODS for result in accuracy.RESULTS
    ]
    for name, _, factor, shares in rows:
        assert float(factor) == accuracy.METHODS[name].bound
        assert all(0 <= float(share) < 1 for share in shares.split(" | "))
