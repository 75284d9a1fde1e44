"""Comparison with all numbers recorded from the original implementation, in float32 with tiny random weights."""

import pytest
import torch

from vilau_hf import VilaUForConditionalGeneration, VilaUProcessor

from .distributions import code_probabilities
from .golden import FOLDERS, ROOT, described, picture, recording, release


pytestmark = [pytest.mark.parametrize("folder", FOLDERS), pytest.mark.usefixtures("resized_as_recorded")]


def assert_near(actual, expected, atol=1e-4):
    torch.testing.assert_close(actual, expected, atol=atol, rtol=1e-4)


@torch.no_grad()
def test_tower_returns_the_recorded_features_and_exactly_the_recorded_codes(folder):
    model, expected, inputs = release(folder)[0], recording(folder, "encode"), recording(folder, "inputs")
    tower = model.model.vision_tower
    patches = tower.image_encoder.embeddings.patch_embedding(inputs["images"]).flatten(2).transpose(1, 2)
    positions = tower.image_encoder.embeddings.position_embedding.weight
    recorded = expected["patch_embeddings"]
    assert min((patches - recorded).abs().max(), (patches + positions - recorded).abs().max()) < 1e-4
    assert_near(tower.get_features(inputs["images"]), expected["quantizer_input"])
    encoded = tower.encode(inputs["images"])
    assert torch.equal(encoded.codes, expected["codes"].flatten(1, 2).long())
    assert_near(encoded.quantized, expected["z_q"].flatten(1, 2))
    assert_near(model.get_image_features(inputs["images"]).pooler_output, expected["projected"])
    assert torch.equal(tower.encode(inputs["video"]).codes, expected["video_codes"].flatten(1, 2).long())


@torch.no_grad()
def test_codes_decode_to_the_recorded_pixels(folder):
    tower, expected = release(folder)[0].model.vision_tower, recording(folder, "decode")
    codes = expected["codes"].long()
    assert_near(tower.quantizer.code_embeddings(codes[:1, :4]), expected["code_embeddings"])
    assert_near(tower.quantizer.decode(codes), expected["summed"].flatten(1, 2))
    pixels = tower.decode(codes)
    assert_near(pixels, expected["pixels"])
    assert_near(pixels.add(1).mul(127.5).clamp(0, 255), expected["pixels_255"], atol=1e-2)


@torch.no_grad()
def test_depth_transformer_returns_the_recorded_logits(folder):
    model, expected = release(folder)[0], recording(folder, "depth")
    embeddings = model.model.vision_tower.quantizer.code_embeddings(expected["codes"].long())  # (2, 3, D, C)
    logits = model.depth_transformer(expected["hidden_states"].flatten(0, 1), embeddings.flatten(0, 1))
    assert_near(logits, expected["logits"].flatten(0, 1))


def test_codes_are_drawn_from_the_recorded_distributions(folder):
    expected, limits = recording(folder, "sampling"), described(folder, "sampling")
    cases = [name.removeprefix("probs.") for name in expected if name.startswith("probs.")]
    assert len(cases) >= 4
    for case in cases:
        temperature, *truncations = case.removeprefix("t").split("_")
        probabilities = code_probabilities(
            expected["logits"],
            temperature=float(temperature),
            top_k=limits["top_k"] if "k" in truncations else 0,
            top_p=limits["top_p"] if "p" in truncations else 1.0,
        )
        torch.testing.assert_close(probabilities, expected[f"probs.{case}"])


def ids_of(processor, prompt: str) -> list[int]:
    """Returns the ids of a prompt, with -200 in place of each image like in the original."""
    blank = [picture("tiny-256", "images/image_0.png")] * prompt.count("<image>")
    ids = processor(text=prompt, images=blank or None)["input_ids"][0]
    result, run = [], 0
    for index in ids:
        run = run + 1 if index == processor.image_token_id else 0
        if run == 0:
            result.append(index)
        elif run % processor.num_visual_tokens == 1:
            result.append(-200)
    return result


def test_text_is_tokenised_to_the_recorded_ids(folder):
    tokenizer = release(folder)[1].tokenizer
    for case in described(folder, "tokenization")["raw"]:
        assert tokenizer(case["text"])["input_ids"] == case["ids"], case["text"]


def test_conversations_are_rendered_and_tokenised_as_recorded(folder):
    processor = release(folder)[1]
    for case in described(folder, "tokenization")["conversations"]:
        options = case["options"]
        roles = {"human": "user", "gpt": "assistant"}
        messages = [{"role": roles[turn["from"]], "content": turn["value"]} for turn in case["messages"]]
        if options.get("no_system_prompt"):
            messages.insert(0, {"role": "system", "content": ""})
        mode = "image" if options.get("image_generation") else "video" if options.get("video_generation") else "text"
        # The original marks images by `<image>` in the text. The processor would take it for plain text, so the
        # template is rendered by the base class.
        prompt = super(VilaUProcessor, processor).apply_chat_template(
            messages, add_generation_prompt=options.get("add_generation_prompt", False), generation_mode=mode
        )
        assert prompt == case["prompt"], case["name"]
        assert ids_of(processor, prompt) == case["ids"], case["name"]


