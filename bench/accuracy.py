"""Rounding errors of the convolution algorithms, as Markdown tables: `python bench/accuracy.py`.

The oracle is a sum over taps in float64 (of float32 results; in long double of float64 ones).
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

import fastconv.functional as F

CHANNELS = (1, 3, 16, 64, 256, 512)
SHOWN = (3, 8, 16, 64, 256, 512)  # "auto" takes Winograd from 8 on, along the row from 2
PIXELS = (7, 14, 28)  # of a gradient, along an axis
SIZES = (8, 24)


class Method(NamedTuple):
    """A convolution that one algorithm serves; `bound` is what its errors keep to, see `bound`."""

    algorithm: str
    outputs: int | None  # None: depthwise
    kernel: tuple[int, int]
    stride: int
    bound: float


METHODS = {
    "direct 3x3": Method("direct", 16, (3, 3), 1, 1),
    "direct 1x1": Method("direct", 16, (1, 1), 1, 1),
    "direct 7x7, stride 2": Method("direct", 16, (7, 7), 2, 1),
    "pixels 3x3": Method("direct", 1, (3, 3), 1, 1),
    "depthwise 3x3": Method("direct", None, (3, 3), 1, 1.5),
    "winograd 3x3": Method("winograd", 16, (3, 3), 1, 4),
    "winograd 4x4": Method("winograd", 16, (4, 4), 1, 4),
    "winograd 5x5": Method("winograd", 16, (5, 5), 1, 4),
    "winograd 1x3": Method("winograd", 16, (1, 3), 1, 3),
    "winograd 1x4": Method("winograd", 16, (1, 4), 1, 3),
    "winograd 5x1": Method("winograd", 16, (5, 1), 1, 3),
    "winograd 2x2": Method("winograd", 16, (2, 2), 1, 4),
    "winograd 1x2": Method("winograd", 16, (1, 2), 1, 4),
    "winograd 7x7": Method("winograd", 16, (7, 7), 1, 4),
    "winograd 3x5": Method("winograd", 16, (3, 5), 1, 4),
    "winograd 1x8": Method("winograd", 16, (1, 8), 1, 3),
    "winograd 5x5, stride 2": Method("winograd", 16, (5, 5), 2, 4),
    "winograd 3x3, stride 2": Method("winograd", 16, (3, 3), 2, 4),
    "winograd 4x4, stride 2": Method("winograd", 16, (4, 4), 2, 4),
}
RESULTS = ("forward", "grad_input", "grad_weight")


def normal(rng, shape):
    return rng.standard_normal(shape)


def after_relu(rng, shape):
    return np.maximum(rng.standard_normal(shape), 0)


def wide_range(rng, shape):
    return rng.standard_normal(shape) * 10 ** rng.uniform(-4, 4, shape)


def constant(rng, shape):
    return np.full(shape, 0.1)


INPUTS = {
    "normal": normal,
    "after ReLU": after_relu,
    "10^-4 to 10^4": wide_range,
    "constant": constant,
}


# ---- the oracle ---------------------------------------------------------------------------------


def taps(
    x: np.ndarray, kernel: tuple[int, ...], stride: int
) -> Iterator[tuple[int, int, np.ndarray]]:
    """(u, v, the inputs that tap meets), a view (N, C, OH, OW)."""
    h, w = ((s - k) // stride * stride + 1 for s, k in zip(x.shape[2:], kernel, strict=True))
    for u in range(kernel[0]):
        for v in range(kernel[1]):
            yield u, v, x[:, :, u : u + h : stride, v : v + w : stride]


def convolve(x, w, stride):
    """sum over taps; depthwise if w has one input channel and as many outputs as x has channels."""
    if is_depthwise(x, w):
        return sum(w[:, 0, u, v, None, None] * part for u, v, part in taps(x, w.shape[2:], stride))
    total = sum(
        np.tensordot(w[:, :, u, v], part, (1, 1)) for u, v, part in taps(x, w.shape[2:], stride)
    )
    return total.transpose(1, 0, 2, 3)


def gradients(g, x, w, stride):
    """The gradients of input and weight."""
    grad_x, grad_w = np.zeros_like(x), np.zeros_like(w)
    seen = {(u, v): part for u, v, part in taps(x, w.shape[2:], stride)}
    for u, v, part in taps(grad_x, w.shape[2:], stride):
        if is_depthwise(x, w):
            part += w[:, 0, u, v, None, None] * g
            grad_w[:, 0, u, v] = (g * seen[u, v]).sum((0, 2, 3))
        else:
            part += np.tensordot(w[:, :, u, v], g, (0, 1)).transpose(1, 0, 2, 3)
            grad_w[:, :, u, v] = np.tensordot(g, seen[u, v], ((0, 2, 3), (0, 2, 3)))
    return grad_x, grad_w


def is_depthwise(x, w):
    return w.shape[1] == 1 and w.shape[0] == x.shape[1] > 1


def sequential(x, w):
    """The same sum of a 3x3 convolution, one product after the other, in the arrays' precision."""
    total = np.zeros_like(convolve(x, w, 1))
    for channel in range(x.shape[1]):
        for u, v, part in taps(x[:, channel : channel + 1], (3, 3), 1):
            total += w[:, channel, u, v][:, None, None] * part
    return total


