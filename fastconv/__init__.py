"""fastconv: convolutional networks on plain NumPy arrays.

`fastconv.functional` holds the functions, `fastconv.nn` the layers, `fastconv.models` whole
networks, `fastconv.optim` and `fastconv.train` the training loop, and `fastconv.reference` the same
functions as naive NumPy loops. Subpackages are imported on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

try:
    from . import _core as _core
except ImportError as error:  # the source tree hides the installed package
    raise ImportError(
        f"fastconv: no compiled extension in {__path__[0]}; start Python outside the source tree, "
        "or install with `pip install -e .`"
    ) from error

from ._config import (
    clear_workspace,
    config,
    flush_denormals,
    get_num_threads,
    isas,
    num_threads,
    set_num_threads,
    show_config,
    use_isa,
)

if TYPE_CHECKING:
    from . import data, functional, models, nn, optim, reference, train
    from .functional.explain import explain_conv2d
    from .inference import Plan, compile

__version__ = "0.1.0"

__all__ = [
    "Plan",
    "clear_workspace",
    "compile",
    "config",
    "data",
    "explain_conv2d",
    "flush_denormals",
    "functional",
    "get_num_threads",
    "isas",
    "models",
    "nn",
    "num_threads",
    "optim",
    "reference",
    "set_num_threads",
    "show_config",
    "train",
    "use_isa",
]

_FUNCTIONS = {"Plan": "inference", "compile": "inference", "explain_conv2d": "functional.explain"}
_SUBPACKAGES = frozenset({"data", "functional", "models", "nn", "optim", "reference", "train"})


def __getattr__(name: str) -> Any:
    if name in _SUBPACKAGES:
        return importlib.import_module(f"{__name__}.{name}")
    if name in _FUNCTIONS:
        return getattr(importlib.import_module(f"{__name__}.{_FUNCTIONS[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
