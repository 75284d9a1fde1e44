import pytest
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from vilau_hf.processing.image_processing_vilau import VilaUImageProcessor
from vilau_hf.processing.processing_vilau import VICUNA_SYSTEM_PROMPT, VilaUProcessor
from vilau_hf.processing.video_processing_vilau import VilaUVideoProcessor


WORDS = f"{VICUNA_SYSTEM_PROMPT} USER : ASSISTANT draw a red green square circle what is this it moves then and blue"
VISUAL_TOKENS = {
    "image_token": "<image>",
    "image_start_token": "<image_start>",
    "image_end_token": "<image_end>",
    "video_token": "<video>",
    "video_start_token": "<video_start>",
    "video_end_token": "<video_end>",
}


def build_tokenizer(**kwargs) -> PreTrainedTokenizerFast:
    """One token for each word and each sign."""
    special = ["<pad>", "<s>", "</s>", "<unk>", *VISUAL_TOKENS.values()]
    words = [word for word, _ in pre_tokenizers.Whitespace().pre_tokenize_str(WORDS)]
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys(special + words))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        extra_special_tokens=VISUAL_TOKENS,
        **kwargs,
    )


def build_processor(num_visual_tokens: int = 4, size: int = 8, **kwargs) -> VilaUProcessor:
    size = {"height": size, "width": size}
    return VilaUProcessor(
        VilaUImageProcessor(size=size),
        build_tokenizer(),
        VilaUVideoProcessor(size=size),
        num_visual_tokens=num_visual_tokens,
        **kwargs,
    )


@pytest.fixture
def processor() -> VilaUProcessor:
    return build_processor()


@pytest.fixture
def picture() -> Image.Image:
    return Image.linear_gradient("L").convert("RGB").resize((20, 12))
