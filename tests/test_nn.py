"""Layers: gradients by random projection in float64, protocol, modes, state, printing."""

import copy
import doctest
import inspect
import pickle
import threading

import numpy as np
import pytest

import fastconv
from fastconv import functional as F
from fastconv import nn

# Central differences with h = eps^(1/3) err by about h^2 = eps^(2/3) times a third derivative.
H = float(np.finfo(np.float64).eps ** (1 / 3))
GRADIENT_TOLERANCE = 100 * H**2


def projection_check(model, x, seed=0, check_input=True):
    """<u, J v> by central differences == <J^T u, v>, for the input and every parameter."""
    rng = np.random.default_rng(seed)
    model.zero_grad()
    u = rng.standard_normal(model(x).shape)
    grad_x = model.backward(u)
    targets = [(p.data, p.grad) for p in model.parameters()]
    if check_input:
        x = x.copy()
        targets.append((x, grad_x))
    for array, grad in targets:
        assert grad.shape == array.shape
        assert grad.dtype == array.dtype
        v = rng.standard_normal(array.shape)
        saved, values = array.copy(), []
        for sign in (1, -1):
            array[...] = saved + sign * H * v
            values.append(np.vdot(u, model(x)))
        array[...] = saved
        numeric = (values[0] - values[1]) / (2 * H)
        # rounding of the two values, amplified by 1 / 2h, is eps^(2/3) again
        scale = abs(values[0]) + np.linalg.norm(grad) * np.linalg.norm(v)
        assert abs(numeric - np.vdot(grad, v)) <= GRADIENT_TOLERANCE * scale
    model.release()


f64 = {"dtype": np.float64}
seeded = {"rng": 5, "dtype": np.float64}
LAYERS = [
    (nn.Conv1d(4, 6, 3, stride=2, padding=1, groups=2, **seeded), (2, 4, 9)),
    (nn.Conv1d(3, 2, 4, padding="causal", dilation=2, bias=False, **seeded), (2, 3, 9)),
    (nn.Conv2d(3, 4, 3, **seeded), (2, 3, 6, 5)),
    (nn.Conv2d(4, 4, (3, 2), (2, 1), ((1, 0), (2, 1)), groups=4, **seeded), (2, 4, 6, 5)),
    (nn.Conv2d(2, 3, 3, padding="same", bias=False, **seeded), (1, 2, 5, 5)),
    *(
        (nn.Conv2d(2, 3, 3, padding=1, padding_mode=mode, **seeded), (1, 2, 5, 4))
        for mode in ("reflect", "replicate", "circular", "symmetric")
    ),
    (nn.ConvTranspose1d(4, 2, 3, stride=2, padding=1, output_padding=1, **seeded), (2, 4, 5)),
    (nn.ConvTranspose2d(2, 3, 3, 2, groups=1, dilation=2, **seeded), (2, 2, 3, 4)),
    (nn.MaxPool1d(3, 2, 1), (2, 3, 8)),
    (nn.MaxPool2d(2, ceil_mode=True), (2, 3, 7, 5)),
    (nn.AvgPool1d(3, 2, 1), (2, 3, 8)),
    (nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False), (2, 3, 6, 5)),
    (nn.AdaptiveAvgPool1d(3), (2, 3, 8)),
    (nn.AdaptiveAvgPool2d((2, None)), (2, 3, 7, 5)),
    (nn.AdaptiveMaxPool1d(3), (2, 3, 8)),
    (nn.AdaptiveMaxPool2d(2), (2, 3, 7, 5)),
    (nn.BatchNorm1d(3, **f64), (6, 3)),
    (nn.BatchNorm1d(3, momentum=None, **f64), (4, 3, 5)),
    (nn.BatchNorm2d(3, affine=False, track_running_stats=False, **f64), (3, 3, 4, 4)),
    (nn.Linear(5, 4, **seeded), (3, 2, 5)),
    (nn.Linear(5, 4, bias=False, **seeded), (3, 5)),
    (nn.Flatten(), (2, 3, 4, 5)),
    (nn.Flatten(0, 1), (2, 3, 4)),
    (nn.ReLU(), (3, 7)),
    (nn.LeakyReLU(0.2), (3, 7)),
    (nn.ReLU6(), (3, 7)),
    (nn.Sigmoid(), (3, 7)),
    (nn.Tanh(), (3, 7)),
    (nn.GELU(), (3, 7)),
    (nn.GELU("tanh"), (3, 7)),
    (nn.SiLU(), (3, 7)),
    (nn.Identity(3, key=1), (3, 7)),
    (nn.Dropout(0.0), (3, 7)),
    (nn.Softmax(1), (3, 7)),
    (nn.Softmax(1), (2, 3, 4, 2)),
    (nn.LogSoftmax(dim=-1), (3, 7)),
    (nn.ZeroPad2d((1, 0, 2, -1)), (2, 3, 4, 5)),
    (nn.ReflectionPad2d(2), (2, 3, 4, 5)),
    (nn.Unflatten(1, (2, -1, 2)), (3, 12, 2)),
]
each_layer = pytest.mark.parametrize(
    ("layer", "shape"),
    LAYERS,
    ids=[f"{i}-{type(layer).__name__}" for i, (layer, _) in enumerate(LAYERS)],
)


