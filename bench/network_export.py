"""A fastconv model for its rivals: as torch modules, as an ONNX file, as ncnn's two files.

The files hold what an inference plan holds, batch norms folded, activations where the format has
them inside a convolution: nothing is left for the rival's converter to miss.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from fastconv import nn
from fastconv.inference.graph import Graph, Node
from fastconv.inference.rules import walk
from fastconv.models.resnet import SubsampleAndPad

# --- torch ---------------------------------------------------------------------------------------


def save_torch(model: nn.Module, path: Path) -> None:
    import torch

    torch.save(torch_twin(model), path)


def torch_twin(model: nn.Module) -> Any:
    """The same tree of torch modules with the same weights."""
    import torch
    from network_torch import Residual, Subsample

    layer: Any = model
    if isinstance(model, nn.Sequential):
        twins = [torch_twin(child) for child in model]
        return torch.nn.Sequential(*twins)
    if isinstance(model, nn.Residual):
        shortcut = None if model.shortcut is None else torch_twin(model.shortcut)
        activation = None if model.activation is None else torch_twin(model.activation)
        return Residual(torch_twin(model.body), shortcut, activation)
    if isinstance(model, SubsampleAndPad):
        return Subsample(layer.out_channels, layer.stride)
    kind = getattr(torch.nn, type(model).__name__)
    twin = kind(*_torch_arguments(layer))
    with torch.no_grad():
        for key, value in twin.state_dict().items():
            value.copy_(torch.from_numpy(np.asarray(layer.state_dict()[key])))
    return twin


def _torch_arguments(layer: Any) -> tuple[Any, ...]:
    if isinstance(layer, nn.Conv2d):
        shape = layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride
        return (*shape, layer.padding, layer.dilation, layer.groups, layer.bias is not None)
    if isinstance(layer, nn.Linear):
        return layer.in_features, layer.out_features, layer.bias is not None
    if isinstance(layer, nn.BatchNorm2d):
        return layer.num_features, layer.eps, layer.momentum
    if isinstance(layer, nn.MaxPool2d):
        return layer.kernel_size, layer.stride, layer.padding
    if isinstance(layer, nn.AdaptiveAvgPool2d):
        return (layer.output_size,)
    if isinstance(layer, nn.Dropout):
        return (layer.p,)
    if isinstance(layer, nn.Flatten):
        return layer.start_dim, layer.end_dim
    if isinstance(layer, nn.ReLU | nn.ReLU6):
        return (True,)
    raise TypeError(f"no torch layer is known for {layer!r}")


# --- graphs --------------------------------------------------------------------------------------


def graph_of(model: nn.Module, shape: tuple[int, ...]) -> Graph:
    graph = Graph(shape)
    graph.output = walk(graph, "", model, graph.input)  # type: ignore[attr-defined]
    return graph


def _folded(node: Node, graph: Graph) -> tuple[Any, Any]:
    """Weight and bias in float32, the columns of a Linear in the order of a flattened image."""
    weight: Any = node.weight
    maker = next((n for n in graph.nodes if n.y.buffer is node.x.buffer), None)
    if _is_linear(node) and maker is not None and maker.kind != "copy":
        _, c, h, w = maker.y.spread
        weight = weight.reshape(-1, h, w, c).transpose(0, 3, 1, 2).reshape(len(weight), -1, 1, 1)
    if node.scale is not None:
        weight = weight * node.scale[:, None, None, None]
    bias = np.zeros(len(weight)) if node.bias is None else node.bias
    return weight.astype(np.float32), bias.astype(np.float32)


def _pads(node: Node, weight: Any) -> tuple[int, int, int, int]:
    """top, left, bottom, right"""
    sh, sw, dh, dw, top, left = node.geometry[:6]
    (h, w), (oh, ow), (kh, kw) = node.x.spread[2:], node.y.spread[2:], weight.shape[2:]
    bottom = max((oh - 1) * sh + (kh - 1) * dh + 1 - h - top, 0)
    return top, left, bottom, max((ow - 1) * sw + (kw - 1) * dw + 1 - w - left, 0)


def _is_linear(node: Node) -> bool:
    return len(node.y.shape) == 2


def _is_identity(node: Node) -> bool:
    """An adaptive pool to the size it has."""
    return not node.axes and node.x.spread == node.y.spread


# --- ONNX ----------------------------------------------------------------------------------------


class _Onnx:
    def __init__(self, graph: Graph) -> None:
        from onnx import helper

        self.helper, self.graph = helper, graph
        self.nodes: list[Any] = []
        self.arrays: list[Any] = []
        self.names: dict[int, str] = {id(graph.input.buffer): "input"}
        self.ranks = {"input": len(graph.input.shape)}
        for node in graph.nodes:
            self.add(node)

    def op(self, kind: str, inputs: list[str], rank: int, **attributes: Any) -> str:
        name = f"t{len(self.nodes)}"
        self.nodes.append(self.helper.make_node(kind, inputs, [name], **attributes))
        self.ranks[name] = rank
        return name

    def constant(self, array: Any) -> str:
        from onnx import numpy_helper

        name = f"w{len(self.arrays)}"
        self.arrays.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def add(self, node: Node) -> None:
        x = self.names[id(node.x.buffer)]
        self.names[id(node.y.buffer)] = getattr(self, node.kind)(node, x)

    def conv(self, node: Node, x: str) -> str:
        weight, bias = _folded(node, self.graph)
        if _is_linear(node):
            x = self.op("Flatten", [x], 2) if self.ranks[x] == 4 else x
            inputs = [x, self.constant(weight.reshape(len(weight), -1)), self.constant(bias)]
            y = self.op("Gemm", inputs, 2, transB=1)
        else:
            geometry = {"strides": node.geometry[:2], "dilations": node.geometry[2:4]}
            top, left, bottom, right = _pads(node, weight)
            inputs = [x, self.constant(weight), self.constant(bias)]
            pads = {"pads": [top, left, bottom, right], "group": node.geometry[6]}
            y = self.op("Conv", inputs, 4, **geometry, **pads)
        if node.other is not None:
            y = self.op("Add", [y, self.names[id(node.other.buffer)]], self.ranks[y])
        if node.upper < math.inf:
            bounds = [self.constant(np.float32(v).reshape(())) for v in (node.lower, node.upper)]
            return self.op("Clip", [y, *bounds], self.ranks[y])
        return self.op("Relu", [y], self.ranks[y]) if node.lower == 0 else y

    def copy(self, node: Node, x: str) -> str:
        """A flattened image in the order of its shape, as it is here anyway."""
        return x

    def max_pool(self, node: Node, x: str) -> str:
        kh, sh, _, top, bottom, kw, sw, _, left, right = node.axes
        pads = [top, left, bottom, right]
        return self.op("MaxPool", [x], 4, kernel_shape=[kh, kw], strides=[sh, sw], pads=pads)

    def avg_pool(self, node: Node, x: str) -> str:
        return x if _is_identity(node) else self.op("GlobalAveragePool", [x], 4)


def write_onnx(model: nn.Module, shape: tuple[int, ...], path: Path) -> None:
    import onnx
    from onnx import TensorProto, helper

    graph = graph_of(model, shape)
    made = _Onnx(graph)
    made.nodes[-1].output[0] = "output"
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, list(size))
        for name, size in (("input", shape), ("output", graph.output.shape))  # type: ignore[attr-defined]
    ]
    whole = helper.make_graph(made.nodes, "network", ends[:1], ends[1:], made.arrays)
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(whole, opset_imports=opset, ir_version=8), path)


# --- ncnn ----------------------------------------------------------------------------------------


class _Ncnn:
    """Lines of a .param file and the weights of the .bin file beside it."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.lines: list[list[Any]] = []
        self.weights: list[bytes] = []
        self.readers: dict[int, int] = {}
        for node in graph.nodes:
            for value in (node.x, node.other):
                if value is not None:
                    key = id(value.buffer)
                    self.readers[key] = self.readers.get(key, 0) + 1
        self.blobs: dict[int, list[str]] = {}
        _, c, h, w = graph.input.spread
        self.lines.append(["Input", "in0", [], ["in0"], {0: w, 1: h, 2: c}])
        self.made(graph.input, "in0")
        for node in graph.nodes:
            self.last = getattr(self, node.kind)(node, self.take(node.x))
            self.made(node.y, self.last)

    def line(self, kind: str, inputs: list[str], options: dict[int, Any]) -> str:
        name = f"b{len(self.lines)}"
        self.lines.append([kind, name, inputs, [name], options])
        return name

    def made(self, value: Any, blob: str) -> None:
        """A blob with several readers goes through a Split."""
        count = self.readers.get(id(value.buffer), 0)
        copies = [blob] if count < 2 else [f"{blob}_{i}" for i in range(count)]
        if count > 1:
            self.lines.append(["Split", f"split_{blob}", [blob], list(copies), {}])
        self.blobs[id(value.buffer)] = copies

    def take(self, value: Any) -> str:
        return self.blobs[id(value.buffer)].pop()

    def conv(self, node: Node, x: str) -> str:
        weight, bias = _folded(node, self.graph)
        options: dict[int, Any] = {0: len(weight)}
        if _is_linear(node):
            kind = "InnerProduct"
            options |= {1: 1, 2: weight.size}
        else:
            kind = "Convolution" if node.geometry[6] == 1 else "ConvolutionDepthWise"
            sh, sw, dh, dw = node.geometry[:4]
            top, left, bottom, right = _pads(node, weight)
            options |= {1: weight.shape[3], 11: weight.shape[2], 2: dw, 12: dh, 3: sw, 13: sh}
            options |= {4: left, 14: top, 15: right, 16: bottom, 5: 1, 6: weight.size}
            if node.geometry[6] > 1:
                options[7] = node.geometry[6]
        if node.other is None and node.upper < math.inf:
            options |= {9: 3, -23310: f"2,{node.lower:e},{node.upper:e}"}
        elif node.other is None and node.lower == 0:
            options[9] = 1
        self.weights += [b"\0\0\0\0", weight.tobytes(), bias.tobytes()]
        y = self.line(kind, [x], options)
        if node.other is None:
            return y
        y = self.line("BinaryOp", [y, self.take(node.other)], {0: 0})
        return self.line("ReLU", [y], {}) if node.lower == 0 else y

    def copy(self, node: Node, x: str) -> str:
        """A flattened image in the order of its shape, as it is here anyway."""
        return x

    def max_pool(self, node: Node, x: str) -> str:
        kh, sh, _, top, bottom, kw, sw, _, left, right = node.axes
        options = {0: 0, 1: kw, 11: kh, 2: sw, 12: sh, 3: left, 13: top, 14: right, 15: bottom}
        return self.line("Pooling", [x], {**options, 5: 1})

    def avg_pool(self, node: Node, x: str) -> str:
        return x if _is_identity(node) else self.line("Pooling", [x], {0: 1, 4: 1})


def write_ncnn(model: nn.Module, shape: tuple[int, ...], path: Path) -> None:
    """path.param and path.bin; the blobs to use are in0 and out0."""
    made = _Ncnn(graph_of(model, shape))
    for line in made.lines:
        line[3] = ["out0" if blob == made.last else blob for blob in line[3]]
    blobs = sum(len(line[3]) for line in made.lines)
    text = ["7767517", f"{len(made.lines)} {blobs}"]
    for kind, name, inputs, outputs, options in made.lines:
        given = " ".join(f"{key}={value}" for key, value in options.items())
        parts = [kind, name, len(inputs), len(outputs), *inputs, *outputs, given]
        text.append(" ".join(map(str, parts)))
    path.with_suffix(".param").write_text("\n".join(text) + "\n")
    path.with_suffix(".bin").write_bytes(b"".join(made.weights))
