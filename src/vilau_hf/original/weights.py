"""Names and formats of the original release's tensors, and whether they fit our models."""

import re
from pathlib import Path

import torch

from ..files import first_five
from ..modeling import VilaUVisionConfig
from .weight_files import LazyTensor


# buffers that older library versions saved and that are computed now
_COMPUTED = re.compile(r"(rotary_emb\.inv_freq|embeddings\.position_ids)$")

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


def _with(tensor: LazyTensor, shape: tuple[int, ...], change) -> LazyTensor:
    return LazyTensor(shape, tensor.dtype, lambda: change(tensor.load()))


def tower_tensors(folder: Path, weights: dict[str, LazyTensor], config: VilaUVisionConfig) -> dict[str, LazyTensor]:
    """Weights of the tower, the depth transformer and the contrastive half, under `<part>/<our name>`."""
    levels = len(config.block_out_channels)
    last = f"encoder.layers.{config.encoder_config.num_hidden_layers - 1}."
    found = _codebook(folder, weights, config)
    for name in ("logit_scale", "logit_bias"):
        keys = [key for key in (f"rqvaesiglip.{name}", f"rqvaesiglip.siglip_model.{name}") if key in weights]
        if keys:
            found[f"contrastive/{name}"] = _one_of(folder, weights, keys)
    for key, tensor in weights.items():
        part, _, name = key.partition(".")
        if part == "rqtransformer":
            if name == "pos_emb_d":
                tensor = _with(tensor, tensor.shape[1:], lambda value: value[0])  # (1, D, W)
            found[f"depth_transformer/{_renamed(name, _DEPTH_NAMES)}"] = tensor
        elif name.startswith("decoder."):
            name = _renamed(name.removeprefix("decoder."), _DECODER_NAMES)
            if name.startswith("up."):
                _, level, rest = name.split(".", 2)
                name = f"up_blocks.{levels - 1 - int(level)}.{rest}"
            if ".attentions." in name and len(tensor.shape) == 4:  # 1 x 1 convolutions are linear layers here
                tensor = _with(tensor, tensor.shape[:2], lambda value: value[..., 0, 0])
            found[f"vision_tower/pixel_decoder.{name}"] = tensor
        elif name.startswith("post_quant_conv."):
            found[f"vision_tower/{name}"] = tensor
        elif name.startswith("siglip_model.text_model."):
            found[f"contrastive/{name.removeprefix('siglip_model.')}"] = tensor
        elif name.startswith("siglip_model.vision_model."):
            name = name.removeprefix("siglip_model.vision_model.")
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
    """The depth transformer's query, key and value as one layer; what is not there in full stays as it is."""
    joined = dict(weights)
    for name in weights:
        if re.match(r"depth_transformer/.*\.self_attn\.query\.", name):
            names = [name.replace(".query.", f".{part}.") for part in ("query", "key", "value")]
            if all(each in weights for each in names):
                parts = [joined.pop(each) for each in names]
                joined[name.replace(".query.", ".qkv.")] = LazyTensor(
                    (sum(part.shape[0] for part in parts), *parts[0].shape[1:]),
                    parts[0].dtype,
                    lambda parts=parts: torch.cat([part.load() for part in parts]),
                )
    return joined


def _one_of(folder: Path, weights: dict[str, LazyTensor], keys: list[str]) -> LazyTensor:
    """The tensor that is stored under all of `keys`."""
    first = weights[keys[0]]
    for key in keys[1:]:
        if weights[key].shape != first.shape or not torch.equal(weights[key].load(), first.load()):
            raise ValueError(f"{folder}/vision_tower: {keys[0]} and {key} are copies of one tensor, but they differ.")
    return first


def _codebook(folder: Path, weights: dict[str, LazyTensor], config: VilaUVisionConfig) -> dict[str, LazyTensor]:
    """The codebook with its running averages; the original's has a padding row at the end, which is dropped."""
    prefix, size, dim = "rqvaesiglip.quantizer.codebooks", config.codebook_size, config.hidden_size
    books = sorted({int(key.split(".")[3]) for key in weights if re.match(rf"{re.escape(prefix)}\.\d+\.", key)})
    every = list(range(config.code_depth))
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
        if config.shared_codebook:
            parts = [_one_of(folder, weights, keys)]
        else:
            parts = [weights[key] for key in keys]
        found[f"vision_tower/quantizer.{ours}"] = LazyTensor(
            (len(parts) * size, *shape[1:]),
            parts[0].dtype,
            lambda parts=parts: torch.cat([part.load()[:size] for part in parts]),
        )
    return found


def with_enough_rows(language: dict[str, LazyTensor], rows: int) -> dict[str, LazyTensor]:
    """A release without its four markers gets rows for them: the mean of the others, as the original adds them."""
    grown = dict(language)
    for key in ("llm/model.embed_tokens.weight", "llm/lm_head.weight"):
        tensor = language.get(key)
        if tensor is not None and tensor.shape[0] < rows:
            grown[key] = _with(
                tensor,
                (rows, *tensor.shape[1:]),
                lambda value: torch.cat(
                    [value, value.float().mean(0, keepdim=True).to(value.dtype).repeat(rows - len(value), 1)]
                ),
            )
    return grown


class NamedWeights:
    """Collects the tensors of one of our models under our names, and checks that they fit it."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.weights: dict[str, LazyTensor] = {}
        self.origin: dict[str, str] = {}
        self.taken: set[str] = set()

    def add(self, weights: dict[str, LazyTensor], pattern: str, replacement: str, skip: bool = False):
        """Takes what begins with `pattern`, in the place of which comes `replacement`; with `skip` it is left out."""
        for key, tensor in weights.items():
            match = re.match(pattern, key)
            if match:
                self.taken.add(key)
                name = replacement + key[match.end() :]
                if not skip and not _COMPUTED.search(key):
                    self.weights[name], self.origin[name] = tensor, key

    def fit(self, model: torch.nn.Module, dtype: torch.dtype | None, left_over: set[str]) -> dict[str, LazyTensor]:
        """The tensors in the order of the files, with the dtypes they are to have."""
        expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
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
                f"the weights in {self.folder} are not those that its configuration describes: "
                f"{first_five(unknown + missing + wrong)}."
            )
        return {name: _in_dtype(name, tensor, dtype) for name, tensor in self.weights.items()}


def _in_dtype(name: str, tensor: LazyTensor, dtype: torch.dtype | None) -> LazyTensor:
    """The tensor in `dtype`; what the codes hang on is in float32, or as it is if that is less."""
    if ".quantizer." in name:
        dtype = torch.float32
    elif ".image_encoder." in name:
        dtype = None
    if dtype is None or not tensor.dtype.is_floating_point or tensor.dtype == dtype:
        return tensor
    return LazyTensor(tensor.shape, dtype, lambda: tensor.load().to(dtype))
