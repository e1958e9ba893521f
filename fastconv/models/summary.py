"""`summary(model, input_shape)`: shapes, parameters, MACs and receptive fields, calculated.

Nothing is run: every layer of `fastconv.nn` knows its output shape. The receptive field follows
the recursion of Araujo, Norris & Sim 2019, "Computing Receptive Fields of Convolutional Neural
Networks": a window of extent k adds (k - 1) * jump, a stride multiplies the jump.
"""

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from .. import nn
from .._messages import typed
from ..functional._arrays import shape as shape_argument
from ..nn import Module, Residual, Sequential
from ..nn.module import naming, unfit
from .resnet import SubsampleAndPad

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Field:
    """Receptive field per axis: `size` in input samples, `stride` between two outputs.

    `whole` is set once a layer looks at the whole input (global pooling, Linear).
    """

    size: tuple[int, ...]
    stride: tuple[Fraction, ...]
    whole: bool = False

    def __str__(self) -> str:
        return "all" if self.whole else _per_axis(self.size)

    def stride_str(self) -> str:
        return "-" if self.whole else _per_axis(self.stride)


@dataclass(frozen=True)
class LayerSummary:
    """One row: where the layer is, and what it costs for one input."""

    name: str
    type: str
    depth: int
    output_shape: Shape
    parameters: int
    trainable: int
    macs: int
    field: Field
    leaf: bool
    fused: bool = False  # computed by the kernel of a layer before, in a container's fused run


@dataclass(frozen=True)
class Summary:
    """What `summary` returns: rows (parents before children) and totals; `str` is a table."""

    layers: list[LayerSummary]
    input_shape: Shape
    parameters: int
    trainable: int
    macs: int
    parameter_bytes: int
    activation_bytes: int

    def __str__(self) -> str:
        head = ("layer", "type", "output shape", "parameters", "MACs", "field", "stride")
        rows = [head, *(_cells(layer) for layer in self.layers)]
        widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
        lines = [_line(row, widths) for row in rows]
        rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
        frozen = self.parameters - self.trainable
        totals = [
            f"parameters   {self.parameters:,}" + (f" ({frozen:,} frozen)" if frozen else ""),
            f"MACs         {_si(self.macs)} for one input of shape {self.input_shape}",
            f"memory       {_bytes(self.parameter_bytes)} parameters, "
            f"{_bytes(self.activation_bytes)} layer outputs for one input",
        ]
        return "\n".join([lines[0], rule, *lines[1:], rule, *totals])


def summary(model: Module, input_shape: Shape, depth: int | None = None) -> Summary:
    """Describe `model` for one input of `input_shape`, which has no batch axis: `(3, 224, 224)`.

    `depth` limits the rows to that many levels of containers (1: the model's own children); the
    totals are those of the whole model.

    MACs are the multiply-accumulates of convolutions and Linear layers, taps in the padding
    included; the other layers count 0. A layer that is not of fastconv.nn is run once on zeros to
    learn its output shape, and its receptive field is taken for the whole input.

    Raises
    ------
    TypeError
        `model` is not a Module, or `input_shape` not a tuple or list of ints.
    ValueError
        The shape does not fit the model; the message names the first layer that refuses.
    """
    if not isinstance(input_shape, tuple | list):
        raise TypeError(
            f"summary: input_shape must be a tuple without the batch axis, such as (3, 32, 32), "
            f"got {typed(input_shape)}"
        )
    if not isinstance(model, Module):
        raise TypeError(f"summary: model must be a Module, got {typed(model)}")
    input_shape = shape_argument("summary", "input_shape", input_shape)
    axes = max(len(input_shape) - 1, 1)
    start = Field((1,) * axes, (Fraction(1),) * axes)
    layers: list[LayerSummary] = []
    try:
        _visit(model, "", 0, (1, *input_shape), start, layers)
    except ValueError as error:
        raise unfit("summary", input_shape, "without a batch axis", error) from error.__cause__
    fused = _fused_layers(model)
    layers = [replace(layer, fused=layer.name in fused) for layer in layers]
    parameters = list(model.parameters())
    arrays = [*(p.data for p in parameters), *model.buffers()]
    leaves = [layer for layer in layers if layer.leaf]
    itemsize = parameters[0].dtype.itemsize if parameters else 4
    return Summary(
        layers=_rows(layers, depth),
        input_shape=input_shape,
        parameters=sum(p.size for p in parameters),
        trainable=sum(p.size for p in parameters if p.requires_grad),
        macs=sum(layer.macs for layer in leaves),
        parameter_bytes=sum(a.nbytes for a in arrays),
        activation_bytes=sum(math.prod(layer.output_shape) for layer in leaves) * itemsize,
    )


def _fused_layers(model: Module) -> set[str]:
    """Names of the layers that the kernel of another one computes."""
    containers = [(n, m) for n, m in model.named_modules() if isinstance(m, Sequential | Residual)]
    return {
        _join(name, layer)
        for name, container in containers
        for _, *others in container.fused_runs()
        for layer in others
    }


def _rows(layers: list[LayerSummary], depth: int | None) -> list[LayerSummary]:
    """The rows to show: not the model itself, unless it is a single layer."""
    rows = layers[1:] if len(layers) > 1 else layers
    return [row for row in rows if depth is None or row.depth <= depth]


