"""The lecture's worked examples: three ways to convolve, sizes, receptive fields, parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastconv.reference as R
from fastconv.reference import lecture

WAYS = [
    lecture.flip_and_filter,
    lecture.translate_and_scale,
    lambda x, w: (lecture.toeplitz_matrix(w, np.shape(x)) @ np.ravel(x)).reshape(
        [n + k - 1 for n, k in zip(np.shape(x), np.shape(w), strict=True)]
    ),
]
WAY_NAMES = ["flip_and_filter", "translate_and_scale", "toeplitz_matrix"]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("way", WAYS, ids=WAY_NAMES)
def test_worked_example_1d(way: Callable[..., Any]) -> None:
    np.testing.assert_array_equal(way([2, -1, 1], [1, 1, 2]), [2, 1, 4, -1, 2])


@pytest.mark.parametrize("way", WAYS, ids=WAY_NAMES)
def test_worked_example_2d(way: Callable[..., Any]) -> None:
    image = [[1, 3, 1], [0, -1, 1], [2, 2, -1]]
    want = [[1, 5, 7, 2], [0, -2, -4, 1], [2, 6, 4, -3], [0, -2, -2, 1]]
    np.testing.assert_array_equal(way(image, [[1, 2], [0, -1]]), want)
    np.testing.assert_array_equal(R.convolve2d(image, [[1, 2], [0, -1]]), want)


def test_toeplitz_matrix_has_15_entries_and_3_parameters() -> None:
    matrix = R.toeplitz_matrix([1, 1, 2], 3)
    np.testing.assert_array_equal(matrix, [[1, 0, 0], [1, 1, 0], [2, 1, 1], [0, 2, 1], [0, 0, 2]])
    assert matrix.size == 15
    for shift in range(-2, 5):  # one value on each diagonal: that is what Toeplitz means
        assert len(set(np.diagonal(matrix, -shift))) == 1
    named = R.toeplitz_matrix([10, 20, 30], 3)
    assert set(named.ravel()) - {0} == {10, 20, 30}


def test_toeplitz_matrix_of_an_image() -> None:
    matrix = R.toeplitz_matrix(np.array([[1, 2], [0, -1]]), (3, 3))
    assert matrix.shape == (16, 9)
    assert set(matrix.ravel()) == {0, 1, 2, -1}


@pytest.mark.parametrize("shapes", [[(5,), (3,), (4,)], [(4, 3), (2, 5), (3, 2)]])
@pytest.mark.parametrize("way", WAYS, ids=WAY_NAMES)
def test_commutative_and_associative(way: Callable[..., Any], shapes: list[Any]) -> None:
    a, b, c = (rng(k).integers(-9, 10, shape) for k, shape in enumerate(shapes))
    np.testing.assert_array_equal(way(a, b), way(b, a))
    np.testing.assert_array_equal(way(way(a, b), c), way(a, way(b, c)))


def test_a_layer_is_the_flipped_kernel() -> None:
    x, w = rng(1).integers(-9, 10, (6, 5)), rng(2).integers(-9, 10, (3, 2))
    y = R.conv2d(x[np.newaxis], w[np.newaxis, np.newaxis, ::-1, ::-1], padding="full")
    np.testing.assert_array_equal(y[0], lecture.flip_and_filter(x, w))


def test_output_sizes() -> None:
    assert lecture.conv_output_size(7, 3, 0, 2) == 3
    for size, kernel in [(5, 3), (32, 5), (4, 4)]:
        assert lecture.conv_output_size(size, kernel) == size - kernel + 1
    for size, kernel, pad, stride, dilation in [(7, 3, 1, 2, 1), (9, 3, 2, 3, 2), (8, 2, 0, 1, 3)]:
        x, w = np.ones((1, size)), np.ones((1, 1, kernel))
        got = R.conv1d(x, w, None, stride, pad, dilation).shape[1]
        assert got == lecture.conv_output_size(size, kernel, pad, stride, dilation)
    with pytest.raises(ValueError, match=r"conv_output_size: kernel_size 4 does not fit"):
        lecture.conv_output_size(3, 4)


def test_receptive_fields() -> None:
    for layers in range(5):
        assert lecture.receptive_field([3] * layers) == 1 + 2 * layers
        assert lecture.receptive_field([5] * layers) == 1 + 4 * layers
    assert lecture.receptive_field([(7, 2), (3, 2)]) == 11
    assert lecture.receptive_field([(3, 1, 1), (3, 1, 2), (3, 1, 4)]) == 15
    # what the formula says is what the gradient reaches
    x = rng(3).normal(size=(1, 1, 30))
    g, inputs, specs = np.ones((1, 1, 1)), [x], [(3, 2, 1), (3, 1, 2), (2, 2, 1)]
    for k, s, d in specs:
        inputs.append(R.conv1d(inputs[-1], np.ones((1, 1, k)), None, s, 0, d))
    g = np.zeros_like(inputs[-1])
    g[0, 0, 1] = 1
    for (k, s, d), x in zip(specs[::-1], inputs[-2::-1], strict=True):
        g = R.conv1d_backward(g, x, np.ones((1, 1, k)), s, 0, d)[0]
    reached = np.flatnonzero(g[0, 0])
    assert reached[-1] - reached[0] + 1 == lecture.receptive_field(specs)


def test_parameter_counts() -> None:
    pixels = units = 200 * 200
    assert units == 40_000
    assert lecture.dense_parameters(pixels, units) == 1_600_000_000
    assert lecture.locally_connected_parameters(units, (10, 10)) == 4_000_000
    assert lecture.conv_parameters((10, 10)) == 100
    assert lecture.conv_parameters((10, 10), out_channels=100) == 10_000
    assert lecture.conv_parameters((5, 5), 6, 16, bias=True) == 2416


def test_filters() -> None:
    flat = np.full((1, 6, 7), 3.0)
    for name in ("EDGE", "SOBEL_X", "SOBEL_Y"):
        kernel = getattr(lecture, name)[np.newaxis, np.newaxis]
        assert not R.conv2d(flat, kernel).any(), name
    for name in ("BLUR", "SHARPEN"):
        kernel = getattr(lecture, name)[np.newaxis, np.newaxis]
        np.testing.assert_array_equal(R.conv2d(flat, kernel), np.full((1, 4, 5), 3.0), name)
    with pytest.raises(ValueError, match="read-only"):
        lecture.EDGE[0, 0] = 1


def test_convolution_is_equivariant_and_global_pooling_invariant() -> None:
    x = np.zeros((1, 2, 12, 12))
    x[:, :, 2:6, 3:7] = rng(4).integers(-5, 6, (2, 4, 4))
    moved = np.roll(x, (3, 2), axis=(2, 3))
    w = rng(5).integers(-3, 4, (3, 2, 3, 3)).astype(float)
    y, y_moved = (R.conv2d(image, w, padding="same") for image in (x, moved))
    np.testing.assert_array_equal(y_moved, np.roll(y, (3, 2), axis=(2, 3)))
    for pool in (R.adaptive_avg_pool2d, R.adaptive_max_pool2d):
        np.testing.assert_array_equal(pool(y, 1), pool(y_moved, 1))
