"""Reads the layout of the original VILA-U release and maps it to the classes of this package."""

import importlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.utils import validate_repo_id
from tokenizers import AddedToken, Regex, Tokenizer, normalizers
from transformers import AutoConfig, GenerationConfig, LlamaTokenizer, PreTrainedConfig, PreTrainedTokenizerFast

from ..files import read_json
from ..modeling import (
    VilaUConfig,
    VilaUDepthConfig,
    VilaUForConditionalGeneration,
    VilaUVisionConfig,
    VilaUVisionTowerForPreTraining,
)
from ..modeling.generation_settings_vilau import VISUAL_GENERATION_DEFAULTS
from ..processing import VilaUImageProcessor, VilaUProcessor, VilaUVideoProcessor, original_chat_template
from .weight_files import LazyTensor, lazy_weights
from .weights import WeightMapping, add_marker_rows, convert_tower_tensors


SUB_FOLDERS = ("llm", "vision_tower", "mm_projector")
MARKERS = {
    "image_start_token": "<im_start>",
    "image_end_token": "<im_end>",
    "video_start_token": "<vi_start>",
    "video_end_token": "<vi_end>",
}
PLACEHOLDERS = {"image_token": "<image>", "video_token": "<video>"}

# A release contains the name of its SigLIP model, but not its sizes. These are the sizes of
# google/siglip-large-patch16-256 and google/siglip-so400m-patch14-384.
_LARGE = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
_SO400M = {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16}
_SIGLIP_TEXT = {"vocab_size": 32000, "max_position_embeddings": 64}
SIGLIP_CONFIGS = {
    "siglip-large-patch16-256": {
        "vision_config": {**_LARGE, "image_size": 256, "patch_size": 16},
        "text_config": {**_LARGE, **_SIGLIP_TEXT},
    },
    "siglip-so400m-patch14-384": {
        "vision_config": {**_SO400M, "image_size": 384, "patch_size": 14},
        "text_config": {**_SO400M, **_SIGLIP_TEXT},
    },
}


@dataclass(frozen=True)
class OriginalRelease:
    """A release in the classes of this package; the weights are not in memory yet."""

    config: VilaUConfig
    weights: dict[str, LazyTensor]  # for VilaUForConditionalGeneration
    tower_config: VilaUVisionConfig
    tower_weights: dict[str, LazyTensor]  # for VilaUVisionTowerForPreTraining
    processor: VilaUProcessor
    generation_config: GenerationConfig


