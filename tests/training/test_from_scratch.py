import pytest
import torch
from safetensors.torch import load_file

from vilau_hf import VilaUForConditionalGeneration, VilaUVisionTowerForPreTraining
from vilau_hf.training.from_scratch import (
    VISUAL_TOKENS,
    new_model,
    new_processor,
    new_siglip,
    optimizer_settings,
    release_tower,
    round_weights,
    save_halved,
    train_tokenizer,
)


TEXTS = ["a red circle", "a blue square", "what is this?"] * 20
VISION = {"hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
VISION |= {"image_size": 16, "patch_size": 4}
WORDS = {"hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
WORDS |= {"max_position_embeddings": 8}
LANGUAGE = {"model_type": "llama", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1}
LANGUAGE |= {"num_attention_heads": 2, "initializer_range": 0.04}
DEPTH = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TEXTS, vocab_size=300, max_length=128)


@pytest.fixture
def siglip(tokenizer):
    torch.manual_seed(0)
    return new_siglip(tokenizer, VISION, WORDS)


@pytest.fixture
def tower(siglip):
    return VilaUVisionTowerForPreTraining.from_siglip(
        siglip, codebook_size=16, code_depth=2, latent_channels=8, block_out_channels=[8, 8, 8], layers_per_block=1,
        norm_num_groups=4,
    )  # fmt: skip


def new(tower, tokenizer, **language):
    return new_model(tower, tokenizer, {**LANGUAGE, **language}, DEPTH)


def test_tokenizer_keeps_every_text_and_has_one_id_for_each_special_token(tokenizer):
    for text in (*TEXTS[:3], "ünseen wörds: 猫"):
        assert tokenizer.decode(tokenizer(text)["input_ids"]).strip() == text
    assert len(tokenizer) <= 300 and tokenizer.model_max_length == 128
    for token in VISUAL_TOKENS.values():
        assert tokenizer.tokenize(token) == [token]


def test_words_of_the_texts_are_short(tokenizer):
    assert len(tokenizer("a red circle")["input_ids"]) <= 4 < len(tokenizer("zebra crossing")["input_ids"])


def test_processor_has_one_visual_token_for_each_patch(tokenizer):
    processor = new_processor(tokenizer, image_size=16, patch_size=4, num_frames=3)
    assert processor.num_visual_tokens == 16 and processor.video_processor.num_frames == 3
    prompt = processor.apply_chat_template([{"role": "user", "content": "a red circle"}], add_generation_prompt=True)
    assert prompt == "<s>USER: a red circle ASSISTANT:"


def test_siglip_begins_with_large_word_embeddings_and_a_known_scale(siglip, tokenizer):
    words = siglip.text_model.embeddings.token_embedding.weight
    assert words.shape[0] == len(tokenizer) and not words[tokenizer.pad_token_id].any()
    assert abs(words[tokenizer.pad_token_id + 1 :].std() - 1) < 0.05
    assert siglip.logit_scale.exp().item() == pytest.approx(10) and siglip.logit_bias.item() == -4


def test_new_model_has_the_tower_and_outputs_of_unit_scale(tower, tokenizer):
    model = new(tower, tokenizer)
    for name, value in tower.vision_tower.state_dict().items():
        assert torch.equal(model.model.vision_tower.state_dict()[name], value), name
    codes = model.model.vision_tower.quantizer.codebook.weight.detach()
    for layer in (model.model.multi_modal_projector.linear_1, model.depth_transformer.in_proj_code):
        projected = codes @ layer.weight.detach().T
        assert 0.5 < projected.std() < 2
    assert model.config.image_token_id == tokenizer.convert_tokens_to_ids("<image>")


def test_new_model_shares_embeddings_and_head_if_asked(tower, tokenizer):
    assert new(tower, tokenizer).lm_head.weight is not new(tower, tokenizer).get_input_embeddings().weight
    model = new(tower, tokenizer, tie_word_embeddings=True)
    assert model.lm_head.weight is model.get_input_embeddings().weight


@pytest.mark.parametrize("tied", [False, True])
def test_rounded_model_is_saved_at_half_the_size_and_loaded_unchanged(tower, tokenizer, tmp_path, tied):
    model = new(tower, tokenizer, tie_word_embeddings=tied)
    round_weights(model)
    model.save_pretrained(tmp_path / "full")
    save_halved(model, tmp_path / "half")
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("full", "half")]
    assert sizes[1] < 0.6 * sizes[0]
    names = [set(load_file(tmp_path / name / "model.safetensors")) for name in ("full", "half")]
    assert names[0] == names[1] and ("lm_head.weight" in names[0]) != tied
    loaded = VilaUForConditionalGeneration.from_pretrained(tmp_path / "half")
    assert loaded.dtype == model.dtype == torch.float32
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name


def test_rounding_changes_weights_by_no_more_than_bfloat16_does(tower):
    before = {name: value.clone() for name, value in tower.state_dict().items()}
    round_weights(tower)
    for name, value in tower.state_dict().items():
        assert value.dtype == before[name].dtype
        torch.testing.assert_close(value, before[name], rtol=2**-8, atol=0)


def test_weights_that_were_not_rounded_are_refused(tower, tmp_path):
    with pytest.raises(ValueError, match="`model` has weights that bfloat16 cannot hold, in '.*'"):
        save_halved(tower, tmp_path / "half")
    assert not (tmp_path / "half").exists()


def test_released_tower_classifies_with_its_own_tokenizer(tower, tokenizer, tmp_path):
    round_weights(tower)
    release_tower(tower, new_processor(tokenizer, 16, 4, 3), tmp_path)
    loaded = VilaUVisionTowerForPreTraining.from_pretrained(tmp_path)
    for name, value in tower.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
    words = type(tokenizer).from_pretrained(tmp_path)(["a red circle"], padding="max_length", max_length=8)
    assert words["input_ids"][0][-1] == tokenizer.pad_token_id


def test_rate_warms_up_and_falls_to_5_percent():
    settings = optimizer_settings(200, learning_rate=2e-3)
    assert settings["max_steps"] == 200 and settings["warmup_steps"] == 10 and settings["learning_rate"] == 2e-3
    assert settings["lr_scheduler_kwargs"] == {"min_lr_rate": 0.05}
    assert optimizer_settings(5)["warmup_steps"] == 1
