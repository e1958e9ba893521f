"""state_dict keys and loading: torchvision's names, strictness, casts, torch's layers."""

import numpy as np
import pytest

from fastconv import models, nn

BLOCKS = {
    "resnet18": (2, [2, 2, 2, 2]),
    "resnet34": (2, [3, 4, 6, 3]),
    "resnet50": (3, [3, 4, 6, 3]),
    "resnet101": (3, [3, 4, 23, 3]),
    "resnet152": (3, [3, 8, 36, 3]),
}


def norm_keys(name, channels):
    for key in ("weight", "bias", "running_mean", "running_var"):
        yield f"{name}.{key}", (channels,)
    yield f"{name}.num_batches_tracked", ()


def torchvision_keys(name):
    """Keys and shapes of torchvision's ResNets, in order."""
    convs, counts = BLOCKS[name]
    expansion = 4 if convs == 3 else 1
    yield "conv1.weight", (64, 3, 7, 7)
    yield from norm_keys("bn1", 64)
    inputs = 64
    for stage, count in enumerate(counts):
        width = 64 << stage
        outputs = width * expansion
        for block in range(count):
            prefix = f"layer{stage + 1}.{block}"
            basic = [(width, inputs, 3), (width, width, 3)]
            bottleneck = [(width, inputs, 1), (width, width, 3), (outputs, width, 1)]
            for i, (o, c, k) in enumerate(bottleneck if convs == 3 else basic, start=1):
                yield f"{prefix}.conv{i}.weight", (o, c, k, k)
                yield from norm_keys(f"{prefix}.bn{i}", o)
            if inputs != outputs or (stage and block == 0):
                yield f"{prefix}.downsample.0.weight", (outputs, inputs, 1, 1)
                yield from norm_keys(f"{prefix}.downsample.1", outputs)
            inputs = outputs
    yield "fc.weight", (1000, inputs)
    yield "fc.bias", (1000,)


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50", "resnet101"])
def test_resnet_keys_are_torchvisions(name):
    state = models.create(name, rng=0).state_dict()
    assert [(key, array.shape) for key, array in state.items()] == list(torchvision_keys(name))
    assert {a.dtype for k, a in state.items() if "num_batches" not in k} == {np.dtype(np.float32)}


def test_resnet_keys_against_an_installed_torchvision():
    torchvision = pytest.importorskip("torchvision")
    for name in ("resnet18", "resnet50"):
        state = getattr(torchvision.models, name)().state_dict()
        assert [(k, tuple(v.shape)) for k, v in state.items()] == list(torchvision_keys(name))


def test_cifar_resnet_keys():
    keys = list(models.resnet20(rng=0).state_dict())
    assert keys[0] == "conv1.weight"
    assert "layer2.0.conv1.weight" in keys
    assert not any("downsample" in key for key in keys)
    assert keys[-2:] == ["fc.weight", "fc.bias"]


def test_batch_norm_keys_in_torchs_order():
    state = nn.BatchNorm1d(4).state_dict()
    assert [(k, v.shape, v.dtype.name) for k, v in state.items()] == [
        ("weight", (4,), "float32"),
        ("bias", (4,), "float32"),
        ("running_mean", (4,), "float32"),
        ("running_var", (4,), "float32"),
        ("num_batches_tracked", (), "int64"),
    ]
    assert list(nn.BatchNorm1d(4, affine=False, track_running_stats=False).state_dict()) == []


# --- load_state_dict -----------------------------------------------------------------------------


def net(rng=0, dtype=np.float32):
    conv = nn.Conv1d(2, 3, 3, rng=rng, dtype=dtype)
    return nn.Sequential({"conv": conv, "bn": nn.BatchNorm1d(3, dtype=dtype)})


def test_state_round_trip_copies_both_ways():
    source, target = net(1), net(2)
    state = source.state_dict()
    result = target.load_state_dict(state)
    assert result == ([], [])
    for key, array in target.state_dict().items():
        np.testing.assert_array_equal(array, state[key])
    state["conv.weight"][...] = 0
    assert np.all(source.conv.weight.data)
    assert np.all(target.conv.weight.data)


