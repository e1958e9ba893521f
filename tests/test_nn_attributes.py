"""What may be assigned to the attributes of layers and parameters, and what a model then does."""

import copy
import inspect
import pickle
from importlib.util import find_spec

import numpy as np
import pytest

import fastconv
from fastconv import models, nn, optim


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


# --- parameters as arrays -------------------------------------------------------------------------


def test_a_parameter_is_read_as_its_array(rng):
    array = rng.standard_normal((3, 4))
    p = nn.Parameter(array)
    assert np.asarray(p) is array
    assert p.numpy() is array
    assert p.detach().cpu().numpy() is array
    assert p.detach().requires_grad is False
    assert (len(p), p.numel(), p.size, p.shape, p.ndim) == (3, 12, 12, (3, 4), 2)
    assert p[0, 1] == array[0, 1]
    np.testing.assert_array_equal(np.stack(list(p)), array)
    copied, cast = np.array(p), np.asarray(p, np.float32)
    assert not np.shares_memory(copied, array)
    np.testing.assert_array_equal(cast, array.astype(np.float32))
    with pytest.raises(ValueError, match="copy"):
        np.array(p, np.float32, copy=False)
    for mine, theirs in [
        (2 * p - p / 3, 2 * array - array / 3),
        (p @ p.data.T, array @ array.T),
        (array + p, array + array),
        (abs(-p), abs(array)),
        (p > 0, array > 0),
        (np.exp(p), np.exp(array)),
        (np.add.reduce(p), np.add.reduce(array)),
        (np.linalg.norm(p), np.linalg.norm(array)),
        (np.mean(p, axis=0), array.mean(axis=0)),
        (np.concatenate([p, p]), np.concatenate([array, array])),
    ]:
        assert isinstance(mine, np.ndarray | np.generic)
        np.testing.assert_array_equal(mine, theirs)


def test_writing_to_a_parameter_writes_to_its_data():
    layer = nn.Linear(2, 2, rng=0)
    weight, data = layer.weight, layer.weight.data
    data[...] = 1
    layer.weight *= 3
    layer.weight -= np.float32(1)
    assert layer.weight is weight
    weight[0] = 5
    assert weight.data is data
    np.testing.assert_array_equal(data, [[5, 5], [2, 2]])
    assert np.add(weight, 1, out=weight) is weight
    np.testing.assert_array_equal(data, [[6, 6], [3, 3]])


def test_parameters_are_told_apart_by_identity():
    a, b = nn.Parameter(np.zeros(2)), nn.Parameter(np.zeros(2))
    assert len({a, b, a}) == 2
    np.testing.assert_array_equal(a == b, [True, True])
    with pytest.raises(ValueError, match="ambiguous"):
        bool(a)
    with pytest.raises(AttributeError, match=r"no attribute 'sum'; .*parameter\.data\.sum"):
        a.sum()
    with pytest.raises(AttributeError, match=r"no attribute 'gard'$"):
        a.gard  # noqa: B018
    with pytest.raises(AttributeError):
        a.gard = 3
    twin = pickle.loads(pickle.dumps(a))
    np.testing.assert_array_equal(twin.data, a.data)
    assert copy.copy(a).data is a.data
    assert copy.deepcopy(a).data is not a.data


def test_a_frozen_parameter_gets_no_gradient_and_is_left_alone(rng):
    model = nn.Sequential(nn.Conv1d(2, 3, 3, rng=0), nn.BatchNorm1d(3), nn.Flatten(),
                          nn.Linear(9, 2, rng=0))  # fmt: skip
    for parameter in (model[0].bias, model[1].weight, model[3].weight):
        assert parameter.requires_grad_(False) is parameter
    before = model.state_dict()
    optimizer = optim.AdamW(model.parameters(), lr=0.1)
    y = model(rng.standard_normal((4, 2, 5), dtype=np.float32))
    model.backward(np.ones_like(y))
    optimizer.step()
    frozen = {"0.bias", "1.weight", "3.weight"}
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) == (name in frozen)
        assert np.array_equal(parameter, before[name]) == (name in frozen)


# --- whole models --------------------------------------------------------------------------------


