"""Winograd's blocks of tiles: bricks full, half full, one tile short; channels around vectors.

Squares of 36 points and lines of 6, rows and columns; 25 and 5 for two taps, and stride 2 by
phases.
"""

import numpy as np
import pytest
from helpers import ALL_FORMATS, eps, integers, same_bits, to_format

import fastconv
import fastconv.functional as F
from fastconv import reference

# Tiles of a row of the image, around bricks of 12 and 28 tiles, their halves, and two of them.
TILES = (1, 2, 5, 6, 7, 11, 12, 13, 14, 15, 25, 27, 28, 29, 31, 57)
CHANNELS = (1, 3, 8, 9, 15, 16, 17, 24, 31, 33, 48, 65)
KERNELS = ((3, 3), (1, 3), (3, 1))


def both_ways(x, w, g, **options):
    """The convolution and its gradients of the input and of the weight."""
    grad_x, grad_w, _ = F.conv2d_backward(g, x, w, output_mask=(True, True, False), **options)
    return F.conv2d(x, w, **options), grad_x, grad_w


def pads(kernel):
    """What keeps the size of the image."""
    return tuple(k // 2 for k in kernel)


def wanted(x, w, g):
    x, w, g = (a.astype(np.float64) for a in (x, w, g))
    padding = pads(w.shape[2:])
    pixels = np.pad(x, ((0, 0), (0, 0), *((p, p) for p in padding)))
    grad_w = np.empty_like(w)
    for i, j in np.ndindex(*w.shape[2:]):
        window = pixels[:, :, i : i + x.shape[2], j : j + x.shape[3]]
        grad_w[:, :, i, j] = np.tensordot(g, window, ((0, 2, 3), (0, 2, 3)))
    flipped = w[:, :, ::-1, ::-1].transpose(1, 0, 2, 3)
    return (
        reference.conv2d(x, w, None, 1, padding),
        reference.conv2d(g, flipped, None, 1, padding),
        grad_w,
    )


def image(kernel, tiles, number):
    """Height and width of `tiles` tiles of 4 outputs, and some rows, or for lines one or two."""
    length = 4 * tiles - number % 3
    if kernel == (3, 3):
        return 3 + number % 6, length
    return (1 + number % 2, length) if kernel == (1, 3) else (length, 1 + number % 2)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("number", range(len(TILES)))
@pytest.mark.parametrize("kernel", KERNELS)
def test_every_brick_and_vector(kernel, number, dtype, isa, rng):
    tiles = TILES[number]
    for at in range(0, len(CHANNELS), 3):
        c = CHANNELS[(at + number) % len(CHANNELS)]
        k = CHANNELS[(5 * at + 7 * number + 2) % len(CHANNELS)]
        shape = (1, c, *image(kernel, tiles, number))
        x = to_format(integers(rng, shape, dtype, 3), "channels_last")
        w = integers(rng, (k, c, *kernel), dtype, 3)
        g = to_format(integers(rng, (1, k, *shape[2:]), dtype, 3), "channels_last")
        taps = kernel[0] * kernel[1]
        terms = (taps * c, taps * k, shape[2] * shape[3])
        got = both_ways(x, w, g, padding=pads(kernel), algorithm="winograd")
        for name, a, b, n in zip(("y", "x", "w"), got, wanted(x, w, g), terms, strict=True):
            # products of at most 9; the transforms amplify the rounding of their sums
            np.testing.assert_allclose(
                a, b, rtol=0, atol=64 * eps(dtype) * 9 * n, err_msg=f"{name} of {shape}, {k}"
            )


@pytest.mark.parametrize(
    ("channels", "kernel"), [*((c, (3, 3)) for c in (16, 24, 40)), (40, (1, 3)), (24, (3, 1))]
)
def test_bits_of_blocks(channels, kernel, isa, rng):
    """More than a second-level cache: neither threads, batch split nor layout change a bit."""
    x = rng.standard_normal((48, channels, 28, 28), dtype=np.float32)
    g = rng.standard_normal((48, 16, 28, 28), dtype=np.float32)
    w = rng.standard_normal((16, channels, *kernel), dtype=np.float32)
    options = {"padding": pads(kernel), "algorithm": "winograd"}
    with fastconv.num_threads(1):
        y, grad_x, grad_w = both_ways(x, w, g, **options)
    for layout in ALL_FORMATS:
        with fastconv.num_threads(2):
            got = both_ways(to_format(x, layout), w, to_format(g, layout), **options)
        for a, b in zip(got, (y, grad_x, grad_w), strict=True):
            assert same_bits(a, b)
    x, g = (to_format(a, "channels_last") for a in (x, g))
    for n in (1, 7):
        got = both_ways(x[:n], w, g[:n], **options)
        assert same_bits(got[0], y[:n])
        assert same_bits(got[1], grad_x[:n])


@pytest.mark.parametrize("channels", [16, 40, 64])
def test_bits_of_threads(channels, isa, rng):
    """Up to two threads make the transformed weights each for itself, more share them."""
    x = to_format(rng.standard_normal((2, channels, 41, 39), dtype=np.float32), "channels_last")
    w = rng.standard_normal((48, channels, 3, 3), dtype=np.float32)
    results = []
    for threads in (1, 2, 3, 5, 2):
        with fastconv.num_threads(threads):
            results.append(F.conv2d(x, w, padding=1, algorithm="winograd"))
    assert all(same_bits(y, results[0]) for y in results)


@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (2, 1)])
def test_signs_of_zeros(kernel, stride, isa):
    """Sums of zeros may be +0 or -0, which a bias of -0 would show: not among few or many tiles."""
    x = to_format(np.zeros((16, 40, 8, 8), np.float32), "channels_last")
    w = np.full((40, 40, kernel, kernel), -1, np.float32)
    w[::2, :, 0] = 1
    options = {"stride": stride, "padding": kernel // 3, "algorithm": "winograd"}
    for sign in (1, -1):
        for bias in (None, np.full(40, -0.0, np.float32)):
            y = F.conv2d(x, sign * w, bias, **options)
            for n in (1, 3):
                assert F.conv2d(x[:n], sign * w, bias, **options).tobytes() == y[:n].tobytes()


@pytest.mark.parametrize("kernel", [3, 4, 5])
def test_lines_by_panels(kernel, isa, rng):
    """Weights that outweigh the tiles: panels of output channels, chunks of input channels."""
    for c, k, length in ((300, 270, 40), (130, 520, 9), (513, 65, 23)):
        x = to_format(integers(rng, (1, c, 1, length), np.float32, 3), "channels_last")
        w = integers(rng, (k, c, 1, kernel), np.float32, 3)
        got = F.conv2d(x, w, algorithm="winograd")
        want = reference.conv2d(x.astype(np.float64), w.astype(np.float64), None, 1, 0)
        np.testing.assert_allclose(got, want, rtol=0, atol=64 * eps(np.float32) * 9 * kernel * c)


# Outputs: 1 to 9 tiles, all, some and none of them whole.
FEW = ((3, 3), (4, 4), (3, 12), (7, 6), (7, 7), (8, 8), (3, 19), (7, 12), (4, 27), (8, 15), (9, 12))
FEW += ((4, 19), (4, 23), (7, 11), (19, 4))  # five or six, of which one is short in a row


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (2, 1)])
@pytest.mark.parametrize("outputs", FEW)
def test_few_tiles(outputs, kernel, stride, dtype, isa, rng):
    """Transformed as they are multiplied: the same bits as among other tiles."""
    c, k = 131, 50  # more channels than those whose taps are in the cache at a time
    size = [stride * (n - 1) + 1 + stride // 2 * (n % 2) + (kernel == 2) for n in outputs]
    options = {"padding": kernel // 3, "stride": stride, "algorithm": "winograd"}
    x = to_format(integers(rng, (1, c, *size), dtype, 3), "channels_last")
    w = integers(rng, (k, c, kernel, kernel), dtype, 3)
    want = reference.conv2d(x.astype(np.float64), w.astype(np.float64), None, stride, kernel // 3)
    assert want.shape[2:] == outputs
    F.conv2d(np.full_like(x, np.nan), w, **options)
    got = F.conv2d(x, w, **options)
    np.testing.assert_allclose(got, want, rtol=0, atol=64 * eps(dtype) * 9 * w[0].size)

    x, g = rng.standard_normal((10, c, *size)), rng.standard_normal((10, k, *outputs))
    x, g = (to_format(a.astype(dtype), "channels_last") for a in (x, g))
    w = rng.standard_normal(w.shape).astype(dtype)
    y, grad_x, _ = both_ways(x, w, g, **options)
    for threads, layout in ((1, np.array), (2, np.asfortranarray)):
        for n in (1, 2, 3, 7):
            with fastconv.num_threads(threads):
                some = both_ways(x[:n], layout(w), g[:n], **options)
            assert same_bits(some[0], y[:n])
            assert same_bits(some[1], grad_x[:n])


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("width", [12, 31])
def test_few_tiles_of_many_channels(width, stride, isa, rng):
    """More channels than the cache holds taps of: sums go on where the last chunk ended."""
    x = rng.standard_normal((10, 1300, 3 * stride, width * stride)).astype(np.float32)
    x = to_format(x, "channels_last")
    layer = fastconv.nn.Conv2d(1300, 17, 3, stride, padding=1, bias=False, rng=0)
    w, options = np.asarray(layer.weight.data), {"stride": stride, "padding": 1}
    y = F.conv2d(x, w, algorithm="winograd", **options)
    one = F.conv2d(x[:1], w, algorithm="winograd", **options)
    assert same_bits(one, y[:1])
    assert same_bits(fastconv.compile(layer, x[:1].shape)(x[:1]), F.conv2d(x[:1], w, **options))


# kernel, stride, padding: tiles of 5 x 5 and of lines of 5; strides by phases of one or two taps
SMALL = (
    ((2, 2), 1, (0, 1)),
    ((1, 2), 1, 0),
    ((2, 1), 1, (1, 0)),
    ((3, 3), 2, 1),
    ((3, 3), 2, (0, 2)),
    ((4, 4), 2, 1),
    ((4, 4), 2, (3, 0)),
    ((2, 2), 1, ((1, 0), (0, 2))),
    ((3, 3), 2, ((0, 1), (2, 1))),
    ((4, 4), 2, ((1, 2), (0, 3))),
    ((1, 3), (1, 2), (0, 1)),
    ((4, 1), (2, 1), (1, 0)),
    ((1, 4), (2, 3), (1, 2)),
    ((1, 16), (1, 8), (0, 5)),
    ((5, 1), (4, 2), (2, 0)),
    ((4, 4), 3, 1),
    ((5, 5), 4, (2, 0)),
)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("layout", ALL_FORMATS)
@pytest.mark.parametrize(("kernel", "stride", "padding"), SMALL)
def test_two_taps(kernel, stride, padding, layout, dtype, isa, rng):
    """Images around whole tiles of 4 outputs, and smaller than one; channels around vectors."""
    sizes = ((4, 5), (9, 8), (10, 9), (17, 16), (3, 33), (18, 19))
    for number, size in enumerate(sizes):
        c, k = CHANNELS[number % 12], CHANNELS[(5 * number + 7) % 12]
        sides = padding if np.ndim(padding) == 2 else [(p, p) for p in np.broadcast_to(padding, 2)]
        padded = np.add(size, np.sum(sides, axis=1))
        if (padded < kernel).any():
            continue
        x = to_format(integers(rng, (2, c, *size), dtype, 3), layout)
        w = integers(rng, (k, c, *kernel), dtype, 3)
        options = {"stride": stride, "padding": padding}
        y = F.conv2d(x, w, algorithm="winograd", **options)
        g = to_format(integers(rng, y.shape, dtype, 3), layout)
        got = both_ways(x, w, g, algorithm="winograd", **options)
        x, w, g = (a.astype(np.float64) for a in (x, w, g))
        want = (
            reference.conv2d(x, w, None, stride, padding),
            *reference.conv2d_backward(g, x, w, stride, padding)[:2],
        )
        terms = (c * w[0, 0].size, k * w[0, 0].size, g[:, 0].size)
        for name, a, b, n in zip(("y", "x", "w"), got, want, terms, strict=True):
            np.testing.assert_allclose(
                a, b, rtol=0, atol=64 * eps(dtype) * 9 * n, err_msg=f"{name} of {size}, {c}, {k}"
            )


@pytest.mark.parametrize(("kernel", "stride"), [((2, 2), 1), ((3, 3), 2), ((4, 4), 2)])
def test_two_taps_by_panels(kernel, stride, isa, rng):
    """Weights that outweigh the tiles: chunks of channels, the last ones no whole part."""
    for c, k, size in ((300, 270, 9), (130, 520, 6), (513, 65, 12)):
        x = to_format(integers(rng, (1, c, size, size), np.float32, 3), "channels_last")
        w = integers(rng, (k, c, *kernel), np.float32, 3)
        got = F.conv2d(x, w, stride=stride, algorithm="winograd")
        want = reference.conv2d(x.astype(np.float64), w.astype(np.float64), None, stride, 0)
        np.testing.assert_allclose(got, want, rtol=0, atol=64 * eps(np.float32) * 9 * w[0].size)


@pytest.mark.parametrize(("kernel", "stride"), [((2, 2), 1), ((3, 3), 2), ((4, 4), 2)])
def test_bits_of_two_taps(kernel, stride, isa, rng):
    x = rng.standard_normal((24, 40, 29, 30), dtype=np.float32)
    w = rng.standard_normal((33, 40, *kernel), dtype=np.float32)
    options = {"stride": stride, "padding": 1, "algorithm": "winograd"}
    y = F.conv2d(x, w, **options)
    g = rng.standard_normal(y.shape, dtype=np.float32)
    with fastconv.num_threads(1):
        want = both_ways(x, w, g, **options)
    for layout in ALL_FORMATS:
        with fastconv.num_threads(2):
            got = both_ways(to_format(x, layout), w, to_format(g, layout), **options)
        for a, b in zip(got, want, strict=True):
            assert same_bits(a, b)
    x, g = (to_format(a, "channels_last") for a in (x, g))
    for n in (1, 5):
        got = both_ways(x[:n], w, g[:n], **options)
        assert same_bits(got[0], want[0][:n])
        assert same_bits(got[1], want[1][:n])


@pytest.mark.parametrize(("kernel", "stride"), [(2, 2), (3, 2), (4, 2), (5, 2), (7, 2), (5, 3)])
@pytest.mark.parametrize("layout", ALL_FORMATS)
def test_phases_of_threads(layout, kernel, stride, isa, rng):
    """The gradient of the input, where each thread has phases of its own."""
    for n, c, k, size in ((1, 20, 70, 13), (2, 33, 48, 8), (1, 128, 40, 29)):
        x = to_format(rng.standard_normal((n, c, size, size + 3)), layout).astype(np.float32)
        w = rng.standard_normal((k, c, kernel, kernel), dtype=np.float32)
        options = {"stride": stride, "padding": kernel // 2}
        shape = F.conv2d(x, w, **options).shape
        g = to_format(rng.standard_normal(shape).astype(np.float32), layout)
        mask = {"output_mask": (True, False, False)}
        grads = []
        for threads in (1, 2, 3, 4):
            with fastconv.num_threads(threads):
                grads.append(F.conv2d_backward(g, x, w, **options, **mask)[0])
            assert same_bits(grads[-1], grads[0])
        want = F.conv2d_backward(g, x, w, algorithm="direct", **options, **mask)[0]
        np.testing.assert_allclose(grads[0], want, rtol=0, atol=2e-5 * np.abs(want).max())


# kernel, stride: every tile and axis
SHORT = (
    *(((r, r), 1) for r in (2, 3, 4, 5)),
    *(((1, r), 1) for r in (2, 3, 5)),
    *(((r, 1), 1) for r in (2, 3, 4)),
    *(((r, r), 2) for r in (3, 4, 5)),
    *(((r, r), 3) for r in (5, 7)),
    *(((1, r), (1, 2)) for r in (3, 5, 7, 9, 11)),
    *(((r, 1), (3, 2)) for r in (4, 8, 13)),
    *(((r, r), 1) for r in (7, 11)),
    ((5, 3), 1),
    ((1, 7), 1),
)


@pytest.mark.parametrize("size", [(5, 6), (9, 14), (13, 7), (10, 11)])
@pytest.mark.parametrize(("kernel", "stride"), SHORT)
def test_short_tiles(kernel, stride, size, isa, rng):
    """The last tiles leave points out, and phases: what their memory held does not matter."""
    c, k, n = 20, 37, 5
    size = tuple(np.multiply(size, stride))
    options = {"stride": stride, "padding": pads(kernel)}
    x = integers(rng, (n, c, *size), np.float32, 3)
    w = integers(rng, (k, c, *kernel), np.float32, 3)
    shape = F.conv2d(x, w, algorithm="direct", **options).shape
    g = integers(rng, shape, np.float32, 3)
    want = both_ways(*(a.astype(np.float64) for a in (x, w, g)), algorithm="direct", **options)
    options["algorithm"] = "winograd"
    first = None
    for layout in ALL_FORMATS:
        for threads in (1, 2):
            with fastconv.num_threads(threads):
                both_ways(np.full_like(x, np.nan), w, np.full_like(g, np.nan), **options)
                got = both_ways(to_format(x, layout), w, to_format(g, layout), **options)
                one = both_ways(to_format(x[2:3], layout), w, to_format(g[2:3], layout), **options)
            first = first or got
            for a, b, part in zip(got, first, (one[0], one[1], None), strict=True):
                assert same_bits(a, b)
                if part is not None:
                    assert same_bits(part, a[2:3])
    terms = (c * w[0, 0].size, k * w[0, 0].size, g[:, 0].size)
    for a, b, t in zip(first, want, terms, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=64 * eps(np.float32) * 9 * t)


def test_short_tiles_in_stretches(isa, rng):
    """More tiles than one block or stretch, and panels of few: the same bits by any schedule."""
    for c, k, size in ((24, 24, 30), (200, 170, 13), (64, 48, 61)):
        x = to_format(
            rng.standard_normal((12, c, size, size - 1), dtype=np.float32), "channels_last"
        )
        g = to_format(
            rng.standard_normal((12, k, size, size - 1), dtype=np.float32), "channels_last"
        )
        w = rng.standard_normal((k, c, 3, 3), dtype=np.float32)
        options = {"padding": 1, "algorithm": "winograd"}
        y, grad_x, grad_w = both_ways(x, w, g, **options)
        one = both_ways(x[5:6], w, g[5:6], **options)
        assert same_bits(one[0], y[5:6])
        assert same_bits(one[1], grad_x[5:6])
        direct = both_ways(x, w, g, padding=1, algorithm="direct")
        for a, b in zip((y, grad_x, grad_w), direct, strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=2e-5 * np.abs(b).max())


@pytest.mark.parametrize("outputs", [24, 48, 80, 96, 160])
@pytest.mark.parametrize(
    ("kernel", "stride", "size"), [(3, 1, 7), (3, 1, 13), (3, 2, 23), (4, 2, 18)]
)
def test_panels_left_over(kernel, stride, size, outputs, isa, rng):
    """Panels left over by the threads are cut into vectors: the same bits, and in plans."""
    x = rng.standard_normal((1, 272, size, size), dtype=np.float32)
    layer = fastconv.nn.Conv2d(272, outputs, kernel, stride=stride, padding=1)
    w, bias = layer.weight.data, layer.bias.data
    options = {"stride": stride, "padding": 1}
    want = F.conv2d(x, w, bias, algorithm="direct", **options)
    g = rng.standard_normal(want.shape, dtype=np.float32)
    mask = {"output_mask": (True, False, False)}
    want_x = F.conv2d_backward(g, x, w, algorithm="direct", **mask, **options)[0]
    options["algorithm"] = "winograd"
    first = None
    plan = fastconv.compile(layer, x.shape)
    for threads in (1, 2, 3, 5):
        with fastconv.num_threads(threads):
            got = (
                F.conv2d(x, w, bias, **options),
                plan(x),
                F.conv2d_backward(g, x, w, **mask, **options)[0],
            )
        first = first or got
        for a, b in zip(got, first, strict=True):
            assert same_bits(a, b)
    for a, b in zip(first, (want, want, want_x), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-5 * np.abs(b).max())


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("kernel", [3, 4])
def test_gradient_of_inputs_behind_the_last_window(kernel, value, isa, rng):
    x = rng.standard_normal((2, 16, 20 + kernel % 2, 22 + kernel % 2), dtype=np.float32)
    x = np.pad(x, ((0, 0), (0, 0), (0, 1), (0, 1)), constant_values=value)
    w = np.ones((24, 16, kernel, kernel), np.float32)
    options = {"stride": 2, "output_mask": (False, True, False)}
    g = rng.standard_normal(F.conv2d(x, w, stride=2).shape, dtype=np.float32)
    got = F.conv2d_backward(g, x, w, algorithm="winograd", **options)[1]
    want = F.conv2d_backward(g, np.where(np.isfinite(x), x, 0), w, algorithm="direct", **options)[1]
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * np.abs(want).max())


@pytest.mark.parametrize("kernel", [3, 4])
def test_gradient_of_transposed(kernel, isa, rng):
    """What "auto" runs: the convolution's gradient with the arrays exchanged."""
    x = rng.standard_normal((9, 48, 19, 16), dtype=np.float32)
    w = rng.standard_normal((48, 40, kernel, kernel), dtype=np.float32)
    options = {"stride": 2, "padding": 1, "output_padding": 1}
    g = rng.standard_normal(F.conv_transpose2d(x, w, **options).shape, dtype=np.float32)
    want = reference.conv_transpose2d_backward(
        *(a.astype(np.float64) for a in (g, x, w)), **options
    )
    forced = F.conv2d_backward(
        x, g, w, 2, 1, algorithm="winograd", output_mask=(False, True, False)
    )[1]
    for threads, layout in ((1, "channels_last"), (2, "channels_first")):
        with fastconv.num_threads(threads):
            got = F.conv_transpose2d_backward(
                to_format(g, layout), to_format(x, layout), w, **options
            )
        assert same_bits(got[1], forced)
        for a, b in zip(got, want, strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * np.abs(b).max())


def test_auto_takes_stride_2_of_enough_tiles():
    """Small images have too few tiles for the transformed weights; the batch does not count."""

    def method(size, kernel, batch=1, channels=64):
        shape = (batch, channels, size, size)
        options = {"stride": 2, "padding": 1}
        return fastconv.explain_conv2d(shape, (channels, channels, *kernel), **options).algorithm

    for batch in (1, 100):
        assert method(56, (3, 3), batch) == method(32, (4, 4), batch) == "winograd"
        assert method(14, (3, 3), batch) == "direct"
        # of few tiles and many channels they are made on the way
        many = method(14, (3, 3), batch, 512)
        assert many == ("winograd" if fastconv.isas()[0] == "avx512" else "direct")
    assert method(56, (3, 3), channels=4) != "winograd"


def test_auto_takes_lines_of_enough_channels():
    for kernel in ((1, 3), (3, 1), (1, 4), (4, 1), (1, 5), (5, 1)):
        e = fastconv.explain_conv2d((1, 64, 48, 48), (64, 64, *kernel))
        assert e.algorithm == "winograd"
    assert fastconv.explain_conv2d((1, 8, 48, 48), (8, 8, 1, 3)).algorithm != "winograd"
