"""The same calls in PyTorch, where it is installed: forward, gradients, indices, NaN and ties.

Every family draws its shapes and arguments from a seed: 24 calls of each by default, 240 more with
`-m long`. Whole numbers are held to equality, others to a bound from eps and the number of terms;
both libraries round, so a bound is twice that of one of them.
"""

import numpy as np
import pytest
from helpers import eps, tolerance
from torch_grid import NAN, TF, Draw, differentiate, same, tensor, torch

import fastconv.functional as F


def conv_arguments(draw):
    groups = draw.pick(1, 1, 1, 2, 3)
    c_in, c_out = (draw.one(1, 13) * groups for _ in range(2))
    if draw.chance(0.2):
        groups, c_out = c_in, c_in * draw.pick(1, 2)
    kernel, dilation = draw.ints(1, 5), draw.ints(1, 3)
    arguments = {"stride": draw.ints(1, 3), "dilation": dilation, "groups": groups}
    return c_in, c_out, kernel, arguments


def compare_conv(draw, name, arrays, arguments):
    """Exact on whole numbers with "direct", or within the bound of "auto"."""
    algorithm = {} if "transpose" in name else {"algorithm": "direct"}
    exact = draw.chance(0.5)
    if not exact:
        arrays = [draw.normal(a.shape) for a in arrays]
        algorithm = {}
    x, w, b = arrays
    y = draw.call(name, x, w, b, **arguments, **algorithm)
    g = draw.whole(y.shape) if exact else draw.normal(y.shape)
    back = name + "_backward"
    ours = y, *draw.call(back, g, x, w, **arguments, **algorithm)
    function = draw.torch(name)
    theirs = differentiate(lambda *leaves: function(*leaves, **arguments), arrays, g)
    if exact:
        return same(ours, theirs)
    size = [abs(a).astype(np.float64) for a in (x, w, b, g)]
    sizes = (
        draw.call(name, *size[:3], **arguments),
        *draw.call(back, size[3], *size[:2], **arguments),
    )
    positions = len(x) * max(x[0, 0].size, y[0, 0].size)
    terms = w.size + 1, w.size, positions, positions
    # one tolerance for torch and 8 for an algorithm other than "direct"
    bounds = [9 * tolerance(n, draw.dtype) * s.max() for n, s in zip(terms, sizes, strict=True)]
    return same(ours, theirs, bounds)


