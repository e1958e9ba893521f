"""Optimisers and learning-rate schedules with torch.optim's arguments and formulas.

Every state is plain arrays: `state_dict()` gives a flat dict of them, and `load_state_dict` puts
them back bit for bit, so that training resumed from a checkpoint continues exactly.
"""

from typing import TYPE_CHECKING, NoReturn

from .optimizer import SGD, Adam, AdamW, Optimizer, weight_decay_groups
from .scheduler import CosineAnnealingLR, OneCycleLR, Scheduler, StepLR

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "CosineAnnealingLR",
    "OneCycleLR",
    "Optimizer",
    "Scheduler",
    "StepLR",
    "weight_decay_groups",
]

if not TYPE_CHECKING:  # a type checker knows the names

    def __getattr__(name: str) -> NoReturn:
        from .._absent import absent

        raise absent(__name__, name)
