"""Photographs come out of packages as they are in them, with their licences."""

from __future__ import annotations

import hashlib
import io
import struct
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from bench import gather_photos
from bench.debian_copyright import Copyright
from bench.gather_photos import GatheringError, Package, files_of, find, gather

COPYRIGHT = """Format: machine-readable

Files: *
Copyright: 2014 Everybody
License: GPL-3+

Files: src/animals/*.jpg
       src/other/thing.png
Copyright: 2016 Ann Other
           2017 Somebody Else
License: CC-BY-4.0
 The text of it.
"""


def resources(files: Mapping[str, bytes]) -> bytes:
    """A resource file of Qt with one folder, `animals`, of files."""
    names, contents = b"", b""
    nodes = [struct.pack(">IHII", 0, 2, 1, 1)]

    def named(name: str) -> int:
        nonlocal names
        at = len(names)
        names += struct.pack(">HI", len(name), 0) + name.encode("utf-16-be")
        return at

    nodes.append(struct.pack(">IHII", named("animals"), 2, len(files), 2))
    for name, content in files.items():
        nodes.append(struct.pack(">IHII", named(name), 0, 0, len(contents)))
        contents += struct.pack(">I", len(content)) + content
    tree = b"".join(nodes)
    start = 20
    places = (1, start, start + len(tree), start + len(tree) + len(contents))
    return b"qres" + struct.pack(">4I", *places) + tree + contents + names


def package_of(files: Mapping[str, bytes], path: Path) -> Package:
    """A Debian package of files at `path`; its photos are what ends in .jpg or .webp."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:xz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"./{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    written = b"!<arch>\n"
    for name, content in (("debian-binary", b"2.0\n!"), ("data.tar.xz", data.getvalue())):
        written += f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode()
        written += content + b"\n" * (len(content) % 2)
    path.write_bytes(written)
    digest = hashlib.sha256(written).hexdigest()
    return Package("photos", "1:2.0-1", digest, ("*.jpg", "*.webp"), ("*/drawn-*",))


def test_photos_come_out_with_their_licences(tmp_path: Path) -> None:
    inside = {
        "usr/share/doc/photos/copyright": COPYRIGHT.encode(),
        "usr/share/photos/hill.jpg": b"a hill",
        "usr/share/photos/drawn-hill.jpg": b"a drawing",
        "usr/share/photos/src.rcc": resources({"cat.webp": b"a cat", "cat.svg": b"<svg/>"}),
    }
    path = tmp_path / "photos_1%3a2.0-1_all.deb"
    package = package_of(inside, path)
    assert find(package, tmp_path) == path
    rows = gather(package, path, tmp_path)
    assert [(row["path"], row["licence"]) for row in rows] == [
        ("usr/share/photos/hill.jpg", "GPL-3+"),
        ("usr/share/photos/src.rcc/animals/cat.webp", "GPL-3+"),
    ]
    assert [(tmp_path / row["file"]).read_bytes() for row in rows] == [b"a hill", b"a cat"]


def test_the_last_paragraph_that_matches_names_the_licence() -> None:
    licences = Copyright(COPYRIGHT)
    # Installed as WebP, and below another folder, than in the source.
    assert licences.of("usr/share/it.rcc/it/src/animals/dog.webp") == (
        "CC-BY-4.0",
        "2016 Ann Other; 2017 Somebody Else",
    )
    assert licences.of("usr/share/src/plants/dog.webp") == ("GPL-3+", "2014 Everybody")


def test_another_version_of_a_package_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    package = package_of({"usr/share/photos/hill.jpg": b"a hill"}, tmp_path / "photos_2_all.deb")
    other = package_of({"usr/share/photos/hill.jpg": b"a dale"}, tmp_path / "photos_2_all.deb")
    assert find(other, tmp_path)
    monkeypatch.setattr(gather_photos, "packages", lambda: [package])
    assert gather_photos.main([str(tmp_path / "to"), "--packages", str(tmp_path)]) == 1
    assert f"whose SHA-256 is {package.sha256}" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "to" / gather_photos.SOURCES).exists()


def test_what_is_no_package_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "photos_1_all.deb"
    path.write_bytes(b"<html>not found</html>")
    with pytest.raises(GatheringError, match="is no Debian package"):
        list(files_of(path))
