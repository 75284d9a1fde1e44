"""
Trains the shipped model for two steps and saves its weights and codes.

`accelerate launch` with a configuration of FSDP2 trains in shards.
Usage: python sharded_run.py FOLDER {no,bf16} {whole,adapters}
"""

import sys
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.utils import DistributedType
from peft import LoraConfig, get_peft_model

from vilau_hf import TINY_CHECKPOINT, VilaUForConditionalGeneration, VilaUProcessor
from vilau_hf.data import VilaUDataCollator
from vilau_hf.drawn import drawn_shapes
from vilau_hf.training import VilaUTrainer, VilaUTrainingArguments


def rows():
    """Returns the rows of two steps. In each step one of two processes has only text and the other has images."""
    question = {"role": "user", "content": "what color is the sky?"}
    texts = [{"messages": [question, {"role": "assistant", "content": color}]} for color in ("blue", "red")]
    tasks = ("text_to_image", "image_to_text", "text_to_image", "text_to_video")
    drawn = [drawn_shapes("train", 1, tasks={task: 1.0}, seed=seed)[0] for seed, task in enumerate(tasks)]
    return [*texts, *drawn, *texts]


folder, precision, trained = Path(sys.argv[1]), *sys.argv[2:]
state = PartialState(cpu=True)
args = VilaUTrainingArguments(
    output_dir=str(folder),
    max_steps=2,
    per_device_train_batch_size=4 // state.num_processes,
    train_sampling_strategy="sequential",
    learning_rate=0.01,
    optim="sgd",
    lr_scheduler_type="constant",
    max_grad_norm=0.0,
    logging_steps=1,
    save_steps=1,
    bf16=precision == "bf16",
    report_to="none",
    use_cpu=True,
)
if state.num_processes > 1:  # accelerate makes shards only on GPUs, so it must take the processes for GPUs
    PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
model = VilaUForConditionalGeneration.from_pretrained(TINY_CHECKPOINT, dtype="float32")
tower, codes = model.model.vision_tower, []
if trained == "adapters":
    torch.manual_seed(0)
    lora = LoraConfig(r=4, target_modules=r".*language_model.*\.(q|v)_proj", modules_to_save=["multi_modal_projector"])
    model = get_peft_model(model, lora)
encode = tower.encode


def recorded(pixel_values, **kwargs):
    output = encode(pixel_values, **kwargs)
    codes.append(output.codes)
    return output


tower.encode = recorded
collator = VilaUDataCollator(VilaUProcessor.from_pretrained(TINY_CHECKPOINT), unconditional_probability=0)
trainer = VilaUTrainer(model=model, args=args, train_dataset=rows(), data_collator=collator)
trainer.train()
trainer.save_model()
torch.save(codes, folder / f"codes_{state.process_index}.pt")
trainer.accelerator.end_training()