@pytest.fixture
def rng():
    return np.random.default_rng(1234)


def small_resnet(rng=0):
    """Two residual blocks, one with a projection, in the style of models.resnet."""

    def conv(inputs, outputs, kernel, stride=1):
        return nn.Conv2d(
            inputs, outputs, kernel, stride, kernel // 2, bias=False, rng=rng, dtype=np.float64
        )

    def body(inputs, width, stride):
        return {
            "conv1": conv(inputs, width, 3, stride),
            "bn1": nn.BatchNorm2d(width, **f64),
            "relu": nn.ReLU(inplace=True),
            "conv2": conv(width, width, 3),
            "bn2": nn.BatchNorm2d(width, **f64),
        }

    rng = np.random.default_rng(rng)
    shortcut = nn.Sequential(conv(4, 6, 1, 2), nn.BatchNorm2d(6, **f64))
    return nn.Sequential(
        {
            "conv1": conv(2, 4, 3),
            "bn1": nn.BatchNorm2d(4, **f64),
            "relu": nn.ReLU(inplace=True),
            "maxpool": nn.MaxPool2d(2),
            "layer1": nn.Sequential(nn.Residual(body(4, 4, 1), None, nn.ReLU(inplace=True))),
            "layer2": nn.Sequential(nn.Residual(body(4, 6, 2), shortcut, nn.ReLU(inplace=True))),
            "avgpool": nn.AdaptiveAvgPool2d(1),
            "flatten": nn.Flatten(),
            "fc": nn.Linear(6, 3, rng=rng, **f64),
        }
    )


# --- gradients -----------------------------------------------------------------------------------


@each_layer
def test_gradients_by_projection(layer, shape, rng):
    projection_check(layer.train(), 2 * rng.standard_normal(shape))


@each_layer
def test_output_shape_is_forwards_shape(layer, shape, rng):
    assert layer.output_shape(shape) == layer.eval()(rng.standard_normal(shape)).shape


REFUSED = [
    (nn.ConvTranspose2d(1, 24, 2, padding=1), (5, 1, 1, 1), "leaves no output"),
    (nn.ConvTranspose2d(3, 5, 2, stride=2, padding=3), (2, 3, 3, 1), "leaves no output"),
    (nn.Conv2d(1, 2, 3), (1, 1, 2, 5), "leaves no output"),
    (nn.Conv2d(1, 2, 3, padding=1, padding_mode="reflect"), (1, 1, 5, 1), "too large for mode"),
    (nn.Conv1d(1, 2, 3, padding=2, padding_mode="circular"), (1, 1, 1), "too large for mode"),
]


@pytest.mark.parametrize(("layer", "shape", "text"), REFUSED, ids=str)
def test_what_forward_refuses_no_plan_promises(layer, shape, text):
    for call in (
        lambda: layer.output_shape(shape),
        lambda: layer.macs(shape),
        lambda: fastconv.compile(layer, shape),
    ):
        with pytest.raises(ValueError, match=text):
            call()
    with pytest.raises(ValueError, match="conv"):
        layer(np.zeros(shape, np.float32))


