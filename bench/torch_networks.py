"""A fastconv model as a torch module: the same tree, arguments and weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn as theirs

import fastconv
from fastconv import nn as ours
from fastconv.models.resnet import SubsampleAndPad


class _Residual(theirs.Module):
    def __init__(self, block: ours.Residual) -> None:
        super().__init__()
        for name, child in block.body.named_children():
            self.add_module(name, convert(child))
        self.names = [name for name, _ in block.body.named_children()]
        self.downsample = None if block.shortcut is None else convert(block.shortcut)
        self.activation = None if block.activation is None else convert(block.activation)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x
        for name in self.names:
            y = getattr(self, name)(y)
        y = y + (x if self.downsample is None else self.downsample(x))
        return y if self.activation is None else self.activation(y)


class _SubsampleAndPad(theirs.Module):
    def __init__(self, layer: SubsampleAndPad) -> None:
        super().__init__()
        self.channels, self.stride = layer.out_channels, layer.stride

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x[:, :, :: self.stride, :: self.stride]
        return theirs.functional.pad(x, (0, 0, 0, 0, 0, self.channels - x.shape[1]))


def _layer(layer: Any) -> theirs.Module:
    if isinstance(layer, ours.Conv2d):
        sizes = layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride
        options = layer.padding, layer.dilation, layer.groups, layer.bias is not None
        return theirs.Conv2d(*sizes, *options)
    if isinstance(layer, ours.Linear):
        return theirs.Linear(layer.in_features, layer.out_features, layer.bias is not None)
    if isinstance(layer, ours.BatchNorm2d):
        return theirs.BatchNorm2d(layer.num_features, layer.eps, layer.momentum)
    if isinstance(layer, ours.MaxPool2d):
        return theirs.MaxPool2d(layer.kernel_size, layer.stride, layer.padding)
    if isinstance(layer, ours.AdaptiveAvgPool2d):
        return theirs.AdaptiveAvgPool2d(layer.output_size)
    if isinstance(layer, ours.ReLU | ours.ReLU6):
        return getattr(theirs, type(layer).__name__)(inplace=True)
    if isinstance(layer, ours.Flatten):
        return theirs.Flatten(layer.start_dim, layer.end_dim)
    raise TypeError(f"no torch layer is known for {layer!r}")


def convert(module: fastconv.nn.Module) -> theirs.Module:
    """The module as torch's, with copies of its weights and statistics."""
    if isinstance(module, ours.Sequential):
        result: theirs.Module = theirs.Sequential()
        for name, child in module.named_children():
            result.add_module(name, convert(child))
    elif isinstance(module, ours.Residual):
        result = _Residual(module)
    elif isinstance(module, SubsampleAndPad):
        result = _SubsampleAndPad(module)
    else:
        result = _layer(module)
    state = {key: torch.from_numpy(value.copy()) for key, value in module.state_dict().items()}
    result.load_state_dict(state)
    return result