def test_to_casts_parameters_gradients_and_statistics(rng):
    model = nn.Sequential(nn.Conv2d(2, 3, 3, rng=0), nn.BatchNorm2d(3), nn.ReLU())
    x = rng.standard_normal((4, 2, 6, 6), dtype=np.float32)
    model.backward(np.ones_like(model(x)))
    model(x)
    single = model.state_dict()
    assert model.double() is model
    assert {a.dtype.name for a in model.state_dict().values()} == {"float64", "int64"}
    assert {p.grad.dtype.name for p in model.parameters()} == {"float64"}
    with pytest.raises(RuntimeError, match="forward kept nothing"):
        model.backward(np.ones((4, 3, 4, 4)))
    assert model(x.astype(np.float64)).dtype == np.float64
    for cast in (lambda: model.to("cpu", np.float32), model.float,
                 lambda: model.to(dtype="float32"), lambda: model.to(x.dtype)):  # fmt: skip
        assert cast() is model.cpu() is model.to("cpu") is model.to(None)
        assert model(x).dtype == np.float32
        model.double()
    for name, array in nn.Sequential(*model).to(np.float32).state_dict().items():
        assert array.dtype == single[name].dtype
        if name.startswith("0"):
            np.testing.assert_array_equal(array, single[name])


def test_apply_and_get_submodule():
    model = models.resnet20(rng=0)
    seen = []
    assert model.apply(lambda module: seen.append(module)) is model
    assert seen[-1] is model
    assert sorted(map(id, seen)) == sorted(map(id, model.modules()))
    for name, module in model.named_modules():
        assert model.get_submodule(name) is module
    with pytest.raises(AttributeError, match=r"get_submodule: there is no 'layer2\.9\.conv1'"):
        model.get_submodule("layer2.9.conv1")


# --- modules in lists ----------------------------------------------------------------------------


class Stack(nn.Module):
    def __init__(self, layers, heads):
        self.layers = nn.ModuleList(layers)
        self.heads = nn.ModuleDict(heads)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return self.heads["a"](x) + self.heads["b"](x)

    def backward(self, grad):
        grad = sum(head.backward(grad) for head in self.heads.values())
        for layer in reversed(list(self.layers)):
            grad = layer.backward(grad)
        return grad


def linear(outputs, seed):
    return nn.Linear(3, outputs, rng=seed, dtype=np.float64)


def test_module_list_and_dict_have_torchs_keys_and_learn(rng):
    model = Stack([linear(3, 0), nn.Tanh()], {"a": linear(2, 1), "b": linear(2, 2)})
    keys = ["layers.0.weight", "layers.0.bias", "heads.a.weight", "heads.a.bias",
            "heads.b.weight", "heads.b.bias"]  # fmt: skip
    assert list(model.state_dict()) == [name for name, _ in model.named_parameters()] == keys
    if find_spec("torch"):
        import torch

        theirs = torch.nn.Module()
        theirs.layers = torch.nn.ModuleList([torch.nn.Linear(3, 3), torch.nn.Tanh()])
        theirs.heads = torch.nn.ModuleDict({k: torch.nn.Linear(3, 2) for k in "ab"})
        assert list(theirs.state_dict()) == keys
    x = rng.standard_normal((4, 3))
    u, v, h = rng.standard_normal((4, 2)), rng.standard_normal((4, 3)), 1e-6
    model(x)
    grad = model.backward(u)
    numeric = np.vdot(u, model(x + h * v) - model(x - h * v)) / (2 * h)
    assert abs(numeric - np.vdot(grad, v)) < 1e-8
    assert all(p.grad is not None for p in model.parameters())
    twin = copy.deepcopy(model).eval()
    np.testing.assert_array_equal(twin(x), model(x))
    plan = fastconv.compile(model.eval(), x.shape, dtype=np.float64)
    np.testing.assert_allclose(plan(x), model(x), atol=1e-14)
    assert repr(model).startswith("Stack(\n  (layers): ModuleList(\n    (0): Linear(")


