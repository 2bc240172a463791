"""`imagewire calibrate`: from labels, wherever their scores are, to a file that policies read."""

from __future__ import annotations

import csv
import json
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import clickhouse_connect
import numpy as np
import pytest
from front_process import ClickHouseServer

from imagewire.calibration_labels import Label, LabelsError, read_labels
from imagewire.cli import run
from imagewire.settings import load_settings
from operators.calibration import calibrated_scores, read_calibration
from operators.findings import Detection, Findings
from operators.frame import Frame, Origin
from operators.policy import Policy
from sinks.clickhouse.settings import ClickHouseSettings
from sinks.clickhouse.sink import ClickHouseSink

RANDOM = np.random.default_rng(4)
LOGITS = RANDOM.normal(-1.0, 1.6, 600)
TRUTH = RANDOM.random(600) < 1 / (1 + np.exp(-LOGITS))
SCORES = 1 / (1 + np.exp(-2.5 * LOGITS))
"""Of a network that is too sure of itself: its logits are 2.5 times what they should be."""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def labels_file(
    rows: Sequence[Sequence[object]],
    name: str = "labels.csv",
    heading: Sequence[str] = ("image_id", "label", "truth", "score"),
) -> str:
    with Path(name).open("w", newline="") as file:
        csv.writer(file).writerows([heading, *rows])
    return name


def rows(count: int = 600) -> list[tuple[object, ...]]:
    chosen = range(count)
    return [(f"photo-{n}", "nsfw", str(bool(TRUTH[n])), f"{SCORES[n]:.9f}") for n in chosen]