@pytest.mark.parametrize("norm", [nn.BatchNorm1d(3, **f64), nn.BatchNorm2d(3, **f64)])
def test_eval_with_backward_uses_running_statistics(norm, rng):
    shape = (4, 3, 5, 6)[: max(norm.ranks)]
    norm.running_mean[:] = rng.standard_normal(3)
    norm.running_var[:] = rng.uniform(0.5, 2, 3)
    projection_check(norm.eval(backward=True), rng.standard_normal(shape))
    assert int(norm.num_batches_tracked) == 0


def test_small_resnet_gradients(rng):
    projection_check(small_resnet(), rng.standard_normal((2, 2, 8, 8)))


@pytest.mark.parametrize(
    ("loss", "target"),
    [
        (nn.CrossEntropyLoss(label_smoothing=0.1), np.array([0, 2, 1, 2])),
        (nn.CrossEntropyLoss(weight=np.array([1.0, 2, 3]), ignore_index=1), np.array([0, 2, 1, 2])),
        (nn.CrossEntropyLoss(reduction="none"), np.array([0, 2, 1, 2])),
        (nn.BCEWithLogitsLoss(pos_weight=np.array([1.0, 2, 3])), np.eye(4, 3)),
        (nn.BCEWithLogitsLoss(reduction="sum"), np.eye(4, 3)),
        (nn.MSELoss(), np.eye(4, 3)),
        (nn.MSELoss(reduction="none"), np.eye(4, 3)),
    ],
)
def test_loss_gradients(loss, target, rng):
    x, v = rng.standard_normal((2, 4, 3))
    value = loss(x, target)
    u = rng.standard_normal(np.shape(value)) if loss.reduction == "none" else 1.0
    grad = loss.backward(u) if loss.reduction == "none" else loss.backward()
    high, low = (np.vdot(u, loss(x + h * v, target)) for h in (H, -H))
    assert abs((high - low) / (2 * H) - np.vdot(grad, v)) <= GRADIENT_TOLERANCE * (1 + abs(high))


def test_loss_reduction_none_needs_a_gradient():
    loss = nn.MSELoss(reduction="none")
    loss(np.zeros(3), np.ones(3))
    with pytest.raises(ValueError, match="pass grad"):
        loss.backward()


def test_class_weights_take_the_inputs_dtype():
    loss = nn.CrossEntropyLoss(weight=[1, 2, 3])
    x = np.eye(3, dtype=np.float32)
    assert np.asarray(loss(x, np.arange(3))).dtype == np.float32
    assert loss.backward().dtype == np.float32
    assert list(loss.state_dict()) == ["weight"]


def test_gradients_accumulate_and_zero_grad_forgets(rng):
    layer, x, g = nn.Linear(4, 3, **seeded), rng.standard_normal((5, 4)), np.ones((5, 3))
    layer(x)
    layer.backward(g)
    once = layer.weight.grad.copy()
    layer(x)
    layer.backward(g)
    np.testing.assert_array_equal(layer.weight.grad, 2 * once)
    layer.zero_grad()
    assert layer.weight.grad is None
    assert layer.bias.grad is None


def test_shared_parameter_gets_both_gradients(rng):
    first, second = nn.Linear(4, 4, **seeded), nn.Linear(4, 4, **seeded)
    second.weight, second.bias = first.weight, first.bias
    model = nn.Sequential(first, nn.Tanh(), second)
    assert len(list(model.parameters())) == 2
    assert list(model.state_dict()) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    projection_check(model, rng.standard_normal((3, 4)))


def test_backward_leaves_the_given_gradient_alone(rng):
    model, x = small_resnet(), rng.standard_normal((2, 2, 8, 8))
    grad = rng.standard_normal(model(x).shape)
    before = grad.copy()
    model.backward(grad)
    np.testing.assert_array_equal(grad, before)


# --- the gradient of the input left out ----------------------------------------------------------


def test_backward_parameters_gives_the_same_gradients(rng):
    x, grad = rng.standard_normal((2, 2, 8, 8)), rng.standard_normal((2, 3))
    full, short = small_resnet(), small_resnet()
    full(x)
    full.backward(grad)
    short(x)
    assert short.backward_parameters(grad) is None
    for a, b in zip(full.parameters(), short.parameters(), strict=True):
        np.testing.assert_array_equal(a.grad, b.grad)
    assert all(module._saved is None for module in short.modules())