def test_module_list_is_a_list_and_module_dict_a_dict():
    a, b, c = nn.ReLU(), nn.Tanh(), nn.Linear(2, 2, rng=0)
    layers = nn.ModuleList([a]).append(b).extend(nn.Sequential(c))
    assert list(layers) == [a, b, c]
    assert layers[-1] is layers["2"] is layers.get_submodule("2") is c
    assert list(layers[1:]) == [b, c]
    assert list(layers[1:].state_dict()) == ["1.weight", "1.bias"]
    layers[0] = b
    assert layers[0] is b
    assert len(layers) == 3
    table = nn.ModuleDict({"a": a})
    table["b"] = b
    table["a"] = c
    assert list(table) == list(table.keys()) == ["a", "b"]
    assert list(table.values()) == [c, b]
    assert dict(table.items()) == {"a": c, "b": b}
    assert "a" in table
    assert "z" not in table
    assert table.a is table["a"] is c
    with pytest.raises(KeyError):
        table["z"]


@pytest.mark.parametrize("container", [nn.ModuleList, lambda layers: nn.Sequential(*layers)])
def test_layers_are_inserted_and_removed_as_of_a_list(container):
    a, b, c, d = nn.ReLU(), nn.Tanh(), nn.Linear(2, 2, rng=0), nn.Sigmoid()
    layers = container([a, c])
    assert layers.insert(1, b) is layers
    layers.insert(-1, d)
    assert list(layers) == [a, b, d, c]
    assert list(layers.state_dict()) == ["3.weight", "3.bias"]
    assert layers.pop() is c
    assert layers.pop(0) is a
    assert layers["0"] is b
    layers.extend([a, c])
    assert [name for name, _ in layers.named_children()] == ["0", "1", "2", "3"]
    del layers[1]
    assert list(layers) == [b, a, c]
    assert layers["2"] is c
    del layers[:2]
    assert list(layers.state_dict()) == ["0.weight", "0.bias"]
    with pytest.raises(TypeError, match=r"layer '0' must be a Module, got 3"):
        layers.insert(0, 3)
    with pytest.raises(TypeError, match=r"modules must be a list of Modules, got 3"):
        layers.extend(3)
    for missing in (5, "z"):
        with pytest.raises(LookupError):
            layers.pop(missing)
        with pytest.raises(LookupError):
            del layers[missing]
    assert list(layers) == [c]
    layers.insert(99, a)
    assert [name for name, _ in layers.named_children()] == ["0", "1"]
    end = container([a, b, c])[1:].append(d)
    assert list(end) == [b, c, d]
    assert [name for name, _ in end.named_children()] == ["0", "1", "2"]


def test_names_of_layers_stay_when_others_leave():
    model = nn.Sequential({"conv": nn.Conv2d(1, 2, 3, rng=0), "act": nn.ReLU(), "pool": nn.Tanh()})
    del model["act"]
    model.append(nn.ReLU())
    assert [name for name, _ in model.named_children()] == ["conv", "pool", "2"]
    assert isinstance(model.pop("pool"), nn.Tanh)
    assert [name for name, _ in model.named_children()] == ["conv", "1"]
    heads = nn.ModuleDict({"a": nn.ReLU(), "b": nn.Tanh()})
    del heads["a"]
    assert list(heads) == ["b"]


def test_what_a_plain_list_holds_is_not_found():
    class Net(nn.Module):
        pass

    net = Net()
    net.layers = [nn.Linear(2, 2, rng=0)]
    with pytest.raises(ValueError, match=r"params is empty; layers in a plain list"):
        optim.SGD(net.parameters(), lr=0.1)
    net.layers = nn.ModuleList(net.layers)
    assert len(list(net.eval().train().parameters())) == 2


@pytest.mark.parametrize("container", [nn.ModuleList, nn.Sequential])
def test_extend_names_the_layers_once(container, monkeypatch):
    """It named all of them again for every one that it appended."""
    layers, placed, place = container(), [], container._place
    monkeypatch.setattr(container, "_place", lambda *given: placed.append(place(*given)))
    layers.extend(nn.ReLU() for _ in range(100))
    assert list(dict(layers.named_children())) == [str(i) for i in range(100)]
    assert len(placed) == 1
    with pytest.raises(TypeError, match="layer '101' must be a Module, got 3"):
        layers.extend([nn.ReLU(), 3])
    assert len(layers) == 100


