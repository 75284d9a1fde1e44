"""The demo of the emoji model behind `vilau demo`: sheets of drawings, style changes, clips, answers and rows."""

import random
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image
from tqdm.auto import tqdm

from ..evaluation.model_outputs import (
    answer_questions,
    generate_from_captions,
    generate_from_messages,
    user_message,
)
from ..evaluation.sheets import beside, contact_sheet, enlarge, save_animation, to_pil, to_uint8
from ..modeling import VilaUForConditionalGeneration
from ..processing import VilaUProcessor
from .dataset import Emoji, load_emoji
from .judge import EmojiJudge
from .packages import STYLES
from .scores import BACKGROUND, draw, judged, restyle
from .tasks import EmojiTasks, row_messages


# Real images of a few concepts in all styles, one style of each held out of training. `docs/emoji.md` tells how they
# are chosen, and NOTICE names their authors.
SAMPLES = Path(__file__).parent / "samples"
NUM_DRAWN = 8
NUM_RESTYLED = 8
NUM_RECONSTRUCTED = 6
NUM_ANSWERED = 8
NUM_ROWS = 6
# two clips of training, then two that were held out
CLIPS = ("fire", "panda", "fox", "ghost")
SIDE = 96
MILLISECONDS = 120


class EmojiDemo:
    """
    Makes the sheets of the demo.

    Args:
        model ([`VilaUForConditionalGeneration`]): the emoji model.
        processor ([`VilaUProcessor`]): its processor.
        judge ([`EmojiJudge`]): decides which frames are green.
        samples (`Path`): records of a few concepts in all styles.
        seed (`int`, *optional*, defaults to 0): seed of all choices and of sampling.
    """

    def __init__(
        self,
        model: VilaUForConditionalGeneration,
        processor: VilaUProcessor,
        judge: EmojiJudge,
        samples: Path = SAMPLES,
        seed: int = 0,
    ) -> None:
        self.model = model
        self.processor = processor
        self.judge = judge
        self.seed = seed
        size = model.config.vision_config.image_size
        self.held_out = load_emoji(samples, size, "pairs")
        everything = [*load_emoji(samples, size, "train"), *self.held_out]
        self.styles: dict[str, dict[str, Emoji]] = {}
        for one in everything:
            self.styles.setdefault(one.concept.key, {})[one.style] = one
        self.tasks = EmojiTasks(everything, [], {}, num_samples=0)
        # one held-out image of each concept; a concept can have two, flat and 3D
        self.targets = list({one.concept.key: one for one in self.held_out}.values())
        random.Random(seed).shuffle(self.targets)

    def run(self, out: Path) -> dict[str, str]:
        """
        Saves all sheets in `out`, which is created if it does not exist.

        Returns:
            File name -> a sentence about it.
        """
        out.mkdir(parents=True, exist_ok=True)
        sections: dict[str, Callable[[Path], str]] = {
            "drawings.png": self.drawings,
            "styles.png": self.style_changes,
            "clips": self.clips,
            "tower.png": self.reconstructions,
            "answers.png": self.answers,
            "rows.png": self.rows,
        }
        sentences = {}
        with tqdm(total=len(sections), desc="demo", disable=None) as progress:
            for name, section in sections.items():
                progress.set_postfix_str(name)
                sentences[name] = section(out / name)
                progress.update()
        return sentences

    def _is_named(self, images: torch.Tensor, targets: list[Emoji]) -> list[bool]:
        """Returns whether the judge names the concept of each target in its drawing `(3, S, S)` first."""
        names = [one.concept.name for one in targets]
        return judged(self.judge, [to_pil(image) for image in images], names, [one.style for one in targets])["top_1"]

    def drawings(self, path: Path) -> str:
        """Draws concepts in all styles; the style that was held out of training says so."""
        wanted = [self.styles[one.concept.key][style] for one in self.targets[:NUM_DRAWN] for style in STYLES]
        held_out = {(one.concept.key, one.style) for one in self.held_out}
        images = draw(self.model, self.processor, wanted, self.seed)
        right = self._is_named(images, wanted)
        new = [(one.concept.key, one.style) in held_out for one in wanted]
        captions = [
            f"{one.concept.name}, {one.style}" + (" (held out)" if is_new else "")
            for one, is_new in zip(wanted, new, strict=True)
        ]
        contact_sheet([enlarge(image, SIDE) for image in images], captions, right, columns=8).save(path)
        of_new = [hit for hit, is_new in zip(right, new, strict=True) if is_new]
        return (
            f"the judge names {sum(right)} of {len(right)} drawings, "
            f"and {sum(of_new)} of {len(of_new)} that were held out"
        )

    def style_changes(self, path: Path) -> str:
        """Changes the style of images: before, after, and the true image, which the model has never seen."""
        after = self.targets[:NUM_RESTYLED]
        before = [self._other_style(one) for one in after]
        images = restyle(self.model, self.processor, before, [one.style for one in after], self.seed)
        right = self._is_named(images, after)
        sheets = [
            beside(beside(_show(first), enlarge(image, SIDE)), _show(last), gap=12)
            for first, image, last in zip(before, images, after, strict=True)
        ]
        captions = [
            f"{last.concept.name}: {first.style} to {last.style}, and the true one"
            for first, last in zip(before, after, strict=True)
        ]
        contact_sheet(sheets, captions, right, columns=4).save(path)
        return f"the judge names {sum(right)} of {len(right)} images in their new style"

    def _other_style(self, one: Emoji) -> Emoji:
        """Returns the image of the same concept in the first style that was not held out."""
        styles = self.styles[one.concept.key]
        hidden = {other.style for other in self.held_out if other.concept.key == one.concept.key}
        return next(styles[style] for style in STYLES if style not in hidden)

    def clips(self, folder: Path) -> str:
        """Draws clips, as GIF and as WebP."""
        folder.mkdir(exist_ok=True)
        captions = [f"{name}, animated style" for name in CLIPS]
        videos = generate_from_captions(self.model, self.processor, captions, "video", self.seed)
        for name, video in zip(CLIPS, videos, strict=True):
            frames = [enlarge(frame, 2 * SIDE) for frame in video]
            for suffix in (".gif", ".webp"):
                save_animation(frames, folder / f"{name.replace(' ', '-')}{suffix}", MILLISECONDS)
        return f"{len(CLIPS)} clips of {videos.shape[1]} frames"

    @torch.no_grad()
    def reconstructions(self, path: Path) -> str:
        """Shows what the tower keeps of images with 1 to D codes at each position."""
        tower = self.model.model.vision_tower
        images = [one.on(BACKGROUND) for one in self.targets[:NUM_RECONSTRUCTED]]
        pixels = self.processor.image_processor(images, return_tensors="pt")["pixel_values"].to(self.model.device)
        embeddings = tower.quantizer.code_embeddings(tower.encode(pixels).codes)
        depths = range(1, tower.config.code_depth + 1)
        columns = [to_uint8(tower.decode(embeddings[..., :depth, :].sum(-2))).cpu() for depth in depths]
        columns.append(to_uint8(pixels).cpu())
        captions = [*(f"{depth} of {len(depths)} codes" for depth in depths), "the image"]
        shown = [enlarge(column[row], SIDE) for row in range(len(images)) for column in columns]
        contact_sheet(shown, captions * len(images), None, columns=2 * len(columns)).save(path)
        return f"{len(images)} images with 1 to {len(depths)} codes at each position"

    def answers(self, path: Path) -> str:
        """Asks what held-out images show, their style, and a yes/no question about a concept that looks alike."""
        choice = random.Random(self.seed)
        records = []
        asked = []
        expected = []
        for one in self.targets[:NUM_ANSWERED]:
            for kind in ("name", "style", "is_it"):
                question, answer = self.tasks.question(one, BACKGROUND, kind, choice)
                content = [{"type": "image"}, {"type": "text", "text": question}]
                reply = {"role": "assistant", "content": [{"type": "text", "text": answer}]}
                records.append({"messages": [*user_message(content), reply], "images": [one.on(BACKGROUND)]})
                asked.append(question)
                expected.append(answer)
        replies = answer_questions(self.model, self.processor, records)
        right = [reply == answer for reply, answer in zip(replies, expected, strict=True)]
        captions = [f"{question} {reply}" for question, reply in zip(asked, replies, strict=True)]
        shown = [_show(one) for one in self.targets[:NUM_ANSWERED] for _ in range(3)]
        contact_sheet(shown, captions, right, columns=6).save(path)
        return f"{sum(right)} of {len(right)} answers about held-out images are exactly right"

    def rows(self, path: Path) -> str:
        """Draws the last image of a row: one concept in two styles, another in the first style and in the second."""
        rows = []
        for index, asked in enumerate(self.targets[:NUM_ROWS]):
            given = self._other_style(asked)
            # A row teaches the two styles by a concept whose images were not held out in either.
            others = [one for one in self.targets if one.style not in (given.style, asked.style)]
            shown = random.Random(f"{self.seed} {index}").choice(others)
            styles = self.styles[shown.concept.key]
            rows.append([styles[given.style], styles[asked.style], given, asked])
        messages = [user_message(row_messages(row)[0]) for row in rows]
        media = [[one.on(BACKGROUND) for one in row[:-1]] for row in rows]
        images = generate_from_messages(self.model, self.processor, messages, "image", self.seed, media)
        right = self._is_named(images, [row[-1] for row in rows])
        sheets = []
        for row, image in zip(rows, images, strict=True):
            strip = beside(beside(_show(row[0]), _show(row[1])), _show(row[2]))
            sheets.append(beside(strip, enlarge(image, SIDE), gap=12))
        captions = [", ".join(f"{one.concept.name} in {one.style}" for one in row) for row in rows]
        contact_sheet(sheets, captions, right, columns=3).save(path)
        return f"the judge names {sum(right)} of {len(right)} images that end a row of examples"


def _show(one: Emoji) -> Image.Image:
    """Returns a real image at the size of the sheets."""
    return one.on(BACKGROUND).resize((SIDE, SIDE), Image.Resampling.NEAREST)


__all__ = ["SAMPLES", "EmojiDemo"]
