"""Module: a tree of layers, each with a forward and a backward of its own.

There is no tape. A layer in training mode keeps what its backward needs in one slot, `_saved`;
`backward` takes it out again. See `Module` for the rules that follow from that.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import update_wrapper
from types import FunctionType
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from .. import _core
from .._messages import shown, typed
from ..functional._checks import flag, float_dtype
from ..functional._memory import using
from .parameter import Parameter, zero_grad

Array = npt.NDArray[Any]
Rng = np.random.Generator | int | None


class _Passed:
    def __reduce__(self) -> str:  # a copy is the same object
        return "PASSED"


PASSED = _Passed()  # recorded by a layer that another one's kernel computed: gradients pass through


class LayerError(ValueError):
    """What a layer inside a model refuses; `layer` is its dotted name."""

    def __init__(self, layer: str, reason: str) -> None:
        super().__init__(f"layer {layer}: {reason}")
        self.layer, self.reason = layer, reason


@contextmanager
def naming(child: str) -> Iterator[None]:
    """A `with` block whose ValueErrors name the child of a container that they come from."""
    try:
        yield
    except LayerError as error:
        raise LayerError(_join(child, error.layer), error.reason) from error.__cause__
    except ValueError as error:
        raise LayerError(child, str(error)) from error


def unfit(function: str, shape: Any, axes: str, error: ValueError) -> ValueError:
    """The error for an input shape that a layer of a model refuses."""
    where = "" if isinstance(error, LayerError) else "the model: "
    return ValueError(
        f"{function}: input_shape {shown(shape)}, {axes}, does not fit {where}{error}"
    )


class IncompatibleKeys(NamedTuple):
    """What `load_state_dict(strict=False)` did not find a partner for."""

    missing_keys: list[str]
    unexpected_keys: list[str]


class Module:
    """Base class of layers and models.

    A subclass sets `Parameter` and `Module` attributes in its constructor (they are found by
    themselves; buffers by `register_buffer`), and writes `forward` and `backward`. An attribute
    that held one takes only another or None later:

    - `forward(x)` returns y; when `self.recording` it keeps what backward needs: `self._keep(x)`.
    - `backward(grad_y)` gets it back by `self._take()`, gives every parameter its gradient by
      `Parameter.accumulate` and returns grad_x. The result may be `grad_y` itself or a view of it;
      otherwise it belongs to the caller. `grad_y` is never written to.

    One slot: only the last training forward is kept. A second backward, or one before any
    forward, raises RuntimeError. A module object must therefore occur once in a model; to share
    weights between two layers, share the Parameter: `b.weight = a.weight`.

    `train()` sets `training` and `recording`; `eval()` clears both and drops what was kept, so
    that calls in many threads are safe. `eval(backward=True)` computes as in eval (running
    statistics, no dropout) and still records: for saliency maps, or frozen batch norms.

    Examples
    --------
    Two convolutions of one input, their results joined; a model of its own, or a layer of another:

    >>> class Joined(nn.Module):
    ...     def __init__(self, inputs, outputs):
    ...         self.left = nn.Conv2d(inputs, outputs, 1)
    ...         self.right = nn.Conv2d(inputs, outputs, 3, padding=1)
    ...
    ...     def forward(self, x):
    ...         return np.concatenate([self.left(x), self.right(x)], axis=1)
    ...
    ...     def backward(self, grad):
    ...         left, right = np.split(grad, 2, axis=1)
    ...         return self.left.backward(left) + self.right.backward(right)

    An input that goes two ways has two gradients, and their sum is its own.
    """

    training: bool = True
    recording: bool = True
    # The next three count for layers of the library only, see `is_plain`.
    fresh: ClassVar[bool] = False  # forward and backward return new arrays and do not keep them
    _methods: ClassVar[Any] = None  # what the class was made with
    # (grad, total): total += backward(grad), of a layer that has a better way; None: it has not
    _backward_onto: ClassVar[Any] = None
    _saved: Any = None
    _buffers_of_steps: _core.Buffers | None = None
    _buffers: tuple[str, ...] = ()
    _parameters: tuple[str, ...] = ()  # attributes that have held a Parameter, or may

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        in_library = cls.__module__.partition(".")[0] == __name__.partition(".")[0]
        cls._methods = (cls.__call__, cls.forward, cls.backward) if in_library else None
        if in_library and not cls.__name__.startswith("_") and "__init__" not in vars(cls):
            _name_constructor(cls)

    # --- to be written by subclasses ---------------------------------------------------------

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(
            f"{type(self).__name__} has no forward method: write forward(self, x), which returns y"
        )

    def backward(self, grad: Array) -> Array:
        """Return the gradient of forward's input; accumulate those of the parameters."""
        raise TypeError(
            f"{type(self).__name__} has no backward method: write backward(self, grad), which "
            "calls the backward of the layers in reverse order, each with the gradient of its "
            "result, and returns that of the input; see help(nn.Module)"
        )

    def backward_parameters(self, grad: Array) -> None:
        """Like `backward`, where nobody needs the gradient of the input.

        Training loops call it on the whole model: the first layer then skips its share.
        """
        self.backward(grad)

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of forward's result (batch axis included) for an input of `shape`.

        The layers of `fastconv.nn` calculate it; this fallback runs forward on zeros.
        """
        modes = [(module, module.training, module.recording) for module in self.modules()]
        dtype = next((p.dtype for p in self.parameters()), np.dtype(np.float32))
        self.eval()
        try:
            return tuple(np.shape(self(np.zeros(shape, dtype))))
        finally:
            for module, training, recording in modes:
                module.training, module.recording = training, recording

    def extra_repr(self) -> str:
        """What `repr` shows between the parentheses."""
        return ""

    # --- attributes --------------------------------------------------------------------------

    def __setattr__(self, name: str, value: object) -> None:
        if isinstance(value, Parameter):
            if name not in self._parameters:
                self.__dict__["_parameters"] = (*self._parameters, name)
        elif isinstance(value, Module):
            self._check_child(name, value)
        elif value is not None:
            self._check_attribute(name, value)
        super().__setattr__(name, value)

    def _check_child(self, name: str, child: "Module") -> None:
        """Refuse a module that this one is in: nobody could walk the tree to its end."""

        def is_or_has(module: Module) -> bool:  # a Residual's body is no child, but an attribute
            return module is self or any(value is self for value in vars(module).values())

        if any(map(is_or_has, child.modules())):
            raise ValueError(
                f"{type(self).__name__}.{name}: must not be this module or one that contains it, "
                f"got {type(child).__name__}; a model is a tree; to keep a reference to a parent, "
                "put it in a list: self.parent = [parent]"
            )

    def _check_attribute(self, name: str, value: object) -> None:
        """Refuse a value that would take the place of a parameter or module unnoticed."""
        who = f"{type(self).__name__}.{name}"
        if name in self._parameters:
            raise TypeError(
                f"{who}: must be a Parameter or None, got {_kind(value)}; write "
                f"{name}.data[...] = array, or assign nn.Parameter(array)"
            )
        if isinstance(self.__dict__.get(name), Module):
            raise TypeError(f"{who}: must be a Module or None, got {_kind(value)}")

    def register_parameter(self, name: str, parameter: Parameter | None) -> None:
        """Set attribute `name`, which holds a Parameter or None from now on."""
        if parameter is not None and not isinstance(parameter, Parameter):
            raise TypeError(
                f"register_parameter: {shown(name)} must be a Parameter or None, "
                f"got {_kind(parameter)}"
            )
        if name not in self._parameters:
            self.__dict__["_parameters"] = (*self._parameters, name)
        setattr(self, name, parameter)

    # --- saved arrays ------------------------------------------------------------------------

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.forward(*args, **kwargs)

    def _keep(self, *saved: Any) -> None:
        if self.recording:
            self.__dict__["_saved"] = saved  # past __setattr__, in every step

    def _take(self) -> Any:
        saved, self.__dict__["_saved"] = self._saved, None
        if saved is None:
            raise RuntimeError(
                f"{type(self).__name__}.backward: forward kept nothing to go back through; call "
                "forward in train() mode first, then backward once per forward (a layer that "
                "occurs twice in a model must be two layers sharing a Parameter)"
            )
        return saved

    def _go_back(self, grad: Array, owned: bool) -> tuple[Array, bool]:
        """`backward(grad)`, and whether nobody else has the result.

        owned: the same of `grad`, which may be written over then.
        """
        result = self.backward(grad)
        return result, owned if result is grad else self.fresh

    def release(self) -> None:
        """Drop what the last training forward kept, without a backward."""
        for module in self.modules():
            module.__dict__["_saved"] = None

    def _memory(self) -> using:
        """A `with` block in which large results use the memory of the last step again."""
        if self._buffers_of_steps is None:
            self._buffers_of_steps = _core.Buffers()
        return using(self._buffers_of_steps)

    # --- the tree ----------------------------------------------------------------------------

    def named_children(self) -> Iterator[tuple[str, "Module"]]:
        """(name, module) of the direct children; containers override this one."""
        for name, value in vars(self).items():
            if isinstance(value, Module):
                yield name, value

    def children(self) -> Iterator["Module"]:
        return (child for _, child in self.named_children())

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, "Module"]]:
        """(dotted name, module) of the whole tree, parents first, each module once."""
        seen: set[int] = set()
        for name, module in self._walk(prefix):
            if id(module) not in seen:
                seen.add(id(module))
                yield name, module

    def _walk(self, prefix: str) -> Iterator[tuple[str, "Module"]]:
        yield prefix, self
        for name, child in self.named_children():
            yield from child._walk(_join(prefix, name))

    def modules(self) -> Iterator["Module"]:
        return (module for _, module in self.named_modules())

    def get_submodule(self, target: str) -> "Module":
        """The module of that dotted name, as `named_modules` gives it; "" is this one."""
        module = self
        for name in target.split(".") if target else ():
            children = dict(module.named_children())
            if name not in children:
                raise AttributeError(
                    f"{type(self).__name__}.get_submodule: there is no {shown(target)}; "
                    f"{type(module).__name__} has the children {_some(list(children))}"
                )
            module = children[name]
        return module

    def apply(self, function: Callable[["Module"], Any]) -> Self:
        """Call `function` with every module of the tree, children first."""
        for child in self.children():
            child.apply(function)
        function(self)
        return self

    def named_parameters(self, prefix: str = "") -> Iterator[tuple[str, Parameter]]:
        """(dotted name, parameter); a shared parameter comes once, under its first name."""
        seen: set[int] = set()
        for name, module in self._walk(prefix):
            for key, value in vars(module).items():
                if isinstance(value, Parameter) and id(value) not in seen:
                    seen.add(id(value))
                    yield _join(name, key), value

    def parameters(self) -> Iterator[Parameter]:
        return (parameter for _, parameter in self.named_parameters())

    def register_buffer(self, name: str, value: Array | None) -> None:
        """Set attribute `name`, an array that belongs to the state but is not learned."""
        setattr(self, name, value)
        if name not in self._buffers:
            self._buffers = (*self._buffers, name)

    def named_buffers(self, prefix: str = "") -> Iterator[tuple[str, Array]]:
        for name, module in self.named_modules(prefix):
            for key in module._buffers:
                if getattr(module, key) is not None:
                    yield _join(name, key), getattr(module, key)

    def buffers(self) -> Iterator[Array]:
        return (buffer for _, buffer in self.named_buffers())

    # --- modes and gradients -----------------------------------------------------------------

    def train(self, mode: bool = True) -> Self:
        """Training behaviour, and keep what backward needs; `train(False)` is `eval()`."""
        if not mode:
            return self.eval()
        for module in self.modules():
            module.__dict__.update(training=True, recording=True)
        return self

    def eval(self, backward: bool = False) -> Self:
        """Inference behaviour; with `backward=True` the layers still record for backward."""
        for module in self.modules():
            module.__dict__.update(training=False, recording=backward)
            module.__dict__.update(_saved=None, _buffers_of_steps=None)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget all gradients (`Parameter.grad = None`), or with False fill them with zeros."""
        zero_grad(f"{type(self).__name__}.zero_grad", self.parameters(), set_to_none)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Freeze (False) or unfreeze (True) every parameter of this module."""
        learns = flag(f"{type(self).__name__}.requires_grad_", "requires_grad", requires_grad)
        for parameter in self.parameters():
            parameter.requires_grad = learns
        return self

    def to(self, *targets: Any, device: Any = None, dtype: npt.DTypeLike | None = None) -> Self:
        """Cast the floats of the state: `to(np.float64)`, `to(dtype="float32")`.

        `to("cpu")` changes nothing, other devices are refused. Arrays change their identity and
        the state of an optimizer its dtype: make optimizers after a cast. Casts drop what the last
        training forward kept.

        Raises
        ------
        TypeError
            The dtype is not float32 or float64.
        ValueError
            The device is not "cpu".
        """
        who, devices = f"{type(self).__name__}.to", [device]
        for target in targets:
            try:
                dtype = dtype if target is None else np.dtype(target)
            except TypeError:
                devices.append(target)
        for target in devices:
            if target is not None and str(target) != "cpu":
                raise ValueError(
                    f"{who}: must be a float dtype of NumPy, or 'cpu', the only device; got "
                    f"{shown(target)}"
                )
        if dtype is not None:
            self._cast(float_dtype(who, dtype))
        return self

    def _cast(self, dtype: np.dtype[Any]) -> None:
        for parameter in self.parameters():
            parameter.data = parameter.data.astype(dtype, copy=False)
            if parameter.grad is not None:
                parameter.grad = parameter.grad.astype(dtype, copy=False)
        for module in self.modules():
            module._saved = module._buffers_of_steps = None
            for key in module._buffers:
                value = getattr(module, key)
                if value is not None and value.dtype.kind == "f":
                    setattr(module, key, value.astype(dtype, copy=False))

    def float(self) -> Self:
        """`to(np.float32)`."""
        return self.to(np.float32)

    def double(self) -> Self:
        """`to(np.float64)`."""
        return self.to(np.float64)

    def cpu(self) -> Self:
        """The module: every array is in the memory of the CPU."""
        return self

    # --- state -------------------------------------------------------------------------------

    def _state(self) -> Iterator[tuple[str, Array]]:
        """(key, the live array) in torch's order: parameters, buffers, then children."""
        for name, module in self._walk(""):
            for key, value in vars(module).items():
                if isinstance(value, Parameter):
                    yield _join(name, key), value.data
            for key in module._buffers:
                if getattr(module, key) is not None:
                    yield _join(name, key), getattr(module, key)

    def state_dict(self) -> dict[str, Array]:
        """Parameters and buffers by torch's keys. The arrays are copies: a snapshot."""
        return {key: value.copy() for key, value in self._state()}

    def load_state_dict(
        self, state_dict: Mapping[str, npt.ArrayLike], strict: bool = True
    ) -> IncompatibleKeys:
        """Copy arrays into the parameters and buffers of the same keys.

        Everything is checked before anything is written. float arrays are cast to the model's
        float dtype, integer ones to its integer dtype; other casts are refused. A missing
        `num_batches_tracked` is tolerated, as by torch (checkpoints older than 2018).

        Raises
        ------
        ValueError
            `strict` and keys are missing or unexpected; or an array has another shape.
        TypeError
            `state_dict` is no dict; or an array has a dtype of another kind.
        """
        if not isinstance(state_dict, Mapping):
            raise TypeError(
                f"load_state_dict: state_dict must be a dict of arrays, got {typed(state_dict)}"
            )
        own = dict(self._state())
        arrays = {key: np.asarray(state_dict[key]) for key in own if key in state_dict}
        missing = [key for key in own if key not in arrays]
        unexpected = [key for key in state_dict if key not in own]
        required = [key for key in missing if not key.endswith("num_batches_tracked")]
        who = type(self).__name__
        if strict and (required or unexpected):
            raise ValueError(
                f"load_state_dict: {who} has {len(own)} arrays; "
                f"missing keys: {_some(required)}; unexpected keys: {_some(unexpected)}"
            )
        shapes = [
            f"{key} is {array.shape}, {who} expects {own[key].shape}"
            for key, array in arrays.items()
            if array.shape != own[key].shape
        ]
        if shapes:
            raise ValueError(f"load_state_dict: wrong shapes: {_some(shapes)}")
        for key, array in arrays.items():
            if not _castable(array.dtype, own[key].dtype):
                raise TypeError(
                    f"load_state_dict: {key} has dtype {array.dtype}, which is not cast "
                    f"to {own[key].dtype}"
                )
        for key, array in arrays.items():
            own[key][...] = array
        return IncompatibleKeys(missing, unexpected)

    # --- printing ----------------------------------------------------------------------------

    def __repr__(self) -> str:
        lines = [f"({name}): {child!r}" for name, child in self.named_children()]
        head, extra = type(self).__name__, self.extra_repr()
        if not lines:
            return f"{head}({extra})"
        body = "\n".join(lines).replace("\n", "\n  ")
        return f"{head}({extra}\n  {body}\n)"


