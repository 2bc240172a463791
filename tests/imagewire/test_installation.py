"""What the project installs fits together."""

from __future__ import annotations

import csv
from collections import defaultdict
from importlib import metadata


def test_no_two_installed_packages_write_the_same_file() -> None:
    """Else the order of installation decides which one is there, and machines differ."""
    owners: dict[str, set[str]] = defaultdict(set)
    for distribution in metadata.distributions():
        name, record = distribution.name, distribution.read_text("RECORD") or ""
        for file, *_ in csv.reader(record.splitlines()):
            if file.endswith((".py", ".pyi", ".so")) and not file.startswith(".."):
                owners[file].add(name)

    assert len(owners) > 10_000  # the files were really listed
    assert {file: names for file, names in owners.items() if len(names) > 1} == {}
