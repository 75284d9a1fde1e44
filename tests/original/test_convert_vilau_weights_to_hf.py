"""Conversion of the original release: variants of its layout, damaged files, and failures that leave no files."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText, LlamaConfig, LlamaForCausalLM

from vilau_hf import (
    VilaUForConditionalGeneration,
    VilaUProcessor,
    VilaUVisionTower,
    VilaUVisionTowerForPreTraining,
    convert_original_checkpoint,
)
from vilau_hf.cli import main
from vilau_hf.original import convert_vilau_weights_to_hf as converter
from vilau_hf.original.release import _check_tokenizer_model

from ..golden import FOLDERS, ROOT, described, recording, release


BOOK = "rqvaesiglip.quantizer.codebooks"


@pytest.fixture
def source(tmp_path):
    """Returns a copy of the smaller recorded release, beside its SigLIP configuration, that a test may change."""
    shutil.copytree(ROOT / "tiny-256", tmp_path / "release")
    return tmp_path / "release" / "checkpoint"


def edit(path, **fields):
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def edit_weights(source, folder, change):
    path = source / folder / "model.safetensors"
    weights = load_file(path)
    change(weights)
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, path, metadata={"format": "pt"})


def split(source, folder, suffix, save):
    weights = load_file(source / folder / "model.safetensors")
    (source / folder / "model.safetensors").unlink()
    names = sorted(weights)
    stem = "model" if suffix == "safetensors" else "pytorch_model"
    weight_map = {}
    for number in (1, 2):
        file = f"{stem}-0000{number}-of-00002.{suffix}"
        shard = {name: weights[name] for name in names[number - 1 :: 2]}
        save(shard, source / folder / file)
        weight_map.update(dict.fromkeys(shard, file))
    index = {"metadata": {}, "weight_map": weight_map}
    (source / folder / f"{stem}.{suffix}.index.json").write_text(json.dumps(index))


def shard_everything(source):
    for folder in ("llm", "vision_tower", "mm_projector"):
        split(source, folder, "safetensors", save_file)


def shard_as_pickles(source):
    for folder in ("llm", "vision_tower"):
        split(source, folder, "bin", torch.save)


def pickle_whole(source):
    torch.save(load_file(source / "llm/model.safetensors"), source / "llm/pytorch_model.bin")
    (source / "llm/model.safetensors").unlink()


def store_every_alias(source):
    def change(weights):
        for name in ("weight", "cluster_size_ema", "embed_ema"):
            for book in (1, 2, 3):
                weights[f"{BOOK}.{book}.{name}"] = weights[f"{BOOK}.0.{name}"].clone()
        for name in ("logit_scale", "logit_bias"):
            weights[f"rqvaesiglip.siglip_model.{name}"] = weights[f"rqvaesiglip.{name}"].clone()

    edit_weights(source, "vision_tower", change)


def move_logits(source):
    def change(weights):
        for name in ("logit_scale", "logit_bias"):
            weights[f"rqvaesiglip.siglip_model.{name}"] = weights.pop(f"rqvaesiglip.{name}")

    edit_weights(source, "vision_tower", change)


def drop_padding_row(source):
    edit_weights(source, "vision_tower", lambda w: w.update({f"{BOOK}.0.weight": w[f"{BOOK}.0.weight"][:-1]}))


def drop_preprocessor(source):
    (source / "vision_tower/preprocessor_config.json").unlink()


def drop_markers(source):
    for name in ("added_tokens.json", "special_tokens_map.json"):
        (source / "llm" / name).unlink()
    path = source / "llm/tokenizer_config.json"
    decoder = json.loads(path.read_text())["added_tokens_decoder"]
    kept = {index: token for index, token in decoder.items() if int(index) < 3}
    edit(path, added_tokens_decoder=kept, additional_special_tokens=[])


def add_computed_buffers(source):
    edit_weights(source, "llm", lambda w: w.update({"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(12)}))
    name = "rqvaesiglip.siglip_model.vision_model.embeddings.position_ids"
    edit_weights(source, "vision_tower", lambda w: w.update({name: torch.arange(16)[None]}))


@pytest.mark.parametrize(
    "change",
    [
        shard_everything,
        shard_as_pickles,
        pickle_whole,
        store_every_alias,
        move_logits,
        drop_padding_row,
        drop_preprocessor,
        drop_markers,
        add_computed_buffers,
    ],
)
def test_variants_of_the_layout_give_the_same_checkpoint(source, tmp_path, change):
    model, processor = release("tiny-256")
    change(source)
    convert_original_checkpoint(source, tmp_path / "out", tower_out=tmp_path / "tower")
    converted = VilaUForConditionalGeneration.from_pretrained(tmp_path / "out")
    for (name, tensor), (other, expected) in zip(
        converted.state_dict().items(), model.state_dict().items(), strict=True
    ):
        assert name == other and torch.equal(tensor, expected), name
    assert converted.config.to_dict() == {**model.config.to_dict(), "_name_or_path": str(tmp_path / "out")}
    assert converted.generation_config == model.generation_config
    again = VilaUProcessor.from_pretrained(tmp_path / "out")
    assert again.to_dict() == processor.to_dict()
    for case in described("tiny-256", "tokenization")["raw"]:
        assert again.tokenizer(case["text"])["input_ids"] == case["ids"]
    weights = load_file(ROOT / "tiny-256/checkpoint/vision_tower/model.safetensors")
    tower = VilaUVisionTowerForPreTraining.from_pretrained(tmp_path / "tower")
    head = weights["rqvaesiglip.siglip_model.text_model.head.weight"]
    assert torch.equal(tower.text_model.head.weight, head)
    assert torch.equal(tower.logit_scale, weights["rqvaesiglip.logit_scale"])


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_converted_checkpoint_needs_no_sentencepiece_and_gives_the_recorded_codes(folder, tmp_path):
    convert_original_checkpoint(ROOT / folder / "checkpoint", tmp_path / "out", tower_out=tmp_path / "tower")
    script = """
