"""Behaviours that users of transformers expect of every model, and that its shared model tests check."""

import subprocess
import sys
from unittest.mock import patch

import pytest
import torch
import transformers
from packaging.version import Version
from safetensors.torch import load_file, save_file
from transformers import CompileConfig, PreTrainedModel, SiglipTextConfig, Trainer, TrainingArguments, set_seed

from vilau_hf import VilaUForConditionalGeneration, VilaUVisionTowerForPreTraining
from vilau_hf.modeling.compat_modeling_vilau import CACHE_NAME

from ..conftest import TEXT_TOWER


@pytest.fixture
def inputs():
    """Two prompts with one image each."""
    ids = torch.randint(3, 50, (2, 6))
    span = torch.tensor([[54] + [58] * 16 + [55]] * 2)
    ids = torch.cat([ids[:, :3], span, ids[:, 3:]], 1)
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "pixel_values": torch.rand(2, 3, 16, 16) * 2 - 1,
    }


@pytest.fixture(params=["base", "head"])
def either(request, model):
    return model if request.param == "head" else model.model


def without(inputs, name):
    return {key: value for key, value in inputs.items() if key != name}


def test_default_configurations_print_nothing():
    names = "VilaUConfig, VilaUDepthConfig, VilaUVisionConfig"
    script = (
        "import warnings; warnings.simplefilter('ignore', UserWarning)\n"  # warns of versions that were not tested
    )
    script += f"from vilau_hf import {names}; print('imported'); [each() for each in ({names})]"
    run = subprocess.run(
        [sys.executable, "-u", "-c", script], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True
    )
    before, after = run.stdout.split("imported\n")
    assert "vilau" not in before and after == ""  # libraries may warn about each other


def test_sub_models_share_the_configuration_of_the_complete_model(model):
    assert model.model.vision_tower.config is model.config.vision_config
    assert model.model.vision_tower.image_encoder.config is model.config.vision_config.encoder_config
    assert model.depth_transformer.config is model.config.depth_config
    assert model.model.language_model.config is model.config.text_config


@torch.no_grad()
def test_a_model_on_meta_can_be_initialised_and_run(config, inputs):
    with torch.device("meta"):
        model = VilaUForConditionalGeneration(config)
    model.to_empty(device="cpu")
    model.init_weights()
    assert model.eval()(**inputs).logits.isfinite().all()


def test_missing_weights_are_initialised_like_by_the_constructor(config):
    initialise = PreTrainedModel._initialize_weights

    def seeded(self, module, *args, **kwargs):
        set_seed(7)
        return initialise(self, module, *args, **kwargs)

    with patch.object(PreTrainedModel, "_initialize_weights", seeded):
        made = VilaUForConditionalGeneration(config)
        loaded, _ = VilaUForConditionalGeneration.from_pretrained(
            None, config=config, state_dict={}, output_loading_info=True
        )
    for (name, tensor), other in zip(made.state_dict().items(), loaded.state_dict().values(), strict=True):
        assert torch.equal(tensor, other), name


def test_missing_weights_of_a_tower_are_initialised_like_by_the_constructor(vision_config):
    vision_config.text_config = SiglipTextConfig(**TEXT_TOWER)
    initialise = PreTrainedModel._initialize_weights

    def seeded(self, module, *args, **kwargs):
        set_seed(7)
        return initialise(self, module, *args, **kwargs)

    with patch.object(PreTrainedModel, "_initialize_weights", seeded):
        made = VilaUVisionTowerForPreTraining(vision_config)
        loaded, _ = VilaUVisionTowerForPreTraining.from_pretrained(
            None, config=vision_config, state_dict={}, output_loading_info=True
        )
    for (name, tensor), other in zip(made.state_dict().items(), loaded.state_dict().values(), strict=True):
        assert torch.equal(tensor, other), name


def test_tied_heads_are_sharded(model):
    assert model.tp_plan["lm_head"] == "colwise_gather_output"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_image_encoder_and_quantizer_keep_float32_and_other_weights_are_cast(model, tmp_path, dtype):
    model.save_pretrained(tmp_path)
    loaded = VilaUForConditionalGeneration.from_pretrained(tmp_path, dtype=dtype)
    assert loaded.dtype == dtype
    for name, tensor in loaded.named_parameters():
        exact = "image_encoder" in name or "quantizer" in name
        assert tensor.dtype == (torch.float32 if exact else dtype), name
    loaded.save_pretrained(tmp_path / "again")
    assert VilaUForConditionalGeneration.from_pretrained(tmp_path / "again", dtype="auto").dtype == dtype