def as_generator(rng: Rng, who: str = "init") -> np.random.Generator:
    """A Generator from a Generator (itself), a seed, or None (fresh entropy)."""
    if isinstance(rng, np.random.Generator):
        return rng
    if rng is None:
        return np.random.default_rng()
    if not isinstance(rng, (int, np.integer)) or isinstance(rng, bool):
        raise TypeError(
            f"{who}: rng must be a numpy.random.Generator, an int seed or None, got {typed(rng)}"
        )
    if rng < 0:
        raise ValueError(f"{who}: rng must be a seed of at least 0, got {shown(rng)}")
    return np.random.default_rng(rng)


def rng_state(model: Module) -> dict[str, dict[str, Any]]:
    """States of all random generators in `model` (dropout), by layer name; for exact resume."""
    generators = ((name, getattr(m, "rng", None)) for name, m in model.named_modules())
    return {
        name: dict(rng.bit_generator.state)
        for name, rng in generators
        if isinstance(rng, np.random.Generator)
    }


def set_rng_state(model: Module, state: Mapping[str, dict[str, Any]]) -> None:
    """Put back what `rng_state` returned.

    Raises
    ------
    ValueError
        The names are not those of `model`'s random layers.
    """
    names = list(rng_state(model))
    if sorted(names) != sorted(state):
        raise ValueError(f"set_rng_state: the model has {names}, the state has {list(state)}")
    modules = dict(model.named_modules())
    for name, value in state.items():
        layer: Any = modules[name]
        layer.rng.bit_generator.state = value


