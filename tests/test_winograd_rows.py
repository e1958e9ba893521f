"""Winograd along the row only, for few input channels: tiles in groups of up to 6, rows of taps."""

import numpy as np
import pytest
from helpers import ALL_FORMATS, eps, same_bits, to_format

import fastconv
import fastconv.functional as F
from fastconv import reference

# Outputs of a row: one tile, groups of tiles and parts of the last one, several blocks.
WIDTHS = (1, 3, 4, 5, 9, 13, 18, 20, 23, 25, 46, 57, 131)
CHANNELS = (1, 2, 3, 5, 6, 7, 8, 9)
OUTPUTS = (1, 7, 16, 17, 24, 31, 33, 64)
KERNELS = ((3, 3), (5, 5), (2, 3), (4, 5), (7, 3))


def runs_by_rows(x, w, **options):
    return "along the row" in fastconv.explain_conv2d(x.shape, w.shape, **options).reason


def has_rows(isa):
    return isa != "generic"


def check(y, x, w, b, **options):
    exact = reference.conv2d(*(a.astype(np.float64) for a in (x, w, b)), **options)
    sizes = reference.conv2d(*(abs(a).astype(np.float64) for a in (x, w, b)), **options)
    assert abs(y - exact).max() <= 4 * eps(np.float32) * np.sqrt(w[0].size) * sizes.max()


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("width", WIDTHS)
def test_every_width(width, kernel, isa, rng):
    """What no tile needs is neither read nor written: arrays are surrounded by NaN."""
    number = WIDTHS.index(width)
    for i in range(4):
        c = CHANNELS[(number + 2 * i) % len(CHANNELS)]
        k = OUTPUTS[(3 * number + i) % len(OUTPUTS)]
        pad = (i % 3, (number + i) % 3)
        shape = (1, c, kernel[0] + number % 5, max(1, width + kernel[1] - 1 - 2 * pad[1]))
        layout = "strided" if i == 3 else ("channels_last", "channels_first")[i % 2]
        x = to_format(rng.standard_normal(shape, dtype=np.float32), layout)
        w = rng.standard_normal((k, c, *kernel), dtype=np.float32)
        b = rng.standard_normal(k, dtype=np.float32)
        check(F.conv2d(x, w, b, padding=pad), x, w, b, padding=pad)
        square = F.conv2d(x, w, b, padding=pad, algorithm="winograd")
        check(square, x, w, b, padding=pad)


@pytest.mark.parametrize(
    ("stride", "dilation"), [((2, 1), 1), (1, (1, 2)), (1, (2, 1)), (1, 3), ((3, 1), (1, 5))]
)
def test_strides_and_dilations(stride, dilation, isa, rng):
    x = rng.standard_normal((2, 5, 37, 61), dtype=np.float32)
    w = rng.standard_normal((40, 5, 3, 3), dtype=np.float32)
    b = rng.standard_normal(40, dtype=np.float32)
    options = {"stride": stride, "dilation": dilation, "padding": (2, 3)}
    assert runs_by_rows(x, w, **options) == has_rows(isa)
    results = []
    for layout in ALL_FORMATS:
        for threads in (1, 2):
            with fastconv.num_threads(threads):
                results.append(F.conv2d(to_format(x, layout), w, b, **options))
    check(results[0], x, w, b, **options)
    assert all(same_bits(results[0], y) for y in results)


@pytest.mark.parametrize(
    ("inputs", "outputs", "size", "kernel"),
    [(3, 64, (64, 64), 3), (6, 16, (14, 14), 5), (2, 33, (75, 50), 3)],
)
def test_bits(inputs, outputs, size, kernel, isa, rng):
    """Neither threads, batch split nor layout change a bit; nor do they of the gradient."""
    x = rng.standard_normal((5, inputs, *size), dtype=np.float32)
    w = rng.standard_normal((outputs, inputs, kernel, kernel), dtype=np.float32)
    w_back = np.ascontiguousarray(w.transpose(1, 0, 2, 3))  # of a layer with few outputs
    pad = kernel // 2
    wide = np.zeros((5, outputs, *size), np.float32)
    assert runs_by_rows(x, w, padding=pad) == has_rows(isa)
    with fastconv.num_threads(1):
        y = F.conv2d(x, w, padding=pad)
        grad = F.conv2d_backward(x, wide, w_back, padding=pad)[0]
    check(y, x, w, np.zeros(outputs, np.float32), padding=pad)
    flipped = np.ascontiguousarray(w[:, :, ::-1, ::-1])
    assert same_bits(grad, F.conv2d(x, flipped, padding=pad))
    for layout in ALL_FORMATS:
        with fastconv.num_threads(2):
            some = to_format(x, layout)
            assert same_bits(F.conv2d(some, w, padding=pad), y)
            assert same_bits(F.conv2d(some[1:3], w, padding=pad), y[1:3])
            assert same_bits(F.conv2d_backward(some, wide, w_back, padding=pad)[0], grad)


