"""Gradients of the reference: central differences along a random projection, exact adjoints."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastconv.reference as R

EPS = np.finfo(np.float64).eps


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def spread(shape: tuple[int, ...], seed: int) -> Any:
    """Distinct values 0.1 apart, none within 0.02 of 0 or 6: away from every kink."""
    values = 0.1 * (np.arange(np.prod(shape)) - np.prod(shape) // 2) + 0.03
    return rng(seed).permutation(values).reshape(shape)


def max_pool_case(pool: str, shape: tuple[int, ...], *args: Any) -> tuple[Any, ...]:
    function, backward = getattr(R, pool), getattr(R, pool + "_backward")
    x = spread(shape, 20)
    _, indices = function(x, *args, return_indices=True)
    return lambda x: function(x, *args), lambda g, x: backward(g, indices, x.shape), x


def sum_case(name: str, arrays: tuple[tuple[int, ...], ...], **kwargs: Any) -> tuple[Any, ...]:
    """A function whose backward takes the same arguments."""
    function, backward = getattr(R, name), getattr(R, name + "_backward")
    values = [rng(30 + k).normal(size=shape) for k, shape in enumerate(arrays)]
    if len(values) == 3:
        return (
            lambda x, w, b: function(x, w, b, **kwargs),
            lambda g, x, w, b: backward(g, x, w, **kwargs),
            *values,
        )
    return lambda x: function(x, **kwargs), lambda g, x: backward(g, x, **kwargs), *values


def batch_norm_case(training: bool) -> tuple[Any, ...]:
    mean, var = np.array([0.1, -0.2, 0.3]), np.array([0.5, 1.5, 2.0])

    def forward(x: Any, w: Any, b: Any) -> Any:
        return R.batch_norm(x, mean.copy(), var.copy(), w, b, training)

    def backward(g: Any, x: Any, w: Any, b: Any) -> Any:
        return R.batch_norm_backward(g, x, mean, var, w, b, training)

    x = rng(40).normal(size=(4, 3, 2, 3))
    return forward, backward, x, rng(41).normal(size=3), rng(42).normal(size=3)


def loss_case(name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
    function, backward = getattr(R, name), getattr(R, name + "_backward")
    x = rng(50).normal(size=(3, 4, 2))
    return lambda x: function(x, *args, **kwargs), lambda g, x: backward(g, x, *args, **kwargs), x


def cases() -> dict[str, tuple[Any, ...]]:
    c: dict[str, tuple[Any, ...]] = {}
    for mode in ("zeros", "reflect", "replicate", "circular", "symmetric"):
        kwargs = {"stride": (2, 1), "padding": ((1, 2), (2, 0)), "padding_mode": mode}
        c[f"conv2d-{mode}"] = sum_case(
            "conv2d", ((2, 4, 5, 6), (6, 2, 2, 3), (6,)), groups=2, **kwargs
        )
    for word in ("valid", "same", "same_lower", "full", "causal"):
        shapes = ((2, 3, 9), (4, 3, 3), (4,))
        c[f"conv1d-{word}"] = sum_case("conv1d", shapes, stride=2, padding=word, dilation=2)
    c["conv2d-unbatched"] = sum_case("conv2d", ((3, 5, 6), (2, 3, 2, 3), (2,)), dilation=(1, 2))
    kwargs = {"stride": 3, "padding": 1, "output_padding": 2}
    c["conv_transpose1d"] = sum_case("conv_transpose1d", ((2, 4, 5), (4, 3, 4), (3,)), **kwargs)
    shapes = ((2, 4, 3, 4), (4, 3, 2, 3), (6,))
    kwargs = {"stride": (2, 1), "padding": ((0, 1), (1, 1)), "groups": 2, "dilation": (1, 2)}
    c["conv_transpose2d"] = sum_case("conv_transpose2d", shapes, **kwargs)
    c["linear"] = sum_case("linear", ((2, 3, 4), (5, 4), (5,)))
    c["max_pool1d"] = max_pool_case("max_pool1d", (2, 3, 9), 3, 2, 1)
    c["max_pool2d"] = max_pool_case("max_pool2d", (2, 2, 6, 7), (3, 2), (2, 1), 1, (2, 1), True)
    c["adaptive_max_pool1d"] = max_pool_case("adaptive_max_pool1d", (2, 3, 9), 4)
    c["adaptive_max_pool2d"] = max_pool_case("adaptive_max_pool2d", (2, 3, 5, 4), (3, None))
    args = (3, 2, 1, True, False)
    for name, shape in (("avg_pool1d", (2, 2, 7)), ("avg_pool2d", (2, 5, 8))):
        f, b = getattr(R, name), getattr(R, name + "_backward")
        x = rng(60).normal(size=shape)
        c[name] = (lambda x, f=f: f(x, *args), lambda g, x, b=b: b(g, x.shape, *args), x)
        f, b = getattr(R, "adaptive_" + name), getattr(R, f"adaptive_{name}_backward")
        c["adaptive_" + name] = (lambda x, f=f: f(x, 3), lambda g, x, b=b: b(g, x.shape), x)
    for name, shape in (("max_unpool1d", (2, 3)), ("max_unpool2d", (2, 3, 2))):
        f, b = getattr(R, name), getattr(R, name + "_backward")
        where = np.stack([rng(k).permutation(np.prod(shape[1:])) for k in (1, 2)])
        i = where.reshape(shape)
        c[name] = (
            lambda x, f=f, i=i: f(x, i, 2),
            lambda g, x, b=b, i=i: b(g, i),
            rng(61).normal(size=shape),
        )
    for mode in ("constant", "reflect", "replicate", "circular", "symmetric"):
        x = rng(62).normal(size=(2, 4, 5))
        c[f"pad-{mode}"] = (
            lambda x, m=mode: R.pad(x, (1, 3, 2, 0), m),
            lambda g, x, m=mode: R.pad_backward(g, x.shape, (1, 3, 2, 0), m),
            x,
        )
    rest = ((2, 3), (1, 2), ((1, 0), (2, 1)), (2, 1))
    x = rng(63).normal(size=(2, 3, 5, 6))
    c["unfold"] = (
        lambda x: R.unfold(x, *rest),
        lambda g, x: R.unfold_backward(g, x.shape, *rest),
        x,
    )
    c["fold"] = (
        lambda x: R.fold(x, (5, 6), *rest),
        lambda g, x: R.fold_backward(g, (5, 6), *rest),
        rng(64).normal(size=R.unfold(x, *rest).shape),
    )
    c["batch_norm-training"], c["batch_norm-eval"] = batch_norm_case(True), batch_norm_case(False)
    for name in ("relu", "relu6", "leaky_relu", "sigmoid", "tanh", "silu", "gelu"):
        f, b = getattr(R, name), getattr(R, name + "_backward")
        c[name] = (f, b, spread((5, 31), 65))
    c["gelu-tanh"] = sum_case("gelu", ((40,),), approximate="tanh")
    c["softmax"] = sum_case("softmax", ((3, 4, 2),), dim=1)
    c["log_softmax"] = sum_case("log_softmax", ((3, 4, 2),), dim=-1)
    target, weight = np.array([[0, 3], [-100, 2], [1, 1]]), np.array([1.0, 0.5, 2.0, 3.0])
    soft = rng(66).random((3, 4, 2))
    for how in ("mean", "sum", "none"):
        c[f"nll_loss-{how}"] = loss_case("nll_loss", target, weight, reduction=how)
        kwargs = {"reduction": how, "label_smoothing": 0.1}
        c[f"cross_entropy-{how}"] = loss_case("cross_entropy", target, weight, **kwargs)
        c[f"cross_entropy-soft-{how}"] = loss_case("cross_entropy", soft, weight, **kwargs)
        c[f"mse_loss-{how}"] = loss_case("mse_loss", soft, how)
        bce = "binary_cross_entropy_with_logits"
        c[f"{bce}-{how}"] = loss_case(bce, soft, soft[0], how, pos_weight=weight[:, np.newaxis])
    return c


CASES = cases()


def test_every_backward_is_checked() -> None:
    checked = {case.split("-")[0] for case in CASES}
    assert {n.removesuffix("_backward") for n in R.__all__ if n.endswith("_backward")} <= checked


@pytest.mark.parametrize("case", CASES)
def test_gradient_by_projection(case: str) -> None:
    """<u, f(x + h v) - f(x - h v)> / 2h == <gradient of u, v> for random u and v."""
    forward, backward, *values = CASES[case]
    y = np.asarray(forward(*values))
    u = rng(70).normal(size=y.shape)
    grads = backward(u, *values)
    grads = grads if isinstance(grads, tuple) else (grads,)
    assert [g.shape for g in grads] == [x.shape for x in values]
    directions = [rng(71 + k).normal(size=x.shape) for k, x in enumerate(values)]
    h = EPS ** (1 / 3)  # makes the truncation and the rounding of a central difference equal
    ahead = forward(*(x + h * v for x, v in zip(values, directions, strict=True)))
    behind = forward(*(x - h * v for x, v in zip(values, directions, strict=True)))
    numeric = np.vdot(u, ahead - behind) / (2 * h)
    exact = sum(np.vdot(g, v) for g, v in zip(grads, directions, strict=True))
    size = np.linalg.norm(u) * np.linalg.norm(y) + sum(
        np.linalg.norm(g) * np.linalg.norm(v) for g, v in zip(grads, directions, strict=True)
    )
    assert abs(numeric - exact) <= 20 * EPS ** (2 / 3) * size


def test_adjoints_are_exact_on_integers() -> None:
    def integers(seed: int, shape: tuple[int, ...]) -> Any:
        return rng(seed).integers(-5, 6, shape).astype(float)

    x, w = integers(80, (2, 4, 6, 7)), integers(81, (6, 2, 3, 2))
    args = ((2, 3), ((2, 1), (0, 3)), (1, 2), 2)
    y = R.conv2d(x, w, None, *args)
    g = integers(82, y.shape)
    gx, gw, gb = R.conv2d_backward(g, x, w, *args)
    assert np.vdot(y, g) == np.vdot(x, gx) == np.vdot(w, gw)
    np.testing.assert_array_equal(gb, g.sum((0, 2, 3)))
    transposed = R.conv_transpose2d(g, w, None, (2, 3), ((2, 1), (0, 3)), 0, 2, (1, 2))
    rows, columns = transposed.shape[2:]  # positions that no window reached are left out
    np.testing.assert_array_equal(transposed, gx[:, :, :rows, :columns])
