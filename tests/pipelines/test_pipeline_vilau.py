"""The pipeline of diffusers on the shipped checkpoint."""

import json

import numpy as np
import pytest
import torch
from accelerate.hooks import CpuOffload, ModelHook, add_hook_to_module
from diffusers import AutoPipelineForText2Image, DiffusionPipeline
from diffusers.utils import export_to_gif, export_to_video
from PIL import Image
from transformers import AutoModel, AutoProcessor

from vilau_hf import TINY_CHECKPOINT, VilaUForConditionalGeneration, VilaUPipeline, VilaUProcessor


CROSS = "a small red cross at the bottom on a white background"
CIRCLE = "a large blue circle in the center on a black background"


@pytest.fixture(scope="module")
def pipe():
    pipe = VilaUPipeline.from_pretrained(TINY_CHECKPOINT)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_every_loader_returns_a_pipeline_with_the_same_images(pipe):
    expected = pipe(CROSS, generator=seeded(), output_type="np").images
    for loader in (DiffusionPipeline, AutoPipelineForText2Image):
        other = loader.from_pretrained(TINY_CHECKPOINT)
        assert type(other) is VilaUPipeline
        other.set_progress_bar_config(disable=True)
        assert np.array_equal(other(CROSS, generator=seeded(), output_type="np").images, expected)
    assert isinstance(AutoModel.from_pretrained(TINY_CHECKPOINT), VilaUForConditionalGeneration)


@pytest.mark.parametrize("flat", [True, False])
def test_saved_pipelines_generate_the_same_images(pipe, tmp_path, flat):
    pipe.save_pretrained(tmp_path, flat=flat)
    index = json.loads((tmp_path / "model_index.json").read_text())
    assert index["_class_name"] == "VilaUPipeline"
    again = VilaUPipeline.from_pretrained(tmp_path)
    again.set_progress_bar_config(disable=True)
    images = [p(CROSS, generator=seeded(), output_type="pt").images for p in (pipe, again)]
    assert torch.equal(*images)
    if flat:
        assert isinstance(AutoModel.from_pretrained(tmp_path), VilaUForConditionalGeneration)
        assert isinstance(AutoProcessor.from_pretrained(tmp_path), VilaUProcessor)


def test_output_types_contain_the_same_images(pipe):
    found = {kind: pipe(CROSS, generator=seeded(), output_type=kind)[0] for kind in ("pil", "np", "pt", "codes")}
    assert isinstance(found["pil"][0], Image.Image) and found["pil"][0].size == (32, 32)
    assert found["np"].shape == (1, 32, 32, 3) and found["pt"].shape == (1, 3, 32, 32)
    assert found["codes"].shape == (1, 8, 8, 4)
    assert np.allclose(found["np"], found["pt"].permute(0, 2, 3, 1).numpy())
    assert np.array_equal(np.asarray(found["pil"][0]), (found["np"][0] * 255).round().astype(np.uint8))
    (images,) = pipe(CROSS, generator=seeded(), output_type="np", return_dict=False)
    assert np.array_equal(images, found["np"])


def test_diffusers_exports_videos(pipe, tmp_path):
    output = pipe("a large blue circle moving left on a gray background", num_frames=4, generator=seeded())
    assert len(output.frames) == 1 and len(output.frames[0]) == 4
    export_to_gif(output.frames[0], str(tmp_path / "video.gif"))
    assert Image.open(tmp_path / "video.gif").n_frames == 4
    for kind, shape in (("np", (1, 4, 32, 32, 3)), ("pt", (1, 4, 3, 32, 32)), ("codes", (1, 4, 8, 8, 4))):
        assert pipe(CROSS, num_frames=4, output_type=kind).frames.shape == shape
    export_to_video(list(pipe(CROSS, num_frames=2, output_type="np").frames[0]), str(tmp_path / "video.mp4"))
    assert (tmp_path / "video.mp4").stat().st_size > 0


def test_an_image_of_a_batch_equals_the_image_generated_alone(pipe):
    prompts = [CROSS, CIRCLE, "red"]
    batch = pipe(prompts, generator=[seeded(i) for i in range(3)], output_type="pt").images
    for row, prompt in enumerate(prompts):
        alone = pipe(prompt, generator=seeded(row), output_type="pt").images[0]
        torch.testing.assert_close(batch[row], alone, atol=1e-4, rtol=0)


def test_num_images_per_prompt_multiplies_the_batch(pipe):
    generators = [seeded(i) for i in range(4)]
    images = pipe([CROSS, CIRCLE], num_images_per_prompt=2, generator=generators, output_type="pt").images
    assert images.shape[0] == 4
    alone = pipe(CIRCLE, generator=seeded(2), output_type="pt").images[0]
    torch.testing.assert_close(images[2], alone, atol=1e-4, rtol=0)


