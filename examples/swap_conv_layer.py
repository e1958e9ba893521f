"""A course's NumPy convolution layer, and the same layer on fastconv: two lines change.

`CourseConv2d` is the layer as university courses write it: a forward with a cache, a backward by
hand, a loop over the kernel's taps. `FastConv2d` keeps the class and replaces the two bodies by
`F.conv2d` and `F.conv2d_backward`. Both are put into the same small network of plain NumPy, which
learns to tell the direction of a noisy grating; losses, gradients and times are printed.

    python examples/swap_conv_layer.py
"""

import time

import numpy as np

import fastconv.functional as F


class CourseConv2d:
    """Convolution, stride 1, no padding: x (N, C, H, W) -> y (N, O, H - k + 1, W - k + 1)."""

    def __init__(self, in_channels, out_channels, kernel_size, rng):
        bound = 1 / np.sqrt(in_channels * kernel_size**2)
        shape = (out_channels, in_channels, kernel_size, kernel_size)
        self.w = rng.uniform(-bound, bound, shape).astype(np.float32)
        self.b = np.zeros(out_channels, np.float32)

    def forward(self, x):
        self.x = x
        k = self.w.shape[2]
        h, w = x.shape[2] - k + 1, x.shape[3] - k + 1
        y = np.zeros((len(x), len(self.w), h, w), x.dtype)
        for u in range(k):
            for v in range(k):
                patch = x[:, :, u : u + h, v : v + w]
                y += np.einsum("nchw,oc->nohw", patch, self.w[:, :, u, v], optimize=True)
        return y + self.b[:, None, None]

    def backward(self, dy):
        h, w = dy.shape[2:]
        dx, self.dw = np.zeros_like(self.x), np.zeros_like(self.w)
        for u in range(self.w.shape[2]):
            for v in range(self.w.shape[3]):
                tap, here = self.w[:, :, u, v], np.s_[:, :, u : u + h, v : v + w]
                self.dw[:, :, u, v] = np.einsum("nohw,nchw->oc", dy, self.x[here], optimize=True)
                dx[here] += np.einsum("nohw,oc->nchw", dy, tap, optimize=True)
        self.db = dy.sum(axis=(0, 2, 3))
        return dx


class FastConv2d(CourseConv2d):
    """The same layer; the two lines marked are the change."""

    def forward(self, x):
        self.x = x
        return F.conv2d(x, self.w, self.b)  # line 1

    def backward(self, dy):
        dx, self.dw, self.db = F.conv2d_backward(dy, self.x, self.w)  # line 2
        return dx


class TinyNet:
    """conv 5x5, ReLU, 2x2 mean, conv 5x5, ReLU, mean over the image, softmax: plain NumPy."""

    def __init__(self, conv_layer, classes, rng):
        self.conv1, self.conv2 = conv_layer(1, 16, 5, rng), conv_layer(16, 32, 5, rng)
        self.fc = (rng.standard_normal((32, classes)) / np.sqrt(32)).astype(np.float32)

    def loss_and_gradients(self, x, labels):
        a1 = np.maximum(self.conv1.forward(x), 0)
        n, c, h, w = a1.shape
        pooled = a1.reshape(n, c, h // 2, 2, w // 2, 2).mean(axis=(3, 5))
        a2 = np.maximum(self.conv2.forward(pooled), 0)
        features = a2.mean(axis=(2, 3))
        logits = features @ self.fc
        p = np.exp(logits - logits.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        loss = -np.log(p[np.arange(n), labels]).mean()

        p[np.arange(n), labels] -= 1
        dlogits = p / n
        self.dfc = features.T @ dlogits
        da2 = (dlogits @ self.fc.T)[:, :, None, None] / np.float32(a2[0, 0].size)
        dpooled = self.conv2.backward(da2 * (a2 > 0))
        da1 = np.repeat(np.repeat(dpooled, 2, axis=2), 2, axis=3) / np.float32(4)
        self.conv1.backward(da1 * (a1 > 0))
        return loss

    def step(self, rate):
        self.fc -= rate * self.dfc
        for layer in (self.conv1, self.conv2):
            layer.w -= rate * layer.dw
            layer.b -= rate * layer.db


def gratings(n, classes, rng, size=28):
    """Noisy sine waves in one of `classes` directions: images (n, 1, size, size) and labels."""
    labels = rng.integers(0, classes, n)
    angle = (np.pi * labels / classes)[:, None, None]
    i, j = np.mgrid[:size, :size]
    wave = np.sin(i * np.cos(angle) + j * np.sin(angle) + rng.uniform(0, 6, (n, 1, 1)))
    images = wave + 0.5 * rng.standard_normal(wave.shape)
    return images[:, None].astype(np.float32), labels


def train(conv_layer, x, labels, steps=10, rate=0.2):
    """Losses of `steps` full-batch steps, the last gradients, and seconds per step."""
    net = TinyNet(conv_layer, 4, np.random.default_rng(0))
    losses, start = [], time.perf_counter()
    for _ in range(steps):
        losses.append(net.loss_and_gradients(x, labels))
        net.step(rate)
    seconds = (time.perf_counter() - start) / steps
    gradients = [net.conv1.dw, net.conv1.db, net.conv2.dw, net.conv2.db]
    return np.array(losses), gradients, seconds


def main():
    x, labels = gratings(48, 4, np.random.default_rng(1))
    first, first_gradients, first_seconds = train(CourseConv2d, x, labels)
    second, second_gradients, second_seconds = train(FastConv2d, x, labels)
    print("step   course layer   fastconv")
    for step in range(0, len(first), 3):
        print(f"{step:4}   {first[step]:12.6f}   {second[step]:8.6f}")
    pairs = zip(first_gradients, second_gradients, strict=True)
    difference = max(np.abs(a - b).max() / np.abs(a).max() for a, b in pairs)
    print(f"largest relative difference of the last step's gradients: {difference:.1e}")
    print(f"time per step: {first_seconds * 1e3:.1f} ms, {second_seconds * 1e3:.1f} ms ", end="")
    print(f"({first_seconds / second_seconds:.1f} times faster, the rest of the network included)")
    if difference > 1e-3 or not np.allclose(first, second, atol=1e-4):
        raise SystemExit("the two layers disagree")


if __name__ == "__main__":
    main()
