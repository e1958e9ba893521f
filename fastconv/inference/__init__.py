"""Inference plans: `fastconv.compile(model, input_shape)`."""

from .plan import Plan, compile
from .report import StepReport

__all__ = ["Plan", "StepReport", "compile"]