def test_truncated_sampling_changes_the_images(pipe):
    def codes(**kwargs):
        return pipe([CROSS, CIRCLE], generator=seeded(), output_type="codes", **kwargs).images

    greedy = codes(do_sample=False)
    assert not torch.equal(codes(), greedy)
    for truncation in ({"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1 - 1e-6}):
        assert torch.equal(codes(**truncation), greedy)
    with pytest.raises(TypeError, match="unexpected keyword argument `typo`"):
        codes(typo=1)


def test_candidates_are_drawn_with_the_generator_of_their_image(pipe):
    def codes(prompts, seeds, **kwargs):
        generators = [seeded(seed) for seed in seeds]
        return pipe(prompts, generator=generators, num_candidates=2, output_type="codes", **kwargs).images

    both = codes([CROSS, CIRCLE], [3, 4])
    assert torch.equal(codes(CROSS, [3])[0], both[0]) and torch.equal(codes(CIRCLE, [4])[0], both[1])
    last = codes(CROSS, [3], rank_by=lambda prompts, pixels, codes: torch.arange(2))
    first = codes(CROSS, [3], rank_by=lambda prompts, pixels, codes: -torch.arange(2))
    assert not torch.equal(first, last)
    with pytest.raises(ValueError, match="`generator` has 4 entries for 2 rows: give one, or one for each image"):
        codes([CROSS, CIRCLE], range(4))


def test_guidance_and_negative_prompts_change_the_image(pipe):
    def codes(**kwargs):
        return pipe([CROSS, CIRCLE], do_sample=False, output_type="codes", **kwargs).images

    plain = codes(guidance_scale=1.0)
    assert not torch.equal(codes(guidance_scale=7.5), plain)
    same = codes(guidance_scale=3.0, negative_prompt=[CROSS, CIRCLE])
    assert torch.equal(same, plain)  # guided away from itself it stays
    assert torch.equal(codes(guidance_scale=1.0, negative_prompt=CIRCLE), plain)


def test_callback_is_called_at_every_position(pipe):
    seen = []

    def callback(pipeline, step, timestep, kwargs):
        assert pipeline is pipe and step == timestep
        seen.append(kwargs["codes"])
        return kwargs

    codes = pipe([CROSS, CIRCLE], generator=seeded(), output_type="codes", callback_on_step_end=callback).images
    assert len(seen) == pipe.num_timesteps == 64
    assert [len(each[0]) for each in seen] == list(range(1, 65))
    assert torch.equal(seen[-1], codes.flatten(1, 2))
    nothing = []
    pipe(
        CROSS,
        callback_on_step_end=lambda *args: nothing.append(args[3]),
        callback_on_step_end_tensor_inputs=[],
    )
    assert nothing == [{}] * 64


def test_parallel_decoding_gives_the_same_codes_and_callbacks(pipe):
    found = []
    for settings in ({}, {"visual_decoding": "parallel", "parallel_window": 16}):
        seen = []
        codes = pipe(
            [CROSS, CIRCLE],
            generator=[seeded(1), seeded(2)],
            output_type="codes",
            callback_on_step_end=lambda *args, seen=seen: seen.append(args[3]["codes"][:, -1]),
            **settings,
        ).images
        found.append((codes, torch.stack(seen)))
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))


def test_a_negative_prompt_can_be_longer_than_the_prompt(pipe):
    seen = []
    settings = {"negative_prompt": " ".join([CROSS, CIRCLE]), "do_sample": False, "output_type": "codes"}
    codes = pipe("red", callback_on_step_end=lambda *args: seen.append(args[1]), **settings).images
    assert seen == list(range(64)) and torch.equal(codes, pipe("red", **settings).images)


def test_a_callback_can_change_codes_and_interrupt_the_call(pipe):
    def blank(pipeline, step, timestep, kwargs):
        if step == pipeline.num_timesteps - 1:
            kwargs["latents"] = torch.zeros_like(kwargs["latents"])
        return kwargs

    settings = {"callback_on_step_end_tensor_inputs": ["latents"], "output_type": "latent"}
    assert pipe(CROSS, callback_on_step_end=blank, **settings).images.abs().sum() == 0

    begun = [Image.new("RGB", (32, 32))]
    frames = pipe("a", num_frames=2, first_frames=begun, callback_on_step_end=blank, **settings).frames
    assert frames.shape == (1, 2, 8, 8, 4) and frames[:, 0].any() and not frames[:, 1].any()
    assert pipe.num_timesteps == 64

    def stop(pipeline, step, timestep, kwargs):
        seen.append(step)
        pipeline._interrupt = step == 5

    seen = []
    assert pipe(CROSS, callback_on_step_end=stop).images is None and seen == list(range(6))
    assert len(pipe(CROSS).images) == 1


