import pytest
import torch
from torch.nn import functional as F
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForImageTextToText,
    AutoModelForMultimodalLM,
    AutoModelForPreTraining,
)

from vilau_hf import VilaUConfig, VilaUForConditionalGeneration, VilaUModel
from vilau_hf.compat import enable_activation_checkpointing


IMAGE = [54] + [58] * 16 + [55]
VIDEO = [56] + [59] * 32 + [57]


def batch_of(rows, supervised):
    """Returns right-padded ids, mask and labels; labels of row n begin at position `supervised[n]`."""
    length = max(map(len, rows))
    ids = torch.tensor([row + [0] * (length - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows])
    labels = ids.masked_fill(mask == 0, -100)
    for row, first in enumerate(supervised):
        labels[row, :first] = -100
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


@pytest.fixture
def mixed_batch():
    """Returns rows whose answers are an image, a text about an image, and a video."""
    rows = [[1, 5, 6, *IMAGE, 2], [1, *IMAGE, 7, 8, 9, 10, 2], [1, 5, *VIDEO, 2]]
    batch = batch_of(rows, [3, 19, 2])
    batch["pixel_values"] = torch.rand(2, 3, 16, 16) * 2 - 1
    batch["pixel_values_videos"] = torch.rand(1, 2, 3, 16, 16) * 2 - 1
    return batch


@torch.no_grad()
def naive_losses(model, batch):
    """Computes equations 5 and 7 with one position and one depth at a time."""
    tower = model.model.vision_tower
    images = iter(tower.encode(batch["pixel_values"]).codes.flatten(0, 1))
    frames = iter(tower.encode(batch["pixel_values_videos"].flatten(0, 1)).codes.flatten(0, 1))
    text = []
    visual = []
    for ids, mask, labels in zip(batch["input_ids"], batch["attention_mask"], batch["labels"], strict=True):
        length = mask.sum()
        embeds = []
        codes = {}
        for position in range(length):
            if ids[position] in (58, 59):
                codes[position] = next(images if ids[position] == 58 else frames)
                summed = sum(tower.quantizer.codebook.weight[code] for code in codes[position])
                embeds.append(model.model.multi_modal_projector(summed))
            else:
                embeds.append(model.get_input_embeddings().weight[ids[position]])
        hidden = model.model.language_model(inputs_embeds=torch.stack(embeds)[None]).last_hidden_state[0]
        for position in range(1, length):
            if labels[position] == -100:
                continue
            if position not in codes:
                text.append(-model.lm_head(hidden[position - 1]).log_softmax(-1)[labels[position]])
                continue
            known = torch.stack([tower.quantizer.codebook.weight[code] for code in codes[position]])
            for depth, code in enumerate(codes[position]):
                known_so_far = known.clone()
                known_so_far[depth:] = 0  # deeper codes are not known yet
                logits = model.depth_transformer(hidden[position - 1][None], known_so_far[None])[0, depth]
                visual.append(-logits.log_softmax(-1)[code])
    return torch.stack(text).mean(), torch.stack(visual).mean(), len(text), len(visual)


def test_losses_equal_the_equations(model, mixed_batch):
    text_loss, visual_loss, num_text, num_codes = naive_losses(model, mixed_batch)
    # both markers and </s> of image and video, four words and </s> of the answer; 16 + 32 visual tokens of 3 codes
    assert (num_text, num_codes) == (3 + 5 + 3, 48 * 3)
    output = model(**mixed_batch)
    torch.testing.assert_close(output.text_loss, text_loss)
    torch.testing.assert_close(output.visual_loss, visual_loss)
    torch.testing.assert_close(output.loss, text_loss + visual_loss)
    model.config.text_loss_weight = 0.5
    model.config.visual_loss_weight = 2.0
    torch.testing.assert_close(model(**mixed_batch).loss, 0.5 * text_loss + 2 * visual_loss)


def test_given_counts_divide_the_losses(model, mixed_batch):
    whole = model(**mixed_batch)
    scaled = model(**mixed_batch, num_text_items=torch.tensor(22), num_visual_items=torch.tensor(480))
    torch.testing.assert_close(scaled.text_loss, whole.text_loss * 11 / 22)
    torch.testing.assert_close(scaled.visual_loss, whole.visual_loss * 48 / 480)


def test_code_loss_in_chunks_equals_the_whole_with_its_gradients(model, mixed_batch):
    model.train()

    def loss_and_gradients():
        model.zero_grad()
        loss = model(**mixed_batch).loss
        loss.backward()
        return loss.detach(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}

    loss, gradients = loss_and_gradients()
    model.max_code_logits = 5 * 24 * 3
    chunked_loss, chunked_gradients = loss_and_gradients()
    torch.testing.assert_close(chunked_loss, loss)
    assert gradients.keys() == chunked_gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(chunked_gradients[name], gradient, msg=name)


def test_gradient_checkpointing_gives_equal_gradients(model, mixed_batch):
    model.train()
    results = []
    for checkpointing in (False, True):
        if checkpointing:
            enable_activation_checkpointing(model)
        model.zero_grad()
        model(**mixed_batch).loss.backward()
        results.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
    assert results[0].keys() == results[1].keys()
    for name, gradient in results[0].items():
        torch.testing.assert_close(results[1][name], gradient, msg=name)


@pytest.mark.parametrize(("checkpointing", "runs"), [(False, 1), (True, 2)])
def test_chunks_of_code_loss_run_again_only_with_gradient_checkpointing(model, mixed_batch, checkpointing, runs):
    model.train()
    model.max_code_logits = 5 * 24 * 3
    if checkpointing:
        enable_activation_checkpointing(model)
    calls = {index: [] for index in range(len(model.depth_transformer.layers))}
    for index, layer in enumerate(model.depth_transformer.layers):
        layer.register_forward_pre_hook(lambda layer, args, index=index: calls[index].append(len(args[0])))
    model(**mixed_batch).loss.backward()
    # 48 visual tokens and one row that does not count, in chunks of at most 5
    for sizes in calls.values():
        assert len(sizes) == 10 * runs and sum(sizes) == 49 * runs and max(sizes) <= 5


def test_codes_give_the_loss_of_pixels_without_the_tower(model, mixed_batch):
    tower = model.model.vision_tower
    image_codes = tower.encode(mixed_batch["pixel_values"]).codes
    frame_codes = tower.encode(mixed_batch["pixel_values_videos"][0]).codes
    inputs = {name: mixed_batch[name] for name in ("input_ids", "attention_mask", "labels")}
    tower.forward = tower.encode = None  # must not run
    output = model(**inputs, codes=torch.cat([image_codes, frame_codes]), output_code_logits=True)
    assert output.code_logits.shape == (48, 3, 24)
    del tower.forward, tower.encode
    torch.testing.assert_close(output.loss, model(**mixed_batch).loss)


def test_a_batch_without_visual_targets_gives_the_depth_transformer_gradients(model):
    model.train()
    output = model(**batch_of([[1, 5, 6, 7, 2]], [2]))
    assert output.visual_loss == 0
    output.loss.backward()
    assert all(p.grad is not None for p in model.depth_transformer.parameters())


def test_loss_falls_on_one_batch_and_frozen_weights_stay(model, mixed_batch):
    model.train()
    model.model.vision_tower.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 3e-3)
    losses = []
    for _ in range(20):
        loss = model(**mixed_batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]) == name.startswith("model.vision_tower."), name


