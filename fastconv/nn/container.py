"""Sequential and Residual, of which models are put together; ModuleList and ModuleDict."""

from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, Sequence, ValuesView
from typing import Any, Self, overload

from .._messages import shown
from ..functional._memory import add
from ..functional.norm import NO_CLAMP
from . import _fusion
from ._format import is_channels_first, to_channels_first, to_channels_last
from .conv import _Conv
from .module import Array, Module, is_plain, naming

Shape = tuple[int, ...]
_Owned = tuple[Array, bool]  # an array, and whether nobody else has it


class _Layers(Module):
    """Named layers in their order, to be reached by name, as item or attribute, and by position."""

    _layers: dict[str, Module]

    def add_module(self, name: str, layer: Module | Mapping[str, Module]) -> None:
        """Append `layer` under `name`, which becomes part of its state_dict keys."""
        who = type(self).__name__
        if not isinstance(layer, Module):
            raise _not_a_module(who, name, layer)
        if not isinstance(name, str) or not name or "." in name:
            raise ValueError(f"{who}: a layer's name is a str without '.', got {shown(name)}")
        if name in self._layers:
            raise ValueError(f"{who}: there is a layer {shown(name)} already")
        if hasattr(self, name):
            raise ValueError(
                f"{who}: a layer must not be named {shown(name)}, which is an attribute of {who}"
            )
        self._check_child(name, layer)
        self._layers[name] = layer

    def named_children(self) -> Iterator[tuple[str, Module]]:
        yield from self._layers.items()

    def __setitem__(self, key: int | str, layer: Module) -> None:
        """Replace a layer, e.g. the head of a pretrained model."""
        name = key if isinstance(key, str) else list(self._layers)[key]
        if name not in self._layers:
            raise KeyError(name)
        if not isinstance(layer, Module):
            raise _not_a_module(type(self).__name__, name, layer)
        self._check_child(name, layer)
        self._layers[name] = layer

    def __getattr__(self, name: str) -> Module:
        layers = self.__dict__.get("_layers", {})
        if name in layers:
            found: Module = layers[name]
            return found
        raise AttributeError(f"{type(self).__name__!r} object has no attribute or layer {name!r}")

    def __setattr__(self, name: str, value: object) -> None:
        if name in self.__dict__.get("_layers", {}):
            self[name] = value  # type: ignore[assignment]  # __setitem__ checks
        elif isinstance(value, Module):
            who = type(self).__name__
            raise AttributeError(f"{who} has no layer {name!r}; add_module appends one")
        else:
            super().__setattr__(name, value)

    def __len__(self) -> int:
        return len(self._layers)

    def __delitem__(self, key: int | str | slice) -> None:
        """Remove a layer by name or position, or those of a slice."""
        names = [key] if isinstance(key, str) else list(self._layers)[key]
        for name in [names] if isinstance(names, str) else names:
            del self._layers[name]


class _Numbered(_Layers):
    """Layers that may be named by their positions; those names follow when positions change."""

    def append(self, module: Module) -> Self:
        """Append a layer under its position as name, as torch's containers do."""
        return self.insert(len(self._layers), module)

    def extend(self, modules: Iterable[Module]) -> Self:
        """Append every one of `modules`."""
        if not isinstance(modules, Iterable):
            who = type(self).__name__
            raise TypeError(f"{who}: modules must be a list of Modules, got {shown(modules)}")
        return self._insert(len(self._layers), list(modules))

    def insert(self, index: int, module: Module) -> Self:
        """Insert a layer before the one at `index`, as list.insert does."""
        return self._insert(index, [module])

    def _insert(self, index: int, modules: list[Module]) -> Self:
        """All of them or, if one is refused, none."""
        for position, module in enumerate(modules, index):
            if not isinstance(module, Module):
                raise _not_a_module(type(self).__name__, str(position), module)
            self._check_child(str(position), module)
        layers = list(self._layers.items())
        layers[index:index] = [("0", module) for module in modules]  # any number: _place counts
        self._place(layers)
        return self

    def pop(self, key: int | str = -1) -> Module:
        """Remove the layer at a position or of a name, and return it."""
        name = key if isinstance(key, str) else list(self._layers)[key]
        module = self._layers[name]
        del self[name]
        return module

    def __delitem__(self, key: int | str | slice) -> None:
        super().__delitem__(key)
        self._place(list(self._layers.items()))

    def _place(self, layers: list[tuple[str, Module]]) -> None:
        names = [str(i) if name.isdecimal() else name for i, (name, _) in enumerate(layers)]
        self._layers = dict(zip(names, [module for _, module in layers], strict=True))


