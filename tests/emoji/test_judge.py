import json

import pytest
import torch
from PIL import Image

from vilau_hf.emoji.judge import EmojiJudge


CONCEPTS = [f"thing {number}" for number in range(9)]


@pytest.fixture(scope="module")
def judge():
    torch.manual_seed(0)
    # the file holds float16, so the weights are rounded first to compare exactly
    return EmojiJudge(CONCEPTS, image_size=32).half().float().eval()


def test_saved_judge_gives_equal_logits(judge, tmp_path):
    judge.save(tmp_path / "judge")
    loaded = EmojiJudge.load(tmp_path / "judge")
    assert loaded.concepts == CONCEPTS and loaded.image_size == 32 and not loaded.training
    pixels = torch.rand(2, 3, 32, 32)
    with torch.inference_mode():
        for ours, theirs in zip(judge(pixels), loaded(pixels), strict=True):
            assert torch.equal(ours, theirs)


def test_judge_is_small(judge, tmp_path):
    without_heads = sum(parameter.numel() for parameter in judge.network.parameters())
    assert without_heads == 2_782_784  # ResNet-18 has 11.2 million without its classifier
    heads = 257 * (len(CONCEPTS) + 4)
    assert sum(parameter.numel() for parameter in judge.parameters()) == without_heads + heads
    judge.save(tmp_path)
    assert (tmp_path / "judge.safetensors").stat().st_size < 2.1 * (without_heads + heads)


def test_judge_of_another_version_is_refused(judge, tmp_path):
    judge.save(tmp_path)
    config = json.loads((tmp_path / "judge.json").read_text())
    (tmp_path / "judge.json").write_text(json.dumps({**config, "version": 0}))
    with pytest.raises(ValueError, match="holds version 0, expected 1"):
        EmojiJudge.load(tmp_path)


def test_rejects_folders_without_a_judge(tmp_path):
    message = "is no folder of a judge: judge.json, judge.safetensors missing. `examples/emoji/train_judge.py` trains"
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(ValueError, match=message):
            EmojiJudge.load(folder)


def test_judgement_has_five_concepts_a_style_and_features(judge):
    images = [Image.new("RGB", (50, 40), color) for color in ("red", "green", "blue")]
    judgement = judge.judge(images, batch_size=2)
    assert judgement.concepts.shape == (3, 5) and judgement.styles.shape == (3,)
    assert judgement.features.shape == (3, judge.num_features)
    pixels = torch.zeros(1, 3, 32, 32)
    pixels[:, 0] = 1
    with torch.inference_mode():
        concepts, styles, features = judge(pixels)
    assert judgement.concepts[0].tolist() == concepts[0].argsort(descending=True)[:5].tolist()
    assert judgement.styles[0] == styles[0].argmax()
    torch.testing.assert_close(judgement.features[:1], features)


def test_judge_learns_to_tell_two_images_apart():
    torch.manual_seed(0)
    judge = EmojiJudge(CONCEPTS, image_size=16)
    pixels = torch.stack([torch.zeros(3, 16, 16), torch.ones(3, 16, 16)])
    optimizer = torch.optim.AdamW(judge.parameters(), lr=1e-3)
    for _ in range(15):
        concepts, styles, _ = judge(pixels)
        loss = sum(torch.nn.functional.cross_entropy(logits, torch.tensor([1, 3])) for logits in (concepts, styles))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert concepts.argmax(-1).tolist() == styles.argmax(-1).tolist() == [1, 3]
