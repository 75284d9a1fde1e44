"""The npm packages that hold the emoji: which ones, under which licence, and how they are found and read."""

import base64
import hashlib
import json
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..files import read_json


@dataclass(frozen=True)
class Package:
    """
    Describes one npm package of a fixed version.

    Args:
        name (`str`): name on npm.
        version (`str`): the version whose files the records are made of.
        licence (`str`): SPDX identifier of the licence of the art or the texts.
        author (`str`): who made the art or the texts.
        url (`str`): home of the art or the texts.
        sha512 (`str`): SHA-512 digest of the tarball, in base64 as npm prints it.
    """

    name: str
    version: str
    licence: str
    author: str
    url: str
    sha512: str

    @property
    def tarball(self) -> str:
        """Returns the file name that `npm pack` gives the tarball."""
        return f"{self.name.lstrip('@').replace('/', '-')}-{self.version}.tgz"


NAMES = Package(
    "unicode-emoji-json",
    "0.9.0",
    "MIT",
    "Mu-An Chiou",
    "https://github.com/muan/unicode-emoji-json",
    "HdrQW/7SdbXUsTd8uTATv7LvQJkCSgbAgRCDCtOhQ6xn3EAx+xZHQtRniOXWJK3ywIqPegkNhP4U4EbuFsiQng==",
)
KEYWORDS = Package(
    "@emoji-mart/data",
    "1.2.1",
    "MIT",
    "Missive",
    "https://github.com/missive/emoji-mart",
    "no2pQMWiBy6gpBEiqGeU77/bFejDqUTRY7KX+0+iur13op3bqUsXdnwoZs6Xb1zbv0gAj5VvS1PWoUUckSr5Dw==",
)
# style of a still image -> package
STYLES = {
    "noto": Package(
        "@iconify-json/noto",
        "1.2.9",
        "Apache-2.0",
        "Google Inc",
        "https://github.com/googlefonts/noto-emoji",
        "DQiuXENbun41ch+XPSV55H9FaWKpHTyz46YIKtSaKYD4fIDDzL1tR6H4np/T38jfrTAeI3rcKF0mqHYeZVAuaw==",
    ),
    "twemoji": Package(
        "@iconify-json/twemoji",
        "1.2.5",
        "CC-BY-4.0",
        "Twitter, Inc and other contributors",
        "https://github.com/jdecked/twemoji",
        "uKpuIEV0v6K5BW3Mjdyl+XKFVAbbcPxAgifKvEMtZoUZB5+YiY5zaMm2uNNCxyXzAWU9yNLlj41WU6/mvgALsw==",
    ),
    "flat": Package(
        "@iconify-json/fluent-emoji-flat",
        "1.2.6",
        "MIT",
        "Microsoft Corporation",
        "https://github.com/microsoft/fluentui-emoji",
        "RY47RgPb47fYUiyrA64sIOL0+UU02s29sXpNBbIQRBUlPlfNFTKUmZDERGuxDs/7yNGWqQYvuaSYM1M4fRXlUw==",
    ),
    "3d": Package(
        "@lobehub/fluent-emoji-3d",
        "1.1.0",
        "MIT",
        "Microsoft Corporation, packaged by LobeHub",
        "https://github.com/lobehub/fluent-emoji",
        "Wlq2lVStTnr8BDpIJ0pEnTKO4LuDxxqTEhTvRtD1DLRF0me7ogeRQjKoehDHXuVJ2Qaecgl5wRBv60lUAG3h7g==",
    ),
}
CLIPS = tuple(
    Package(
        f"@lobehub/fluent-emoji-anim-{number}",
        "1.0.0",
        "MIT",
        "Microsoft Corporation, packaged by LobeHub",
        "https://github.com/lobehub/fluent-emoji",
        sha512,
    )
    for number, sha512 in enumerate(
        (
            "/4m31vAuZEQ4aUJ5pxcOU5PVkuJya55GRxUZL7+zgLlxZXpzzE8jPqpDyhZICE3n47nS/Y9M5/vLdizi8201QA==",
            "S6yzf0RZXrQbXdxCWuHA9BAoLdBRk2flX+ne4TPGEH/qApwisCAKHoAAGjKSlTY3OVeZ9b7t/NEbmpjawnQYJA==",
            "UzRSUDMjdfdt9vER5bhjHkPqgc3EEgfGtYs6ndvizOTvQOxYQ57ow2RTkWSDZxwW30X4EYBi2eWTS7CXDDoFsg==",
            "IIkl5ztSd1HrzvIDt/uGsFoC1WODXRdYq5uROrnkyqi9DbToEcJ1nlY86PnoUXeFS9nBCnHfiYk3ouSEGThFmA==",
        ),
        start=1,
    )
)


