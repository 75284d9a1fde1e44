"""Describes what a bug report has to say about the machine."""

import platform
from importlib import metadata

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
)


def describe_environment() -> dict:
    """
    Collects versions and devices. It imports torch for the devices, and no other library.

    Returns:
        vilau_hf, python, platform (`str`): versions, and the operating system.
        packages (`dict[str, str | None]`): name -> version, `None` where it is not installed.
        transformers_tested (`str`): the tested window of transformers.
        transformers_is_tested (`bool`, or `None` without transformers): whether it lies inside.
        torch_backend (`str` or `None`): for example `"CUDA 13.0"`, or why torch cannot be imported.
        devices (`list[str]`): all but the CPU, for example `"cuda:0 NVIDIA H100 80GB HBM3"`.
    """
    packages = {name: _installed_version(name) for name in PACKAGES}
    version = packages["transformers"]
    backend, devices = (None, []) if packages["torch"] is None else _torch_devices()
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
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _torch_devices() -> tuple[str | None, list[str]]:
    try:
        import torch
    except (ImportError, OSError) as error:  # OSError: a library of CUDA is missing or does not fit
        return f"cannot be imported: {error}", []
    if torch.version.hip is not None:
        backend = f"ROCm {torch.version.hip}"
    elif torch.version.cuda is not None:
        backend = f"CUDA {torch.version.cuda}"
    else:
        backend = None
    # devices of ROCm have the type "cuda", too
    devices = [f"cuda:{index} {torch.cuda.get_device_name(index)}" for index in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        devices.append("mps")
    return backend, devices


__all__ = ["PACKAGES", "describe_environment"]
