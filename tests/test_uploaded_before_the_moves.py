"""
An upload with code that was made before files of the islands got their present names still works.

`fixtures/uploaded_before_the_moves/repository` is what `write_repository(..., with_code=True)` made of a random model
of the sizes in `conftest.py`. It is never made anew: it stands for repositories on the Hub, which nobody updates.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import torch
from transformers import AutoModel, AutoProcessor

import vilau_hf


FOLDER = Path(__file__).parent / "fixtures" / "uploaded_before_the_moves"
EXPECTED = json.loads((FOLDER / "expected.json").read_text())
WITH_ITS_OWN_CODE = """
import json
import sys
from transformers import AutoModel, AutoProcessor

folder, prompt, seed = sys.argv[1:]
model = AutoModel.from_pretrained(folder, trust_remote_code=True).eval()
processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
inputs = processor.apply_chat_template(
    [{"role": "user", "content": prompt}],
    add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt",
)
codes = model.generate(**inputs, generation_mode="image", seed=int(seed))
assert "vilau_hf" not in sys.modules
print(json.dumps(codes.tolist()))
"""


def test_it_draws_the_same_image_with_its_own_code(tmp_path):
    arguments = [FOLDER / "repository", EXPECTED["prompt"], str(EXPECTED["seed"])]
    result = subprocess.run(
        [sys.executable, "-c", WITH_ITS_OWN_CODE, *arguments],
        cwd=tmp_path,
        env={**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert json.loads(result.stdout.splitlines()[-1]) == EXPECTED["codes"]


def test_it_draws_the_same_image_with_the_code_of_this_package():
    model = AutoModel.from_pretrained(FOLDER / "repository", trust_remote_code=False).eval()
    assert type(model) is vilau_hf.VilaUForConditionalGeneration
    processor = AutoProcessor.from_pretrained(FOLDER / "repository", trust_remote_code=False)
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": EXPECTED["prompt"]}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    codes = model.generate(**inputs, generation_mode="image", seed=EXPECTED["seed"])
    assert torch.equal(codes, torch.tensor(EXPECTED["codes"]))
