import logging
import warnings

import pytest

from .deprecations import LIBRARIES, DeprecationRecorder, is_newest


def record(name, message, level=logging.WARNING):
    return logging.LogRecord(name, level, "file.py", 1, message, (), None)


def test_recorder_keeps_only_messages_about_deprecations():
    with DeprecationRecorder() as recorder:
        for library in LIBRARIES:
            assert recorder in logging.getLogger(library).handlers
        for message in ("`a` is deprecated, use `b`", "something else", "`c` was Deprecated in 5.24"):
            recorder.handle(record("transformers.some.module", message))
    assert recorder not in logging.getLogger("transformers").handlers
    assert recorder.messages == [
        "transformers.some.module: `a` is deprecated, use `b`",
        "transformers.some.module: `c` was Deprecated in 5.24",
    ]


def test_recorder_restores_the_log_levels():
    with DeprecationRecorder():
        for library in LIBRARIES:
            logging.getLogger(library).setLevel(logging.CRITICAL)
    for library in LIBRARIES:
        assert logging.getLogger(f"{library}.some.module").isEnabledFor(logging.WARNING)


@pytest.mark.skipif(not is_newest(), reason="older versions may use what a later one deprecates")
@pytest.mark.parametrize("category", [DeprecationWarning, FutureWarning])
def test_deprecation_warnings_are_errors(category):
    with pytest.raises(category, match="old"):
        warnings.warn("old", category, stacklevel=1)
