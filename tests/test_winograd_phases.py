"""Winograd for sums of convolutions: pieces of large and oblong kernels, strides; and for the
residues of a dilation."""

import numpy as np
import pytest
from helpers import ALL_FORMATS, eps, integers, same_bits, to_format

import fastconv
import fastconv.functional as F
from fastconv import reference

# kernel, stride, dilation
CASES = (
    ((6, 6), 1, 1),  # pieces of 3 taps
    ((7, 7), 1, 1),  # of 4, the last one padded
    ((9, 9), 1, 1),  # nine
    ((2, 3), 1, 1),  # one, padded
    ((3, 5), 1, 1),
    ((5, 4), 1, 1),
    ((7, 2), 1, 1),
    ((1, 7), 1, 1),
    ((15, 1), 1, 1),
    ((5, 5), 2, 1),
    ((6, 6), 2, 1),
    ((7, 7), 2, 1),
    ((10, 10), 2, 1),
    ((3, 3), 1, 2),
    ((3, 3), 1, (3, 1)),
    ((2, 2), 1, (1, 4)),
    ((5, 5), 1, 2),
    ((3, 3), 1, 12),  # residues of one pixel or none
    ((1, 3), 1, (7, 3)),
    ((2, 1), 1, 5),
    ((7, 5), 1, (2, 3)),
)
CHANNELS = (1, 5, 15, 16, 17, 24, 33, 48)
SIZES = ((23, 24), (31, 18), (22, 37))


