"""Maps the tensors of the original release to the names and formats of this package, and checks that they fit."""

import re
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import PreTrainedModel

from ..files import first_five
from ..modeling import VilaUVisionConfig
from .weight_files import LazyTensor


# buffers that older versions of the libraries saved, and that are computed today
_COMPUTED = re.compile(r"(rotary_emb\.inv_freq|embeddings\.position_ids)$")

# Rules that rename the depth transformer and the pixel decoder, applied in this order: (pattern, replacement).
_DEPTH_NAMES = (
    (r"^head_transformer\.blocks\.", "layers."),
    (r"\.attn\.", ".self_attn."),
    (r"\.ln1\.", ".input_layernorm."),
    (r"\.ln2\.", ".post_attention_layernorm."),
    (r"\.mlp\.0\.", ".fc1."),
    (r"\.mlp\.2\.", ".fc2."),
    (r"^in_mlp_1\.", "in_proj_code."),
    (r"^in_mlp_2\.", "in_proj_hidden."),
    (r"^classifier_mlp\.layer_norm\.", "norm."),
    (r"^classifier_mlp\.linear\.", "code_head."),
    (r"^pos_emb_d$", "depth_embedding.weight"),
)
_DECODER_NAMES = (
    (r"^mid\.block_1\.", "mid_block.resnets.0."),
    (r"^mid\.block_2\.", "mid_block.resnets.1."),
    (r"^mid\.attn_1\.", "mid_block.attentions.0."),
    (r"^norm_out\.", "conv_norm_out."),
    (r"\.nin_shortcut\.", ".conv_shortcut."),
    (r"\.upsample\.conv\.", ".upsamplers.0.conv."),
    (r"\.block\.", ".resnets."),
    (r"\.attn\.", ".attentions."),
    (r"(\.attentions\.\d+)\.norm\.", r"\1.group_norm."),
    (r"(\.attentions\.\d+)\.([qkv])\.", r"\1.to_\2."),
    (r"(\.attentions\.\d+)\.proj_out\.", r"\1.to_out.0."),
)


