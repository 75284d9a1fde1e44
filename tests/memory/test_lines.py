import torch

from vilau_hf import VilaUForConditionalGeneration
from vilau_hf.memory.lines import MemoryEstimate, MemoryLine, weight_lines


def test_peak_is_the_largest_phase_and_the_memory_in_use_all_the_time():
    estimate = MemoryEstimate(
        "title",
        held=[MemoryLine("weights: a", 10, "counted"), MemoryLine("weights: b", 5, "counted")],
        phases=[MemoryLine("first", 7), MemoryLine("second", 20)],
        contained=[MemoryLine("cache", 3)],
    )
    assert estimate.peak == 35
    assert estimate.size("weights") == 15 and estimate.size("cache") == 3
    lines = str(estimate).splitlines()
    assert [line for line in lines if "second" in line][0].endswith(", the largest")
    assert [line for line in lines if "weights: a" in line][0].endswith("counted")


def test_weight_lines_count_each_tensor_once_and_shard_only_parameters(config):
    with torch.device("meta"):
        model = VilaUForConditionalGeneration(config).eval()
    parameters = sum(tensor.nbytes for tensor in model.parameters())
    buffers = sum(tensor.nbytes for tensor in model.buffers())
    whole = weight_lines(model)
    assert sum(line.size for line in whole) == parameters + buffers
    assert {line.source for line in whole} == {"counted"}
    sharded = weight_lines(model, shards=2)
    # each tensor is rounded up to whole bytes
    assert 0 <= sum(line.size for line in sharded) - parameters / 2 - buffers < len(list(model.parameters()))


def test_an_unsharded_sub_model_is_whole_on_each_device(config):
    with torch.device("meta"):
        model = VilaUForConditionalGeneration(config).eval()
    names = ("image encoder", "quantizer", "pixel decoder")
    whole = {line.name: line.size for line in weight_lines(model)}
    for line in weight_lines(model, shards=4, unsharded="vision_tower"):
        is_tower = any(name in line.name for name in names)
        assert (line.size == whole[line.name]) == is_tower
        assert line.source == ("counted" if is_tower else "computed")
