"""Losses: against the reference and torch, with all arguments; gradients, stability, memory."""

import itertools

import numpy as np
import pytest
from array_variants import is_channels_last, variants

import fastconv.functional as F
import fastconv.reference as R

H = float(np.finfo(np.float64).eps ** (1 / 3))  # step of central differences
BCE, BCE_BACKWARD = (
    F.binary_cross_entropy_with_logits,
    F.binary_cross_entropy_with_logits_backward,
)
REDUCTIONS = ("mean", "sum", "none")
SHAPES = [(5,), (6, 5), (3, 5, 4), (2, 5, 3, 4), (2, 5, 3, 2, 2), (4, 1)]


def bound(dtype, terms=1):
    """Rounding of a sum of `terms` losses of size about 1 to 10."""
    return 64 * np.finfo(dtype).eps * terms


def logits(shape, dtype=np.float64, seed=0):
    return (3 * np.random.default_rng(seed).standard_normal(shape)).astype(dtype)


def classes_of(shape):
    return shape[min(len(shape) - 1, 1)]


def indices(shape, ignore=None, seed=1):
    rng = np.random.default_rng(seed)
    sizes = (*shape[: min(len(shape) - 1, 1)], *shape[2:])
    target = rng.integers(0, classes_of(shape), sizes)
    return target if ignore is None else np.where(rng.random(sizes) < 0.3, ignore, target)


def probabilities(shape, dtype=np.float64):
    p = np.random.default_rng(2).random(shape)
    return (p / p.sum(axis=min(len(shape) - 1, 1), keepdims=True)).astype(dtype)


def weights(shape, dtype=np.float64):
    return np.random.default_rng(3).uniform(0.2, 2, classes_of(shape)).astype(dtype)


def classification_cases():
    """(function, input, target, keywords in float64)."""
    for shape, reduction in itertools.product(SHAPES, REDUCTIONS):
        for weighted, smoothing in itertools.product((False, True), (0.0, 0.3)):
            keywords = {"reduction": reduction}
            if weighted:
                keywords["weight"] = weights(shape)
            x = logits(shape)
            if smoothing == 0:
                yield "nll_loss", x, indices(shape, 2), {**keywords, "ignore_index": 2}
            else:
                keywords["label_smoothing"] = smoothing
            yield "cross_entropy", x, indices(shape), keywords
            yield "cross_entropy", x, indices(shape, -100), keywords
            yield "cross_entropy", x, indices(shape, 3), {**keywords, "ignore_index": 3}
            yield "cross_entropy", x, probabilities(shape), keywords


def pair_cases():
    for shape, reduction in itertools.product([(1,), (7,), (3, 4), (2, 3, 4, 5)], REDUCTIONS):
        x, t = logits(shape), np.random.default_rng(4).random(shape)
        yield "mse_loss", x, t, {"reduction": reduction}
        yield "binary_cross_entropy_with_logits", x, t, {"reduction": reduction}
        w, p = logits(shape[-1:], seed=5) ** 2, logits((1,) * len(shape), seed=6) ** 2
        keywords = {"reduction": reduction, "weight": w, "pos_weight": p}
        yield "binary_cross_entropy_with_logits", x, t, keywords


def cast(keywords, dtype):
    return {k: v.astype(dtype) if isinstance(v, np.ndarray) else v for k, v in keywords.items()}


def all_cases():
    return [*classification_cases(), *pair_cases()]


def test_against_reference():
    for (name, x, target, keywords), dtype in itertools.product(
        all_cases(), (np.float32, np.float64)
    ):
        context = f"{name} {x.shape} {target.dtype} {keywords}"
        t = target.astype(dtype) if target.dtype.kind == "f" else target
        x32, k = x.astype(dtype), cast(keywords, dtype)
        exact = x32.astype(np.float64), t.astype(np.float64) if t.dtype.kind == "f" else t
        exact_k = cast(k, np.float64)
        loss = getattr(F, name)(x32, t, **k)
        expected = getattr(R, name)(*exact, **exact_k)
        assert loss.dtype == dtype, context
        np.testing.assert_allclose(
            loss, expected, rtol=bound(dtype), atol=bound(dtype), err_msg=context
        )
        g = logits(np.shape(expected), dtype, seed=7)
        g = dtype(g) if g.ndim == 0 else g
        grad = getattr(F, name + "_backward")(g, x32, t, **k)
        expected = getattr(R, name + "_backward")(g.astype(np.float64), *exact, **exact_k)
        assert grad.dtype == dtype, context
        assert grad.shape == x.shape, context
        np.testing.assert_allclose(
            grad, expected, rtol=bound(dtype), atol=bound(dtype), err_msg=context
        )


