"""`imagewire models`: which models there are, and what runs each of them fastest here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

if TYPE_CHECKING:
    from models.tuning import Tuned


def models(
    action: Literal["list", "tune"],
    /,
    *,
    model: tuple[str, ...] = (),
    seconds: float = 1.0,
    json: bool = False,
    config: Annotated[Path | None, Parameter(name=["--config", "-c"])] = None,
) -> int:
    """List the models of the catalogue, or measure what runs each of them fastest here.

    `tune` measures torch beside ONNX Runtime and, where it is installed, OpenVINO, and has workers
    on this machine use the fastest that gives the same results.

    Args:
        action: List or tune.
        model: Only these models of the catalogue.
        seconds: To measure each runtime for, at each batch size.
        json: Print one JSON object for each model.
        config: Settings file.
    """
    import torch

    from imagewire.cli.outcome import UsageError
    from imagewire.cli.terminal import console, error_console, print_json, print_note
    from imagewire.settings import load_settings
    from models.backend_choices import load_choices, save_choices
    from models.catalog import load_catalog
    from models.device import choose_device
    from models.errors import ModelError
    from models.processors import available_processors
    from models.tuning import tune

    settings = load_settings(config).settings
    torch.set_num_threads(settings.models.threads or available_processors())
    try:
        catalog = load_catalog(settings.models.catalogs)
        cards = [catalog.get(name) for name in model] if model else list(catalog)
        device = choose_device(settings.models.device, settings.models.precision)
    except (ModelError, ValueError) as error:
        raise UsageError(str(error)) from error
    if action == "list":
        chosen = load_choices()
        for card in cards:
            choice = chosen.get(card.sha256)
            backend = choice.backend if choice and not device.is_cuda else "torch"
            row = {"model": card.full_name, "task": card.task, "runs_in": backend}
            if json:
                print_json(row, lines=True)
            else:
                console.print(f"{card.full_name:40} {card.task:18} {backend}", highlight=False)
        return 0
    outcomes = []
    for card in cards:
        with error_console.status(f"measuring {card.full_name}"):
            outcomes.append(tune(card, device, seconds=seconds))
        if json:
            print_json(_row(outcomes[-1]), lines=True)
        else:
            for line in _lines(outcomes[-1]):
                console.print(line, highlight=False)
    choices = {one.card.sha256: one.choice for one in outcomes if not one.skipped}
    if choices:
        print_note(f"wrote {save_choices(choices)}; workers use it from their next start")
    return 0


def _row(tuned: Tuned) -> dict[str, object]:
    return {
        "model": tuned.card.full_name,
        "runs_in": tuned.backend,
        "skipped": tuned.skipped,
        "images_per_second": tuned.choice.images_per_second,
        "refused": {name: one.refused for name, one in tuned.measured.items() if one.refused},
    }


def _lines(tuned: Tuned) -> list[str]:
    if tuned.skipped:
        return [f"{tuned.card.full_name}: {tuned.skipped}"]
    lines = [f"{tuned.card.full_name}: {tuned.backend}"]
    for name, one in tuned.measured.items():
        rates = ", ".join(f"{rate:.0f}/s at {size}" for size, rate in one.images_per_second.items())
        lines.append(f"  {name}: {'; '.join(filter(None, (rates, one.refused)))}")
    return lines
