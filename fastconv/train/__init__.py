"""Training: `fit` with progress, atomic checkpoints and exact resume; evaluation; pictures.

>>> from fastconv.data import load_dataset
>>> from fastconv.train import fit, load_model, recipe
>>> fit(load_dataset("digits"), recipe("digits"), "run")       # doctest: +SKIP
>>> load_model("run").predict(images)                          # doctest: +SKIP
"""

from .batches import Normalisation, augment
from .checkpoint import Checkpoint, load_checkpoint, save_checkpoint, write_atomically
from .evaluate import Evaluation, TrainedModel, evaluate, load_model
from .fit import FitResult, fit
from .plots import plot_curves, plot_filters
from .recipes import TrainConfig, recipe

__all__ = [
    "Checkpoint",
    "Evaluation",
    "FitResult",
    "Normalisation",
    "TrainConfig",
    "TrainedModel",
    "augment",
    "evaluate",
    "fit",
    "load_checkpoint",
    "load_model",
    "plot_curves",
    "plot_filters",
    "recipe",
    "save_checkpoint",
    "write_atomically",
]
