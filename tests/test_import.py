"""Late imports of the package and registration with the Auto classes (`registration.py`)."""

import ast
import inspect
import multiprocessing
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

import vilau_hf
from vilau_hf import TINY_CHECKPOINT, VilaUConfig, VilaUForConditionalGeneration, VilaUProcessor
from vilau_hf.original.convert_vilau_weights_to_hf import load_original_model, load_original_processor


ORDERS = [
    "import vilau_hf, transformers",
    "import transformers, diffusers, vilau_hf",
    pytest.param("import diffusers, vilau_hf", marks=pytest.mark.slow),
    pytest.param("import vilau_hf, diffusers", marks=pytest.mark.slow),
    # modules that import transformers or diffusers while they are imported themselves
    pytest.param("import vilau_hf; from diffusers import AutoencoderKL", marks=pytest.mark.slow),
    pytest.param("import vilau_hf, peft", marks=pytest.mark.slow),
    pytest.param("import vilau_hf.modeling.modeling_vilau", marks=pytest.mark.slow),
    pytest.param("import vilau_hf.processing", marks=pytest.mark.slow),
    pytest.param("import vilau_hf.pipelines.pipeline_vilau", marks=pytest.mark.slow),
    pytest.param("import vilau_hf.original.weight_files", marks=pytest.mark.slow),
    pytest.param("from vilau_hf.data import write_records", marks=pytest.mark.slow),
    pytest.param("from diffusers import AutoPipelineForText2Image; import vilau_hf", marks=pytest.mark.slow),
]

USE_AUTO_CLASSES = """
import diffusers
from diffusers import AutoPipelineForText2Image, DiffusionPipeline
from transformers import AutoConfig, AutoModel, AutoModelForMultimodalLM, AutoProcessor, pipeline

from vilau_hf import TINY_CHECKPOINT, VilaUConfig, VilaUForConditionalGeneration, VilaUPipeline, VilaUProcessor
from vilau_hf import VilaUTextToImagePipeline

model = AutoModel.from_pretrained(TINY_CHECKPOINT)
assert type(model) is type(AutoModelForMultimodalLM.from_pretrained(TINY_CHECKPOINT)) is VilaUForConditionalGeneration
assert type(AutoConfig.from_pretrained(TINY_CHECKPOINT)) is VilaUConfig
assert type(AutoProcessor.from_pretrained(TINY_CHECKPOINT)) is VilaUProcessor
assert type(pipeline("text-to-image")) is VilaUTextToImagePipeline
assert type(DiffusionPipeline.from_pretrained(TINY_CHECKPOINT)) is VilaUPipeline
assert type(AutoPipelineForText2Image.from_pretrained(TINY_CHECKPOINT)) is VilaUPipeline
"""

IMPORT_NOTHING = """
import importlib.util, sys
import vilau_hf
from vilau_hf import TINY_CHECKPOINT, __version__, cli

assert set(vilau_hf.__all__) < set(dir(vilau_hf))
assert not hasattr(vilau_hf, "VilaUNothing")
assert importlib.util.find_spec("transformers") and importlib.util.find_spec("diffusers")
print(*{"torch", "transformers", "diffusers", "numpy"} & set(sys.modules))
"""


def test_import_of_the_package_imports_no_library():
    run = subprocess.run([sys.executable, "-c", IMPORT_NOTHING], capture_output=True, text=True)
    assert run.returncode == 0 and run.stdout.split() == [], run.stderr


@pytest.mark.parametrize("imports", ORDERS)
def test_auto_classes_know_the_package_in_every_order_of_imports(imports):
    run = subprocess.run([sys.executable, "-c", f"{imports}\n{USE_AUTO_CLASSES}"], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


@pytest.mark.slow
def test_unpickling_in_a_new_process_registers_the_auto_classes():
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        config = pool.apply(_through_auto_config, (VilaUConfig(),))
    assert type(config) is VilaUConfig


def _through_auto_config(config):
    from transformers import AutoConfig

    return AutoConfig.for_model(config.model_type)


def test_every_public_name_can_be_imported():
    assert len(set(vilau_hf.__all__)) == len(vilau_hf.__all__)
    names = {}
    exec("from vilau_hf import *", names)
    assert set(names) - {"__builtins__"} == set(vilau_hf.__all__)
    for package in (vilau_hf.modeling, vilau_hf.processing, vilau_hf.pipelines):
        assert all(names[name] is getattr(package, name) for name in package.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'VilaUNothing'"):
        vilau_hf.VilaUNothing  # noqa: B018


def test_type_checkers_see_the_names_that_are_imported_late():
    tree = ast.parse(Path(vilau_hf.__file__).read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = [alias.name for node in block.body for alias in node.names]
    assert sorted(seen) == sorted(set(vilau_hf.__all__) - {"__version__", "TINY_CHECKPOINT"})


def test_pickles_classes_by_the_modules_that_define_them():
    for name in vilau_hf.__all__:
        value = getattr(vilau_hf, name)
        if inspect.isclass(value):
            assert pickle.loads(pickle.dumps(value)) is value
    config = pickle.loads(pickle.dumps(VilaUConfig.from_pretrained(TINY_CHECKPOINT)))
    assert config.to_dict() == VilaUConfig.from_pretrained(TINY_CHECKPOINT).to_dict()


def test_from_original_is_a_class_method_of_the_converter():
    for cls, function in (
        (VilaUForConditionalGeneration, load_original_model),
        (VilaUProcessor, load_original_processor),
    ):
        method = cls.from_original
        assert method.__func__ is function and method.__self__ is cls
        assert list(inspect.signature(method).parameters) == list(inspect.signature(function).parameters)[1:]


def test_help_shows_the_public_names():
    run = subprocess.run([sys.executable, "-c", "import vilau_hf; help(vilau_hf)"], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    for name in ("VilaUForConditionalGeneration", "convert_original_checkpoint", "TINY_CHECKPOINT"):
        assert name in run.stdout


LOAD_CONFIG = """
from transformers import AutoConfig
from vilau_hf import TINY_CHECKPOINT, VilaUConfig
assert type(AutoConfig.from_pretrained(TINY_CHECKPOINT)) is VilaUConfig
"""

RELOAD = "import importlib, vilau_hf; importlib.reload(vilau_hf)"

INTERRUPT = """
import vilau_hf.registration as registration
register = registration._register_tasks

def interrupt():
    raise KeyboardInterrupt

registration._register_tasks = interrupt
try:
    import transformers
except KeyboardInterrupt:
    print("interrupted")
registration._register_tasks = register
"""

FOREIGN_FINDER = """
import importlib.util, sys

class Asking:
    asks = False

    def find_spec(self, name, path=None, target=None):
        if self.asks or name != "transformers":
            return None
        self.asks = True
        try:
            return importlib.util.find_spec(name)
        finally:
            self.asks = False

sys.meta_path.insert(0, Asking())
import vilau_hf
sys.meta_path.insert(1, Asking())
"""


@pytest.mark.parametrize("before", [RELOAD, INTERRUPT, FOREIGN_FINDER], ids=["reload", "interrupt", "foreign finder"])
def test_registers_classes_after_a_reload_an_interrupt_and_with_other_finders(before):
    run = subprocess.run([sys.executable, "-c", before + LOAD_CONFIG], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert ("interrupted" in run.stdout) == (before is INTERRUPT)
