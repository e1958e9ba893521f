"""Sequential and Residual, a module of one's own, printing."""

import copy
import doctest
import inspect
import pickle

import numpy as np
import pytest
from layers import projection_check, seeded, small_resnet

import fastconv
from fastconv import nn


def test_the_example_of_the_docstring_runs_and_its_gradient_is_right(rng):
    names = {"np": np, "nn": nn}
    (example,) = doctest.DocTestParser().get_examples(inspect.getdoc(nn.Module))
    exec(example.source, names)
    joined = names["Joined"](2, 3)
    assert len(example.source.splitlines()) <= 12
    assert list(joined.state_dict()) == ["left.weight", "left.bias", "right.weight", "right.bias"]
    projection_check(joined.double(), rng.standard_normal((2, 2, 5, 4)))
    inner = names["Joined"](2, 2).double()
    model = nn.Sequential(nn.Conv2d(2, 2, 3, **seeded), inner, nn.ReLU(), nn.Flatten())
    projection_check(model, rng.standard_normal((2, 2, 5, 4)))
    x = rng.standard_normal((2, 2, 5, 4))
    plan = fastconv.compile(model.eval(), x.shape, dtype=np.float64)
    np.testing.assert_allclose(plan(x), model(x), atol=1e-13)


def test_a_module_without_backward_says_how_to_write_one(rng):
    class Net(nn.Module):
        def __init__(self):
            self.fc = nn.Linear(2, 2, rng=0)

        def forward(self, x):
            return self.fc(x)

    model = nn.Sequential(Net(), nn.ReLU())
    y = model(np.ones((1, 2), np.float32))
    with pytest.raises(TypeError, match=r"^Net has no backward method: write backward\(self, grad"):
        model.backward(y)


def test_sequential_access():
    model = small_resnet()
    assert model["fc"] is model.fc is model[-1]
    assert len(model) == 9
    assert next(iter(model[:2].state_dict())) == "conv1.weight"
    assert model.layer2[0].conv1 is model.layer2[0].body["conv1"]
    assert model.layer1[0].downsample is None
    model.fc = nn.Linear(6, 7, **seeded)
    assert model[-1].out_features == 7
    model.layer2[0].conv2 = replaced = nn.Conv2d(6, 6, 1, **seeded)
    assert dict(model.named_modules())["layer2.0.conv2"] is replaced
    with pytest.raises(AttributeError, match="no layer 'head'"):
        model.head = nn.Identity()
    with pytest.raises(AttributeError, match="'nothing'"):
        model.nothing  # noqa: B018
    with pytest.raises(TypeError, match="must be a Module"):
        nn.Sequential(nn.ReLU(), 3)
    with pytest.raises(ValueError, match="already"):
        model.add_module("fc", nn.ReLU())


def test_residual_shapes_must_agree():
    block = nn.Residual({"conv": nn.Conv2d(2, 3, 1)})
    with pytest.raises(ValueError, match=r"Residual: the body gives shape \(1, 3, 4, 4\)"):
        block(np.zeros((1, 2, 4, 4), np.float32))


def test_residual_does_not_write_over_what_its_branches_keep(rng):
    body = {"fc": nn.Linear(4, 4, **seeded), "relu": nn.ReLU(inplace=True)}
    projection_check(
        nn.Residual(body, nn.Sigmoid(), nn.ReLU6(inplace=True)), rng.standard_normal((3, 4))
    )
    projection_check(nn.Residual({"same": nn.Identity()}), rng.standard_normal((3, 4)))


def test_models_survive_copy_and_pickle(rng):
    model, x = small_resnet().eval(), rng.standard_normal((1, 2, 8, 8))
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        np.testing.assert_array_equal(twin(x), model(x))
        assert twin.fc.weight is not model.fc.weight


def test_repr_is_torchs():
    model = nn.Sequential(
        {
            "conv1": nn.Conv2d(3, 8, 3, padding=1, bias=False),
            "block": nn.Sequential(nn.ReLU(inplace=True), nn.MaxPool2d(2)),
            "fc": nn.Linear(8, 2),
        }
    )
    assert repr(model) == (
        "Sequential(\n"
        "  (conv1): Conv2d(3, 8, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), bias=False)\n"
        "  (block): Sequential(\n"
        "    (0): ReLU(inplace=True)\n"
        "    (1): MaxPool2d(kernel_size=(2, 2), stride=(2, 2), padding=(0, 0), "
        "dilation=(1, 1), ceil_mode=False)\n"
        "  )\n"
        "  (fc): Linear(in_features=8, out_features=2, bias=True)\n"
        ")"
    )
    assert repr(nn.ReLU()) == "ReLU()"
    assert repr(nn.CrossEntropyLoss()) == "CrossEntropyLoss()"
