"""Repositories for the Hub: weights, processor, pipeline index, model card and, if wanted, the code."""

import json
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import HfApi, ModelCard

from .files import is_new_or_empty
from .modeling import VilaUConfig, VilaUForConditionalGeneration
from .pipelines import VilaUPipeline, pipeline_text_to_image
from .processing import VilaUImageProcessor, VilaUProcessor, VilaUVideoProcessor


PACKAGE_CARD = Path(__file__).parent / "model_card.md"
_AUTO_MODELS = ("AutoModel", "AutoModelForImageTextToText", "AutoModelForMultimodalLM", "AutoModelForPreTraining")


def write_repository(
    source: str | Path, folder: str | Path, with_code: bool = False, card: str | Path | None = None
) -> None:
    """
    Writes the folder that `push_repository` uploads; transformers and diffusers load it alike.

    Args:
        source (`str` or `Path`): folder or Hub id of a checkpoint.
        folder (`str` or `Path`): where to write; it must not exist, or be empty.
        with_code (`bool`, *optional*, defaults to `False`): put the code beside the weights, so that
            `trust_remote_code=True` loads the repository without this package.
        card (`str` or `Path`, *optional*): the model card; by default the `README.md` of `source`, or the package's
            own, which describes the shipped checkpoint.

    Raises:
        ValueError: if `folder` is in use, or the card has no valid metadata.
    """
    folder = Path(folder)
    if not is_new_or_empty(folder):
        raise ValueError(f"`folder` must be a new or an empty folder, got {folder}.")
    if card is None:
        own = Path(source) / "README.md"
        card = own if own.is_file() else PACKAGE_CARD
    card = ModelCard.load(card)
    if not card.data.license:
        raise ValueError("the model card names no `license` in its metadata.")
    model = VilaUForConditionalGeneration.from_pretrained(source, dtype="auto")
    processor = VilaUProcessor.from_pretrained(source)
    pipeline = VilaUPipeline(model, processor)
    if with_code:
        with _code_beside_weights(model):
            pipeline.save_pretrained(folder, flat=True)
        _add_pipelines(folder)
    else:
        pipeline.save_pretrained(folder, flat=True)
    card.save(folder / "README.md")


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
        source, with_code, card: as for [`write_repository`].
        repo_id (`str`): id of the repository, which is made if it is not there.
        private (`bool`, *optional*): whether a new repository is private; by default as the account says.

    Returns:
        Address of the commit.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "repository")
        write_repository(source, folder, with_code, card)
        api = HfApi()
        api.create_repo(repo_id, private=private, exist_ok=True)
        return str(api.upload_folder(repo_id=repo_id, folder_path=folder))


@contextmanager
def _code_beside_weights(model: VilaUForConditionalGeneration):
    """While it lasts, saving copies the defining modules and names them; never for good, or every save would."""
    classes = {
        VilaUConfig: "AutoConfig",
        VilaUForConditionalGeneration: "AutoModel",
        VilaUProcessor: "AutoProcessor",
        VilaUImageProcessor: "AutoImageProcessor",
        VilaUVideoProcessor: "AutoVideoProcessor",
    }
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


def _add_pipelines(folder: Path):
    """The tasks of transformers' `pipeline` that this package brings, for use without it."""
    module = Path(pipeline_text_to_image.__file__)
    shutil.copy(module, folder / module.name)
    config = json.loads((folder / "config.json").read_text())
    config["custom_pipelines"] = {
        task: {"impl": f"{module.stem}.{name}", "pt": ["AutoModelForMultimodalLM"], "type": "multimodal"}
        for task, name in (
            ("text-to-image", "VilaUTextToImagePipeline"),
            ("text-to-video", "VilaUTextToVideoPipeline"),
        )
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


__all__ = ["PACKAGE_CARD", "push_repository", "write_repository"]
