"""Convolutions against PyTorch, where it is installed: random arguments, forward and gradients."""

import numpy as np
import pytest
from helpers import DTYPES, to_format, tolerance

import fastconv.functional as F

torch = pytest.importorskip("torch")


def pick(rng, *values):
    return values[rng.integers(len(values))]


def draw(seed):
    """Random shapes and arguments both libraries take: (axes, x shape, w shape, arguments)."""
    rng = np.random.default_rng(seed)
    axes = int(pick(rng, 1, 2, 2))
    groups = int(pick(rng, 1, 1, 1, 2, 3))
    c_in, c_out = (int(rng.integers(1, 14)) * groups for _ in range(2))
    if rng.random() < 0.2:
        groups = c_in
        c_out = c_in * int(rng.integers(1, 3))
    kernel = rng.integers(1, 6, axes)
    stride, dilation = rng.integers(1, 4, axes), rng.integers(1, 4, axes)
    pads = rng.integers(0, 4, axes)
    sizes = np.maximum(rng.integers(1, 20, axes), (kernel - 1) * dilation + 1 - 2 * pads)
    x_shape = (int(rng.integers(1, 5)), c_in, *map(int, sizes))
    w_shape = (c_out, c_in // groups, *map(int, kernel))
    arguments = {
        "stride": tuple(map(int, stride)),
        "padding": tuple(map(int, pads)),
        "dilation": tuple(map(int, dilation)),
        "groups": groups,
    }
    if rng.random() < 0.15:
        arguments["padding"] = "same"
        arguments["stride"] = (1,) * axes
    layout = pick(rng, "channels_first", "channels_last", "strided")
    return axes, x_shape, w_shape, arguments, DTYPES[rng.integers(2)], layout


def torch_results(name, g, arrays, arguments):
    tensors = [torch.tensor(np.ascontiguousarray(a), requires_grad=True) for a in arrays]
    y = getattr(torch.nn.functional, name)(*tensors, **arguments)
    grads = torch.autograd.grad(y, tensors, torch.tensor(np.ascontiguousarray(g)))
    return [t.detach().numpy() for t in (y, *grads)]


def check(name, seed, x_shape, w_shape, bias, arguments, dtype, layout):
    """Both sides round: each within tolerance, 8 times that for another algorithm than "direct"."""
    rng = np.random.default_rng(seed)
    forward, backward = getattr(F, name), getattr(F, f"{name}_backward")
    x, w, b = (rng.standard_normal(s).astype(dtype) for s in (x_shape, w_shape, bias))
    x = to_format(x, layout)
    y = forward(x, w, b, **arguments)
    g = to_format(rng.standard_normal(y.shape).astype(dtype), layout)
    ours = y, *backward(g, x, w, **arguments)
    theirs = torch_results(name, g, (x, w, b), arguments)
    x, w, b, g = (abs(a).astype(np.float64) for a in (x, w, b, g))
    sizes = forward(x, w, b, **arguments), *backward(g, x, w, **arguments)
    positions = x_shape[0] * max(x[0, 0].size, y[0, 0].size)
    terms = w.size + 1, w.size, positions, positions
    for mine, other, size, count in zip(ours, theirs, sizes, terms, strict=True):
        assert mine.shape == other.shape
        assert mine.dtype == other.dtype
        assert abs(mine - other).max() <= 9 * tolerance(count, dtype) * size.max()


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths:UserWarning")
@pytest.mark.parametrize("seed", range(200))
def test_conv(seed):
    axes, x_shape, w_shape, arguments, dtype, layout = draw(seed)
    check(f"conv{axes}d", seed, x_shape, w_shape, w_shape[:1], arguments, dtype, layout)


@pytest.mark.parametrize("seed", range(200, 300))
def test_conv_transpose(seed):
    axes, x_shape, w_shape, arguments, dtype, layout = draw(seed)
    rng = np.random.default_rng(seed)
    limits = np.maximum(arguments["stride"], arguments["dilation"])
    arguments["output_padding"] = tuple(int(rng.integers(limit)) for limit in limits)
    if arguments["padding"] == "same":
        arguments["padding"] = (0,) * axes
    spans = (np.array(w_shape[2:]) - 1) * arguments["dilation"] + 1 + arguments["output_padding"]
    full = (np.array(x_shape[2:]) - 1) * arguments["stride"] + spans
    arguments["padding"] = tuple(
        int(min(p, (size - 1) // 2)) for p, size in zip(arguments["padding"], full, strict=True)
    )
    w_shape = (x_shape[1], w_shape[0] // arguments["groups"], *w_shape[2:])
    bias = (w_shape[1] * arguments["groups"],)
    name = f"conv_transpose{axes}d"
    check(name, seed, x_shape, w_shape, bias, arguments, dtype, layout)


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
@pytest.mark.parametrize("axes", [1, 2])
def test_padding_modes(mode, axes):
    """Against torch's layer, which pads before it convolves."""
    rng = np.random.default_rng(axes)
    x = rng.standard_normal((2, 3, 9, 8)[: axes + 2])
    layer = getattr(torch.nn, f"Conv{axes}d")(3, 5, 3, padding=2, padding_mode=mode).double()
    w, b = layer.weight.detach().numpy(), layer.bias.detach().numpy()
    tensor = torch.tensor(x, requires_grad=True)
    theirs = layer(tensor)
    y = getattr(F, f"conv{axes}d")(x, w, b, padding=2, padding_mode=mode)
    bound = 9 * tolerance(w[0].size + 1, x.dtype) * abs(x).max() * abs(w[0]).sum()
    assert abs(y - theirs.detach().numpy()).max() <= bound
    g = rng.standard_normal(y.shape)
    grad, _, _ = getattr(F, f"conv{axes}d_backward")(g, x, w, padding=2, padding_mode=mode)
    (want,) = torch.autograd.grad(theirs, tensor, torch.tensor(g))
    # each border pixel is read up to 2**axes times
    assert abs(grad - want.numpy()).max() <= 2**axes * bound * abs(g).max() * y.shape[1]