class Sequential(_Numbered):
    """Layers one after the other: `Sequential(a, b)` or `Sequential({"conv1": a, "fc": b})`.

    Children can be reached by position (`model[0]`, `model[1:]`) and by name
    (`model["conv1"]`, `model.conv1`).
    """

    def __init__(self, *layers: Module | Mapping[str, Module]) -> None:
        self._layers = {}
        if len(layers) == 1 and isinstance(layers[0], Mapping):
            for name, module in layers[0].items():
                self.add_module(name, module)
        else:
            for i, layer in enumerate(layers):
                self.add_module(str(i), layer)

    def forward(self, x: Array) -> Array:
        if not self.recording:
            return self._run(x)
        with self._memory():
            return self._run(x)

    def _run(self, x: Array) -> Array:
        layers = list(self._layers.values())
        self._saved = None
        if not (_starts_with_conv(layers) and is_channels_first(x)):
            return _fusion.run(layers, x, self._layers)[0]
        y = to_channels_first(_fusion.run(layers, to_channels_last(x), self._layers)[0])
        self._keep("channels first")
        return y

    def backward(self, grad: Array) -> Array:
        return self._go_back(grad, False)[0]

    def _go_back(self, grad: Array, owned: bool) -> tuple[Array, bool]:
        was_first, self._saved = self._saved is not None, None
        with self._memory():
            if was_first and is_channels_first(grad):
                grad = to_channels_last(grad)
            grad, owned = go_back(list(self._layers.values()), grad, owned)
            return to_channels_first(grad) if was_first else grad, owned

    def backward_parameters(self, grad: Array) -> None:
        """Go back as far as the first layer that has a parameter to learn."""
        was_first, self._saved = self._saved is not None, None
        with self._memory():
            if was_first and is_channels_first(grad):
                grad = to_channels_last(grad)
            backward_parameters(list(self._layers.values()), grad)

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        for name, layer in self._layers.items():
            with naming(name):
                shape = layer.output_shape(shape)
        return shape

    def fused_runs(self) -> list[tuple[str, ...]]:
        """The names of the layers that one kernel computes together, run by run."""
        return _fusion.fused_names(list(self._layers), list(self._layers.values()))

    def extra_repr(self) -> str:
        return _fusion_repr(self.fused_runs())

    @overload
    def __getitem__(self, key: int | str) -> Module: ...
    @overload
    def __getitem__(self, key: slice) -> "Sequential": ...
    def __getitem__(self, key: int | str | slice) -> Module:
        if isinstance(key, str):
            return self._layers[key]
        if isinstance(key, slice):
            return Sequential(dict(list(self._layers.items())[key]))
        return list(self._layers.values())[key]

    def __iter__(self) -> Iterator[Module]:
        return iter(self._layers.values())


class ModuleList(_Numbered):
    """Modules named "0", "1" and so on, for a model whose `forward` and `backward` call them."""

    def __init__(self, modules: Iterable[Module] = ()) -> None:
        self._layers = {}
        self.extend(modules)

    @overload
    def __getitem__(self, key: int | str) -> Module: ...
    @overload
    def __getitem__(self, key: slice) -> "ModuleList": ...
    def __getitem__(self, key: int | str | slice) -> Module:
        if isinstance(key, str):
            return self._layers[key]
        modules = list(self._layers.values())
        return ModuleList(modules[key]) if isinstance(key, slice) else modules[key]

    def __iter__(self) -> Iterator[Module]:
        return iter(self._layers.values())


class ModuleDict(_Layers):
    """Modules by name, for a model whose `forward` and `backward` call them."""

    def __init__(self, modules: Mapping[str, Module] | None = None) -> None:
        self._layers = {}
        if modules is not None and not isinstance(modules, Mapping):
            raise TypeError(
                f"ModuleDict: modules must be a dict of named Modules, got {shown(modules)}"
            )
        for name, module in (modules or {}).items():
            self.add_module(name, module)

    def __getitem__(self, key: str) -> Module:
        return self._layers[key]

    def __setitem__(self, key: int | str, layer: Module) -> None:
        """Replace a module, or append one under a new name."""
        if key in self._layers:
            super().__setitem__(key, layer)
        else:
            self.add_module(key, layer)  # type: ignore[arg-type]  # which it checks

    def __iter__(self) -> Iterator[str]:
        return iter(self._layers)

    def __contains__(self, key: object) -> bool:
        return key in self._layers

    def keys(self) -> KeysView[str]:
        return self._layers.keys()

    def values(self) -> ValuesView[Module]:
        return self._layers.values()

    def items(self) -> ItemsView[str, Module]:
        return self._layers.items()