def _renamed(key: str, rules: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in rules:
        key = re.sub(pattern, replacement, key)
    return key


def _changed(tensor: LazyTensor, shape: tuple[int, ...], change: Callable[[torch.Tensor], torch.Tensor]) -> LazyTensor:
    """Returns a tensor of `shape` to which `change` is applied when it is loaded."""
    return LazyTensor(shape, tensor.dtype, lambda: change(tensor.load()))


def convert_tower_tensors(
    folder: Path, weights: dict[str, LazyTensor], config: VilaUVisionConfig
) -> dict[str, LazyTensor]:
    """
    Renames and reshapes the weights of the folder `vision_tower`.

    Args:
        folder (`Path`): folder of the release, for error messages.
        weights (`dict[str, LazyTensor]`): the weights by their original names.
        config ([`VilaUVisionConfig`]): configuration of the tower.

    Returns:
        The weights by new names. These begin with `vision_tower/`, `depth_transformer/` or `contrastive/`, the layers
        that only stage 1 uses. Unknown weights keep their names.

    Raises:
        ValueError: if the codebooks do not fit the configuration, or copies of a tensor differ.
    """
    levels = len(config.block_out_channels)
    last = f"encoder.layers.{config.encoder_config.num_hidden_layers - 1}."
    found = _codebook(folder, weights, config)
    for name in ("logit_scale", "logit_bias"):
        keys = [key for key in (f"rqvaesiglip.{name}", f"rqvaesiglip.siglip_model.{name}") if key in weights]
        if keys:
            found[f"contrastive/{name}"] = _one_of(folder, weights, keys)
    for key, tensor in weights.items():
        module, _, name = key.partition(".")
        if module == "rqtransformer":
            if name == "pos_emb_d":
                tensor = _changed(tensor, tensor.shape[1:], lambda value: value[0])  # (1, D, W) -> (D, W)
            found[f"depth_transformer/{_renamed(name, _DEPTH_NAMES)}"] = tensor
        elif name.startswith("decoder."):
            name = _renamed(name.removeprefix("decoder."), _DECODER_NAMES)
            if name.startswith("up."):
                # the original counts levels from the largest feature map, diffusers from the smallest
                _, level, rest = name.split(".", 2)
                name = f"up_blocks.{levels - 1 - int(level)}.{rest}"
            if ".attentions." in name and len(tensor.shape) == 4:  # 1 x 1 convolutions are linear layers in diffusers
                tensor = _changed(tensor, tensor.shape[:2], lambda value: value[..., 0, 0])
            found[f"vision_tower/pixel_decoder.{name}"] = tensor
        elif name.startswith("post_quant_conv."):
            found[f"vision_tower/{name}"] = tensor
        elif name.startswith("siglip_model.text_model."):
            found[f"contrastive/{name.removeprefix('siglip_model.')}"] = tensor
        elif name.startswith("siglip_model.vision_model."):
            name = name.removeprefix("siglip_model.vision_model.")
            # The tower uses the output of the second-to-last layer. The last layer serves the contrastive loss only.
            if name.startswith(last):
                found[f"contrastive/image_pooler.layer.{name.removeprefix(last)}"] = tensor
            elif name.startswith(("head.", "post_layernorm.")):
                found[f"contrastive/image_pooler.{name}"] = tensor
            else:
                found[f"vision_tower/image_encoder.{name.removeprefix('encoder.')}"] = tensor
        elif not re.search(r"^quantizer\.codebooks\.\d+\.|^(siglip_model\.)?logit_(scale|bias)$", name):
            found[key] = tensor
    return _with_joined_attention(found)


def _with_joined_attention(weights: dict[str, LazyTensor]) -> dict[str, LazyTensor]:
    """Joins query, key and value of the depth transformer to one layer, where all three exist."""
    joined = dict(weights)
    for name in weights:
        if re.match(r"depth_transformer/.*\.self_attn\.query\.", name):
            names = [name.replace(".query.", f".{projection}.") for projection in ("query", "key", "value")]
            if all(each in weights for each in names):
                joined[name.replace(".query.", ".qkv.")] = _concatenated([joined.pop(each) for each in names])
    return joined


def _concatenated(tensors: list[LazyTensor], rows: int | None = None) -> LazyTensor:
    """Concatenates the first `rows` rows of each tensor (default: all rows)."""
    rows_of_each = [tensor.shape[0] if rows is None else rows for tensor in tensors]
    return LazyTensor(
        (sum(rows_of_each), *tensors[0].shape[1:]),
        tensors[0].dtype,
        lambda: torch.cat([tensor.load()[:rows] for tensor in tensors]),
    )


def _one_of(folder: Path, weights: dict[str, LazyTensor], keys: list[str]) -> LazyTensor:
    """Returns the tensor that is stored under each of `keys`; raises a `ValueError` if the copies differ."""
    first = weights[keys[0]]
    for key in keys[1:]:
        if weights[key].shape != first.shape or not torch.equal(weights[key].load(), first.load()):
            raise ValueError(f"{folder}/vision_tower: {keys[0]} and {key} must be equal, but they differ.")
    return first


def _codebook(folder: Path, weights: dict[str, LazyTensor], config: VilaUVisionConfig) -> dict[str, LazyTensor]:
    """Converts the codebook and its running averages, without the padding row at the end of the original codebook."""
    prefix = "rqvaesiglip.quantizer.codebooks"
    size = config.codebook_size
    dim = config.hidden_size
    books = sorted({int(key.split(".")[3]) for key in weights if re.match(rf"{re.escape(prefix)}\.\d+\.", key)})
    every = list(range(config.code_depth))
    # a shared codebook may be stored once, or once for each depth
    if books != every and not (config.shared_codebook and books == [0]):
        accepted = f"0 or 0 to {every[-1]}" if config.shared_codebook else f"0 to {every[-1]}"
        raise ValueError(f"{folder}/vision_tower has the codebooks {books}: expected {accepted}.")
    found = {
        "vision_tower/quantizer.initialized": LazyTensor((), torch.bool, lambda: torch.ones((), dtype=torch.bool))
    }
    for theirs, ours, shape in (
        ("weight", "codebook.weight", (size, dim)),
        ("cluster_size_ema", "cluster_size", (size,)),
        ("embed_ema", "cluster_sum", (size, dim)),
    ):
        keys = [f"{prefix}.{book}.{theirs}" for book in books]
        missing = [key for key in keys if key not in weights]
        if missing:
            raise ValueError(f"{folder}/vision_tower: the weights lack {first_five(missing)}.")
        for key in keys:
            rows, *rest = weights[key].shape
            if rows not in ((size, size + 1) if theirs == "weight" else (size,)) or tuple(rest) != shape[1:]:
                raise ValueError(f"{folder}/vision_tower: {key} must have shape {shape}, got {weights[key].shape}.")
        tensors = [_one_of(folder, weights, keys)] if config.shared_codebook else [weights[key] for key in keys]
        found[f"vision_tower/quantizer.{ours}"] = _concatenated(tensors, size)
    return found


def add_marker_rows(language: dict[str, LazyTensor], rows: int) -> dict[str, LazyTensor]:
    """
    Adds rows for the markers to token embedding and text head, if the release lacks them.

    Args:
        language (`dict[str, LazyTensor]`): weights of the language model, by names that begin with `llm/`.
        rows (`int`): rows of the vocabulary with all markers.
    """
    # the original gives a new token the mean of all rows
    grown = dict(language)
    for key in ("llm/model.embed_tokens.weight", "llm/lm_head.weight"):
        tensor = language.get(key)
        if tensor is not None and tensor.shape[0] < rows:
            grown[key] = _changed(
                tensor,
                (rows, *tensor.shape[1:]),
                lambda value: torch.cat(
                    [value, value.float().mean(0, keepdim=True).to(value.dtype).repeat(rows - len(value), 1)]
                ),
            )
    return grown


class WeightMapping:
    """
    Collects the tensors of one model under its parameter names, and checks that they fit.

    Args:
        folder (`Path`): folder of the release, for error messages.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.weights: dict[str, LazyTensor] = {}
        self.origin: dict[str, str] = {}  # parameter name -> name in the release
        self.taken: set[str] = set()  # names in the release that a pattern matched

    def add(self, weights: dict[str, LazyTensor], pattern: str, replacement: str, skip: bool = False) -> None:
        """
        Adds the weights whose names begin with a pattern.

        Args:
            weights (`dict[str, LazyTensor]`): weights by name.
            pattern (`str`): regular expression for the beginning of the name.
            replacement (`str`): text that replaces the match.
            skip (`bool`, *optional*, defaults to `False`): whether to mark the weights as known without adding them.
        """
        for key, tensor in weights.items():
            match = re.match(pattern, key)
            if match:
                self.taken.add(key)
                name = replacement + key[match.end() :]
                if not skip and not _COMPUTED.search(key):
                    self.weights[name] = tensor
                    self.origin[name] = key

    def check_and_cast(
        self, model: PreTrainedModel, dtype: torch.dtype | None, left_over: set[str]
    ) -> dict[str, LazyTensor]:
        """
        Checks names and shapes of the collected weights, and casts them.

        Args:
            model (`PreTrainedModel`): the model, possibly on the meta device.
            dtype (`torch.dtype`, *optional*): dtype of the weights (default: unchanged).
            left_over (`set[str]`): weights of the release that no model takes.

        Returns:
            The weights in the order of the files.

        Raises:
            ValueError: if a weight is unknown, missing or of another shape.
        """
        expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
        # tied weights are saved once
        for name in model.all_tied_weights_keys:
            expected.pop(name, None)
        unknown = [f"unknown {name}" for name in left_over if not _COMPUTED.search(name)]
        unknown += [f"unknown {self.origin[name]}" for name in set(self.weights) - set(expected)]
        missing = [f"missing {name}" for name in set(expected) - set(self.weights)]
        wrong = [
            f"{self.origin[name]} of shape {tensor.shape}, expected {expected[name]}"
            for name, tensor in self.weights.items()
            if name in expected and tensor.shape != expected[name]
        ]
        if unknown or missing or wrong:
            raise ValueError(
                f"the weights in {self.folder} do not fit its configuration: {first_five(unknown + missing + wrong)}."
            )
        return {name: _in_dtype(name, tensor, dtype) for name, tensor in self.weights.items()}


def _in_dtype(name: str, tensor: LazyTensor, dtype: torch.dtype | None) -> LazyTensor:
    """Casts a tensor to `dtype`, except where the codes depend on it."""
    # Rounding would change codes. So the codebook is float32, and the image encoder keeps the dtype of the release.
    if ".quantizer." in name:
        dtype = torch.float32
    elif ".image_encoder." in name:
        dtype = None
    if dtype is None or not tensor.dtype.is_floating_point or tensor.dtype == dtype:
        return tensor
    return LazyTensor(tensor.shape, dtype, lambda: tensor.load().to(dtype))
