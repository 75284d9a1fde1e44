"""Converts the original VILA-U release to an ordinary Hugging Face checkpoint, or loads it directly."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import HfApi, ModelCard, ModelCardData

from ..files import is_new_or_empty, new_folder
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
    Converts a release folder or Hub repository, with one tensor in memory at a time.

    The checkpoint is written to a hidden folder beside `out`, which is renamed at the end. A conversion that fails
    leaves nothing behind. If it is killed, the next conversion beside it deletes the hidden folder.

    Args:
        source (`str` or `Path`): folder with `config.json`, `llm/`, `vision_tower/` and `mm_projector/`, or the id of
            such a repository on the Hub.
        out (`str` or `Path`): folder of the checkpoint, new or empty.
        dtype (`torch.dtype`, *optional*): dtype of the weights (default: unchanged). The codebook is always float32.
        tower_out (`str` or `Path`, *optional*): folder for the vision tower with its SigLIP text encoder, a checkpoint
            of [`VilaUVisionTowerForPreTraining`].
        siglip_config (`str` or `Path`, *optional*): `config.json` of the SigLIP model that the tower was made from, or
            its folder. It is needed unless the model is one of the two in `SIGLIP_CONFIGS`.
        push_to_hub (`str`, *optional*): id of the Hub repository to upload the checkpoint to.
        max_shard_size (`int` or `str`, *optional*, defaults to `"5GB"`): largest size of a weight file.

    Raises:
        ValueError: if `source` is no such release or is damaged, its weights do not fit its configuration, or an
            output folder is in use. Nothing is written in these cases.
    """
    out = Path(out)
    tower_out = None if tower_out is None else Path(tower_out)
    for name, folder in (("out", out), ("tower_out", tower_out)):
        if folder is not None and not is_new_or_empty(folder):
            raise ValueError(f"`{name}` must be a new or an empty folder, got {folder}.")
    if tower_out is not None and tower_out.absolute() == out.absolute():
        raise ValueError(f"`tower_out` must differ from `out`, got {out} for both.")
    release = read_original_release(source, siglip_config, dtype)
    base_model = PUBLISHED_MODEL if Path(source).exists() else str(source)
    card = release_model_card(release, base_model, push_to_hub or str(out))
    # Both folders are complete before one of them gets its name, at the end of the context.
    with ExitStack() as stack:
        _write_model(stack.enter_context(new_folder(out)), release, card, max_shard_size)
        if tower_out is not None:
            _write_tower(stack.enter_context(new_folder(tower_out)), release, max_shard_size)
    if push_to_hub is not None:
        api = HfApi()
        api.create_repo(push_to_hub, exist_ok=True)
        api.upload_folder(repo_id=push_to_hub, folder_path=out)


def _write_model(folder: Path, release: OriginalRelease, card: ModelCard, max_shard_size: int | str) -> None:
    release.config.architectures = ["VilaUForConditionalGeneration"]
    release.config.save_pretrained(folder)
    release.generation_config.save_pretrained(folder)
    release.processor.save_pretrained(folder)
    # `save_config` writes model_index.json. It needs a model but no weights.
    with torch.device("meta"):
        VilaUPipeline(VilaUForConditionalGeneration(release.config), release.processor).save_config(folder)
    card.save(folder / "README.md")
    write_weights(folder, release.weights, max_shard_size)


def _write_tower(folder: Path, release: OriginalRelease, max_shard_size: int | str) -> None:
    release.tower_config.architectures = ["VilaUVisionTowerForPreTraining"]
    release.tower_config.save_pretrained(folder)
    release.processor.image_processor.save_pretrained(folder)
    write_weights(folder, release.tower_weights, max_shard_size)


def release_model_card(release: OriginalRelease, base_model: str, model_id: str) -> ModelCard:
    """
    Builds the model card of a converted release.

    Args:
        release ([`OriginalRelease`]): the release that was converted.
        base_model (`str`): Hub id of the release.
        model_id (`str`): Hub id or folder of the converted checkpoint, for the example in the card.
    """
    text = release.config.text_config
    vision = release.config.vision_config
    depth = release.config.depth_config
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
    **kwargs: Any,
) -> VilaUForConditionalGeneration:
    """
    Loads the model of a release without converting it first.

    Args:
        cls (`type`): class of the model.
        source (`str` or `Path`): as for [`convert_original_checkpoint`].
        siglip_config (`str` or `Path`, *optional*): as for [`convert_original_checkpoint`].
        dtype (`torch.dtype`, *optional*): as for [`convert_original_checkpoint`].
        kwargs: arguments of `from_pretrained`, for example `attn_implementation`.
    """
    release = read_original_release(source, siglip_config, dtype)
    state = {name: tensor.load() for name, tensor in release.weights.items()}
    model = cls.from_pretrained(None, config=release.config, state_dict=state, dtype=release.config.dtype, **kwargs)
    model.generation_config = release.generation_config
    return model


def load_original_processor(
    cls: type[VilaUProcessor], source: str | Path, siglip_config: str | Path | None = None
) -> VilaUProcessor:
    """
    Loads the processor of a release.

    Args:
        cls (`type`): class of the processor.
        source (`str` or `Path`): as for [`convert_original_checkpoint`].
        siglip_config (`str` or `Path`, *optional*): as for [`convert_original_checkpoint`].
    """
    return read_original_release(source, siglip_config).processor


__all__ = [
    "PUBLISHED_MODEL",
    "convert_original_checkpoint",
    "load_original_model",
    "load_original_processor",
    "release_model_card",
]
