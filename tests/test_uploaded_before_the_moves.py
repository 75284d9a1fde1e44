"""
Tests an upload with code that was made before files of the islands were renamed.

`write_repository(..., with_code=True)` saved `fixtures/uploaded_before_the_moves/repository` for a random model with
the sizes in `conftest.py`. It must never be saved again: it represents repositories on the Hub, which nobody updates.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoModel, AutoProcessor

import vilau_hf


FOLDER = Path(__file__).parent / "fixtures" / "uploaded_before_the_moves"
EXPECTED = json.loads((FOLDER / "expected.json").read_text())
WITH_UPLOADED_CODE = """
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
sampled = model.generate(**inputs, generation_mode="image", seed=int(seed))
greedy = model.generate(**inputs, generation_mode="image", do_sample=False)
assert "vilau_hf" not in sys.modules
print(json.dumps([sampled.tolist(), greedy.tolist()]))
"""


@pytest.fixture(scope="module")
def codes_of_upload(tmp_path_factory):
    """Returns sampled and greedy codes that the uploaded code generates."""
    tmp_path = tmp_path_factory.mktemp("upload")
    arguments = [FOLDER / "repository", EXPECTED["prompt"], str(EXPECTED["seed"])]
    result = subprocess.run(
        [sys.executable, "-c", WITH_UPLOADED_CODE, *arguments],
        cwd=tmp_path,
        env={**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return json.loads(result.stdout.splitlines()[-1])


def test_upload_generates_the_same_image_with_the_uploaded_code(codes_of_upload):
    assert codes_of_upload[0] == EXPECTED["codes"]


def test_upload_generates_the_same_image_with_the_code_of_this_package(codes_of_upload):
    # without sampling: a seed gives other codes since each code has its random number
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
    codes = model.generate(**inputs, generation_mode="image", do_sample=False)
    assert codes.tolist() == codes_of_upload[1]
