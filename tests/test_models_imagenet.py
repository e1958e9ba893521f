"""MobileNetV2 and VGG: torchvision's keys, counts, torch's forward, gradients by projection."""

import importlib

import numpy as np
import pytest

from fastconv import models, nn

vgg_module = importlib.import_module("fastconv.models.vgg")

MOBILENET_STAGES = [(1, 16, 1), (6, 24, 2), (6, 32, 3), (6, 64, 4), (6, 96, 3), (6, 160, 3)]
VGG_FEATURES = {
    "vgg11": [64, 0, 128, 0, 256, 256, 0, 512, 512, 0, 512, 512, 0],
    "vgg16": [64, 64, 0, 128, 128, 0, *(256,) * 3, 0, *(512,) * 3, 0, *(512,) * 3, 0],
}


def norm_keys(name, channels):
    for key in ("weight", "bias", "running_mean", "running_var"):
        yield f"{name}.{key}", (channels,)
    yield f"{name}.num_batches_tracked", ()


def mobilenet_keys():
    """Keys and shapes of torchvision's mobilenet_v2, in order."""

    def unit(prefix, outputs, inputs, kernel, names=("0", "1")):
        yield f"{prefix}.{names[0]}.weight", (outputs, inputs, kernel, kernel)
        yield from norm_keys(f"{prefix}.{names[1]}", outputs)

    yield from unit("features.0", 32, 3, 3)
    channels, index = 32, 1
    for expansion, width, blocks in [*MOBILENET_STAGES, (6, 320, 1)]:
        for _ in range(blocks):
            hidden, prefix, at = channels * expansion, f"features.{index}.conv", 0
            if expansion > 1:
                yield from unit(f"{prefix}.0", hidden, channels, 1)
                at = 1
            yield from unit(f"{prefix}.{at}", hidden, 1, 3)
            yield from unit(prefix, width, hidden, 1, (str(at + 1), str(at + 2)))
            channels, index = width, index + 1
    yield from unit("features.18", 1280, 320, 1)
    yield "classifier.1.weight", (1000, 1280)
    yield "classifier.1.bias", (1000,)


def vgg_keys(name, norm=False):
    """Keys and shapes of torchvision's VGGs, in order."""
    index, channels = 0, 3
    for width in VGG_FEATURES[name]:
        if width == 0:
            index += 1
            continue
        yield f"features.{index}.weight", (width, channels, 3, 3)
        yield f"features.{index}.bias", (width,)
        if norm:
            yield from norm_keys(f"features.{index + 1}", width)
        index, channels = index + 2 + norm, width
    for i, (inputs, outputs) in zip(
        (0, 3, 6), [(512 * 49, 4096), (4096, 4096), (4096, 1000)], strict=True
    ):
        yield f"classifier.{i}.weight", (outputs, inputs)
        yield f"classifier.{i}.bias", (outputs,)


def shapes(model):
    return [(key, array.shape) for key, array in model._state()]


def count(model):
    return sum(parameter.size for parameter in model.parameters())


@pytest.fixture
def cheap_weights(monkeypatch):
    """Shapes only: no random numbers are drawn (138 million of them take seconds)."""
    for name in ("uniform_", "normal_"):
        monkeypatch.setattr(nn.init, name, lambda target, *_, **__: target)


def test_mobilenet_has_torchvisions_keys_and_count(cheap_weights):
    model = models.mobilenet_v2()
    assert shapes(model) == list(mobilenet_keys())
    assert count(model) == 3_504_872
    report = models.summary(model, (3, 224, 224))
    assert round(report.macs / 1e9, 2) == 0.30  # torchvision's documentation


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("vgg11", 132_863_336),
        ("vgg11_bn", 132_868_840),
        ("vgg16", 138_357_544),
        ("vgg16_bn", 138_365_992),
    ],
)
def test_vgg_has_torchvisions_keys_and_count(name, parameters, cheap_weights):
    model = models.create(name)
    assert shapes(model) == list(vgg_keys(name.removesuffix("_bn"), name.endswith("_bn")))
    assert count(model) == parameters


def test_keys_against_an_installed_torchvision(cheap_weights):
    torchvision = pytest.importorskip("torchvision")
    for name in ("mobilenet_v2", "vgg11", "vgg16_bn"):
        state = getattr(torchvision.models, name)().state_dict()
        assert shapes(models.create(name)) == [(k, tuple(v.shape)) for k, v in state.items()]


@pytest.mark.parametrize(("width_mult", "millions"), [(0.35, 1.68), (0.5, 1.97), (1.4, 6.11)])
def test_width_mult(width_mult, millions, cheap_weights):
    assert round(count(models.mobilenet_v2(width_mult=width_mult)) / 1e6, 2) == millions


def test_wrong_arguments():
    with pytest.raises(ValueError, match="mobilenet_v2: width_mult must be positive, got 0"):
        models.mobilenet_v2(width_mult=0)
    with pytest.raises(ValueError, match=r"vgg: depth must be one of \[11, 16\], got 19"):
        models.vgg(19)


# --- small versions -------------------------------------------------------------------------------