# ---- errors and bounds --------------------------------------------------------------------------


def problem(name, inputs, channels, size, dtype=np.float32):
    """x, w and an output gradient of normal values, of one image."""
    method = METHODS[name]
    rng = np.random.default_rng([channels, size])
    x = INPUTS[inputs](rng, (1, channels, size, size)).astype(dtype)
    outputs = method.outputs or channels
    depth = channels if method.outputs else 1
    w = rng.standard_normal((outputs, depth, *method.kernel)).astype(dtype)
    g = rng.standard_normal(convolve(x, w, method.stride).shape).astype(dtype)
    return x, w, g


def results(name, x, w, g):
    """What fastconv makes of a problem: forward, grad_input, grad_weight."""
    method = METHODS[name]
    arguments = {"stride": method.stride, "algorithm": method.algorithm}
    if is_depthwise(x, w):
        arguments["groups"] = x.shape[1]
    y = F.conv2d(x, w, **arguments)
    return (y, *F.conv2d_backward(g, x, w, **arguments)[:2])


def exact(name, x, w, g):
    """The same in wider floats."""
    wide = np.float64 if x.dtype == np.float32 else np.longdouble
    x, w, g = (a.astype(wide) for a in (x, w, g))
    stride = METHODS[name].stride
    return (convolve(x, w, stride), *gradients(g, x, w, stride))


def scales(name, x, w, g):
    """What the errors of the three results are measured by, per element.

    The sum of the magnitudes of the products. In Winograd's method, whose errors spread over a
    tile, every pixel counts as the largest one of its channel.
    """
    stride = METHODS[name].stride
    x, w, g = (abs(a).astype(np.float64) for a in (x, w, g))
    if METHODS[name].algorithm == "winograd":
        x, g = (np.broadcast_to(a.max((2, 3), keepdims=True), a.shape) for a in (x, g))
    return (convolve(x, w, stride), *gradients(g, x, w, stride))


def terms(name, x, w, g):
    """The largest number of products in an element of each result."""
    return w[0].size, w.size // w.shape[1], g[0, 0].size


def bound(name, x, w, g):
    """Per element: method.bound * eps * sqrt(products) * scale.

    Twice the probabilistic bound sqrt(products) * eps / 2 of Higham and Mary (2019, "A new approach
    to probabilistic rounding error analysis"), for a sum in any order.
    """
    eps = np.finfo(x.dtype).eps
    return [
        METHODS[name].bound * eps * np.sqrt(count) * scale
        for count, scale in zip(terms(name, x, w, g), scales(name, x, w, g), strict=True)
    ]


