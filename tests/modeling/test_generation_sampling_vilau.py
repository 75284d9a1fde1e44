"""Sampling of codes: the distribution, compared with its definition by a full sort; guidance, seeds, processors."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import LogitsProcessorList

from vilau_hf.modeling.generation_sampling_vilau import (
    CodeSampler,
    Guidance,
    SamplingSettings,
    truncated_probabilities,
)

from ..distributions import code_probabilities
from .test_generation_vilau import PROMPTS, left_padded


CODES = 16384
GREEDY = {"generation_mode": "image", "visual_do_sample": False}
IMAGE = [54] + [58] * 16 + [55]


def draw(model, **settings):
    return model.generate(**left_padded(PROMPTS), **{**GREEDY, **settings})


def defined_probabilities(logits, temperature, top_k, top_p, min_p):
    """Returns probabilities `(K,)` of one row of logits in falling order, in float64, each step as it is defined."""
    values = (logits.double() / temperature).sort(descending=True).values
    if top_k:
        values = torch.where(values >= values[top_k - 1], values, -torch.inf)
    probabilities = values.softmax(-1)
    total, kept = 0.0, []
    for probability in probabilities.tolist():
        if total >= top_p or probability < min_p * probabilities[0].item():
            break
        total += probability
        kept.append(probability)
    kept = torch.tensor(kept, dtype=torch.float64)
    return torch.nn.functional.pad(kept / kept.sum(), (0, len(values) - len(kept)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "settings",
    [(1.0, 900, 0.96, 0.0), (1.0, 0, 1.0, 0.0), (0.7, 0, 0.9, 0.0), (1.3, 50, 1.0, 0.0), (1.0, 900, 0.96, 0.02)],
    ids=["published", "all", "top_p", "top_k", "min_p"],
)
def test_total_variation_from_a_full_sort_is_at_most_a_millionth(settings, dtype):
    """
    Compares the probabilities in falling order, since of codes with equal logits any may be the last of top-p.

    Logits that bfloat16 can hold are often equal. Codes tied with the k-th largest are kept, up to 124 beyond k.
    """
    logits = (torch.randn(8, CODES, generator=torch.Generator().manual_seed(0)) * 2).to(dtype).float()
    kept, codes = truncated_probabilities(logits, SamplingSettings(True, *settings))
    of_codes = (logits / settings[0]).gather(1, codes)
    assert (of_codes.diff(dim=1) <= 0).all()  # the codes that the probabilities belong to
    kept = torch.nn.functional.pad(kept, (0, CODES - kept.shape[1])).double()
    kept = (kept / kept.sum(-1, keepdim=True)).sort(descending=True).values
    expected = torch.stack([defined_probabilities(row, *settings) for row in logits])
    assert ((kept - expected).abs().sum(-1) / 2).max() <= 1e-6
    top_k = settings[1]
    if dtype == torch.bfloat16 and top_k:  # the rounded logits do have ties there
        kth = logits.topk(top_k).values[:, -1:]
        assert ((logits >= kth).sum(-1) > top_k).any()


@pytest.mark.parametrize(("tied", "left"), [(124, 900 + 124), (125, 900 + 124), (CODES - 900, 900 + 124)])
def test_top_k_keeps_at_most_124_ties_beyond_k(tied, left):
    logits = torch.zeros(1, CODES)
    logits[:, : 900 + tied] = 1.0
    settings = SamplingSettings(top_k=900, top_p=1.0)
    assert truncated_probabilities(logits, settings)[0].count_nonzero() == left


def test_guidance_can_differ_by_row_and_position(model):
    weak, strong = (draw(model, guidance_scale=scale) for scale in (1.5, 6.0))
    mixed = draw(model, guidance_scale=[1.5, 6.0])
    assert torch.equal(mixed[0], weak[0]) and torch.equal(mixed[1], strong[1]) and not torch.equal(weak, strong)
    schedule = torch.full((1, 16), 1.5)
    assert torch.equal(draw(model, guidance_scale=schedule), weak)
    schedule[:, 5:] = 6.0
    changing = draw(model, guidance_scale=schedule).flatten(1, 2)
    assert torch.equal(changing[:, :5], weak.flatten(1, 2)[:, :5]) and not torch.equal(changing, weak.flatten(1, 2))
    repeated = draw(model, guidance_scale=[1.5, 6.0], num_return_sequences=2)
    assert torch.equal(repeated, mixed.repeat_interleave(2, 0))


def test_two_scales_mix_as_in_instruct_pix2pix(model):
    ids, pixels = torch.tensor([[1, *IMAGE, 5, 6]]), torch.rand(1, 3, 16, 16) * 2 - 1
    image_only = torch.tensor([[1, *IMAGE]])
    output = model.generate(
        ids,
        pixel_values=pixels,
        image_prompt_ids=image_only,
        guidance_scale=3.0,
        image_guidance_scale=1.7,
        return_dict_in_generate=True,
        output_scores=True,
        **GREEDY,
    )
    codes, logits = output.codes.flatten(1, 2), []
    for prompt, has_image in ((ids, True), (image_only, True), (torch.tensor([[1, 5]]), False)):
        opened = torch.cat([prompt, torch.tensor([[54]])], 1)
        start = model.model.get_visual_codes(opened, pixels) if has_image else torch.full((1, opened.shape[1], 3), -1)
        visual = torch.cat([start, codes], 1)
        whole = torch.cat([opened, torch.full((1, 16), 58)], 1)
        with torch.no_grad():
            hidden = model.model(whole, visual_codes=visual).last_hidden_state[0, -17:-1]
            embeddings = model.model.vision_tower.quantizer.code_embeddings(codes[0])
            logits.append(model.depth_transformer(hidden, embeddings))
    full, image, nothing = logits
    expected = nothing + 1.7 * (image - nothing) + 3.0 * (full - image)
    torch.testing.assert_close(output.scores[0], expected, atol=1e-4, rtol=1e-4)
    assert torch.equal(expected.argmax(-1), codes[0])
    with pytest.raises(ValueError, match="`image_guidance_scale` needs `image_prompt_ids`"):
        model.generate(ids, pixel_values=pixels, image_guidance_scale=1.7, **GREEDY)


def test_settings_can_differ_by_depth(model):
    greedy = draw(model)
    first = draw(model, visual_do_sample=True, visual_top_k=[1, 0, 0], visual_top_p=1.0, seed=0)
    every = draw(model, visual_do_sample=True, visual_top_k=[1, 1, 1], seed=0)
    assert torch.equal(every, greedy)
    assert torch.equal(first[:, 0, 0, 0], greedy[:, 0, 0, 0]) and not torch.equal(first, greedy)
    hot = draw(model, visual_do_sample=True, visual_temperature=[1e-3] * 3, seed=0)
    assert torch.equal(hot, greedy)
    assert torch.equal(draw(model, visual_do_sample=True, visual_min_p=0.999, seed=0), greedy)


def test_processors_see_the_codes_so_far(model):
    seen = []

    def only_even(codes, logits):
        seen.append(codes.shape)
        return logits.index_fill(-1, torch.arange(1, 24, 2), -torch.inf)

    codes = draw(model, code_logits_processor=LogitsProcessorList([only_even]))
    assert not (codes % 2).any()
    assert seen[:4] == [(2, 0), (2, 1), (2, 2), (2, 0)]


def test_seeds_make_rows_reproducible_in_any_batch_and_cache(model):
    settings = {"generation_mode": "image", "guidance_scale": 2.0}
    both = model.generate(**left_padded(PROMPTS), seed=5, **settings)
    assert torch.equal(model.generate(**left_padded(PROMPTS[1:]), seed=6, **settings)[0], both[1])
    static = model.generate(**left_padded(PROMPTS), seed=[5, 6], cache_implementation="static", **settings)
    assert torch.equal(static, both)
    several = model.generate(**left_padded(PROMPTS[:1]), seed=5, num_return_sequences=3, **settings)
    assert torch.equal(several[0], both[0]) and not torch.equal(several[1], several[0])


@pytest.mark.parametrize(("settings", "draws"), [({"seed": 5}, 2), ({"generator": torch.Generator()}, 1), ({}, 1)])
def test_each_generator_draws_once_per_position(model, settings, draws):
    class Draws(TorchDispatchMode):
        count = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            self.count += function is torch.ops.aten.uniform_.default
            return function(*args, **(kwargs or {}))

    with Draws() as counted:
        model.generate(**left_padded(PROMPTS), generation_mode="image", **settings)
    assert counted.count == 16 * draws


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("rows", [None, 2])
def test_generators_on_the_host_do_not_wait_for_the_device(rows):
    generator = torch.Generator() if rows is None else [torch.Generator().manual_seed(row) for row in range(rows)]
    sampler = CodeSampler(SamplingSettings(top_k=20), code_depth=3, generators=generator)
    torch.cuda.set_sync_debug_mode("error")
    try:
        noise = sampler.draw_noise(2, 24, torch.device("cuda"))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert [each.shape for each in noise] == [(2, 24)] * 3 and all((each >= 0).all() for each in noise)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_rejects_generators_on_several_devices(model):
    with pytest.raises(ValueError, match="entries of `generator` must be on one device, got cpu, cuda"):
        draw(model, generator=[torch.Generator(), torch.Generator("cuda")])


def test_sampling_follows_the_distribution():
    logits = torch.randn(1, 40) * 2
    settings = SamplingSettings(temperature=0.8, top_k=20, top_p=0.9, min_p=0.05)
    sampler = CodeSampler(settings, code_depth=1, generators=torch.Generator().manual_seed(0))
    logits, size = logits.expand(500, -1), logits.shape[-1]
    drawn = [sampler.sample(logits, 0, [], sampler.draw_noise(500, size, logits.device))[0] for _ in range(100)]
    drawn = torch.stack(drawn).flatten()
    found = torch.bincount(drawn, minlength=40) / drawn.numel()
    expected = code_probabilities(logits, 0.8, 20, 0.9, 0.05)[0]
    assert (found - expected).abs().max() < 0.01 and not found[expected == 0].any()


def test_min_p_drops_codes_far_less_probable_than_the_best():
    logits = torch.tensor([[4.0, 3.0, 2.0, 1.0]])
    probabilities = code_probabilities(logits, min_p=0.2)[0]
    weights = torch.tensor([1, torch.tensor(-1.0).exp()])  # exp(-2) is less than a fifth
    torch.testing.assert_close(probabilities, torch.cat([weights / weights.sum(), torch.zeros(2)]))


def test_expanded_guidance_is_a_new_object():
    guidance = Guidance([1.5, 4.0], image_scale=2.0)
    expanded = guidance.expand(prompts=2, rows=4, num_positions=16, device=torch.device("cpu"))
    assert expanded.scale.tolist() == [[1.5], [1.5], [4.0], [4.0]] and expanded.num_branches == 3
    assert guidance.scale.tolist() == [1.5, 4.0]
    again = guidance.expand(prompts=2, rows=2, num_positions=16, device=torch.device("cpu"))
    assert again.scale.tolist() == [[1.5], [4.0]]


def test_a_scale_of_one_needs_one_branch_even_after_expansion():
    guidance = Guidance(1.0).expand(prompts=1, rows=3, num_positions=16, device=torch.device("cpu"))
    assert guidance.num_branches == 1 and guidance.at(0).shape == (3, 1)


def test_scales_are_given_for_several_positions_of_each_row():
    guidance = Guidance(torch.arange(1.0, 7).view(2, 3))
    expanded = guidance.expand(prompts=2, rows=2, num_positions=3, device=torch.device("cpu"))
    assert expanded.at(torch.tensor([[0, 2], [1, 1]])).tolist() == [[1, 3], [5, 5]]
    constant = Guidance([2.0, 4.0]).expand(prompts=2, rows=2, num_positions=3, device=torch.device("cpu"))
    assert constant.at(torch.tensor([[0, 2], [1, 1]])).tolist() == [[2, 2], [4, 4]]


def test_a_code_keeps_its_random_number_when_its_rank_changes():
    """The ranks of codes 1 and 2 change, which the chosen code 0 does not depend on."""
    sampler = CodeSampler(SamplingSettings(top_k=0, top_p=1.0), code_depth=1)
    noise = [torch.tensor([[0.99, 0.4, 0.4, 0.4]])]
    for logits in ([0.0, 1.0, 1.1, -9.0], [0.0, 1.1, 1.0, -9.0], [0.0, -1.0, -1.1, -9.0]):
        code, _ = sampler.sample(torch.tensor([logits]), 0, [], noise)
        assert code.item() == 0
