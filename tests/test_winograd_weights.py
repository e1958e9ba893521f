"""Gradients of weights by Winograd: schedules, groups, few tiles and few channels."""

import numpy as np
import pytest
from helpers import eps, integers, same_bits, to_format

import fastconv
import fastconv.functional as F
from fastconv import reference


@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (2, 1), (3, 2), (4, 2)])
@pytest.mark.parametrize(
    ("groups", "channels", "outputs", "size"), [(5, 4, 6, 9), (4, 16, 24, 33), (7, 33, 18, 13)]
)
def test_gradient_of_groups(groups, channels, outputs, size, kernel, stride, isa, rng):
    """Threads share out groups where there are enough: the same bits."""
    x = rng.standard_normal((8, groups * channels, size, size), dtype=np.float32)
    w = np.ones((groups * outputs, channels, kernel, kernel), np.float32)
    options = {"padding": 1, "groups": groups, "stride": stride}
    shape = F.conv2d(x, w, **options).shape
    g = rng.standard_normal(shape, dtype=np.float32)
    options["output_mask"] = (False, True, False)
    want = F.conv2d_backward(g, x, w, algorithm="direct", **options)[1]
    first = None
    for threads in (1, 2, 3):
        with fastconv.num_threads(threads):
            got = F.conv2d_backward(g, x, w, algorithm="winograd", **options)[1]
        first = got if first is None else first
        assert same_bits(got, first)
    np.testing.assert_allclose(first, want, rtol=0, atol=2e-5 * np.abs(want).max())


# images, channels, outputs, size: slices of tiles; blocks of them, by points; all of them, by
# panels of outputs and chunks of channels, the last ones short
SCHEDULES = ((50, 9, 33, 27), (9, 150, 70, 28), (6, 70, 300, 17), (1, 300, 40, 11))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("number", range(len(SCHEDULES)))
@pytest.mark.parametrize(
    ("kernel", "stride"), [((2, 2), 1), ((1, 2), 1), ((2, 1), 1), ((3, 3), 2), ((4, 4), 2)]
)
def test_gradient_of_two_taps(kernel, stride, number, dtype, isa, rng):
    """Every schedule of the gradient of the weight; neither threads nor layout change a bit."""
    n, c, k, size = SCHEDULES[number]
    x = rng.standard_normal((n, c, stride * size, stride * size - 3)).astype(dtype)
    w = np.ones((k, c, *kernel), dtype)
    options = {"stride": stride, "padding": (1, 0)}
    g = rng.standard_normal(F.conv2d(x, w, **options).shape).astype(dtype)
    options["output_mask"] = (False, True, False)
    wide = np.float64 if dtype == np.float32 else dtype
    want = F.conv2d_backward(
        g.astype(wide), x.astype(wide), w.astype(wide), algorithm="direct", **options
    )[1]
    options["algorithm"] = "winograd"
    first = None
    for threads, layout in ((1, "channels_first"), (2, "channels_last"), (3, "strided")):
        with fastconv.num_threads(threads):
            F.conv2d_backward(np.full_like(g, np.nan), np.full_like(x, np.nan), w, **options)
            got = F.conv2d_backward(to_format(g, layout), to_format(x, layout), w, **options)[1]
        first = got if first is None else first
        assert same_bits(got, first)
    terms = g[:, 0].size  # of standard deviation 1
    np.testing.assert_allclose(first, want, rtol=0, atol=32 * eps(dtype) * terms)


# images, channels, outputs, height, width, groups: panels of one block of tiles and of several,
# some short; points with so many threads that tasks do not go round, or two and far more outputs
PANELS = (
    (1, 48, 48, 27, 30, 1),
    (1, 64, 72, 55, 54, 1),
    (2, 17, 70, 19, 23, 1),
    (3, 70, 33, 17, 14, 1),
    (1, 40, 33, 25, 30, 2),
)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", PANELS, ids=str)
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (5, 2)])
def test_gradient_by_panels(kernel, stride, case, dtype, isa, rng):
    """Threads that make what they read, or share it; the bits are those of points."""
    n, c, k, h, w, groups = case
    x = rng.standard_normal((n, groups * c, stride * h, stride * w - 1)).astype(dtype)
    weight = np.ones((groups * k, c, kernel, kernel), dtype)
    options = {"stride": stride, "padding": 1, "groups": groups}
    g = rng.standard_normal(F.conv2d(x, weight, **options).shape).astype(dtype)
    options["output_mask"] = (False, True, False)
    wide = [a.astype(np.float64) for a in (g, x, weight)]
    want = F.conv2d_backward(*wide, algorithm="direct", **options)[1]
    options["algorithm"] = "winograd"
    first = None
    for threads in (1, 2, 3, 7, 2):
        layout = "channels_first" if threads == 1 else "channels_last"
        with fastconv.num_threads(threads):
            F.conv2d_backward(np.full_like(g, np.nan), np.full_like(x, np.nan), weight, **options)
            arrays = to_format(g, layout), to_format(x, layout), weight
            got = F.conv2d_backward(*arrays, **options)[1]
        first = got if first is None else first
        assert same_bits(got, first), threads
    terms = g[:, 0].size  # of standard deviation 1
    np.testing.assert_allclose(first, want, rtol=0, atol=32 * eps(dtype) * terms)


