"""Records of the emoji in tests/fixtures/emoji, which are folders with the names and versions of the npm packages."""

from pathlib import Path

import pytest

from vilau_hf.data import write_records
from vilau_hf.emoji.records import emoji_features, emoji_records


PACKAGES = Path(__file__).parents[1] / "fixtures" / "emoji"


@pytest.fixture(scope="session")
def packages() -> Path:
    return PACKAGES


@pytest.fixture(scope="session")
def records_folder(tmp_path_factory) -> Path:
    pytest.importorskip("resvg_py", reason="needs the extra `emoji`")
    folder = tmp_path_factory.mktemp("emoji") / "records"
    write_records(emoji_records([PACKAGES], size=32, cache=folder), folder, features=emoji_features())
    return folder
