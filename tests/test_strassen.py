"""1x1 convolution by seven products of halves: pixels left over, chunks of channels, layouts."""

import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import ALL_FORMATS, eps, integers, same_bits, to_format

import fastconv
import fastconv.functional as F
from fastconv import nn

sys.path.append(str(Path(__file__).parents[1] / "bench"))

import accuracy

# input, outputs, stride; groups are of 28 pixels, panels of 32 outputs, or 16 of float64
CASES = {
    "one chunk": ((2, 256, 14, 14), 256, 1),
    "two chunks": ((1, 384, 15, 17), 256, 1),
    "three chunks": ((3, 576, 11, 13), 320, 1),
    "a row": ((2, 192, 1, 260), 256, 1),
    "pixels left over": ((1, 256, 18, 20), 192, 1),
    "a stride": ((2, 256, 29, 27), 256, 2),
    "two strides": ((1, 256, 40, 28), 256, (3, 2)),
    "many blocks": ((1, 128, 45, 61), 256, 1),
}


@pytest.fixture
def half(isa):
    """The instruction sets that have the method."""
    if isa != "avx512":
        pytest.skip("of vectors of 64 bytes alone")
    return isa


def problem(rng, name, dtype, make=integers):
    shape, outputs, stride = CASES[name]
    x = make(rng, shape, dtype)
    w = make(rng, (outputs, shape[1], 1, 1), dtype)
    assert fastconv.explain_conv2d(shape, w.shape, stride, dtype=dtype).algorithm == "strassen"
    return x, w, stride


def normal(rng, shape, dtype):
    return rng.standard_normal(shape).astype(dtype)


def wanted(x, w, stride):
    rows, columns = (stride, stride) if isinstance(stride, int) else stride
    pixels = x[:, :, ::rows, ::columns].astype(np.float64)
    return np.tensordot(pixels, w[:, :, 0, 0].astype(np.float64), (1, 1)).transpose(0, 3, 1, 2)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", CASES)
def test_whole_numbers_are_exact(name, dtype, half, rng):
    x, w, stride = problem(rng, name, dtype)
    want = wanted(x, w, stride)
    for layout in ALL_FORMATS:
        assert np.array_equal(F.conv2d(to_format(x, layout), w, stride=stride), want)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gradient_of_the_input(dtype, half, rng):
    for name in ("three chunks", "a row", "a stride", "two strides"):
        shape, outputs, stride = CASES[name]
        x, w = integers(rng, shape, dtype), integers(rng, (outputs, shape[1], 1, 1), dtype)
        y = F.conv2d(x, w, stride=stride)
        g = integers(rng, y.shape, dtype)
        want = np.zeros(shape)
        rows, columns = (stride, stride) if isinstance(stride, int) else stride
        want[:, :, ::rows, ::columns] = wanted(g, w.transpose(1, 0, 2, 3), 1)
        for layout in ("channels_first", "channels_last"):
            got = F.conv2d_backward(to_format(g, layout), to_format(x, layout), w, stride=stride)
            assert np.array_equal(got[0], want)


@pytest.mark.parametrize("name", CASES)
def test_bits(name, half, rng):
    """Neither threads, batch split nor layout change a bit."""
    x, w, stride = problem(rng, name, np.float32, normal)
    x = np.concatenate([x, x[:1], x])
    with fastconv.num_threads(1):
        y = F.conv2d(x, w, stride=stride)
    for layout in ALL_FORMATS:
        for threads in (1, 2, 3):
            with fastconv.num_threads(threads):
                assert same_bits(F.conv2d(to_format(x, layout), w, stride=stride), y)
    for n in range(len(x)):
        assert same_bits(F.conv2d(x[n : n + 1], w, stride=stride), y[n : n + 1])


@pytest.mark.parametrize("name", ["one chunk", "three chunks", "pixels left over"])
def test_error(name, half, rng):
    """At most twice the error of a sum in order; 1.7 times with one chunk."""
    x, w, stride = problem(rng, name, np.float32, normal)
    want = wanted(x, w, stride)
    errors = [
        F.conv2d(x, w, stride=stride, algorithm=algorithm) - want
        for algorithm in ("auto", "direct")
    ]
    assert not np.array_equal(*errors)
    mean, largest = zip(*((np.sqrt((e**2).mean()), abs(e).max()) for e in errors), strict=True)
    assert mean[0] <= 2 * mean[1]
    assert largest[0] <= 3 * largest[1]


