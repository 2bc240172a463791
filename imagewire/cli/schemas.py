"""`imagewire schemas`: the JSON Schemas of the records on Kafka."""

from __future__ import annotations

from pathlib import Path

from imagewire.schemas import DEFAULT_DIRECTORY, outdated_schemas, write_schemas


def schemas(*, out: Path = DEFAULT_DIRECTORY, check: bool = False) -> int:
    """Write the JSON Schema of every record on Kafka.

    Parameters
    ----------
    out: the folder to write to.
    check: write nothing; exit 1 if a file there is missing or out of date.
    """
    from imagewire.cli.outcome import EXIT_FAILED
    from imagewire.cli.terminal import print_error, print_note

    if check:
        outdated = outdated_schemas(out)
        for path in outdated:
            print_error(f"{path} is missing or out of date; run: imagewire schemas --out {out}")
        return EXIT_FAILED if outdated else 0
    for path in write_schemas(out):
        print_note(f"wrote {path}")
    return 0
