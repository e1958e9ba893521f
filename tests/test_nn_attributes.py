"""What may be assigned to the attributes of layers and parameters, and what a model then does."""

import copy
import inspect
import pickle

import numpy as np
import pytest

import fastconv
from fastconv import nn, optim


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
    parameter.data = np.empty((0, 0))  # frees the memory
    parameter.data = other


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


# --- constructors --------------------------------------------------------------------------------


def test_no_constructor_names_a_private_class():
    for name in nn.__all__:
        cls = getattr(nn, name)
        if isinstance(cls, type) and issubclass(cls, nn.Module) and cls is not nn.Identity:
            with pytest.raises(TypeError, match=rf"^{name}(\.__init__)?\(\) "):
                cls(no_such_argument=1)


def test_a_subclass_calls_the_constructor_of_its_base():
    class Halving(nn.Conv2d):
        def __init__(self, channels):
            super().__init__(channels, channels, 3, stride=2, padding=1, rng=0)

    assert Halving(4)(np.ones((1, 4, 8, 8), np.float32)).shape == (1, 4, 4, 4)
    assert inspect.signature(nn.MaxPool2d).parameters["ceil_mode"].default is False
    assert "weight" in inspect.signature(nn.NLLLoss).parameters


def test_dropout_in_place_writes_only_where_nothing_is_recorded():
    x = np.ones((4, 5), np.float32)
    layer = nn.Dropout(0.5, True, rng=0)
    y = layer(x)
    assert y is not x
    np.testing.assert_array_equal(x, 1)
    np.testing.assert_array_equal(y, nn.Dropout(0.5, rng=0)(x))
    assert repr(layer) == "Dropout(p=0.5, inplace=True)"
    assert layer.eval()(x) is x
    layer.training = True  # an ensemble of dropout masks, as in eval() otherwise
    assert layer(x) is x
    assert set(x.ravel().tolist()) == {0.0, 2.0}


@pytest.mark.parametrize("of_optimizer", [False, True])
def test_zero_grad_forgets_gradients_or_fills_them(of_optimizer):
    model = nn.Linear(2, 2, rng=0)
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    zero_grad = (optimizer if of_optimizer else model).zero_grad
    model.weight.grad = grad = np.ones((2, 2), np.float32)
    optimizer.step()
    zero_grad(set_to_none=False)
    assert model.weight.grad is grad
    assert model.bias.grad is None
    np.testing.assert_array_equal(grad, 0)
    before = model.weight.data.copy()
    optimizer.step()  # momentum still moves it, as in torch
    np.testing.assert_allclose(model.weight.data, before - 0.1 * 0.9, rtol=0, atol=1e-6)
    zero_grad()
    assert model.weight.grad is None
