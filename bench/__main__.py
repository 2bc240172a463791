"""`python -m bench`: run the parts of the bench, keep their figures, write the page about them.

Each part's figures are written as soon as it ends, so that stopping the bench loses only the part
that runs. With `--check` nothing is written: ratios are compared with those that are committed.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from rich.console import Console
from rich.table import Table

from bench import parts
from bench.figures import Figure, Options, Report
from bench.machine import measured_now, this_machine
from bench.page import PLOTS, Page
from bench.regression import TOLERANCE, compare
from bench.results import Results, named_for, on_gpu

FOLDER = Path(__file__).parent

ORDER = (
    "ceiling",
    "end_to_end",
    "overhead",
    "latency",
    "peers",
    "decode",
    "scale",
    "cost_over_time",
)
"""The order in which parts run; those that are not named come last, by the alphabet."""

CHECKED = ("end_to_end", "overhead", "latency", "scale")
"""Parts that `--check` runs unless others are named: they hold the promises that the code can break
most easily, and together take a quarter of an hour."""


def find_parts() -> list[str]:
    """Names of all parts, in the order in which they run."""
    found = {module.name for module in pkgutil.iter_modules(parts.__path__)}
    known = [name for name in ORDER if name in found]
    return known + sorted(found - set(known))


def suits(module: ModuleType, device: str) -> bool:
    """Whether a part makes sense on `device`."""
    devices: Sequence[str] = getattr(module, "DEVICES", ("cpu", "cuda"))
    return ("cuda" if on_gpu(device) else "cpu") in devices


def _missing(device: str) -> str:
    """What is wrong with `device`; nothing if it is there."""
    if not on_gpu(device):
        return ""
    import torch  # takes seconds, which a run on the processor need not wait for

    if torch.cuda.is_available():
        return ""
    return (
        f"--device {device}: torch sees no NVIDIA GPU here; run it on a machine that has one, with "
        "its driver (nvidia-smi shows it)"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0; 1 if a part failed, or with `--check` if a ratio got worse; 2 for wrong
    arguments, such as a device that is not there; 130 if stopped by Ctrl-C."""
    known = find_parts()
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--only", help=f"some of: {', '.join(known)}; separated by commas")
    parser.add_argument("--repeats", type=int, default=5, help="interleaved repeats")
    parser.add_argument("--device", default="cpu", help="torch device, such as cuda:0")
    parser.add_argument(
        "--quick", action="store_true", help="as little as possible, to see that it works"
    )
    parser.add_argument(
        "--out",
        type=Path,
        help="folder for results.json, RESULTS.md and plots/; bench/ by default, none with --quick",
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="write nothing; exit 1 if a ratio is worse than the committed one by more than "
        f"{TOLERANCE:.0%}%",
    )
    chosen = parser.parse_args(arguments)
    if chosen.repeats < 1:
        parser.error("--repeats must be at least 1")
    names = known
    if chosen.only:
        names = [name.strip() for name in chosen.only.split(",") if name.strip()]
    elif chosen.check:
        names = [name for name in CHECKED if name in known]
    if unknown := [name for name in names if name not in known]:
        parser.error(f"there is no {', '.join(unknown)}; there are {', '.join(known)}")
    if missing := _missing(chosen.device):
        parser.error(missing)
    # Not a terminal: wide enough for the table, whatever reads it.
    console = Console(width=None if sys.stdout.isatty() else 140, soft_wrap=False)
    out = chosen.out or (None if chosen.quick or chosen.check else FOLDER)
    # Being told to end is as good as Ctrl-C: parts stop what they started, and tidy up. Whatever a
    # shell starts in the background ignores Ctrl-C until it says otherwise.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    run = Run(console, out, named=chosen.only is not None)
    plots = (out or FOLDER) / PLOTS
    if out is None:
        plots = Path(tempfile.mkdtemp(prefix="imagewire-bench-plots-"))
    plots.mkdir(parents=True, exist_ok=True)
    options = Options(chosen.repeats, chosen.device, plots, chosen.quick, run.say)
    try:
        run.all(names, options)
    except KeyboardInterrupt:
        console.print("[yellow]stopped; figures of the parts that had ended are kept[/yellow]")
        return 130
    finally:
        if out is None:
            shutil.rmtree(plots, ignore_errors=True)
    run.show()
    if chosen.check:
        return run.check(Results(FOLDER / "results.json"))
    return 1 if run.failed else 0