def conv(draw):
    c_in, c_out, kernel, arguments = conv_arguments(draw)
    pads = draw.ints(0, 3)
    least = [
        max(1, (k - 1) * d + 1 - 2 * p)
        for k, d, p in zip(kernel, arguments["dilation"], pads, strict=True)
    ]
    sizes = [max(n, m) for n, m in zip(draw.ints(1, 19), least, strict=True)]
    arguments["padding"] = pads
    if draw.chance(0.15):  # torch has "same" for stride 1 only
        arguments |= {"padding": "same", "stride": (1,) * draw.axes}
    x, w = draw.whole((draw.one(1, 4), c_in, *sizes)), (c_out, c_in // arguments["groups"], *kernel)
    compare_conv(draw, "conv#", [x, draw.whole(w), draw.whole((c_out,))], arguments)


def conv_transpose(draw):
    c_in, c_out, kernel, arguments = conv_arguments(draw)
    sizes = draw.ints(1, 9)
    steps = zip(arguments["stride"], arguments["dilation"], strict=True)
    extra = [draw.one(0, max(pair) - 1) for pair in steps]
    full = [
        (n - 1) * s + (k - 1) * d + 1 + e
        for n, s, k, d, e in zip(
            sizes, arguments["stride"], kernel, arguments["dilation"], extra, strict=True
        )
    ]
    pads = [min(p, (n - 1) // 2) for p, n in zip(draw.ints(0, 3), full, strict=True)]
    arguments |= {"padding": tuple(pads), "output_padding": tuple(extra)}
    x, w = draw.whole((draw.one(1, 3), c_in, *sizes)), (c_in, c_out // arguments["groups"], *kernel)
    compare_conv(draw, "conv_transpose#", [x, draw.whole(w), draw.whole((c_out,))], arguments)


def padding_modes(draw):
    """torch's layers pad before they convolve."""
    mode, kernel = draw.pick("reflect", "replicate", "circular"), draw.ints(1, 4)
    pads, c_in, c_out = draw.ints(0, 4), draw.one(1, 9), draw.one(1, 9)
    sizes = [max(5, n) for n in draw.ints(1, 12)]
    x, w, b = (
        draw.whole((2, c_in, *sizes)),
        draw.whole((c_out, c_in, *kernel)),
        draw.whole((c_out,)),
    )
    arguments = {"stride": draw.ints(1, 2), "padding": pads, "padding_mode": mode}
    y = draw.call("conv#", x, w, b, algorithm="direct", **arguments)
    g = draw.whole(y.shape)
    ours = y, *draw.call("conv#_backward", g, x, w, algorithm="direct", **arguments)
    layer = getattr(torch.nn, f"Conv{draw.axes}d")(c_in, c_out, kernel, **arguments)

    def forward(x, w, b):
        return layer._conv_forward(x, w, b)

    same(ours, differentiate(forward, [x, w, b], g))


def pool_arguments(draw, dilated):
    kernel = draw.ints(1, 5)
    dilation = draw.ints(1, 3) if dilated else (1,) * draw.axes
    arguments = {"kernel_size": kernel, "stride": draw.pick(None, draw.ints(1, 4))}
    arguments["padding"] = tuple(draw.one(0, k // 2) for k in kernel)
    arguments["ceil_mode"] = draw.chance(0.4)
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    sizes = [max(s, n) for s, n in zip(spans, draw.ints(1, 17), strict=True)]
    return (draw.one(1, 3), draw.one(1, 19), *sizes), arguments, dilation


def max_pool(draw):
    """Ties and NaN: values, indices and gradients are equal."""
    shape, arguments, arguments["dilation"] = pool = pool_arguments(draw, dilated=True)
    shape, arguments = pool[:2]
    x = draw.whole(shape, nan=draw.pick(0.0, 0.1, 0.6))
    x[..., -1] = draw.pick(-np.inf, np.inf, 0.0, -0.0)
    y, indices = draw.call("max_pool#", x, return_indices=True, **arguments)
    leaf = tensor(x, True)
    other, where = draw.torch("max_pool#")(leaf, return_indices=True, **arguments)
    g = draw.whole(y.shape)
    (grad,) = torch.autograd.grad(other, leaf, tensor(g))
    ours = y, indices, draw.call("max_pool#_backward", g, indices, shape)
    same(ours, [t.detach().numpy() for t in (other, where, grad)])


def avg_pool(draw):
    shape, arguments, _ = pool_arguments(draw, dilated=False)
    arguments["count_include_pad"] = draw.chance(0.5)
    if draw.axes == 2 and draw.chance(0.3):  # torch has no divisor_override in 1-D
        arguments["divisor_override"] = draw.one(1, 9)
    x = draw.whole(shape, nan=draw.pick(0.0, 0.0, 0.1))
    y = draw.call("avg_pool#", x, **arguments)
    g = draw.whole(y.shape)
    ours = y, draw.call("avg_pool#_backward", g, shape, **arguments)
    function = draw.torch("avg_pool#")
    most = 4 * np.prod(arguments["kernel_size"])  # whole numbers up to 4; sums of quotients
    bound = 4 * eps(draw.dtype) * most
    same(ours, differentiate(lambda leaf: function(leaf, **arguments), [x], g), bound)


def adaptive_pools(draw):
    shape = draw.one(1, 3), draw.one(1, 19), *draw.ints(1, 13)
    size = draw.ints(1, 13) if draw.chance(0.7) else draw.one(1, 6)
    x = draw.whole(shape, nan=draw.pick(0.0, 0.1))
    y, indices = draw.call("adaptive_max_pool#", x, size, return_indices=True)
    leaf = tensor(x, True)
    other, where = draw.torch("adaptive_max_pool#")(leaf, size, return_indices=True)
    g = draw.whole(y.shape)
    (grad,) = torch.autograd.grad(other, leaf, tensor(g))
    ours = y, indices, draw.call("adaptive_max_pool#_backward", g, indices, shape)
    same(ours, [t.detach().numpy() for t in (other, where, grad)])
    x = draw.whole(shape)
    mean = draw.call("adaptive_avg_pool#", x, size)
    ours = mean, draw.call("adaptive_avg_pool#_backward", g, shape)
    function = draw.torch("adaptive_avg_pool#")
    windows = np.prod([min(n, m) for n, m in zip(shape[2:], mean.shape[2:], strict=True)]) * 4
    bound = 4 * eps(draw.dtype) * max(windows, x[0, 0].size) * 4
    same(ours, differentiate(lambda leaf: function(leaf, size), [x], g), bound)


def max_unpool(draw):
    """Distinct positions: of duplicates torch keeps any."""
    kernel = draw.ints(1, 4)
    shape = (
        draw.one(1, 3),
        draw.one(1, 19),
        *(k * n for k, n in zip(kernel, draw.ints(1, 4), strict=True)),
    )
    x = draw.whole(shape)
    y, indices = draw.call("max_pool#", x, kernel, return_indices=True)
    larger = tuple(n + draw.one(0, k - 1) for n, k in zip(shape[2:], kernel, strict=True))
    flat = draw.axes == 1 or larger == shape[2:]
    size = draw.pick(None, larger) if flat else None
    up = draw.call("max_unpool#", y, indices, kernel, output_size=size)
    g = draw.whole(up.shape)
    ours = up, draw.call("max_unpool#_backward", g, indices)
    function, where = draw.torch("max_unpool#"), tensor(indices)
    theirs = differentiate(lambda leaf: function(leaf, where, kernel, output_size=size), [y], g)
    same(ours, theirs)


def pad(draw):
    """torch's modes other than constant take (N, C, ...) with one pair for each spatial axis."""
    mode = draw.pick("constant", "reflect", "replicate", "circular")
    shape = draw.one(1, 3), draw.one(1, 9), *draw.ints(1, 9)
    pads = []
    for size in reversed(shape[2:]):
        most = {"reflect": size - 1, "circular": size}.get(mode, 6)
        least = -((size - 1) // 2) if mode == "constant" else 0
        pads += [draw.one(least, most), draw.one(least, most)]
    x = draw.whole(shape, nan=0.1)
    value = draw.pick(0.0, 1.5, NAN) if mode == "constant" else 0.0
    y = F.pad(x, pads, mode, value)
    g = draw.whole(y.shape)
    ours = y, F.pad_backward(g, shape, pads, mode)
    given = {"value": value} if mode == "constant" else {}
    same(ours, differentiate(lambda leaf: TF.pad(leaf, pads, mode, **given), [x], g))


def batch_norm(draw):
    shape = (draw.one(2, 5), draw.one(1, 19), *draw.ints(1, 6, draw.one(0, 2)))
    x, training = draw.normal(shape), draw.chance(0.6)
    affine, tracked = draw.chance(0.7), not training or draw.chance(0.7)
    mean, var, w, b = (draw.normal(shape[1:2]) for _ in range(4))
    var = abs(var) + draw.dtype(0.1)
    options = {"training": training, "momentum": draw.pick(0.1, 0.5), "eps": draw.pick(1e-5, 1e-2)}
    running = [mean.copy(), var.copy()] if tracked else [None, None]
    theirs_running = [tensor(mean), tensor(var)] if tracked else [None, None]
    affines = (w, b) if affine else ()
    g = draw.normal(shape)
    grads = F.batch_norm_backward(g, x, *running, *(affines or (None, None)), **options)
    y = F.batch_norm(x, *running, *(affines or (None, None)), **options)
    ours = [y, *(grad for grad in grads if grad is not None)]
    theirs = differentiate(
        lambda leaf, *leaves: TF.batch_norm(leaf, *theirs_running, *leaves, **options),
        [x, *affines],
        g,
    )
    axes = (0, *range(2, x.ndim))
    spread = (x.astype(np.float64).var(axis=axes) if training else var) + options["eps"]
    count, gain = x[:, 0].size, (1 + 1 / np.sqrt(spread)).max()
    # the mean's rounding error, times the slope of the norm, times its own slope in the gradient
    bound = 8 * tolerance(count, draw.dtype) * gain**2 * (1 + abs(g).max()) * (1 + abs(w).max())
    same(ours, theirs, bound * max(1, count**0.5))
    if tracked:
        same(running, [t.numpy() for t in theirs_running], 4 * tolerance(count, draw.dtype) * 4)


SPECIAL = [0.0, -0.0, np.inf, -np.inf, NAN, 3.0, -3.0, 6.0, 1e-30, -1e-30, 88.0, -88.0, 20.0, -20.0]
ACTIVATIONS = {
    "relu": {}, "relu6": {}, "leaky_relu": {"negative_slope": 0.2}, "sigmoid": {}, "tanh": {},
    "silu": {}, "gelu": {"approximate": "none"}, "gelu ": {"approximate": "tanh"},
    "softmax": {"dim": 1}, "log_softmax": {"dim": 1}, "softmax ": {"dim": -1},
}  # fmt: skip


def activations(draw):
    name = draw.pick(*ACTIVATIONS)
    arguments, name = ACTIVATIONS[name], name.strip()
    shape = draw.one(1, 4), draw.one(1, 19), *draw.ints(1, 7)
    x = draw.normal(shape) * draw.dtype(draw.pick(0.1, 1, 8))
    if "softmax" not in name:
        flat = np.array(x).ravel()
        flat[: len(SPECIAL)] = np.array(SPECIAL, x.dtype)[: flat.size]
        x = draw.formatted(flat.reshape(shape))
    g = draw.normal(shape)
    with np.errstate(invalid="ignore", over="ignore"):
        y, grad = (
            getattr(F, name)(x, **arguments),
            getattr(F, name + "_backward")(g, x, **arguments),
        )
    other = differentiate(lambda leaf: getattr(TF, name)(leaf, **arguments), [x], g)
    # where torch does not agree with itself: docs/semantics.md, "Activations"
    values = np.isfinite(x) | np.isnan(x) | (name != "gelu")
    slopes = np.isfinite(x) | (np.isnan(x) & (name != "relu6"))
    size = max(1, abs(y[np.isfinite(y)]).max(), abs(g).max()) * (
        x.shape[1] if "soft" in name else 4
    )
    theirs = other[0][values], other[1][slopes]
    same([y[values], grad[slopes]], theirs, 8 * eps(draw.dtype) * size)


def classification(draw):
    shape = (draw.one(1, 6), draw.one(1, 9), *draw.ints(1, 4, draw.one(0, 2)))
    name, reduction = (
        draw.pick("cross_entropy", "cross_entropy", "nll_loss"),
        draw.pick("mean", "sum", "none"),
    )
    x = draw.normal(shape)
    x = F.log_softmax(x, 1) if name == "nll_loss" else x
    target = draw.rng.integers(0, shape[1], (shape[0], *shape[2:]))
    weight = draw.pick(None, abs(draw.normal(shape[1:2])) + draw.dtype(0.1))
    options = {"reduction": reduction, "ignore_index": draw.pick(-100, 0)}
    if name == "cross_entropy":
        options["label_smoothing"] = draw.pick(0.0, 0.1, 1.0)
        if draw.chance(0.3):  # probabilities
            target = F.softmax(draw.normal(shape), 1)
            options["ignore_index"] = -100
    if target.dtype.kind == "i":
        target.flat[0] = 0 if shape[0] > 1 or options["ignore_index"] else target.flat[0]
    y = getattr(F, name)(x, target, weight, **options)
    g = draw.normal(np.shape(y)) if reduction == "none" else draw.dtype(1.5)
    ours = y, getattr(F, name + "_backward")(g, x, target, weight, **options)
    given = None if weight is None else tensor(weight)
    theirs = differentiate(
        lambda leaf: getattr(TF, name)(leaf, tensor(target), given, **options), [x], g
    )
    finite = np.max(abs(np.nan_to_num(theirs[0])), initial=1)
    same(ours, theirs, 16 * tolerance(x.size, draw.dtype) * finite * 4)


def pair_losses(draw):
    name = draw.pick("mse_loss", "binary_cross_entropy_with_logits")
    shape = draw.one(1, 5), *draw.ints(1, 6)
    x, target = draw.normal(shape) * draw.dtype(draw.pick(1, 30)), draw.normal(shape)
    options = {"reduction": draw.pick("mean", "sum", "none")}
    given = dict(options)
    if name != "mse_loss":
        target = abs(target) / (1 + abs(target))
        for option, size in (("weight", shape), ("pos_weight", shape[-1:])):
            if draw.chance(0.5):
                options[option] = abs(draw.normal(size))
                given[option] = tensor(options[option])
    y = getattr(F, name)(x, target, **options)
    g = draw.normal(np.shape(y)) if options["reduction"] == "none" else draw.dtype(1.5)
    ours = y, getattr(F, name + "_backward")(g, x, target, **options)
    theirs = differentiate(lambda leaf: getattr(TF, name)(leaf, tensor(target), **given), [x], g)
    bound = 8 * tolerance(x.size, draw.dtype)
    same(ours, theirs, bound * max(abs(theirs[0]).max(), abs(theirs[1]).max(), 1))


def products(draw):
    """linear, unfold and fold, on whole numbers."""
    x, w, b = draw.whole((draw.one(1, 5), draw.one(1, 33))), draw.one(1, 33), None
    w, b = draw.whole((w, x.shape[1])), draw.whole((w,))
    y = F.linear(x, w, b)
    g = draw.whole(y.shape)
    same([y, *F.linear_backward(g, x, w)], differentiate(TF.linear, [x, w, b], g))
    kernel, dilation, stride, pads = (draw.ints(low, 3, 2) for low in (1, 1, 1, 0))
    sizes = [
        max(n, (k - 1) * d + 1)
        for n, k, d in zip(draw.ints(1, 9, 2), kernel, dilation, strict=True)
    ]
    image = draw.whole((draw.one(1, 3), draw.one(1, 5), *sizes))
    columns = F.unfold(image, kernel, dilation, pads, stride)
    g = draw.whole(columns.shape)
    ours = columns, F.fold(g, sizes, kernel, dilation, pads, stride)
    same(
        ours,
        differentiate(lambda leaf: TF.unfold(leaf, kernel, dilation, pads, stride), [image], g),
    )


FAMILIES = (
    conv,
    conv_transpose,
    padding_modes,
    max_pool,
    avg_pool,
    adaptive_pools,
    max_unpool,
    pad,
)
FAMILIES += (batch_norm, activations, classification, pair_losses, products)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths:UserWarning")
@pytest.mark.parametrize(
    "number",
    [*range(24), *(pytest.param(n, marks=pytest.mark.long) for n in range(24, 264))],
)
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.__name__)
def test_call(family, number, trust_counts):
    trust_counts[f"torch grid, {family.__name__}"] += 1
    family(Draw(f"{family.__name__} {number}"))
