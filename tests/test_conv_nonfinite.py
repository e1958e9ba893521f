"""NaN and infinities reach the results that depend on them, and no others: not through padding, not
through a Winograd tile."""

import numpy as np
import pytest

import fastconv
import fastconv.functional as F
from fastconv import _core, reference

CASES = {  # x, weight, stride, padding, dilation, groups
    "winograd": ((2, 12, 9, 10), (20, 12, 3, 3), 1, 1, 1, 1),
    "winograd-heavy": ((2, 48, 6, 5), (40, 48, 3, 3), 1, 1, 1, 1),
    "winograd-heavy-batch": ((20, 16, 5, 6), (20, 16, 3, 3), 1, 1, 1, 1),
    "winograd-5x5": ((2, 16, 8, 9), (20, 16, 5, 5), 1, 2, 1, 1),
    "winograd-1x3": ((2, 40, 3, 22), (48, 40, 1, 3), 1, (0, 1), 1, 1),
    "winograd-3x1": ((2, 40, 13, 9), (48, 40, 3, 1), 1, 1, 1, 1),
    "winograd-stride": ((2, 40, 37, 39), (48, 40, 3, 3), 2, 1, 1, 1),
    "winograd-4x4-stride": ((2, 24, 34, 33), (40, 24, 4, 4), 2, 1, 1, 1),
    "winograd-2x2": ((2, 24, 14, 23), (40, 24, 2, 2), 1, (0, 1), 1, 1),
    "winograd-7x7": ((2, 16, 12, 11), (24, 16, 7, 7), 1, 3, 1, 1),
    "winograd-3x5": ((2, 16, 12, 11), (24, 16, 3, 5), 1, (1, 2), 1, 1),
    "winograd-5x5-stride": ((2, 32, 33, 35), (48, 32, 5, 5), 2, 2, 1, 1),
    "winograd-1x9-stride": ((2, 40, 3, 77), (48, 40, 1, 9), (1, 2), (0, 4), 1, 1),
    "winograd-8x1-stride": ((2, 40, 70, 9), (48, 40, 8, 1), (4, 1), (2, 0), 1, 1),
    "winograd-6x6-stride": ((2, 24, 45, 43), (40, 24, 6, 6), 3, 1, 1, 1),
    "winograd-1x2-dilated": ((2, 40, 3, 90), (48, 40, 1, 2), 1, 0, (1, 20), 1),
    "winograd-dilated": ((2, 24, 15, 17), (40, 24, 3, 3), 1, 2, 2, 1),
    "direct": ((2, 5, 8, 7), (20, 5, 3, 3), 1, 1, 1, 1),
    "direct-heavy-batch": ((12, 5, 4, 5), (20, 5, 3, 3), 1, 1, 1, 1),
    "direct-heavy": ((1, 40, 3, 3), (40, 40, 5, 5), 1, 2, 1, 1),
    "phases": ((2, 8, 23, 22), (24, 8, 7, 7), 2, 3, 1, 1),
    "stride": ((2, 6, 9, 8), (18, 6, 3, 3), 2, 1, 1, 1),
    "pointwise-padded": ((1, 6, 5, 4), (18, 6, 1, 1), 2, 1, 1, 1),
    "dilated": ((1, 9, 11, 12), (17, 9, 3, 3), 1, 3, 3, 1),
    "groups": ((2, 8, 6, 6), (36, 4, 2, 3), 1, (1, 2), 1, 2),
    "padding beyond the kernel": ((1, 4, 3, 3), (18, 4, 2, 2), 1, 4, 1, 1),
    "depthwise": ((2, 19, 7, 8), (19, 1, 3, 3), 1, 1, 1, 19),
    "grouped": ((2, 20, 7, 8), (20, 4, 3, 3), 1, 1, 1, 5),
    "grouped stride": ((2, 14, 7, 8), (14, 2, 3, 3), 2, 1, 1, 7),
    "pixels": ((2, 4, 6, 20), (2, 4, 3, 3), 1, 1, 1, 1),
    "dots": ((2, 40, 7, 20), (2, 40, 3, 3), 2, 1, 1, 1),
    "taps": ((2, 40, 6, 20), (3, 40, 3, 3), 1, 1, 1, 1),
    "narrow": ((2, 4, 20, 2), (17, 4, 3, 3), 1, 1, 1, 1),
}
VALUES = (np.nan, np.inf, -np.inf)


