"""`imagewire calibrate`: what a model's scores are worth, learnt from labels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from imagewire.calibrating import Calibrated, Target
    from imagewire.calibration_labels import Scored
    from models.calibrating import Bin, Cut, Fit
    from models.catalog import ModelCard


def calibrate(
    *,
    labels: str,
    model: str,
    target_precision: tuple[float, ...] = (),
    target_recall: tuple[float, ...] = (),
    method: Literal["auto", "temperature", "platt", "isotonic"] = "auto",
    label: tuple[str, ...] = (),
    audits: bool = False,
    out: Path | None = None,
    diagram: Path | None = None,
    json: bool = False,
    data: Annotated[Path | None, Parameter(name=["--data", "-d"])] = None,
    config: Annotated[Path | None, Parameter(name=["--config", "-c"])] = None,
) -> int:
    """Learn from labels what scores are worth, and where to cut for a wanted precision or recall.

    The result is a JSON file in policy.calibrations_folder, or one that policy.calibrations has to
    name; rules read it as `calibrated`. Exit code 1 if there is no label that can be calibrated.

    Args:
        labels: A CSV or JSON-lines file (image_id, label, truth and, if it has them, score), or
            'reviews' for what reviewers decided.
        model: The model of the catalogue that gave the scores.
        target_precision: Find the threshold for this precision; may be given several times.
        target_recall: Find the threshold for this recall; may be given several times.
        method: How; auto takes what does best on labels that it has not seen.
        label: Only these labels of the model.
        audits: Of the reviews only those of images that were drawn at random.
        out: The file to write; <model>-<version>.calibration.json when not given, in the folder of
            the settings or the running stack, else beside the model's weights, else here.
        diagram: The reliability diagram to write, as SVG; beside the file when not given.
        json: Print one JSON object instead of tables.
        data: Data directory of the running stack that has the scores.
        config: Settings file that names the ClickHouse that has the scores.
    """
    from imagewire.calibrating import Target, calibrate_labels, default_file
    from imagewire.calibration_labels import LabelsError
    from imagewire.cli.outcome import EXIT_FAILED, CommandError, UsageError
    from imagewire.cli.terminal import print_json, print_note
    from imagewire.connection import find_connection
    from imagewire.reliability_diagram import reliability_svg
    from models.catalog import load_catalog
    from models.errors import ModelError
    from operators.calibration import write_calibration

    targets = [Target("precision", value) for value in target_precision]
    targets += [Target("recall", value) for value in target_recall]
    for target in targets:
        if not 0 < target.value < 1:
            raise UsageError(f"--target-{target.kind} {target.value:g}: it must be between 0 and 1")
    connection = find_connection(data, config)
    try:
        card = load_catalog(connection.settings.models.catalogs).get(model)
        scored = _scored(labels, card, label, audits, connection)
    except (ModelError, LabelsError) as error:
        raise CommandError(str(error)) from error
    found = calibrate_labels(scored, card, method, targets)
    policy = connection.settings.policy
    file = out or default_file(card, policy.calibrations_folder)
    picture = diagram or file.with_suffix(".svg")
    if found.fits:
        try:
            if file.parent == policy.calibrations_folder:
                file.parent.mkdir(parents=True, exist_ok=True)
            write_calibration(found.calibration, file)
            picture.write_text(reliability_svg(found.fits), encoding="utf-8")
        except OSError as error:
            raise CommandError(f"{error.filename} cannot be written: {error.strerror}") from error
    if json:
        print_json(_summary(found, str(file) if found.fits else None))
    else:
        _show(found)
        if found.fits:
            used = (
                "workers use it from now on: it is in policy.calibrations_folder"
                if file.parent == policy.calibrations_folder
                else "workers use it once it stands in the settings: "
                f'[policy] calibrations = ["{file}"]'
            )
            print_note(f"wrote {file} and {picture}; {used}")
    return 0 if found.fits else EXIT_FAILED


def _scored(
    source: str, card: ModelCard, wanted: Sequence[str], audits: bool, connection: Any
) -> Scored:
    from imagewire.calibration_labels import (
        MAX_LABELS,
        LabelsError,
        labels_of_reviews,
        read_labels,
        with_scores,
    )
    from imagewire.reachability import reaching
    from sinks.clickhouse.reader import ClickHouseReader

    names = [name for name in dict.fromkeys(card.labels.values()) if not wanted or name in wanted]
    for name in wanted:
        if name not in names:
            raise LabelsError(
                f"'{name}' is no label of {card.full_name}; its labels: "
                f"{', '.join(card.labels.values()) or 'none'}"
            )
    given = [] if source == "reviews" else read_labels(Path(source))
    if given and wanted:
        given = [one for one in given if one.label in wanted]
    if given and all(one.score is not None for one in given):
        return with_scores(given, card, None)
    settings = connection.settings.clickhouse.model_copy(update={"query_max_rows": MAX_LABELS})
    with reaching(connection, "ClickHouse"), ClickHouseReader(settings) as reader:
        if source == "reviews":
            given = labels_of_reviews(reader, names, audits)
        return with_scores(given, card, reader)


def _show(found: Calibrated) -> None:
    from rich.table import Table

    from imagewire.cli.terminal import console, print_error, print_note, printable

    for label, fit in found.fits.items():
        console.print(
            f"\n[bold]{printable(label)}[/]: {_curve(fit)}, from {fit.yes} labels that say yes and "
            f"{fit.no} that say no",
            soft_wrap=True,
        )
        console.print(
            f"ECE {fit.before.ece:.4f} -> {fit.after.ece:.4f}, "
            f"Brier score {fit.before.brier:.4f} -> {fit.after.brier:.4f}, "
            f"log loss {fit.before.log_loss:.4f} -> {fit.after.log_loss:.4f} "
            "(after: on labels that the curve had not seen)",
            soft_wrap=True,
        )
        table = Table("probability", "images", "mean", "true", "95 % interval")
        for column in table.columns[1:]:
            column.justify = "right"
        for title, bins in (("scores", fit.before_bins), ("calibrated", fit.after_bins)):
            table.add_section()
            table.add_row(title, style="dim")
            for one in bins:
                table.add_row(*_row(one))
        console.print(table)
        for target, cut in found.cuts[label]:
            print_note(_sentence(label, target, cut))
    for why, count in found.skipped.items():
        print_note(f"left out {count} labels {why}")
    for label, why in found.refused.items():
        print_error(f"{label}: {why}")
    if not found.fits and not found.refused:
        print_error("there is no label with a score of this model; nothing was written")


def _curve(fit: Fit) -> str:
    curve = fit.curve
    if curve.method == "isotonic":
        return f"isotonic regression of {len(curve.points)} points"
    shift = f", shifted by {curve.bias:.3f}" if curve.method == "platt" else ""
    return f"temperature {curve.temperature:.3f}{shift}"


def _row(one: Bin) -> tuple[str, ...]:
    return (
        f"{one.low:.1f} to {one.high:.1f}",
        f"{one.count}",
        f"{one.mean:.3f}",
        f"{one.share:.3f}",
        f"{one.share_low:.3f} to {one.share_high:.3f}",
    )


def _sentence(label: str, target: Target, cut: Cut | None) -> str:
    if cut is None:
        return f"{label}: no threshold reaches a {target.kind} of {target.value:g}"
    return (
        f"{label}: for a {target.kind} of {target.value:g} take calibrated['{label}'] >= "
        f"{cut.threshold:.4f}: precision {cut.precision:.3f}, recall {cut.recall:.3f}; 95 % "
        f"interval of the {target.kind} {cut.low:.3f} to {cut.high:.3f} (Wilson)"
    )


def _summary(found: Calibrated, file: str | None) -> dict[str, object]:
    import dataclasses

    return {
        "file": file,
        "model": found.calibration.model,
        "labels": {
            label: {
                "method": fit.curve.method,
                "yes": fit.yes,
                "no": fit.no,
                "before": dataclasses.asdict(fit.before),
                "after": dataclasses.asdict(fit.after),
                "reliability_before": [dataclasses.asdict(one) for one in fit.before_bins],
                "reliability_after": [dataclasses.asdict(one) for one in fit.after_bins],
                "thresholds": [
                    {f"target_{target.kind}": target.value}
                    | (dataclasses.asdict(cut) if cut else {"threshold": None})
                    for target, cut in found.cuts[label]
                ],
            }
            for label, fit in found.fits.items()
        },
        "refused": dict(found.refused),
        "skipped": dict(found.skipped),
    }
