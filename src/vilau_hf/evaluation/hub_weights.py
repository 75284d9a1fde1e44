# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""Weights of metric networks: found in the cache of `torch.hub`, or downloaded if allowed."""

import importlib.util
from pathlib import Path

import torch


def find_hub_weights(url: str, purpose: str, download: bool) -> Path:
    """
    Returns the file in which `torch.hub` stores the weights of `url`.

    Args:
        url (`str`): address of the published weights.
        purpose (`str`): what needs the weights, for the error message.
        download (`bool`): whether missing weights may be downloaded.

    Raises:
        FileNotFoundError: if the weights are missing and may not be downloaded.
    """
    path = Path(torch.hub.get_dir(), "checkpoints", Path(url).name)
    if path.is_file():
        return path
    if not download:
        raise FileNotFoundError(
            f"{purpose} needs the weights {path}, which are missing. Download {url} to this path, or allow the "
            "download with `download_metric_weights=True`."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.hub.download_url_to_file(url, str(path), progress=False)
    return path


def require_package(package: str, purpose: str) -> None:
    """
    Checks that an optional package is installed.

    Args:
        package (`str`): name of the module.
        purpose (`str`): what needs the package, for the error message.

    Raises:
        ImportError: if the package is missing; the message names the command that installs it.
    """
    if importlib.util.find_spec(package) is None:
        raise ImportError(f'{purpose} needs {package}: `pip install "vilau_hf[training]"`.')


__all__ = ["find_hub_weights", "require_package"]