def read_original_release(
    source: str | Path, siglip_config: str | Path | None = None, dtype: torch.dtype | None = None
) -> OriginalRelease:
    """
    Reads the configurations and the tokenizer of a release, and checks that each tensor exists and fits.

    Args:
        source (`str` or `Path`): folder with `config.json`, `llm/`, `vision_tower/` and `mm_projector/`, or the id of
            such a repository on the Hub.
        siglip_config (`str` or `Path`, *optional*): `config.json` of the SigLIP model that the tower was made from, or
            its folder. It is needed unless the model is one of the two in `SIGLIP_CONFIGS`, or a folder beside
            `source` has its name.
        dtype (`torch.dtype`, *optional*): dtype of the weights (default: unchanged). The codebook is always float32.

    Raises:
        ValueError: if a file, field or tensor is missing, unknown or does not fit.
        ImportError: if sentencepiece or protobuf is not installed.
    """
    folder = _local_folder(source)
    release, llm, vision, projector = (read_json(folder / name / "config.json") for name in (".", *SUB_FOLDERS))
    if projector.get("mm_projector_type") != "mlp2x_gelu":
        given = projector.get("mm_projector_type")
        raise ValueError(f"{folder}/mm_projector: `mm_projector_type` must be 'mlp2x_gelu', got {given!r}.")
    siglip = _siglip_config(folder, _field(vision, "rqvaesiglip.pretrained_model", folder), siglip_config)
    tokenizer = _tokenizer(folder / "llm", llm)
    tower_config = _tower_config(folder, vision["rqvaesiglip"], siglip)
    config = _model_config(folder, llm, vision, tower_config, tokenizer)
    processor = _processor(folder, release, tower_config, tokenizer)

    language = {f"llm/{key}": value for key, value in lazy_weights(folder / "llm").items()}
    projecting = {f"mm_projector/{key}": value for key, value in lazy_weights(folder / "mm_projector").items()}
    seeing = convert_tower_tensors(folder, lazy_weights(folder / "vision_tower"), tower_config)
    language = add_marker_rows(language, config.text_config.vocab_size)
    names = WeightMapping(folder)
    names.add(language, r"llm/lm_head\.", "lm_head.", skip=config.tie_word_embeddings)
    names.add(language, r"llm/model\.", "model.language_model.")
    names.add(projecting, r"mm_projector/layers\.0\.", "model.multi_modal_projector.linear_1.")
    names.add(projecting, r"mm_projector/layers\.2\.", "model.multi_modal_projector.linear_2.")
    names.add(seeing, "vision_tower/", "model.vision_tower.")
    names.add(seeing, "depth_transformer/", "depth_transformer.")
    tower_names = WeightMapping(folder)
    tower_names.add(seeing, "vision_tower/", "vision_tower.")
    tower_names.add(seeing, r"contrastive/", "")
    # models without weights, for the names and shapes of their tensors
    with torch.device("meta"):
        model = VilaUForConditionalGeneration(config)
        tower = VilaUVisionTowerForPreTraining(tower_config)
    left_over = {*language, *projecting, *seeing} - names.taken - tower_names.taken
    weights = names.check_and_cast(model, dtype, left_over)
    tower_weights = tower_names.check_and_cast(tower, dtype, set())
    config.dtype = weights["model.language_model.embed_tokens.weight"].dtype
    tower_config.dtype = tower_weights["vision_tower.post_quant_conv.weight"].dtype
    return OriginalRelease(
        config=config,
        weights=weights,
        tower_config=tower_config,
        tower_weights=tower_weights,
        processor=processor,
        generation_config=_generation_config(release, config, processor),
    )


def _local_folder(source: str | Path) -> Path:
    """Returns the folder of a release, and downloads it first if `source` is the id of a Hub repository."""
    folder = Path(source)
    if not folder.exists():
        try:
            validate_repo_id(str(source))
        except ValueError as error:
            raise ValueError(
                f"`source` must be a folder or the id of a Hub repository, got {str(source)!r}."
            ) from error
        patterns = ["*.json", "*.safetensors", "*.bin", "*.model"]
        try:
            folder = Path(snapshot_download(str(source), allow_patterns=patterns))
        except OSError as error:
            # without a connection, the message of huggingface_hub does not have the name (2.4.0)
            raise OSError(f"`source` {str(source)!r} is no folder and cannot be downloaded: {error}") from error
    missing = [name for name in ("config.json", *SUB_FOLDERS) if not (folder / name).exists()]
    if missing:
        raise ValueError(
            f"{folder} is not an original VILA-U release: expected config.json, llm/, vision_tower/ and "
            f"mm_projector/, but it lacks {', '.join(missing)}."
        )
    return folder


def _field(config: dict, name: str, folder: Path) -> Any:
    """Returns the value at a dotted `name` in the configuration of the tower."""
    value: Any = config
    for key in name.split("."):
        if not isinstance(value, dict) or key not in value:
            raise ValueError(
                f"{folder}/vision_tower/config.json has no `{name}`: it is not the configuration of a VILA-U tower."
            )
        value = value[key]
    return value


