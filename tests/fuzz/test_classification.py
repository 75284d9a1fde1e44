"""The classes of the fuzzer: each kind of ending is recognised."""

import itertools
import time
from pathlib import Path

import pytest

from vilau_hf.processing.pixel_rules_vilau import check_size

from .classification import CLEAR, FINE, HANG, UNCLEAR, WRONG, Case, Given, Wrong, is_clear_error, run_case
from .models import processor


def refuse(image):
    check_size(0, 0)


def fail(error):
    raise error


def differ(result):
    raise Wrong("another result")


def kind_of(function, arguments, seconds=30, **options):
    return run_case(Case("f", function, arguments, **options), seconds=seconds).kind


def test_a_right_result_is_fine():
    assert kind_of(abs, {}, names=()) == UNCLEAR  # `abs()` of Python names no argument
    assert kind_of(lambda x: x, {"x": 3}) == FINE


def test_a_result_of_a_case_that_must_fail_is_silently_wrong():
    assert kind_of(lambda x: x, {"x": 3}, is_valid=False) == WRONG
    assert kind_of(lambda x: x, {"x": 3}, check=differ) == WRONG


def test_an_error_of_a_valid_case_is_unclear():
    assert kind_of(refuse, {"image": 3}) == CLEAR
    assert kind_of(refuse, {"image": 3}, is_valid=True) == UNCLEAR


@pytest.mark.parametrize(
    ("error", "is_clear"),
    [
        (ValueError("`a` must be 3"), True),
        (ValueError("a is 3"), False),  # does not say what is accepted
        (ValueError("`abc` must be 3"), False),  # another name
        (RuntimeError("`a` must be 3"), False),
        (KeyError("a"), False),
        (OSError("no such file: /tmp/a"), True),
    ],
)
def test_errors_of_others_are_clear_if_they_name_the_argument_and_what_is_accepted(error, is_clear):
    assert kind_of(lambda a: fail(error), {"a": 3}) == (CLEAR if is_clear else UNCLEAR)


def test_our_errors_need_only_the_name():
    with pytest.raises(ValueError) as caught:
        processor()(text=3)
    assert is_clear_error(caught.value, ("text",)) and not is_clear_error(caught.value, ("images",))


def test_a_case_that_computes_or_waits_too_long_is_a_hang(monkeypatch):
    monkeypatch.setattr(f"{__package__}.classification.WAITING", 1)
    assert kind_of(lambda: all(each is None for each in itertools.repeat(None)), {}, seconds=1) == HANG
    assert kind_of(lambda: time.sleep(60), {}, seconds=1) == HANG


def test_values_are_built_in_a_folder_that_is_the_working_directory():
    inner = Given("folder", str)
    assert kind_of(lambda a: (_ for _ in ()).throw(ValueError(f"`a` must be {Path.cwd()}")), {"a": [inner]}) == CLEAR
    found = []
    run_case(Case("f", lambda a: found.extend(a["b"]), {"a": {"b": [inner]}}))
    assert found and not Path(found[0]).exists()
