"""Adapters that let other tools use the models of this package. Each needs its tool, which an extra installs."""
