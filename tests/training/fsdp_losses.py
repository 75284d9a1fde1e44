"""Trains the shipped model, in the shards that accelerate makes by default if there are several processes."""

import sys

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from vilau_hf import TINY_CHECKPOINT, VilaUForConditionalGeneration, VilaUProcessor
from vilau_hf.training import VilaUDataCollator, drawn_shapes


processes = int(sys.argv[2])
model = VilaUForConditionalGeneration.from_pretrained(TINY_CHECKPOINT, dtype="float32").train()
if processes > 1:
    dist.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (processes,))
    layers = [layer for layer in model.modules() if type(layer).__name__ in model._no_split_modules]
    for module in [*layers, model]:
        fully_shard(module, mesh=mesh)
rank = dist.get_rank() if processes > 1 else 0
processor = VilaUProcessor.from_pretrained(TINY_CHECKPOINT)
records = drawn_shapes("train", 4)
batch = VilaUDataCollator(processor, unconditional_probability=0)([records[index] for index in range(4)])
optimizer = torch.optim.SGD([each for each in model.parameters() if each.requires_grad], lr=0.01)
losses = []
for _ in range(3):  # all processes see the same batch, so averaged gradients are those of one
    loss = model(**batch).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    losses.append(loss.item())
weights = {name: getattr(each, "full_tensor", lambda each=each: each)() for name, each in model.state_dict().items()}
if rank == 0:
    torch.save({"losses": losses, "weights": weights}, sys.argv[1])
if processes > 1:
    dist.destroy_process_group()
