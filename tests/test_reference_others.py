"""The reference against PyTorch, NumPy and SciPy, where installed: values and gradients."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import fastconv.reference as R

TOLERANCE = 1000 * np.finfo(np.float64).eps  # sums of at most a few hundred terms of size 1


@pytest.fixture(scope="module")
def torch() -> Any:
    return pytest.importorskip("torch")


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def leaf(torch: Any, array: Any) -> Any:
    tensor = torch.from_numpy(np.array(array))
    return tensor.requires_grad_() if tensor.is_floating_point() else tensor


def close(ours: Any, theirs: Any) -> None:
    theirs = theirs.detach().numpy()
    assert np.shape(ours) == theirs.shape
    np.testing.assert_allclose(ours, theirs, rtol=TOLERANCE, atol=TOLERANCE)


def same_gradients(torch: Any, backward: Any, y: Any, theirs: Any, *leaves: Any) -> None:
    """Run both backward passes from one random gradient; `backward(g)` gives ours."""
    close(y, theirs)
    g = np.asarray(rng(1).normal(size=np.shape(y)))
    theirs.backward(torch.from_numpy(g))
    ours = backward(g)
    for grad, tensor in zip(ours if isinstance(ours, tuple) else (ours,), leaves, strict=True):
        close(grad, tensor.grad)


CONVS = list(itertools.product([1, (2, 3)], [0, 1, (2, 1)], [1, 2], [1, 2], [(1, 1), (2, 3)]))


@pytest.mark.parametrize(("stride", "padding", "dilation", "groups", "kernel"), CONVS)
def test_conv2d(
    torch: Any, stride: Any, padding: Any, dilation: int, groups: int, kernel: Any
) -> None:
    x, b = rng(2).normal(size=(2, 4, 7, 8)), rng(3).normal(size=6)
    args = (stride, padding, dilation, groups)
    w = rng(4).normal(size=(6, 4 // groups, *kernel))
    tx, tw, tb = (leaf(torch, a) for a in (x, w, b))
    theirs = torch.nn.functional.conv2d(tx, tw, tb, *args)
    y = R.conv2d(x, w, b, *args)
    same_gradients(torch, lambda g: R.conv2d_backward(g, x, w, *args), y, theirs, tx, tw, tb)

    extra = tuple(s - 1 for s in (stride if isinstance(stride, tuple) else (stride, stride)))
    args = (stride, padding, extra, groups, dilation)
    w = rng(5).normal(size=(4, 6 // groups, *kernel))
    tx, tw, tb = (leaf(torch, a) for a in (x, w, b))
    theirs = torch.nn.functional.conv_transpose2d(tx, tw, tb, *args)
    y = R.conv_transpose2d(x, w, b, *args)
    backward = R.conv_transpose2d_backward
    same_gradients(torch, lambda g: backward(g, x, w, *args), y, theirs, tx, tw, tb)


@pytest.mark.parametrize(("stride", "dilation", "groups"), [(1, 1, 1), (2, 1, 2), (1, 3, 1)])
def test_conv1d(torch: Any, stride: int, dilation: int, groups: int) -> None:
    x, w, b = (
        rng(6).normal(size=(2, 4, 11)),
        rng(7).normal(size=(6, 4 // groups, 3)),
        np.arange(6.0),
    )
    tx, tw, tb = (leaf(torch, a) for a in (x, w, b))
    args = (stride, "same" if stride == 1 else 2, dilation, groups)
    theirs = torch.nn.functional.conv1d(tx, tw, tb, *args)
    y = R.conv1d(x, w, b, *args)
    same_gradients(torch, lambda g: R.conv1d_backward(g, x, w, *args), y, theirs, tx, tw, tb)
    w = rng(8).normal(size=(4, 6 // groups, 3))
    tx, tw, tb = (leaf(torch, a) for a in (x, w, b))
    args = (stride, 1, 0, groups, dilation)
    theirs = torch.nn.functional.conv_transpose1d(tx, tw, tb, *args)
    y = R.conv_transpose1d(x, w, b, *args)
    backward = R.conv_transpose1d_backward
    same_gradients(torch, lambda g: backward(g, x, w, *args), y, theirs, tx, tw, tb)


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular", "constant"])
def test_pad_and_padding_mode(torch: Any, mode: str) -> None:
    x, w = rng(9).normal(size=(2, 3, 5, 6)), rng(10).normal(size=(4, 3, 3, 3))
    tx, tw = leaf(torch, x), leaf(torch, w)
    padded = torch.nn.functional.pad(tx, (1, 2, 3, 4), mode=mode)
    backward = R.pad_backward
    y = R.pad(x, (1, 2, 3, 4), mode)
    same_gradients(torch, lambda g: backward(g, x.shape, (1, 2, 3, 4), mode), y, padded, tx)
    if mode != "constant":
        tx = leaf(torch, x)
        theirs = torch.nn.functional.conv2d(
            torch.nn.functional.pad(tx, (1, 1, 2, 2), mode=mode), tw
        )
        kwargs: dict[str, Any] = {"padding": (2, 1), "padding_mode": mode}
        y = R.conv2d(x, w, **kwargs)
        grads = R.conv2d_backward
        same_gradients(torch, lambda g: grads(g, x, w, **kwargs)[:2], y, theirs, tx, tw)


POOLS = list(
    itertools.product([2, 3, (3, 2)], [None, 1, (3, 2)], [0, 1, (1, 0)], [1, 2], [False, True])
)


@pytest.mark.parametrize(("kernel", "stride", "padding", "dilation", "ceil"), POOLS)
def test_pool2d(
    torch: Any, kernel: Any, stride: Any, padding: Any, dilation: int, ceil: bool
) -> None:
    x = rng(11).integers(0, 4, (2, 3, 7, 9)).astype(float)  # many ties
    x[rng(12).random(x.shape) < 0.05] = np.nan
    x[0, 0] = -np.inf
    tx = leaf(torch, x)
    args = (kernel, stride, padding, dilation, ceil)
    theirs, their_indices = torch.nn.functional.max_pool2d(tx, *args, return_indices=True)
    y, indices = R.max_pool2d(x, *args, return_indices=True)
    np.testing.assert_array_equal(indices, their_indices.numpy())
    backward = R.max_pool2d_backward
    same_gradients(torch, lambda g: backward(g, indices, x.shape), y, theirs, tx)
    if dilation > 1:
        return
    x = rng(13).normal(size=x.shape)
    for include, divisor in ((True, None), (False, None), (True, 3)):
        rest = (kernel, stride, padding, ceil, include, divisor)
        tx = leaf(torch, x)
        theirs = torch.nn.functional.avg_pool2d(tx, *rest)
        y = R.avg_pool2d(x, *rest)
        same_gradients(
            torch, lambda g, r=rest: R.avg_pool2d_backward(g, x.shape, *r), y, theirs, tx
        )


@pytest.mark.parametrize("ceil", [False, True])
def test_pool1d(torch: Any, ceil: bool) -> None:
    x = rng(14).normal(size=(2, 3, 11))
    tx = leaf(torch, x)
    theirs, their_indices = torch.nn.functional.max_pool1d(tx, 3, 2, 1, 2, ceil, True)
    y, indices = R.max_pool1d(x, 3, 2, 1, 2, ceil, True)
    np.testing.assert_array_equal(indices, their_indices.numpy())
    backward = R.max_pool1d_backward
    same_gradients(torch, lambda g: backward(g, indices, x.shape), y, theirs, tx)
    tx = leaf(torch, x)
    theirs = torch.nn.functional.avg_pool1d(tx, 4, 3, 2, ceil, False)
    y = R.avg_pool1d(x, 4, 3, 2, ceil, False)
    average = R.avg_pool1d_backward
    same_gradients(torch, lambda g: average(g, x.shape, 4, 3, 2, ceil, False), y, theirs, tx)


@pytest.mark.parametrize("size", [1, 3, 7, (3, None), (11, 12)])
def test_adaptive_pools(torch: Any, size: Any) -> None:
    x = rng(15).normal(size=(2, 3, 7, 9))
    x[0, 0, 2, 2] = np.nan
    tx = leaf(torch, x)
    theirs, their_indices = torch.nn.functional.adaptive_max_pool2d(tx, size, True)
    y, indices = R.adaptive_max_pool2d(x, size, True)
    np.testing.assert_array_equal(indices, their_indices.numpy())
    backward = R.adaptive_max_pool2d_backward
    same_gradients(torch, lambda g: backward(g, indices, x.shape), y, theirs, tx)
    tx = leaf(torch, x)
    theirs = torch.nn.functional.adaptive_avg_pool2d(tx, size)
    y = R.adaptive_avg_pool2d(x, size)
    average = R.adaptive_avg_pool2d_backward
    same_gradients(torch, lambda g: average(g, x.shape), y, theirs, tx)


@pytest.mark.parametrize(("args", "size"), [((2,), (7, 9)), ((3, 2, 1), (7, 9)), ((3, 2, 1), None)])
def test_unpool(torch: Any, args: Any, size: Any) -> None:
    x = rng(16).normal(size=(2, 3, 7, 9))
    y, indices = R.max_pool2d(x, *args, return_indices=True)
    ty, ti = leaf(torch, y), leaf(torch, indices)
    theirs = torch.nn.functional.max_unpool2d(ty, ti, *args, output_size=size)
    z = R.max_unpool2d(y, indices, *args, output_size=size)
    backward = R.max_unpool2d_backward
    same_gradients(torch, lambda g: backward(g, indices), z, theirs, ty)


@pytest.mark.parametrize("args", [(2, 1, 0, 1), ((2, 3), 2, 1, 2), (3, 1, (1, 2), (2, 1))])
def test_unfold_and_fold(torch: Any, args: Any) -> None:
    x = rng(17).normal(size=(2, 3, 7, 9))
    tx = leaf(torch, x)
    y = R.unfold(x, *args)
    theirs = torch.nn.functional.unfold(tx, *args)
    same_gradients(torch, lambda g: R.unfold_backward(g, x.shape, *args), y, theirs, tx)
    ty = leaf(torch, y)
    z, theirs = R.fold(y, (7, 9), *args), torch.nn.functional.fold(ty, (7, 9), *args)
    same_gradients(torch, lambda g: R.fold_backward(g, (7, 9), *args), z, theirs, ty)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(5, 3), (4, 3, 6), (2, 3, 4, 5)])
@pytest.mark.parametrize("affine", [True, False])
def test_batch_norm(torch: Any, training: bool, shape: tuple[int, ...], affine: bool) -> None:
    x, mean, var = rng(18).normal(size=shape), rng(19).normal(size=3), rng(20).random(3) + 0.5
    w, b = (rng(21).normal(size=3), rng(22).normal(size=3)) if affine else (None, None)
    leaves = [leaf(torch, a) for a in (x, w, b) if a is not None]
    their_mean, their_var = torch.from_numpy(mean.copy()), torch.from_numpy(var.copy())
    pair = leaves[1:] or [None, None]
    rest = (training, 0.3, 1e-3)
    theirs = torch.nn.functional.batch_norm(leaves[0], their_mean, their_var, *pair, *rest)
    our_mean, our_var = mean.copy(), var.copy()
    y = R.batch_norm(x, our_mean, our_var, w, b, *rest)
    close(our_mean, their_mean)
    close(our_var, their_var)
    backward = R.batch_norm_backward
    same_gradients(
        torch, lambda g: backward(g, x, mean, var, w, b, *rest)[: len(leaves)], y, theirs, *leaves
    )
    if not affine:
        assert backward(x, x, mean, var, w, b, *rest)[1:] == (None, None)


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("relu", {}),
        ("relu6", {}),
        ("leaky_relu", {"negative_slope": 0.2}),
        ("sigmoid", {}),
        ("tanh", {}),
        ("silu", {}),
        ("gelu", {}),
        ("gelu", {"approximate": "tanh"}),
        ("softmax", {"dim": 0}),
        ("log_softmax", {"dim": -1}),
    ],
)
def test_activations(torch: Any, name: str, kwargs: dict[str, Any]) -> None:
    x = np.concatenate([5 * rng(23).normal(size=40), [0.0, 6.0, -0.0, 1e3, -1e3]])
    tx = leaf(torch, x)
    theirs = getattr(torch.nn.functional, name, getattr(torch, name, None))(tx, **kwargs)
    y, backward = getattr(R, name)(x, **kwargs), getattr(R, name + "_backward")
    same_gradients(torch, lambda g: backward(g, x, **kwargs), y, theirs, tx)
    if not name.endswith("softmax"):
        assert np.isnan(getattr(R, name)(np.array([np.nan]), **kwargs)).all()


@pytest.mark.parametrize("shape", [(5, 4), (4,), (2, 4, 3), (2, 4, 3, 2)])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weighted", [False, True])
def test_classification_losses(
    torch: Any, shape: tuple[int, ...], reduction: str, smoothing: float, weighted: bool
) -> None:
    x, w = rng(24).normal(size=shape), rng(25).random(4) + 0.1 if weighted else None
    indices = np.asarray(rng(26).integers(0, 4, shape[:1] + shape[2:] if len(shape) > 1 else ()))
    if indices.size > 2:
        indices.flat[1] = -100
    functional, kwargs = torch.nn.functional, {"reduction": reduction}
    tw = None if w is None else torch.from_numpy(w)
    for target in (indices, rng(27).random(shape)):
        tx, tt = leaf(torch, x), torch.from_numpy(target)
        theirs = functional.cross_entropy(tx, tt, tw, **kwargs, label_smoothing=smoothing)
        options = {**kwargs, "label_smoothing": smoothing}
        y = R.cross_entropy(x, target, w, **options)
        same_gradients(
            torch,
            lambda g, t=target, o=options: R.cross_entropy_backward(g, x, t, w, **o),
            y,
            theirs,
            tx,
        )
    tx = leaf(torch, x)
    theirs = functional.nll_loss(tx, torch.from_numpy(indices), tw, **kwargs)
    y = R.nll_loss(x, indices, w, **kwargs)
    same_gradients(torch, lambda g: R.nll_loss_backward(g, x, indices, w, **kwargs), y, theirs, tx)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_elementwise_losses(torch: Any, reduction: str) -> None:
    x, target, w, p = rng(28).normal(size=(3, 4)), *rng(29).random((2, 3, 4)), rng(30).random(4)
    tt, tw, tp = (torch.from_numpy(a) for a in (target, w, p))
    name = "binary_cross_entropy_with_logits"
    tx, args = leaf(torch, x), (target, w, reduction, p)
    theirs = getattr(torch.nn.functional, name)(tx, tt, tw, reduction=reduction, pos_weight=tp)
    backward = R.binary_cross_entropy_with_logits_backward
    same_gradients(torch, lambda g: backward(g, x, *args), getattr(R, name)(x, *args), theirs, tx)
    tx = leaf(torch, x)
    theirs = torch.nn.functional.mse_loss(tx, tt, reduction=reduction)
    y = R.mse_loss(x, target, reduction)
    same_gradients(torch, lambda g: R.mse_loss_backward(g, x, target, reduction), y, theirs, tx)


@pytest.mark.parametrize("mode", ["full", "same", "valid"])
@pytest.mark.parametrize(("m", "n"), [(5, 3), (5, 4), (4, 5), (3, 6), (4, 4), (1, 3), (7, 1)])
def test_convolve_as_numpy(mode: str, m: int, n: int) -> None:
    a, v = rng(31).integers(-9, 10, m), rng(32).integers(-9, 10, n)
    np.testing.assert_array_equal(R.convolve(a, v, mode), np.convolve(a, v, mode))
    np.testing.assert_array_equal(R.correlate(a, v, mode), np.correlate(a, v, mode))


@pytest.mark.parametrize("mode", ["full", "same", "valid"])
@pytest.mark.parametrize(
    "shapes", [((5, 6), (3, 2)), ((3, 2), (5, 6)), ((4, 5), (4, 3)), ((6, 1), (2, 1))]
)
def test_convolve2d_as_scipy(mode: str, shapes: Any) -> None:
    signal = pytest.importorskip("scipy.signal")
    a, v = rng(33).integers(-9, 10, shapes[0]), rng(34).integers(-9, 10, shapes[1])
    np.testing.assert_array_equal(R.convolve2d(a, v, mode), signal.convolve2d(a, v, mode))
    np.testing.assert_array_equal(R.correlate2d(a, v, mode), signal.correlate2d(a, v, mode))
