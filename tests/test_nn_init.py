"""Initialisation of weights."""

import numpy as np
import pytest

from fastconv import nn


@pytest.mark.parametrize(
    ("layer", "fan_in"),
    [
        (nn.Conv2d(16, 64, 3, rng=0), 144),
        (nn.Conv1d(32, 64, 5, groups=2, rng=0), 80),
        (nn.ConvTranspose2d(64, 16, 3, rng=0), 144),
        (nn.Linear(128, 256, rng=0), 128),
    ],
)
def test_default_initialisation(layer, fan_in):
    bound = 1 / np.sqrt(fan_in)
    for array in (layer.weight.data, layer.bias.data):
        n = array.size
        assert np.abs(array).max() <= np.float32(bound)
        assert np.abs(array).max() > bound * (1 - 20 / n)
        # var of a uniform is bound^2 / 3; its estimate from n draws has relative std sqrt(4/5/n)
        assert abs(array.var() / (bound**2 / 3) - 1) < 5 * np.sqrt(0.8 / n)
        assert abs(array.mean()) < 5 * bound / np.sqrt(3 * n)


def test_seeds_give_the_same_weights_in_both_dtypes():
    one, two = nn.Conv2d(3, 4, 3, rng=7), nn.Conv2d(3, 4, 3, rng=7, dtype=np.float64)
    np.testing.assert_array_equal(one.weight.data, two.weight.data.astype(np.float32))
    assert one.weight.dtype == np.float32
    generator = np.random.default_rng(7)
    np.testing.assert_array_equal(nn.Conv2d(3, 4, 3, rng=generator).bias.data, one.bias.data)


def test_large_weights_are_drawn_in_parts_of_one_stream():
    shape = (5, 3, 100_000)
    drawn = nn.init.normal_(np.empty(shape, np.float32), 0.5, 2.0, rng=3)
    whole = np.random.default_rng(3).normal(0.5, 2.0, shape)
    np.testing.assert_array_equal(drawn, whole.astype(np.float32))


@pytest.mark.parametrize(
    ("function", "std"),
    [
        (lambda p: nn.init.kaiming_normal_(p, mode="fan_out", nonlinearity="relu", rng=1), 1 / 24),
        (lambda p: nn.init.kaiming_uniform_(p, nonlinearity="relu", rng=1), np.sqrt(2 / 288)),
        (lambda p: nn.init.xavier_normal_(p, rng=1), np.sqrt(2 / (288 + 1152))),
        (lambda p: nn.init.xavier_uniform_(p, gain=2.0, rng=1), 2 * np.sqrt(2 / (288 + 1152))),
        (lambda p: nn.init.normal_(p, 0.0, 0.3, rng=1), 0.3),
        (lambda p: nn.init.uniform_(p, -1.0, 1.0, rng=1), np.sqrt(1 / 3)),
    ],
)
def test_init_functions(function, std):
    weight = nn.Parameter(np.zeros((128, 32, 3, 3), np.float32))
    assert function(weight) is weight
    assert abs(weight.data.std() / std - 1) < 5 * np.sqrt(0.5 / weight.size)


def test_init_refuses_unknown_names():
    with pytest.raises(ValueError, match="nonlinearity must be one of"):
        nn.init.calculate_gain("swish")
    with pytest.raises(ValueError, match="fan_in"):
        nn.init.kaiming_normal_(np.zeros((2, 2)), mode="fan")
    with pytest.raises(TypeError, match="rng must be"):
        nn.Linear(2, 2, rng="0")
    with pytest.raises(TypeError, match="float32 or float64"):
        nn.Linear(2, 2, dtype=np.float16)
