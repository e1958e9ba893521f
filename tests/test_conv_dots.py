"""Few output channels, whose lanes are input channels: sizes around tiles and vectors."""

import numpy as np
import pytest
from helpers import DTYPES, integers, same_bits, to_format

import fastconv
import fastconv.functional as F
from fastconv import nn, reference

CHANNELS = (1, 3, 15, 16, 17, 33, 64, 70)
FORMATS = ("channels_first", "channels_last")


def problem(rng, shape, w_shape, dtype, **options):
    """Integers, whose sums are exact: x, w, b, options and the result."""
    x, w, b = (integers(rng, s).astype(dtype) for s in (shape, w_shape, w_shape[:1]))
    return x, w, b, reference.conv2d(x, w, b, **options)


def check(x, w, b, wanted, **options):
    options["algorithm"] = "direct"  # not by Winograd, which rounds
    for layout in FORMATS:
        given = to_format(x, layout)
        np.testing.assert_array_equal(F.conv2d(given, w, b, **options), wanted)
    wide = np.concatenate([x, np.full_like(x, np.nan)], axis=1)
    wide = to_format(wide, "channels_last")[:, : x.shape[1]]  # pixels with gaps
    np.testing.assert_array_equal(F.conv2d(wide, w, b, **options), wanted)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("outputs", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("channels", CHANNELS)
def test_strides(isa, rng, dtype, outputs, channels):
    for width, padding in ((1, 1), (2, 1), (7, 0), (16, 1), (31, (0, 2)), (34, 1), (40, 3)):
        options = {"stride": 2, "padding": padding}
        shape, w_shape = (2, channels, 5, width), (outputs, channels, 3, min(3, width))
        check(*problem(rng, shape, w_shape, dtype, **options), **options)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("outputs", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("channels", CHANNELS)
def test_one_tap(isa, rng, dtype, outputs, channels):
    for size, stride in (
        ((1, 1), 1),
        ((3, 5), 1),
        ((4, 4), 1),
        ((1, 31), 1),
        ((9, 35), 2),
        ((70, 1), 1),
    ):
        shape, w_shape = (3, channels, *size), (outputs, channels, 1, 1)
        check(*problem(rng, shape, w_shape, dtype, stride=stride), stride=stride)


@pytest.mark.parametrize("dtype", DTYPES)
def test_geometries(isa, rng, dtype):
    for shape, w_shape, options in (
        ((1, 32, 40, 41), (1, 32, 3, 3), {"padding": 1}),
        ((2, 32, 20, 41), (2, 32, 5, 3), {"padding": (4, 2)}),
        ((1, 48, 9, 37), (1, 48, 3, 3), {"padding": 2, "dilation": 2}),
        ((1, 48, 9, 37), (2, 48, 3, 3), {"padding": 12, "dilation": 12}),
        ((1, 20, 13, 30), (3, 20, 4, 5), {"stride": (3, 2), "dilation": (1, 3), "padding": 3}),
        ((2, 96, 9, 20), (6, 32, 3, 3), {"groups": 3, "stride": 2, "padding": 1}),
        ((2, 96, 7, 9), (6, 32, 1, 1), {"groups": 3}),
        ((1, 64, 1, 900), (1, 64, 1, 9), {"stride": 3, "padding": (0, 4)}),
        ((1, 64, 300, 2), (2, 64, 5, 1), {"stride": (2, 1), "padding": (2, 0)}),
        ((1, 300, 5, 6), (2, 300, 3, 3), {"stride": 2, "padding": ((1, 0), (0, 1))}),
        ((5, 64, 6, 6), (1, 64, 9, 9), {"padding": 3, "stride": 2}),
    ):
        check(*problem(rng, shape, w_shape, dtype, **options), **options)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [1, 2, 5])
def test_gradients_of_few_inputs(isa, rng, dtype, channels):
    """The gradient of the input has few outputs then."""
    for outputs, kernel, stride in ((96, 1, 1), (33, 3, 1), (64, 3, 2), (20, 5, 1)):
        x = integers(rng, (2, channels, 12, 35)).astype(dtype)
        w = integers(rng, (outputs, channels, kernel, kernel)).astype(dtype)
        g = integers(rng, F.conv2d(x, w, None, stride, kernel // 2).shape).astype(dtype)
        wanted = reference.conv2d_backward(g, x, w, stride, kernel // 2)[0]
        for layout in FORMATS:
            given = to_format(g, layout), to_format(x, layout), w
            got = F.conv2d_backward(*given, stride, kernel // 2, algorithm="direct")
            np.testing.assert_array_equal(got[0], wanted)


@pytest.mark.parametrize("outputs", [1, 2, 4, 5, 8])
def test_bits(isa, rng, outputs):
    """Normal data: the same bits for every format, batch and number of threads."""
    cases = (40, 61, 3, 2), (64, 50, 1, 1), (96, 37, 1, 1), (128, 33, 1, 1), (33, 90, 3, 1)
    for channels, size, kernel, stride in cases:
        x = rng.standard_normal((3, channels, size, size)).astype(np.float32)
        w = rng.standard_normal((outputs, channels, kernel, kernel)).astype(np.float32)
        last, options = to_format(x, "channels_last"), {"stride": stride, "padding": kernel // 2}
        y = F.conv2d(x, w, **options)
        assert same_bits(y, F.conv2d(last, w, **options))
        assert same_bits(y[1:2], F.conv2d(last[1:2], w, **options))
        with fastconv.num_threads(1):
            assert same_bits(y, F.conv2d(x, w, **options))
            assert same_bits(y, F.conv2d(last, w, **options))


def test_not_finite(isa, rng):
    x = rng.standard_normal((2, 48, 20, 33)).astype(np.float32)
    w = rng.standard_normal((2, 48, 3, 3)).astype(np.float32)
    x[0, 3, 4, 4], x[1, 47, 19, 32], x[0, 20, 0, 0] = np.nan, np.inf, -np.inf
    for stride in (1, 2):
        y = F.conv2d(to_format(x, "channels_last"), w, None, stride, 1)
        with np.errstate(invalid="ignore"):  # inf - inf, which not every BLAS library hides
            exact = reference.conv2d(x, w, None, stride, 1)
        np.testing.assert_array_equal(np.isnan(y), np.isnan(exact))
        np.testing.assert_array_equal(np.isinf(y), np.isinf(exact))


def test_plan_and_epilogue(isa, rng):
    """Weights prepared by a plan; a batch norm, a sum and a clamp behind the product."""
    head = nn.Sequential(nn.Conv2d(64, 2, 3, stride=2, padding=1), nn.BatchNorm2d(2), nn.ReLU())
    body = nn.Sequential(nn.Conv2d(2, 40, 3, padding=1), nn.ReLU(), nn.Conv2d(40, 2, 1))
    net = nn.Sequential(head, nn.Residual(body), nn.ReLU()).eval()
    x = rng.standard_normal((2, 64, 24, 50)).astype(np.float32)
    plan, wanted = fastconv.compile(net, x.shape), net(x)
    for layout in FORMATS:
        assert np.abs(plan(to_format(x, layout)) - wanted).max() < 1e-5 * np.abs(wanted).max()


@pytest.mark.parametrize("dtype", DTYPES)
def test_bits_for_any_layout_of_the_weight(isa, rng, dtype):
    """Gradients of windows that do not overlap: one product, or phases of one tap each."""
    for groups, channels, kernel in ((3, 51, 3), (1, 34, 2), (17, 51, 3)):
        x = rng.standard_normal((3, channels, 6)).astype(dtype)
        w = rng.standard_normal((channels, 1, kernel)).astype(dtype)
        y = F.conv_transpose1d(x, w, None, kernel, groups=groups)
        for order in ((2, 1, 0), (1, 2, 0), (2, 0, 1)):
            turned = np.ascontiguousarray(w.transpose(order)).transpose(np.argsort(order))
            assert same_bits(y, F.conv_transpose1d(x, turned, None, kernel, groups=groups))


@pytest.mark.parametrize("channels", [64, 65])
def test_zeros_have_one_sign(isa, channels):
    """Products that underflow to -0: planes and pixels give the same bits."""
    x = np.full((1, channels, 20, 33), 1e-30, np.float32)
    w = np.full((1, channels, 1, 1), -1e-30, np.float32)
    assert same_bits(F.conv2d(x, w), F.conv2d(to_format(x, "channels_last"), w))
