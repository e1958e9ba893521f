"""Winograd's blocks of tiles: bricks full, half full, one tile short; channels around vectors."""

import numpy as np
import pytest
from helpers import ALL_FORMATS, eps, integers, same_bits, to_format

import fastconv
import fastconv.functional as F
from fastconv import reference

# Tiles of a row of the image, around bricks of 12 and 28 tiles, their halves, and two of them.
TILES = (1, 2, 5, 6, 7, 11, 12, 13, 14, 15, 25, 27, 28, 29, 31, 57)
CHANNELS = (1, 3, 8, 9, 15, 16, 17, 24, 31, 33, 48, 65)


def both_ways(x, w, g, **options):
    """The convolution and its gradients of the input and of the weight."""
    grad_x, grad_w, _ = F.conv2d_backward(g, x, w, output_mask=(True, True, False), **options)
    return F.conv2d(x, w, **options), grad_x, grad_w


def wanted(x, w, g):
    x, w, g = (a.astype(np.float64) for a in (x, w, g))
    pixels = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    grad_w = np.empty_like(w)
    for i in range(3):
        for j in range(3):
            window = pixels[:, :, i : i + x.shape[2], j : j + x.shape[3]]
            grad_w[:, :, i, j] = np.tensordot(g, window, ((0, 2, 3), (0, 2, 3)))
    flipped = w[:, :, ::-1, ::-1].transpose(1, 0, 2, 3)
    return (
        reference.conv2d(x, w, None, 1, 1),
        reference.conv2d(g, flipped, None, 1, 1),
        grad_w,
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("number", range(len(TILES)))
def test_every_brick_and_vector(number, dtype, isa, rng):
    tiles = TILES[number]
    for at in range(0, len(CHANNELS), 3):
        c = CHANNELS[(at + number) % len(CHANNELS)]
        k = CHANNELS[(5 * at + 7 * number + 2) % len(CHANNELS)]
        shape = (1, c, 3 + number % 6, 4 * tiles - number % 3)
        x = to_format(integers(rng, shape, dtype, 3), "channels_last")
        w = integers(rng, (k, c, 3, 3), dtype, 3)
        g = to_format(integers(rng, (1, k, *shape[2:]), dtype, 3), "channels_last")
        terms = (9 * c, 9 * k, shape[2] * shape[3])
        got = both_ways(x, w, g, padding=1, algorithm="winograd")
        for name, a, b, n in zip(("y", "x", "w"), got, wanted(x, w, g), terms, strict=True):
            # products of at most 9; the transforms amplify the rounding of their sums
            np.testing.assert_allclose(
                a, b, rtol=0, atol=64 * eps(dtype) * 9 * n, err_msg=f"{name} of {shape}, {k}"
            )


@pytest.mark.parametrize("channels", [16, 24, 40])
def test_bits_of_blocks(channels, isa, rng):
    """More than a second-level cache: neither threads, batch split nor layout change a bit."""
    x = rng.standard_normal((48, channels, 28, 28), dtype=np.float32)
    g = rng.standard_normal((48, 16, 28, 28), dtype=np.float32)
    w = rng.standard_normal((16, channels, 3, 3), dtype=np.float32)
    with fastconv.num_threads(1):
        y, grad_x, grad_w = both_ways(x, w, g, padding=1, algorithm="winograd")
    for layout in ALL_FORMATS:
        with fastconv.num_threads(2):
            got = both_ways(
                to_format(x, layout), w, to_format(g, layout), padding=1, algorithm="winograd"
            )
        for a, b in zip(got, (y, grad_x, grad_w), strict=True):
            assert same_bits(a, b)
    x, g = (to_format(a, "channels_last") for a in (x, g))
    for n in (1, 7):
        got = both_ways(x[:n], w, g[:n], padding=1, algorithm="winograd")
        assert same_bits(got[0], y[:n])
        assert same_bits(got[1], grad_x[:n])
