"""Recorded outputs of the original code, and models of ours that hold its recorded weights."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file

from vilau_hf import VilaUDepthConfig, VilaUDepthTransformer, VilaUVisionConfig, VilaUVisionTower


FOLDERS = ("tiny-256", "tiny-384")
ROOT = Path(__file__).parent / "data" / "golden"


def recording(folder: str, name: str) -> dict[str, torch.Tensor]:
    """Tensors of one recorded file."""
    return load_file(ROOT / folder / f"{name}.safetensors")


def _weights(folder):
    config = json.loads((ROOT / folder / "checkpoint/vision_tower/config.json").read_text())
    return config, load_file(ROOT / folder / "checkpoint/vision_tower/model.safetensors")


def _load(model, state):
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected, unexpected
    assert [key for key in missing if "cluster_" not in key and "initialized" not in key] == []
    return model.eval()


def vision_tower(folder: str) -> VilaUVisionTower:
    """The recorded vision tower."""
    config, weights = _weights(folder)
    rq, decoder = config["rqvaesiglip"], config["rqvaesiglip"]["ddconfig"]
    siglip = json.loads((ROOT / folder / rq["pretrained_model"] / "config.json").read_text())["vision_config"]
    levels = len(decoder["ch_mult"])
    resolutions = [decoder["resolution"] // 2 ** (levels - 1 - level) for level in range(levels)]  # lowest first
    ours = VilaUVisionConfig(
        encoder_config=siglip,
        codebook_size=rq["n_embed"],
        code_depth=rq["code_shape"][-1],
        shared_codebook=rq["shared_codebook"],
        latent_channels=decoder["z_channels"],
        block_out_channels=[decoder["ch"] * factor for factor in decoder["ch_mult"]],
        up_block_types=[
            "AttnUpDecoderBlock2D" if side in decoder["attn_resolutions"] else "UpDecoderBlock2D"
            for side in resolutions
        ],
        layers_per_block=decoder["num_res_blocks"],
        decoder_latent_size=rq["decoder_latent_shape"][0] if rq["decoder_latent_shape"] else None,
    )
    state = {}
    books = 1 if rq["shared_codebook"] else ours.code_depth
    state["quantizer.codebook.weight"] = torch.cat(
        [weights[f"rqvaesiglip.quantizer.codebooks.{book}.weight"][: ours.codebook_size] for book in range(books)]
    )
    for key, value in weights.items():
        key = key.removeprefix("rqvaesiglip.")
        if key.startswith("siglip_model.vision_model."):
            key = key.removeprefix("siglip_model.vision_model.").replace("encoder.layers", "layers")
            last = f"layers.{ours.encoder_config.num_hidden_layers - 1}."
            if key.startswith(("embeddings.", "layers.")) and not key.startswith(last):
                state[f"encoder.{key}"] = value
        elif key.startswith("post_quant_conv."):
            state[key] = value
        elif key.startswith("decoder."):
            key = key.removeprefix("decoder.")
            for old, new in (
                ("mid.block_1", "mid_block.resnets.0"),
                ("mid.block_2", "mid_block.resnets.1"),
                ("mid.attn_1", "mid_block.attentions.0"),
                ("norm_out", "conv_norm_out"),
                ("nin_shortcut", "conv_shortcut"),
                ("upsample.conv", "upsamplers.0.conv"),
                (".block.", ".resnets."),
                (".attn.", ".attentions."),
            ):
                key = key.replace(old, new)
            if key.startswith("up."):
                _, level, rest = key.split(".", 2)
                key = f"up_blocks.{levels - 1 - int(level)}.{rest}"
            if "attentions" in key:
                for old, new in (
                    (".norm.", ".group_norm."),
                    (".q.", ".to_q."),
                    (".k.", ".to_k."),
                    (".v.", ".to_v."),
                    (".proj_out.", ".to_out.0."),
                ):
                    key = key.replace(old, new)
                value = value.squeeze(-1).squeeze(-1)
            state[f"pixel_decoder.{key}"] = value
    return _load(VilaUVisionTower(ours), state)


def depth_transformer(folder: str) -> VilaUDepthTransformer:
    """The recorded depth transformer."""
    config, weights = _weights(folder)
    rq = config["rqtransformer"]
    ours = VilaUDepthConfig(
        hidden_size=rq["embed_dim"],
        num_hidden_layers=rq["head"]["n_layer"],
        num_attention_heads=rq["head"]["block"]["n_head"],
        intermediate_size=4 * rq["embed_dim"],
        backbone_hidden_size=rq["input_embed_dim_2"],
        code_dim=rq["input_embed_dim_1"],
        codebook_size=rq["vocab_size"],
        code_depth=rq["block_size"][-1],
    )
    state = {}
    for key, value in weights.items():
        if not key.startswith("rqtransformer."):
            continue
        key = key.removeprefix("rqtransformer.")
        for old, new in (
            ("head_transformer.blocks", "layers"),
            (".attn.", ".self_attn."),
            (".ln1.", ".input_layernorm."),
            (".ln2.", ".post_attention_layernorm."),
            (".mlp.0.", ".fc1."),
            (".mlp.2.", ".fc2."),
            ("in_mlp_1", "in_proj_code"),
            ("in_mlp_2", "in_proj_hidden"),
            ("classifier_mlp.layer_norm", "norm"),
            ("classifier_mlp.linear", "code_head"),
            ("pos_emb_d", "depth_embedding.weight"),
        ):
            key = key.replace(old, new)
        state[key] = value[0] if key == "depth_embedding.weight" else value
    return _load(VilaUDepthTransformer(ours), state)
