"""Random calls of the functions that have kernels: shapes, arguments, dtypes."""

import numpy as np
from helpers import to_format
from problems import together

import fastconv.functional as F


class Call:
    """A call of one function and its backward, on arrays that are always the same.

    Attributes
    ----------
    batch : int
        The number of images.
    per_image : int
        How many of the results, the first ones, belong to the images.
    """

    def __init__(self, text, batch, per_image, run):
        self.text, self.batch, self.per_image, self._run = text, batch, per_image, run

    def __call__(self, layout="channels_first", part=slice(None)):
        return together(*self._run(lambda a: to_format(a[part], layout)))

    def __repr__(self):
        return self.text


def random_call(rng, largest=40):
    """Of a convolution (three of five calls), a pool or a normalisation."""
    make = rng.choice([_conv, _conv, _conv, _pool, _norm])
    return make(rng, largest)


def _normal(rng, shape, dtype):
    return rng.standard_normal(shape).astype(dtype)


def _common(rng, largest):
    """dtype, batch, channels, spatial sizes: 1-D in one case of four."""
    dtype = rng.choice([np.float32, np.float64])
    axes = 1 if rng.random() < 0.25 else 2
    channels = int(rng.choice([1, 2, 3, 7, 8, 9, 16, 17, 33, 70]))
    sizes = [int(s) for s in rng.integers(1, largest + 1, axes)]
    return dtype, int(rng.integers(1, 5)), channels, sizes


def _conv(rng, largest):
    dtype, batch, channels, sizes = _common(rng, largest)
    axes = len(sizes)
    groups = int(rng.choice([1, 1, 1, channels, 2 - channels % 2]))
    outputs = groups * int(rng.choice([1, 2, 5, 9, 16, 33])) // (1 if groups < 9 else groups // 8)
    outputs = max(groups, outputs // groups * groups)
    kernel = [3] * axes if rng.random() < 0.4 else rng.choice([1, 2, 3, 5, 7], axes).tolist()
    stride, dilation = int(rng.choice([1, 1, 1, 2, 3])), int(rng.choice([1, 1, 1, 2, 3]))
    padding = tuple(dilation * (k - 1) // 2 + int(rng.integers(0, 2)) for k in kernel)
    sizes = [max(s, dilation * (k - 1) + 1) for s, k in zip(sizes, kernel, strict=True)]
    algorithm = str(rng.choice(["auto", "auto", "direct"]))
    transposed = rng.random() < 0.2
    arguments = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    kind = f"{'conv_transpose' if transposed else 'conv'}{axes}d"
    if transposed:
        w = _normal(rng, (channels, outputs // groups, *kernel), dtype)
        arguments["padding"] = 0
    else:
        w = _normal(rng, (outputs, channels // groups, *kernel), dtype)
        arguments["algorithm"] = algorithm
    x, b = _normal(rng, (batch, channels, *sizes), dtype), _normal(rng, outputs, dtype)
    forward, backward = getattr(F, kind), getattr(F, f"{kind}_backward")
    g = _normal(rng, forward(x, w, b, **arguments).shape, dtype)

    def run(some):
        gradients = backward(some(g), some(x), w, **arguments)
        return forward(some(x), w, b, **arguments), *gradients

    text = f"{kind} {np.dtype(dtype)} {x.shape} {w.shape} {arguments}"
    return Call(text, batch, 2, run)


def _pool(rng, largest):
    dtype, batch, channels, sizes = _common(rng, largest)
    axes, kind = len(sizes), str(rng.choice(["max", "avg"]))
    kernel = [int(rng.integers(1, min(s, 4) + 1)) for s in sizes]
    arguments = {
        "kernel_size": tuple(kernel),
        "stride": int(rng.integers(1, 4)),
        "padding": tuple(k // 2 for k in kernel),
        "ceil_mode": bool(rng.integers(0, 2)),
    }
    x = _normal(rng, (batch, channels, *sizes), dtype)
    forward = getattr(F, f"{kind}_pool{axes}d")
    backward = getattr(F, f"{kind}_pool{axes}d_backward")
    g = _normal(rng, forward(x, **arguments).shape, dtype)

    def run(some):
        if kind == "avg":
            part = some(x)
            return forward(part, **arguments), backward(some(g), part.shape, **arguments)
        y, indices = forward(some(x), return_indices=True, **arguments)
        return y, indices, backward(some(g), indices, some(x).shape)

    text = f"{kind}_pool{axes}d {np.dtype(dtype)} {x.shape} {arguments}"
    return Call(text, batch, 2 if kind == "avg" else 3, run)


def _norm(rng, largest):
    dtype, batch, channels, sizes = _common(rng, largest)
    x = _normal(rng, (batch + 1, channels, *sizes), dtype)
    weight, bias, mean = _normal(rng, (3, channels), dtype)
    training = bool(rng.integers(0, 2))

    def run(some):
        running = mean.copy(), weight**2 + 1
        part = some(x)
        if training and part.size == part.shape[1]:  # one value per channel has no variance
            part = x
        y = F.batch_norm(part, *running, weight, bias, training)
        gradients = F.batch_norm_backward(y, part, *running, weight, bias, training)
        return y, *gradients, *running

    text = f"batch_norm {np.dtype(dtype)} {x.shape} training={training}"
    return Call(text, batch + 1, 0 if training else 2, run)
