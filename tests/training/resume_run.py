"""A program for test_checkpointing.py: it kills a run of training again and again.

It imports the libraries once and forks every process of training, so a restart is fast.
"""

import json
import os
import random
import select
import signal
import socket
import sys
import time
import traceback
from pathlib import Path

import torch
from PIL import Image
from transformers import TrainerCallback

from tests.conftest import DEPTH, TEXT, TOKEN_IDS, VISION
from tests.processing.conftest import build_processor
from vilau_hf import VilaUConfig, VilaUForConditionalGeneration
from vilau_hf.data import MediaLoader, Mixture, MixtureSource, RecordStream, VilaUDataCollator, write_records
from vilau_hf.training import VilaUTrainer, VilaUTrainingArguments


NUM_KILLS = 20
MAX_STEPS = 80  # a kill comes at most four steps after the start of its run, two on average
SAVE_STEPS = 2


def make_records(folder):
    """Makes twenty records: images to draw, images to describe, and text only."""
    folder.mkdir(parents=True, exist_ok=True)
    records = []
    for number in range(20):
        words = {"type": "text", "text": ["a red square", "draw a circle", "what is this"][number % 3]}
        image = {"type": "image", "text": None}
        file = folder / f"{number}.png"
        Image.new("RGB", (16, 16), (12 * number, 255 - 12 * number, 100)).save(file)
        question, answer = [([words], [image]), ([image], [words]), ([words], [words])][number % 4 % 3]
        messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        images = [str(file)] if image in question + answer else []
        records.append({"id": str(number), "messages": messages, "images": images, "videos": []})
    return records


def write_data(folder):
    write_records(make_records(folder), folder / "records")


def build_dataset(kind, folder, processor):
    """Builds the records with random access (`"list"`), or a shuffled stream without end."""
    if kind == "list":
        return [MediaLoader(processor).load(record) for record in make_records(folder)]
    mixture = Mixture([MixtureSource(str(folder / "records"), "records", "all")])
    return RecordStream(mixture, MediaLoader(processor), shuffle_block=7)


class ReportingTrainer(VilaUTrainer):
    """Writes a letter to a pipe for every step (`s`) and every checkpoint that it begins to write (`c`)."""

    pipe = None

    def _save_checkpoint(self, model, trial):
        self.report(b"c")
        super()._save_checkpoint(model, trial)

    def report(self, event):
        if self.pipe is not None and self.is_world_process_zero():
            os.write(self.pipe, event)


class Reporter(TrainerCallback):
    def __init__(self, trainer):
        self.trainer = trainer

    def on_step_end(self, args, state, control, **kwargs):
        self.trainer.report(b"s")


def build_trainer(folder, kind, trainer_class=ReportingTrainer, **kwargs):
    """Builds a trainer with all kinds of state: dropout, dropped prompts, Adam and accumulated gradients."""
    torch.manual_seed(0)
    processor = build_processor(num_visual_tokens=16, size=16)
    names = [name.removesuffix("_id") for name in TOKEN_IDS]
    ids = {f"{name}_id": getattr(processor, f"{name}_id") for name in names}
    text = {**TEXT, "vocab_size": max(60, len(processor.tokenizer)), "attention_dropout": 0.1}
    config = VilaUConfig(vision_config=VISION, depth_config=DEPTH, text_config=text, initializer_range=0.2, **ids)
    arguments = VilaUTrainingArguments(
        str(folder / "out"),
        **{
            "max_steps": MAX_STEPS,
            "save_steps": SAVE_STEPS,
            "save_total_limit": 2,
            "per_device_train_batch_size": 2,
            "gradient_accumulation_steps": 2,
            "learning_rate": 1e-2,
            "logging_steps": 5,
            "neftune_noise_alpha": 1.0,
            "report_to": "none",
            "use_cpu": True,
            "disable_tqdm": True,
            **kwargs,
        },
    )
    dataset = build_dataset(kind, folder.parent / "data", processor)
    return trainer_class(
        VilaUForConditionalGeneration(config),
        arguments,
        train_dataset=dataset,
        eval_dataset=dataset,
        data_collator=VilaUDataCollator(processor, unconditional_probability=0.5),
    )


def train(folder, kind, pipe):
    """Trains to the end, from the last checkpoint if there is one, and saves the weights."""
    trainer = build_trainer(folder, kind)
    trainer.pipe = pipe
    trainer.add_callback(Reporter(trainer))
    checkpoints = list((folder / "out").glob("checkpoint-*"))
    trainer.train(resume_from_checkpoint=True if checkpoints else None)
    if trainer.is_world_process_zero():
        torch.save(trainer.model.state_dict(), folder / "weights.pt")


def fork(function, *args):
    """Runs a function in a new process and returns the id of the process."""
    pid = os.fork()
    if pid == 0:
        try:
            function(*args)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return pid


def start(folder, kind, world_size):
    """Starts the processes of a run. Returns their ids and the pipe of events."""
    reading, writing = os.pipe()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def run(rank):
        os.close(reading)
        if world_size > 1:
            address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(world_size)}
            os.environ.update(address, RANK=str(rank), LOCAL_RANK=str(rank))
        train(folder, kind, writing)

    pids = [fork(run, rank) for rank in range(world_size)]
    os.close(writing)
    return pids, reading


def finish(pids, pipe):
    """Waits for the end of a run, and raises an error if one of its processes failed."""
    while os.read(pipe, 4096):
        pass
    os.close(pipe)
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    if any(codes):
        raise RuntimeError(f"training ended with {codes}")


def kill(pids, pipe, choice):
    """Kills a run some events after its start, or while it saves a checkpoint: one process, then the others."""
    wanted = b"sc" if choice.random() < 0.5 else b"c"
    left = choice.randint(1, 5 if wanted == b"sc" else 2)
    while left:
        if not select.select([pipe], [], [], 120)[0]:
            raise RuntimeError("no event for two minutes")
        event = os.read(pipe, 1)
        if not event:
            raise RuntimeError("training ended before it was killed")
        left -= event in wanted
    time.sleep(choice.uniform(0, 0.03))
    for pid in choice.sample(pids, len(pids)):
        os.kill(pid, signal.SIGKILL)
        time.sleep(choice.uniform(0, 0.01))
    os.close(pipe)
    for pid in pids:
        os.waitpid(pid, 0)


def files_of_checkpoints(folder):
    return {path.name: sorted(file.name for file in path.iterdir()) for path in folder.glob("out/checkpoint-*")}


def main(folder, kind, world_size, seed):
    choice, kills = random.Random(seed), []
    for name in ("whole", "killed"):
        (folder / name).mkdir()
    # In another process: threads that this process would start do not exist in its forks.
    os.waitpid(fork(write_data, folder / "data"), 0)
    finish(*start(folder / "whole", kind, world_size))
    for _ in range(NUM_KILLS):
        kill(*start(folder / "killed", kind, world_size), choice)
        unfinished = list(folder.glob("killed/out/_unfinished_checkpoint-*/checkpoint-*/*"))
        kills.append({"checkpoints": files_of_checkpoints(folder / "killed"), "in_writing": len(unfinished) > 0})
    finish(*start(folder / "killed", kind, world_size))
    result = {"kills": kills, "whole": files_of_checkpoints(folder / "whole")}
    (folder / "result.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
