import numpy as np
import pytest
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from vilau_hf.processing.chat_templates_vilau import VICUNA_SYSTEM_PROMPT
from vilau_hf.processing.image_processing_vilau import VilaUImageProcessor
from vilau_hf.processing.processing_vilau import VilaUProcessor
from vilau_hf.processing.video_processing_vilau import VilaUVideoProcessor


IMAGE_SPAN = "<image_start>" + "<image>" * 4 + "<image_end>"
VIDEO_SPAN = "<video_start>" + "<video>" * 8 + "<video_end>"  # two frames
IMAGE = {"type": "image"}
VIDEO = {"type": "video"}
WORDS = f"{VICUNA_SYSTEM_PROMPT} USER : ASSISTANT draw a red green square circle what is this it moves then and blue"
VISUAL_TOKENS = {
    "image_token": "<image>",
    "image_start_token": "<image_start>",
    "image_end_token": "<image_end>",
    "video_token": "<video>",
    "video_start_token": "<video_start>",
    "video_end_token": "<video_end>",
}


def build_tokenizer(kind: str = "words", visual_tokens: dict = VISUAL_TOKENS) -> PreTrainedTokenizerFast:
    """Returns a tokenizer with one token a word and sign, or with sub-words like GPT ("bytes") or "llama"."""
    special = ["<pad>", "<s>", "</s>", "<unk>", *visual_tokens.values()]
    if kind == "words":
        tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        trainer = trainers.WordLevelTrainer(special_tokens=special, show_progress=False)
    else:
        tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
        is_llama = kind == "llama"
        tokenizer.pre_tokenizer = (pre_tokenizers.Metaspace if is_llama else pre_tokenizers.ByteLevel)()
        tokenizer.decoder = (decoders.Metaspace if is_llama else decoders.ByteLevel)()
        trainer = trainers.BpeTrainer(vocab_size=120, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator([WORDS], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        extra_special_tokens=visual_tokens,
    )


def user(*content):
    return {"role": "user", "content": list(content)}


def assistant(*content):
    return {"role": "assistant", "content": list(content)}


def text(words):
    return {"type": "text", "text": words}


def build_processor(num_visual_tokens: int = 4, size: int = 8, tokenizer: str = "words", **kwargs) -> VilaUProcessor:
    size = {"height": size, "width": size}
    return VilaUProcessor(
        VilaUImageProcessor(size=size),
        build_tokenizer(tokenizer),
        VilaUVideoProcessor(size=size),
        num_visual_tokens=num_visual_tokens,
        **kwargs,
    )


@pytest.fixture
def processor() -> VilaUProcessor:
    return build_processor()


@pytest.fixture
def image() -> Image.Image:
    return Image.linear_gradient("L").convert("RGB").resize((20, 12))


@pytest.fixture
def video(image) -> list[Image.Image]:
    return [image, image.rotate(180)]


@pytest.fixture(params=["mp4", "mkv"])  # the second format does not store the number of frames
def video_file(tmp_path, request):
    """Writes a video of twelve plain frames, each lighter than the one before."""
    av = pytest.importorskip("av")
    path = tmp_path / f"grey.{request.param}"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=12)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for index in range(12):
            array = np.full((32, 32, 3), 20 * index + 10, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(array, format="rgb24")))
        container.mux(stream.encode())
    return path
