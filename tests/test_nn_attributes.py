"""What may be assigned to the attributes of layers and parameters, and what a model then does."""

import copy
import pickle

import numpy as np
import pytest

import fastconv
from fastconv import nn


def test_an_assigned_parameter_or_none_belongs_to_the_model(rng):
    model = nn.Sequential(nn.Linear(3, 4, rng=0))
    before = model[0].weight
    with pytest.raises(TypeError, match=r"^Linear\.weight: must be a Parameter or None"):
        model[0].weight = np.zeros((4, 3), np.float32)
    assert model[0].weight is before
    model[0].weight = new = nn.Parameter(np.zeros((4, 3), np.float32))
    model[0].bias = None
    assert list(model.named_parameters()) == [("0.weight", new)]
    with pytest.raises(TypeError, match=r"^Linear\.bias: must be a Parameter or None"):
        model[0].bias = np.ones(4, np.float32)
    model[0].bias = nn.Parameter(np.ones(4, np.float32))
    np.testing.assert_array_equal(model(np.ones((2, 3), np.float32)), np.ones((2, 4)))
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert list(twin.state_dict()) == ["0.weight", "0.bias"]
        with pytest.raises(TypeError, match=r"Linear\.bias"):
            twin[0].bias = np.ones(4)


def test_a_registered_parameter_may_be_none():
    layer = nn.ReLU()
    layer.register_parameter("scale", None)
    assert list(layer.parameters()) == []
    with pytest.raises(TypeError, match=r"ReLU\.scale"):
        layer.scale = np.ones(3)
    layer.scale = parameter = nn.Parameter(np.ones(3))
    assert list(layer.named_parameters()) == [("scale", parameter)]


def test_data_of_a_parameter_keeps_its_shape_and_may_change_its_precision():
    parameter = nn.Parameter(np.ones((2, 3)))
    parameter.data = other = np.zeros((2, 3), np.float32)
    assert parameter.data is other
    for data, exception in [
        (np.zeros(6), ValueError),
        (np.zeros((2, 3), int), TypeError),
        ([[0.0] * 3] * 2, TypeError),
        (None, TypeError),
    ]:
        with pytest.raises(exception, match=r"^Parameter\.data: must"):
            parameter.data = data
        assert parameter.data is other


@pytest.mark.parametrize(
    ("make", "name", "value", "kept"),
    [
        (lambda: nn.Conv2d(3, 4, 3, rng=0), "stride", 2, (2, 2)),
        (lambda: nn.Conv2d(3, 4, 3, rng=0), "dilation", 2, (2, 2)),
        (lambda: nn.Conv2d(3, 4, 3, rng=0), "padding", [1, 2], (1, 2)),
        (lambda: nn.Conv2d(3, 4, 3, rng=0), "padding", "same", "same"),
        (lambda: nn.Conv2d(3, 4, 3, rng=0), "kernel_size", 3, (3, 3)),
        (lambda: nn.ConvTranspose2d(3, 4, 3, stride=2, rng=0), "output_padding", 1, (1, 1)),
        (lambda: nn.MaxPool2d(2), "kernel_size", 3, (3, 3)),
        (lambda: nn.MaxPool2d(2), "stride", 1, (1, 1)),
        (lambda: nn.AvgPool2d(3), "padding", 1, (1, 1)),
        (lambda: nn.AdaptiveAvgPool2d(1), "output_size", 2, (2, 2)),
        (lambda: nn.AdaptiveMaxPool2d(1), "output_size", [None, 2], (None, 2)),
    ],
)
def test_a_size_assigned_after_construction_is_that_of_the_constructor(
    make, name, value, kept, rng
):
    layer = make()
    setattr(layer, name, value)
    assert getattr(layer, name) == kept
    x = rng.standard_normal((2, 3, 8, 9), dtype=np.float32)
    y = layer(x)
    assert y.shape == layer.output_shape(x.shape)
    assert layer.backward(np.ones_like(y)).shape == x.shape
    plan = fastconv.compile(nn.Sequential(layer).eval(), x.shape)
    np.testing.assert_allclose(plan(x), y, rtol=0, atol=1e-5)


def test_a_plan_refuses_a_weight_that_does_not_fit_its_layer():
    """The plan took the output's size from kernel_size, and the kernel read past the image."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3, rng=0), nn.Flatten(), nn.Linear(4, 2, rng=0)).eval()
    model[0].weight = nn.Parameter(np.ones((4, 3, 5, 5), np.float32))
    with pytest.raises(ValueError, match=r"weight has shape \(4, 3, 5, 5\)"):
        fastconv.compile(model, (1, 3, 5, 5))
    model[0].kernel_size = 5
    x = np.ones((1, 3, 5, 5), np.float32)
    np.testing.assert_allclose(fastconv.compile(model, x.shape)(x), model(x), rtol=1e-5)
    model[2].bias = nn.Parameter(np.ones(3, np.float32))
    with pytest.raises(ValueError, match=r"bias \(3,\)"):
        fastconv.compile(model, (1, 3, 5, 5))
