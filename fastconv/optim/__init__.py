"""Optimisers and learning-rate schedules with torch.optim's arguments and formulas.

Every state is plain arrays: `state_dict()` gives a flat dict of them, and `load_state_dict` puts
them back bit for bit, so that training resumed from a checkpoint continues exactly.
"""

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
