"""PyTorch's names that are not here: an AttributeError that says what to use instead."""

import importlib
import inspect
import re

import numpy as np
import pytest

import fastconv
import fastconv.functional as F
from fastconv import nn, optim
from fastconv._absent import _INSTEAD

NAMES = [(package, name) for package, table in _INSTEAD.items() for name in table]


@pytest.mark.parametrize(("package", "name"), NAMES)
def test_a_name_of_pytorch_gives_advice(package, name):
    module = importlib.import_module(f"fastconv.{package}")
    assert not hasattr(module, name)
    assert name not in dir(module)
    with pytest.raises(AttributeError) as caught:
        getattr(module, name)
    message = str(caught.value)
    assert message.startswith(f"module 'fastconv.{package}' has no attribute '{name}'; ")
    assert len(message) <= 300
    with pytest.raises(ImportError):
        exec(f"from fastconv.{package} import {name}")


def test_advice_names_only_what_there_is():
    public = {name for module in (nn, F, optim) for name in dir(module)}
    words = re.compile(r"[a-z]+\w*_\w+|[A-Z]+[a-z]+[A-Z0-9]\w*")
    known = public | {"in_channels", "out_channels", "kernel_size", "in_features", "out_features",
                      "return_indices", "param_groups", "NumPy"}  # fmt: skip
    known |= {name for table in _INSTEAD.values() for name in table}
    known |= set(dir(fastconv.data))
    for table in _INSTEAD.values():
        for advice in table.values():
            assert set(words.findall(advice)) <= known, advice


def test_formulas_of_the_advice():
    rng = np.random.default_rng(0)
    x, y, beta, delta, h = *rng.standard_normal((2, 3, 4)), 0.7, 0.6, 1e-6
    d = x - y

    def smooth(d):
        return np.where(abs(d) < beta, d * d / 2 / beta, abs(d) - beta / 2).mean()

    def huber(d):
        return np.where(abs(d) < delta, d * d / 2, delta * (abs(d) - delta / 2)).mean()

    for function, gradient in [
        (lambda d: abs(d).mean(), np.sign(d) / d.size),
        (smooth, np.clip(d / beta, -1, 1) / d.size),
        (huber, np.clip(d, -delta, delta) / d.size),
        (lambda d: np.logaddexp(d, 0).sum(), F.sigmoid(d)),
    ]:
        v = rng.standard_normal(d.shape)
        numeric = (function(d + h * v) - function(d - h * v)) / (2 * h)
        assert abs(numeric - np.vdot(gradient, v)) < 1e-7
    classes = np.array([2, 0])
    np.testing.assert_array_equal(np.eye(3)[classes], [[0, 0, 1], [1, 0, 0]])
    optimizers = [optim.SGD([nn.Parameter(np.ones(1))], lr=0.5) for _ in range(2)]
    schedule = optim.StepLR(optimizers[0], 1, 0.9)
    for step in range(1, 5):
        schedule.step()
        assert schedule.get_last_lr() == [0.5 * 0.9**step]


def test_packages_still_name_what_they_have():
    for package in _INSTEAD:
        module = importlib.import_module(f"fastconv.{package}")
        for name in module.__all__:
            assert hasattr(module, name)
        assert not set(module.__all__) & set(_INSTEAD[package])
        assert inspect.isfunction(vars(module)["__getattr__"])


@pytest.mark.parametrize(
    "layer",
    [nn.Softmax(1), nn.LogSoftmax(1), nn.ZeroPad2d((1, 0, 2, 1)), nn.ReflectionPad2d(1),
     nn.Sequential(nn.Flatten(), nn.Unflatten(1, (3, 4, 5)))],
    ids=lambda layer: type(layer).__name__,
)  # fmt: skip
def test_new_layers_run_in_a_plan_and_in_both_formats(layer):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 3, 4, 5), dtype=np.float32)
    conv = nn.Conv2d(3, 3, 1, rng=0)
    model = nn.Sequential(conv, nn.ReLU(), layer, nn.Conv2d(3, 2, 1, rng=0))
    y = model(x)
    assert y.shape == model.output_shape(x.shape)
    grad = rng.standard_normal(y.shape, dtype=np.float32)
    expected = model.backward(grad)
    last = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(model(last), y, rtol=0, atol=1e-6)
    np.testing.assert_allclose(model.backward(grad), expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(model.eval()(x), y, rtol=0, atol=1e-6)
    np.testing.assert_allclose(fastconv.compile(model, x.shape)(x), y, rtol=0, atol=1e-5)


def test_nll_of_log_softmax_is_cross_entropy():
    rng = np.random.default_rng(0)
    x, classes, weight = rng.standard_normal((5, 4)), rng.integers(0, 4, 5), rng.uniform(1, 2, 4)
    log_softmax, nll, both = nn.LogSoftmax(1), nn.NLLLoss(weight), nn.CrossEntropyLoss(weight)
    np.testing.assert_allclose(nll(log_softmax(x), classes), both(x, classes), rtol=1e-14)
    np.testing.assert_allclose(log_softmax.backward(nll.backward()), both.backward(), atol=1e-15)