@torch.no_grad()
def test_the_dtype_comes_from_either_argument_or_from_the_file(model, tmp_path):
    model.to(torch.bfloat16).save_pretrained(tmp_path)
    for settings, expected in (
        ({}, torch.bfloat16),
        ({"dtype": "auto"}, torch.bfloat16),
        ({"dtype": "float32"}, torch.float32),
        ({"torch_dtype": torch.float16}, torch.float16),
    ):
        assert VilaUForConditionalGeneration.from_pretrained(tmp_path, **settings).dtype == expected, settings


def test_missing_and_unexpected_keys_are_reported(model, tmp_path):
    model.save_pretrained(tmp_path / "whole")
    weights = load_file(tmp_path / "whole" / "model.safetensors")
    del weights["lm_head.weight"]
    save_file({**weights, "strange": torch.zeros(1)}, tmp_path / "whole" / "model.safetensors", {"format": "pt"})
    _, report = VilaUForConditionalGeneration.from_pretrained(tmp_path / "whole", output_loading_info=True)
    assert report["missing_keys"] == {"lm_head.weight"} and report["unexpected_keys"] == {"strange"}

    model.model.save_pretrained(tmp_path / "base")
    loaded, report = VilaUForConditionalGeneration.from_pretrained(tmp_path / "base", output_loading_info=True)
    heads = {name for name in model.state_dict() if not name.startswith("model.")}
    assert report["missing_keys"] == heads and not report["unexpected_keys"]
    for name, tensor in model.model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], tensor), name


def test_buffers_are_restored_at_loading(model, tmp_path):
    model.save_pretrained(tmp_path)
    loaded = dict(VilaUForConditionalGeneration.from_pretrained(tmp_path).named_buffers())
    for name, buffer in model.named_buffers():  # also those that are not in the file
        assert torch.equal(loaded[name], buffer), name


@pytest.mark.parametrize("tied", [True, False])
def test_heads_may_be_tied(config, inputs, tmp_path, tied):
    config.tie_word_embeddings = tied
    model = VilaUForConditionalGeneration(config).eval()
    model.save_pretrained(tmp_path)
    loaded = VilaUForConditionalGeneration.from_pretrained(tmp_path)
    assert (loaded.lm_head.weight is loaded.get_input_embeddings().weight) == tied
    assert torch.equal(loaded(**inputs).logits, model(**inputs).logits)


SUB_MODELS = (
    "model.vision_tower",
    "model.multi_modal_projector",
    "model.language_model",
    "lm_head",
    "depth_transformer",
)
OFFLOADED = {
    "nothing": (),
    "tower": SUB_MODELS[:1],
    "language model": SUB_MODELS[1:3],
    "heads": SUB_MODELS[3:],
    "almost everything": SUB_MODELS[:-1],
}


@torch.no_grad()
@pytest.mark.parametrize("offloaded", OFFLOADED.values(), ids=OFFLOADED)
def test_sub_models_may_be_offloaded_to_disk(model, inputs, tmp_path, offloaded):
    model.save_pretrained(tmp_path)
    device_map = {name: "disk" if name in offloaded else "cpu" for name in SUB_MODELS} if offloaded else "auto"
    loaded = VilaUForConditionalGeneration.from_pretrained(
        tmp_path, device_map=device_map, offload_folder=tmp_path / "offloaded"
    )
    settings = {"generation_mode": "image", "do_sample": False, "guidance_scale": 2.0}
    settings["negative_prompt_ids"] = torch.tensor([[1, 5]])
    torch.testing.assert_close(loaded(**inputs).logits, model(**inputs).logits)
    codes = model.generate(**inputs, **settings)
    assert torch.equal(loaded.generate(**inputs, **settings), codes)
    assert torch.equal(loaded.generate(**inputs, **SETTINGS), model.generate(**inputs, **SETTINGS))
    torch.testing.assert_close(loaded.decode_image_tokens(codes), model.decode_image_tokens(codes))


