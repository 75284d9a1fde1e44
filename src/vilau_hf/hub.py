"""Repositories for the Hub: weights, processor, pipeline index, model card and, optionally, the code."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, ModelCard

from .files import is_new_or_empty, new_folder, temporary_folder
from .modeling import VilaUConfig, VilaUForConditionalGeneration
from .pipelines import VilaUPipeline, pipeline_text_to_image
from .processing import VilaUImageProcessor, VilaUProcessor, VilaUVideoProcessor


# model card of the shipped checkpoint
PACKAGE_CARD = Path(__file__).parent / "model_card.md"
_AUTO_MODELS = ("AutoModel", "AutoModelForImageTextToText", "AutoModelForMultimodalLM", "AutoModelForPreTraining")


def write_repository(
    source: str | Path, folder: str | Path, with_code: bool = False, card: str | Path | None = None
) -> None:
    """
    Saves the folder that `push_repository` uploads. transformers and diffusers can both load it.

    The folder gets its name when it is complete.

    Args:
        source (`str` or `Path`): folder or Hub id of the checkpoint.
        folder (`str` or `Path`): output folder, which must be new or empty.
        with_code (`bool`, *optional*, defaults to `False`): whether the code is saved as well, so that
            `trust_remote_code=True` loads the repository without this package.
        card (`str` or `Path`, *optional*): file of the model card. By default it is the `README.md` of `source`, or
            else the card of the shipped checkpoint.

    Raises:
        ValueError: if `folder` is not empty, the card names no license, or tensors of the checkpoint are missing,
            unexpected or of another shape.
    """
    folder = Path(folder)
    if not is_new_or_empty(folder):
        raise ValueError(f"`folder` must be a new or an empty folder, got {folder}.")
    if card is None:
        source_card = Path(source) / "README.md"
        card = source_card if source_card.is_file() else PACKAGE_CARD
    model_card = ModelCard.load(card)
    if not model_card.data.license:
        raise ValueError(f"the model card {card} names no `license` in its metadata.")
    model = VilaUForConditionalGeneration.from_pretrained(source, dtype="auto")
    processor = VilaUProcessor.from_pretrained(source)
    pipeline = VilaUPipeline(model, processor)
    with new_folder(folder) as unfinished:
        if with_code:
            with _saving_code(model):
                pipeline.save_pretrained(unfinished, flat=True)
            _add_pipelines(unfinished)
        else:
            pipeline.save_pretrained(unfinished, flat=True)
        model_card.save(unfinished / "README.md")


def push_repository(
    source: str | Path,
    repo_id: str,
    with_code: bool = False,
    card: str | Path | None = None,
    private: bool | None = None,
) -> str:
    """
    Uploads a checkpoint as one repository.

    Args:
        source (`str` or `Path`): folder or Hub id of the checkpoint.
        repo_id (`str`): id of the repository, which is created if it does not exist.
        with_code (`bool`, *optional*, defaults to `False`): see [`write_repository`].
        card (`str` or `Path`, *optional*): see [`write_repository`].
        private (`bool`, *optional*): whether a new repository is private. By default the account decides.

    Returns:
        URL of the commit.
    """
    # Not `TemporaryDirectory`: a killed process would leave the whole model, and no later one would delete it.
    with temporary_folder(Path(tempfile.gettempdir())) as temporary:
        folder = temporary / "repository"
        write_repository(source, folder, with_code, card)
        api = HfApi()
        api.create_repo(repo_id, private=private, exist_ok=True)
        return str(api.upload_folder(repo_id=repo_id, folder_path=folder))


@contextmanager
def _saving_code(model: VilaUForConditionalGeneration) -> Iterator[None]:
    """Makes `save_pretrained` save the code of our classes as well, as long as the context lasts."""
    # `register_for_auto_class` has no inverse and would apply to each later `save_pretrained` in this process. So the
    # classes are restored at the end.
    classes: dict[Any, str] = {
        VilaUConfig: "AutoConfig",
        VilaUForConditionalGeneration: "AutoModel",
        VilaUProcessor: "AutoProcessor",
        VilaUImageProcessor: "AutoImageProcessor",
        VilaUVideoProcessor: "AutoVideoProcessor",
    }
    # Registering gives each class one Auto class. A model has four, so they are named here.
    model.config.auto_map = {
        "AutoConfig": "configuration_vilau.VilaUConfig",
        **dict.fromkeys(_AUTO_MODELS, "modeling_vilau.VilaUForConditionalGeneration"),
    }
    for cls, name in classes.items():
        cls.register_for_auto_class(name)
    try:
        yield
    finally:
        for cls in classes:
            cls._auto_class = None
        del model.config.auto_map


def _add_pipelines(folder: Path) -> None:
    """Adds the tasks "text-to-image" and "text-to-video" of transformers' `pipeline` with their code."""
    # `VilaUPipeline.save_pretrained` knows nothing of these tasks. The entry in `config.json` has the form that
    # `Pipeline.save_pretrained` gives to custom code.
    module = Path(pipeline_text_to_image.__file__)
    shutil.copy(module, folder / module.name)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["custom_pipelines"] = {
        task: {"impl": f"{module.stem}.{name}", "pt": ["AutoModelForMultimodalLM"], "type": "multimodal"}
        for task, name in (
            ("text-to-image", "VilaUTextToImagePipeline"),
            ("text-to-video", "VilaUTextToVideoPipeline"),
        )
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


__all__ = ["PACKAGE_CARD", "push_repository", "write_repository"]
