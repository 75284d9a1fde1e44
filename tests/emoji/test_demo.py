import pytest
import torch
from PIL import Image

from vilau_hf import TINY_CHECKPOINT, VilaUForConditionalGeneration, VilaUProcessor
from vilau_hf.emoji.dataset import concept_names, load_emoji
from vilau_hf.emoji.demo import CLIPS, SAMPLES, EmojiDemo
from vilau_hf.emoji.judge import EmojiJudge
from vilau_hf.emoji.packages import STYLES


@pytest.fixture(scope="module")
def demo():
    """Returns the demo with the model of shapes, which is small, and a judge that has learned nothing."""
    model = VilaUForConditionalGeneration.from_pretrained(TINY_CHECKPOINT).eval()
    processor = VilaUProcessor.from_pretrained(TINY_CHECKPOINT)
    torch.manual_seed(0)
    judge = EmojiJudge(concept_names(SAMPLES), image_size=32).eval()
    return EmojiDemo(model, processor, judge, seed=0)


def test_samples_hold_concepts_in_all_styles_with_one_held_out():
    held_out = load_emoji(SAMPLES, 64, "pairs")
    train = load_emoji(SAMPLES, 64, "train")
    assert len({one.concept.key for one in held_out}) == 24
    styles = {}
    for one in [*held_out, *train]:
        styles.setdefault(one.concept.key, set()).add(one.style)
    assert all(each == set(STYLES) for each in styles.values())
    assert sum(path.stat().st_size for path in SAMPLES.iterdir()) < 500_000


def test_demo_saves_every_sheet_and_the_clips(demo, tmp_path):
    sentences = demo.run(tmp_path / "out")
    assert list(sentences) == ["drawings.png", "styles.png", "clips", "tower.png", "answers.png", "rows.png"]
    for name in sentences:
        if name.endswith(".png"):
            with Image.open(tmp_path / "out" / name) as sheet:
                assert sheet.width > 400 and sheet.height > 100
    num_frames = demo.model.generation_config.num_frames
    for name in CLIPS:
        for suffix in ("gif", "webp"):
            with Image.open(tmp_path / "out" / "clips" / f"{name}.{suffix}") as clip:
                assert 1 <= clip.n_frames <= num_frames  # Pillow joins equal frames
    assert "of 32 drawings" in sentences["drawings.png"] and "of 24 answers" in sentences["answers.png"]


def test_sheet_of_the_tower_ends_every_row_with_the_image_itself(demo, tmp_path):
    demo.reconstructions(tmp_path / "tower.png")
    depth = demo.model.model.vision_tower.config.code_depth
    with Image.open(tmp_path / "tower.png") as sheet:
        left = 16 + depth * (96 + 16)
        shown = sheet.crop((left, 16, left + 96, 16 + 96)).convert("RGB")
    expected = demo.targets[0].on("white").resize((96, 96), Image.Resampling.NEAREST)
    assert shown.tobytes() == expected.tobytes()


def test_rows_end_with_a_style_that_was_held_out(demo, monkeypatch, tmp_path):
    asked = []

    def generate(model, processor, messages, mode, seed, images):
        asked.extend(messages)
        assert all(len(each) == 3 for each in images)
        return torch.zeros(len(messages), 3, 32, 32, dtype=torch.uint8)

    monkeypatch.setattr("vilau_hf.emoji.demo.generate_from_messages", generate)
    demo.rows(tmp_path / "rows.png")
    held_out = {f"{one.concept.name}, {one.style} style" for one in demo.held_out}
    for messages in asked:
        texts = [part["text"] for part in messages[0]["content"] if part["type"] == "text"]
        assert texts[-1] in held_out and not held_out & set(texts[:-1])
