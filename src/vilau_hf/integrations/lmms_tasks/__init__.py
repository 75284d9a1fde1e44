"""Tasks of lmms-eval that need no network: drawn shapes, scored by the drawing oracle."""

from .writing import TASKS, write_lmms_tasks


__all__ = ["TASKS", "write_lmms_tasks"]