class Residual(Module):
    """activation(body(x) + shortcut(x)) (He et al. 2015).

    Parameters
    ----------
    body
        Named layers, run in order, or a Sequential of them. The names are hoisted:
        `Residual({"conv1": ...})` has the key `conv1.weight`.
    shortcut
        A module, called `downsample` in the state_dict as in torchvision; None is the identity.
    activation
        A module run on the sum, or None.
    """

    def __init__(
        self,
        body: Mapping[str, Module] | Sequential,
        shortcut: Module | None = None,
        activation: Module | None = None,
    ) -> None:
        if type(body) is Sequential:
            body = body._layers
        if not isinstance(body, Mapping):
            raise TypeError(
                "Residual: body must be a dict of named layers or a Sequential, as "
                f'Residual({{"conv": nn.Conv2d(...), "relu": nn.ReLU()}}), got {shown(body)}'
            )
        for role, module in (("shortcut", shortcut), ("activation", activation)):
            if module is not None and not isinstance(module, Module):
                raise TypeError(f"Residual: {role} must be a Module or None, got {shown(module)}")
        layers = Sequential(body)
        for name in layers._layers:
            if name in ("body", "shortcut", "downsample", "activation") or hasattr(self, name):
                raise ValueError(f"Residual: the body must not have a layer named {shown(name)}")
        self.body = layers
        self.shortcut = shortcut
        self.activation = activation

    def forward(self, x: Array) -> Array:
        self._saved = None
        layers = list(self.body)
        adds_in_norm = _fusion.ends_with_norm(layers, self.activation)
        y, owned = _fusion.run(layers[:-1] if adds_in_norm else layers, x, self.body._layers)
        bypass = x
        if self.shortcut is not None:
            bypass, _ = _fusion.run([self.shortcut], x, ("downsample",))
        if adds_in_norm and y.dtype == bypass.dtype:
            self.check_sum(x.shape, layers[-1].output_shape(y.shape), bypass.shape)
            return self._norm_of_sum(layers[-1], y, bypass, owned)
        if adds_in_norm:
            y, owned = layers[-1](y), True
        self.check_sum(x.shape, y.shape, bypass.shape)
        total = add(y, bypass, owned)
        return total if self.activation is None else self._activated(total)

    def check_sum(self, x: Shape, y: Shape, bypass: Shape) -> None:
        """Refuse an input whose two ways do not end in one shape."""
        if y != bypass:
            other = "" if self.shortcut is None else f", the shortcut {bypass}"
            raise ValueError(
                f"Residual: the body gives shape {y}{other} for an input of shape {x}; "
                "their sum needs one shape"
            )

    def _norm_of_sum(self, norm: Any, y: Array, bypass: Array, owned: bool) -> Array:
        """The last layer of the body, the sum and the activation as one kernel."""
        activation: Any = self.activation
        clamp = NO_CLAMP if activation is None else activation.clamp
        total: Array = norm.run(y, clamp, bypass, owned)
        self._keep(norm)
        if activation is not None:
            activation.pass_through()
        return total

    def _activated(self, total: Array) -> Array:
        y: Array = self.activation(total)  # type: ignore[misc]
        return y

    def _split(self, grad: Array, owned: bool) -> tuple[_Owned, _Owned, list[Module]]:
        """The gradients of the body and of the shortcut, and the layers of the body still to do."""
        layers = list(self.body)
        if self.activation is not None:
            grad, owned = go_back([self.activation], grad, owned)
        if self._saved is None:
            return (grad, False), (grad, False), layers  # each other's
        (norm,) = self._take()
        grad_body, grad_bypass, owned = norm.run_backward(grad, owned)
        return (grad_body, True), (grad_bypass, owned), layers[:-1]

    def backward(self, grad: Array) -> Array:
        return self._go_back(grad, False)[0]

    def _go_back(self, grad: Array, owned: bool) -> tuple[Array, bool]:
        (grad, owned), (grad_bypass, owns_bypass), layers = self._split(grad, owned)
        shortcut: Any = self.shortcut
        adds_in_shortcut = (
            shortcut is not None and shortcut._backward_onto is not None and is_plain(shortcut)
        )
        if shortcut is not None and not adds_in_shortcut:
            grad_bypass, _ = go_back([shortcut], grad_bypass, owns_bypass)
        adds_in_conv = not adds_in_shortcut and _fusion.starts_with_conv(layers)
        grad, owned = go_back(layers[1:] if adds_in_conv else layers, grad, owned)
        if adds_in_conv:
            first: Any = layers[0]
            return first.backward_plus(grad, grad_bypass), True
        if adds_in_shortcut and owned:
            shortcut._backward_onto(grad_bypass, grad)
            return grad, True
        if adds_in_shortcut:
            grad_bypass = shortcut.backward(grad_bypass)
        return add(grad, grad_bypass, owned), True

    def backward_parameters(self, grad: Array) -> None:
        (grad, _), (grad_bypass, _), layers = self._split(grad, False)
        if self.shortcut is not None:
            self.shortcut.backward_parameters(grad_bypass)
        backward_parameters(layers, grad)

    def fused_runs(self) -> list[tuple[str, ...]]:
        """The names of the layers that one kernel computes together, run by run; "sum" is the
        addition of the shortcut."""
        names, layers = [*self.body._layers], list(self.body)
        adds_in_norm = _fusion.ends_with_norm(layers, self.activation)
        runs = _fusion.fused_names(names, layers[:-1] if adds_in_norm else layers)
        if adds_in_norm:
            end = () if self.activation is None else ("activation",)
            runs.append((names[-1], "sum", *end))
        return runs

    def extra_repr(self) -> str:
        return _fusion_repr(self.fused_runs())

    def output_shape(self, shape: Shape) -> Shape:
        y, bypass = self.body.output_shape(shape), shape
        if self.shortcut is not None:
            with naming("downsample"):
                bypass = self.shortcut.output_shape(shape)
        self.check_sum(shape, y, bypass)
        return y

    def __getattr__(self, name: str) -> Module | None:
        body = self.__dict__.get("body")
        if name == "downsample":
            return self.__dict__.get("shortcut")
        if body is not None and name in body._layers:
            found: Module = body[name]
            return found
        raise AttributeError(f"{type(self).__name__!r} object has no attribute or layer {name!r}")

    def __setattr__(self, name: str, value: object) -> None:
        body = self.__dict__.get("body")
        if name == "downsample":
            super().__setattr__("shortcut", value)
        elif body is not None and name in body._layers:
            if isinstance(value, Module):
                self._check_child(name, value)
            body[name] = value
        else:
            super().__setattr__(name, value)

    def named_children(self) -> Iterator[tuple[str, Module]]:
        yield from self.body.named_children()
        if self.shortcut is not None:
            yield "downsample", self.shortcut
        if self.activation is not None:
            yield "activation", self.activation


