"""
Checks that private methods that we override and private names that we import still exist in the libraries.

Also that the libraries still call these methods with the arguments that we expect. These tests run first
(`conftest.py`), so they are the first to fail on a new version of a library.

To override another method, add a row to `HOOKS`. To replace a private attribute of a class, add it to `ATTRIBUTES`.
"""

import ast
import importlib
import importlib.util
import inspect
import pkgutil
from dataclasses import dataclass
from functools import cache

import accelerate
import diffusers
import peft
import pytest
import transformers

import vilau_hf

from .compat_files import COMPAT_FILES, PACKAGE, missing_names


LIBRARIES = {library.__name__: library for library in (accelerate, diffusers, peft, transformers)}


@dataclass(frozen=True)
class Hook:
    """
    A private method of a library that we override.

    Args:
        ours (`str`): our class.
        base (`str`): the class of the library.
        name (`str`): the method.
        arguments (`str`): arguments of the calls, separated by spaces; `name=` for arguments by keyword.
        caller (`str`, *optional*): module of the library that calls the method, by default the one that defines it.
    """

    ours: str
    base: str
    name: str
    arguments: str = ""
    caller: str | None = None

    def __str__(self):
        return f"{self.ours.split('.')[-1]}.{self.name}"


CHECKPOINTS = "vilau_hf.training.checkpointing.AtomicCheckpointTrainer"
HOOKS = [
    Hook(CHECKPOINTS, "transformers.Trainer", "_get_output_dir", "trial"),
    Hook(CHECKPOINTS, "transformers.Trainer", "_save_checkpoint", "model trial"),
    Hook(CHECKPOINTS, "transformers.Trainer", "_push_from_checkpoint", "checkpoint_folder"),
    Hook(CHECKPOINTS, "transformers.Trainer", "_issue_warnings_after_load", "load_result"),
    Hook(CHECKPOINTS, "transformers.Trainer", "_finalize_training", "trial num_train_samples start_time"),
    Hook("vilau_hf.training.VilaUBaseTrainer", "transformers.Trainer", "_get_train_sampler", "train_dataset"),
    Hook("vilau_hf.training.VisionTowerTrainer", "transformers.Trainer", "_clip_grad_norm", "model"),
]
HOOKS += [
    Hook(f"vilau_hf.modeling.modeling_vision_tower.{name}", "transformers.PreTrainedModel", "_init_weights", "module")
    for name in ("VilaUVisionPreTrainedModel", "VilaUVisionTowerForPreTraining")
]
# settings that the library passes to an image processor, all by keyword
IMAGE_SETTINGS = (
    "do_resize= size= resample= do_center_crop= crop_size= do_rescale= rescale_factor= do_normalize= image_mean= "
    "image_std= do_pad= pad_size= return_tensors="
)
HOOKS += [
    Hook(
        "vilau_hf.processing.image_functions_vilau.FastPreprocessing",
        f"transformers.image_processing_backends.{base}",
        "_preprocess",
        f"images {IMAGE_SETTINGS} {more}",
        caller="transformers.image_processing_utils",
    )
    for base, more in (("PilBackend", ""), ("TorchvisionBackend", "disable_grouping="))
]
# methods of a pipeline that the library documents for overriding (add_new_pipeline)
PIPELINE = "vilau_hf.pipelines.pipeline_text_to_image.VilaUTextToImagePipeline"
HOOKS += [
    Hook(PIPELINE, "transformers.Pipeline", "_sanitize_parameters"),
    Hook(PIPELINE, "transformers.Pipeline", "_forward", "input_tensors"),
]

# private attributes that we replace: our class, the class of the library, names separated by spaces
MODEL = "transformers.PreTrainedModel"
SUPPORTS = "_supports_sdpa _supports_flash_attn _supports_flex_attn _supports_attention_backend"
ATTRIBUTES: list[tuple[str, str, str]] = [
    (
        "vilau_hf.modeling.modeling_vilau.VilaUPreTrainedModel",
        MODEL,
        f"{SUPPORTS} _can_compile_fullgraph _keep_in_fp32_modules_strict _no_split_modules "
        "_skip_keys_device_placement",
    ),
    ("vilau_hf.VilaUForConditionalGeneration", MODEL, "_fsdp_plan _pp_plan _tp_plan _tied_weights_keys"),
    (
        "vilau_hf.modeling.modeling_vision_tower.VilaUVisionPreTrainedModel",
        MODEL,
        f"{SUPPORTS} _can_record_outputs _keep_in_fp32_modules_strict _no_split_modules",
    ),
    ("vilau_hf.VilaUDepthTransformer", MODEL, f"{SUPPORTS} _no_split_modules"),
    (
        PIPELINE,
        "transformers.Pipeline",
        "_load_processor _load_tokenizer _load_image_processor _load_feature_extractor _pipeline_calls_generate",
    ),
]


def find(path: str):
    module, name = path.rsplit(".", 1)
    return getattr(importlib.import_module(module), name)


def what_to_do(hook_or_class, base: str, problem: str) -> str:
    library = LIBRARIES[base.split(".")[0]]
    return (
        f"{hook_or_class}: {problem} ({library.__name__} {library.__version__}). The comment at our method names the "
        "newest version that was read. Compare its source with the installed one, adapt our method, and add the "
        "version to the comment. Only then widen the range of tested versions."
    )


@cache
def tree_of(module: str) -> ast.Module:
    return ast.parse(inspect.getsource(importlib.import_module(module)))