class Run:
    """One run of the bench: its figures, and the parts that failed."""

    def __init__(self, console: Console, out: Path | None, *, named: bool) -> None:
        self.figures: list[Figure] = []
        self.failed: list[str] = []
        self._console = console
        self._out = out
        self._named = named
        self._began = time.monotonic()

    def say(self, what: str) -> None:
        """One line of progress."""
        seconds = time.monotonic() - self._began
        self._console.print(f"[dim]{seconds:6.0f} s[/dim]  {what}", highlight=False)

    def all(self, names: Sequence[str], options: Options) -> None:
        """Run the parts; one that fails is told of and the others go on."""
        for number, name in enumerate(names, 1):
            try:
                module = importlib.import_module(f"{parts.__name__}.{name}")
            except ImportError as error:
                self._fail(name, f"cannot be loaded: {error}")
                continue
            if not suits(module, options.device):
                if self._named:
                    self._fail(name, f"does not run on {options.device}")
                continue
            self._console.rule(f"[bold]{name}[/bold] ({number} of {len(names)})", align="left")
            self._began = time.monotonic()
            try:
                report: Report = module.run(options)
            except Exception:  # noqa: BLE001 - one part must not take the others with it
                self._console.print_exception(max_frames=4, extra_lines=1)
                self._fail(name, "failed")
                continue
            self._keep(name, report, options, time.monotonic() - self._began)

    def _fail(self, name: str, why: str) -> None:
        self.failed.append(name)
        self._console.print(f"[red]part {name} {why}[/red]")

    def _keep(self, name: str, report: Report, options: Options, seconds: float) -> None:
        figures = named_for(options.device, report.figures)
        self.figures += figures
        for figure in figures:
            self.say(f"{figure.name} = {figure.value:.4g} {figure.unit}".rstrip())
        if self._out is None:
            return
        measured = measured_now(options.device)
        results = Results(self._out / "results.json")
        results.merge(name, report, this_machine(options.device), measured, seconds)
        results.write()
        page = Page(self._out / "RESULTS.md")
        page.put_part(name, report, options.device)
        page.put_summary(results)
        page.write()

    def show(self) -> None:
        """All figures of this run against their targets."""
        table = Table(title="figures")
        for heading in ("figure", "median", "spread", "target", "met"):
            table.add_column(heading)
        for figure in self.figures:
            low, high = figure.spread
            sign = "≥" if figure.better == "higher" else "≤"
            table.add_row(
                figure.name,
                f"{figure.value:.4g} {figure.unit}".rstrip(),
                f"{low:.4g} to {high:.4g}",
                "" if figure.target is None else f"{sign} {figure.target:g}",
                {None: "", True: "[green]yes[/green]", False: "[red]no[/red]"}[figure.met],
            )
        self._console.print(table)
        if self.failed:
            self._console.print(f"[red]failed: {', '.join(self.failed)}[/red]")

    def check(self, committed: Results) -> int:
        """Compare with `committed`; 1 if something got worse or could not be measured."""
        verdicts = compare(self.figures, committed)
        for verdict in verdicts:
            color = "red" if verdict.regressed else "green"
            self._console.print(f"[{color}]{verdict.sentence}[/{color}]", highlight=False)
        if not verdicts:
            self._console.print("[red]there was nothing to compare: run make bench first[/red]")
            return 1
        return 1 if self.failed or any(verdict.regressed for verdict in verdicts) else 0


if __name__ == "__main__":
    sys.exit(main())
