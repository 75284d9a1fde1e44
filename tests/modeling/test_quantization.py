"""Weight-only quantization of the language model."""

import pytest
import torch
from torch import nn
from torchao.quantization import Float8WeightOnlyConfig, Int8WeightOnlyConfig
from transformers import TorchAoConfig
from transformers.quantizers.quantizers_utils import should_convert_module

from vilau_hf import TINY_CHECKPOINT, VILAU_SKIP_MODULES, VilaUForConditionalGeneration, VilaUProcessor
from vilau_hf.drawn.scores import evaluate_images
from vilau_hf.drawn.shapes import drawings
from vilau_hf.evaluation.model_outputs import generate_from_captions


def test_the_skip_list_allows_the_layers_of_the_language_model_only(model):
    linears = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    converted = {name for name in linears if should_convert_module(name, VILAU_SKIP_MODULES)}
    assert converted == {name for name in linears if name.startswith("model.language_model.")}
    assert len(converted) == 2 * 7


@pytest.fixture(scope="module", params=["int8", "float8"])
def quantized(request):
    """Returns a model with quantized layers, and the class of their weights."""
    kind, name = {
        "int8": (Int8WeightOnlyConfig, "Int8Tensor"),
        "float8": (Float8WeightOnlyConfig, "Float8Tensor"),
    }[request.param]
    config = TorchAoConfig(kind(), modules_to_not_convert=VILAU_SKIP_MODULES)
    return VilaUForConditionalGeneration.from_pretrained(TINY_CHECKPOINT, quantization_config=config).eval(), name


def test_only_layers_of_the_language_model_are_quantized(quantized):
    model, name_of_kind = quantized
    kinds = {name: type(parameter.data).__name__ for name, parameter in model.named_parameters()}
    for name, kind in kinds.items():
        is_layer = name.startswith("model.language_model.layers.") and "proj" in name
        assert (kind == name_of_kind) == is_layer, name
    assert model.model.vision_tower.quantizer.codebook.weight.dtype == torch.float32


def test_images_of_quantized_layers_pass_the_oracle_within_five_points(quantized):
    targets = drawings("test")[::2]
    captions = [drawing.caption for drawing in targets]
    processor = VilaUProcessor.from_pretrained(TINY_CHECKPOINT)
    model = VilaUForConditionalGeneration.from_pretrained(TINY_CHECKPOINT).eval()
    exact, rounded = (
        evaluate_images(generate_from_captions(each, processor, captions, "image", seed=0), targets)[
            "picture_color_and_shape"
        ]
        for each in (model, quantized[0])
    )
    assert rounded >= exact - 0.05


def test_images_with_a_four_bit_cache_show_the_caption():
    pytest.importorskip("optimum.quanto")
    targets = drawings("test")[::2]
    captions = [drawing.caption for drawing in targets]
    processor = VilaUProcessor.from_pretrained(TINY_CHECKPOINT)
    model = VilaUForConditionalGeneration.from_pretrained(TINY_CHECKPOINT).eval()
    cache = {"backend": "quanto", "nbits": 4, "residual_length": 32}
    settings = {"cache_implementation": "quantized", "cache_config": cache}
    pictures = generate_from_captions(model, processor, captions, "image", seed=0, **settings)
    assert evaluate_images(pictures, targets)["picture_color_and_shape"] >= 0.95