def used(name, inputs, channels, size, dtype=np.float32):
    """The largest part of the bound that an error takes, of forward, grad_input, grad_weight."""
    arrays = problem(name, inputs, channels, size, dtype)
    got, want, limit = results(name, *arrays), exact(name, *arrays), bound(name, *arrays)
    return [
        float((abs(a - b) / np.maximum(c, np.finfo(np.float64).tiny)).max())
        for a, b, c in zip(got, want, limit, strict=True)
    ]


# ---- the tables ---------------------------------------------------------------------------------


def relative(result, wanted):
    """Root mean square and maximum of the error, over the root mean square of the result."""
    error, size = result - wanted, np.sqrt((wanted**2).mean())
    return f"{np.sqrt((error**2).mean()) / size * 1e7:.1f} / {abs(error).max() / size * 1e7:.0f}"


def print_errors():
    columns = [
        "direct 3x3",
        "pixels 3x3",
        "depthwise 3x3",
        "winograd 3x3",
        "winograd 5x5",
        "winograd 2x2",
    ]
    print(f"| inputs | channels | sequential | {' | '.join(columns)} |")
    print("|:--|--:|" + "--:|" * (1 + len(columns)))
    for inputs in INPUTS:
        for channels in SHOWN:
            arrays = problem("direct 3x3", inputs, channels, 24)
            cells = [relative(sequential(*arrays[:2]), exact("direct 3x3", *arrays)[0])]
            for name in columns:
                arrays = problem(name, inputs, channels, 24)
                cells.append(relative(results(name, *arrays)[0], exact(name, *arrays)[0]))
            print(f"| {inputs} | {channels} | {' | '.join(cells)} |")


def sequential_gradient(g, x, w):
    """The gradient of a 3x3 weight, one pixel after the other, in the arrays' precision."""
    total = np.zeros_like(w)
    for u, v, part in taps(x, w.shape[2:], 1):
        pairs = zip(
            *(a.transpose(0, 2, 3, 1).reshape(-1, a.shape[1]) for a in (g, part)), strict=True
        )
        for outputs, inputs in pairs:
            total[:, :, u, v] += np.outer(outputs, inputs)
    return total


def print_errors_of_weight_gradients(channels=64):
    print("| grad_y | inputs | sequential | direct 3x3 | winograd 3x3 |")
    print("|:--|:--|--:|--:|--:|")
    for size in PIXELS:
        for inputs in ("normal", "after ReLU"):
            rng = np.random.default_rng(size)
            x = INPUTS[inputs](rng, (1, channels, size + 2, size + 2)).astype(np.float32)
            g = rng.standard_normal((1, channels, size, size)).astype(np.float32)
            w = rng.standard_normal((channels, channels, 3, 3)).astype(np.float32)
            wanted = gradients(*(a.astype(np.float64) for a in (g, x, w)), 1)[1]
            results = [sequential_gradient(g, x, w)]
            for algorithm in ("direct", "winograd"):
                results.append(F.conv2d_backward(g, x, w, algorithm=algorithm)[1])
            cells = " | ".join(relative(y, wanted) for y in results)
            print(f"| {size} x {size} | {inputs} | {cells} |")


def print_bounds():
    print(f"| method | result | factor | {' | '.join(INPUTS)} |")
    print("|:--|:--|--:|" + "--:|" * len(INPUTS))
    for name, method in METHODS.items():
        worst = np.array(
            [np.max([used(name, i, c, s) for c in CHANNELS for s in SIZES], axis=0) for i in INPUTS]
        )
        for result, row in zip(RESULTS, worst.T, strict=True):
            cells = " | ".join(f"{share:.2f}" for share in row)
            print(f"| {name} | {result} | {method.bound:g} | {cells} |")


def main():
    print_errors()
    print()
    print_errors_of_weight_gradients()
    print()
    print_bounds()


if __name__ == "__main__":
    main()
