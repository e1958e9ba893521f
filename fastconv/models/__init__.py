"""Ready models as trees of `fastconv.nn` layers, a registry of their names, and `summary`."""

import inspect
from collections.abc import Callable
from typing import Any

from .._messages import shown
from ..nn import Module
from .classic import lenet5, logistic_regression, mlp, softmax_regression
from .mobilenet import mobilenet_v2
from .resnet import (
    cifar_resnet,
    resnet,
    resnet8,
    resnet18,
    resnet20,
    resnet32,
    resnet34,
    resnet44,
    resnet50,
    resnet56,
    resnet101,
    resnet110,
    resnet152,
)
from .resnet1d import resnet1d
from .summary import LayerSummary, Summary, summary
from .vgg import vgg, vgg11, vgg11_bn, vgg16, vgg16_bn

_MODELS: dict[str, Callable[..., Module]] = {
    factory.__name__: factory
    for factory in (
        logistic_regression,
        softmax_regression,
        mlp,
        lenet5,
        resnet8,
        resnet20,
        resnet32,
        resnet44,
        resnet56,
        resnet110,
        resnet18,
        resnet34,
        resnet50,
        resnet101,
        resnet152,
        resnet1d,
        mobilenet_v2,
        vgg11,
        vgg11_bn,
        vgg16,
        vgg16_bn,
    )
}


def names() -> list[str]:
    """The names `create` knows."""
    return list(_MODELS)


def options(name: str) -> dict[str, Any]:
    """The keyword arguments of a model and their defaults."""
    parameters = inspect.signature(_find(name)).parameters
    return {key: parameter.default for key, parameter in parameters.items()}


def create(name: str, **kwargs: Any) -> Module:
    """Build a model by name: `create("resnet20", num_classes=10, rng=0)`.

    Raises
    ------
    ValueError
        The name is unknown (the message lists the names).
    TypeError
        The model does not take one of the keyword arguments (the message lists them).
    """
    factory, known = _find(name), options(name)
    for key in kwargs:
        if key not in known:
            raise TypeError(f"create: {name} takes no {shown(key)}; it takes {', '.join(known)}")
    return factory(**kwargs)


def _find(name: str) -> Callable[..., Module]:
    if name not in _MODELS:
        raise ValueError(f"models: no model named {shown(name)}; there are {', '.join(_MODELS)}")
    return _MODELS[name]


__all__ = [
    "LayerSummary",
    "Summary",
    "cifar_resnet",
    "create",
    "lenet5",
    "logistic_regression",
    "mlp",
    "mobilenet_v2",
    "names",
    "options",
    "resnet",
    "resnet1d",
    "resnet8",
    "resnet18",
    "resnet20",
    "resnet32",
    "resnet34",
    "resnet44",
    "resnet50",
    "resnet56",
    "resnet101",
    "resnet110",
    "resnet152",
    "softmax_regression",
    "summary",
    "vgg",
    "vgg11",
    "vgg11_bn",
    "vgg16",
    "vgg16_bn",
]
