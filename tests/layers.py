"""Layers of every kind with a shape for each, a small network, and the check of their gradients."""

import numpy as np
import pytest

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
