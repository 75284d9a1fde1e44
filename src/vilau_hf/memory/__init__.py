"""Estimates of the memory that training and generation need, without weights and without a GPU."""

from .estimate import estimate_generation_memory, estimate_training_memory
from .lines import MemoryEstimate, MemoryLine


__all__ = ["MemoryEstimate", "MemoryLine", "estimate_generation_memory", "estimate_training_memory"]