def last(a):
    """The same, channels-last."""
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(a, 1, -1)), -1, 1)


def same_bits(call, *images):
    """call(*images) for any number of threads, layout and split of the batch."""
    wanted = call(*images)
    for threads in (1, 2, 3):
        with fastconv.num_threads(threads):
            for move in (np.ascontiguousarray, last):
                moved = [move(a) for a in images]
                np.testing.assert_array_equal(call(*moved), wanted)
                parts = [call(*(a[n : n + 1] for a in moved)) for n in range(len(wanted))]
                np.testing.assert_array_equal(np.concatenate(parts), wanted)


def spoil(a, rng, count=2):
    """Puts values of VALUES at random places, the corners among them."""
    for value in rng.choice(VALUES, count):
        a[tuple(rng.choice([0, n - 1, rng.integers(n)]) for n in a.shape)] = value


def same(actual, wanted, terms):
    wanted = np.asarray(wanted)
    np.testing.assert_array_equal(np.isnan(actual), np.isnan(wanted))
    finite = np.isfinite(wanted)
    np.testing.assert_array_equal(actual[~finite], wanted[~finite].astype(actual.dtype))
    # |x|, |w| <= 4: sums of `terms` products of at most 16; Winograd adds a factor below 16
    np.testing.assert_allclose(
        actual[finite], wanted[finite], rtol=0, atol=16 * 16 * terms * np.finfo(actual.dtype).eps
    )


@pytest.mark.parametrize("layout", ["channels-last", "channels-first"])
@pytest.mark.parametrize("where", ["input", "weight", "grad_output"])
@pytest.mark.parametrize("name", CASES)
@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
def test_nonfinite_values_stay_where_they_belong(name, where, layout, isa, rng):
    xs, ws, stride, padding, dilation, groups = CASES[name]
    x, w = (rng.uniform(-4, 4, s).astype(np.float32) for s in (xs, ws))
    arguments = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    g = rng.uniform(-4, 4, F.conv2d(x, w, **arguments).shape).astype(np.float32)
    spoil({"input": x, "weight": w, "grad_output": g}[where], rng)
    if layout == "channels-last":
        x, g = (np.ascontiguousarray(a.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2) for a in (x, g))
    exact = [a.astype(np.float64) for a in (g, x, w)]
    same(
        F.conv2d(x, w, **arguments),
        reference.conv2d(*exact[1:], **arguments),
        np.prod(ws[1:]),
    )
    actual = F.conv2d_backward(g, x, w, **arguments)
    wanted = reference.conv2d_backward(*exact, **arguments)
    per_input = ws[0] // groups * ws[2] * ws[3]
    for a, b, terms in zip(actual, wanted, (per_input, g[:, 0].size, g[:, 0].size), strict=True):
        same(a, b, terms)


def test_other_images_keep_their_bits(isa, rng):
    x = rng.normal(size=(3, 16, 12, 12)).astype(np.float32)
    w = rng.normal(size=(24, 16, 3, 3)).astype(np.float32)
    clean = F.conv2d(x, w, padding=1)
    x[1, 3, 0, 11] = np.nan
    spoilt = F.conv2d(x, w, padding=1)
    np.testing.assert_array_equal(spoilt[[0, 2]], clean[[0, 2]])
    seen = np.zeros((12, 12), bool)
    seen[:2, 10:] = True
    np.testing.assert_array_equal(np.isnan(spoilt[1]), np.broadcast_to(seen, spoilt[1].shape))


