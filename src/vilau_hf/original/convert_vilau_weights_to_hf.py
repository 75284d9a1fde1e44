"""Turns the original VILA-U release into an ordinary Hugging Face checkpoint."""

import shutil
import tempfile
from pathlib import Path

import torch
from huggingface_hub import HfApi, ModelCard, ModelCardData

from ..files import is_new_or_empty
from ..modeling import VilaUForConditionalGeneration
from ..pipelines import VilaUPipeline
from ..processing import VilaUProcessor
from .release import OriginalRelease, read_original_release
from .weight_files import write_weights


PUBLISHED_MODEL = "mit-han-lab/vila-u-7b-256"


def convert_original_checkpoint(
    source: str | Path,
    out: str | Path,
    dtype: torch.dtype | None = None,
    tower_out: str | Path | None = None,
    siglip_config: str | Path | None = None,
    push_to_hub: str | None = None,
    max_shard_size: int | str = "5GB",
) -> None:
    """
    Converts a release folder or Hub repository. One tensor is in memory at a time, and nothing is left behind if it
    fails: the checkpoint is written beside `out` and renamed at the end.

    Args:
        source (`str` or `Path`): folder with `config.json`, `llm/`, `vision_tower/` and `mm_projector/`, or the id of
            such a repository on the Hub.
        out (`str` or `Path`): folder of the checkpoint; it must not exist, or be empty.
        dtype (`torch.dtype`, *optional*): dtype of the weights; by default as they are. The codebook stays float32.
        tower_out (`str` or `Path`, *optional*): folder for the vision tower with its SigLIP text encoder, a checkpoint
            of [`VilaUVisionTowerForPreTraining`].
        siglip_config (`str` or `Path`, *optional*): `config.json` of the SigLIP model that the tower was made from, or
            its folder; needed unless it is one of the two published ones.
        push_to_hub (`str`, *optional*): id of the Hub repository to upload the checkpoint to.
        max_shard_size (`int` or `str`, *optional*, defaults to `"5GB"`): size of a weight file.

    Raises:
        ValueError: if `source` is not such a release, is damaged or does not fit its configuration, or an output
            folder is in use; before anything is written.
    """
    out, tower_out = Path(out), None if tower_out is None else Path(tower_out)
    for name, folder in (("out", out), ("tower_out", tower_out)):
        if folder is not None and not is_new_or_empty(folder):
            raise ValueError(f"`{name}` must be a new or an empty folder, got {folder}.")
    if tower_out is not None and tower_out.absolute() == out.absolute():
        raise ValueError(f"`tower_out` must differ from `out`, both are {out}.")
    release = read_original_release(source, siglip_config, dtype)
    base_model = PUBLISHED_MODEL if Path(source).exists() else str(source)
    card = release_model_card(release, base_model, push_to_hub or str(out))
    finished = [_write(out, lambda folder: _write_model(folder, release, card, max_shard_size))]
    if tower_out is not None:
        try:
            finished.append(_write(tower_out, lambda folder: _write_tower(folder, release, max_shard_size)))
        except BaseException:
            shutil.rmtree(finished[0])
            raise
    for temporary, folder in zip(finished, (out, tower_out), strict=False):
        temporary.replace(folder)
    if push_to_hub is not None:
        api = HfApi()
        api.create_repo(push_to_hub, exist_ok=True)
        api.upload_folder(repo_id=push_to_hub, folder_path=out)


def _write(out: Path, write) -> Path:
    """A finished folder beside `out`, to be renamed to it; none if `write` fails or is interrupted."""
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    temporary.chmod(0o755)
    try:
        write(temporary)
    except BaseException:
        shutil.rmtree(temporary)
        raise
    return temporary


def _write_model(folder: Path, release: OriginalRelease, card: ModelCard, max_shard_size: int | str):
    release.config.architectures = ["VilaUForConditionalGeneration"]
    release.config.save_pretrained(folder)
    release.generation_config.save_pretrained(folder)
    release.processor.save_pretrained(folder)
    with torch.device("meta"):
        VilaUPipeline(VilaUForConditionalGeneration(release.config), release.processor).save_config(folder)
    card.save(folder / "README.md")
    write_weights(folder, release.weights, max_shard_size)


def _write_tower(folder: Path, release: OriginalRelease, max_shard_size: int | str):
    release.tower_config.architectures = ["VilaUVisionTowerForPreTraining"]
    release.tower_config.save_pretrained(folder)
    release.processor.image_processor.save_pretrained(folder)
    write_weights(folder, release.tower_weights, max_shard_size)


def release_model_card(release: OriginalRelease, base_model: str, model_id: str) -> ModelCard:
    """
    The model card of a converted release.

    Args:
        release ([`OriginalRelease`]): what was converted.
        base_model (`str`): Hub id of the release.
        model_id (`str`): Hub id or folder of the converted checkpoint, for the example in the card.
    """
    text, vision, depth = release.config.text_config, release.config.vision_config, release.config.depth_config
    data = ModelCardData(
        base_model=base_model,
        library_name="transformers",
        pipeline_tag="any-to-any",
        language="en",
        license="other",
        license_name="mit-and-llama-2-community",
        license_link="https://ai.meta.com/llama/license/",
        tags=["vila-u", "text-to-image", "text-to-video", "image-text-to-text"],
    )
    return ModelCard.from_template(
        data,
        template_path=str(Path(__file__).parent / "release_model_card.md"),
        base_model=base_model,
        model_id=model_id,
        language_model=f"{text.model_type}, {text.num_hidden_layers} layers, {text.hidden_size} wide",
        image_size=vision.image_size,
        num_visual_tokens=vision.num_visual_tokens,
        code_depth=vision.code_depth,
        codebook_size=vision.codebook_size,
        depth_layers=depth.num_hidden_layers,
        depth_width=depth.hidden_size,
    )


def load_original_model(
    cls: type[VilaUForConditionalGeneration],
    source: str | Path,
    siglip_config: str | Path | None = None,
    dtype: torch.dtype | None = None,
    **kwargs,
) -> VilaUForConditionalGeneration:
    """
    Loads a release without converting it, the way [`convert_original_checkpoint`] reads it.

    Args:
        source, siglip_config, dtype: as for [`convert_original_checkpoint`].
        kwargs: as for `from_pretrained`, for example `attn_implementation`.
    """
    release = read_original_release(source, siglip_config, dtype)
    state = {name: tensor.load() for name, tensor in release.weights.items()}
    model = cls.from_pretrained(None, config=release.config, state_dict=state, dtype=release.config.dtype, **kwargs)
    model.generation_config = release.generation_config
    return model


def load_original_processor(
    cls: type[VilaUProcessor], source: str | Path, siglip_config: str | Path | None = None
) -> VilaUProcessor:
    """The processor of a release; arguments as for [`convert_original_checkpoint`]."""
    return read_original_release(source, siglip_config).processor


__all__ = [
    "PUBLISHED_MODEL",
    "convert_original_checkpoint",
    "load_original_model",
    "load_original_processor",
    "release_model_card",
]
