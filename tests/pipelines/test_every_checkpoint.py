"""All loaders of transformers and diffusers on three checkpoints: the shipped, a converted and a new one."""

import pytest
import torch
from diffusers import AutoPipelineForText2Image, DiffusionPipeline
from PIL import Image
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageTextToText,
    AutoModelForMultimodalLM,
    AutoModelForZeroShotImageClassification,
    AutoProcessor,
    AutoTokenizer,
    AutoVideoProcessor,
    PreTrainedTokenizerBase,
    pipeline,
)

from vilau_hf import (
    TINY_CHECKPOINT,
    VilaUConfig,
    VilaUForConditionalGeneration,
    VilaUImageProcessor,
    VilaUModel,
    VilaUPipeline,
    VilaUProcessor,
    VilaUVideoProcessor,
    VilaUVisionConfig,
    VilaUVisionTowerForPreTraining,
    convert_original_checkpoint,
)

from ..conftest import DEPTH, TEXT, TEXT_TOWER, VISION
from ..golden import ROOT
from ..processing.conftest import VISUAL_TOKENS, build_processor


def build(folder):
    """Saves a checkpoint with random weights."""
    processor = build_processor(num_visual_tokens=16, size=16)
    tokenizer = processor.tokenizer
    ids = {f"{name}_id": tokenizer.convert_tokens_to_ids(token) for name, token in VISUAL_TOKENS.items()}
    special = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("pad", "bos", "eos")}
    text = {**TEXT, "vocab_size": len(tokenizer), "max_position_embeddings": 512, **special}
    model = VilaUForConditionalGeneration(
        VilaUConfig(vision_config=VISION, depth_config=DEPTH, text_config=text, initializer_range=0.2, **ids)
    )
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


@pytest.fixture(scope="module", params=["shipped", "converted", "built"])
def folder(request, tmp_path_factory):
    if request.param == "shipped":
        return TINY_CHECKPOINT
    folder = tmp_path_factory.mktemp("checkpoint")
    if request.param == "converted":
        convert_original_checkpoint(ROOT / "tiny-256" / "checkpoint", folder)
    else:
        build(folder)
    return str(folder)


@pytest.fixture
def image():
    return Image.linear_gradient("L").convert("RGB").resize((40, 30))


def test_auto_classes_load_every_checkpoint(folder, tmp_path):
    assert type(AutoConfig.from_pretrained(folder)) is VilaUConfig
    for auto in (AutoModel, AutoModelForImageTextToText, AutoModelForMultimodalLM):
        assert type(auto.from_pretrained(folder)) is VilaUForConditionalGeneration, auto
    assert type(AutoProcessor.from_pretrained(folder)) is VilaUProcessor
    assert isinstance(AutoTokenizer.from_pretrained(folder), PreTrainedTokenizerBase)
    assert type(AutoImageProcessor.from_pretrained(folder)) is VilaUImageProcessor
    assert type(AutoVideoProcessor.from_pretrained(folder)) is VilaUVideoProcessor
    AutoModel.from_pretrained(folder).model.save_pretrained(tmp_path)
    assert type(AutoModel.from_pretrained(tmp_path)) is VilaUModel


@pytest.mark.parametrize("task", ["image-text-to-text", "any-to-any"])
def test_text_tasks_answer_and_can_be_saved(folder, image, tmp_path, task):
    ask = pipeline(task, model=folder)
    content = [{"type": "image", "image": image}, {"type": "text", "text": "what is this"}]
    chats = [[{"role": "user", "content": content}]] * 3
    settings = {"generate_kwargs": {"do_sample": False, "max_new_tokens": 4}, "return_full_text": False}
    results = ask(text=chats, batch_size=2, **settings)
    assert [len(result) for result in results] == [1, 1, 1]
    ask.save_pretrained(tmp_path)
    again = pipeline(task, model=str(tmp_path))
    (result,) = again(text=chats[0], **settings)
    assert isinstance(result["generated_text"], str) and result["generated_text"] == results[0][0]["generated_text"]


def test_visual_tasks_generate_and_can_be_saved(folder, tmp_path):
    settings = {"do_sample": False, "guidance_scale": 2.0}
    draw = pipeline("text-to-image", model=folder)
    image = draw("a red square", **settings)[0]["generated_image"]
    draw.save_pretrained(tmp_path)
    assert pipeline("text-to-image", model=str(tmp_path))("a red square", **settings)[0]["generated_image"] == image
    chat = [{"role": "user", "content": [{"type": "text", "text": "a red square"}]}]
    settings_alone = {"do_sample": False, "guidance_scale": 1.0}  # a new model has no unconditional prompt
    both = pipeline("any-to-any", model=folder)(
        text=chat, generation_mode="image", generate_kwargs=dict(settings_alone)
    )
    assert both[0]["generated_image"] == draw("a red square", **settings_alone)[0]["generated_image"]
    pipeline("any-to-any", model=folder)(text=chat, generation_mode="image")
    videos = pipeline("text-to-video", model=folder)(["a circle", "a square"], num_frames=2, **settings)
    assert [len(video[0]["generated_video"]) for video in videos] == [2, 2]


@torch.no_grad()
def test_diffusers_loaders_load_a_saved_pipeline(folder, tmp_path):
    model, processor = AutoModel.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    pipe = VilaUPipeline(model, processor)
    pipe.save_pretrained(tmp_path, flat=True)
    for loader in (VilaUPipeline, DiffusionPipeline, AutoPipelineForText2Image):
        again = loader.from_pretrained(tmp_path)
        outputs = [p("a red square", do_sample=False, output_type="pt").images for p in (pipe, again)]
        assert torch.equal(*outputs), loader
    assert torch.equal(AutoModel.from_pretrained(tmp_path).lm_head.weight, model.lm_head.weight)


def test_zero_shot_classification_with_a_new_tower(image, tmp_path):
    processor = build_processor(num_visual_tokens=16, size=16)
    text = {**TEXT_TOWER, "vocab_size": len(processor.tokenizer), "max_position_embeddings": 64}
    VilaUVisionTowerForPreTraining(VilaUVisionConfig(**VISION, text_config=text)).save_pretrained(tmp_path)
    processor.tokenizer.save_pretrained(tmp_path)
    processor.image_processor.save_pretrained(tmp_path)
    auto = AutoModelForZeroShotImageClassification.from_pretrained(tmp_path)
    assert type(auto) is type(AutoModel.from_pretrained(tmp_path)) is VilaUVisionTowerForPreTraining
    classify = pipeline("zero-shot-image-classification", model=str(tmp_path))
    results = classify([image, image], candidate_labels=["red", "green", "blue"])
    assert [sorted(each["label"] for each in result) for result in results] == [["blue", "green", "red"]] * 2
    classify.save_pretrained(tmp_path / "saved")
    again = pipeline("zero-shot-image-classification", model=str(tmp_path / "saved"))
    assert again(image, candidate_labels=["red", "green", "blue"]) == results[0]
