import base64
import hashlib
import json
import re
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from vilau_hf.emoji.packages import CLIPS, KEYWORDS, NAMES, STYLES, PackageFiles, find_packages


ROOT = Path(__file__).parents[2]
ALL = [NAMES, KEYWORDS, *STYLES.values(), *CLIPS]


@pytest.fixture
def tarball(packages, tmp_path):
    """Returns the package of names with the digest of a small tarball, and the tarball."""
    path = tmp_path / "made" / NAMES.tarball
    path.parent.mkdir()
    with tarfile.open(path, "w:gz") as archive:
        archive.add(packages / "unicode-emoji-json", "package")
    digest = base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()
    return replace(NAMES, sha512=digest), path


def use_npm(monkeypatch, folder, script):
    """Puts a command `npm` first in the path, which counts its calls in `calls`."""
    folder.mkdir()
    (folder / "npm").write_text(f'#!/bin/sh\necho "$@" >> {folder / "calls"}\n{script}\n')
    (folder / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_names_of_tarballs_are_those_of_npm_pack():
    assert STYLES["noto"].tarball == "iconify-json-noto-1.2.9.tgz" and NAMES.tarball == "unicode-emoji-json-0.9.0.tgz"


def test_digests_have_the_length_of_sha512():
    assert {len(base64.b64decode(package.sha512, validate=True)) for package in ALL} == {64}


def test_tarball_and_folder_give_the_same_files(tarball, packages):
    of_tarball = dict(PackageFiles(*tarball).read(".json"))
    of_folder = dict(PackageFiles(NAMES, packages / "unicode-emoji-json").read(".json"))
    assert set(of_tarball) == {"package.json", "data-by-emoji.json"} and of_tarball == of_folder


def test_tarball_with_another_digest_is_refused(tarball):
    with pytest.raises(ValueError, match=r"SHA-512 digest is .*npm pack unicode-emoji-json@0.9.0"):
        PackageFiles(NAMES, tarball[1])


def test_folder_with_another_version_is_refused(packages, tmp_path):
    shutil.copytree(packages / "unicode-emoji-json", tmp_path / "names")
    description = json.loads((tmp_path / "names" / "package.json").read_text())
    (tmp_path / "names" / "package.json").write_text(json.dumps({**description, "version": "0.8.0"}))
    with pytest.raises(ValueError, match="must hold unicode-emoji-json@0.9.0, it holds unicode-emoji-json@0.8.0"):
        find_packages([NAMES], [tmp_path], tmp_path / "cache")


def test_missing_file_of_a_package_is_named(packages):
    with pytest.raises(ValueError, match="has no nothing.json, which unicode-emoji-json should have"):
        PackageFiles(NAMES, packages / "unicode-emoji-json").read_json("nothing.json")


def test_all_packages_are_found_in_a_folder_of_folders(packages, tmp_path):
    found = find_packages(ALL, [packages], tmp_path / "cache")
    assert set(found) == {package.name for package in ALL} and not (tmp_path / "cache").exists()


def test_packages_are_found_in_the_folder_of_a_scope(packages, tmp_path):
    shutil.copytree(packages / "iconify-json-noto", tmp_path / "node_modules" / "@iconify-json" / "noto")
    found = find_packages([STYLES["noto"]], [tmp_path / "node_modules"], tmp_path / "cache")
    assert found["@iconify-json/noto"].path.name == "noto"


def test_only_missing_packages_are_to_be_fetched(packages, tmp_path):
    with pytest.raises(ValueError, match="2 of 3 packages are not in the sources") as error:
        find_packages([NAMES, KEYWORDS, STYLES["noto"]], [packages / "unicode-emoji-json"], tmp_path)
    commands = re.findall(r"npm pack (\S+)", str(error.value))
    assert commands == ["@emoji-mart/data@1.2.1", "@iconify-json/noto@1.2.9"]


def test_source_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(ValueError, match="nowhere' does not exist"):
        find_packages([NAMES], [tmp_path / "nowhere"], tmp_path)


def test_sources_are_checked_also_where_the_cache_has_the_package(tarball, tmp_path):
    package, path = tarball
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / package.tarball).write_bytes(b"cut off")
    assert find_packages([package], [], path.parent)[package.name].path == path
    with pytest.raises(ValueError, match="mine.*SHA-512 digest"):
        find_packages([package], [tmp_path / "mine"], path.parent)


def test_without_npm_the_commands_are_listed(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match=r"npm is not installed[^\n]*\n  npm pack unicode-emoji-json@0.9.0\n  npm"):
        find_packages([NAMES, KEYWORDS], [], tmp_path)


def test_npm_fetches_a_package_once(tarball, monkeypatch, tmp_path):
    package, path = tarball
    use_npm(monkeypatch, tmp_path / "bin", f"cp {path} .")
    for _ in range(2):
        files = find_packages([package], [], tmp_path / "cache")[package.name]
    assert files.path == tmp_path / "cache" / package.tarball and len(list(files.read(".json"))) == 2
    assert (tmp_path / "bin" / "calls").read_text() == "pack --silent unicode-emoji-json@0.9.0\n"


def test_npm_tarball_with_another_digest_is_not_kept(tarball, monkeypatch, tmp_path):
    use_npm(monkeypatch, tmp_path / "bin", f"cp {tarball[1]} .")
    with pytest.raises(ValueError, match="SHA-512 digest"):
        find_packages([NAMES], [], tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


def test_error_of_npm_is_shown_with_the_packages_that_remain(tarball, monkeypatch, tmp_path):
    package, path = tarball
    use_npm(monkeypatch, tmp_path / "bin", f'case "$3" in @*) echo no network >&2; exit 1;; esac; cp {path} .')
    with pytest.raises(ValueError, match="no network") as error:
        find_packages([package, KEYWORDS, STYLES["noto"]], [], tmp_path / "cache")
    commands = re.findall(r"^  npm pack (\S+)", str(error.value), flags=re.MULTILINE)
    assert commands == ["@emoji-mart/data@1.2.1", "@iconify-json/noto@1.2.9"]
    assert [file.name for file in (tmp_path / "cache").iterdir()] == [package.tarball]


def test_notice_names_every_package_with_licence_author_and_url():
    notice = (ROOT / "NOTICE").read_text()
    for package in ALL:
        entry = re.search(
            rf"^{re.escape(package.name)} {re.escape(package.version)}\n((?:  .*\n)+)", notice, re.MULTILINE
        )
        assert entry, package.name
        for line in (f"Licence:  {package.licence}", f"Author:   {package.author}", f"URL:      {package.url}"):
            assert f"  {line}\n" in entry[1], package.name


def test_files_for_tests_are_small_and_carry_their_licences(packages):
    assert sum(file.stat().st_size for file in packages.rglob("*") if file.is_file()) < 400_000
    notice = (packages / "NOTICE").read_text()
    for package in ALL:
        folder = package.tarball.removesuffix(f"-{package.version}.tgz")
        description = json.loads((packages / folder / "package.json").read_text())
        assert description["license"] == package.licence
        assert folder in notice or folder.startswith("lobehub-fluent-emoji-anim-")
