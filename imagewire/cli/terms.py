"""`imagewire terms`: check term lists, and try what they find, before a worker uses them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import cyclopts
from cyclopts import Parameter

if TYPE_CHECKING:
    from operators.terms_file import Term

terms = cyclopts.App(
    name="terms",
    help="Check and try term lists: check, match.",
    default_parameter=cyclopts.Parameter(negative=()),
)

Config = Annotated[Path | None, Parameter(name=["--config", "-c"])]


@terms.command
def check(
    *files: Path,
    kind: Literal["exact", "phrase", "regex"] = "phrase",
    language: str = "",
    json: bool = False,
    config: Config = None,
) -> int:
    """Check term lists: every mistake in them, with file and line.

    Ends with exit code 1 if a worker would refuse a list.

    Args:
        files: Lists to check (.toml, .csv, or one term a line); those in the settings if none is
            given.
        kind: How terms of the files are meant where a file does not say: exact, phrase or regex.
        language: Language of the terms where a file does not say.
        json: Print one JSON object.
        config: Settings file that names the lists.
    """
    from imagewire.cli.outcome import EXIT_FAILED
    from imagewire.cli.terminal import console, print_error, print_json, printable
    from operators.terms_file import TermsError
    from operators.terms_matching import TermMatcher

    try:
        found = _read(files, kind, language, config)
        TermMatcher(found)
    except TermsError as error:
        if json:
            print_json({"usable": False, "errors": str(error).splitlines()})
        else:
            print_error(str(error))
        return EXIT_FAILED
    counts = Counter((term.list, term.kind, term.language) for term in found)
    rows = [
        {"list": name, "kind": sort, "language": tongue, "terms": count}
        for (name, sort, tongue), count in counts.items()
    ]
    if json:
        print_json({"usable": True, "terms": len(found), "lists": rows})
    else:
        from rich.table import Table

        table = Table()
        for heading in ("list", "kind", "language", "terms"):
            table.add_column(heading, justify="right" if heading == "terms" else "left")
        for row in rows:
            table.add_row(*(printable(str(value) or "any") for value in row.values()))
        console.print(table)
    return 0


@terms.command
def match(
    text: str,
    /,
    *,
    file: tuple[Path, ...] = (),
    kind: Literal["exact", "phrase", "regex"] = "phrase",
    language: str = "",
    json: bool = False,
    config: Config = None,
) -> int:
    """Show which terms are found in a text, and how its normal spelling reads.

    Args:
        text: What an image might read; each line of it is a line of the image.
        file: Lists to look into; those in the settings if none is given.
        kind: How terms of the files are meant where a file does not say: exact, phrase or regex.
        language: Language of the terms where a file does not say.
        json: Print one JSON object.
        config: Settings file that names the lists.
    """
    from imagewire.cli.terminal import console, print_json, print_note, printable
    from operators.terms_matching import TermMatcher
    from operators.text_normal import normal_text

    lines = text.split("\n")
    found = TermMatcher(_read(file, kind, language, config)).match(lines)
    if json:
        print_json({"normal": [normal_text(line) for line in lines], "matches": found})
        return 0
    from rich.table import Table
    from rich.text import Text

    print_note("normal: " + " / ".join(normal_text(line) for line in lines))
    if not found:
        print_note("no term is found")
        return 0
    table = Table()
    for heading in ("list", "term", "language", "severity", "line", "place", "reads"):
        table.add_column(heading)
    for one in found:
        place = lines[one.line][one.start : one.end]
        cells = (one.list, one.term, one.language, one.severity, str(one.line))
        row = (*cells, f"{one.start}-{one.end}", place)
        table.add_row(*(Text(printable(cell)) for cell in row))
    console.print(table)
    return 0


def _read(
    files: tuple[Path, ...],
    kind: Literal["exact", "phrase", "regex"],
    language: str,
    config: Path | None,
) -> list[Term]:
    from imagewire.cli.outcome import UsageError
    from operators.terms_file import read_terms
    from operators.terms_options import TermListOptions, TermsOptions

    if files:
        lists = {}
        for file in files:
            name = file.stem if file.stem not in lists else str(file)
            lists[name] = TermListOptions(file=file, kind=kind, language=language)
        return read_terms(TermsOptions(lists=lists))
    from imagewire.settings import load_settings

    options = load_settings(config).settings.terms
    if not options.lists:
        raise UsageError(
            "the settings name no term list, and no file was given; name files, or add a table "
            "[terms.lists.NAME] with file = '…' to the settings"
        )
    return read_terms(options)
