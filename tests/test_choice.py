"""The choice of the method: which one serves a shape, and that it depends on nothing else."""

import numpy as np
import pytest
from helpers import eps, same_bits, to_format

import fastconv
import fastconv.functional as F
from fastconv import nn, reference


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
        ((128, 3, 57, 7), "taps"),
        ((48, 1, 112, 3, 2), "dots"),
        ((64, 1, 128, 1), "dots"),
        ((17, 23, 80, 3, 2), "direct"),  # a stride and few channels: the transforms cost too much
        ((97, 101, 17, 3, 2), "direct"),  # and few pixels: the transforms of the weight
        ((128, 256, 28, 3, 2), "winograd"),
        ((64, 64, 28, 7), "winograd"),  # in pieces
        ((64, 96, 40, 5, 2), "winograd"),
        ((48, 64, 60, 6, 3), "winograd"),
    ):
        assert chosen(*shape, batch=batch) == wanted, shape


@pytest.mark.parametrize(("taps", "stride"), [(9, 2), (16, 8), (8, 4), (10, 5), (9, 3)])
def test_lines_with_a_stride(isa, taps, stride):
    x, w = (1, 64, 1, 2000 * stride), (64, 64, 1, taps)
    found = fastconv.explain_conv2d(x, w, (1, stride), (0, taps // 2))
    assert found.algorithm == "winograd"


@pytest.mark.parametrize("channels", [1, 3, 7, 13, 64, 256])
def test_one_tap_of_several_outputs(isa, channels):
    for outputs in range(6, 9):
        assert chosen(channels, outputs, 112, 1) == "direct"
    if isa == "avx512":
        assert chosen(channels, 4, 112, 1) == ("dots" if channels >= 64 else "direct")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("channels", [1, 3, 16, 64, 65, 128, 129])
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


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("inputs", [2, 3, 4])
def test_groups_of_one_output(isa, rng, dtype, inputs):
    """A depthwise convolution for each input of a group, summed in y or beside it."""
    for groups, size, kernel, stride, dilation in (
        (16, (9, 11), (3, 3), 1, 1),
        (17, (7, 20), (3, 3), 2, 1),
        (33, (1, 70), (1, 5), 1, 1),
        (40, (70, 1), (4, 1), 1, 1),
        (18, (15, 13), (3, 2), 1, 3),
    ):
        x = rng.standard_normal((3, groups * inputs, *size)).astype(dtype)
        w = rng.standard_normal((groups, inputs, *kernel)).astype(dtype)
        b = rng.standard_normal(groups).astype(dtype)
        options = {"stride": stride, "padding": (1, 2), "dilation": dilation, "groups": groups}
        y = F.conv2d(x, w, b, **options)
        exact = reference.conv2d(*(a.astype(float) for a in (x, w, b)), **options)
        assert np.abs(y - exact).max() < 8 * eps(dtype) * np.abs(exact).max() * np.sqrt(w[0].size)
        last = to_format(x, "channels_last")
        assert same_bits(y, F.conv2d(last, w, b, **options))
        assert same_bits(y[1:], F.conv2d(x[1:], w, b, **options))
        g = rng.standard_normal(y.shape).astype(dtype)
        want = F.conv2d_backward(g, x, w, **options)
        got = F.conv2d_backward(to_format(g, "channels_last"), last, w, **options)
        assert all(same_bits(a, e) for a, e in zip(got[:2], want[:2], strict=True))


def test_groups_of_one_output_in_both_gradients(isa, rng):
    """Groups of one input and few outputs run so in the gradient of the input."""
    x = rng.standard_normal((9, 20, 30, 31)).astype(np.float32)
    w = rng.standard_normal((60, 1, 3, 3)).astype(np.float32)
    g = rng.standard_normal((9, 60, 30, 31)).astype(np.float32)
    got = F.conv2d_backward(g, x, w, padding=1, groups=20)[0]
    flipped = w.reshape(20, 3, 3, 3)[:, :, ::-1, ::-1]
    exact = reference.conv2d(g.astype(float), flipped.astype(float), None, 1, 1, 1, 20)
    assert np.abs(got - exact).max() < 1e-5 * np.abs(exact).max()
    last = F.conv2d_backward(
        *(to_format(a, "channels_last") for a in (g, x)), w, padding=1, groups=20
    )
    assert same_bits(got, last[0])


def test_plans_of_groups_of_one_output(isa, rng):
    """Weights prepared by a plan, a clamp behind the last input, a sum that joins at the first."""
    conv = nn.Conv2d(64, 32, 3, padding=1, groups=32)
    body = nn.Sequential(nn.Conv2d(32, 64, 1), conv)
    net = nn.Sequential(nn.Residual(body), nn.ReLU()).eval()
    x = rng.standard_normal((2, 32, 12, 13)).astype(np.float32)
    plan = fastconv.compile(net, x.shape)
    wanted = net(x)
    for layout in ("channels_first", "channels_last"):
        y = plan(to_format(x, layout))
        assert np.abs(y - wanted).max() < 1e-5 * np.abs(wanted).max()
        assert y.min() == 0


def test_groups_of_one_output_that_are_not_finite(isa, rng):
    x = rng.standard_normal((1, 32, 9, 9)).astype(np.float32)
    w = rng.standard_normal((16, 2, 3, 3)).astype(np.float32)
    x[0, 3, 4, 4], w[5, 1, 0, 0] = np.nan, np.inf
    y = F.conv2d(x, w, None, 1, 1, 1, 16)
    exact = reference.conv2d(x, w, None, 1, 1, 1, 16)
    np.testing.assert_array_equal(np.isnan(y), np.isnan(exact))
    np.testing.assert_array_equal(np.isinf(y), np.isinf(exact))


def test_groups_of_one_output_are_depthwise(isa):
    assert chosen(64, 32, 28, 3, groups=32) == "depthwise"
    assert chosen(256, 64, 28, 3, groups=64) == "depthwise"
    assert chosen(320, 64, 28, 3, groups=64) != "depthwise"
