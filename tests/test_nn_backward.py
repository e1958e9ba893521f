"""What forward keeps and backward takes: modes, frozen parameters, an input's gradient left out."""

import copy
import threading

import numpy as np
import pytest
from layers import each_layer, projection_check, seeded, small_resnet

from fastconv import functional as F
from fastconv import nn


def test_gradients_accumulate_and_zero_grad_forgets(rng):
    layer, x, g = nn.Linear(4, 3, **seeded), rng.standard_normal((5, 4)), np.ones((5, 3))
    layer(x)
    layer.backward(g)
    once = layer.weight.grad.copy()
    layer(x)
    layer.backward(g)
    np.testing.assert_array_equal(layer.weight.grad, 2 * once)
    layer.zero_grad()
    assert layer.weight.grad is None
    assert layer.bias.grad is None


def test_shared_parameter_gets_both_gradients(rng):
    first, second = nn.Linear(4, 4, **seeded), nn.Linear(4, 4, **seeded)
    second.weight, second.bias = first.weight, first.bias
    model = nn.Sequential(first, nn.Tanh(), second)
    assert len(list(model.parameters())) == 2
    assert list(model.state_dict()) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    projection_check(model, rng.standard_normal((3, 4)))


def test_backward_leaves_the_given_gradient_alone(rng):
    model, x = small_resnet(), rng.standard_normal((2, 2, 8, 8))
    grad = rng.standard_normal(model(x).shape)
    before = grad.copy()
    model.backward(grad)
    np.testing.assert_array_equal(grad, before)


def test_backward_parameters_gives_the_same_gradients(rng):
    x, grad = rng.standard_normal((2, 2, 8, 8)), rng.standard_normal((2, 3))
    full, short = small_resnet(), small_resnet()
    full(x)
    full.backward(grad)
    short(x)
    assert short.backward_parameters(grad) is None
    for a, b in zip(full.parameters(), short.parameters(), strict=True):
        np.testing.assert_array_equal(a.grad, b.grad)
    assert all(module._saved is None for module in short.modules())


def test_backward_parameters_of_the_first_layer_computes_no_input_gradient(monkeypatch, rng):
    masks = []

    def spy(*args, output_mask, **kwargs):
        masks.append(output_mask)
        return F.conv2d_backward(*args, output_mask=output_mask, **kwargs)

    monkeypatch.setattr(nn.Conv2d, "gradient", staticmethod(spy))
    model = nn.Sequential(
        nn.Identity(), nn.Conv2d(2, 3, 3, rng=0), nn.ReLU(), nn.Conv2d(3, 2, 3, bias=False, rng=0)
    )
    y = model(np.ones((1, 2, 6, 6), np.float32))
    model.backward_parameters(np.ones_like(y))
    assert masks == [(True, True, False), (False, True, True)]


def test_frozen_parameters_get_no_gradient_and_are_not_walked_back_to(rng):
    model = small_resnet()
    model.requires_grad_(False)
    model.fc.requires_grad_()
    model(rng.standard_normal((2, 2, 8, 8)))
    model.backward_parameters(np.ones((2, 3)))
    assert [name for name, p in model.named_parameters() if p.grad is not None] == [
        "fc.weight",
        "fc.bias",
    ]
    assert all(module._saved is None for module in model.modules())


def test_backward_parameters_works_for_a_users_module(rng):
    class Scale(nn.Module):
        def __init__(self):
            self.factor = nn.Parameter(np.array([2.0]))

        def forward(self, x):
            self._keep(x)
            return x * self.factor.data

        def backward(self, grad):
            (x,) = self._take()
            self.factor.accumulate(np.array([np.vdot(grad, x)]))
            return grad * self.factor.data

    model = nn.Sequential(Scale(), nn.Tanh())
    projection_check(model, rng.standard_normal((3, 2)))
    model(np.ones((1, 2)))
    model.backward_parameters(np.ones((1, 2)))
    assert model[0].factor.grad.shape == (1,)
    assert list(model.state_dict()) == ["0.factor"]
    assert model.output_shape((5, 2)) == (5, 2)


@each_layer
def test_backward_before_forward_is_a_clear_error(layer, shape, rng):
    if isinstance(layer, nn.Identity):
        pytest.skip("Identity keeps nothing")
    layer = copy.deepcopy(layer).train()
    layer.release()
    with pytest.raises(RuntimeError, match=f"{type(layer).__name__}.backward: forward kept"):
        layer.backward(np.ones(shape))
    y = layer(rng.standard_normal(shape))
    layer.backward(np.ones_like(y))
    with pytest.raises(RuntimeError, match="once per forward"):
        layer.backward(np.ones_like(y))


@each_layer
def test_eval_keeps_nothing(layer, shape, rng):
    layer = copy.deepcopy(layer).train()
    x = rng.standard_normal(shape)
    layer(x)
    layer.eval()
    assert layer._saved is None
    layer(x)
    assert layer._saved is None


def test_one_layer_twice_in_a_model_is_refused_at_the_second_backward(rng):
    shared = nn.Linear(3, 3, **seeded)
    model = nn.Sequential(shared, nn.Tanh(), shared)
    model(rng.standard_normal((2, 3)))
    with pytest.raises(RuntimeError, match="two layers sharing a Parameter"):
        model.backward(np.ones((2, 3)))


def test_train_and_eval_reach_every_layer():
    model = small_resnet()
    model.eval()
    assert not any(module.training or module.recording for module in model.modules())
    model.train()
    assert all(module.training and module.recording for module in model.modules())
    model.train(False)
    assert not any(module.training for module in model.modules())
    model.eval(backward=True)
    assert all(module.recording and not module.training for module in model.modules())


def test_inplace_activations_give_the_same_and_write_over_their_input(rng):
    x, grad = rng.standard_normal((2, 50)) * 4
    for kind in (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.SiLU):
        plain, inplace = kind(), kind(inplace=True)
        mine = x.copy()
        np.testing.assert_array_equal(inplace(mine), plain(x))
        np.testing.assert_array_equal(inplace.backward(grad), plain.backward(grad))
        if kind is nn.SiLU:
            np.testing.assert_array_equal(mine, x)
            inplace.eval()
            inplace(mine)
        np.testing.assert_array_equal(mine, plain(x))


def test_eval_from_many_threads(rng):
    model, x = small_resnet().eval(), rng.standard_normal((2, 2, 8, 8))
    expected, results = model(x), []
    threads = [threading.Thread(target=lambda: results.append(model(x))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 8
    assert all(np.array_equal(result, expected) for result in results)
