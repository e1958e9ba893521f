from typing import Any

import numpy.typing as npt

Array = npt.NDArray[Any]
Geometry = tuple[int, int, int, int, int, int, int, int]

def conv2d(
    x: Array,
    weight: Array,
    bias: Array | None,
    y: Array,
    geometry: Geometry,
    lower: float = ...,
    upper: float = ...,
    scale: Array | None = None,
    residual: Array | None = None,
    prepared: Array | None = None,
) -> None: ...
def conv2d_grad_input(
    grad_y: Array,
    weight: Array,
    bias: Array | None,
    grad_x: Array,
    geometry: Geometry,
    residual: Array | None = None,
) -> None: ...
def conv2d_grad_weight(grad_y: Array, x: Array, grad_weight: Array, geometry: Geometry) -> None: ...
def conv2d_explain(
    itemsize: int,
    x_shape: tuple[int, ...],
    weight_shape: tuple[int, ...],
    y_shape: tuple[int, ...],
    geometry: Geometry,
) -> tuple[str, str, int]: ...
def channel_sum(x: Array, out: Array) -> None: ...
def linear(x: Array, weight: Array, bias: Array | None, y: Array) -> None: ...
def copy(x: Array, y: Array) -> None: ...
def copy_channels(x: Array, y: Array, adds: bool) -> None: ...
def isas() -> list[str]: ...
def isa() -> str: ...
def use_isa(name: str) -> int: ...
def set_num_threads(threads: int) -> None: ...
def get_num_threads() -> int: ...
def flush_denormals(on: bool) -> int: ...
def clear_workspace() -> None: ...
def workspace_bytes() -> int: ...
def limit_scratch(blocks: int) -> int: ...
def compiler() -> str: ...
def max_pool2d(
    x: Array,
    y: Array,
    index: Array | None,
    tap: Array | None,
    by_planes: bool,
    axes: tuple[int, ...],
) -> None: ...
def max_pool2d_tap_grad(
    grad_y: Array, tap: Array, by_planes: bool, grad_x: Array, axes: tuple[int, ...]
) -> None: ...
def conv2d_pooled_grad_weight(
    grad: Array,
    tap: Array,
    x: Array,
    grad_weight: Array,
    y_shape: tuple[int, ...],
    geometry: Geometry,
    axes: tuple[int, ...],
) -> bool: ...
def avg_pool2d(
    x: Array, y: Array, axes: tuple[int, ...], include_pad: bool, divisor: int
) -> None: ...
def avg_pool2d_grad(
    grad_y: Array, grad_x: Array, axes: tuple[int, ...], include_pad: bool, divisor: int
) -> None: ...
def index_add(value: Array, index: Array, plane: Array) -> bool: ...
def index_set(value: Array, index: Array, plane: Array) -> bool: ...
def index_get(plane: Array, index: Array, value: Array) -> bool: ...

ByChannel = tuple[Array | None, Array | None, Array | None, Array | None]

def batch_norm(
    x: Array,
    residual: Array | None,
    y: Array,
    by_channel: ByChannel,
    training: bool,
    momentum: float,
    eps: float,
    saved: Array | None,
    clamp: tuple[float, float],
) -> None: ...
def batch_norm_grad(
    grad_y: Array,
    x: Array,
    y: Array | None,
    grad_x: Array,
    grad_residual: Array | None,
    grad_weight: Array | None,
    grad_bias: Array | None,
    by_channel: ByChannel,
    training: bool,
    eps: float,
    saved: Array | None,
    clamp: tuple[float, float],
) -> None: ...
def add(a: Array, b: Array, y: Array) -> None: ...

Update = tuple[Array, Array, Array | None, Array | None, float, float]

def sgd_step(
    entries: list[Update], lr: float, momentum: float, weight_decay: float, nesterov: bool
) -> None: ...
def adam_step(
    entries: list[Update],
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    shrink: float,
) -> None: ...

class Buffers:
    def __init__(self, most_kept: int = 0) -> None: ...
    def take(self, count: int) -> Any: ...
    def clear(self) -> None: ...
    def count(self) -> tuple[int, int]: ...

results: Buffers
RELU: int
RELU6: int
LEAKY_RELU: int
SIGMOID: int
TANH: int
SILU: int
GELU: int
GELU_TANH: int

def elementwise(function: int, x: Array, y: Array, alpha: float) -> None: ...
def elementwise_grad(
    function: int, grad_y: Array, x: Array, grad_x: Array, alpha: float
) -> None: ...

NOWHERE: int
IN_ARENA: int
IN_INPUT: int
IN_OUTPUT: int
IN_CONSTANT: int
Operand = tuple[int, Any, tuple[int, int, int, int], tuple[int, int, int, int]]

def prepared_bytes(
    itemsize: int, x: Operand, weight: Array, y: Operand, geometry: Geometry
) -> int: ...
def prepare(
    itemsize: int, x: Operand, weight: Array, y: Operand, geometry: Geometry, prepared: Array
) -> None: ...
def chain_serves(
    itemsize: int,
    shapes: list[tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], Geometry]],
) -> int: ...

class Steps:
    def __init__(self, itemsize: int) -> None: ...
    def __len__(self) -> int: ...
    def conv(
        self,
        x: Operand,
        y: Operand,
        other: Operand | None,
        weight_shape: tuple[int, ...],
        weight: Array | None,
        prepared: Array | None,
        bias: Array | None,
        geometry: Geometry,
        lower: float,
        upper: float,
        chain: bool,
    ) -> None: ...
    def linear(
        self,
        x: Operand,
        y: Operand,
        weight: Array,
        bias: Array | None,
        lower: float,
        upper: float,
    ) -> None: ...
    def linear_f16(
        self,
        x: Operand,
        y: Operand,
        weight_shape: tuple[int, ...],
        packed: Array,
        scale: Array,
        bias: Array | None,
        lower: float,
        upper: float,
    ) -> None: ...
    def pool(
        self,
        x: Operand,
        y: Operand,
        mean: bool,
        axes: tuple[int, ...],
        include_pad: bool,
        divisor: int,
    ) -> None: ...
    def map(self, x: Operand, y: Operand, function: int, alpha: float) -> None: ...
    def add(
        self, x: Operand, y: Operand, other: Operand | None, lower: float, upper: float
    ) -> None: ...
    def copy(self, x: Operand, y: Operand) -> None: ...
    def run(
        self, x: Array, y: Array, arena: Array, first: int, end: int, seconds: Array | None
    ) -> None: ...