def is_plain(layer: Module) -> bool:
    """Whether a layer is the library's, its methods replaced neither in the object nor in a class.

    Of such a layer it is known what it keeps, and who else has what it returns.
    """
    kind = type(layer)
    return (
        kind._methods == (kind.__call__, kind.forward, kind.backward)
        and "forward" not in layer.__dict__
        and "backward" not in layer.__dict__
    )


def _name_constructor(cls: type) -> None:
    """Let Python's messages on a call with wrong arguments name `cls`, not a private base class."""
    inherited = cls.__init__  # type: ignore[misc]
    if isinstance(inherited, FunctionType):
        code, names, closure = inherited.__code__, inherited.__globals__, inherited.__closure__
        own = FunctionType(code, names, "__init__", inherited.__defaults__, closure)
        update_wrapper(own, inherited)
        del own.__wrapped__  # type: ignore[attr-defined]
        own.__kwdefaults__ = inherited.__kwdefaults__
        own.__qualname__ = f"{cls.__name__}.__init__"
        cls.__init__ = own  # type: ignore[misc]


def _kind(value: object) -> str:
    """What a value is, in a few words."""
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape}"
    return typed(value)


def _join(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name


def _some(items: list[str], limit: int = 8) -> str:
    more = f" and {len(items) - limit} more" if len(items) > limit else ""
    return (", ".join(items[:limit]) or "none") + more


def _castable(source: np.dtype[Any], target: np.dtype[Any]) -> bool:
    return (
        source == target
        or source.kind == target.kind == "f"
        or (target.kind == "i" and source.kind in "iu")
    )
