"""Decoding of the depths of one position."""

import torch

from vilau_hf.modeling.generation_depth_vilau import CodeInputs, DecodedPosition, DepthDecoder
from vilau_hf.modeling.generation_sampling_vilau import CodeSampler, Guidance, SamplingSettings


@torch.no_grad()
def test_sums_of_table_rows_are_projections_of_sums_of_embeddings(model):
    inputs = CodeInputs(model)
    codes = torch.tensor([3, 11, 20])
    quantizer = model.model.vision_tower.quantizer
    transformer = model.depth_transformer
    for depth in (1, 2):
        embedding = quantizer.codebook(codes[:depth]).sum(0)
        expected = transformer.in_proj_code(embedding) + transformer.depth_embedding(torch.tensor(depth))
        rows = [code + quantizer.first_row(index) for index, code in enumerate(codes[:depth])]
        torch.testing.assert_close(inputs.table[torch.stack(rows)].sum(0) + inputs.starts[depth], expected)


@torch.no_grad()
def test_refreshed_inputs_keep_their_address_and_follow_the_weights(model):
    inputs = CodeInputs(model)
    address = inputs.table.data_ptr()
    model.depth_transformer.in_proj_code.weight.mul_(2)
    inputs.refresh(model)
    assert inputs.table.data_ptr() == address and torch.equal(inputs.table, CodeInputs(model).table)


@torch.no_grad()
def test_greedy_codes_are_those_of_the_teacher_forced_depth_transformer(model):
    hidden = torch.randn(4, model.config.text_config.hidden_size)
    sampler = CodeSampler(SamplingSettings(do_sample=False), code_depth=3)
    guidance = Guidance(2.0).expand(prompts=2, rows=2, num_positions=1, device=hidden.device)
    decoder = DepthDecoder(model, sampler, guidance, CodeInputs(model), output_scores=True)
    found = decoder.decode(hidden, 0)
    embeddings = model.model.vision_tower.quantizer.code_embeddings(found.codes).repeat(2, 1, 1)
    conditional, unconditional = model.depth_transformer(hidden, embeddings).chunk(2)
    expected = unconditional + 2.0 * (conditional - unconditional)
    torch.testing.assert_close(found.scores, expected, atol=1e-4, rtol=1e-4)
    assert torch.equal(expected.argmax(-1), found.codes)


def test_replaced_codes_lose_their_log_probabilities_from_there_on():
    position = DecodedPosition(torch.tensor([[1, 2, 3], [4, 5, 6]]), log_probs=torch.zeros(2, 3))
    changed = position.replace_codes(torch.tensor([[1, 9, 3], [4, 5, 6]]))
    assert changed.log_probs.isnan().tolist() == [[False, True, True], [False, False, False]]
    assert changed.scores is None and changed.codes.tolist() == [[1, 9, 3], [4, 5, 6]]