def test_images_are_preprocessed_to_the_recorded_pixels(folder):
    image_processor, expected = release(folder)[1].image_processor, recording(folder, "preprocess")
    variants = {"understanding": {}, "generation": {"crop_to_square": True, "resize_before_rgb": False}}
    variants["pad"] = {"pad_to_square": True}
    names = [name for name in expected if name.endswith(".uint8")]
    assert len(names) >= 11
    for name in names:
        stem, variant, _ = name.split(".")
        path = f"preprocess/{stem}.png"
        source = picture(folder, path)
        if variant.endswith("_from_path"):
            source, variant = str(ROOT / folder / path), variant.removesuffix("_from_path")
        pixels = image_processor(source, return_tensors="pt", **variants[variant])["pixel_values"][0]
        assert torch.equal(((pixels * 0.5 + 0.5) * 255).round().to(torch.uint8), expected[name]), name
        assert_near(pixels, (expected[name] / 255 - 0.5) / 0.5, atol=2e-7)


def encode_case(folder: str, case: dict) -> dict:
    """Returns the processor's output for the question and media of a recorded case."""
    processor = release(folder)[1]
    if case["frames"]:
        kind, media = "video", [[picture(folder, f"video/{name}") for name in case["frames"]]]
    else:
        kind, media = "image", [picture(folder, name) for name in case["images"]]
    content = [{"type": kind}] * len(media) + [{"type": "text", "text": case["question"]}]
    prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    return processor(text=prompt, return_tensors="pt", **{f"{kind}s": media})


@torch.no_grad()
def test_answers_about_images_and_videos_are_as_recorded(folder):
    model, processor = release(folder)
    expected, inputs = recording(folder, "understanding"), recording(folder, "inputs")
    for case in described(folder, "understanding"):
        name, batch = case["name"], encode_case(folder, case)
        placeholder = processor.video_token_id if case["frames"] else processor.image_token_id
        recorded = expected[f"{name}.expanded_ids"]
        assert torch.equal(batch["input_ids"], recorded.masked_fill(recorded == -200, placeholder)), name
        if case["frames"]:
            assert_near(batch["pixel_values_videos"][0], inputs["video"])
        if name == "image":
            codes = model.model.get_visual_codes(batch["input_ids"], batch["pixel_values"])
            assert_near(model.model.embed(batch["input_ids"], codes), expected["image.inputs_embeds"])
        logits = model(**batch).logits[:, int(expected[f"{name}.logits_start"]) :]
        assert_near(logits, expected[f"{name}.logits"])
        greedy = model.generate(**batch, max_new_tokens=12, do_sample=False)
        assert torch.equal(greedy[:, batch["input_ids"].shape[1] :], expected[f"{name}.greedy_ids"]), name


@torch.no_grad()
def test_images_and_videos_are_generated_as_recorded(folder, monkeypatch):
    model, processor = release(folder)
    expected, hidden, states = recording(folder, "generation"), [], []
    transformer, advance = model.depth_transformer, model.depth_transformer.advance

    def recording_advance(inputs, depth, cache):
        states.append(advance(inputs, depth, cache))
        return states[-1]

    monkeypatch.setattr(transformer, "advance", recording_advance)
    monkeypatch.setattr(
        transformer.in_proj_hidden, "forward", lambda x, f=transformer.in_proj_hidden.forward: hidden.append(x) or f(x)
    )
    depth = model.config.vision_config.code_depth
    for case in described(folder, "generation"):
        hidden.clear(), states.clear()
        mode = case["kind"]
        prompt = [{"role": "user", "content": case["prompt"]}]
        batch = processor(text=processor.apply_chat_template(prompt, add_generation_prompt=True), return_tensors="pt")
        result = model.generate(
            **batch,
            generation_mode=mode,
            num_frames=case["frames"],
            guidance_scale=case["cfg"],
            do_sample=False,
            return_dict_in_generate=True,
            output_scores=True,
        )
        rows = [
            ids[mask.bool()]
            for ids, mask in zip(expected[f"{mode}.input_ids"], expected[f"{mode}.attention_mask"], strict=True)
        ]
        assert torch.equal(result.sequences[0, : len(rows[0])], rows[0])
        unconditional = [*model.generation_config.unconditional_prompt_ids, *model.config.start_marker_prefix_ids]
        assert unconditional == rows[1][:-1].tolist()
        assert_near(hidden[0], expected[f"{mode}.first_hidden_states"][:, 0])
        logits = torch.stack([transformer.code_head(state) for state in states[:depth]])
        assert_near(logits, expected[f"{mode}.first_logits"])
        assert_near(result.scores[0, 0], expected[f"{mode}.first_cfg_logits"][:, 0])
        assert_near(hidden[-1], expected[f"{mode}.last_hidden_states"][:, 0])
        assert torch.equal(result.codes.flatten(1, -2), expected[f"{mode}.image_ids"][:1])
        pixels = model.model.vision_tower.decode(result.codes.flatten(0, -4).flatten(1, 2))
        assert_near(pixels, expected[f"{mode}.pixels"])
        decode = model.decode_image_tokens if mode == "image" else model.decode_video_tokens
        shown = decode(result.codes).add(1).mul(127.5).clamp(0, 255)
        assert_near(shown, expected[f"{mode}.pixels_255"], atol=1e-2)


