import json

import pytest
import torch
from safetensors.torch import load_file

from vilau_hf.original.weight_files import LazyTensor, lazy_weights, write_weights


TENSORS = {
    "flag": torch.ones((), dtype=torch.bool),
    "half": torch.randn(3, 5).bfloat16(),
    "whole": torch.randn(7, 2),
    "count": torch.arange(3),
}


def lazy(tensors):
    return {
        name: LazyTensor(tuple(value.shape), value.dtype, lambda value=value: value) for name, value in tensors.items()
    }


@pytest.mark.parametrize("max_shard_size", ["5GB", 60])
def test_written_weights_are_read_as_they_were(tmp_path, max_shard_size):
    write_weights(tmp_path, lazy(TENSORS), max_shard_size)
    read = lazy_weights(tmp_path)
    assert read.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert (read[name].shape, read[name].dtype) == (tuple(tensor.shape), tensor.dtype)
        assert read[name].num_bytes == tensor.nbytes
        assert torch.equal(read[name].load(), tensor)
    is_sharded = max_shard_size == 60
    assert (tmp_path / "model.safetensors.index.json").is_file() == is_sharded
    assert (len(list(tmp_path.glob("*.safetensors"))) > 1) == is_sharded


def test_written_file_is_one_of_safetensors_with_aligned_tensors(tmp_path):
    write_weights(tmp_path, lazy(TENSORS))
    loaded = load_file(tmp_path / "model.safetensors")
    assert all(torch.equal(loaded[name], tensor) for name, tensor in TENSORS.items())
    content = (tmp_path / "model.safetensors").read_bytes()
    length = int.from_bytes(content[:8], "little")
    assert length % 8 == 0
    header = json.loads(content[8 : 8 + length])
    for name, tensor in TENSORS.items():
        assert header[name]["data_offsets"][0] % tensor.element_size() == 0


def test_rejects_a_tensor_that_differs_from_its_description(tmp_path):
    wrong = {"a": LazyTensor((2,), torch.float32, lambda: torch.zeros(3))}
    with pytest.raises(
        ValueError, match=r"a must be torch.float32 of shape \(2,\), got torch.float32 of shape \(3,\)"
    ):
        write_weights(tmp_path, wrong)


def test_rejects_a_folder_without_weights(tmp_path):
    with pytest.raises(ValueError, match="has no weights: expected model.safetensors"):
        lazy_weights(tmp_path)