def _siglip_config(folder: Path, name: str, given: str | Path | None) -> dict:
    """Returns the SigLIP configuration: from `given`, from the known models, or from a folder beside the release."""
    if given is None:
        beside = folder.absolute().parent / Path(name).name
        if Path(name).name in SIGLIP_CONFIGS:
            return SIGLIP_CONFIGS[Path(name).name]
        if not (beside / "config.json").is_file():
            raise ValueError(
                f"the sizes of the SigLIP model {name!r} are unknown: pass its config.json as `siglip_config`, or use "
                f"a release made from one of {', '.join(SIGLIP_CONFIGS)}."
            )
        given = beside
    path = Path(given)
    config = read_json(path / "config.json" if path.is_dir() else path)
    if not isinstance(config.get("vision_config"), dict) or not isinstance(config.get("text_config"), dict):
        raise ValueError(
            f"{path} must have a `vision_config` and a `text_config`, like the configuration of a SigLIP model."
        )
    return config


def _tower_config(folder: Path, tower: dict, siglip: dict) -> VilaUVisionConfig:
    """Converts the field `rqvaesiglip` of the tower's configuration, and its SigLIP configuration, to our class."""
    names = ("n_embed", "code_shape", "shared_codebook", "decay", "latent_loss_weight", "restart_unused_codes")
    decoder_names = ("z_channels", "ch", "ch_mult", "resolution", "attn_resolutions", "num_res_blocks")
    values = {name: _field({"rqvaesiglip": tower}, f"rqvaesiglip.{name}", folder) for name in names}
    decoder = {name: _field({"rqvaesiglip": tower}, f"rqvaesiglip.ddconfig.{name}", folder) for name in decoder_names}
    levels = len(decoder["ch_mult"])
    # side of the feature map at each level, in the order of the decoder: smallest first
    sides = [decoder["resolution"] // 2 ** (levels - 1 - level) for level in range(levels)]
    latent = tower.get("decoder_latent_shape")
    return VilaUVisionConfig(
        encoder_config=siglip["vision_config"],
        text_config=siglip["text_config"],
        codebook_size=values["n_embed"],
        code_depth=values["code_shape"][-1],
        shared_codebook=values["shared_codebook"],
        codebook_decay=values["decay"],
        restart_unused_codes=values["restart_unused_codes"],
        commitment_loss_weight=values["latent_loss_weight"],
        latent_channels=decoder["z_channels"],
        block_out_channels=[decoder["ch"] * factor for factor in decoder["ch_mult"]],
        up_block_types=[
            "AttnUpDecoderBlock2D" if side in decoder["attn_resolutions"] else "UpDecoderBlock2D" for side in sides
        ],
        layers_per_block=decoder["num_res_blocks"],
        decoder_latent_size=latent[0] if latent else None,
    )


def _model_config(
    folder: Path, llm: dict, vision: dict, tower_config: VilaUVisionConfig, tokenizer: PreTrainedTokenizerFast
) -> VilaUConfig:
    """Converts the configurations of the language model and the depth transformer, and adds `tower_config`."""
    depth = {
        name: _field(vision, f"rqtransformer.{name}", folder)
        for name in ("embed_dim", "vocab_size", "block_size", "input_embed_dim_1", "input_embed_dim_2")
    }
    # `Any`, because the library declares that one token may have a list of ids
    markers: dict[str, Any] = {f"{name}_id": tokenizer.convert_tokens_to_ids(token) for name, token in MARKERS.items()}
    placeholders: dict[str, Any] = {
        f"{name}_id": tokenizer.convert_tokens_to_ids(token) for name, token in PLACEHOLDERS.items()
    }
    space: Any = tokenizer.convert_tokens_to_ids("▁")
    return VilaUConfig(
        vision_config=VilaUVisionConfig.from_dict({**tower_config.to_dict(), "text_config": None}),
        depth_config=VilaUDepthConfig(
            hidden_size=depth["embed_dim"],
            num_hidden_layers=_field(vision, "rqtransformer.head.n_layer", folder),
            num_attention_heads=_field(vision, "rqtransformer.head.block.n_head", folder),
            intermediate_size=4 * depth["embed_dim"],
            backbone_hidden_size=depth["input_embed_dim_2"],
            code_dim=depth["input_embed_dim_1"],
            codebook_size=depth["vocab_size"],
            code_depth=depth["block_size"][-1],
        ),
        text_config=_text_config(folder, llm, max(markers.values()) + 1),
        tie_word_embeddings=bool(llm.get("tie_word_embeddings")),
        # As in the original, the prompt ends with a space before the start marker.
        start_marker_prefix_ids=[space],
        **markers,
        **placeholders,
    )


def _text_config(folder: Path, llm: dict, least_rows: int) -> PreTrainedConfig:
    """Converts the configuration of the language model. Its vocabulary gets at least `least_rows` rows."""
    settings = {name: value for name, value in llm.items() if value is not None and not name.startswith("_")}
    for name in ("architectures", "torch_dtype", "transformers_version", "tokenizer_padding_side"):
        settings.pop(name, None)
    for name in ("tokenizer_model_max_length", "model_max_length", "pretraining_tp"):
        settings.pop(name, None)
    model_type = settings.pop("model_type", None)
    scaling = settings.pop("rope_scaling", None)
    if scaling is not None:
        kind = scaling.get("rope_type", scaling.get("type"))
        factor = scaling.get("factor")
        if kind != "linear" or not isinstance(factor, (int, float)) or factor < 1:
            raise ValueError(
                f"{folder}/llm/config.json: `rope_scaling` must be of type 'linear' with a factor of at least 1, got "
                f"{scaling}."
            )
        theta = settings.pop("rope_theta", 10000.0)
        settings["rope_parameters"] = {"rope_type": "linear", "factor": float(factor), "rope_theta": theta}
        # linear scaling stretches the positions, so that the model can use `factor` times as many
        settings["max_position_embeddings"] = round(settings["max_position_embeddings"] * factor)
    settings["vocab_size"] = max(settings.get("vocab_size", 0), least_rows)
    settings.setdefault("pad_token_id", 0)
    try:
        return AutoConfig.for_model(model_type, **settings)
    except ValueError as error:
        raise ValueError(f"{folder}/llm/config.json: {error}") from error


def _tokenizer(folder: Path, llm: dict) -> PreTrainedTokenizerFast:
    """
    Converts the sentencepiece tokenizer of the release to a fast tokenizer with exactly the same ids.

    The original adds a space before a text, unless the text begins with a special token. It adds none after a special
    token within the text. A normalisation of the whole text does the same for every input.

    Raises:
        ImportError: if sentencepiece or protobuf is not installed. They read `tokenizer.model`.
        ValueError: if `tokenizer.model` is missing, empty or cut.
    """
    if not (folder / "tokenizer.model").is_file():
        raise ValueError(f"{folder} has no tokenizer.model.")
    for package in ("sentencepiece", "google.protobuf"):
        try:
            importlib.import_module(package)
        except ImportError as error:
            message = (
                f"To read an original release, run: pip install 'vilau_hf[convert]' ({package} is not installed)."
            )
            raise ImportError(message) from error
    _check_tokenizer_model(folder / "tokenizer.model")
    slow = LlamaTokenizer.from_pretrained(folder)
    missing = [token for token in MARKERS.values() if token not in slow.get_vocab()]
    added = [*slow.added_tokens_decoder.values(), *missing, *PLACEHOLDERS.values()]
    special = [str(token) for token in added]
    backend = Tokenizer.from_str(slow.backend_tokenizer.to_str())
    backend.pre_tokenizer = None  # the normaliser below replaces it
    starts_special = "|".join(re.escape(token) for token in special)
    # the first rule inserts "▁" at the start of a text that is not empty and does not begin with a special token
    backend.normalizer = normalizers.Sequence(
        [
            normalizers.Replace(Regex(rf"\A(?=[\s\S])(?!{starts_special})"), "▁"),
            normalizers.Replace(" ", "▁"),
        ]
    )
    # With `normalized=True`, special tokens are found after normalisation, so the rule above sees the whole text.
    backend.add_special_tokens([AddedToken(token, normalized=True, special=True) for token in special])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<unk>",
        clean_up_tokenization_spaces=False,
        model_max_length=llm.get("tokenizer_model_max_length") or llm["max_position_embeddings"],
        extra_special_tokens={**MARKERS, **PLACEHOLDERS},
    )


