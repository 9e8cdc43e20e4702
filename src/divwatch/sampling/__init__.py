"""Completions from the model in training, taken on all ranks without leaving a trace in it."""

from divwatch.sampling.isolation import untouched
from divwatch.sampling.sampler import LookEnds, Sampler, sample
from divwatch.sampling.weights import Source

__all__ = ["LookEnds", "Sampler", "Source", "sample", "untouched"]
