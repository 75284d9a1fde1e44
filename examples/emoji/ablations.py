"""Measures what the emoji model depends on, without training: one table and one plot for each question.

    python examples/emoji/ablations.py guidance --records emoji-records --judge emoji-judge --out emoji-ablations

- `alignment`: distance between images and texts in each layer of the language model (VILA, deep embedding alignment).
- `guidance`: names and styles of drawings for several scales of classifier-free guidance.
- `few-shot`: style of a drawing whose prompt names no style, after 0, 1, 2, 4 and 8 examples in that style.
- `order`: the same four examples in four orders, and the share of drawings that depend on the order.
- `prompts`: answers to the same question in several wordings.

Each command writes `COMMAND.json` and `COMMAND.png`. An interrupted command continues where it was. The extras
`training` and `plots` are needed.
"""

import argparse
import dataclasses
import json
import random
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import matplotlib
from matplotlib import pyplot

from vilau_hf import VilaUForConditionalGeneration, VilaUProcessor
from vilau_hf.emoji.dataset import Emoji
from vilau_hf.emoji.evaluation_tasks import EmojiQuestions, EmojiTextToImage
from vilau_hf.emoji.packages import STYLES
from vilau_hf.emoji.scores import BACKGROUND
from vilau_hf.evaluation.alignment import alignment_curve
from vilau_hf.evaluation.evaluated_model import EvaluatedModel
from vilau_hf.evaluation.intervals import share
from vilau_hf.evaluation.model_outputs import user_message
from vilau_hf.evaluation.run_tasks import run_tasks
from vilau_hf.evaluation.task import Conversation, TaskOptions


SCALES = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
SHOTS = (0, 1, 2, 4, 8)
ORDERS = (0, 1, 2, 3)
# The first wording of each kind is the one of training.
WORDINGS = {
    "name": ("what is this?", "name it.", "what does the image show?", "this is"),
    "style": ("which style is it?", "which style?", "name the style.", "in which style is the image drawn?"),
}
# What a plot shows: key of the score, and its name in the legend.
DRAWN = {"top_1": "judge names the concept", "style": "judge names the style"}

matplotlib.use("Agg")  # writes files, also without a display


class FewShot(EmojiTextToImage):
    """Draws a held-out concept by its name alone, after examples of other concepts in the wanted style."""

    name = "few-shot"
    shots = 0
    order = 0

    def conversation(self, index: int) -> Conversation:
        """Returns the examples with their names, in an order that `order` chooses, and the name to draw."""
        asked = self.held_out[index]
        examples = self.examples(asked, index)
        random.Random(f"order {self.order} {index}").shuffle(examples)
        content = []
        for one in examples:
            content += [{"type": "text", "text": one.concept.name}, {"type": "image"}]
        content.append({"type": "text", "text": asked.concept.name})
        return Conversation(user_message(content), asked, [one.on(BACKGROUND) for one in examples])

    def examples(self, asked: Emoji, index: int) -> list[Emoji]:
        """Returns images of training in the style of `asked`; a smaller number of shots has the first of them."""
        others = [one for one in self.trained if one.style == asked.style and one.concept.key != asked.concept.key]
        return self.choice(index).sample(others, max(SHOTS))[: self.shots]


class Wording(EmojiQuestions):
    """Asks a question about held-out images in other words."""

    name = "wording"
    wording = ""

    def conversation(self, index: int) -> Conversation:
        """Returns an image with the question in these words."""
        conversation = super().conversation(index)
        content = [{"type": "image"}, {"type": "text", "text": self.wording}]
        return dataclasses.replace(conversation, messages=user_message(content))


