"""The tasks of `vilau evaluate` whose samples are conversations, as tasks of lmms-eval that need no network."""

from .writing import DEFAULT_TASKS, write_lmms_tasks


__all__ = ["DEFAULT_TASKS", "write_lmms_tasks"]
