"""Weights of plans: whose memory they lie in, and large ones of few rows."""

import weakref

import numpy as np
import pytest
from helpers import same_bits
from plans import IMAGE, MODELS, Scale, build, close, conv, linear, norm, normal

import fastconv
from fastconv import nn
from fastconv.inference.arena import Pages


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_large_linear_weights_have_the_bits_of_any_batch(isa, monkeypatch, dtype):
    """Read where they are for up to four rows, laid out for more: one order of sums."""
    for module in ("weights", "rules"):
        monkeypatch.setattr(f"fastconv.inference.{module}.LARGE", 100)
    sizes = (300, 97), (97, 33)
    layers = [nn.Linear(*size, rng=seed, dtype=dtype) for seed, size in enumerate(sizes)]
    model = nn.Sequential(nn.Identity(), layers[0], nn.ReLU(), layers[1]).eval()
    x = normal((7, 300), dtype)
    want = fastconv.compile(model, x.shape, dtype=dtype)(x)
    for rows in (1, 2, 4, 5):
        plan = fastconv.compile(model, (rows, 300), dtype=dtype)
        assert plan(x[:rows]).tobytes() == want[:rows].tobytes(), rows
    np.testing.assert_array_equal(model(x), want)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("batch", [1, 4, 5])
def test_large_linear_weights_are_shared(monkeypatch, batch, dtype):
    for module in ("weights", "rules"):
        monkeypatch.setattr(f"fastconv.inference.{module}.LARGE", 100)

    def dense(inputs, outputs, bias=True):
        return nn.Linear(inputs, outputs, bias, rng=0, dtype=dtype)

    layers = nn.Conv2d(3, 5, 3, rng=0, dtype=dtype), nn.Flatten(), dense(245, 97), nn.ReLU6()
    rest = dense(97, 80, False), nn.Residual({"a": dense(80, 80)}), dense(80, 33)
    model = nn.Sequential(*layers, *rest).eval()
    x = 8 * normal((batch, 3, 9, 9), dtype)
    plan = fastconv.compile(model, x.shape, dtype=dtype)
    shared = [weights.shared is not None for weights in plan._weights]
    assert sum(shared) == (3 if batch < 5 else 0)
    if batch < 5:
        assert np.shares_memory(plan._weights[2].shared, model[2].weight.data)
    y = close(plan, x, model(x))
    with fastconv.num_threads(1):
        assert same_bits(plan(x), y)
    single = fastconv.compile(model, x.shape, dtype=np.float32)  # one rounding of each weight more
    np.testing.assert_allclose(single(x.astype(np.float32)), y, rtol=0, atol=1e-5 * np.abs(y).max())
    x[0, 0, 0, 0] = np.nan
    assert np.isnan(plan(x)[0]).all()


@pytest.mark.parametrize("expected", [0, 5000, 4 << 20])
@pytest.mark.parametrize("sizes", [[1, 64, 65, 3000, 5000], [10, 3 << 20, 100, 1 << 20, 5 << 20]])
def test_weights_share_blocks_of_memory(sizes, expected):
    pages, arrays = Pages(expected), []
    for number, size in enumerate(sizes):
        arrays.append(pages.take(size))
        assert arrays[-1].shape == (size,)
        assert arrays[-1].ctypes.data % 64 == 0
        arrays[-1][:] = number
    del pages
    assert all((array == number).all() for number, array in enumerate(arrays))


def test_refused_weights_take_no_memory():
    """One is not finite, so nothing can be prepared of it, whatever the layout of the input."""
    x = normal((1, *IMAGE), np.float32)
    taken = []
    for value in (0.5, np.nan):
        model = nn.Sequential(conv(6, 64)).eval()
        model[0].weight.data[5, 2, 1, 1] = value
        plan = fastconv.compile(model, x.shape, dtype=np.float32)
        for image in (x, np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)):
            plan(image)
        taken.append(plan._weights[0]._pages._taken)
    assert taken[0] > 0 == taken[1]


def test_plan_is_a_snapshot():
    shape = MODELS["lenet5"]
    model = build("lenet5", shape)
    model.train()
    plan = fastconv.compile(model, shape)
    assert all(module.training for module in model.modules())
    x = normal(shape, np.float32)
    before = plan(x)
    for parameter in model.parameters():
        parameter.data[...] = 7
    assert same_bits(plan(x), before)


def test_release_takes_the_weights_over():
    model = nn.Sequential(conv(6, 5), norm(5), Scale(5), nn.Flatten(), linear(360, 7)).eval()
    x = normal((2, *IMAGE))
    expected = model(x)
    weight = weakref.ref(model[0].weight.data)
    plan = fastconv.compile(model, x.shape, dtype=np.float64, release=True)
    close(plan, x, expected)
    assert weight() is None
    assert all(parameter.size == 0 for parameter in model.parameters())
    with pytest.raises(ValueError, match="conv2d: weight must not have an axis of size 0"):
        model(x)


@pytest.mark.parametrize("name", ["mlp", "lenet5", "resnet18"])
def test_weights_are_kept_once(name):
    # a last Linear kept both its weight and what the kernel reads of it: 16 MiB of VGG-16
    shape = MODELS[name]
    plan = fastconv.compile(build(name, shape), shape)
    plan(normal(shape, np.float32))
    kept = [weights for weights in plan._weights if weights.nbytes]
    assert all((weights.raw is None) != (weights.prepared is None) for weights in kept)
    last = kept[-1]
    assert last.shape[2:] == (1, 1)
    assert last.raw is None
