"""Plans that keep the weights of Linear layers as float16."""

import numpy as np
import pytest
from helpers import same_bits, tolerance

import fastconv
from fastconv import nn

SIZES = [(1, 1), (7, 5), (128, 32), (129, 33), (130, 63), (300, 64), (257, 97), (513, 128)]


def layer(inputs, outputs, weight, bias=True):
    module = nn.Linear(inputs, outputs, bias, rng=0)
    module.weight.data[...] = weight
    return nn.Sequential(module).eval()


def half(model, shape, **options):
    plan = fastconv.compile(model, shape, half_linear=True, **options)
    assert [weights.half is not None for weights in plan._weights].count(True) > 0
    return plan


@pytest.mark.parametrize("rows", [1, 2, 3, 4])
@pytest.mark.parametrize(("inputs", "outputs"), SIZES)
def test_exact_weights(isa, rng, inputs, outputs, rows):
    """Integers below 2**11 and integer inputs: no rounding at all, at any size."""
    model = layer(inputs, outputs, rng.integers(-2047, 2048, (outputs, inputs)))
    model[0].bias.data[...] = rng.integers(-9, 10, outputs)
    x = rng.integers(-4, 5, (rows, inputs)).astype(np.float32)
    want = fastconv.compile(model, x.shape)(x)
    np.testing.assert_array_equal(half(model, x.shape)(x), want)


@pytest.mark.parametrize(("inputs", "outputs"), [(700, 97), (129, 1)])
def test_rounding(isa, rng, inputs, outputs):
    """At most 2**-11 of a weight, or 2**-24 of the largest of its row, of any magnitude."""
    magnitude = 10.0 ** rng.uniform(-40, 36, (outputs, 1)) * 10 ** rng.uniform(-6, 0, inputs)
    weight = (rng.standard_normal((outputs, inputs)) * magnitude).astype(np.float32)
    weight[outputs // 2] *= np.float32(outputs == 1)  # a row of zeros
    model = layer(inputs, outputs, weight, bias=False)
    x = rng.standard_normal((2, inputs)).astype(np.float32)
    want = x.astype(np.float64) @ weight.T.astype(np.float64)
    products = abs(x.astype(np.float64)) @ abs(weight.T.astype(np.float64))
    largest = abs(x).sum(1, dtype=np.float64)[:, np.newaxis] * abs(weight).max(1).astype(np.float64)
    bound = (2.0**-11 + tolerance(inputs, np.float32)) * products + 2.0**-24 * largest
    assert (abs(half(model, x.shape)(x) - want) <= bound).all()


def test_a_network(isa, rng):
    """Few rows are rounded, many are not; a clamp, threads, batches, and NaN as ever."""
    model = nn.Sequential(
        nn.Conv2d(3, 5, 3, rng=0), nn.Flatten(), nn.Linear(245, 97, rng=1), nn.ReLU6(),
        nn.Linear(97, 40, False, rng=2), nn.BatchNorm1d(40), nn.Linear(40, 33, rng=3),
    ).eval()  # fmt: skip
    x = 8 * rng.standard_normal((5, 3, 9, 9)).astype(np.float32)
    want = fastconv.compile(model, x.shape)(x)
    same = fastconv.compile(model, x.shape, half_linear=True)
    assert same_bits(same(x), want)
    plan = half(model, (4, 3, 9, 9))
    y = plan(x[:4])
    assert 0 < abs(y - want[:4]).max() < 2e-3 * abs(want).max()
    with fastconv.num_threads(1):
        assert same_bits(plan(x[:4]), y)
    single = half(model, (1, 3, 9, 9))
    assert all(same_bits(single(x[i : i + 1]), y[i : i + 1]) for i in range(4))
    x[1, 0, 0, 0] = np.nan
    spoilt = plan(x[:4])
    assert np.isnan(spoilt[1]).all()
    assert same_bits(spoilt[[0, 2, 3]], y[[0, 2, 3]])


def test_subnormals_of_float16(isa):
    """Weights below 2**-14 of the largest, with float32's denormals flushed too."""
    model = layer(1001, 1, 3e-5, bias=False)
    model[0].weight.data[0, 0] = 1
    x = np.ones((1, 1001), np.float32)
    x[0, 0] = 0
    plan = half(model, x.shape)
    for y in (plan(x), flushed(plan, x)):
        assert abs(y[0, 0] - 0.03) < 1000 * 2.0**-24


def flushed(plan, x):
    with fastconv.flush_denormals():
        return plan(x)


def test_only_linear_layers():
    """Not 1x1 convolutions, nor norms, of one pixel; and none that would begin a chain."""
    squeeze = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(64, 16, 1, rng=0), nn.ReLU())
    norm = nn.Sequential(nn.ReLU(), nn.BatchNorm1d(1))
    pixel = nn.Conv2d(2, 40, 1, rng=0), nn.Conv2d(40, 40, 3, padding=2, groups=40, rng=1)
    for model, shape in (
        (squeeze, (1, 64, 5, 5)),
        (norm, (2, 1)),
        (nn.Sequential(*pixel, nn.Conv2d(40, 4, 1, rng=2)), (4, 2, 1, 1)),
    ):
        x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        want = fastconv.compile(model.eval(), shape)(x)
        assert same_bits(fastconv.compile(model, shape, half_linear=True)(x), want)


def test_memory():
    """Half of it, and not the model's."""
    model = nn.Sequential(nn.Linear(512, 256, False, rng=0)).eval()
    x = np.ones((1, 512), np.float32)
    plan = half(model, x.shape)
    assert plan.weight_bytes == 2 * 512 * 256 + 4 * 256
    y = plan(x)
    model[0].weight.data[...] = 0
    assert same_bits(plan(x), y)
    assert same_bits(half(model, x.shape, release=True)(x), np.zeros((1, 256), np.float32))
    assert model[0].weight.size == 0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_stay_float32(value):
    model = layer(40, 50, 1)
    model[0].weight.data[3, 7] = value
    x = np.ones((1, 40), np.float32)
    plan = fastconv.compile(model, x.shape, half_linear=True)
    assert all(weights.half is None for weights in plan._weights)
    np.testing.assert_array_equal(plan(x), fastconv.compile(model, x.shape)(x))


def test_explain_tells(capsys):
    rows = half(layer(64, 32, 1), (1, 64)).explain(peak_gflops=1, bandwidth_gbs=1)
    assert rows[0].algorithm == "linear f16"
    assert rows[0].bytes == 4 * (64 + 32) + 2 * 64 * 32 + 2 * 4 * 32
    assert "linear f16" in capsys.readouterr().out