def test_backward_parameters_of_the_first_layer_computes_no_input_gradient(monkeypatch, rng):
    masks = []

    def spy(*args, output_mask, **kwargs):
        masks.append(output_mask)
        return F.conv2d_backward(*args, output_mask=output_mask, **kwargs)

    monkeypatch.setattr(nn.Conv2d, "gradient", staticmethod(spy))
    model = nn.Sequential(
        nn.Identity(), nn.Conv2d(2, 3, 3, rng=0), nn.ReLU(), nn.Conv2d(3, 2, 3, bias=False, rng=0)
    )
    y = model(np.ones((1, 2, 6, 6), np.float32))
    model.backward_parameters(np.ones_like(y))
    assert masks == [(True, True, False), (False, True, True)]


def test_frozen_parameters_get_no_gradient_and_are_not_walked_back_to(rng):
    model = small_resnet()
    model.requires_grad_(False)
    model.fc.requires_grad_()
    model(rng.standard_normal((2, 2, 8, 8)))
    model.backward_parameters(np.ones((2, 3)))
    assert [name for name, p in model.named_parameters() if p.grad is not None] == [
        "fc.weight",
        "fc.bias",
    ]
    assert all(module._saved is None for module in model.modules())


def test_backward_parameters_works_for_a_users_module(rng):
    class Scale(nn.Module):
        def __init__(self):
            self.factor = nn.Parameter(np.array([2.0]))

        def forward(self, x):
            self._keep(x)
            return x * self.factor.data

        def backward(self, grad):
            (x,) = self._take()
            self.factor.accumulate(np.array([np.vdot(grad, x)]))
            return grad * self.factor.data

    model = nn.Sequential(Scale(), nn.Tanh())
    projection_check(model, rng.standard_normal((3, 2)))
    model(np.ones((1, 2)))
    model.backward_parameters(np.ones((1, 2)))
    assert model[0].factor.grad.shape == (1,)
    assert list(model.state_dict()) == ["0.factor"]
    assert model.output_shape((5, 2)) == (5, 2)


# --- protocol ------------------------------------------------------------------------------------


@each_layer
def test_backward_before_forward_is_a_clear_error(layer, shape, rng):
    if isinstance(layer, nn.Identity):
        pytest.skip("Identity keeps nothing")
    layer = copy.deepcopy(layer).train()
    layer.release()
    with pytest.raises(RuntimeError, match=f"{type(layer).__name__}.backward: forward kept"):
        layer.backward(np.ones(shape))
    y = layer(rng.standard_normal(shape))
    layer.backward(np.ones_like(y))
    with pytest.raises(RuntimeError, match="once per forward"):
        layer.backward(np.ones_like(y))


@each_layer
def test_eval_keeps_nothing(layer, shape, rng):
    layer = copy.deepcopy(layer).train()
    x = rng.standard_normal(shape)
    layer(x)
    layer.eval()
    assert layer._saved is None
    layer(x)
    assert layer._saved is None


def test_one_layer_twice_in_a_model_is_refused_at_the_second_backward(rng):
    shared = nn.Linear(3, 3, **seeded)
    model = nn.Sequential(shared, nn.Tanh(), shared)
    model(rng.standard_normal((2, 3)))
    with pytest.raises(RuntimeError, match="two layers sharing a Parameter"):
        model.backward(np.ones((2, 3)))


def test_train_and_eval_reach_every_layer():
    model = small_resnet()
    model.eval()
    assert not any(module.training or module.recording for module in model.modules())
    model.train()
    assert all(module.training and module.recording for module in model.modules())
    model.train(False)
    assert not any(module.training for module in model.modules())
    model.eval(backward=True)
    assert all(module.recording and not module.training for module in model.modules())


def test_inplace_activations_give_the_same_and_write_over_their_input(rng):
    x, grad = rng.standard_normal((2, 50)) * 4
    for kind in (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.SiLU):
        plain, inplace = kind(), kind(inplace=True)
        mine = x.copy()
        np.testing.assert_array_equal(inplace(mine), plain(x))
        np.testing.assert_array_equal(inplace.backward(grad), plain.backward(grad))
        if kind is nn.SiLU:
            np.testing.assert_array_equal(mine, x)
            inplace.eval()
            inplace(mine)
        np.testing.assert_array_equal(mine, plain(x))