def test_the_file_that_is_written_gives_policies_better_probabilities(
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ["--labels", labels_file(rows()), "--model", "open-nsfw"]
    targets = ["--target-precision", "0.9", "--target-recall", "0.8"]
    assert run(["calibrate", *arguments, *targets, "--method", "temperature", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    own = told["labels"]["nsfw"]
    assert own["after"]["ece"] < own["before"]["ece"] / 2
    assert own["after"]["brier"] < own["before"]["brier"]
    calibration = read_calibration(Path(told["file"]))
    assert told["file"] == "open-nsfw-1.0.0.calibration.json"
    assert calibration.labels["nsfw"].temperature == pytest.approx(2.5, rel=0.2)

    given = np.array(
        [
            calibrated_scores([calibration], {"nsfw": score}, ["open-nsfw@1.0.0"])["nsfw"]
            for score in SCORES.tolist()
        ]
    )
    assert abs(given.mean() - TRUTH.mean()) < 0.06
    precise, recalling = calibration.labels["nsfw"].thresholds
    assert precise.target_precision == 0.9
    assert TRUTH[given >= precise.threshold - 1e-9].mean() >= 0.9
    assert precise.low < 0.9 < precise.high or precise.low >= 0.9
    assert recalling.target_recall == 0.8
    assert TRUTH[given >= recalling.threshold - 1e-9].sum() / TRUTH.sum() >= 0.8
    # Another version of the model is another model.
    assert calibrated_scores([calibration], {"nsfw": 0.5}, ["open-nsfw@2.0.0"]) == {}


def test_people_are_shown_the_table_the_thresholds_and_where_it_was_written(
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ["--labels", labels_file(rows()), "--model", "open-nsfw", "--out", "nsfw.json"]
    assert run(["calibrate", *arguments, "--target-precision", "0.9"]) == 0
    printed = capsys.readouterr()
    assert "ECE 0." in printed.out and "0.9 to 1.0" in printed.out
    said = " ".join(printed.err.split())
    assert "for a precision of 0.9 take calibrated['nsfw'] >= 0." in said
    assert "(Wilson)" in said
    assert '[policy] calibrations = ["nsfw.json"]' in said
    assert Path("nsfw.json").is_file()
    drawing = ElementTree.parse("nsfw.svg")
    texts = [text.text or "" for text in drawing.iter("{http://www.w3.org/2000/svg}text")]
    assert any("calibrated" in text and "ECE" in text for text in texts)


def test_what_is_learnt_of_a_packaged_model_is_kept_in_the_folder_that_policies_read(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = folder / "kept"
    Path("imagewire.toml").write_text(f'[policy]\ncalibrations_folder = "{kept}"\n')
    rules = "[[rules]]\nname = 'sure'\nwhen = \"calibrated['nsfw'] > 0.5\"\naction = 'block'\n"
    Path("house.toml").write_text(rules)
    settings = load_settings().settings.policy
    before = Policy.load(Path("house.toml"), settings.calibration_files())
    arguments = ["--labels", labels_file(rows()), "--model", "open-nsfw"]
    assert run(["calibrate", *arguments]) == 0
    assert "workers use it from now on" in " ".join(capsys.readouterr().err.split())
    assert [path.name for path in settings.calibration_files()] == [
        "open-nsfw-1.0.0.calibration.json"
    ]
    after = Policy.load(Path("house.toml"), settings.calibration_files())
    assert (before.calibrations, after.version != before.version) == ((), True)
    assert after.calibrations[0].model == "open-nsfw@1.0.0"
    assert run(["policy", "check", "house.toml"]) == 0


def test_too_few_labels_are_refused_with_how_many_are_missing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ["--labels", labels_file(rows(20)), "--model", "open-nsfw"]
    assert run(["calibrate", *arguments]) == 1
    assert "20 of each are needed; label" in " ".join(capsys.readouterr().err.split())
    assert not list(Path().glob("*.json"))


def test_a_target_that_no_threshold_reaches_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    # Of ten images each two, five and eight are true.
    noise = [
        (f"p{score}-{n}", "nsfw", int(n % 10 < true), score)
        for score, true in ((0.2, 2), (0.5, 5), (0.8, 8))
        for n in range(100)
    ]
    arguments = ["--labels", labels_file(noise), "--model", "open-nsfw"]
    assert run(["calibrate", *arguments, "--target-precision", "0.99"]) == 0
    assert "no threshold reaches a precision of 0.99" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("image,label,truth\n", "no column 'image_id'"),
        ("image_id,label,truth\na,nsfw,perhaps\n", "line 2: 'truth' is 'perhaps'"),
        ("image_id,label,truth,score\na,nsfw,1,7\n", "line 2: 'score' is '7'"),
        ("image_id,label,truth,score\na,nsfw,1,nan\n", "line 2: 'score' is 'nan'"),
        ("image_id,label,truth\n,nsfw,1\n", "line 2: 'image_id' must be text"),
        ("image_id,label,truth\na,nsfw,1\na,nsfw,0\n", "line 3: image 'a' is and is not 'nsfw'"),
        ('image_id,label,truth\n"a,nsfw,1\n', "no CSV"),
        ("", "no column 'image_id'"),
    ],
)
def test_a_wrong_line_is_named(content: str, message: str) -> None:
    Path("wrong.csv").write_text(content)
    with pytest.raises(LabelsError, match=message):
        read_labels(Path("wrong.csv"))


def test_json_lines_are_labels_too() -> None:
    Path("labels.jsonl").write_text(
        '{"image_id": "a", "label": "nsfw", "truth": true, "score": 0.5}\n\n'
        '{"image_id": "b", "label": "nsfw", "truth": 0}\n'
    )
    assert read_labels(Path("labels.jsonl")) == [
        Label("a", "nsfw", True, 0.5),
        Label("b", "nsfw", False),
    ]
    for line in ("[1]", "{", '{"image_id": 7, "label": "x", "truth": 1}', "[" * 100_000):
        Path("labels.jsonl").write_text(line)
        with pytest.raises(LabelsError, match="line 1"):
            read_labels(Path("labels.jsonl"))


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--model", "open-nsfv"], 1, "did you mean 'open-nsfw'"),
        (["--model", "nudenet-320n"], 1, "'nsfw' is no label of nudenet-320n"),
        (["--model", "open-nsfw", "--label", "sfw"], 1, "its labels: nsfw"),
        (["--model", "open-nsfw", "--target-precision", "95"], 2, "must be between 0 and 1"),
    ],
)
def test_what_makes_no_sense_is_said(
    arguments: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["calibrate", "--labels", labels_file(rows()), *arguments]) == code
    assert message in " ".join(capsys.readouterr().err.split())


@pytest.fixture
async def stored(
    clickhouse_front: ClickHouseServer, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], Any]:
    """600 images that open-nsfw and the detector have looked at, and 50 of an older network."""
    database = f"calibrate_{secrets.token_hex(5)}"
    settings = ClickHouseSettings(
        host=clickhouse_front.host,
        port=clickhouse_front.port,
        username="writer",
        password=clickhouse_front.writer_password,
        database=database,
    )
    for name, value in {
        "HOST": settings.host,
        "PORT": settings.port,
        "USERNAME": "writer",
        "PASSWORD": clickhouse_front.writer_password,
        "DATABASE": database,
    }.items():
        monkeypatch.setenv(f"IMAGEWIRE_CLICKHOUSE__{name}", str(value))
    frames = []
    for number in range(650):
        score = float(SCORES[number % 600])
        frame = Frame(f"photo-{number}", "f", 1, Origin("images", 0, number, 1_700_000_000_000))
        boxes = [Detection("FACE_MALE", s, (0, 0, 1, 1)) for s in (score / 2, score)]
        frame.findings = Findings(
            objects=boxes if score > 0.25 else [],
            scores={"nsfw": score},
            models={
                "scores": "open-nsfw@1.0.0" if number < 600 else "open-nsfw@0.9",
                "objects": "nudenet-320n@3.4.2",
            },
        )
        frames.append(frame)
    sink = ClickHouseSink(settings)
    await sink.open()
    await sink.write(frames)
    await sink.close()

    def client() -> Any:
        return clickhouse_connect.get_client(
            host=settings.host,
            port=settings.port,
            username="writer",
            password=clickhouse_front.writer_password,
            database=database,
        )

    return client


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    capsys.readouterr()
    assert run(["calibrate", *arguments, "--json"]) == 0
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    return answer


