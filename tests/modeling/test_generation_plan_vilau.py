"""Values that a call derives from its settings and prompts."""

import pytest
import torch
from transformers import GenerationConfig

from vilau_hf.modeling.generation_plan_vilau import GenerationPlan
from vilau_hf.modeling.generation_settings_vilau import VisualArguments, VisualGenerationSettings


IMAGE = [54] + [58] * 16 + [55]


def make_plan(model, ids, mode="image", num_return_sequences=1, **arguments):
    arguments = VisualArguments(**arguments)
    config = GenerationConfig(do_sample=True, num_return_sequences=num_return_sequences)
    settings = VisualGenerationSettings.collect(mode, arguments, {}, None, model.generation_config)
    return GenerationPlan.make(model, settings, arguments, torch.tensor(ids), None, config)


def test_prompts_of_all_branches_end_with_the_start_marker(model):
    image_only = torch.tensor([[1, *IMAGE]])
    plan = make_plan(
        model,
        [[1, *IMAGE, 5, 6]],
        guidance_scale=2.0,
        image_guidance_scale=1.5,
        image_prompt_ids=image_only,
        negative_prompt_ids=torch.tensor([[1, 7, 8]]),
    )
    assert plan.prompt.ids.tolist() == [[1, *IMAGE, 5, 6, 54]]
    assert [prompt.ids.tolist() for prompt in plan.other_prompts] == [[[1, *IMAGE, 54]], [[1, 7, 8, 54]]]
    assert plan.longest_prompt == 22 and plan.num_positions == 16 and plan.placeholder_id == 58


def test_without_guidance_there_is_one_branch(model):
    plan = make_plan(model, [[1, 5]], guidance_scale=1.0)
    assert plan.other_prompts == [] and plan.guidance.num_branches == 1 and plan.longest_prompt == 3


def test_the_longest_prompt_may_be_that_of_another_branch(model):
    plan = make_plan(model, [[1, 5]], negative_prompt_ids=torch.full((1, 30), 7))
    assert plan.longest_prompt == 31


def test_guidance_and_seeds_are_expanded_to_the_rows_and_the_settings_stay(model):
    plan = make_plan(model, [[1, 5], [1, 6]], guidance_scale=[1.5, 4.0], seed=3, num_return_sequences=2)
    assert plan.guidance.scale.tolist() == [[1.5], [1.5], [4.0], [4.0]]
    assert [generator.initial_seed() for generator in plan.sampler.generators] == [3, 4, 5, 6]
    assert plan.settings.guidance.scale.tolist() == [1.5, 4.0]


def test_a_video_has_the_positions_of_all_frames(model):
    plan = make_plan(model, [[1, 5]], mode="video", num_frames=3)
    assert (plan.num_positions, plan.placeholder_id) == (48, 59)


@pytest.mark.parametrize(("last", "seen"), [(5, 0), (54, 1)])
def test_interleaved_prompts_of_other_branches_have_a_position_for_a_marker(model, last, seen):
    plan = make_plan(model, [[1, last]], mode="interleaved", negative_prompt_ids=torch.tensor([[1, 7]]))
    assert plan.prompt.ids.tolist() == [[1, last]]
    assert plan.unconditional.ids.tolist() == [[1, 7, 54]] and plan.unconditional.mask.tolist() == [[1, 1, seen]]