compiles_checks = pytest.mark.skipif(
    Version(torch.__version__) < Version("2.12"), reason="torch 2.11 cannot compile checks of inputs into one graph"
)


@compiles_checks
@torch.no_grad()
def test_forward_compiles_and_exports_as_one_graph(model, inputs):
    expected = model(**inputs).logits
    torch.testing.assert_close(torch.compile(model, fullgraph=True, backend="aot_eager")(**inputs).logits, expected)
    program = torch.export.export(model, (), {**inputs, "use_cache": False}, strict=False)
    torch.testing.assert_close(program.module()(**inputs, use_cache=False).logits, expected)


@compiles_checks
def test_a_training_step_compiles_as_one_graph(model, inputs):
    model.train()
    labels = inputs["input_ids"]
    expected = model(**inputs, labels=labels).loss
    expected.backward()
    gradient = model.depth_transformer.code_head.weight.grad.clone()
    model.zero_grad()
    loss = torch.compile(model, fullgraph=True, backend="aot_eager")(**inputs, labels=labels).loss
    loss.backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(model.depth_transformer.code_head.weight.grad, gradient)


def test_text_decoding_compiles_once_with_a_static_cache(model, inputs):
    torch._dynamo.reset()
    compiling = CompileConfig(fullgraph=True, dynamic=False, backend="aot_eager")
    compiling._compile_all_devices = True
    settings = {**SETTINGS, "cache_implementation": "static", "compile_config": compiling}
    graphs = torch._dynamo.utils.counters["stats"]
    expected, before = model.generate(**inputs, **SETTINGS), graphs["unique_graphs"]
    for _ in range(2):
        assert torch.equal(model.generate(**inputs, **settings), expected)
    assert graphs["unique_graphs"] == before + 1


@torch.no_grad()
@pytest.mark.parametrize("cast", [lambda m: m.to(torch.bfloat16), lambda m: m.half()])
def test_codes_stay_those_of_float32_when_a_model_is_cast(model, inputs, cast):
    pixels, tower = inputs["pixel_values"], model.model.vision_tower
    expected = tower.encode(pixels).codes
    assert cast(model).dtype != torch.float32 and tower.quantizer.codebook.weight.dtype == torch.float32
    assert torch.equal(tower.encode(pixels).codes, expected)


@torch.no_grad()
def test_tuples_hold_what_the_output_holds(either, inputs):
    output, values = either(**inputs), either(**inputs, return_dict=False)
    assert isinstance(values, tuple) and len(values) == len(output)
    assert torch.equal(values[0], output[0])


@torch.no_grad()
def test_hidden_states_and_attentions_by_argument(model, inputs):
    model.set_attn_implementation("eager")
    output = model(**inputs, output_hidden_states=True, output_attentions=True)
    length = inputs["input_ids"].shape[1]
    assert [tuple(state.shape) for state in output.hidden_states] == [(2, length, 48)] * 3
    assert [tuple(weights.shape) for weights in output.attentions] == [(2, 4, length, length)] * 2
    if Version(transformers.__version__) < Version("5.23"):
        return  # earlier versions accept no list of layers
    some = model(**inputs, output_hidden_states=[0, -1]).hidden_states
    assert some[1] is None and torch.equal(some[0], output.hidden_states[0])


@torch.no_grad()
def test_logits_to_keep(model, inputs):
    every = model(**inputs).logits
    torch.testing.assert_close(model(**inputs, logits_to_keep=1).logits, every[:, -1:])
    chosen = torch.tensor([0, 3])
    torch.testing.assert_close(model(**inputs, logits_to_keep=chosen).logits, every[:, chosen])


@torch.no_grad()
def test_embeddings_replace_ids_also_with_images(either, inputs):
    embeds = either.get_input_embeddings()(inputs["input_ids"])
    given = either(inputs_embeds=embeds, **without(inputs, "input_ids"))
    torch.testing.assert_close(given[0], either(**inputs)[0])
    with pytest.raises(ValueError, match="32 visual tokens .* but the prompt holds 0 placeholders"):
        either(inputs_embeds=torch.zeros_like(embeds), **without(inputs, "input_ids"))


