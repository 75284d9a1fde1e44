# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""Weights of the networks that judge pictures: found on the machine, or refused."""

import importlib.util
from pathlib import Path

import torch


def find_hub_weights(url: str, purpose: str, download: bool) -> Path:
    """
    The file that `torch.hub` keeps of `url`.

    Args:
        url (`str`): where the weights are published.
        purpose (`str`): what they are for, for the error.
        download (`bool`): whether they may be fetched if they are not there.

    Raises:
        FileNotFoundError: if they are not there and may not be fetched.
    """
    path = Path(torch.hub.get_dir(), "checkpoints", Path(url).name)
    if path.is_file():
        return path
    if not download:
        raise FileNotFoundError(
            f"{purpose} needs the weights {path}, which are not there. Put the file of {url} at this place, or let it "
            "be fetched with `download_judge_weights=True`."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.hub.download_url_to_file(url, str(path), progress=False)
    return path


def require(package: str, purpose: str):
    """Raises an `ImportError` that says what to install if `package` is missing."""
    if importlib.util.find_spec(package) is None:
        raise ImportError(f'{purpose} needs {package}: `pip install "vilau_hf[training]"`.')


__all__ = ["find_hub_weights", "require"]
