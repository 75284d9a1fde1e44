"""Weight files, read and written one tensor at a time, so that memory does not grow with the size of the model."""

import json
import math
import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from huggingface_hub import split_state_dict_into_shards_factory
from safetensors import SafetensorError, safe_open
from tqdm.auto import tqdm

from ..files import first_five, read_json


# names of the weight files in a checkpoint folder, the same in all libraries of the Hub
SAFE_WEIGHTS_NAME = "model.safetensors"
SAFE_WEIGHTS_INDEX_NAME = f"{SAFE_WEIGHTS_NAME}.index.json"
WEIGHTS_NAME = "pytorch_model.bin"
WEIGHTS_INDEX_NAME = f"{WEIGHTS_NAME}.index.json"

_DTYPE_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.bool: "BOOL",
}
_DTYPES = {name: dtype for dtype, name in _DTYPE_NAMES.items()}


@dataclass(frozen=True)
class LazyTensor:
    """A tensor that is not in memory yet: its shape, its dtype and the function that loads it."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    load: Callable[[], torch.Tensor]

    @property
    def num_bytes(self) -> int:
        """Returns the size of the tensor in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


def lazy_weights(folder: Path) -> dict[str, LazyTensor]:
    """
    Lists the tensors of a checkpoint folder by name, in the order of its files.

    The files are `model.safetensors` or `pytorch_model.bin`, whole or in shards with an index. Pickled files are read
    with `weights_only=True`, so that they cannot run code.

    Args:
        folder (`Path`): checkpoint folder.

    Raises:
        ValueError: if there is no such file, one is damaged, or the index does not match the files.
    """
    for name, read in ((SAFE_WEIGHTS_NAME, _read_safetensors), (WEIGHTS_NAME, _read_pickled)):
        if (folder / name).is_file():
            return dict(read(folder / name))
        index = folder / (SAFE_WEIGHTS_INDEX_NAME if name == SAFE_WEIGHTS_NAME else WEIGHTS_INDEX_NAME)
        if index.is_file():
            return _read_sharded(index, read)
    raise ValueError(
        f"{folder} has no weights: expected {SAFE_WEIGHTS_NAME}, {SAFE_WEIGHTS_INDEX_NAME}, {WEIGHTS_NAME} or "
        f"{WEIGHTS_INDEX_NAME}."
    )


def _read_sharded(index: Path, read: Callable) -> dict[str, LazyTensor]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ValueError(f"{index} has no `weight_map`.")
    found: dict[str, LazyTensor] = {}
    for name in dict.fromkeys(weight_map.values()):
        if Path(name).name != name:
            raise ValueError(f"{index} names the file {name!r}: expected a file of the same folder.")
        if not (index.parent / name).is_file():
            raise ValueError(f"{index} names the file {name}, which does not exist.")
        found.update(read(index.parent / name))
    if set(found) != set(weight_map):
        raise ValueError(f"{index} and its files differ in {first_five(set(found) ^ set(weight_map))}.")
    return found


def _read_safetensors(path: Path) -> Iterator[tuple[str, LazyTensor]]:
    def load(key: str) -> torch.Tensor:
        with safe_open(path, framework="pt") as file:
            return file.get_tensor(key)

    try:
        with safe_open(path, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118 - not a dict
                stored = file.get_slice(key)  # reads the header only
                if stored.get_dtype() not in _DTYPES:
                    raise ValueError(
                        f"{path}: {key} has the dtype {stored.get_dtype()}: expected {', '.join(_DTYPES)}."
                    )
                yield (
                    key,
                    LazyTensor(tuple(stored.get_shape()), _DTYPES[stored.get_dtype()], partial(load, key)),
                )
    except SafetensorError as error:
        raise ValueError(f"cannot read {path}: {error}") from error


def _read_pickled(path: Path) -> Iterator[tuple[str, LazyTensor]]:
    def read() -> dict[str, torch.Tensor]:
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
            raise ValueError(f"cannot read {path}: {error}") from error

    def load(key: str) -> torch.Tensor:
        return read()[key]

    state = read()
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ValueError(f"{path} must contain a dictionary of tensors.")
    for key, value in state.items():
        yield key, LazyTensor(tuple(value.shape), value.dtype, partial(load, key))


def write_weights(folder: Path, tensors: dict[str, LazyTensor], max_shard_size: int | str = "5GB") -> None:
    """
    Writes `model.safetensors`, or shards with an index, with one tensor in memory at a time.

    The files are those that `save_pretrained` writes. A progress bar shows the bytes.

    Args:
        folder (`Path`): output folder, which must exist.
        tensors (`dict[str, LazyTensor]`): the tensors by name.
        max_shard_size (`int` or `str`, *optional*, defaults to `"5GB"`): largest size of a file, in bytes or as a text
            with a unit.
    """
    plan = split_state_dict_into_shards_factory(
        tensors,
        get_storage_size=lambda tensor: tensor.num_bytes,
        get_storage_id=lambda tensor: None,
        filename_pattern="model{suffix}.safetensors",
        max_shard_size=max_shard_size,
    )
    total = sum(tensor.num_bytes for tensor in tensors.values())
    with tqdm(total=total, unit="B", unit_scale=True, desc="writing weights", disable=None) as progress:
        for name, keys in plan.filename_to_tensors.items():
            _write_safetensors(folder / name, {key: tensors[key] for key in keys}, progress)
    if plan.is_sharded:
        index = {"metadata": {"total_size": total}, "weight_map": plan.tensor_to_filename}
        (folder / SAFE_WEIGHTS_INDEX_NAME).write_text(
            json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8"
        )


def _write_safetensors(path: Path, tensors: dict[str, LazyTensor], progress: tqdm) -> None:
    """Writes one file in the format of safetensors: 8 bytes with the length of the header, the header, the tensors."""
    header: dict[str, dict] = {"__metadata__": {"format": "pt"}}
    end = 0
    # Dtypes of many bytes come first, so that each tensor begins at a multiple of the size of its elements.
    ordered = sorted(tensors, key=lambda key: -tensors[key].dtype.itemsize)
    for key in ordered:
        tensor = tensors[key]
        begin = end
        end += tensor.num_bytes
        header[key] = {
            "dtype": _DTYPE_NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header).encode()
    # spaces at the end of the header keep the tensors aligned to 8 bytes
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for key in ordered:
            value = tensors[key].load()
            if tuple(value.shape) != tensors[key].shape or value.dtype != tensors[key].dtype:
                raise ValueError(
                    f"{key} must be {tensors[key].dtype} of shape {tensors[key].shape}, got {value.dtype} of shape "
                    f"{tuple(value.shape)}."
                )
            content = value.contiguous().reshape(-1).view(torch.uint8).numpy()
            file.write(content)  # type: ignore[arg-type]  # numpy declares the buffer protocol only from Python 3.12 on
            progress.update(tensors[key].num_bytes)