@torch.no_grad()
def test_features_of_images_and_videos(either, inputs):
    images, vision = inputs["pixel_values"], either.config.vision_config
    features = either.get_image_features(pixel_values=images, output_hidden_states=True)
    assert features.last_hidden_state.shape == (2, 16, vision.hidden_size)
    assert features.pooler_output.shape == (2, 16, 48)
    assert len(features.hidden_states) == vision.num_hidden_layers + 1
    either.config.vision_config.output_hidden_states = True
    assert len(either.get_image_features(pixel_values=images).hidden_states) == len(features.hidden_states)
    assert isinstance(either.get_image_features(pixel_values=images, return_dict=False), tuple)
    videos = torch.rand(2, 3, 3, 16, 16)
    features, frame = either.get_video_features(videos), either.get_image_features(videos[1, 1:2])
    for name, width in (("last_hidden_state", vision.hidden_size), ("pooler_output", 48)):
        assert features[name].shape == (2, 3 * 16, width)
        torch.testing.assert_close(features[name][1, 16:32], frame[name][0])


@torch.no_grad()
def test_outputs_hold_the_features_of_images_and_videos(either, config):
    images, videos = torch.rand(2, 3, 16, 16), torch.rand(1, 2, 3, 16, 16)
    image, video = [config.image_token_id] * 16, [config.video_token_id] * 32
    ids = torch.tensor([[1, *image, 5, *video, 6, *image]])
    output = either(ids, pixel_values=images, pixel_values_videos=videos, output_hidden_states=True)
    for found, expected in (
        (output.image_outputs, either.get_image_features(images, output_hidden_states=True)),
        (output.video_outputs, either.get_video_features(videos, output_hidden_states=True)),
    ):
        assert len(found.hidden_states) == len(expected.hidden_states) == config.vision_config.num_hidden_layers + 1
        for name in ("last_hidden_state", "pooler_output"):
            torch.testing.assert_close(found[name], expected[name])
        for a, b in zip(found.hidden_states, expected.hidden_states, strict=True):
            torch.testing.assert_close(a, b)
    alone = either(ids[:, :17], pixel_values=images[:1])
    assert alone.video_outputs is None and alone.image_outputs.hidden_states is None
    assert either(ids[:, :1]).image_outputs is None
    as_tuple = either(ids[:, :17], pixel_values=images[:1], return_dict=False)
    assert isinstance(as_tuple[-1], tuple) and torch.equal(as_tuple[-1][1], alone.image_outputs.pooler_output)


def test_a_stock_trainer_keeps_logits_alone(model, inputs, tmp_path):
    rows = [{name: inputs[name][row] for name in ("input_ids", "pixel_values")} for row in range(2)]
    for row in rows:
        row["labels"] = row["input_ids"]
    arguments = TrainingArguments(output_dir=str(tmp_path), report_to="none", use_cpu=True)
    kept = Trainer(model, arguments).predict(rows).predictions
    shapes = [each.shape for each in (kept if isinstance(kept, tuple) else (kept,))]
    length = inputs["input_ids"].shape[1]
    assert shapes == [(2, length, 60)]  # logits alone


def test_ranks_with_and_without_images_call_modules_in_one_order(model, inputs):
    """With ZeRO-3 each call of a module is a collective operation: ranks that differ would wait for ever."""
    calls = []
    for name, module in (("embed", model.get_input_embeddings()), ("projector", model.model.multi_modal_projector)):
        module.register_forward_hook(lambda *_, name=name: calls.append(name))
    codes = torch.zeros(2, 16, 3, dtype=torch.long)
    text = {"input_ids": inputs["input_ids"][:, :3], "labels": inputs["input_ids"][:, :3]}
    model.train()
    for batch in (
        {**inputs, "labels": inputs["input_ids"]},
        {**without(inputs, "pixel_values"), "codes": codes, "labels": inputs["input_ids"]},
        text,
    ):
        calls.clear()
        model(**batch)
        assert calls == ["embed", "projector"]