class PackageFiles:
    """
    Reads the files of a package from its tarball or from the folder that it was unpacked to.

    Args:
        package (`Package`): what is expected.
        path (`Path`): a tarball, or a folder with a `package.json`.

    Raises:
        ValueError: for another package or version, or a tarball with another digest.
    """

    def __init__(self, package: Package, path: Path) -> None:
        self.package = package
        self.path = path
        if path.is_file():
            with path.open("rb") as file:
                digest = base64.b64encode(hashlib.file_digest(file, "sha512").digest()).decode()
            if digest != package.sha512:
                raise ValueError(
                    f"{str(path)!r} is not {package.name}@{package.version}: its SHA-512 digest is {digest}, expected "
                    f"{package.sha512}. Fetch it again: npm pack {package.name}@{package.version}"
                )
            return
        # A folder has no digest, so its name and version have to be enough.
        description = read_json(path / "package.json")
        found = (description.get("name"), description.get("version"))
        if found != (package.name, package.version):
            raise ValueError(
                f"{str(path)!r} must hold {package.name}@{package.version}, it holds {found[0]}@{found[1]}."
            )

    def read(self, suffix: str) -> Iterator[tuple[str, bytes]]:
        """Yields path within the package and content of the files whose path ends with `suffix`."""
        if self.path.is_dir():
            for file in sorted(self.path.rglob(f"*{suffix}")):
                yield file.relative_to(self.path).as_posix(), file.read_bytes()
            return
        with tarfile.open(self.path) as archive:
            for member in archive:
                content = archive.extractfile(member) if member.name.endswith(suffix) else None
                if content is not None:
                    # npm puts everything below one folder
                    yield member.name.partition("/")[2], content.read()

    def read_json(self, *names: str) -> tuple[dict, ...]:
        """Reads JSON files by their path within the package, in one pass."""
        found = {name: content for name, content in self.read(".json") if name in names}
        missing = [name for name in names if name not in found]
        if missing:
            raise ValueError(f"{str(self.path)!r} has no {', '.join(missing)}, which {self.package.name} should have.")
        return tuple(json.loads(found[name]) for name in names)


def find_packages(packages: Sequence[Package], sources: Sequence[Path], cache: Path) -> dict[str, PackageFiles]:
    """
    Finds packages among files and folders, and fetches those that are missing with `npm pack`.

    Args:
        packages (`Sequence[Package]`): the packages that are needed.
        sources (`Sequence[Path]`): tarballs, unpacked packages, or folders of these, such as `node_modules`. If empty,
            npm fetches everything.
        cache (`Path`): folder of the tarballs that npm has fetched. The packages that are there are not fetched again.

    Returns:
        Files by the name of the package.

    Raises:
        ValueError: for packages that are not there and cannot be fetched; it says what to fetch. Also for a package of
            another version or with another digest.
    """
    for source in sources:
        if not source.exists():
            raise ValueError(f"`source` {str(source)!r} does not exist.")
    # The sources come first: what the user names is read, or refused, also where the cache has the same package.
    paths = {**_list_packages(packages, [cache]), **_list_packages(packages, sources)}
    found = {}
    missing = []
    for package in packages:
        path = paths.get(package.name)
        if path is None:
            missing.append(package)
        else:
            found[package.name] = PackageFiles(package, path)
    if missing and sources:
        raise ValueError(_how_to_fetch(missing, f"{len(missing)} of {len(packages)} packages are not in the sources."))
    if missing and shutil.which("npm") is None:
        raise ValueError(_how_to_fetch(missing, "npm is not installed, so the packages cannot be fetched."))
    for index, package in enumerate(missing):
        error = _fetch(package, cache)
        if error is not None:
            raise ValueError(_how_to_fetch(missing[index:], f"{error}\nIf npm cannot reach its registry from here:"))
        found[package.name] = PackageFiles(package, cache / package.tarball)
    return found


def _list_packages(packages: Sequence[Package], paths: Iterable[Path]) -> dict[str, Path]:
    """Returns tarballs of `packages` and all unpacked packages in or at `paths`, by the name of the package."""
    names = {package.tarball: package.name for package in packages}
    listed = {}
    for path in (path for given in paths for path in _candidates(given)):
        if path.name in names:
            listed[names[path.name]] = path
        elif (path / "package.json").is_file():
            listed[str(read_json(path / "package.json").get("name"))] = path
    return listed


def _candidates(path: Path) -> Iterator[Path]:
    """Yields a path and what is in it, also the packages in the folder of a scope, such as `@iconify-json`."""
    yield path
    for child in sorted(path.iterdir()) if path.is_dir() else ():
        yield child
        if child.name.startswith("@") and child.is_dir():
            yield from sorted(child.iterdir())


def _how_to_fetch(packages: Sequence[Package], reason: str) -> str:
    """Returns the message of an error that says which packages the user has to fetch."""
    commands = "\n".join(f"  npm pack {package.name}@{package.version}" for package in packages)
    return f"{reason} Fetch these tarballs, and give them or their folder as sources:\n{commands}"


def _fetch(package: Package, cache: Path) -> str | None:
    """Fetches the tarball of a package into `cache`, and returns what failed, or `None`."""
    cache.mkdir(parents=True, exist_ok=True)
    command = ["npm", "pack", "--silent", f"{package.name}@{package.version}"]
    # In a folder of its own, so that an interrupted download never has the name of a complete tarball.
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        tarball = Path(folder) / package.tarball
        if result.returncode or not tarball.is_file():
            return f"`{' '.join(command)}` failed: {result.stderr.strip()[-500:] or 'it left no tarball.'}"
        PackageFiles(package, tarball)  # refuses a tarball with another digest before it is kept
        tarball.replace(cache / package.tarball)
    return None


__all__ = ["CLIPS", "KEYWORDS", "NAMES", "STYLES", "Package", "PackageFiles", "find_packages"]
