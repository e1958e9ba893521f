"""Rounding error of the convolution algorithms, as a Markdown table: `python bench/accuracy.py`.

Errors are those of float32 results against a float64 reference, as a fraction of the reference's
root mean square, in units of 1e-7 (the float32 epsilon is 1.19e-7). "sequential" adds the products
one after the other in float32.
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

import fastconv.functional as F

SIZE, OUTPUTS = 24, 32
ROWS = [
    (inputs, channels) for inputs in ("normal", "after ReLU") for channels in (16, 64, 256, 512)
]


def reference(x, w):
    """Float64 result of a valid 3x3 convolution, and the same summed one by one in float32."""
    columns = np.moveaxis(sliding_window_view(x, (3, 3), axis=(2, 3)), 1, 3).reshape(-1, w[0].size)
    exact = columns.astype(np.float64) @ w.reshape(OUTPUTS, -1).T.astype(np.float64)
    total = np.zeros(exact.shape, np.float32)
    for column, weights in zip(columns.T, w.reshape(OUTPUTS, -1).T, strict=True):
        total += column[:, None] * weights
    shape = (1, SIZE - 2, SIZE - 2, OUTPUTS)
    return exact.reshape(shape).transpose(0, 3, 1, 2), total.reshape(shape).transpose(0, 3, 1, 2)


def errors(result, exact):
    difference, scale = result - exact, np.sqrt((exact**2).mean())
    rms = np.sqrt((difference**2).mean()) / scale
    return rms * 1e7, np.abs(difference).max() / scale * 1e7


def weight_gradients(x, w, rng):
    """(winograd, direct, exact) gradients of the weight for one random output gradient."""
    g = rng.standard_normal((1, OUTPUTS, SIZE - 2, SIZE - 2)).astype(np.float32)
    mask = (False, True, False)
    both = [
        F.conv2d_backward(g, x, w, algorithm=name, output_mask=mask)[1]
        for name in ("winograd", "direct")
    ]
    exact = F.conv2d_backward(*(a.astype(np.float64) for a in (g, x, w)), algorithm="direct")[1]
    return (*both, exact)


def main():
    print(
        "| inputs | channels | sequential | direct | winograd "
        "| direct, grad_weight | winograd, grad_weight |"
    )
    print("|:--|--:|--:|--:|--:|--:|--:|")
    for inputs, channels in ROWS:
        rng = np.random.default_rng(channels)
        x = rng.standard_normal((1, channels, SIZE, SIZE)).astype(np.float32)
        w = rng.standard_normal((OUTPUTS, channels, 3, 3)).astype(np.float32)
        if inputs != "normal":
            x = np.maximum(x, 0)
        exact, sequential = reference(x, w)
        wino_gradient, direct_gradient, exact_gradient = weight_gradients(x, w, rng)
        cells = [
            errors(sequential, exact),
            errors(F.conv2d(x, w, algorithm="direct"), exact),
            errors(F.conv2d(x, w, algorithm="winograd"), exact),
            errors(direct_gradient, exact_gradient),
            errors(wino_gradient, exact_gradient),
        ]
        print(
            f"| {inputs} | {channels} | "
            + " | ".join(f"{r:.1f} / {m:.0f}" for r, m in cells)
            + " |"
        )


if __name__ == "__main__":
    main()