@pytest.mark.parametrize("cache", [None, "static"])
@pytest.mark.parametrize("size", [1, 8, 100])
def test_prefill_in_chunks_gives_the_text_of_one_pass(model, inputs, size, cache):
    settings = {"do_sample": False, "max_new_tokens": 4, "cache_implementation": cache}
    expected = model.generate(**inputs, **settings)
    assert torch.equal(model.generate(**inputs, **settings, prefill_chunk_size=size), expected)


def test_rejects_prefill_in_chunks_for_embeddings(model, inputs):
    embeds = model.get_input_embeddings()(inputs["input_ids"][:, :3])
    with pytest.raises(ValueError, match=r"`prefill_chunk_size` \(8\) is not supported for `inputs_embeds`"):
        model.generate(inputs_embeds=embeds, max_new_tokens=2, prefill_chunk_size=8)


def test_generation_from_embeddings_with_images_keeps_no_graph(model, inputs, monkeypatch):
    given = []
    forward = model.model.language_model.forward
    monkeypatch.setattr(
        model.model.language_model, "forward", lambda **kwargs: given.append(kwargs) or forward(**kwargs)
    )
    embeds = model.get_input_embeddings()(inputs["input_ids"]).detach()
    model.generate(inputs_embeds=embeds, **without(inputs, "input_ids"), max_new_tokens=1)
    assert given and not given[0]["inputs_embeds"].requires_grad


def test_attention_can_be_chosen_for_all_and_for_one_sub_model(model):
    model.set_attn_implementation("eager")
    for name, module in model.named_modules():
        if type(module).__name__.endswith("Attention"):
            assert module.config._attn_implementation == "eager", name
    model.set_attn_implementation({"text_config": "sdpa"})
    assert model.config.text_config._attn_implementation == "sdpa"
    assert model.config.depth_config._attn_implementation == "eager"
    with pytest.raises(ValueError):
        model.set_attn_implementation("no such attention")


@torch.no_grad()
def test_eager_and_sdpa_give_the_same_logits_and_codes(model, inputs):
    settings = {"generation_mode": "image", "do_sample": False, "guidance_scale": 2.0}
    found = {}
    for name in ("sdpa", "eager"):
        model.set_attn_implementation(name)
        found[name] = model(**inputs).logits, model.generate(**inputs, **settings)
    torch.testing.assert_close(found["sdpa"][0], found["eager"][0], atol=1e-5, rtol=1e-5)
    assert torch.equal(found["sdpa"][1], found["eager"][1])