class Ablation:
    """Runs one command for a model, a judge and records, and keeps its results in a folder."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.folder = args.out / args.command
        self.options = TaskOptions(samples=args.samples, seed=args.seed, judge=args.judge, records=args.records)

    @cached_property
    def model(self) -> EvaluatedModel:
        return EvaluatedModel(self.args.model)

    def scores(self, name: str, task) -> dict:
        """Runs a task in its folder and returns its scores."""
        return run_tasks([task], self.folder / name, self.args.batch_size)["tasks"][task.name]["scores"]

    def guidance(self) -> dict[str, dict]:
        return {
            f"{scale:g}": self.scores(
                f"scale-{scale:g}",
                EmojiTextToImage(
                    self.model, dataclasses.replace(self.options, generation={"visual_guidance_scale": scale})
                ),
            )
            for scale in SCALES
        }

    def few_shot(self) -> dict[str, dict]:
        found = {}
        for shots in SHOTS:
            task = FewShot(self.model, self.options)
            task.shots = shots
            found[str(shots)] = self.scores(f"shots-{shots}", task)
        return found

    def order(self) -> dict[str, dict]:
        found = {}
        for order in ORDERS:
            task = FewShot(self.model, self.options)
            task.shots = 4
            task.order = order
            found[str(order)] = self.scores(f"order-{order}", task)
        hits = {name: self.hits(name) for name in DRAWN}
        found["differs"] = {
            name: dataclasses.asdict(share([len(set(of_sample)) > 1 for of_sample in zip(*rows, strict=True)]))
            for name, rows in hits.items()
        }
        return found

    def hits(self, metric: str) -> list[list[bool]]:
        """Returns whether each sample was right, for each order."""
        rows = []
        for order in ORDERS:
            files = (self.folder / f"order-{order}" / FewShot.name).glob("results-*.jsonl")
            lines = [json.loads(line) for file in files for line in file.read_text().splitlines()]
            rows.append([line["metrics"][metric] for line in sorted(lines, key=lambda line: line["index"])])
        return rows

    def prompts(self) -> dict[str, dict]:
        found = {}
        for kind, wordings in WORDINGS.items():
            for number, wording in enumerate(wordings):
                task = Wording(self.model, dataclasses.replace(self.options, judge=None))
                task.kinds = (kind,)
                task.wording = wording
                found[f"{kind}: {wording}"] = self.scores(f"{kind}-{number}", task)
        return found

    def alignment(self) -> dict[str, dict]:
        task = EmojiQuestions(self.model, dataclasses.replace(self.options, judge=None))
        records = []
        for one in task.held_out:
            text = f"{one.concept.name}, {one.style} style"
            content = [{"type": "image"}, {"type": "text", "text": text}]
            records.append({"messages": user_message(content), "images": [one.on(BACKGROUND)]})
        model = VilaUForConditionalGeneration.from_pretrained(self.args.model).eval()
        curve = alignment_curve(model, VilaUProcessor.from_pretrained(self.args.model), records)
        return {str(layer): {"distance": dataclasses.asdict(score)} for layer, score in enumerate(curve)}


AXES = {
    "alignment": ("layer (0: embeddings)", "Chamfer distance of cosines"),
    "guidance": ("guidance scale", "share of drawings"),
    "few-shot": ("examples before the name", "share of drawings"),
    "order": ("order of the examples", "share of drawings"),
    "prompts": ("", "share of right answers"),
}


def plot(command: str, found: dict[str, dict], path: Path) -> None:
    """Draws the scores with their 95 % intervals."""
    settings = [name for name in found if name != "differs"]
    shown = {"alignment": {"distance": "images and texts"}, "prompts": {"right": "right answers"}}.get(command, DRAWN)
    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    for key, label in shown.items():
        scores = [found[name][key] for name in settings]
        values = [score["value"] for score in scores]
        ends = [
            [score["value"] - score["low"] for score in scores],
            [score["high"] - score["value"] for score in scores],
        ]
        if command == "prompts":
            axes.barh(range(len(settings)), values, xerr=ends, color="#4c78a8", ecolor="#333333", capsize=3)
        else:
            axes.errorbar(range(len(settings)), values, yerr=ends, marker="o", capsize=3, label=label)
    across, up = AXES[command]
    if command == "prompts":
        axes.set(yticks=range(len(settings)), yticklabels=settings, xlabel=up, xlim=(0, 1))
        axes.invert_yaxis()
    else:
        axes.set(xticks=range(len(settings)), xticklabels=settings, xlabel=across, ylabel=up)
        axes.grid(alpha=0.3)
    if len(shown) > 1:
        axes.legend()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def print_table(found: dict[str, dict], keys: Sequence[str]) -> None:
    for name, scores in found.items():
        for key in keys:
            if key in scores:
                score = scores[key]
                interval = f"[{score['low']:.3f}, {score['high']:.3f}]"
                print(f"{name:<44} {key:<9} {score['value']:.3f} {interval}, n = {score['count']}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=AXES, help="what to measure")
    parser.add_argument("--model", required=True, help="folder or Hub id of the model")
    parser.add_argument("--judge", help="folder of the judge (guidance, few-shot and order need it)")
    parser.add_argument("--records", help="folder of `vilau records emoji` (default: the few that are shipped)")
    parser.add_argument("--out", type=Path, default=Path("emoji-ablations"), help="output folder")
    parser.add_argument("--samples", type=int, help="number of samples of each setting (default: all)")
    parser.add_argument("--batch-size", type=int, default=50, help="samples in a batch (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of choices and sampling (default: %(default)s)")
    args = parser.parse_args()
    if args.command in ("guidance", "few-shot", "order") and args.judge is None:
        parser.error(f"{args.command} needs --judge.")
    found = getattr(Ablation(args), args.command.replace("-", "_"))()
    args.out.mkdir(parents=True, exist_ok=True)
    content = {
        "command": args.command,
        "styles": list(STYLES),
        "seed": args.seed,
        "scores": found,
    }
    (args.out / f"{args.command}.json").write_text(json.dumps(content, indent=1) + "\n")
    plot(args.command, found, args.out / f"{args.command}.png")
    print_table(found, ("distance", "right", "top_1", "style"))


if __name__ == "__main__":
    main()