@pytest.mark.parametrize("kernel", [(3, 3), (5, 5), (4, 3)])
@pytest.mark.parametrize("rows", [2, 3, 4])
def test_few_rows(rows, kernel, isa, rng):
    """Of many channels in whole parts; rows of taps beyond the image are left out."""
    for channels, outputs, width in ((9, 32, 50), (16, 48, 23), (32, 16, 131), (48, 40, 60)):
        x = rng.standard_normal((2, channels, rows, width), dtype=np.float32)
        w = rng.standard_normal((outputs, channels, *kernel), dtype=np.float32)
        b = rng.standard_normal(outputs, dtype=np.float32)
        options = {"padding": (kernel[0] // 2, kernel[1] // 2)}
        if rows == 2 and kernel == (3, 3):
            assert runs_by_rows(x, w, **options) == has_rows(isa)
        with fastconv.num_threads(1):
            y = F.conv2d(x, w, b, **options)
        check(y, x, w, b, **options)
        for layout in ALL_FORMATS:
            for part in (slice(0, 1), slice(0, 2)):
                assert same_bits(F.conv2d(to_format(x, layout)[part], w, b, **options), y[part])


def test_many_channels_with_a_stride(isa, rng):
    x = rng.standard_normal((2, 32, 57, 57), dtype=np.float32)
    w = rng.standard_normal((64, 32, 3, 3), dtype=np.float32)
    b = rng.standard_normal(64, dtype=np.float32)
    options = {"padding": 1, "stride": (2, 1)}
    assert runs_by_rows(x, w, **options) == has_rows(isa)
    check(F.conv2d(x, w, b, **options), x, w, b, **options)


def test_groups(isa, rng):
    x = rng.standard_normal((2, 12, 20, 30), dtype=np.float32)
    w = rng.standard_normal((96, 4, 3, 3), dtype=np.float32)
    b = rng.standard_normal(96, dtype=np.float32)
    assert runs_by_rows(x, w, padding=1, groups=3) == has_rows(isa)
    check(F.conv2d(x, w, b, padding=1, groups=3), x, w, b, padding=1, groups=3)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite(value, isa, rng):
    """They reach the outputs that depend on them and no others; other images keep their bits."""
    x = rng.standard_normal((3, 3, 20, 70), dtype=np.float32)
    w = rng.standard_normal((32, 3, 3, 3), dtype=np.float32)
    assert runs_by_rows(x, w, padding=1) == has_rows(isa)
    y = F.conv2d(x, w, padding=1)
    for row, column in ((0, 0), (7, 33), (19, 69)):
        spoilt = x.copy()
        spoilt[1, 2, row, column] = value
        got = F.conv2d(spoilt, w, padding=1)
        assert same_bits(got[::2], y[::2])
        want = F.conv2d(spoilt, w, padding=1, algorithm="direct")
        np.testing.assert_array_equal(np.isfinite(got), np.isfinite(want))
        assert same_bits(got[1], want[1])
    spoilt = w.copy()
    spoilt[5, 1, 0, 2] = value
    got = F.conv2d(x, spoilt, padding=1)
    want = F.conv2d(x, spoilt, padding=1, algorithm="direct")
    np.testing.assert_array_equal(np.isfinite(got), np.isfinite(want))
    assert not np.isfinite(got[:, 5, 1:, :-1]).any()  # the last column has it in the padding


def test_choice(isa):
    """By the shape and the vector; sums too short to be exact enough stay direct."""
    for x, w, wanted in (
        ((1, 3, 64, 64), (64, 3, 3, 3), True),
        ((1, 5, 64, 64), (64, 5, 3, 3), True),
        ((64, 6, 14, 14), (16, 6, 5, 5), True),
        ((1, 1, 112, 112), (32, 1, 3, 3), False),
        ((1, 1, 256, 256), (1, 1, 3, 3), False),
        ((1, 64, 56, 56), (64, 64, 3, 3), False),
        ((1, 16, 32, 32), (16, 16, 3, 3), False),
        ((1, 40, 2, 3000), (64, 40, 3, 3), False),  # no whole parts
        ((1, 32, 2, 3000), (64, 32, 3, 3), True),
        ((1, 16, 3, 1000), (48, 16, 5, 5), True),
        ((2, 5, 60, 70), (4, 5, 3, 3), False),  # empty lanes
    ):
        reason = fastconv.explain_conv2d(x, w, padding=w[2] // 2).reason
        assert ("along the row" in reason) == (wanted and has_rows(isa)), (x, w)
    reason = fastconv.explain_conv2d((1, 3, 64, 64), (64, 3, 3, 3), dtype=np.float64).reason
    assert "along the row" not in reason


@pytest.mark.parametrize(
    ("shape", "weight", "options"),
    [
        ((1, 16, 1, 4), (32, 16, 4, 3), {"padding": (9, 3), "dilation": (3, 1)}),
        ((1, 8, 2, 7), (16, 8, 3, 3), {"padding": (14, 5), "dilation": (3, 1)}),
        ((1, 32, 1, 2), (128, 8, 5, 5), {"padding": (16, 6), "dilation": (3, 1), "groups": 4}),
    ],
)
def test_fewer_rows_than_the_dilation(shape, weight, options, isa, rng):
    """Residues of rows without a row of the image: a division by their number ended the process."""
    x = rng.standard_normal(shape, dtype=np.float32)
    w = rng.standard_normal(weight, dtype=np.float32)
    b = rng.standard_normal(weight[0], dtype=np.float32)
    for layout in ("channels_last", "channels_first"):
        for threads in (1, 2, 3):
            with fastconv.num_threads(threads):
                y = F.conv2d(to_format(x, layout), w, b, **options)
            check(y, x, w, b, **options)