@torch.no_grad()
def test_rows_of_a_padded_batch_equal_single_rows(model):
    pixels = torch.rand(2, 3, 16, 16) * 2 - 1
    rows = [[1, *IMAGE, 7], [1, 8, 9, *IMAGE, 7, 6]]
    length = max(map(len, rows))
    ids = torch.tensor([[0] * (length - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in rows])
    position_ids = (mask.cumsum(-1) - 1).clamp(min=0)
    logits = model(input_ids=ids, attention_mask=mask, position_ids=position_ids, pixel_values=pixels).logits
    for index, row in enumerate(rows):
        alone = model(input_ids=torch.tensor([row]), pixel_values=pixels[index : index + 1]).logits
        torch.testing.assert_close(logits[index, length - len(row) :], alone[0], atol=1e-5, rtol=1e-4)
    last = model(input_ids=ids, attention_mask=mask, position_ids=position_ids, pixel_values=pixels, logits_to_keep=1)
    torch.testing.assert_close(last.logits, logits[:, -1:])


def test_saving_and_loading_is_bit_equal(model, mixed_batch, tmp_path):
    model.save_pretrained(tmp_path)
    again = VilaUForConditionalGeneration.from_pretrained(tmp_path).eval()
    for (name, tensor), (other, loaded) in zip(model.state_dict().items(), again.state_dict().items(), strict=True):
        assert name == other and torch.equal(tensor, loaded)
    with torch.no_grad():
        assert torch.equal(model(**mixed_batch).logits, again(**mixed_batch).logits)
    assert again.generation_config.unconditional_prompt_ids == [1, 5]


def test_auto_classes_load_our_classes(model, config, tmp_path):
    model.save_pretrained(tmp_path / "full")
    assert type(AutoConfig.from_pretrained(tmp_path / "full")) is VilaUConfig
    for auto in (AutoModel, AutoModelForImageTextToText, AutoModelForMultimodalLM, AutoModelForPreTraining):
        assert type(auto.from_pretrained(tmp_path / "full")) is VilaUForConditionalGeneration
    VilaUModel(config).save_pretrained(tmp_path / "base")
    assert type(AutoModel.from_pretrained(tmp_path / "base")) is VilaUModel


@torch.no_grad()
def test_bfloat16_runs_with_the_codebook_in_float32(model, mixed_batch, tmp_path):
    model.save_pretrained(tmp_path)
    model = VilaUForConditionalGeneration.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert model.model.vision_tower.quantizer.codebook.weight.dtype == torch.float32
    assert model.lm_head.weight.dtype == torch.bfloat16
    assert torch.isfinite(model(**mixed_batch).loss)


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_incomplete_folders_are_rejected_with_the_missing_file(model, tmp_path, missing):
    model.save_pretrained(tmp_path)
    (tmp_path / missing).unlink()
    with pytest.raises((OSError, ValueError), match=missing):
        VilaUForConditionalGeneration.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pixel_values": torch.zeros(1, 3, 16, 16)}, "`pixel_values` give 16 visual tokens .* holds 32 placeholders"),
        ({"pixel_values": None}, "32 placeholders of `pixel_values`, which is not given"),
        ({"pixel_values": torch.zeros(2, 3, 8, 8)}, r"must have shape \(N, 3, 16, 16\), got \(2, 3, 8, 8\)"),
        ({"codes": torch.zeros(4, 16, 3, dtype=torch.long)}, "`codes` replace `pixel_values`"),
    ],
)
def test_rejects_visual_inputs_that_do_not_match_the_placeholders(model, mixed_batch, change, message):
    with pytest.raises(ValueError, match=message):
        model(**{**mixed_batch, **change})


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (torch.full((4, 16, 3), 24), r"`codes` must be in \[0, 24\), got values from 24 to 24"),
        (torch.zeros(4, 16, 2, dtype=torch.long), r"`codes` must be integers of shape \(N, 16, 3\)"),
        (torch.zeros(3, 16, 3, dtype=torch.long), "`codes` give 48 visual tokens .* holds 64 placeholders"),
    ],
)
def test_rejects_codes_that_do_not_match(model, mixed_batch, codes, message):
    inputs = {name: mixed_batch[name] for name in ("input_ids", "attention_mask", "labels")}
    with pytest.raises(ValueError, match=message):
        model(**inputs, codes=codes)


