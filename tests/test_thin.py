"""3x3 convolutions of few input channels by Winograd: blocks of 16 tiles across rows and images."""

import numpy as np
import pytest
from helpers import ALL_FORMATS, eps, integers, poisoned, same_bits, to_format

import fastconv
import fastconv.functional as F
from fastconv import nn, reference

# Tile rows around a block of 16 tiles and the slot behind a row, outputs around vectors.
WIDTHS = (1, 4, 5, 23, 28, 59, 60, 61, 64, 65, 131)
OUTPUTS = (1, 7, 8, 9, 16, 17, 33, 48)


def wanted(x, w, padding):
    return reference.conv2d(x.astype(np.float64), w.astype(np.float64), None, 1, padding)


@pytest.mark.parametrize("channels", range(1, 8))
@pytest.mark.parametrize("number", range(len(WIDTHS)))
def test_every_width(channels, number, isa, rng):
    padding = number % 3
    shape = (2, channels, 3 + number % 5, WIDTHS[number] + 2 - 2 * min(padding, 1))
    x = integers(rng, shape, np.float32, 3)
    outputs = OUTPUTS[(3 * number + channels) % len(OUTPUTS)]
    w = integers(rng, (outputs, channels, 3, 3), np.float32, 3)
    want = wanted(x, w, padding)
    first = None
    for layout in ALL_FORMATS:
        out = poisoned(*want.shape, layout=layout)
        y = F.conv2d(to_format(x, layout), w, padding=padding, algorithm="winograd", out=out)
        np.testing.assert_allclose(
            y, want, rtol=0, atol=64 * eps(np.float32) * 9 * 9 * channels, err_msg=layout
        )
        first = y if first is None else first
        assert same_bits(y, first)


@pytest.mark.parametrize("size", [7, 28, 61])
@pytest.mark.parametrize("channels", [2, 3, 6])
def test_bits(channels, size, isa, rng):
    """Neither threads nor batch split nor layout change a bit, of the gradient neither."""
    x = rng.standard_normal((7, channels, size, size), dtype=np.float32)
    w = rng.standard_normal((40, channels, 3, 3), dtype=np.float32)
    back = np.ascontiguousarray(w.transpose(1, 0, 2, 3))
    zeros = np.zeros((7, 40, size, size), np.float32)
    options = {"padding": 1, "algorithm": "winograd"}
    mask = (True, False, False)
    with fastconv.num_threads(1):
        y = F.conv2d(x, w, **options)
        grad = F.conv2d_backward(x, zeros, back, output_mask=mask, **options)[0]
    for layout in ALL_FORMATS:
        a = to_format(x, layout)
        with fastconv.num_threads(2):
            assert same_bits(F.conv2d(a, w, **options), y)
            got = F.conv2d_backward(a, to_format(zeros, layout), back, output_mask=mask, **options)
            assert same_bits(got[0], grad)
        for n in (1, 3):
            assert same_bits(F.conv2d(a[n:], w, **options), y[n:])


def test_groups(isa, rng):
    x = integers(rng, (2, 9, 17, 21), np.float32, 3)
    w = integers(rng, (60, 3, 3, 3), np.float32, 3)
    for layout in ALL_FORMATS:
        y = F.conv2d(to_format(x, layout), w, None, 1, 1, 1, 3, algorithm="winograd")
        for g in range(3):
            want = wanted(x[:, 3 * g : 3 * g + 3], w[20 * g : 20 * g + 20], 1)
            np.testing.assert_allclose(
                y[:, 20 * g : 20 * g + 20], want, rtol=0, atol=64 * eps(np.float32) * 9 * 27
            )


@pytest.mark.parametrize("layout", ALL_FORMATS)
def test_images_that_are_not_finite(layout, isa, rng):
    """They run again directly, and the images in the same blocks keep their bits."""
    x = rng.standard_normal((5, 3, 9, 22), dtype=np.float32)
    w = rng.standard_normal((24, 3, 3, 3), dtype=np.float32)
    options = {"padding": 1, "algorithm": "winograd"}
    clean = F.conv2d(x, w, **options)
    x[1, 2, 0, 0], x[3, 0, 8, 21], x[3, 1, 4, 4] = np.nan, np.inf, -np.inf
    y = F.conv2d(to_format(x, layout), w, **options)
    direct = F.conv2d(x, w, padding=1, algorithm="direct")
    for n in range(5):
        if n in (1, 3):
            np.testing.assert_array_equal(np.isfinite(y[n]), np.isfinite(direct[n]))
            np.testing.assert_array_equal(y[n], direct[n])
        else:
            assert same_bits(y[n], clean[n])


@pytest.mark.parametrize("layout", ALL_FORMATS)
def test_plan(layout, isa, rng):
    """Prepared weights, a bias and a clamp (test_conv_fused.py has the rest)."""
    first, last = nn.Conv2d(3, 40, 3, padding=1), nn.Conv2d(6, 24, 3)
    model = nn.Sequential(first, nn.ReLU(), nn.Conv2d(40, 6, 1), last)
    for p in model.parameters():
        p.data[...] = rng.standard_normal(p.data.shape) / 8
    model.eval()
    x = to_format(rng.standard_normal((3, 3, 25, 31)).astype(np.float32), layout)
    y = model(x)
    np.testing.assert_allclose(fastconv.compile(model, x.shape)(x), y, rtol=0, atol=1e-4)


def test_auto_takes_few_channels(isa):
    if isa not in ("avx512", "avx2"):
        pytest.skip("no kernel for other vectors")
    shapes = ((64, 3, 64), (64, 3, 224), (32, 4, 60), (64, 6, 56))
    for outputs, channels, size in shapes:
        x, w = (1, channels, size, size), (outputs, channels, 3, 3)
        e = fastconv.explain_conv2d(x, w, padding=1)
        assert (e.algorithm, "few input" in e.reason) == ("winograd", True), (x, w)
    for outputs, channels, size in ((64, 1, 64), (16, 3, 7), (8, 3, 64)):
        x, w = (1, channels, size, size), (outputs, channels, 3, 3)
        assert "few input" not in fastconv.explain_conv2d(x, w, padding=1).reason, (x, w)
