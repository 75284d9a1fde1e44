"""Collects versions and devices of this machine for a bug report."""

import platform
from importlib import metadata
from typing import Any

from .tested_versions import TRANSFORMERS_WINDOW, is_tested_transformers
from .version import __version__


PACKAGES = (
    "torch",
    "torchvision",
    "transformers",
    "diffusers",
    "accelerate",
    "datasets",
    "peft",
    "tokenizers",
    "huggingface_hub",
    "safetensors",
    "pillow",
    "av",
    # libraries of scores
    "torchmetrics",
    "torch_fidelity",
    "lmms_eval",
)


def describe_environment() -> dict[str, Any]:
    """
    Collects versions and devices.

    It reads the versions without importing the packages, of which one can be broken. Only torch is imported, for the
    devices.

    Returns:
        vilau_hf, python, platform (`str`): versions of this package and of Python, and the operating system.
        packages (`dict[str, str | None]`): version of each package, `None` if it is not installed.
        transformers_tested (`str`): range of tested versions of transformers.
        transformers_is_tested (`bool`, or `None` without transformers): whether the version is in this range.
        torch_backend (`str` or `None`): for example `"CUDA 13.0"`, or the reason why torch cannot be imported.
        devices (`list[str]`): all devices except the CPU, for example `"cuda:0 NVIDIA H100 80GB HBM3"`.
    """
    packages = {name: _installed_version(name) for name in PACKAGES}
    version = packages["transformers"]
    backend: str | None = None
    devices: list[str] = []
    if packages["torch"] is not None:
        backend, devices = _torch_devices()
    return {
        "vilau_hf": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": packages,
        "transformers_tested": TRANSFORMERS_WINDOW,
        "transformers_is_tested": None if version is None else is_tested_transformers(version),
        "torch_backend": backend,
        "devices": devices,
    }


def _installed_version(name: str) -> str | None:
    """Returns the version of a package, or `None` if it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _torch_devices() -> tuple[str | None, list[str]]:
    """Returns the backend that torch was built for, and its devices."""
    try:
        import torch
    except (ImportError, OSError) as error:  # OSError: a CUDA library is missing or has the wrong version
        return f"cannot be imported: {error}", []
    if torch.version.hip is not None:
        backend = f"ROCm {torch.version.hip}"
    elif torch.version.cuda is not None:
        backend = f"CUDA {torch.version.cuda}"
    else:
        backend = None
    # ROCm devices also have the type "cuda"
    devices = [f"cuda:{index} {torch.cuda.get_device_name(index)}" for index in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        devices.append("mps")
    return backend, devices


__all__ = ["PACKAGES", "describe_environment"]