import sys
sys.modules["sentencepiece"] = None
from transformers import AutoTokenizer
import vilau_hf
vilau_hf.VilaUProcessor.from_pretrained(sys.argv[1])
print(AutoTokenizer.from_pretrained(sys.argv[1])("a <im_start>")["input_ids"])
"""
    printed = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "out"], check=True, capture_output=True, text=True
    ).stdout
    expected = {case["text"]: case["ids"] for case in described(folder, "tokenization")["raw"]}
    assert json.loads(printed) == expected["a <im_start>"]
    images = recording(folder, "inputs")["images"]
    codes = recording(folder, "encode")["codes"].flatten(1, 2)
    with torch.no_grad():
        tower = VilaUVisionTowerForPreTraining.from_pretrained(tmp_path / "tower").eval()
        assert torch.equal(tower.vision_tower.encode(images).codes, codes.long())


def test_running_averages_of_the_codebook_are_converted(source):
    weights = load_file(source / "vision_tower/model.safetensors")
    quantizer = release("tiny-256")[0].model.vision_tower.quantizer
    assert torch.equal(quantizer.codebook.weight, weights[f"{BOOK}.0.weight"][:-1])
    assert torch.equal(quantizer.cluster_size, weights[f"{BOOK}.0.cluster_size_ema"])
    assert torch.equal(quantizer.cluster_sum, weights[f"{BOOK}.0.embed_ema"])
    assert bool(quantizer.initialized)


def language_model(source, **fields):
    """Returns the language model of `source`, loaded by transformers."""
    settings = json.loads((source / "llm/config.json").read_text())
    names = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    config = LlamaConfig(**{name: settings[name] for name in names}, rms_norm_eps=1e-5, **fields)
    model = LlamaForCausalLM(config)
    model.load_state_dict(load_file(source / "llm/model.safetensors"))
    return model.eval()


def share_key_heads(source):
    def change(weights):
        for name in list(weights):
            if "k_proj" in name or "v_proj" in name:
                weights[name] = weights[name][:48]

    edit_weights(source, "llm", change)
    edit(source / "llm/config.json", num_key_value_heads=2)
    return {"num_key_value_heads": 2}


def stretch_positions(source):
    edit(source / "llm/config.json", rope_scaling={"type": "linear", "factor": 2.0})
    rope = {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}
    return {"rope_parameters": rope, "max_position_embeddings": 4096}


@torch.no_grad()
@pytest.mark.parametrize("change", [share_key_heads, stretch_positions])
def test_other_language_models_give_the_logits_of_transformers(source, change):
    reference = language_model(source, **change(source))
    model = VilaUForConditionalGeneration.from_original(source).eval()
    assert model.config.text_config.max_position_embeddings == reference.config.max_position_embeddings
    ids = torch.randint(3, 400, (2, 17), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(model(ids).logits, reference(ids).logits)


@torch.no_grad()
def test_a_release_without_further_residual_blocks_converts(source):
    path = source / "vision_tower/config.json"
    tower = json.loads(path.read_text())["rqvaesiglip"]
    edit(path, rqvaesiglip={**tower, "ddconfig": {**tower["ddconfig"], "num_res_blocks": 0}})

    def change(weights):  # keeps only the first block of each level
        for name in [name for name in weights if re.search(r"decoder\.up\.\d\.(block|attn)\.1\.", name)]:
            del weights[name]

    edit_weights(source, "vision_tower", change)
    model = VilaUForConditionalGeneration.from_original(source)
    assert model.config.vision_config.layers_per_block == 0
    decoder = model.model.vision_tower.pixel_decoder
    assert [len(block.resnets) for block in decoder.up_blocks] == [1] * 5
    kept = load_file(source / "vision_tower/model.safetensors")
    (first,) = [tensor for name, tensor in kept.items() if name.endswith("decoder.up.0.block.0.conv1.weight")]
    assert torch.equal(decoder.up_blocks[4].resnets[0].conv1.weight, first)
    assert model.decode_image_tokens(torch.zeros(1, 4, 4, 4, dtype=torch.long)).isfinite().all()


def test_a_release_without_rows_for_the_markers_gets_them(source):
    drop_markers(source)

    def change(weights):
        for name in ("model.embed_tokens.weight", "lm_head.weight"):
            weights[name] = weights[name][:400]

    edit_weights(source, "llm", change)
    edit(source / "llm/config.json", vocab_size=400)
    model = VilaUForConditionalGeneration.from_original(source)
    rows = model.lm_head.weight
    assert rows.shape[0] == 404 and model.config.image_start_token_id == 400
    torch.testing.assert_close(rows[400:], rows[:400].mean(0).expand(4, -1))


def test_bfloat16_does_not_round_weights_that_determine_codes(tmp_path):
    convert_original_checkpoint(ROOT / "tiny-384/checkpoint", tmp_path / "out", dtype=torch.bfloat16)
    weights = load_file(tmp_path / "out/model.safetensors")
    original = release("tiny-384")[0].state_dict()
    for name, tensor in weights.items():
        exact = ".image_encoder." in name or ".quantizer." in name
        assert torch.equal(tensor, original[name] if exact else original[name].bfloat16()), name
    model = VilaUForConditionalGeneration.from_pretrained(tmp_path / "out")
    assert model.dtype == torch.bfloat16 and model.config.dtype == torch.bfloat16


def test_weights_are_written_in_shards_of_the_given_size(tmp_path):
    convert_original_checkpoint(ROOT / "tiny-256/checkpoint", tmp_path / "out", max_shard_size="1MB")
    files = sorted((tmp_path / "out").glob("*.safetensors"))
    assert len(files) > 2 and all(file.stat().st_size < 1.1e6 for file in files)
    model = VilaUForConditionalGeneration.from_pretrained(tmp_path / "out")
    for tensor, expected in zip(
        model.state_dict().values(), release("tiny-256")[0].state_dict().values(), strict=True
    ):
        assert torch.equal(tensor, expected)


class Harmful:
    def __reduce__(self):
        return os.mkdir, ("harmed",)


def differ(source):
    store_every_alias(source)
    edit_weights(source, "vision_tower", lambda w: w[f"{BOOK}.2.weight"].add_(1))


def truncate(source):
    path = source / "llm/model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def smuggle(source):
    torch.save({"lm_head.weight": Harmful()}, source / "llm/pytorch_model.bin")
    (source / "llm/model.safetensors").unlink()


def lose_shard(source):
    split(source, "llm", "safetensors", save_file)
    (source / "llm/model-00002-of-00002.safetensors").unlink()


def leave_folder(source):
    split(source, "llm", "safetensors", save_file)
    index = source / "llm/model.safetensors.index.json"
    index.write_text(index.read_text().replace("model-00002", "../model-00002"))


def with_weights(folder, change):
    return lambda source: edit_weights(source, folder, change)


def with_field(file, **fields):
    return lambda source: edit(source / file, **fields)


def cut(name, length):
    def change(source):
        (source / name).write_bytes((source / name).read_bytes()[:length])

    return change


def remove(name):
    def change(source):
        path = source / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return change


@pytest.mark.parametrize(
    "change, message",
    [
        (differ, r"codebooks\.0\.weight and .*codebooks\.2\.weight must be equal, but they differ"),
        (truncate, r"cannot read .*llm/model\.safetensors"),
        (smuggle, r"cannot read .*llm/pytorch_model\.bin"),
        (lose_shard, r"names the file model-00002-of-00002\.safetensors, which does not exist"),
        (leave_folder, r"'\.\./model-00002.*expected a file of the same folder"),
        (with_weights("llm", lambda w: w.pop("model.norm.weight")), r"missing model\.language_model\.norm\.weight"),
        (
            with_weights("llm", lambda w: [w.pop(name) for name in list(w) if "layers.1" in name]),
            r"(missing \S+, ){4}missing \S+ and 4 more",
        ),
        (
            with_weights("llm", lambda w: w.update({"lm_head.bias": torch.ones(404)})),
            r"unknown llm/lm_head\.bias",
        ),
        (
            with_weights("vision_tower", lambda w: w.update({"discriminator.weight": torch.ones(1)})),
            r"unknown discriminator\.weight",
        ),
        (
            with_weights("mm_projector", lambda w: w.update({"layers.2.bias": torch.ones(95)})),
            r"mm_projector/layers\.2\.bias of shape \(95,\), expected \(96,\)",
        ),
        (
            with_weights("vision_tower", lambda w: w.update({f"{BOOK}.0.weight": torch.ones(127, 64)})),
            r"codebooks\.0\.weight must have shape \(128, 64\), got \(127, 64\)",
        ),
        (
            with_weights("vision_tower", lambda w: w.pop(f"{BOOK}.0.embed_ema")),
            r"the weights lack .*codebooks\.0\.embed_ema",
        ),
        (
            with_weights("vision_tower", lambda w: w.update({f"{BOOK}.1.weight": torch.ones(129, 64)})),
            r"has the codebooks \[0, 1\]: expected 0 or 0 to 3",
        ),
        (with_field("llm/config.json", rope_scaling={"type": "dynamic", "factor": 2.0}), "must be of type 'linear'"),
        (with_field("llm/config.json", model_type="no-such-model"), r"llm/config\.json: .*no-such-model"),
        (with_field("mm_projector/config.json", mm_projector_type="linear"), "'mlp2x_gelu', got 'linear'"),
        (with_field("vision_tower/config.json", rqvaesiglip={}), r"has no `rqvaesiglip\.pretrained_model`"),
        (with_field("config.json", image_aspect_ratio="anyres"), "'resize' or 'pad', got 'anyres'"),
        (with_field("vision_tower/preprocessor_config.json", size={"height": 1, "width": 1}), "64 x 64"),
        (remove("../siglip-tiny-patch16-64"), "pass its config.json as `siglip_config`"),
        (remove("llm/tokenizer.model"), "has no tokenizer.model"),
        (cut("llm/tokenizer.model", 0), r"tokenizer\.model is empty or cut"),
        (cut("llm/tokenizer.model", 1000), r"tokenizer\.model is no sentencepiece model, or it is cut"),
        (remove("llm/model.safetensors"), r"llm has no weights: expected model\.safetensors"),
        (remove("mm_projector"), "is not an original VILA-U release: .* it lacks mm_projector"),
        (lambda source: (source / "config.json").write_text("{"), r"cannot read .*config\.json"),
    ],
)
def test_damaged_releases_are_rejected_and_leave_no_files(source, tmp_path, monkeypatch, change, message):
    monkeypatch.chdir(tmp_path)
    change(source)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ValueError, match=message):
        convert_original_checkpoint(source, tmp_path / "out")
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("package", ["sentencepiece", "google.protobuf"])
def test_a_missing_package_of_the_converter_is_named(source, tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    with pytest.raises(ImportError, match=rf"pip install 'vilau_hf\[convert\]' \({package} is not installed\)"):
        convert_original_checkpoint(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_rejects_a_tokenizer_model_that_is_cut_anywhere(source):
    path = source / "llm" / "tokenizer.model"
    content = path.read_bytes()
    _check_tokenizer_model(path)
    for length in {*range(0, len(content), 97), *range(len(content) - 40, len(content))}:
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"tokenizer\.model is"):
            _check_tokenizer_model(path)


@pytest.mark.parametrize("with_tower", [False, True])
def test_the_next_conversion_deletes_what_a_killed_one_left(source, tmp_path, with_tower):
    """The process is killed by `kill -9` within the writing of the weights."""
    script = (
        "import os, sys, signal; from vilau_hf.original import convert_vilau_weights_to_hf as converter\n"
        "converter.write_weights = lambda folder, *args: os.kill(os.getpid(), signal.SIGKILL)\n"
        "converter.convert_original_checkpoint(*sys.argv[1:])"
    )
    before = sorted(tmp_path.iterdir())
    (tmp_path / ".out-notes").mkdir()
    killed = subprocess.run([sys.executable, "-c", script, str(source), str(tmp_path / "out")])
    assert killed.returncode == -signal.SIGKILL
    assert len(list(tmp_path.glob(".vilau-*"))) == 2 and not (tmp_path / "out").exists()
    tower_out = tmp_path / "tower" if with_tower else None
    convert_original_checkpoint(source, tmp_path / "out", tower_out=tower_out)
    left = set(tmp_path.iterdir()) - set(before)
    assert left == {tmp_path / ".out-notes", tmp_path / "out", *([tower_out] if with_tower else [])}


def test_an_interrupted_conversion_leaves_no_files(source, tmp_path, monkeypatch):
    def interrupt(folder, *args):
        (folder / "model.safetensors").write_bytes(b"half")
        raise KeyboardInterrupt

    before = sorted(tmp_path.iterdir())
    monkeypatch.setattr(converter, "write_weights", interrupt)
    with pytest.raises(KeyboardInterrupt):
        convert_original_checkpoint(source, tmp_path / "out")
    assert sorted(tmp_path.iterdir()) == before


def test_rejects_outputs_in_use_and_unknown_sources(source, tmp_path):
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="`out` must be a new or an empty folder"):
        convert_original_checkpoint(source, tmp_path / "used")
    with pytest.raises(ValueError, match="`tower_out` must be a new or an empty folder"):
        convert_original_checkpoint(source, tmp_path / "out", tower_out=tmp_path / "used")
    with pytest.raises(ValueError, match="`tower_out` must differ from `out`"):
        convert_original_checkpoint(source, tmp_path / "out", tower_out=tmp_path / "out")
    with pytest.raises(ValueError, match="`source` must be a folder or the id of a Hub repository, got '/no/such"):
        convert_original_checkpoint("/no/such/folder", tmp_path / "out")


def test_siglip_sizes_are_read_from_a_given_file(source, tmp_path):
    shutil.move(source.parent / "siglip-tiny-patch16-64", tmp_path / "elsewhere")
    for given in (tmp_path / "elsewhere", tmp_path / "elsewhere" / "config.json"):
        assert (
            VilaUForConditionalGeneration.from_original(source, siglip_config=given).config.vision_config.grid_size
            == 4
        )


@pytest.mark.parametrize("load", [AutoConfig, AutoModel, AutoModelForImageTextToText, VilaUForConditionalGeneration])
def test_loading_the_original_layout_fails_and_names_the_converter(load):
    with pytest.raises(ValueError, match="vilau convert .*from_original"):
        load.from_pretrained(ROOT / "tiny-256/checkpoint")
    with pytest.raises(ValueError, match="vilau convert .*from_original"):
        VilaUVisionTower.from_pretrained(ROOT / "tiny-256/checkpoint/vision_tower")


def test_the_command_converts_and_prints_errors(source, tmp_path, capsys):
    main(
        ["convert", str(source), str(tmp_path / "out"), "--dtype", "bfloat16", "--tower-out", str(tmp_path / "tower")]
    )
    printed = capsys.readouterr().out
    assert str(tmp_path / "out") in printed and str(tmp_path / "tower") in printed
    assert (tmp_path / "out" / "model.safetensors").is_file() and (tmp_path / "tower" / "config.json").is_file()
    with pytest.raises(SystemExit) as stop:
        main(["convert", str(source), str(tmp_path / "out")])
    assert stop.value.code == 1 and "`out` must be" in capsys.readouterr().err


def test_the_model_card_is_filled_in_and_its_example_runs(source, tmp_path):
    convert_original_checkpoint(source, tmp_path / "out")
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert card.data.base_model == "mit-han-lab/vila-u-7b-256" and card.data.license == "other"
    assert "{{" not in card.text and "the numbers of the paper" in card.text and "MIT" in card.text
    (example,) = re.findall(r"```python\n(.*?)```", card.text, flags=re.DOTALL)
    subprocess.run([sys.executable, "-c", example], check=True)


@torch.no_grad()
def test_tied_heads_and_other_rope_bases_are_kept(source):
    edit_weights(source, "llm", lambda w: w.pop("lm_head.weight"))
    edit(source / "llm/config.json", tie_word_embeddings=True, rope_theta=500.0)
    model = VilaUForConditionalGeneration.from_original(source).eval()
    assert model.lm_head.weight is model.get_input_embeddings().weight
    config = LlamaConfig(
        **{**model.config.text_config.to_dict(), "tie_word_embeddings": True, "rope_parameters": None}
    )
    config.rope_parameters = {"rope_type": "default", "rope_theta": 500.0}
    reference = LlamaForCausalLM(config).eval()
    reference.load_state_dict(load_file(source / "llm/model.safetensors"), strict=False)
    ids = torch.randint(3, 400, (1, 60), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(model(ids).logits, reference(ids).logits)


def test_hub_ids_are_downloaded_and_uploaded(source, tmp_path, monkeypatch):
    calls = []

    def download(repo_id, allow_patterns):
        calls.append(repo_id)
        return str(source)

    class Api:
        def create_repo(self, repo_id, exist_ok):
            calls.append(("create", repo_id))

        def upload_folder(self, repo_id, folder_path):
            calls.append(("upload", repo_id, sorted(path.name for path in folder_path.iterdir())))

    monkeypatch.setattr("vilau_hf.original.release.snapshot_download", download)
    monkeypatch.setattr(converter, "HfApi", Api)
    convert_original_checkpoint("someone/vila-u", tmp_path / "out", push_to_hub="me/vila-u")
    assert calls[0] == "someone/vila-u" and calls[1] == ("create", "me/vila-u")
    assert calls[2] == ("upload", "me/vila-u", sorted(path.name for path in (tmp_path / "out").iterdir()))
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert card.data.base_model == "someone/vila-u" and 'from_pretrained("me/vila-u"' in card.text


def test_names_the_release_that_cannot_be_downloaded(tmp_path, monkeypatch):
    def fail(repo_id, allow_patterns):
        raise OSError("no connection")

    monkeypatch.setattr("vilau_hf.original.release.snapshot_download", fail)
    with pytest.raises(
        OSError, match="`source` 'someone/vila-u' is no folder and cannot be downloaded: no connection"
    ):
        convert_original_checkpoint("someone/vila-u", tmp_path / "out")