def _visit(
    module: Module, name: str, depth: int, shape: Shape, field: Field, rows: list[LayerSummary]
) -> tuple[Shape, Field]:
    """Append the rows of `module` and its children; return its output shape and field."""
    position = len(rows)
    rows.append(LayerSummary(name, type(module).__name__, depth, shape, 0, 0, 0, field, False))
    leaf = False
    if isinstance(module, Residual):
        out, field = _visit_residual(module, name, depth + 1, shape, field, rows)
    elif isinstance(module, Sequential):
        out = shape
        for key, child in module.named_children():
            with naming(key):
                out, field = _visit(child, _join(name, key), depth + 1, out, field, rows)
    else:
        leaf = True
        out, field = module.output_shape(shape), _through(module, field)
    inner = [row for row in rows[position + 1 :] if row.leaf]
    parameters = list(module.parameters())
    rows[position] = replace(
        rows[position],
        output_shape=out[1:],
        parameters=sum(p.size for p in parameters),
        trainable=sum(p.size for p in parameters if p.requires_grad),
        macs=_macs(module, shape) if leaf else sum(row.macs for row in inner),
        field=field,
        leaf=leaf,
    )
    return out, field


def _visit_residual(
    module: Residual, name: str, depth: int, shape: Shape, field: Field, rows: list[LayerSummary]
) -> tuple[Shape, Field]:
    """Both branches see the input; their sum sees the larger of the two fields."""
    out, bypass = shape, field
    for key, child in module.body.named_children():
        with naming(key):
            out, field = _visit(child, _join(name, key), depth, out, field, rows)
    bypass_shape = shape
    if module.shortcut is not None:
        where = _join(name, "downsample")
        with naming("downsample"):
            bypass_shape, bypass = _visit(module.shortcut, where, depth, shape, bypass, rows)
    module.check_sum(shape, out, bypass_shape)
    size = tuple(map(max, field.size, bypass.size))
    field = replace(field, size=size, whole=field.whole or bypass.whole)
    if module.activation is not None:
        where = _join(name, "activation")
        with naming("activation"):
            out, field = _visit(module.activation, where, depth, out, field, rows)
    return out, field


def _macs(module: Module, shape: Shape) -> int:
    return module.macs(shape) if isinstance(module, (nn.Linear, *_CONVS)) else 0


_CONVS = (nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d, nn.ConvTranspose2d)
_WINDOWS = (nn.Conv1d, nn.Conv2d, nn.MaxPool1d, nn.MaxPool2d, nn.AvgPool1d, nn.AvgPool2d)
_POINTWISE = (
    nn.BatchNorm1d, nn.BatchNorm2d, nn.Dropout, nn.GELU, nn.Identity, nn.LeakyReLU, nn.ReLU,
    nn.ReflectionPad2d, nn.ReLU6, nn.Sigmoid, nn.SiLU, nn.Tanh, nn.ZeroPad2d,
)  # fmt: skip


def _through(module: Module, field: Field) -> Field:
    """The receptive field after a leaf layer; a layer unknown here sees the whole input."""
    if field.whole or isinstance(module, _POINTWISE):
        return field
    if isinstance(module, nn.Softmax | nn.LogSoftmax) and module.dim == 1:  # over channels
        return field
    if isinstance(module, _WINDOWS):
        return _window(field, module.kernel_size, module.dilation, module.stride)
    if isinstance(module, SubsampleAndPad):
        ones = (1,) * len(field.size)
        return _window(field, ones, ones, (module.stride,) * len(field.size))
    if isinstance(module, _CONVS):  # transposed: one output sees (k - 1) * d // s + 1 inputs
        terms = zip(module.kernel_size, module.dilation, module.stride, strict=True)
        taps = tuple((k - 1) * d // s + 1 for k, d, s in terms)
        ones = (1,) * len(taps)
        return _window(field, taps, ones, tuple(Fraction(1, s) for s in module.stride))
    return replace(field, whole=True)


def _window(field: Field, kernel: Shape, dilation: Shape, stride: tuple[Any, ...]) -> Field:
    terms = zip(field.size, kernel, dilation, field.stride, strict=True)
    size = tuple(math.ceil(f + (k - 1) * d * jump) for f, k, d, jump in terms)
    return Field(size, tuple(jump * s for jump, s in zip(field.stride, stride, strict=True)))


def _join(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name


def _cells(row: LayerSummary) -> tuple[str, ...]:
    name = "  " * (row.depth - 1) + row.name.rpartition(".")[2]
    field = str(row.field), row.field.stride_str()
    macs = _si(row.macs) if row.macs else ""
    parameters = f"{row.parameters:,}" if row.parameters else ""
    kind = row.type + (" (fused)" if row.fused else "")
    return name or row.type, kind, str(row.output_shape), parameters, macs, *field


def _line(cells: tuple[str, ...], widths: list[int]) -> str:
    """The first three columns to the left, the numbers to the right."""
    pairs = list(zip(cells, widths, strict=True))
    text = [cell.ljust(width) for cell, width in pairs[:3]]
    text += [cell.rjust(width) for cell, width in pairs[3:]]
    return "  ".join(text).rstrip()


def _per_axis(values: tuple[Any, ...]) -> str:
    return str(values[0]) if len(set(values)) == 1 else "x".join(map(str, values))


def _si(number: int) -> str:
    """Four digits with a unit: 118,013,952 -> 118.0 M."""
    for factor, unit in ((10**9, " G"), (10**6, " M"), (10**3, " k")):
        if number >= factor:
            value = number / factor
            return f"{value:.{3 if value < 10 else 2 if value < 100 else 1}f}{unit}"
    return str(number)


def _bytes(number: int) -> str:
    return f"{number / 2**20:.1f} MiB" if number >= 2**20 else f"{number / 2**10:.1f} KiB"