def test_eval_from_many_threads(rng):
    model, x = small_resnet().eval(), rng.standard_normal((2, 2, 8, 8))
    expected, results = model(x), []
    threads = [threading.Thread(target=lambda: results.append(model(x))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 8
    assert all(np.array_equal(result, expected) for result in results)


# --- batch norm and dropout ----------------------------------------------------------------------


def test_batch_norm_running_statistics(rng):
    x = rng.standard_normal((4, 3, 5, 5))
    mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), ddof=1)
    fixed, cumulative = nn.BatchNorm2d(3, **f64), nn.BatchNorm2d(3, momentum=None, **f64)
    tolerance = 100 * 4 * np.finfo(np.float64).eps
    fixed(x)
    np.testing.assert_allclose(fixed.running_mean, 0.1 * mean, rtol=tolerance)
    np.testing.assert_allclose(fixed.running_var, 0.9 + 0.1 * var, rtol=tolerance)
    cumulative(x)
    cumulative(3 * x)
    np.testing.assert_allclose(cumulative.running_mean, 2 * mean, rtol=tolerance)
    assert int(cumulative.num_batches_tracked) == 2
    before = fixed.running_mean.copy()
    fixed.eval()(x)
    np.testing.assert_array_equal(fixed.running_mean, before)
    assert int(fixed.num_batches_tracked) == 1


def test_sizes_may_be_lists_as_in_torch():
    assert nn.AdaptiveAvgPool2d([2, None]).output_size == (2, None)
    assert nn.AdaptiveMaxPool1d([np.int64(3)]).output_size == (3,)
    assert nn.Conv2d(3, 4, [3, np.int64(5)], stride=[2, 1]).kernel_size == (3, 5)
    assert nn.MaxPool2d([2, 2], padding=[1, 0]).padding == (1, 0)


def test_batch_norm_refuses_other_ranks_and_channels():
    with pytest.raises(ValueError, match=r"BatchNorm2d: input must have 4 axes and 3 channels"):
        nn.BatchNorm2d(3)(np.zeros((2, 3), np.float32))
    with pytest.raises(ValueError, match=r"got shape \(2, 4, 5\)"):
        nn.BatchNorm1d(3)(np.zeros((2, 4, 5), np.float32))


def test_dropout(rng):
    x = np.ones((1000, 30), np.float32)
    layer = nn.Dropout(0.25, rng=3)
    y = layer(x)
    assert y.dtype == np.float32
    assert set(np.unique(y)) == {np.float32(0), np.float32(1 / 0.75)}
    # the number of zeros is binomial: 5 standard deviations
    assert abs((y == 0).mean() - 0.25) < 5 * np.sqrt(0.25 * 0.75 / x.size)
    np.testing.assert_array_equal(layer.backward(x), y)
    np.testing.assert_array_equal(nn.Dropout(0.25, rng=3)(x), y)
    assert layer.eval()(x) is x
    np.testing.assert_array_equal(nn.Dropout(1.0)(x), 0 * x)
    with pytest.raises(ValueError, match="between 0 and 1"):
        nn.Dropout(1.5)


def test_rng_state_resumes_dropout_exactly():
    x = np.ones((4, 8), np.float32)
    model = nn.Sequential(nn.Dropout(rng=1), nn.Sequential(nn.Dropout(0.3, rng=2)))
    model(x)
    state = copy.deepcopy(nn.rng_state(model))
    assert list(state) == ["0", "1.0"]
    expected = model(x)
    nn.set_rng_state(model, state)
    np.testing.assert_array_equal(model(x), expected)
    with pytest.raises(ValueError, match="set_rng_state"):
        nn.set_rng_state(model, {})


