"""The lines of an estimate, and the lines that count the weights of a model."""

import math
from dataclasses import dataclass, field

import torch

from ..modeling import VilaUForConditionalGeneration
from ..modeling.sub_models_vilau import sub_model_of
from .live_memory import plain_tensors, size_of


# Sub-model -> prefix of the names of its weights. The order matters: the first prefix that matches counts.
WEIGHTS = {
    "image encoder": "model.vision_tower.image_encoder.",
    "quantizer": "model.vision_tower.quantizer.",
    "pixel decoder": "model.vision_tower.",
    "projector": "model.multi_modal_projector.",
    "language model": "model.language_model.",
    "text head": "lm_head.",
    "depth transformer": "depth_transformer.",
}


@dataclass
class MemoryLine:
    """
    One line of an estimate.

    name (`str`): what needs the memory.
    size (`int`): bytes on one device.
    source (`str`): `"counted"` for tensors of the model; `"computed"` for the result of a run without data, or of the
        rules of a strategy.
    """

    name: str
    size: int
    source: str = "computed"


@dataclass
class MemoryEstimate:
    """
    Estimated memory of one device.

    title (`str`): what was estimated.
    held (`list[MemoryLine]`): memory in use all the time.
    phases (`list[MemoryLine]`): the largest additional memory in each phase. The phases follow one another.
    contained (`list[MemoryLine]`): memory that the lines of `phases` include.
    """

    title: str
    held: list[MemoryLine] = field(default_factory=list)
    phases: list[MemoryLine] = field(default_factory=list)
    contained: list[MemoryLine] = field(default_factory=list)

    @property
    def peak(self) -> int:
        """Returns the bytes on one device in the phase that needs most."""
        return sum(line.size for line in self.held) + max(line.size for line in self.phases)

    def size(self, name: str) -> int:
        """Returns the bytes of all lines whose names begin with `name`."""
        lines = [*self.held, *self.phases, *self.contained]
        return sum(line.size for line in lines if line.name.startswith(name))

    def __str__(self) -> str:
        width = max(len(line.name) for line in [*self.held, *self.phases, *self.contained]) + 2

        def row(line: MemoryLine, mark: str = "") -> str:
            return f"  {line.name:<{width}}{line.size / 2**30:>10.3f} GiB  {line.source}{mark}"

        largest = max(self.phases, key=lambda line: line.size)
        rows = [self.title, "in use all the time", *map(row, self.held), "in addition, one phase after the other"]
        rows += [row(line, ", the largest" if line is largest else "") for line in self.phases]
        if self.contained:
            rows += ["included in these", *map(row, self.contained)]
        return "\n".join([*rows, "in total", row(MemoryLine("peak", self.peak))])


@dataclass
class _WeightCount:
    """Weights of one sub-model: bytes on a device, names of the dtypes, trained elements, whether they are sharded."""

    size: int = 0
    dtypes: set[str] = field(default_factory=set)
    trained: int = 0
    is_sharded: bool = False


def weight_lines(model: VilaUForConditionalGeneration, shards: int = 1, unsharded: str = "") -> list[MemoryLine]:
    """
    Counts the weights of each sub-model.

    Args:
        model ([`VilaUForConditionalGeneration`]): the model.
        shards (`int`, *optional*, defaults to 1): devices that share the parameters. Buffers are never shared.
        unsharded (`str`, *optional*, defaults to none): sub-model whose parameters are whole on each device.
    """
    counts: dict[str, _WeightCount] = {}
    tensors: list[tuple[str, torch.Tensor, int]] = [
        (name, tensor, 1 if sub_model_of(name) == unsharded else shards) for name, tensor in model.named_parameters()
    ]
    tensors += [(name, tensor, 1) for name, tensor in model.named_buffers()]
    for name, tensor, num_devices in tensors:
        sub_model = next(sub_model for sub_model, prefix in WEIGHTS.items() if name.startswith(prefix))
        count = counts.setdefault(sub_model, _WeightCount())
        count.size += math.ceil(size_of([tensor]) / num_devices)
        count.is_sharded |= num_devices > 1
        if isinstance(tensor, torch.nn.Parameter):
            count.dtypes |= {str(each.dtype).removeprefix("torch.") for each in plain_tensors(tensor)}
        if tensor.requires_grad and model.training:
            count.trained += tensor.numel()
    return [
        MemoryLine(
            f"weights: {sub_model}, {' + '.join(sorted(count.dtypes))}"
            + (f", {count.trained:,} trained" if count.trained else ""),
            count.size,
            "computed" if count.is_sharded else "counted",
        )
        for sub_model, count in counts.items()
    ]
