"""Models: parameter counts, outputs, summary, registry."""

from fractions import Fraction

import numpy as np
import pytest

from fastconv import models, nn

PARAMETERS = {
    "logistic_regression": 785,
    "softmax_regression": 7_850,
    "lenet5": 61_706,
    "resnet8": 308_650,
    "resnet20": 269_722,
    "resnet32": 464_154,
    "resnet44": 658_586,
    "resnet56": 853_018,
    "resnet110": 1_727_962,
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
}
# torchvision's documentation, GFLOPS column (multiply-accumulates / 1e9, two decimals)
GMACS = {"resnet18": 1.81, "resnet34": 3.66, "resnet50": 4.09, "resnet101": 7.80}


@pytest.mark.parametrize("name", [n for n in PARAMETERS if n not in ("resnet101", "resnet152")])
def test_parameter_counts(name):
    model = models.create(name, rng=0)
    assert sum(p.size for p in model.parameters()) == PARAMETERS[name]


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50"])
def test_macs_are_the_published_ones(name):
    report = models.summary(models.create(name, rng=0), (3, 224, 224))
    assert round(report.macs / 1e9, 2) == GMACS[name]
    assert report.parameters == PARAMETERS[name]


@pytest.mark.parametrize(
    ("name", "shape", "classes"),
    [
        ("logistic_regression", (1, 28, 28), 1),
        ("softmax_regression", (1, 28, 28), 10),
        ("mlp", (1, 28, 28), 10),
        ("lenet5", (1, 28, 28), 10),
        ("resnet20", (3, 16, 16), 10),
        ("resnet1d", (1, 40), 10),
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_forward_and_backward(name, shape, classes, dtype):
    model = models.create(name, rng=0, dtype=dtype)
    x = np.random.default_rng(0).standard_normal((2, *shape)).astype(dtype)
    y = model(x)
    assert y.shape == (2, classes) == model.output_shape(x.shape)
    assert y.dtype == dtype
    assert model.backward(np.ones_like(y)).shape == x.shape
    for key, parameter in model.named_parameters():
        assert parameter.grad.shape == parameter.shape, key
        assert parameter.grad.dtype == dtype, key
        assert np.isfinite(parameter.grad).all(), key
    assert all(module._saved is None for module in model.modules())


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_imagenet_resnet_runs_on_small_images(name):
    model = models.create(name, num_classes=5, rng=0).eval()
    y = model(np.ones((1, 3, 32, 32), np.float32))
    assert y.shape == (1, 5)
    assert np.isfinite(y).all()


def test_channels_and_image_sizes():
    x = np.zeros((1, 3, 32, 32), np.float32)
    for name in ("lenet5", "mlp", "softmax_regression"):
        model = models.create(name, num_classes=4, in_channels=3, image_size=32, rng=0)
        assert model(x).shape == (1, 4)
    assert models.resnet20(4, 1, rng=0)(x[:, :1]).shape == (1, 4)
    assert models.softmax_regression(3, in_features=4)(np.zeros((2, 4), np.float32)).shape == (2, 3)
    assert models.mlp(2, hidden=(), in_features=4)(np.zeros((2, 4), np.float32)).shape == (2, 2)
    assert [type(layer).__name__ for layer in models.mlp(hidden=(8,), dropout=0.5)] == [
        "Flatten",
        "Linear",
        "ReLU",
        "Dropout",
        "Linear",
    ]
    with pytest.raises(ValueError, match="image_size must be at least 16"):
        models.lenet5(image_size=12)


def test_a_seed_fixes_the_weights():
    one, two = models.resnet20(rng=3).state_dict(), models.resnet20(rng=3).state_dict()
    assert all(np.array_equal(one[key], two[key]) for key in one)
    other = models.resnet20(rng=np.random.default_rng(4)).state_dict()
    assert not np.array_equal(one["fc.weight"], other["fc.weight"])
    # one generator runs through the network: no two layers start alike
    assert not np.array_equal(one["layer1.0.conv1.weight"], one["layer1.0.conv2.weight"])


def test_resnet_weights_are_he_normal_over_fan_out():
    weight = models.resnet18(rng=0)["layer3"][0].conv2.weight.data
    assert abs(weight.std() / np.sqrt(2 / (256 * 9)) - 1) < 5 * np.sqrt(0.5 / weight.size)


@pytest.mark.parametrize("channels_last", [False, True])
def test_option_a_shortcut(channels_last):
    x = np.random.default_rng(0).standard_normal((2, 3, 5, 4))
    if channels_last:
        x = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    layer = models.resnet20(rng=0).layer2[0].downsample.__class__(5)
    y = layer(x)
    assert y.shape == layer.output_shape(x.shape) == (2, 5, 3, 2)
    np.testing.assert_array_equal(y[:, :3], x[:, :, ::2, ::2])
    assert not y[:, 3:].any()
    assert (y.strides[1] == y.itemsize) == channels_last
    grad = np.random.default_rng(1).standard_normal(y.shape)
    grad_x = layer.backward(grad)
    np.testing.assert_array_equal(grad_x[:, :, ::2, ::2], grad[:, :3])
    assert np.count_nonzero(grad_x) == grad[:, :3].size
    with pytest.raises(ValueError, match="C <= 5"):
        layer(np.zeros((1, 6, 2, 2)))


# --- registry ------------------------------------------------------------------------------------


def test_registry():
    assert set(models.names()) <= set(models.__all__)
    assert {"lenet5", "resnet20", "resnet50", "resnet1d", "mlp"} <= set(models.names())
    assert models.options("resnet20") == {
        "num_classes": 10,
        "in_channels": 3,
        "rng": None,
        "dtype": np.float32,
    }
    with pytest.raises(
        ValueError, match=r"no model named 'resnet19'; there are .*resnet20, resnet32"
    ):
        models.create("resnet19")
    with pytest.raises(TypeError, match="create: lenet5 takes no 'depth'; it takes num_classes"):
        models.create("lenet5", depth=3)
    with pytest.raises(ValueError, match=r"resnet: depth must be one of \[18, 34"):
        models.resnet(20)


# --- summary -------------------------------------------------------------------------------------


def test_summary_of_lenet():
    report = models.summary(models.lenet5(rng=0), (1, 28, 28))
    rows = {row.name: row for row in report.layers}
    assert rows["conv1"].macs == 6 * 28 * 28 * 25
    assert rows["pool2"].output_shape == (16, 5, 5)
    assert rows["pool2"].field.size == (16, 16)
    assert rows["pool2"].field.stride == (4, 4)
    assert rows["fc1"].field.whole
    assert report.macs == 6 * 28 * 28 * 25 + 16 * 100 * 150 + 400 * 120 + 120 * 84 + 840
    lines = str(report).splitlines()
    assert " ".join(lines[0].split()) == "layer type output shape parameters MACs field stride"
    assert " ".join(lines[2].split()) == "conv1 Conv2d (6, 28, 28) 156 117.6 k 5 1"
    assert "parameters   61,706" in lines
    assert max(map(len, lines)) <= 80


def test_summary_depth_limits_the_rows_not_the_totals():
    model = models.resnet20(rng=0)
    short = models.summary(model, (3, 32, 32), depth=1)
    assert [row.name for row in short.layers] == [name for name, _ in model.named_children()]
    assert short.macs == models.summary(model, (3, 32, 32)).macs
    assert short.parameters == 269_722


def test_receptive_fields():
    rows = {r.name: r for r in models.summary(models.resnet18(rng=0), (3, 224, 224)).layers}
    # 11 after the pool, + 4 * 2 * 4, then per stage 2 * jump / 2 + 3 * 2 * jump, jump 8, 16, 32
    assert rows["layer4.1.activation"].field.size == (435, 435)
    assert rows["layer4.1.activation"].field.stride == (32, 32)
    assert rows["layer2.0.downsample.1"].field.size == (43, 43)
    assert rows["layer2.0"].parameters == 230_144
    up = nn.Sequential(nn.Conv2d(1, 1, 3, 2), nn.ConvTranspose2d(1, 1, (4, 2), 2))
    field = models.summary(up, (1, 9, 9)).layers[-1].field
    assert field.size == (5, 3)
    assert field.stride == (1, 1)
    alone = models.summary(nn.ConvTranspose1d(1, 1, 4, 2), (1, 9)).layers[0]
    assert alone.field.stride == (Fraction(1, 2),)
    assert alone.macs == 9 * 4


def test_receptive_field_is_what_the_gradient_reaches():
    model = nn.Sequential(
        nn.Conv2d(1, 1, (3, 5), (2, 1), rng=0, dtype=np.float64),
        nn.AvgPool2d((2, 3), (1, 2)),
        nn.Conv2d(1, 1, 3, dilation=(2, 1), rng=0, dtype=np.float64),
    )
    field = models.summary(model, (1, 40, 40)).layers[-1].field
    y = model(np.zeros((1, 1, 40, 40)))
    grad = np.zeros_like(y)
    grad[..., 3, 4] = 1
    reached = np.nonzero(model.backward(grad)[0, 0])
    assert tuple(np.ptp(axis) + 1 for axis in reached) == field.size


def test_summary_totals_frozen_and_unknown_layers():
    class Double(nn.Module):
        def forward(self, x):
            return np.concatenate([x, x], axis=1)

    model = nn.Sequential(nn.Linear(4, 6, rng=0), Double())
    model[0].bias.requires_grad = False
    report = models.summary(model, (4,))
    assert report.layers[1].output_shape == (12,)
    assert report.layers[1].field.whole
    assert "parameters   30 (6 frozen)" in str(report)
    assert report.parameter_bytes == 120
    assert model[0].training


def test_summary_of_a_single_layer_and_wrong_shape():
    assert [r.type for r in models.summary(nn.Conv2d(3, 4, 3), (3, 8, 8)).layers] == ["Conv2d"]
    with pytest.raises(ValueError, match=r"Conv2d: input must have 4 axes and 3 channels"):
        models.summary(models.resnet20(rng=0), (1, 32, 32))
    with pytest.raises(TypeError, match=r"summary: input_shape must be a tuple .* got int 28"):
        models.summary(nn.Conv2d(3, 4, 3), 28)
    with pytest.raises(ValueError, match="leaves no output"):
        models.summary(nn.Sequential(nn.Conv2d(3, 4, 9)), (3, 8, 8))