def bind(owner: type, name: str, positional: int, keywords: list[str]):
    """Raises a `TypeError` if the method does not accept these arguments."""
    is_bound = isinstance(inspect.getattr_static(owner, name), (classmethod, staticmethod))
    values = [None] * (positional + (not is_bound))
    inspect.signature(getattr(owner, name)).bind(*values, **dict.fromkeys(keywords))


def test_missing_names_are_found(tmp_path):
    assert missing_names() == []
    for file in COMPAT_FILES:
        (tmp_path / file).parent.mkdir()
        text = (PACKAGE / file).read_text()
        (tmp_path / file).write_text(text.replace("import SubConfigSpec", "import SubConfigSpecification"))
    expected = "modeling/compat_modeling_vilau.py: `transformers.configuration_utils.SubConfigSpecification`"
    assert missing_names(tmp_path) == [expected]


@pytest.mark.parametrize("hook", HOOKS, ids=str)
def test_the_library_still_has_and_calls_the_methods_that_we_override(hook):
    base, ours = find(hook.base), find(hook.ours)
    assert hook.name in vars(ours), f"{hook}: not overridden any more, drop its row."
    assert hasattr(base, hook.name), what_to_do(hook, hook.base, f"`{hook.base}.{hook.name}` is gone")
    definer = next(each for each in base.__mro__ if hook.name in vars(each))
    words = hook.arguments.split()
    positional = [word for word in words if not word.endswith("=")]
    keywords = [word.rstrip("=") for word in words if word.endswith("=")]
    parameters = list(inspect.signature(inspect.getattr_static(base, hook.name)).parameters)
    named = [name for name in parameters if name not in ("self", "cls")][: len(positional)]
    changed = f"its arguments are {', '.join(parameters)}, we know {', '.join(words)}"
    assert named == positional, what_to_do(hook, hook.base, changed)
    for owner in (base, ours):
        try:
            bind(owner, hook.name, len(positional), keywords)
        except TypeError as error:
            pytest.fail(what_to_do(hook, hook.base, f"{owner.__name__}: {error}; {changed}"))
    uses = [
        node
        for node in ast.walk(tree_of(hook.caller or definer.__module__))
        if isinstance(node, ast.Attribute) and node.attr == hook.name
    ]
    assert uses, what_to_do(hook, hook.base, "the library no longer calls it")


@pytest.mark.parametrize("hook", HOOKS, ids=str)
def test_every_call_in_the_library_fits_our_method(hook):
    base = find(hook.base)
    ours = find(hook.ours)
    definer = next(each for each in base.__mro__ if hook.name in vars(each))
    for node in ast.walk(tree_of(hook.caller or definer.__module__)):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == hook.name):
            continue
        keywords = [keyword.arg for keyword in node.keywords]
        if None in keywords or any(isinstance(value, ast.Starred) for value in node.args):
            continue  # the source does not show the arguments
        try:
            bind(ours, hook.name, len(node.args), keywords)
        except TypeError as error:
            pytest.fail(what_to_do(hook, hook.base, f"line {node.lineno}, `{ast.unparse(node)}`: {error}"))


def our_classes():
    for module in pkgutil.walk_packages(vilau_hf.__path__, "vilau_hf."):
        # scripts of `evaluate` are loaded from their folders
        if module.name.startswith("vilau_hf.evaluate_metrics"):
            continue
        # lmms-eval does not accept the versions of this environment (`make test-lmms`)
        if module.name == "vilau_hf.integrations.lmms_eval" and importlib.util.find_spec("lmms_eval") is None:
            continue
        for _, value in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            if value.__module__ == module.name:
                yield value


def private_overrides(derived: type):
    """Yields our classes among the bases of `derived`, the private names that they replace, and the replaced class."""
    for position, ours in enumerate(derived.__mro__):
        if not ours.__module__.startswith("vilau_hf."):
            continue
        bases = [each for each in derived.__mro__[position + 1 :] if each.__module__.split(".")[0] in LIBRARIES]
        for name in vars(ours):
            if not name.startswith("_") or name.startswith("__") or name == "_abc_impl":  # every ABC has it
                continue
            base = next((each for each in bases if name in vars(each)), None)
            if base is not None:
                yield ours, name, base


def test_every_override_of_a_private_name_has_a_row():
    rows = {(find(hook.ours), hook.name) for hook in HOOKS}
    rows |= {(find(ours), name) for ours, _, names in ATTRIBUTES for name in names.split()}
    missing = {
        f"{ours.__module__}.{ours.__name__}.{name}, of {base.__module__}.{base.__name__}"
        for derived in our_classes()
        for ours, name, base in private_overrides(derived)
        if (ours, name) not in rows
    }
    assert not missing, (
        f"overridden, but in no table of this file: {'; '.join(sorted(missing))}. Prefer a public way: a callback, an "
        "argument, a public method. Otherwise add a row here and a comment at the method: what the base class does, "
        "why we differ, the versions it was read in, and when it can go."
    )


def test_private_attributes_that_we_replace_still_exist():
    for ours, base, names in ATTRIBUTES:
        for name in names.split():
            assert name in vars(find(ours)), f"{ours}.{name}: no longer replaced, remove it from the row."
            assert hasattr(find(base), name), what_to_do(f"{ours}.{name}", base, f"`{base}.{name}` no longer exists")


def test_every_name_in_compat_still_exists():
    compat = importlib.import_module("vilau_hf.compat")
    for name, module in compat.LIBRARY_NAMES.items():
        try:
            getattr(compat, name)
        except (ImportError, AttributeError) as error:
            pytest.fail(what_to_do(f"compat.{name}", module, str(error)))
    with pytest.raises(ImportError, match="cannot import name 'nothing'"):
        from vilau_hf.compat import nothing  # noqa: F401
