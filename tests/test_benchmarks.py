"""The original algorithm of the benchmarks compared with `generate`, and the GPU benchmarks at small sizes."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch


BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def baseline(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import baseline

    return baseline


def test_original_algorithm_gives_the_codes_of_generate(model, baseline):
    prompts = torch.randint(3, 50, (2, 7))
    negative = torch.randint(3, 50, (1, 4))
    expected = model.generate(
        prompts, negative_prompt_ids=negative, generation_mode="image", guidance_scale=3.0, do_sample=False
    )
    start = model.config.image_start_token_id
    opened = [torch.nn.functional.pad(ids, (0, 1), value=start) for ids in (prompts, negative)]
    negative = torch.nn.functional.pad(opened[1], (3, 0)).expand(2, -1)
    both = torch.cat([opened[0], negative])
    codes = baseline.draw(model, both, (both != 0).long(), 16, 3.0, pick=lambda logits: logits.argmax(-1))
    assert torch.equal(codes, expected.flatten(1, 2))


def test_original_sampler_applies_top_k_and_then_top_p(baseline):
    probabilities = torch.tensor([0.4, 0.3, 0.2, 0.1])
    torch.manual_seed(0)
    drawn = baseline.sample(probabilities.log().expand(4000, -1), top_k=3, top_p=0.7)
    # top-k leaves 4/9, 3/9 and 2/9, of which the first two reach 0.7
    shares = torch.bincount(drawn, minlength=4) / 4000
    torch.testing.assert_close(shares, torch.tensor([4 / 7, 3 / 7, 0, 0]), atol=0.03, rtol=0)


@pytest.mark.parametrize(("depth", "most"), [(4, 360), (16, 1464)])
def test_a_position_needs_few_operations_and_no_host_read(monkeypatch, depth, most):
    """Uses a small decoder, because the number of operations does not depend on the width."""
    import bench_depth

    for name, size in (("WIDTH", 128), ("HIDDEN", 64), ("CODE_DIM", 32), ("CODES", 1200)):
        monkeypatch.setattr(bench_depth, name, size)
    decoder = bench_depth.build(depth)[2]
    hidden = torch.randn(2, 64)
    decoder.decode(hidden, 0)  # the first position creates masks, which are kept
    with torch.no_grad(), bench_depth.CountOperations() as counter:
        decoder.decode(hidden, 0)
    assert counter.count <= most and counter.reads == 0


@pytest.fixture
def short(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import short

    return short


def test_every_figure_is_in_the_committed_results(short):
    import figures

    for name in {figure.benchmark for figure in figures.FIGURES}:
        line = json.loads((BENCHMARKS / "results" / f"{name}.json").read_text())
        assert len(figures.figures_of(line)) == sum(figure.benchmark == name for figure in figures.FIGURES)


def test_page_on_speed_has_the_committed_figures(short):
    import figures

    assert figures.PAGE.read_text() == figures.page_with_table()


def test_comparison_names_figures_that_are_worse_than_the_committed_ones(short, tmp_path, capsys):
    line = json.loads((BENCHMARKS / "results" / "depth.json").read_text())
    first = line["results"][0]
    first["over_products"] *= 1.3  # less is better
    first["times_original"] *= 1.3  # more is better
    line["results"][1]["times_original"] *= 0.9
    line["results"][2]["times_original"] *= 0.7
    (tmp_path / "depth.json").write_text(json.dumps(line))
    assert short.compare(tmp_path, 1.15) == 2
    worse = [printed.split("  ")[0] for printed in capsys.readouterr().out.splitlines() if "WORSE" in printed]
    assert worse == ["C1 D 4, 2 rows", "C2 D 16, 2 rows"]


@pytest.mark.slow
def test_gpu_benchmark_fails_without_a_gpu():
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    run = subprocess.run([sys.executable, BENCHMARKS / "gpu.py"], capture_output=True, text=True)
    assert run.returncode == 1 and "needs a CUDA device" in run.stderr


@pytest.mark.slow
def test_gpu_benchmark_measures_all_metrics_at_small_sizes(tmp_path):
    out = tmp_path / "gpu.json"
    run = subprocess.run(
        [sys.executable, BENCHMARKS / "gpu.py", "--tiny", "--out", out], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout + run.stderr
    found = json.loads(out.read_text())
    assert found["failed"] == found["left_out"] == []
    measured = {(row["metric"], row["model"]) for row in found["rows"]}
    assert measured >= {(metric, model) for metric in ("G1", "G2", "G3", "G4", "G6", "G7") for model in ("256", "384")}
    assert ("G5", "256") in measured
    assert measured >= {(f"G11 {width}", model) for width in (1, 4, 8, 16, 32) for model in ("256", "384")}
    parallel = [row["note"] for row in found["rows"] if row["metric"] == "parallel"]
    assert [note.split(";")[0] for note in parallel] == ["not compiled", "compiled"] * 2
    assert all(row["value"] > 0 for row in found["rows"] if row["metric"] != "sync")
    assert set(found["profiles"]["384"]) == {"not compiled", "compiled"}


@pytest.mark.slow
def test_parallel_benchmark_finds_equal_codes(tmp_path):
    command = [sys.executable, BENCHMARKS / "bench_parallel.py", "--quick", "--out", tmp_path]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert json.loads((tmp_path / "parallel.json").read_text())["different_float32"] == 0
    assert re.search(r"C3 shipped model in parallel +[0-9.]+ +goal ≥ 2 ", run.stdout)


@pytest.mark.slow
def test_training_benchmark_compares_a_step_with_its_products(tmp_path):
    command = [sys.executable, BENCHMARKS / "bench_training.py", "--tiny", "--out", tmp_path]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    rows = json.loads((tmp_path / "training.json").read_text())["results"]
    for row in rows:
        assert row["step_ms"] >= row["products_ms"] and sum(row["shares"].values()) == pytest.approx(1, abs=0.01)


@pytest.mark.slow
def test_training_benchmark_measures_full_training_and_adapters(tmp_path):
    out = tmp_path / "gpu_training.json"
    command = [sys.executable, BENCHMARKS / "gpu_training.py", "--tiny", "--out", out]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    rows = [row for row in json.loads(out.read_text())["rows"] if row["metric"] == "G8"]
    assert [(row["model"], row["kind"]) for row in rows] == [
        (model, kind) for model in ("256", "384") for kind in ("full", "LoRA")
    ]
    assert all(row["positions_per_s"] > 0 for row in rows)