def test_a_model_without_unconditional_prompt_gets_that_of_the_processor(pipe):
    model = VilaUForConditionalGeneration.from_pretrained(TINY_CHECKPOINT)
    model.generation_config.unconditional_prompt_ids = None
    new = VilaUPipeline(model, pipe.processor)
    new.set_progress_bar_config(disable=True)
    images = [p(CROSS, guidance_scale=4.0, generator=seeded(), output_type="pt").images for p in (pipe, new)]
    assert torch.equal(*images)


def test_pipeline_can_be_moved_and_cast(tmp_path):
    pipe = VilaUPipeline.from_pretrained(TINY_CHECKPOINT, dtype=torch.bfloat16)
    pipe.set_progress_bar_config(disable=True)
    assert pipe.model.dtype == torch.bfloat16
    assert pipe(CROSS, output_type="pt").images.isfinite().all()
    pipe.to(torch.float32)
    assert pipe.model.dtype == torch.float32
    assert pipe.to("cpu")(CROSS, output_type="pt").images.isfinite().all()


def test_an_offloaded_model_is_loaded_for_a_call_and_offloaded_again():
    brought = []

    class Watching(ModelHook):
        def pre_forward(self, module, *args, **kwargs):
            brought.append(module)
            return args, kwargs

    pipe = VilaUPipeline.from_pretrained(TINY_CHECKPOINT)
    pipe.set_progress_bar_config(disable=True)
    expected = pipe(CROSS, generator=seeded(), num_candidates=2, output_type="pt").images
    pipe.enable_model_cpu_offload(device="cpu")
    add_hook_to_module(pipe.model, Watching(), append=True)  # beside the hook that brings the model
    assert torch.equal(pipe(CROSS, generator=seeded(), num_candidates=2, output_type="pt").images, expected)
    assert brought == [pipe.model]  # before `generate`, which does not call the model's own forward
    assert isinstance(pipe.model._hf_hook, CpuOffload)  # set anew, for the next call
    assert torch.equal(pipe(CROSS, generator=seeded(), num_candidates=2, output_type="pt").images, expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_an_offloaded_model_leaves_the_gpu():
    pipe = VilaUPipeline.from_pretrained(TINY_CHECKPOINT)
    pipe.set_progress_bar_config(disable=True)
    pipe.enable_model_cpu_offload()
    for _ in range(2):
        codes = pipe(CROSS, num_candidates=2, output_type="codes").images
        assert codes.device.type == "cuda" and pipe.model.device.type == "cpu"


def test_images_before_the_prompt_change_the_result(pipe):
    red = Image.new("RGB", (40, 40), (200, 30, 30))
    plain, edited = (
        pipe([CROSS, CIRCLE], image=image, do_sample=False, output_type="codes").images
        for image in (None, [red, [red]])
    )
    assert edited.shape == plain.shape and not torch.equal(edited, plain)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prompt": []}, "`prompt` must be a string or a list with at least one string"),
        ({"prompt": 3}, "`prompt` must be a string, a list of strings or a tuple of strings, got 3"),
        ({"prompt": [CROSS] * 3, "negative_prompt": ["a", "b"]}, "one for each of the 3 prompts, got 2"),
        (
            {"prompt": CROSS, "num_images_per_prompt": 0},
            "`num_images_per_prompt` must be an integer of at least 1, got 0",
        ),
        (
            {"prompt": CROSS, "output_type": "jpg"},
            "`output_type` must be one of pil, np, pt, codes, latent, got 'jpg'",
        ),
        ({"prompt": CROSS, "guidance_scale": 0.5}, "`guidance_scale` must be at least 1"),
        ({"prompt": CROSS, "num_frames": 0}, "`num_frames` must be an integer of at least 1"),
        ({"prompt": CROSS, "generator": [seeded(0)] * 2}, "`generator` has 2 entries for 1 rows"),
        (
            {"prompt": CROSS, "callback_on_step_end_tensor_inputs": ["noise"]},
            r"must be among \['codes', 'latents'\], got \['noise'\]",
        ),
        ({"prompt": CROSS, "callback_on_step_end": 3}, "`callback_on_step_end` must be a function, got 3"),
        ({"prompt": CROSS, "num_images_per_prompt": 1.5}, "`num_images_per_prompt` must be an integer, got 1.5"),
        ({"prompt": CROSS, "negative_prompt": [None]}, "`negative_prompt` must be a string, a list of strings"),
        ({"prompt": CROSS, "num_frames": "2"}, "`num_frames` must be an integer, got '2'"),
        ({"prompt": CROSS, "do_sample": "no"}, "`do_sample` must be True or False, got 'no'"),
        ({"prompt": CROSS, "generator": 5}, "`generator` must be a `Generator` or a list of `Generator`, got 5"),
        ({"prompt": CROSS, "num_candidates": True}, "`num_candidates` must be an integer, got True"),
        ({"prompt": CROSS, "guidance_scale": float("nan")}, "`guidance_scale` must be a finite number, .* got nan"),
        ({"prompt": CROSS, "image_guidance_scale": float("inf")}, "`image_guidance_scale` must be a finite number"),
        ({"prompt": CROSS, "temperature": float("nan")}, "`visual_temperature` must be a finite number, got nan"),
        ({"prompt": [CROSS] * 2, "image": [Image.new("RGB", (8, 8))]}, "for each of the 2 prompts, got 1"),
        (
            {"prompt": CROSS, "num_frames": 2, "first_frames": Image.new("RGB", (8, 8))},
            "`first_frames` must be a list, a tuple, a `ndarray` or a tensor, got an object of type Image",
        ),
        (
            {"prompt": CROSS, "num_frames": 2, "first_frames": []},
            r"`first_frames` must hold at least one image for each prompt, got \[\]",
        ),
        (
            {"prompt": [CROSS] * 2, "num_frames": 2, "first_frames": [[], []]},
            r"`first_frames` must hold at least one image for each prompt, got \[\[\], \[\]\]",
        ),
    ],
)
def test_rejects_wrong_arguments(pipe, arguments, message):
    with pytest.raises(ValueError, match=message):
        pipe(**arguments)


