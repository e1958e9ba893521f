"""The choice of the method: which one serves a shape, and that it depends on nothing else."""

import numpy as np
import pytest
from helpers import same_bits, to_format

import fastconv
import fastconv.functional as F


def chosen(channels, outputs, size, kernel, stride=1, groups=1, batch=1):
    x = (batch, channels, size, size)
    w = (outputs, channels // groups, kernel, kernel)
    return fastconv.explain_conv2d(x, w, stride, kernel // 2, 1, groups).algorithm


@pytest.mark.parametrize("batch", [1, 3, 64])
def test_choice_by_the_shape(isa, batch):
    """Shapes far from where two methods are alike, whatever the vector."""
    for shape, wanted in (
        ((64, 64, 56, 3), "winograd"),
        ((512, 512, 7, 3), "winograd"),
        ((32, 32, 28, 5), "winograd"),
        ((16, 16, 9, 3, 1, 16), "depthwise"),
        ((64, 64, 56, 1), "direct"),
        ((1, 6, 28, 5), "pixels"),
        ((1, 1, 512, 3), "pixels"),
        ((64, 1, 57, 5), "taps"),
        ((64, 1, 64, 3), "taps"),
        ((17, 23, 80, 3, 2), "direct"),  # a stride and few channels: the transforms cost too much
        ((97, 101, 23, 3, 2), "direct"),
    ):
        assert chosen(*shape, batch=batch) == wanted, shape


@pytest.mark.parametrize("channels", [1, 3, 7, 13, 64, 256])
def test_one_tap_is_direct(isa, channels):
    for outputs in range(1, 9):
        assert chosen(channels, outputs, 112, 1) == "direct"


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("channels", [1, 3, 16, 64, 65])
@pytest.mark.parametrize("size", [(5, 16), (3, 17), (1, 70), (40, 15)], ids=str)
def test_one_tap_of_planes(isa, rng, dtype, channels, size):
    """Planes are read where they lie: the bits are those of channels-last, with a bias too."""
    for outputs in (1, 2, 5, 8, 9):
        x = rng.standard_normal((2, channels, *size)).astype(dtype)
        w = rng.standard_normal((outputs, channels, 1, 1)).astype(dtype)
        b = rng.standard_normal(outputs).astype(dtype)
        g = rng.standard_normal((2, outputs, *size)).astype(dtype)
        last, g_last = to_format(x, "channels_last"), to_format(g, "channels_last")
        for bias in (None, b):
            y = F.conv2d(x, w, bias)
            assert same_bits(y, F.conv2d(last, w, bias))
            assert same_bits(y[1:], F.conv2d(x[1:], w, bias))
        for got, wanted in zip(
            F.conv2d_backward(g, x, w), F.conv2d_backward(g_last, last, w), strict=True
        ):
            assert same_bits(got, wanted)


def test_one_tap_of_planes_that_are_not_finite(isa, rng):
    x = rng.standard_normal((1, 3, 4, 33)).astype(np.float32)
    x[0, 1, 2, 5], x[0, 2, 0, 0] = np.nan, np.inf
    w = rng.standard_normal((4, 3, 1, 1)).astype(np.float32)
    y, last = F.conv2d(x, w), F.conv2d(to_format(x, "channels_last"), w)
    np.testing.assert_array_equal(y, last)