def test_gradients_by_projection():
    for seed, (name, x, target, keywords) in enumerate(all_cases()):
        rng = np.random.default_rng(seed)
        v = rng.standard_normal(x.shape)
        loss = getattr(F, name)(x, target, **keywords)
        u = rng.standard_normal(np.shape(loss)) if keywords["reduction"] == "none" else 1.7
        grad = getattr(F, name + "_backward")(u, x, target, **keywords)
        above, below = (getattr(F, name)(x + h * v, target, **keywords) for h in (H, -H))
        if np.isnan(loss).any():
            continue  # everything ignored
        numeric = np.vdot(u, above - below) / (2 * H)
        scale = np.abs(loss).sum() + np.linalg.norm(grad) * np.linalg.norm(v) + 1
        assert abs(numeric - np.vdot(grad, v)) <= 100 * H**2 * scale, (name, x.shape, keywords)


def test_against_torch():
    torch = pytest.importorskip("torch")
    for name, x, target, keywords in all_cases():
        context = f"{name} {x.shape} {target.dtype} {keywords}"
        tensor = torch.tensor(x, requires_grad=True)
        k = {a: torch.tensor(b) if isinstance(b, np.ndarray) else b for a, b in keywords.items()}
        expected = getattr(torch.nn.functional, name)(tensor, torch.tensor(target), **k)
        loss = getattr(F, name)(x, target, **keywords)
        np.testing.assert_allclose(
            loss, expected.detach().numpy(), rtol=bound(float), atol=bound(float), err_msg=context
        )
        g = logits(expected.shape, seed=8)
        expected.backward(torch.tensor(g))
        grad = getattr(F, name + "_backward")(g, x, target, **keywords)
        if np.isnan(loss).any():
            continue  # the mean over nothing: torch's gradient may be NaN, ours is 0
        np.testing.assert_allclose(
            grad, tensor.grad.numpy(), rtol=bound(float), atol=bound(float), err_msg=context
        )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_large_logits_do_not_overflow(dtype):
    big = dtype(np.finfo(dtype).max / 4)
    x = np.array([[big, 0, -big], [1e4, 1e4, -1e4]], dtype)
    np.testing.assert_array_equal(F.cross_entropy(x, [0, 2], reduction="none")[0], 0)
    loss = F.cross_entropy(x, [2, 0], reduction="none")
    np.testing.assert_allclose(loss, [2 * float(big), np.log(2)], rtol=4 * np.finfo(dtype).eps)
    grad = F.cross_entropy_backward(1.0, x, [2, 0], reduction="sum")
    np.testing.assert_array_equal(grad, [[1, 0, -1], [-0.5, 0.5, 0]])
    x = np.array([big, -big, 200, -200], dtype)
    t = np.array([1, 0, 0, 1], dtype)
    np.testing.assert_array_equal(BCE(x, t, reduction="none"), [0, 0, 200, 200])
    np.testing.assert_array_equal(BCE_BACKWARD(1.0, x, t, reduction="sum"), [0, 0, 1, -1])


def test_small_losses_keep_their_digits():
    x, t = np.array([-30.0, 30.0]), np.array([0.0, 1.0])
    np.testing.assert_allclose(BCE(x, t, reduction="none"), np.exp(-30.0), rtol=1e-12)
    np.testing.assert_allclose(
        BCE_BACKWARD(1.0, x, t, reduction="sum"), [np.exp(-30.0), -np.exp(-30.0)], rtol=1e-12
    )


def test_masked_logits():
    """-inf for classes that are out of the question: finite loss and gradient, as in torch."""
    x = np.array([[1.0, -np.inf, 1.0], [-np.inf, 0.0, -np.inf]])
    np.testing.assert_allclose(F.cross_entropy(x, [0, 1], reduction="none"), [np.log(2), 0])
    np.testing.assert_allclose(
        F.cross_entropy_backward(1.0, x, [0, 1], reduction="sum"), [[-0.5, 0, 0.5], [0, 0, 0]]
    )
    assert F.cross_entropy(x, [1, 1], reduction="sum") == np.inf


def test_nan_stays_in_its_sample():
    x = logits((3, 4))
    x[1, 2] = np.nan
    loss = F.cross_entropy(x, [0, 1, 2], reduction="none")
    np.testing.assert_array_equal(np.isnan(loss), [False, True, False])
    grad = F.cross_entropy_backward(np.ones(3), x, [0, 1, 2], reduction="none")
    np.testing.assert_array_equal(np.isnan(grad).any(axis=1), [False, True, False])
    ignored = F.cross_entropy(x, [0, -100, 2])
    assert np.isfinite(ignored)
    assert not F.cross_entropy_backward(1.0, x, [0, -100, 2])[1].any()