@pytest.mark.parametrize("output_type", ["pil", "np", "pt"])
def test_images_and_frames_of_each_output_type_are_accepted_again(pipe, output_type):
    pixels = torch.rand(4, 3, 32, 32) * 2 - 1
    images = pipe.processor.image_processor.postprocess(pixels, output_type)
    encoded = []
    for given, shape in ((images, (1, 4)), ([images[:2], images[2:]], (2, 2)), (list(images), (1, 4))):
        frames = pipe._encode_frames(given)
        assert frames.shape == (*shape, 3, 32, 32)
        encoded.append(frames.flatten(0, 1))
    for frames in encoded:
        assert (frames - pixels).abs().max() <= 2 / 255
    if output_type != "pil":
        stacked = images.reshape(2, 2, *images.shape[1:])
        assert torch.equal(pipe._encode_frames(stacked), encoded[1].unflatten(0, (2, 2)))
    rows = pipe._images_by_prompt(["a"] * 4, images)
    assert [len(row) for row in rows] == [1] * 4
    again = pipe.processor.image_processor([row[0] for row in rows], return_tensors="pt")["pixel_values"]
    assert (again - pixels).abs().max() <= 2 / 255


@pytest.mark.parametrize("output_type", ["np", "pt"])
def test_an_image_of_the_pipeline_begins_a_video(pipe, output_type):
    image = pipe(CROSS, generator=seeded(), output_type=output_type).images
    settings = {"num_frames": 2, "do_sample": False, "output_type": "codes"}
    codes = pipe(CROSS, first_frames=image, **settings).frames
    with_pil = pipe(CROSS, first_frames=pipe(CROSS, generator=seeded()).images, **settings).frames
    assert torch.equal(codes, with_pil)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda codes: [codes], "must return None or a dictionary of codes, got list"),
        (
            lambda codes: {"prompt_embeds": codes + 0},
            "must return values for codes, latents only, got 'prompt_embeds'",
        ),
        (lambda codes: {"codes": codes[:, -1:] + 0 if codes.shape[1] > 1 else codes}, r"of shape \(1, 2, 4\), got"),
        (lambda codes: {"codes": codes.float()}, "`codes` as integers in .* got torch.float32 of shape"),
        (lambda codes: {"latents": codes + 9999}, r"`latents` as integers in \[0, \d+\) of shape"),
        (lambda codes: {"codes": None}, "got NoneType"),
    ],
)
def test_rejects_codes_of_a_callback_that_cannot_replace_its_codes(pipe, change, message):
    with pytest.raises(ValueError, match=f"`callback_on_step_end` .*{message}"):
        pipe(CROSS, callback_on_step_end=lambda *args: change(args[3]["codes"]))
