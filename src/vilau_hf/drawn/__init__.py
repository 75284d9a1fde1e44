"""The toy world of drawn shapes: a dataset made on the fly, a reader of its pictures, and scores."""

from .dataset import drawn_shapes


__all__ = ["drawn_shapes"]