def test_mean_over_nothing_is_nan():
    assert np.isnan(F.cross_entropy(np.zeros((0, 3)), np.zeros(0, int)))
    assert np.isnan(F.cross_entropy(np.zeros((2, 3)), [-100, -100]))
    assert np.isnan(F.cross_entropy(np.zeros((0, 3)), np.zeros((0, 3))))
    assert np.isnan(F.mse_loss(np.zeros((0, 3)), np.zeros((0, 3))))
    assert F.mse_loss(np.zeros(0), np.zeros(0), reduction="sum") == 0
    assert F.cross_entropy_backward(1.0, np.zeros((0, 3)), np.zeros(0, int)).shape == (0, 3)
    assert F.mse_loss_backward(1.0, np.zeros((0, 3)), np.zeros((0, 3))).shape == (0, 3)
    assert not F.cross_entropy_backward(1.0, np.zeros((2, 3)), [-100, -100]).any()


def test_no_axes():
    x, t = np.array(3.0), np.array(1.0)
    assert F.mse_loss(x, t) == F.mse_loss(x, t, "none") == 4
    grad = F.mse_loss_backward(1.0, x, t)
    assert isinstance(grad, np.ndarray)
    assert grad.shape == ()
    assert BCE_BACKWARD(1.0, x, t).shape == ()
    assert F.cross_entropy(np.zeros(3), np.array(1)) == np.log(3)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.uint64, ">i4"])
def test_integer_dtypes_of_the_target(dtype):
    x, target = logits((6, 5)), indices((6, 5))
    assert F.cross_entropy(x, target.astype(dtype)) == F.cross_entropy(x, target)
    assert F.nll_loss(x, target.astype(dtype).tolist()) == F.nll_loss(x, target)


def test_a_wrapped_index_is_not_taken_for_ignore_index():
    with pytest.raises(ValueError, match=str(2**64 - 100)):
        F.cross_entropy(np.zeros((1, 3)), np.array([2**64 - 100], np.uint64))


@pytest.mark.parametrize("shape", [(6, 5), (2, 5, 3, 4)])
def test_any_memory(shape):
    x, target = logits(shape, np.float32), indices(shape)
    t = np.random.default_rng(9).random(shape).astype(np.float32)
    dense = t / t.sum(axis=1, keepdims=True)
    calls = [
        lambda x: F.cross_entropy(x, target, label_smoothing=0.1),
        lambda x: F.cross_entropy_backward(1.0, x, target, label_smoothing=0.1),
        lambda x: F.cross_entropy(x, dense),
        lambda x: F.cross_entropy_backward(1.0, x, dense),
        lambda x: F.nll_loss(x, target),
        lambda x: F.mse_loss(x, t),
        lambda x: F.mse_loss(t, x, reduction="none"),
        lambda x: F.mse_loss_backward(x, t, x, reduction="none"),
        lambda x: BCE(x, t, pos_weight=t),
        lambda x: BCE_BACKWARD(1.0, x, t, weight=t),
    ]
    for number, call in enumerate(calls):
        expected = call(x)
        for name, other in variants(x):
            before = other.copy()
            np.testing.assert_array_equal(call(other), expected, err_msg=f"{number} {name}")
            np.testing.assert_array_equal(other, before)


def test_gradients_follow_the_memory_format():
    x = np.ascontiguousarray(logits((2, 3, 4, 5)).transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    t = np.ones(x.shape)
    grads = [
        F.cross_entropy_backward(1.0, x, np.zeros((2, 4, 5), int)),
        F.nll_loss_backward(1.0, x, np.zeros((2, 4, 5), int)),
        F.mse_loss_backward(1.0, x, t),
        BCE_BACKWARD(1.0, x, t),
        F.mse_loss(x, t, "none"),
        BCE(x, t, reduction="none"),
    ]
    assert all(is_channels_last(grad) for grad in grads)
    plain = F.cross_entropy_backward(1.0, x.copy(order="C"), np.zeros((2, 4, 5), int))
    assert plain.flags.c_contiguous


def test_the_gradient_does_not_share_memory_with_inputs():
    x, t = logits((3, 4)), np.zeros((3, 4))
    g = np.ones((3, 4))
    for grad in (F.mse_loss_backward(g, x, t, "none"), BCE_BACKWARD(g, x, t, reduction="none")):
        assert not any(np.shares_memory(grad, a) for a in (x, t, g))