@pytest.mark.parametrize("where", ["weight", "input"])
@pytest.mark.parametrize("shape", [(2, 8, 80), (3, 24, 40), (3, 16, 40)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_bits_with_a_spoilt_weight(dtype, shape, where, isa, rng):
    """The same for any layout, batch and number of threads, of what is finite."""
    arguments = {"stride": 2, "padding": 1, "groups": 8}
    x = rng.normal(size=shape).astype(dtype)
    w = rng.normal(size=(16, shape[1] // 8, 3)).astype(dtype)
    g = rng.normal(size=F.conv1d(x, w, **arguments).shape).astype(dtype)
    spoil(w if where == "weight" else g, rng, 1)

    def gradient(g, x):
        return F.conv1d_backward(g, x, w, **arguments)[0]

    same_bits(gradient, g, x)


# Tap 0 meets only padding, and an image has fewer outputs than there are weights.
UNSEEN = {  # x, weight, padding, dilation, algorithm
    "direct": ((3, 40, 2), (70, 40, 11), 8, 1, "direct"),
    "winograd": ((3, 40, 14), (3, 40, 32), 46, 2, "winograd"),
    "winograd-one-output": ((3, 40, 8), (1, 40, 38), 48, 2, "winograd"),
    "auto": ((3, 17, 3), (40, 17, 24), 20, 1, "auto"),
}


@pytest.mark.parametrize("spoilt", ["weight", "weight and image"])
@pytest.mark.parametrize("name", UNSEEN)
def test_images_do_not_see_each_other(name, spoilt, isa, rng):
    xs, ws, padding, dilation, algorithm = UNSEEN[name]
    arguments = {"padding": padding, "dilation": dilation, "algorithm": algorithm}
    x, w = (rng.uniform(-4, 4, s).astype(np.float32) for s in (xs, ws))
    w[0, 0, 0] = np.nan
    g = rng.uniform(-4, 4, F.conv1d(x, w, **arguments).shape).astype(np.float32)
    if spoilt == "weight and image":
        x[1, -1, 1] = g[1, -1, 1] = np.inf
    same_bits(lambda x: F.conv1d(x, w, **arguments), x)
    same_bits(lambda g, x: F.conv1d_backward(g, x, w, **arguments)[0], g, x)
    exact = (a.astype(np.float64) for a in (x, w))
    with np.errstate(invalid="ignore"):
        wanted = reference.conv1d(*exact, padding=padding, dilation=dilation)
    same(F.conv1d(x, w, **arguments), wanted, w[0].size)


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize(
    ("algorithm", "xs", "ws", "dilation", "padding"),
    [
        (0, (3, 40, 5, 8), (17, 40, 3, 4), 2, (3, 1)),
        (1, (3, 40, 6, 4), (40, 40, 4, 3), 1, (4, 1)),
        (1, (3, 480, 4, 4), (64, 480, 3, 3), 1, (1, 1)),
        (1, (3, 40, 2, 2), (48, 40, 3, 3), 1, (1, 1)),
    ],
)
def test_bits_where_a_clamp_hides_infinity(algorithm, xs, ws, dilation, padding, value, isa, rng):
    """Products with padding are NaN, but it depends on threads and layout whether there are any."""
    x = rng.uniform(0, 4, xs).astype(np.float32)
    w = rng.uniform(-4, 4, ws).astype(np.float32)
    w[0, 0, 0, -1] = w[-1, 2, 0, 0] = value
    geometry = (1, 1, dilation, dilation, *padding, 1, algorithm)
    rows, columns = (
        n + 2 * p - dilation * (k - 1) for n, p, k in zip(xs[2:], padding, ws[2:], strict=True)
    )

    def call(x):
        y = np.full((len(x), ws[0], rows, columns), 7, np.float32)
        y = np.ascontiguousarray(y) if x.flags.c_contiguous else last(y)
        _core.conv2d(x, w, None, y, geometry, -1.0, 1.0)
        return y

    same_bits(call, x)
    exact = (a.astype(np.float64) for a in (x, w))
    with np.errstate(invalid="ignore"):
        wanted = np.clip(reference.conv2d(*exact, None, 1, padding, dilation), -1, 1)
    same(call(x), wanted, w[0].size)