def test_strict_lists_missing_and_unexpected_keys_and_writes_nothing():
    model = net(0)
    before, state = model.state_dict(), net(1).state_dict()
    del state["conv.bias"]
    state["head.weight"] = np.zeros(3)
    with pytest.raises(ValueError, match=r"missing keys: conv.bias; unexpected keys: head.weight"):
        model.load_state_dict(state)
    for key, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[key])
    result = model.load_state_dict(state, strict=False)
    assert result.missing_keys == ["conv.bias"]
    assert result.unexpected_keys == ["head.weight"]
    np.testing.assert_array_equal(model.conv.weight.data, state["conv.weight"])


def test_many_missing_keys_are_counted_not_listed():
    with pytest.raises(ValueError, match=r"and \d+ more; unexpected keys: none"):
        models.resnet20(rng=0).load_state_dict({})


def test_shape_mismatch_names_both_shapes_even_when_not_strict():
    state = net().state_dict()
    state["conv.weight"] = np.zeros((3, 2, 5), np.float32)
    with pytest.raises(
        ValueError, match=r"conv.weight is \(3, 2, 5\), Sequential expects \(3, 2, 3"
    ):
        net().load_state_dict(state, strict=False)


def test_casts_are_float_to_float_only():
    wide = net(1, np.float64).state_dict()
    model = net(2)
    model.load_state_dict(wide)
    assert model.conv.weight.dtype == np.float32
    np.testing.assert_array_equal(model.conv.weight.data, wide["conv.weight"].astype(np.float32))
    model.load_state_dict(
        {k: v.astype(np.float16) for k, v in wide.items() if v.ndim}, strict=False
    )
    wide["conv.bias"] = np.arange(3)
    with pytest.raises(TypeError, match=r"conv.bias has dtype int64, which is not cast to float32"):
        model.load_state_dict(wide)
    bad_count = {**net().state_dict(), "bn.num_batches_tracked": np.array(1.0)}
    with pytest.raises(TypeError, match="num_batches_tracked"):
        model.load_state_dict(bad_count)


def test_checkpoints_without_num_batches_tracked_load():
    state = net(1).state_dict()
    del state["bn.num_batches_tracked"]
    assert net().load_state_dict(state).missing_keys == ["bn.num_batches_tracked"]


# --- against torch, where it is installed --------------------------------------------------------

TORCH_LAYERS = [
    ("Conv1d", (4, 6, 3), {"stride": 2, "padding": 1, "groups": 2}, (2, 4, 9)),
    ("Conv2d", (3, 4, (3, 2)), {"padding": (1, 0), "dilation": 2, "bias": False}, (2, 3, 8, 7)),
    ("Conv2d", (2, 3, 3), {"padding": 1, "padding_mode": "reflect"}, (2, 2, 6, 5)),
    ("Conv2d", (2, 3, 3), {"padding": "same", "padding_mode": "circular"}, (2, 2, 6, 5)),
    ("ConvTranspose1d", (4, 2, 3), {"stride": 2, "output_padding": 1}, (2, 4, 5)),
    ("ConvTranspose2d", (4, 2, 3), {"stride": 2, "padding": 1, "groups": 2}, (2, 4, 5, 4)),
    ("MaxPool1d", (3,), {"stride": 2, "padding": 1}, (2, 3, 8)),
    ("MaxPool2d", (3,), {"stride": 2, "ceil_mode": True}, (2, 3, 8, 6)),
    ("AvgPool1d", (3,), {"stride": 2, "padding": 1, "count_include_pad": False}, (2, 3, 8)),
    ("AvgPool2d", (3,), {"padding": 1, "divisor_override": 4}, (2, 3, 8, 6)),
    ("AdaptiveAvgPool2d", ((3, 2),), {}, (2, 3, 8, 5)),
    ("AdaptiveMaxPool1d", (3,), {}, (2, 3, 8)),
    ("BatchNorm1d", (3,), {"momentum": 0.3}, (4, 3)),
    ("BatchNorm2d", (3,), {"momentum": None}, (2, 3, 4, 5)),
    ("Linear", (5, 4), {}, (2, 3, 5)),
    ("Flatten", (), {"start_dim": 1, "end_dim": 2}, (2, 3, 4, 5)),
    ("ReLU", (), {"inplace": False}, (3, 4)),
    ("LeakyReLU", (0.3,), {}, (3, 4)),
    ("ReLU6", (), {}, (3, 4)),
    ("Sigmoid", (), {}, (3, 4)),
    ("Tanh", (), {}, (3, 4)),
    ("GELU", (), {"approximate": "tanh"}, (3, 4)),
    ("SiLU", (), {}, (3, 4)),
    ("Identity", (), {}, (3, 4)),
    ("Softmax", (1,), {}, (3, 4, 2)),
    ("LogSoftmax", (), {"dim": -1}, (3, 4)),
    ("ZeroPad2d", ((1, 2, 0, -1),), {}, (2, 3, 4, 5)),
    ("ReflectionPad2d", (2,), {}, (2, 3, 4, 5)),
    ("Unflatten", (1, (2, -1)), {}, (3, 4, 2)),
]


