"""Estimates of the memory that training and generation need."""

from .estimate import MemoryEstimate, MemoryLine, estimate_generation_memory, estimate_training_memory


__all__ = ["MemoryEstimate", "MemoryLine", "estimate_generation_memory", "estimate_training_memory"]