@pytest.mark.parametrize("name", ["keys", "training", "forward", "_layers", "add_module"])
def test_layers_have_no_names_of_attributes(name):
    """`model.keys` would be the method, `model.forward` of a Sequential the layer's."""
    table = nn.ModuleDict({"a": nn.ReLU()})
    with pytest.raises(ValueError, match=f"ModuleDict: .* named '{name}', which is an attribute"):
        table[name] = nn.Tanh()
    assert list(table) == ["a"]
    with pytest.raises(ValueError, match=r"^Residual: the body must not have a layer named 'body'"):
        nn.Residual({"body": nn.ReLU()})


def test_a_model_is_a_tree():
    """A module in itself: parameters() and state_dict() ended in RecursionError."""
    outer, inner = nn.Sequential(nn.ReLU()), nn.Linear(2, 2, rng=0)
    residual, table = nn.Residual({"a": inner}), nn.ModuleDict({"a": inner})
    outer.append(residual)
    ways = [
        lambda: setattr(inner, "b", inner),
        lambda: setattr(inner, "b", outer),
        lambda: outer.add_module("b", outer),
        lambda: outer.append(nn.Sequential(outer)),
        lambda: outer.extend([nn.ReLU(), outer]),
        lambda: setattr(residual, "shortcut", outer),
        lambda: setattr(residual, "a", outer),
        lambda: residual.body.append(outer),
        lambda: table.__setitem__("a", nn.ModuleList([table])),
        lambda: table.__setitem__("b", table),
    ]
    for way in ways:
        with pytest.raises(ValueError, match="this module or one that contains it"):
            way()
    assert len(list(outer.modules())) == 4
    assert len(list(table.parameters())) == 2
    inner.parent = [outer]  # a reference that is no layer
    assert list(outer.state_dict()) == ["1.a.weight", "1.a.bias"]


def test_copies_between_forward_and_backward():
    x = np.random.default_rng(0).standard_normal((2, 1, 28, 28)).astype(np.float32)
    model = models.lenet5(rng=0)
    y = model(x)
    twins = copy.deepcopy(model), pickle.loads(pickle.dumps(model))
    expected = model.backward(np.ones_like(y))
    for twin in twins:
        np.testing.assert_array_equal(twin.backward(np.ones_like(y)), expected)


def test_pickles_of_parameters_from_before():
    state = (None, {"data": np.ones(3, np.float32), "grad": None, "requires_grad": False})
    parameter = nn.Parameter.__new__(nn.Parameter)
    parameter.__setstate__(state)
    assert parameter.data.sum() == 3
    assert parameter.requires_grad is False


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.ReflectionPad2d(4), (1, 1, 4, 4)),
        (nn.ZeroPad2d(-5), (1, 1, 4, 4)),
        (nn.ZeroPad2d((-5, 5, 0, 0)), (1, 1, 4, 4)),
        (nn.Softmax(4), (2, 3)),
        (nn.LogSoftmax(2), (2, 3)),
    ],
    ids=str,
)
def test_no_plan_of_what_forward_refuses(layer, shape):
    for use in (layer.output_shape, lambda s: fastconv.compile(layer, s)):
        with pytest.raises(ValueError, match=r"padding|axis"):
            use(shape)
    with pytest.raises((ValueError, IndexError)):
        layer(np.zeros(shape, np.float32))


def test_pads_do_not_widen_the_field():
    model = nn.Sequential(nn.ZeroPad2d(1), nn.Conv2d(1, 2, 3), nn.Softmax(1))
    fields = [str(layer.field) for layer in models.summary(model, (1, 8, 8)).layers if layer.leaf]
    assert fields == ["1", "3", "3"]


def test_released_weights_are_named():
    model = nn.Sequential(nn.Conv2d(1, 2, 3))
    fastconv.compile(model, (1, 1, 8, 8), release=True)
    with pytest.raises(ValueError, match=r"release=True"):
        models.summary(model, (1, 8, 8))


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


def test_residual_takes_the_layers_of_a_sequential(rng):
    body = {"fc": nn.Linear(3, 3, rng=0), "tanh": nn.Tanh()}
    x = rng.standard_normal((2, 3), dtype=np.float32)
    first, second = nn.Residual(body), nn.Residual(nn.Sequential(body))
    assert list(first.state_dict()) == list(second.state_dict()) == ["fc.weight", "fc.bias"]
    np.testing.assert_array_equal(first(x), second(x))
    second.fc = nn.Linear(3, 3, rng=1)
    assert first.fc is body["fc"]