def test_scores_come_from_clickhouse_where_the_file_has_none(
    stored: Callable[[], Any], capsys: pytest.CaptureFixture[str]
) -> None:
    with_scores = told(capsys, "--labels", labels_file(rows()), "--model", "open-nsfw")
    bare = [(f"photo-{n}", "nsfw", bool(TRUTH[n % 600])) for n in range(650)]
    bare.append(("photo-of-nobody", "nsfw", True))
    file = labels_file(bare, "bare.csv", ("image_id", "label", "truth"))
    joined = told(capsys, "--labels", file, "--model", "open-nsfw")
    assert joined["labels"]["nsfw"]["after"] == pytest.approx(
        with_scores["labels"]["nsfw"]["after"], abs=1e-5
    )
    assert joined["skipped"] == {"of images that open-nsfw@1.0.0 has not looked at": 51}


def test_of_a_detector_the_best_box_counts_and_none_is_no_score(
    stored: Callable[[], Any], capsys: pytest.CaptureFixture[str]
) -> None:
    bare = [(f"photo-{n}", "FACE_MALE", bool(TRUTH[n])) for n in range(600)]
    file = labels_file(bare, "bare.csv", ("image_id", "label", "truth"))
    found = told(capsys, "--labels", file, "--model", "nudenet-320n", "--target-recall", "0.99")
    own = found["labels"]["FACE_MALE"]
    assert own["yes"] == int(TRUTH.sum())
    below = int((SCORES <= 0.25).sum())
    assert own["reliability_before"][0]["count"] == below
    assert own["thresholds"] == [{"target_recall": 0.99, "threshold": None}]


def test_what_reviewers_decided_are_labels(
    stored: Callable[[], Any], capsys: pytest.CaptureFixture[str]
) -> None:
    columns = ["image_id", "decision", "reviewer", "labels", "audited_rules", "decision_id"]
    decisions = [
        (
            f"photo-{n}",
            "block" if TRUTH[n] else "allow",
            "ann",
            ["nsfw"] if TRUTH[n] else [],
            ["a-rule"] if n < 300 else [],
            f"d{n}",
        )
        for n in range(500)
    ]
    # Blocked for a reason that nobody named: that says nothing about any label.
    decisions += [(f"photo-{n}", "block", "ann", [], [], f"d{n}") for n in range(500, 520)]
    with stored() as client:
        client.insert("reviews_raw", decisions, column_names=columns)
    reviews = told(capsys, "--labels", "reviews", "--model", "open-nsfw")["labels"]["nsfw"]
    assert (reviews["yes"], reviews["no"]) == (TRUTH[:500].sum(), (~TRUTH[:500]).sum())
    drawn = told(capsys, "--labels", "reviews", "--audits", "--model", "open-nsfw")
    assert drawn["labels"]["nsfw"]["yes"] == TRUTH[:300].sum()