def _not_a_module(who: str, name: object, layer: object) -> TypeError:
    advice = ""
    if isinstance(layer, (list, tuple)) and who == "Sequential":
        advice = "; give the layers one by one: Sequential(*layers)"
    elif isinstance(layer, type) and issubclass(layer, Module):
        advice = f"; make one: {layer.__name__}(...)"
    return TypeError(f"{who}: layer {shown(name)} must be a Module, got {shown(layer)}{advice}")


def _fusion_repr(runs: list[tuple[str, ...]]) -> str:
    return f"fused: {', '.join('+'.join(run) for run in runs)}" if runs else ""


def _starts_with_conv(layers: Sequence[Module]) -> bool:
    while layers and isinstance(layers[0], Sequential | Residual):
        first = layers[0]
        layers = list(first.body if isinstance(first, Residual) else first)
    return len(layers) > 0 and isinstance(layers[0], _Conv)


def go_back(layers: Sequence[Module], grad: Array, owned: bool) -> _Owned:
    """`grad` through the layers; owned: whether nobody else has `grad`, which may be written over
    then."""
    for layer in reversed(layers):
        if is_plain(layer):
            grad, owned = layer._go_back(grad, owned)
        else:
            grad, owned = layer.backward(grad), False
    return grad, owned


def backward_parameters(layers: Sequence[Module], grad: Array) -> None:
    """Go back through `layers` as far as the first one that has a parameter to learn."""
    first = next((i for i, layer in enumerate(layers) if _learns(layer)), len(layers))
    pooled = _fusion.ran_with_pool(layers, first)
    grad, owned = go_back(layers[first + (3 if pooled else 1) :], grad, False)
    if pooled:
        conv: Any = layers[first]
        conv.backward_pooled(grad, owned, *layers[first + 1 : first + 3])
    elif first < len(layers):
        layers[first].backward_parameters(grad)
    for layer in layers[:first]:
        layer.release()


def _learns(layer: Module) -> bool:
    return any(parameter.requires_grad for parameter in layer.parameters())