def _check_tokenizer_model(path: Path) -> None:
    """Checks that a sentencepiece model is complete. The library would read an empty one as a tiny vocabulary."""
    from google.protobuf.message import DecodeError
    from sentencepiece import sentencepiece_model_pb2

    model = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]  # protobuf makes the class at import
    try:
        model.ParseFromString(path.read_bytes())
    except DecodeError as error:
        raise ValueError(f"{path} is no sentencepiece model, or it is cut: {error}") from error
    # These fields follow one another in the file, so a file that was cut between two of them lacks the last.
    if not (model.pieces and model.HasField("trainer_spec") and model.HasField("normalizer_spec")):
        raise ValueError(f"{path} is empty or cut: it has {len(model.pieces)} pieces and lacks its settings.")


def _processor(
    folder: Path, release: dict, tower_config: VilaUVisionConfig, tokenizer: PreTrainedTokenizerFast
) -> VilaUProcessor:
    """Builds a processor whose prompts and pixels equal those of the original."""
    side = tower_config.image_size
    settings = {}
    path = folder / "vision_tower" / "preprocessor_config.json"
    if path.is_file():
        saved = read_json(path)
        for name in ("size", "crop_size"):
            given = saved.get(name, {"height": side, "width": side})
            if given != {"height": side, "width": side}:
                raise ValueError(
                    f"{path}: `{name}` must be the image size of the encoder, {side} x {side}, got {given}."
                )
        names = ("resample", "image_mean", "image_std", "rescale_factor")
        settings = {name: saved[name] for name in names if name in saved}
    aspect = release.get("image_aspect_ratio") or "resize"
    if aspect not in ("resize", "pad"):
        raise ValueError(f"{folder}/config.json: `image_aspect_ratio` must be 'resize' or 'pad', got {aspect!r}.")
    size = {"height": side, "width": side}
    return VilaUProcessor(
        VilaUImageProcessor(size=size, resize_before_rgb=True, pad_to_square=aspect == "pad", **settings),
        tokenizer,
        VilaUVideoProcessor(size=size, num_frames=release.get("num_video_frames") or 8, **settings),
        chat_template=original_chat_template(),
        num_visual_tokens=tower_config.num_visual_tokens,
        context_markers=False,
        video_as_images=True,
    )


def _generation_config(release: dict, config: VilaUConfig, processor: VilaUProcessor) -> GenerationConfig:
    """Builds the generation settings with the defaults of the original."""
    text = config.text_config
    settings = GenerationConfig(
        do_sample=True,
        temperature=0.9,
        top_p=0.6,
        max_new_tokens=512,
        bos_token_id=text.bos_token_id,
        eos_token_id=text.eos_token_id,
        pad_token_id=text.pad_token_id,
    )
    settings.update(
        allow_custom_entries=True,
        # the defaults of this package are those of the original code
        visual_guidance_scale=VISUAL_GENERATION_DEFAULTS["visual_guidance_scale"],
        visual_temperature=VISUAL_GENERATION_DEFAULTS["visual_temperature"],
        visual_top_k=VISUAL_GENERATION_DEFAULTS["visual_top_k"],
        visual_top_p=VISUAL_GENERATION_DEFAULTS["visual_top_p"],
        num_frames=release.get("num_video_frames") or 8,
        unconditional_prompt_ids=processor.unconditional_prompt_ids(),
    )
    return settings


__all__ = ["SIGLIP_CONFIGS", "OriginalRelease", "read_original_release"]