# images, height, width: of a brick of 28 tiles and less all, some or none have 4 rows or columns
FEW = ((1, 7, 7), (1, 14, 14), (3, 8, 8), (2, 6, 9), (7, 5, 8), (1, 3, 55), (1, 29, 4), (1, 27, 13))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("number", range(len(FEW)))
def test_gradient_of_few_tiles(number, dtype, isa, rng):
    """Sums in registers; neither threads nor layouts change a bit, nor what the memory held."""
    n, h, w = FEW[number]
    c, k = ((17, 90), (90, 33), (64, 32), (131, 15))[number % 4]
    x, weight = integers(rng, (n, c, h, w), dtype, 3), np.ones((k, c, 3, 3), dtype)
    g = integers(rng, (n, k, h, w), dtype, 3)
    options = {"padding": 1, "output_mask": (False, True, False), "algorithm": "winograd"}
    exact = (a.astype(np.float64) for a in (g, x, weight))
    want = reference.conv2d_backward(*exact, padding=1)[1]
    first = None
    for threads, layout, order in (
        (1, "channels_first", np.array),
        (2, "channels_last", np.array),
        (3, "strided", np.asfortranarray),
    ):
        with fastconv.num_threads(threads):
            F.conv2d_backward(np.full_like(g, np.nan), np.full_like(x, np.nan), weight, **options)
            arrays = to_format(g, layout), to_format(x, layout), order(weight)
            got = F.conv2d_backward(*arrays, **options)[1]
        first = got if first is None else first
        assert same_bits(got, first)
    np.testing.assert_allclose(first, want, rtol=0, atol=64 * eps(dtype) * 9 * n * h * w)


@pytest.mark.parametrize(("c", "k"), [(16, 20), (21, 32)])
def test_gradient_of_few_tiles_of_groups(c, k, isa, rng):
    """Each group's weight is written in place, a part of 16 channels or what is left of one."""
    x = rng.standard_normal((1, 3 * c, 7, 10), dtype=np.float32)
    g = rng.standard_normal((1, 3 * k, 7, 10), dtype=np.float32)
    weight = np.ones((3 * k, c, 3, 3), np.float32)
    options = {"padding": 1, "output_mask": (False, True, False), "algorithm": "winograd"}
    got = F.conv2d_backward(g, x, weight, groups=3, **options)[1]
    for i in range(3):
        part = F.conv2d_backward(
            g[:, i * k : (i + 1) * k], x[:, i * c : (i + 1) * c], weight[:k], **options
        )[1]
        assert same_bits(got[i * k : (i + 1) * k], part)


# images, inputs, outputs, height, width, kernel, padding, dilation, groups: rows in one run and in
# several, cut by blocks and slices; a dilation's residues, fewer than it where outputs are
THIN = (
    (9, 6, 16, 14, 14, 5, 0, 1, 1),
    (1, 3, 40, 9, 700, 3, 1, 1, 1),
    (2, 7, 17, 33, 65, 4, 2, 1, 1),
    (1, 1, 33, 50, 41, 3, 0, 1, 1),
    (1, 4, 5, 3, 190, 5, 2, 1, 3),
    (2, 3, 32, 40, 61, 3, 4, 4, 1),
    (3, 5, 18, 37, 50, 3, 2, 3, 1),
    (2, 2, 20, 90, 14, 4, 5, 5, 2),
    (5, 2, 16, 30, 12, 3, 0, 5, 1),
)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("number", range(len(THIN)))
def test_gradient_of_few_channels(number, dtype, isa, rng):
    """Lanes of neighbouring tiles; neither threads nor layouts change a bit."""
    n, c, k, h, w, kernel, padding, dilation, groups = THIN[number]
    options = {"padding": padding, "dilation": dilation, "groups": groups}
    x = integers(rng, (n, c * groups, h, w), dtype, 3)
    weight = np.ones((k * groups, c, kernel, kernel), dtype)
    g = integers(rng, F.conv2d(x, weight, **options).shape, dtype, 3)
    options["output_mask"] = (False, True, False)
    want = F.conv2d_backward(g, x, weight, algorithm="direct", **options)[1]
    options["algorithm"] = "winograd"
    first = None
    for threads, layout in ((1, "channels_first"), (2, "channels_last"), (3, "strided")):
        with fastconv.num_threads(threads):
            F.conv2d_backward(np.full_like(g, np.nan), np.full_like(x, np.nan), weight, **options)
            got = F.conv2d_backward(to_format(g, layout), to_format(x, layout), weight, **options)
        first = got[1] if first is None else first
        assert same_bits(got[1], first)
    np.testing.assert_allclose(first, want, rtol=0, atol=64 * eps(dtype) * 9 * g[:, 0].size)


@pytest.mark.skipif(fastconv.isas()[0] == "generic", reason="needs AVX2")
@pytest.mark.parametrize(
    ("n", "c", "k", "size", "kernel"), [(64, 6, 16, 14, 5), (6, 6, 16, 14, 5), (2, 7, 64, 33, 3)]
)
def test_gradient_of_few_channels_is_accurate(n, c, k, size, kernel, rng):
    """At most twice the rms error of one sum after the other, for few pixels and for many."""
    x = rng.standard_normal((n, c, size, size), dtype=np.float32)
    out = size - kernel + 1
    g = rng.standard_normal((n, k, out, out), dtype=np.float32)
    weight = np.ones((k, c, kernel, kernel), np.float32)
    options = {"output_mask": (False, True, False)}
    exact = F.conv2d_backward(*(a.astype(np.float64) for a in (g, x, weight)), **options)[1]
    got = F.conv2d_backward(g, x, weight, algorithm="winograd", **options)[1]
    windows = np.lib.stride_tricks.sliding_window_view(x, (kernel, kernel), (2, 3))
    sums = np.zeros_like(weight)
    for image, i, j in np.ndindex(n, out, out):
        sums += np.multiply.outer(g[image, :, i, j], windows[image, :, i, j])
    assert np.square(got - exact).mean() <= 4 * np.square(sums - exact).mean()
