"""Completions from the model in training, taken without leaving a trace in it."""

from divwatch.sampling.isolation import untouched
from divwatch.sampling.transformers_backend import sample

__all__ = ["sample", "untouched"]
