"""How each layer becomes steps of a `Graph`. A layer without a rule runs its own forward."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import _core, nn
from ..functional._conv_plan import resolve
from ..functional._windows import windows
from ..models.resnet import SubsampleAndPad
from ..nn.module import Module, naming
from .graph import LARGE, ONE_BY_ONE, Graph, Value, plain_spread

Rule = Callable[[Graph, str, Any, Value], Value | None]


def walk(graph: Graph, name: str, module: Module, x: Value) -> Value:
    """Append the steps of `module`, which reads `x`, and return its result."""
    rule = _rule_of(module)
    y = None if rule is None else rule(graph, name, module, x)
    return graph.layer(name, x, module) if y is None else y


def _rule_of(module: Module) -> Rule | None:
    """The rule of the module's class or of a base class whose `forward` it has not replaced."""
    for cls in type(module).__mro__:
        if issubclass(cls, Module) and cls in _RULES:
            return _RULES[cls] if type(module).forward is cls.forward else None
    return None


def _join(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name


# --- containers ----------------------------------------------------------------------------------


def _sequential(graph: Graph, name: str, module: nn.Sequential, x: Value) -> Value:
    for key, child in module.named_children():
        with naming(key):
            x = walk(graph, _join(name, key), child, x)
    return x


def _residual(graph: Graph, name: str, module: nn.Residual, x: Value) -> Value | None:
    """The shortcut first, so that the sum can be part of the body's last convolution."""
    if _writes_over_its_input(module.body):
        return None  # the shortcut then sees what the body wrote
    x.pins += 1
    bypass = x
    if module.shortcut is not None:
        with naming("downsample"):
            bypass = walk(graph, _join(name, "downsample"), module.shortcut, x)
    y = _sequential(graph, name, module.body, x)
    module.check_sum(x.shape, y.shape, bypass.shape)
    total = graph.add(name, y, bypass)
    x.pins -= 1
    if module.activation is None:
        return total
    with naming("activation"):
        return walk(graph, _join(name, "activation"), module.activation, total)


def _writes_over_its_input(module: Module) -> bool:
    """Whether the first layer that does anything is an activation in place."""
    if isinstance(module, nn.Sequential):
        for child in module:
            if not isinstance(child, nn.Identity | nn.Dropout | nn.Flatten):
                return _writes_over_its_input(child)
        return False
    return bool(getattr(module, "inplace", False))


# --- layers with weights -------------------------------------------------------------------------


def _conv(graph: Graph, name: str, module: nn.Conv1d | nn.Conv2d, x: Value) -> Value | None:
    if module.padding_mode != "zeros":
        return None
    shape = module.output_shape(x.shape)
    weight = module.weight.data
    options = module.stride, module.padding, module.dilation, module.groups, "zeros", "auto"
    sizes = x.shape, weight.shape, weight.itemsize
    geometry = resolve("compile", module.axes, *sizes, *options).geometry
    if module.axes == 1:
        weight = weight[:, :, np.newaxis]
    bias = None if module.bias is None else module.bias.data
    return graph.conv(name, x, shape, weight, bias, geometry, module.macs(x.shape))


def _linear(graph: Graph, name: str, module: nn.Linear, x: Value) -> Value | None:
    """A 1x1 convolution of images of one pixel.

    The columns of the weight take the order of a flattened image in memory, or where that would
    need another copy of a large weight, the features that of the shape.
    """
    shape = module.output_shape(x.shape)
    if len(shape) != 2:
        return None
    weight = module.weight.data
    if x.buffer.place != _core.IN_ARENA or weight.size >= LARGE:
        x = graph.in_order(name, x)
    if x.is_flat_image:
        weight = weight.reshape(len(weight), *x.spread[1:]).transpose(0, 2, 3, 1)
        x = Value(x.shape, plain_spread(x.shape), x.buffer, pins=x.pins)
    weight = weight.reshape(len(weight), -1, 1, 1)
    bias = None if module.bias is None else module.bias.data
    y = graph.conv(name, x, shape, weight, bias, ONE_BY_ONE, module.macs(x.shape))
    graph.nodes[-1].linear = True
    return y


def _norm(
    graph: Graph, name: str, module: nn.BatchNorm1d | nn.BatchNorm2d, x: Value
) -> Value | None:
    module.output_shape(x.shape)  # checks it
    if module.running_mean is None or module.running_var is None:
        return None  # the statistics of the batch itself
    scale = 1.0 / np.sqrt(module.running_var.astype(np.float64) + module.eps)
    if module.weight is not None:
        scale = scale * module.weight.data
    shift = -module.running_mean.astype(np.float64) * scale
    if module.bias is not None:
        shift = shift + module.bias.data
    return graph.affine(name, x, scale, shift)


# --- layers without ------------------------------------------------------------------------------


def _nothing(graph: Graph, name: str, module: Module, x: Value) -> Value:
    return x


def _flatten(graph: Graph, name: str, module: nn.Flatten, x: Value) -> Value | None:
    shape = module.output_shape(x.shape)
    if shape == x.shape:
        return x
    joins_all = len(shape) == 2 and len(x.shape) in (3, 4) and shape[0] == x.shape[0]
    return graph.flatten(x, shape) if joins_all else None


def _clamp(upper: float) -> Rule:
    return lambda graph, name, module, x: graph.clamp(name, x, 0.0, upper)


def _map(code: int) -> Rule:
    return lambda graph, name, module, x: graph.map(name, x, code, 0.0)


def _leaky_relu(graph: Graph, name: str, module: nn.LeakyReLU, x: Value) -> Value:
    return graph.map(name, x, _core.LEAKY_RELU, module.negative_slope)


def _gelu(graph: Graph, name: str, module: nn.GELU, x: Value) -> Value:
    code = _core.GELU if module.approximate == "none" else _core.GELU_TANH
    return graph.map(name, x, code, 0.0)


def _window_pool(kind: str) -> Rule:
    def rule(graph: Graph, name: str, module: Any, x: Value) -> Value:
        module.output_shape(x.shape)  # checks the rank
        arguments = module.kernel_size, module.stride, module.padding, module.dilation
        who = type(module).__name__
        sizes, axes = windows(who, x.shape[2:], *arguments, module.ceil_mode)
        shape = (*x.shape[:2], *sizes)
        if kind == "max_pool":
            return graph.pool(name, x, shape, kind, axes)
        divisor = module.divisor_override or 0
        return graph.pool(name, x, shape, kind, axes, module.count_include_pad, divisor)

    return rule


def _adaptive_pool(kind: str) -> Rule:
    def rule(graph: Graph, name: str, module: Any, x: Value) -> Value:
        shape = module.output_shape(x.shape)
        return x if shape == x.shape else graph.pool(name, x, shape, kind, ())

    return rule


def _subsample(graph: Graph, name: str, module: SubsampleAndPad, x: Value) -> Value:
    return graph.subsample_and_pad(name, x, module.output_shape(x.shape), module.stride)


_RULES: dict[type[Module], Rule] = {
    nn.Sequential: _sequential,
    nn.Residual: _residual,
    nn.Conv1d: _conv,
    nn.Conv2d: _conv,
    nn.Linear: _linear,
    nn.BatchNorm1d: _norm,
    nn.BatchNorm2d: _norm,
    nn.Identity: _nothing,
    nn.Dropout: _nothing,
    nn.Flatten: _flatten,
    nn.ReLU: _clamp(math.inf),
    nn.ReLU6: _clamp(6.0),
    nn.LeakyReLU: _leaky_relu,
    nn.Sigmoid: _map(_core.SIGMOID),
    nn.Tanh: _map(_core.TANH),
    nn.SiLU: _map(_core.SILU),
    nn.GELU: _gelu,
    nn.MaxPool1d: _window_pool("max_pool"),
    nn.MaxPool2d: _window_pool("max_pool"),
    nn.AvgPool1d: _window_pool("avg_pool"),
    nn.AvgPool2d: _window_pool("avg_pool"),
    nn.AdaptiveAvgPool1d: _adaptive_pool("avg_pool"),
    nn.AdaptiveAvgPool2d: _adaptive_pool("avg_pool"),
    nn.AdaptiveMaxPool1d: _adaptive_pool("max_pool"),
    nn.AdaptiveMaxPool2d: _adaptive_pool("max_pool"),
    SubsampleAndPad: _subsample,
}