# --- initialisation ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "fan_in"),
    [
        (nn.Conv2d(16, 64, 3, rng=0), 144),
        (nn.Conv1d(32, 64, 5, groups=2, rng=0), 80),
        (nn.ConvTranspose2d(64, 16, 3, rng=0), 144),
        (nn.Linear(128, 256, rng=0), 128),
    ],
)
def test_default_initialisation(layer, fan_in):
    bound = 1 / np.sqrt(fan_in)
    for array in (layer.weight.data, layer.bias.data):
        n = array.size
        assert np.abs(array).max() <= np.float32(bound)
        assert np.abs(array).max() > bound * (1 - 20 / n)
        # var of a uniform is bound^2 / 3; its estimate from n draws has relative std sqrt(4/5/n)
        assert abs(array.var() / (bound**2 / 3) - 1) < 5 * np.sqrt(0.8 / n)
        assert abs(array.mean()) < 5 * bound / np.sqrt(3 * n)


def test_seeds_give_the_same_weights_in_both_dtypes():
    one, two = nn.Conv2d(3, 4, 3, rng=7), nn.Conv2d(3, 4, 3, rng=7, dtype=np.float64)
    np.testing.assert_array_equal(one.weight.data, two.weight.data.astype(np.float32))
    assert one.weight.dtype == np.float32
    generator = np.random.default_rng(7)
    np.testing.assert_array_equal(nn.Conv2d(3, 4, 3, rng=generator).bias.data, one.bias.data)


def test_large_weights_are_drawn_in_parts_of_one_stream():
    shape = (5, 3, 100_000)
    drawn = nn.init.normal_(np.empty(shape, np.float32), 0.5, 2.0, rng=3)
    whole = np.random.default_rng(3).normal(0.5, 2.0, shape)
    np.testing.assert_array_equal(drawn, whole.astype(np.float32))


@pytest.mark.parametrize(
    ("function", "std"),
    [
        (lambda p: nn.init.kaiming_normal_(p, mode="fan_out", nonlinearity="relu", rng=1), 1 / 24),
        (lambda p: nn.init.kaiming_uniform_(p, nonlinearity="relu", rng=1), np.sqrt(2 / 288)),
        (lambda p: nn.init.xavier_normal_(p, rng=1), np.sqrt(2 / (288 + 1152))),
        (lambda p: nn.init.xavier_uniform_(p, gain=2.0, rng=1), 2 * np.sqrt(2 / (288 + 1152))),
        (lambda p: nn.init.normal_(p, 0.0, 0.3, rng=1), 0.3),
        (lambda p: nn.init.uniform_(p, -1.0, 1.0, rng=1), np.sqrt(1 / 3)),
    ],
)
def test_init_functions(function, std):
    weight = nn.Parameter(np.zeros((128, 32, 3, 3), np.float32))
    assert function(weight) is weight
    assert abs(weight.data.std() / std - 1) < 5 * np.sqrt(0.5 / weight.size)


def test_init_refuses_unknown_names():
    with pytest.raises(ValueError, match="nonlinearity must be one of"):
        nn.init.calculate_gain("swish")
    with pytest.raises(ValueError, match="fan_in"):
        nn.init.kaiming_normal_(np.zeros((2, 2)), mode="fan")
    with pytest.raises(TypeError, match="rng must be"):
        nn.Linear(2, 2, rng="0")
    with pytest.raises(TypeError, match="float32 or float64"):
        nn.Linear(2, 2, dtype=np.float16)


# --- a module of one's own -----------------------------------------------------------------------


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


# --- containers, arguments, printing -------------------------------------------------------------


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


@pytest.mark.parametrize("channels_last", [False, True])
def test_memory_format_changes_no_value(channels_last, rng):
    """A channels-last view gives the numbers of a contiguous array, forward and backward."""
    x = rng.standard_normal((2, 2, 8, 8))
    plain, other = small_resnet(), small_resnet()
    view = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    grad = rng.standard_normal((2, 3))
    # the sums run in another order: eps times the square root of some 100 terms, through 6 layers
    tolerance = 6 * 10 * np.finfo(np.float64).eps * 16
    y = plain(x)
    np.testing.assert_allclose(other(view if channels_last else x), y, rtol=0, atol=tolerance)
    grad_x, grad_view = plain.backward(grad), other.backward(grad)
    scale = np.abs(grad_x).max()
    np.testing.assert_allclose(grad_view, grad_x, rtol=0, atol=tolerance * scale)
