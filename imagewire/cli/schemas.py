"""`imagewire schemas`: the JSON Schemas of the records on Kafka."""

from __future__ import annotations

from pathlib import Path


def schemas(*, out: Path = Path("docs/schemas"), check: bool = False) -> int:
    """Write the JSON Schemas of the records on Kafka.

    Args:
        out: The folder to write to.
        check: Write nothing; exit 1 if a file there is missing or out of date.
    """
    from imagewire.cli.outcome import EXIT_FAILED
    from imagewire.cli.terminal import print_error, print_note
    from imagewire.schemas import outdated_schemas, write_schemas

    if check:
        outdated = outdated_schemas(out)
        for path in outdated:
            print_error(f"{path} is missing or out of date; run: imagewire schemas --out {out}")
        return EXIT_FAILED if outdated else 0
    for path in write_schemas(out):
        print_note(f"wrote {path}")
    return 0