@pytest.mark.parametrize("training", [False, True])
def test_rejects_a_visual_label_at_a_text_position(model, mixed_batch, training):
    labels = mixed_batch["labels"].clone()
    labels[0, 1] = model.config.image_token_id  # a text token is at this position
    with pytest.raises(ValueError, match="`labels` hold a placeholder at 1 positions where `input_ids` have no"):
        model.train(training)(**{**mixed_batch, "labels": labels})


def test_rejects_visual_labels_without_visual_input(model):
    inputs = batch_of([[1, 5, *IMAGE, 2]], [2])
    embeds = F.embedding(inputs.pop("input_ids"), model.get_input_embeddings().weight)
    with pytest.raises(ValueError, match="`labels` ask for 16 visual tokens"):
        model(inputs_embeds=embeds, **inputs)


@torch.no_grad()
def test_errors_change_what_is_read_and_not_what_is_learned(model, mixed_batch):
    errors = mixed_batch["labels"] == 58
    errors[0, 9:] = False
    torch.manual_seed(3)
    output = model.model(**{**mixed_batch, "labels": None}, context_errors=errors)
    clean = model.model(**{**mixed_batch, "labels": None})
    assert torch.equal(output.visual_codes, clean.visual_codes)
    # The same with codes that were replaced by hand
    torch.manual_seed(3)
    replaced = torch.randint(model.config.vision_config.codebook_size, clean.visual_codes.shape)
    read = torch.where(errors[..., None], replaced, clean.visual_codes)
    expected = model.model(
        input_ids=mixed_batch["input_ids"], attention_mask=mixed_batch["attention_mask"], visual_codes=read
    )
    torch.testing.assert_close(output.last_hidden_state, expected.last_hidden_state)
    assert not torch.allclose(output.last_hidden_state[0], clean.last_hidden_state[0])
    torch.testing.assert_close(output.last_hidden_state[1:], clean.last_hidden_state[1:])
    torch.manual_seed(3)
    loss = model(**mixed_batch, context_errors=errors).visual_loss
    assert loss != model(**mixed_batch).visual_loss