@pytest.fixture
def small(monkeypatch):
    """Builders of networks with the same structure and few channels, statistics from data."""
    monkeypatch.setattr(vgg_module, "WIDTHS", (4, 8, 8, 16, 16))
    monkeypatch.setattr(vgg_module, "HIDDEN", 24)

    def build(name, dtype=np.float64, **options):
        options = {"width_mult": 0.1, **options} if name == "mobilenet_v2" else options
        model = models.create(name, num_classes=5, rng=0, dtype=dtype, **options)
        rng = np.random.default_rng(1)
        for key, array in model._state():  # norms of random scale; logits of order 1
            if key.endswith("running_var"):
                array[...] = rng.uniform(0.5, 2.0, array.shape)
            elif key.endswith(("running_mean", "bias")):
                array[...] = rng.normal(0.0, 0.2, array.shape)
            elif array.ndim == 1:
                array[...] = rng.uniform(0.5, 1.5, array.shape)
            elif array.ndim == 2:
                array[...] = rng.normal(0.0, array.shape[1] ** -0.5, array.shape)
        return model

    return build


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ["mobilenet_v2", "vgg11", "vgg11_bn", "vgg16"])
def test_forward_and_backward(name, dtype, small):
    model = small(name, dtype)
    x = np.random.default_rng(0).standard_normal((2, 3, 32, 32)).astype(dtype)
    y = model(x)
    assert y.shape == (2, 5) == model.output_shape(x.shape)
    assert model.backward(np.ones_like(y)).shape == x.shape
    for key, parameter in model.named_parameters():
        assert parameter.grad.shape == parameter.shape, key
        assert parameter.grad.dtype == y.dtype == dtype, key
        assert np.isfinite(parameter.grad).all(), key


@pytest.mark.parametrize("name", ["mobilenet_v2", "vgg11", "vgg11_bn"])
def test_gradient_by_projection(name, small):
    """The derivative along one random direction of the input and all parameters at once."""
    model = small(name, **({"dropout": 0.0}))
    rng = np.random.default_rng(2)
    x = rng.standard_normal((2, 3, 32, 32))
    direction = rng.standard_normal(x.shape)
    steps = {key: rng.standard_normal(p.shape) * 0.1 for key, p in model.named_parameters()}
    y = model(x)
    grad = rng.standard_normal(y.shape)
    slope = np.vdot(model.backward(grad), direction)
    slope += sum(np.vdot(p.grad, steps[key]) for key, p in model.named_parameters())
    start = {key: p.data.copy() for key, p in model.named_parameters()}

    def value(h):
        for key, parameter in model.named_parameters():
            parameter.data[...] = start[key] + h * steps[key]
        return np.vdot(model(x + h * direction), grad)

    # central differences: an error of h^2, and where a ReLU's kink lies within h, of h
    h = 1e-7
    np.testing.assert_allclose((value(h) - value(-h)) / (2 * h), slope, rtol=1e-4)


# --- against torch, where it is installed ---------------------------------------------------------


def torch_mobilenet(state, x):
    """The forward written out by torchvision's key names."""
    from torch.nn import functional as F

    def norm(y, name):
        keys = ("running_mean", "running_var", "weight", "bias")
        return F.batch_norm(y, *(state[f"{name}.{key}"] for key in keys))

    def conv(y, name, index, **options):
        return norm(F.conv2d(y, state[f"{name}.{index}.weight"], **options), f"{name}.{index + 1}")

    y = F.relu6(conv(x, "features.0", 0, stride=2, padding=1))
    strides = [1, 2, 1, 2, 1, 1, 2, 1, 1, 1, 1, 1, 1, 2, 1, 1, 1]
    for i, stride in enumerate(strides, start=1):
        name, skip = f"features.{i}.conv", y
        expands = i > 1
        if expands:
            y = F.relu6(conv(y, f"{name}.0", 0))
        wide = y.shape[1]
        y = F.relu6(conv(y, f"{name}.{int(expands)}", 0, stride=stride, padding=1, groups=wide))
        y = conv(y, name, 1 + expands)
        y = y + skip if stride == 1 and y.shape == skip.shape else y
    y = F.relu6(conv(y, "features.18", 0)).mean((2, 3))
    return F.linear(y, state["classifier.1.weight"], state["classifier.1.bias"])


def torch_vgg(state, x, name, norm):
    from torch.nn import functional as F

    y, index = x, 0
    for width in VGG_FEATURES[name]:
        if width == 0:
            y, index = F.max_pool2d(y, 2), index + 1
            continue
        key = f"features.{index}"
        y = F.conv2d(y, state[f"{key}.weight"], state[f"{key}.bias"], padding=1)
        if norm:
            keys = ("running_mean", "running_var", "weight", "bias")
            y = F.batch_norm(y, *(state[f"features.{index + 1}.{k}"] for k in keys))
        y, index = F.relu(y), index + 2 + norm
    y = F.adaptive_avg_pool2d(y, 7).flatten(1)
    for i in (0, 3, 6):
        y = F.linear(y, state[f"classifier.{i}.weight"], state[f"classifier.{i}.bias"])
        y = F.relu(y) if i < 6 else y
    return y


@pytest.mark.parametrize("name", ["mobilenet_v2", "vgg11", "vgg11_bn", "vgg16"])
def test_forward_against_torch(name, small):
    torch = pytest.importorskip("torch")
    model = small(name).eval()
    state = {key: torch.from_numpy(array) for key, array in model.state_dict().items()}
    x = np.random.default_rng(3).standard_normal((2, 3, 64, 64))
    if name == "mobilenet_v2":
        expected = torch_mobilenet(state, torch.from_numpy(x))
    else:
        base = name.removesuffix("_bn")
        expected = torch_vgg(state, torch.from_numpy(x), base, name.endswith("_bn"))
    y = model(x)
    # 53 layers in float64, each with errors below 1e-14 of its scale (Winograd included)
    np.testing.assert_allclose(y, expected.numpy(), rtol=0, atol=1e-12 * np.abs(y).max())
