import numpy as np
import pytest
import torch
from PIL import Image

from vilau_hf.emoji import scores
from vilau_hf.emoji.concepts import Concept
from vilau_hf.emoji.dataset import Emoji
from vilau_hf.emoji.judge import EmojiJudge, Judgement
from vilau_hf.emoji.packages import STYLES
from vilau_hf.emoji.tasks import Clip, EmojiTasks
from vilau_hf.evaluation.reconstruction import reconstruct


STYLE_NAMES = list(STYLES)
COLORS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


class JudgeOfColors(EmojiJudge):
    """Names the nearest colour of `COLORS`; bright images have the first style, dark ones the second."""

    def __init__(self):
        super().__init__(list(COLORS), image_size=8)

    def judge(self, images, batch_size=64):
        pixels = torch.stack([torch.from_numpy(np.array(image.convert("RGB"))) for image in images]).float()
        mean = pixels.flatten(1, 2).mean(1)
        order = mean.argsort(dim=-1, descending=True)
        styles = (mean.amax(-1) < 128).long()
        return Judgement(order, styles, mean)


def plain(color, style="noto", value=255, side=8):
    """Returns an opaque emoji of one colour."""
    rgba = np.zeros((side, side, 4), np.uint8)
    rgba[..., :3] = np.array(COLORS[color]) // 255 * value
    rgba[..., 3] = 255
    return Emoji(Concept(str(list(COLORS).index(color)), color, "Colours", ()), style, rgba)


def pixels_of(emoji):
    return torch.from_numpy(np.stack([one.rgba[..., :3] for one in emoji])).permute(0, 3, 1, 2)


def test_judged_tells_concept_among_one_and_five_and_style():
    images = [Image.new("RGB", (8, 8), (200, 90, 0)), Image.new("RGB", (8, 8), (0, 0, 100))]
    hits = scores.judged(JudgeOfColors(), images, ["green", "blue"], STYLE_NAMES[:2])
    assert hits == {"top_1": [False, True], "top_5": [True, True], "style": [True, True]}


def test_scores_of_drawings_are_relative_to_the_judge_on_real_images():
    # the judge takes the second real image for the second style, so its ceiling for the style is 3 of 4
    real = [plain("red"), plain("green", value=100), plain("blue"), plain("red")]
    drawn = pixels_of([plain("red"), plain("green"), plain("red"), plain("green")])
    result = scores.compare_with_real(JudgeOfColors(), drawn, real, "pairs")
    assert result["pairs_top_1"].value == 0.5 and result["pairs_top_1"].count == 4
    assert result["pairs_top_1_real"].value == 1 and result["pairs_top_1_ratio"].value == 0.5
    assert result["pairs_style"].value == 1 and result["pairs_style_real"].value == 0.75
    assert result["pairs_style_ratio"].value == pytest.approx(4 / 3)


def test_motion_energy_is_the_mean_squared_change_of_a_pixel():
    still = torch.full((1, 3, 3, 4, 4), 7, dtype=torch.uint8)
    blinking = torch.zeros(1, 3, 3, 4, 4, dtype=torch.uint8)
    blinking[:, 1, :, :2] = 200  # half of the pixels change by 200, twice
    values = scores.motion_energy(torch.cat([still, blinking]))
    assert values.tolist() == [0, 200**2 / 2]


def test_clips_must_show_the_concept_first_and_last_and_move_as_much_as_the_true_ones():
    frames = np.stack([plain("red").rgba, plain("red", value=155).rgba])
    clip = Clip(Concept("1", "red", "Colours", ()), frames)

    def video(first, last):
        return pixels_of([first, last])

    videos = torch.stack(
        [
            video(plain("red"), plain("red", value=155)),  # as the true clip
            video(plain("red"), plain("red")),  # does not move
            video(plain("red"), plain("blue", value=100)),  # ends with another concept
            video(plain("red", value=200), plain("red", value=80)),  # moves 1.44 times as much
        ]
    )
    result = scores.score_clips(JudgeOfColors(), videos, [clip] * 4)
    assert result["clip_named"].value == 0.75 and result["clip_named_real"].value == 1
    assert result["clip_moves"].value == 0.5
    assert result["clip_all"].value == 0.5


