import math
import subprocess
import sys

import pytest
import torch

from vilau_hf.evaluation.metrics import codebook_perplexity, codebook_usage, exact_match, psnr


def test_metrics_equal_their_definitions():
    a = torch.tensor([0.0, 1.0, 2.0])
    b = torch.tensor([0.0, 1.5, 1.0])
    assert psnr(a, b, data_range=2.0) == pytest.approx(10 * math.log10(4 / ((0.25 + 1) / 3)), abs=1e-4)
    codes = torch.tensor([[0, 1], [1, 3]])
    assert codebook_usage(codes, 8) == 3 / 8
    entropy = -(0.25 * math.log(0.25) * 2 + 0.5 * math.log(0.5))
    assert codebook_perplexity(codes, 8) == pytest.approx(math.exp(entropy), abs=1e-4)
    assert exact_match(["red ", "blue", "x"], ["red", "blue", "y"]) == 2 / 3


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: psnr(torch.zeros(2), torch.zeros(3), 1.0), r"the same shape, got \(2,\) and \(3,\)"),
        (lambda: exact_match(["a"], []), "the same length, got 1 and 0"),
        (lambda: exact_match([], []), "`references` must contain at least one text"),
        (lambda: codebook_usage(torch.tensor([9]), 8), "`codes` must contain integers from 0 to 7, got 9 to 9"),
        (
            lambda: codebook_perplexity(torch.tensor([-1]), 8),
            "`codes` must contain integers from 0 to 7, got -1 to -1",
        ),
    ],
)
def test_rejects_values_out_of_range(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_metrics_import_neither_training_nor_drawn_shapes():
    code = """
import sys
from vilau_hf.evaluation.metrics import psnr
heavy = ("vilau_hf.training", "vilau_hf.data", "vilau_hf.drawn")
assert not [name for name in sys.modules if name.startswith(heavy)], sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", code], check=True)
