import pytest
import torch

from vilau_hf import TINY_CHECKPOINT, VilaUForConditionalGeneration, VilaUImageProcessorPil, VilaUProcessor
from vilau_hf.data.tower_fingerprint import describe_tower, vision_tower_of
from vilau_hf.loading import load_vision_tower


@pytest.fixture(scope="module")
def processor():
    return VilaUProcessor.from_pretrained(TINY_CHECKPOINT)


@pytest.fixture(scope="module")
def tower():
    return load_vision_tower(TINY_CHECKPOINT)


@pytest.fixture
def model():
    return VilaUForConditionalGeneration.from_pretrained(TINY_CHECKPOINT)


def test_fingerprint_changes_exactly_if_the_codes_change(tower, processor, model):
    expected = describe_tower(tower, processor)["fingerprint"]
    with torch.no_grad():
        model.model.vision_tower.pixel_decoder.conv_in.bias += 1
        model.model.vision_tower.quantizer.cluster_size += 1
        model.lm_head.weight += 1
    assert describe_tower(vision_tower_of(model.to(torch.bfloat16)), processor)["fingerprint"] == expected
    pil = VilaUProcessor.from_pretrained(TINY_CHECKPOINT)
    pil.image_processor = VilaUImageProcessorPil(size={"height": 32, "width": 32})
    pil.video_processor.num_frames = 2
    assert describe_tower(tower, pil)["fingerprint"] == expected
    with torch.no_grad():
        model.model.vision_tower.image_encoder.embeddings.patch_embedding.bias[0] += 1e-3
    assert describe_tower(vision_tower_of(model), processor)["fingerprint"] != expected
    shallow = load_vision_tower(TINY_CHECKPOINT)
    shallow.config.code_depth = 2
    assert describe_tower(shallow, processor)["fingerprint"] != expected