def arrays(rng, case, number, dtype=np.float32, values=integers):
    """x, w, g and the arguments of a convolution; odd sizes, as much padding as keeps outputs."""
    kernel, stride, dilation = case
    extent = np.multiply(np.subtract(kernel, 1), dilation) + 1
    padding = [(int(e) // 2, int(e) // 2 + number % 2) for e in extent]
    c, k = CHANNELS[number % 8], CHANNELS[(3 * number + 2) % 8]
    options = {"stride": stride, "padding": padding, "dilation": dilation}
    x = values(rng, (2, c, *SIZES[number % 3]), dtype, 3)
    w = values(rng, (k, c, *kernel), dtype, 3)
    g = values(rng, F.conv2d(x, w, **options).shape, dtype, 3)
    return x, w, g, options


def both_ways(x, w, g, **options):
    """The convolution and its gradients of the input and of the weight."""
    grad_x, grad_w, _ = F.conv2d_backward(g, x, w, output_mask=(True, True, False), **options)
    return F.conv2d(x, w, **options), grad_x, grad_w


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_phases_and_residues(case, dtype, isa, rng):
    for number in range(6):
        x, w, g, options = arrays(rng, case, number + len(case[0]) * case[1], dtype)
        layout = ALL_FORMATS[number % len(ALL_FORMATS)]
        got = both_ways(
            to_format(x, layout), w, to_format(g, layout), algorithm="winograd", **options
        )
        x, w, g = (a.astype(np.float64) for a in (x, w, g))
        args = (options["stride"], options["padding"], options["dilation"])
        want = (
            reference.conv2d(x, w, None, *args),
            *reference.conv2d_backward(g, x, w, *args)[:2],
        )
        terms = (w[0].size, w[:, 0].size, g[:, 0].size)
        for name, a, b, n in zip(("y", "x", "w"), got, want, terms, strict=True):
            # products of at most 9; the transforms amplify the rounding of their sums
            message = f"{name} of {x.shape}, {w.shape}"
            np.testing.assert_allclose(a, b, rtol=0, atol=64 * eps(dtype) * 9 * n, err_msg=message)


def normal(rng, shape, dtype, _):
    return rng.standard_normal(shape).astype(dtype)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_bits_of_phases_and_residues(case, isa, rng):
    """Neither threads, batch split, layout nor what memory held before change a bit."""
    x, w, g, options = arrays(rng, case, 5, values=normal)
    x, g = (np.concatenate([a] * 4) for a in (x, g))
    options["algorithm"] = "winograd"
    first = None
    for layout in ALL_FORMATS:
        for threads in (1, 2, 3):
            with fastconv.num_threads(threads):
                both_ways(np.full_like(x, np.nan), w, np.full_like(g, np.nan), **options)
                got = both_ways(to_format(x, layout), w, to_format(g, layout), **options)
            first = first or got
            for a, b in zip(got, first, strict=True):
                assert same_bits(a, b)
        one = both_ways(to_format(x[2:3], layout), w, to_format(g[2:3], layout), **options)
        assert same_bits(one[0], first[0][2:3])
        assert same_bits(one[1], first[1][2:3])


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_heavy_weights(case, threads, isa, rng):
    """Weights that outweigh the images, as they lie and packed by a plan."""
    kernel, stride, dilation = case
    c, k = (150, 135) if min(kernel) > 1 else (300, 270)
    padding = tuple(int(e) for e in np.multiply(np.subtract(kernel, 1), dilation) // 2)
    layer = fastconv.nn.Conv2d(c, k, kernel, stride, padding, dilation, rng=0)
    x = rng.standard_normal((1, c, 11, 12), dtype=np.float32)
    w, bias = np.asarray(layer.weight.data), np.asarray(layer.bias.data)
    options = {"stride": stride, "padding": padding, "dilation": dilation}
    want = F.conv2d(x, w, bias, algorithm="direct", **options)
    with fastconv.num_threads(threads):
        y = F.conv2d(x, w, bias, algorithm="winograd", **options)
        planned = fastconv.compile(layer, x.shape)(x)
        auto = F.conv2d(x, w, bias, **options)
    np.testing.assert_allclose(y, want, rtol=0, atol=2e-5 * np.abs(want).max())
    assert same_bits(planned, auto)


@pytest.mark.parametrize(
    ("channels", "size", "dilation"), [(128, 16, 2), (128, 16, 4), (128, 8, 2), (512, 8, 2)]
)
def test_plans_of_planes(channels, size, dilation, isa, rng):
    """More planes than are turned at a time: a plan's weights are laid out for all images."""
    image = channels * size * size * 8
    n = (8 << 20) // image + 1
    x = rng.standard_normal((n, channels, size, size), dtype=np.float32)
    layer = fastconv.nn.Conv2d(channels, channels, 3, 1, dilation, dilation, rng=0)
    plan = fastconv.compile(layer, x.shape)
    want = plan(to_format(x, "channels_last"))
    for threads in (1, 2):
        with fastconv.num_threads(threads):
            assert same_bits(plan(x), want)
            w, bias = np.asarray(layer.weight.data), np.asarray(layer.bias.data)
            got = F.conv2d(x, w, bias, padding=dilation, dilation=dilation)
            assert same_bits(got, want)


# images, channels, outputs, size: slices of tiles; blocks of them; all of them, by panels
SCHEDULES = ((20, 9, 33, 27), (4, 100, 70, 28), (1, 160, 40, 13))


@pytest.mark.parametrize("number", range(len(SCHEDULES)))
@pytest.mark.parametrize("case", CASES, ids=str)
def test_schedules_of_the_weight_gradient(case, number, isa, rng):
    n, c, k, size = SCHEDULES[number]
    kernel, stride, dilation = case
    padding = tuple(int(e) for e in np.multiply(np.subtract(kernel, 1), dilation) // 2)
    options = {"stride": stride, "padding": padding, "dilation": dilation}
    x = rng.standard_normal((n, c, size, size - 3), dtype=np.float32)
    w = np.ones((k, c, *kernel), np.float32)
    g = rng.standard_normal(F.conv2d(x, w, **options).shape, dtype=np.float32)
    options["output_mask"] = (False, True, False)
    want = F.conv2d_backward(g, x, w, algorithm="direct", **options)[1]
    with fastconv.num_threads(2):
        got = F.conv2d_backward(g, x, w, algorithm="winograd", **options)[1]
    np.testing.assert_allclose(got, want, rtol=0, atol=2e-5 * np.abs(want).max())


def test_auto_takes_dilations_and_large_kernels():
    def method(kernel, dilation=1, channels=64, size=33):
        shape, weight = (1, channels, size, size), (channels, channels, *kernel)
        options = {"padding": "same", "dilation": dilation}
        return fastconv.explain_conv2d(shape, weight, **options).algorithm

    for dilation in (2, 3, 6):
        assert method((3, 3), dilation) == "winograd"
    for kernel in ((7, 7), (9, 9), (3, 5), (1, 7), (7, 1)):
        assert method(kernel) == "winograd"
    assert method((3, 3), 24) != "winograd"  # most taps see the padding only
    assert method((3, 3), 2, channels=4) != "winograd"