@pytest.mark.slow
@torch.no_grad()
def test_flex_attention_gives_the_same_logits(model):
    ids, mask = torch.randint(3, 50, (2, 9)), torch.tensor([[0, 0, 1, 1, 1, 1, 1, 1, 1], [1] * 9])
    expected = model(ids, attention_mask=mask).logits[mask.bool()]
    model.set_attn_implementation("flex_attention")
    torch.testing.assert_close(model(ids, attention_mask=mask).logits[mask.bool()], expected, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_resizing_the_vocabulary_keeps_rows_and_special_ids(model, inputs):
    before = model(**inputs).logits
    rows = model.get_input_embeddings().weight.clone()
    model.resize_token_embeddings(75)
    assert model.config.text_config.vocab_size == 75 and model.config.image_token_id == 58
    assert torch.equal(model.get_input_embeddings().weight[:60], rows)
    torch.testing.assert_close(model(**inputs).logits[..., :60], before)
    assert model.generate(**inputs, generation_mode="image", guidance_scale=1.0).shape == (2, 4, 4, 3)


def test_shift_labels_replace_labels(model):
    ids = torch.randint(3, 50, (2, 8))
    expected = model(ids, labels=ids).loss
    shifted = torch.nn.functional.pad(ids[:, 1:], (0, 1), value=-100)
    torch.testing.assert_close(model(ids, labels=torch.randint(3, 50, (2, 8)), shift_labels=shifted).loss, expected)


@torch.no_grad()
def test_packed_sequences_do_not_attend_to_each_other(model):
    alone = torch.cat([model(torch.tensor([ids])).logits for ids in ([5, 6, 7], [8, 9])], 1)
    positions = torch.tensor([[0, 1, 2, 0, 1]])
    packed = model(torch.tensor([[5, 6, 7, 8, 9]]), position_ids=positions, use_cache=False).logits
    torch.testing.assert_close(packed, alone)


@torch.no_grad()
def test_four_dimensional_masks(model):
    first, second = (model(torch.tensor([[5, 6, 7, *end]])).logits[:, 3:] for end in ([8, 9], [10, 11]))
    allowed = torch.ones(7, 7).tril().bool()
    allowed[5:, 3:5] = False
    mask = torch.where(allowed, 0.0, torch.finfo(torch.float32).min)[None, None]
    both = model(
        torch.tensor([[5, 6, 7, 8, 9, 10, 11]]),
        attention_mask=mask,
        position_ids=torch.tensor([[0, 1, 2, 3, 4, 3, 4]]),
    ).logits
    torch.testing.assert_close(both[:, 3:], torch.cat([first, second], 1), atol=1e-5, rtol=1e-4)


def test_the_constructor_freezes_the_tower(model, inputs):
    model.train()(**inputs, labels=inputs["input_ids"]).loss.backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
        assert parameter.requires_grad != name.startswith("model.vision_tower."), name


SETTINGS = {"max_new_tokens": 5, "do_sample": False, "eos_token_id": None}


@pytest.mark.parametrize(
    "other",
    [
        {"prompt_lookup_num_tokens": 2},
        {"cache_implementation": "static", "disable_compile": True},
        {"use_cache": False},
        {"num_beams": 1, "num_return_sequences": 1},
    ],
)
def test_all_ways_of_decoding_text_agree(model, inputs, other):
    row = {name: value[:1] for name, value in inputs.items()}
    assert torch.equal(model.generate(**row, **SETTINGS), model.generate(**row, **SETTINGS, **other))


def test_the_model_can_assist_itself(model, inputs):
    row = {name: value[:1] for name, value in inputs.items()}
    expected = model.generate(**row, **SETTINGS)
    assert torch.equal(model.generate(**row, **SETTINGS, assistant_model=model), expected)


def test_beams_keep_the_images_of_their_rows(model, inputs):
    settings = {**SETTINGS, "num_beams": 3, "num_return_sequences": 2}
    both = model.generate(**inputs, **settings)
    for row in range(2):
        alone = model.generate(**{name: value[row : row + 1] for name, value in inputs.items()}, **settings)
        assert torch.equal(both[2 * row : 2 * row + 2], alone)


@pytest.mark.parametrize("num_beams", [1, 2])
def test_text_is_generated_from_embeddings(model, inputs, num_beams):
    settings = {**SETTINGS, "num_beams": num_beams}
    embeds = model.get_input_embeddings()(inputs["input_ids"])
    expected = model.generate(**inputs, **settings)
    assert torch.equal(model.generate(**inputs, inputs_embeds=embeds, **settings), expected)
    alone = model.generate(inputs_embeds=embeds, **without(inputs, "input_ids"), **settings)
    assert torch.equal(alone, expected[:, inputs["input_ids"].shape[1] :])


def test_generation_continues_from_a_returned_cache(model, inputs):
    settings = {**SETTINGS, "return_dict_in_generate": True}
    whole = model.generate(**inputs, **settings)
    begun = model.generate(**inputs, **{**settings, "max_new_tokens": 3})
    ended = model.generate(
        input_ids=begun.sequences,
        attention_mask=torch.ones_like(begun.sequences),
        cache=begun[CACHE_NAME],
        **{**settings, "max_new_tokens": 2},
    )
    assert torch.equal(ended.sequences, whole.sequences)


def test_generation_starts_without_a_prompt_and_rejects_unknown_arguments(model, inputs):
    assert model.generate(max_new_tokens=3, eos_token_id=None, do_sample=False).shape == (1, 4)
    with pytest.raises(ValueError, match="nonsense"):
        model.generate(**inputs, max_new_tokens=1, nonsense=1)


@torch.no_grad()
def test_padding_on_the_left_does_not_change_logits(model):
    ids = torch.randint(3, 50, (2, 7))
    padded = torch.cat([torch.zeros(2, 32, dtype=torch.long), ids], 1)
    mask = (padded != 0).long()
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    last = model(padded, attention_mask=mask, position_ids=positions).logits[:, -1]
    torch.testing.assert_close(last, model(ids).logits[:, -1], atol=1e-5, rtol=1e-5)