def test_clip_pixels_are_the_frames_on_white():
    frames = np.stack([plain("red").rgba, plain("blue").rgba])
    frames[1, ..., 3] = 0
    pixels = scores.clip_pixels(Clip(Concept("1", "red", "Colours", ()), frames))
    assert pixels.shape == (2, 3, 8, 8)
    assert pixels[0, :, 0, 0].tolist() == [255, 0, 0] and pixels[1, :, 0, 0].tolist() == [255, 255, 255]


@pytest.fixture(scope="module")
def tiny():
    from vilau_hf import TINY_CHECKPOINT, VilaUForConditionalGeneration, VilaUProcessor, VilaUVisionTowerForPreTraining

    model = VilaUForConditionalGeneration.from_pretrained(TINY_CHECKPOINT).eval()
    tower = VilaUVisionTowerForPreTraining.from_pretrained(f"{TINY_CHECKPOINT}/tower", dtype=torch.float32).eval()
    return model, VilaUProcessor.from_pretrained(TINY_CHECKPOINT), tower


def test_tower_is_scored_by_its_reconstructions_and_by_the_choice_of_names(tiny):
    _, processor, tower = tiny
    emoji = [plain(color, side=32) for color in COLORS]
    result = scores.score_tower(tower, processor, emoji, [*COLORS, "a", "circle", "cross", "square"])
    pixels = pixels_of(emoji)
    reconstruction = reconstruct(tower.vision_tower, pixels.float() / 127.5 - 1)
    errors = ((pixels.double() - reconstruction) ** 2).flatten(1).mean(1)
    expected = (10 * (255**2 / errors).log10()).mean()
    assert result["reconstruction_psnr"].value == pytest.approx(expected.item(), rel=1e-5)
    assert result["zero_shot_top_5"].value >= result["zero_shot_top_1"].value
    only = scores.score_tower(tower, processor, emoji[:1], ["red"])
    assert only["zero_shot_top_1"].value == 1  # one name leaves no choice


def test_answers_are_compared_with_those_of_the_training_tasks(tiny, monkeypatch):
    model, processor, _ = tiny
    emoji = [plain(color, style) for color in COLORS for style in STYLE_NAMES[:2]]
    tasks = EmojiTasks(emoji, [], {}, num_samples=0)
    asked = []

    def answer(model, processor, records):
        questions = [record["messages"][0]["content"][1]["text"] for record in records]
        asked.extend(questions)
        # knows every name, calls everything the first style, and says yes to everything
        known = [record["messages"][1]["content"][0]["text"] for record in records]
        if questions[0] == "what is this?":
            return known
        return [STYLE_NAMES[0] if "style" in question else "yes" for question in questions]

    monkeypatch.setattr(scores, "answer_questions", answer)
    result = scores.score_answers(model, processor, emoji, tasks)
    assert result["answer_name"].value == 1
    assert result["answer_style"].value == 0.5
    assert result["answer_group"].value == 0
    yes_no = [question for question in asked if question.startswith("is it")]
    assert len(yes_no) == len(emoji) and 0 < result["answer_is_it"].value < 1


def test_best_of_four_is_what_the_tower_ranks_first(tiny, monkeypatch):
    model, processor, tower = tiny
    emoji = [plain("red"), plain("blue")]
    # candidates of "red": green, red, green, green; of "blue": blue four times
    colors = ["green", "red", "green", "green", "blue", "blue", "blue", "blue"]
    monkeypatch.setattr(scores, "draw", lambda *args: pixels_of([plain(color) for color in colors]))
    monkeypatch.setattr(
        scores.TowerRanker, "__call__", lambda self, prompts, pixels, codes: pixels[:, 0].flatten(1).mean(1)
    )
    result = scores.score_best_of(model, processor, tower, JudgeOfColors(), emoji, seed=0)
    assert result["one_drawing_top_1"].value == (0.25 + 1) / 2
    assert result["best_of_4_top_1"].value == 1
    assert result["best_of_4_gain"].value == pytest.approx(0.375)


def test_drawings_and_style_changes_have_the_asked_size(tiny):
    model, processor, _ = tiny
    emoji = [plain("red", side=32), plain("blue", "flat", side=32)]
    drawn = scores.draw(model, processor, emoji, seed=0)
    changed = scores.restyle(model, processor, emoji, ["flat", "noto"], seed=0)
    assert drawn.shape == changed.shape == (2, 3, 32, 32) and drawn.dtype == changed.dtype == torch.uint8
    assert torch.equal(drawn, scores.draw(model, processor, emoji, seed=0))
    assert not torch.equal(drawn, scores.draw(model, processor, emoji, seed=1))