def close(mine, theirs, terms=256):
    """Equal up to c * eps * sqrt(terms) of the largest entry."""
    theirs = theirs.detach().numpy()
    assert mine.shape == theirs.shape
    tolerance = 16 * np.finfo(mine.dtype).eps * np.sqrt(terms)
    np.testing.assert_allclose(
        mine, theirs, rtol=0, atol=tolerance * (1 + np.abs(theirs).max(initial=0))
    )


@pytest.mark.parametrize(("name", "args", "kwargs", "shape"), TORCH_LAYERS)
def test_layer_against_torch(name, args, kwargs, shape):
    torch = pytest.importorskip("torch")
    theirs = getattr(torch.nn, name)(*args, **kwargs).double()
    with_dtype = {} if not theirs.state_dict() else {"dtype": np.float64}
    mine = getattr(nn, name)(*args, **kwargs, **with_dtype)
    mine.load_state_dict({key: value.numpy() for key, value in theirs.state_dict().items()})
    rng = np.random.default_rng(0)
    x = 3 * rng.standard_normal(shape)
    x_torch = torch.tensor(x, requires_grad=True)
    y, y_torch = mine(x), theirs(x_torch)
    close(y, y_torch)
    grad = rng.standard_normal(y.shape)
    y_torch.backward(torch.tensor(grad))
    close(mine.backward(grad), x_torch.grad)
    for (key, parameter), (key_torch, parameter_torch) in zip(
        mine.named_parameters(), theirs.named_parameters(), strict=True
    ):
        assert key == key_torch
        close(parameter.grad, parameter_torch.grad)
    for key, value in theirs.state_dict().items():
        close(np.float64(mine.state_dict()[key]), value)
    close(mine.eval()(x), theirs.eval()(x_torch))


def test_default_initialisation_has_torchs_spread():
    torch = pytest.importorskip("torch")
    for name, args in [
        ("Conv2d", (8, 64, 3)),
        ("ConvTranspose1d", (64, 8, 5)),
        ("Linear", (99, 77)),
    ]:
        mine, theirs = getattr(nn, name)(*args, rng=0), getattr(torch.nn, name)(*args)
        for key, array in mine.state_dict().items():
            other = theirs.state_dict()[key].numpy()
            # two estimates of one std, each with relative error sqrt(1/5/n)
            assert abs(array.std() / other.std() - 1) < 5 * np.sqrt(0.4 / array.size)
            assert abs(np.abs(array).max() / np.abs(other).max() - 1) < 20 / array.size


def test_losses_against_torch():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(1)
    x, classes = rng.standard_normal((6, 4)), rng.integers(0, 4, 6)
    weight = rng.uniform(0.5, 2, 4)
    soft = rng.dirichlet(np.ones(4), 6)
    cases = [
        ("CrossEntropyLoss", {"label_smoothing": 0.1}, classes),
        ("CrossEntropyLoss", {"weight": weight, "ignore_index": 2}, classes),
        ("CrossEntropyLoss", {"reduction": "sum"}, soft),
        ("NLLLoss", {"weight": weight, "ignore_index": 2}, classes),
        ("BCEWithLogitsLoss", {"pos_weight": weight}, soft),
        ("BCEWithLogitsLoss", {"weight": weight, "reduction": "sum"}, soft),
        ("MSELoss", {}, soft),
    ]
    for name, kwargs, target in cases:
        mine = getattr(nn, name)(**kwargs)
        tensors = {
            k: torch.tensor(v) if isinstance(v, np.ndarray) else v for k, v in kwargs.items()
        }
        theirs = getattr(torch.nn, name)(**tensors)
        x_torch = torch.tensor(x, requires_grad=True)
        value = theirs(x_torch, torch.tensor(target))
        value.backward()
        close(np.asarray(mine(x, target)), value)
        close(mine.backward(), x_torch.grad)