@pytest.mark.parametrize("inputs", accuracy.INPUTS)
def test_error_bound(inputs, half):
    """The bound of docs/accuracy.md: relative to the largest values of image and weight."""
    for channels in accuracy.MANY:
        x, w = accuracy.one_tap(inputs, channels)
        assert fastconv.explain_conv2d(x.shape, w.shape).algorithm == "strassen"
        error = abs(F.conv2d(x, w) - wanted(x, w, 1)).max()
        scale = channels * float(abs(x).max()) * float(abs(w).max())
        assert error <= eps(np.float32) * np.sqrt(channels) * scale / 16


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["one chunk", "three chunks", "a stride"])
def test_what_is_not_finite_reaches_what_depends_on_it(name, value, half, rng):
    x, w, stride = problem(rng, name, np.float32, normal)
    x = np.concatenate([x, x])
    y = F.conv2d(x, w, stride=stride)
    direct = F.conv2d(x, w, stride=stride, algorithm="direct")
    for layout in ("channels_first", "channels_last"):
        bad = x.copy()
        bad[1, 5, 4, 6] = bad[1, 37, 0, 0] = value
        got = F.conv2d(to_format(bad, layout), w, stride=stride)
        assert same_bits(got[0], y[0])
        assert same_bits(got[2:], y[2:])
        spoilt = np.zeros(y.shape[2:], bool)
        spoilt[4 // (stride if stride != 1 else 1), 6 // (stride if stride != 1 else 1)] = True
        spoilt[0, 0] = True
        assert np.array_equal(got[1][:, ~spoilt], direct[1][:, ~spoilt])
        assert not np.isfinite(got[1][:, spoilt]).any()
        heavy = w.copy()
        heavy[70, 3] = value
        got = F.conv2d(to_format(x, layout), heavy, stride=stride)
        others = np.arange(len(w)) != 70
        assert np.array_equal(got[:, others], direct[:, others])
        assert not np.isfinite(got[:, 70]).any()


@pytest.mark.parametrize("of_weight", [False, True])
def test_sums_that_overflow(of_weight, half, rng):
    """Finite values whose sums are not."""
    x, w, _ = problem(rng, "one chunk", np.float32, normal)
    large = rng.choice([-3e38, 3e38], x.shape if not of_weight else w.shape).astype(np.float32)
    x, w = (x * 1e-6, large) if of_weight else (large, w * 1e-6)
    y, direct = F.conv2d(x, w), F.conv2d(x, w, algorithm="direct")
    assert np.isfinite(direct).all()
    assert np.array_equal(y, direct)


@pytest.mark.parametrize("name", ["one chunk", "three chunks", "a row"])
@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
def test_plan(name, layout, half, rng):
    """Prepared weights, a bias, a residual and a clamp: the bits of the layers."""
    shape, outputs, _ = CASES[name]
    first = nn.Conv2d(shape[1], outputs, 1)
    body = nn.Sequential(nn.Conv2d(outputs, outputs, 1), nn.ReLU(), nn.Conv2d(outputs, outputs, 1))
    model = nn.Sequential(first, nn.ReLU(), nn.Residual(body), nn.ReLU()).eval()
    x = to_format(normal(rng, shape, np.float32), layout)
    y = model(x)
    plan = fastconv.compile(model, shape)
    assert np.allclose(plan(x), y, rtol=0, atol=100 * eps(np.float32) * abs(y).max())
    for threads in (1, 2):
        with fastconv.num_threads(threads):
            assert same_bits(plan(x), plan(to_format(x, "channels_first")))
    bad = x.copy()
    bad[0, 3, 0, 5] = np.nan
    got, finite = plan(bad), np.ones(shape[2:], bool)
    finite[0, 5] = False
    assert np.isnan(got[0][:, ~finite]).all()
    assert np.isfinite(got[0][:, finite]).all()