def training_batch(folder: str, names: list[str]) -> dict:
    """Returns recorded training samples as the processor encodes them, with the recorded pixels."""
    inputs, processor = recording(folder, "inputs"), release(folder)[1]
    samples = {sample["name"]: sample for sample in described(folder, "training")["samples"]}
    blank, conversations, images, videos = picture("tiny-256", "images/image_0.png"), [], [], []
    pixels = {"image_text": inputs["images"][:1], "text_image": inputs["images"][1:2], "text_video": inputs["video"]}
    for name in names:
        turns = []
        for turn in samples[name]["messages"]:
            text = turn["value"]
            content = [{"type": "text", "text": text}]
            if text.startswith("<im_start><image><im_end>"):
                text = text.removeprefix("<im_start><image><im_end>").lstrip("\n")
                content = [{"type": "image"}, *([{"type": "text", "text": text}] if text else [])]
            elif text.startswith("<vi_start>"):
                content = [{"type": "video"}]
            turns.append({"role": {"human": "user", "gpt": "assistant"}[turn["from"]], "content": content})
        conversations.append(turns)
        images.append([] if name == "text_video" else [blank])
        videos.append([[blank] * len(pixels[name])] if name == "text_video" else [])
    batch = dict(processor.encode_training_samples(conversations, images, videos))
    if any(images):
        batch["pixel_values"] = torch.cat([pixels[name] for name in names if name != "text_video"])
    if any(videos):
        batch["pixel_values_videos"] = pixels["text_video"][None]
    return batch


GRADIENTS = {
    "llm.model.embed_tokens.weight": "model.language_model.embed_tokens.weight",
    "llm.lm_head.weight": "lm_head.weight",
    "llm.model.layers.0.self_attn.q_proj.weight": "model.language_model.layers.0.self_attn.q_proj.weight",
    "mm_projector.layers.0.weight": "model.multi_modal_projector.linear_1.weight",
    "rqtransformer.in_mlp_1.weight": "depth_transformer.in_proj_code.weight",
    "rqtransformer.in_mlp_2.weight": "depth_transformer.in_proj_hidden.weight",
    "rqtransformer.pos_emb_d": "depth_transformer.depth_embedding.weight",
    "rqtransformer.classifier_mlp.linear.weight": "depth_transformer.code_head.weight",
}


@pytest.mark.parametrize("run", ["image_text", "text_image", "text_video", "batch"])
def test_training_gives_the_recorded_labels_losses_and_gradients(folder, run):
    expected = {
        name.removeprefix(f"{run}."): value
        for name, value in recording(folder, "training").items()
        if name.startswith(f"{run}.")
    }
    model = VilaUForConditionalGeneration.from_original(ROOT / folder / "checkpoint").train()
    model.model.vision_tower.requires_grad_(False).eval()
    batch = training_batch(folder, ["image_text", "text_image", "text_video"] if run == "batch" else [run])
    labels, config = batch["labels"], model.config
    codes = model.model.get_visual_codes(
        batch["input_ids"], batch.get("pixel_values"), batch.get("pixel_values_videos")
    )
    is_visual = (labels == config.image_token_id) | (labels == config.video_token_id)
    expanded = torch.where(is_visual[..., None], codes + config.text_config.vocab_size, labels[..., None])
    assert torch.equal(expanded, expected["expanded_labels"].long())

    output = model(**batch)
    output.loss.backward()
    for ours, theirs in (("loss", "loss"), ("text_loss", "text_loss"), ("visual_loss", "image_loss")):
        assert_near(getattr(output, ours).detach(), expected[theirs], atol=1e-5)
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    order = described(folder, "training")["grad_norm_order"]
    for name, norm in zip(order, expected["grad_norms"].tolist(), strict=True):
        gradient = gradients[GRADIENTS[name]]
        found = 0.0 if gradient is None else gradient.norm().item()
        assert found == pytest.approx(max(norm, 0.0), rel=1e-4, abs=1e-6), name  # -1: no gradient
    for name, gradient in expected.items():
        if name.startswith("grad."):
            assert_near(gradients[GRADIENTS[name.removeprefix("grad.")]], gradient, atol=1e-6)


@torch.no_grad()
def test_codes_in_bfloat16_equal_those_in_float32(folder):
    source, inputs = ROOT / folder / "checkpoint", recording(folder, "inputs")
    model = VilaUForConditionalGeneration.from_original(source, dtype=torch.bfloat16)
    assert model.lm_head.weight.dtype == model.dtype == torch.bfloat16
    recorded = recording(folder, "encode")
    for pixels, codes in ((inputs["images"], recorded["codes"]), (inputs["video"], recorded["video_codes"])):
        found = model.model.vision_tower.encode(pixels).codes
        assert (found == codes.flatten(1, 2)).float().mean() >= 0.999
