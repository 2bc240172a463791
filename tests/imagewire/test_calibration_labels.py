"""Files of labels that somebody wrote to do harm end in a sentence, soon and in little memory."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest

from imagewire import calibration_labels
from imagewire.calibration_labels import Label, LabelsError, read_labels

HEADING = "image_id,label,truth,score\n"


def test_a_device_that_never_ends_is_read_no_further_than_a_line(tmp_path: Path) -> None:
    (tmp_path / "zero.csv").symlink_to("/dev/zero")
    with pytest.raises(LabelsError, match="line 1 has more than 1048576 characters"):
        read_labels(tmp_path / "zero.csv")


def test_a_pipe_is_read_up_to_the_largest_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration_labels, "MAX_FILE_BYTES", 64)
    pipe = tmp_path / "pipe.csv"
    os.mkfifo(pipe)

    def read(content: str) -> list[Label]:
        writer = threading.Thread(target=pipe.write_text, args=(content,))
        writer.start()
        try:
            return read_labels(pipe)
        finally:
            writer.join()

    assert read(HEADING + "a,nsfw,1,0.5\n") == [Label("a", "nsfw", True, 0.5)]
    with pytest.raises(LabelsError, match="more than 64 characters; split it"):
        read(HEADING + "a,nsfw,1,0.5\n" * 5)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"score": 10**400}, "'score' is '1000"),
        ({"score": float("nan")}, "'score' is 'nan'"),
        ({"score": [0.5]}, "'score' is"),
        ({"image_id": "half \ud800"}, "'image_id' has half of a character"),
        ({"label": "half \udfff"}, "'label' has half of a character"),
        ({"image_id": "a" * 5_000}, "'image_id' must be text of 1 to 4096 characters"),
    ],
)
def test_values_that_no_store_can_take_are_named(
    tmp_path: Path, row: dict[str, object], message: str
) -> None:
    file = tmp_path / "labels.jsonl"
    file.write_text(json.dumps({"image_id": "a", "label": "nsfw", "truth": True} | row))
    with pytest.raises(LabelsError, match=message):
        read_labels(file)


def test_what_is_no_text_is_said(tmp_path: Path) -> None:
    file = tmp_path / "labels.csv"
    file.write_bytes(b"\x89PNG\r\n\x1a\n\x00\x00\xff\xd8")
    with pytest.raises(LabelsError, match="is not UTF-8"):
        read_labels(file)


def test_a_formula_is_a_name_like_any_other(tmp_path: Path) -> None:
    file = tmp_path / "labels.csv"
    file.write_text(HEADING + "=HYPERLINK(A1),nsfw,1,0.5\n")
    assert read_labels(file) == [Label("=HYPERLINK(A1)", "nsfw", True, 0.5)]
