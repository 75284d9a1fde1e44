"""The toy world of drawn shapes: a generated dataset, an oracle that reads its images by rules, and scores.

Captions and images follow from a few words, so a small model can be trained on a CPU and scored exactly. The rest of
the package does not depend on it, except that `vilau train` and `vilau encode` accept the dataset by its name.
"""

from .dataset import drawn_shapes


__all__ = ["drawn_shapes"]
