"""The runner keeps each part's figures and text, leaves the others', and tells what got worse."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from bench import __main__ as runner
from bench import parts
from bench.figures import Figure, Report, figure
from bench.page import Page
from bench.regression import compare
from bench.results import Results

_PART = """
    from bench.figures import Options, Report, figure

    {devices}

    def run(options: Options) -> Report:
        {before}
        (options.plots / "{name}.png").write_bytes(b"png")
        return Report(
            "Title of {name}",
            "make bench ONLY={name}",
            "Text of {name}, run on {{}}.".format(options.device),
            [figure("{name}_ratio", {values}, target=1.0), figure("{name}_s", [3.0], unit="s")],
            {{"{name}.png": "Plot of {name}"}},
        )
"""

MakePart = Callable[..., None]


@pytest.fixture
def make_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakePart]:
    """Writes a part that gives back what it is told to; the only parts there are."""
    folder = tmp_path / "parts"
    folder.mkdir()
    monkeypatch.setattr(parts, "__path__", [str(folder)])
    # Parts of a test are written anew within a second and are as long as before: what Python had
    # compiled of the first would be taken for the second.
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    made = []

    def make(name: str, values: list[float], before: str = "pass", devices: str = "") -> None:
        text = _PART.format(name=name, values=values, before=before, devices=devices)
        (folder / f"{name}.py").write_text(dedent(text))
        made.append(f"bench.parts.{name}")
        sys.modules.pop(made[-1], None)

    yield make
    for module in made:
        sys.modules.pop(module, None)


def _figures(folder: Path) -> dict[str, dict[str, object]]:
    content = json.loads((folder / "results.json").read_text())
    assert isinstance(content["figures"], dict)
    return content["figures"]


def test_each_figure_stands_in_the_file_with_target_spread_and_where_it_was_measured(
    make_part: MakePart, tmp_path: Path
) -> None:
    make_part("one", [0.9, 1.2, 1.1])

    assert runner.main(["--out", str(tmp_path)]) == 0

    found = _figures(tmp_path)["one_ratio"]
    assert found["value"] == 1.1
    assert found["target"] == 1.0
    assert found["spread"] == [0.9, 1.2]
    assert found["met"] is True
    assert found["repeats"] == 3
    assert found["device"] == "cpu"
    assert found["commit"]
    assert found["date"]
    machine = json.loads((tmp_path / "results.json").read_text())["machine"]
    assert machine["cores"] >= 1
    assert machine["versions"]["torch"]


def test_running_one_part_leaves_the_figures_and_the_text_of_the_others(
    make_part: MakePart, tmp_path: Path
) -> None:
    make_part("one", [1.0])
    make_part("two", [2.0])
    runner.main(["--out", str(tmp_path)])
    earlier = _figures(tmp_path)["two_ratio"]
    make_part("one", [7.0])

    runner.main(["--out", str(tmp_path), "--only", "one"])

    assert _figures(tmp_path)["one_ratio"]["value"] == 7.0
    assert _figures(tmp_path)["two_ratio"] == earlier
    page = (tmp_path / "RESULTS.md").read_text()
    assert page.count("## Title of one") == 1
    assert page.count("## Title of two") == 1
    assert "![Plot of two](plots/two.png)" in page
    assert (tmp_path / "plots" / "two.png").exists()


def test_what_was_written_by_hand_stays_where_it_is(make_part: MakePart, tmp_path: Path) -> None:
    by_hand = "# What was measured\n\nWords.\n\n## Chaos\n\nA table.\n\n## Soak\n\nA line.\n"
    (tmp_path / "RESULTS.md").write_text(by_hand)
    make_part("one", [1.0])
    make_part("two", [2.0])

    for _ in range(2):
        runner.main(["--out", str(tmp_path)])

    page = (tmp_path / "RESULTS.md").read_text()
    headings = [line for line in page.splitlines() if line.startswith("#")]
    assert headings == [
        "# What was measured",
        "## All figures",
        "## Title of one",
        "## Title of two",
        "## Chaos",
        "## Soak",
    ]
    assert page.endswith("## Chaos\n\nA table.\n\n## Soak\n\nA line.\n")


def test_a_part_that_fails_is_named_and_the_others_run(
    make_part: MakePart, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_part("broken", [1.0], before="raise RuntimeError('no broker')")
    make_part("sound", [1.0])

    assert runner.main(["--out", str(tmp_path)]) == 1

    assert "part broken failed" in capsys.readouterr().out
    assert "sound_ratio" in _figures(tmp_path)


def test_stopping_keeps_the_figures_of_the_parts_that_had_ended(
    make_part: MakePart, tmp_path: Path
) -> None:
    make_part("one", [1.0])
    make_part("two", [1.0], before="raise KeyboardInterrupt")

    assert runner.main(["--out", str(tmp_path)]) == 130

    assert "one_ratio" in _figures(tmp_path)


def test_without_a_gpu_nothing_runs_and_it_is_said_why(
    make_part: MakePart,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    make_part("one", [1.0])

    with pytest.raises(SystemExit) as ended:
        runner.main(["--out", str(tmp_path), "--device", "cuda:0"])

    assert ended.value.code == 2
    assert "torch sees no NVIDIA GPU here" in capsys.readouterr().err
    assert not (tmp_path / "results.json").exists()


def test_figures_from_a_gpu_stand_beside_those_from_the_processor(
    make_part: MakePart, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "_missing", lambda device: "")  # as if there were a GPU
    make_part("one", [1.0])
    make_part("only_cpu", [1.0], devices='DEVICES = ("cpu",)')
    runner.main(["--out", str(tmp_path)])

    assert runner.main(["--out", str(tmp_path), "--device", "cuda:0"]) == 0

    figures = _figures(tmp_path)
    assert figures["one_ratio"]["device"] == "cpu"
    assert figures["one_ratio_gpu"]["device"] == "cuda:0"
    assert "only_cpu_ratio_gpu" not in figures
    page = (tmp_path / "RESULTS.md").read_text()
    assert "run on cpu." in page
    assert "run on cuda:0." in page


def test_a_quick_run_writes_nothing_into_the_results(
    make_part: MakePart, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "FOLDER", tmp_path / "bench")
    make_part("one", [1.0])

    assert runner.main(["--quick"]) == 0

    assert not (tmp_path / "bench").exists()


def test_a_part_that_does_not_exist_is_refused_with_those_that_do(
    make_part: MakePart, capsys: pytest.CaptureFixture[str]
) -> None:
    make_part("one", [1.0])

    with pytest.raises(SystemExit):
        runner.main(["--only", "three"])

    assert "there is no three; there are one" in capsys.readouterr().err


def _committed(folder: Path, *figures: Figure) -> Results:
    results = Results(folder / "results.json")
    results.merge(
        "part",
        Report("t", "c", "", list(figures)),
        runner.this_machine("cpu"),
        {"commit": "c0ffee", "date": "2026-01-01", "device": "cpu"},
        1.0,
    )
    results.write()
    return Results(folder / "results.json")


def test_a_ratio_that_got_worse_fails_the_check_and_is_named(
    make_part: MakePart,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(runner, "FOLDER", tmp_path)
    make_part("one", [1.0])
    runner.main(["--out", str(tmp_path)])
    before = (tmp_path / "results.json").read_text()

    assert runner.main(["--check", "--only", "one"]) == 0
    make_part("one", [0.5])
    assert runner.main(["--check", "--only", "one"]) == 1

    assert "one_ratio: 0.5, was 1" in capsys.readouterr().out
    assert (tmp_path / "results.json").read_text() == before


def test_a_ratio_within_the_tolerance_of_the_committed_spread_passes(tmp_path: Path) -> None:
    committed = _committed(
        tmp_path,
        figure("up", [0.9, 1.0, 1.1]),
        figure("down", [0.9, 1.0, 1.1], better="lower"),
    )

    def regressed(name: str, value: float, better: str) -> bool:
        assert better in ("higher", "lower")
        now = Figure(name, value, (value, value), better="higher" if name == "up" else "lower")
        return compare([now], committed, tolerance=0.1)[0].regressed

    assert not regressed("up", 0.82, "higher")
    assert regressed("up", 0.80, "higher")
    assert not regressed("down", 1.20, "lower")
    assert regressed("down", 1.22, "lower")


def test_seconds_are_never_compared(tmp_path: Path) -> None:
    committed = _committed(tmp_path, figure("seconds", [1.0], unit="s", better="lower"))

    assert compare([figure("seconds", [9.0], unit="s", better="lower")], committed) == []


def test_a_page_that_is_not_there_yet_gets_a_title(tmp_path: Path) -> None:
    page = Page(tmp_path / "RESULTS.md")
    page.put_part("one", Report("One", "make bench ONLY=one", "Body."), "cpu")
    page.write()

    text = (tmp_path / "RESULTS.md").read_text()
    assert text.startswith("# What was measured\n")
    assert "## One\n\n`make bench ONLY=one`\n\nBody." in text


def test_being_told_to_end_stops_a_bench_that_was_started_in_the_background(
    tmp_path: Path, make_part: MakePart
) -> None:
    make_part("one", [1.0], before="__import__('signal').raise_signal(15)")
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell starts it after `&`
        assert runner.main(["--out", str(tmp_path / "out")]) == 130
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
