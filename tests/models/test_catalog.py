"""The catalogue: what is bundled, what users add, and how a mistake in a file is reported."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.catalog import Catalog, load_catalog
from models.errors import ModelError
from models.weights import sha256_of

ENTRY = """
[model.cars]
version = "2.1"
task = "detection"
weights = "weights/cars.onnx"
sha256 = "{sha256}"
licence = "Apache-2.0"
format = "onnx"
labels = ["car", "lorry"]
input_size = [384, 640]
"""


@pytest.fixture
def own_file(tmp_path: Path) -> Path:
    """A user's catalogue with one model whose weights are really there."""
    weights = tmp_path / "weights" / "cars.onnx"
    weights.parent.mkdir()
    weights.write_bytes(b"some weights")
    path = tmp_path / "own.toml"
    path.write_text(ENTRY.format(sha256=sha256_of(weights)))
    return path


def test_every_bundled_model_is_there_and_is_what_the_catalogue_promises(catalog: Catalog) -> None:
    assert catalog.names() == [
        "nudenet-320n",
        "centerface",
        "ppocr-v6-det-small",
        "ppocr-v6-rec-small",
        "efficientnet-lite0",
        "open-nsfw",
    ]
    for card in catalog:
        assert card.verified_path().stat().st_size > 1_000_000
        assert card.licence


def test_models_can_be_listed_by_task(catalog: Catalog) -> None:
    assert catalog.names("detection") == ["nudenet-320n"]
    assert catalog.names("text-recognition") == ["ppocr-v6-rec-small"]


def test_the_full_name_carries_the_version(catalog: Catalog) -> None:
    assert catalog.get("nudenet-320n").full_name == "nudenet-320n@3.4.2"


def test_an_unknown_model_is_answered_with_the_nearest_name(catalog: Catalog) -> None:
    with pytest.raises(ModelError, match=r"no model 'nudenet' \(did you mean 'nudenet-320n'\?\)"):
        catalog.get("nudenet")


def test_users_add_models_with_paths_relative_to_their_file(own_file: Path) -> None:
    card = load_catalog([own_file]).get("cars")
    assert card.verified_path() == own_file.parent / "weights" / "cars.onnx"
    assert card.labels == {0: "car", 1: "lorry"}
    assert card.input_size == (384, 640)
    assert not card.trust


def test_a_later_file_overrides_an_earlier_entry(tmp_path: Path, own_file: Path) -> None:
    later = tmp_path / "later.toml"
    later.write_text(own_file.read_text().replace('"2.1"', '"2.2"'))
    catalog = load_catalog([own_file, later])
    assert catalog.get("cars").full_name == "cars@2.2"
    assert len(catalog) == len(load_catalog()) + 1


def test_a_mapping_may_name_some_classes_only(own_file: Path) -> None:
    own_file.write_text(own_file.read_text().replace('["car", "lorry"]', '{ 1 = "lorry" }'))
    assert load_catalog([own_file]).get("cars").labels == {1: "lorry"}


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (("version =", "versoin ="), r"unknown key 'versoin' \(did you mean 'version'\?\)"),
        (('licence = "Apache-2.0"\n', ""), "the key 'licence' is missing"),
        (('"detection"', '"detecting"'), "key 'task'"),
        (("[384, 640]", "0"), "key 'input_size'.*at least 1 pixel"),
    ],
)
def test_a_broken_entry_is_refused_with_file_model_and_key(
    own_file: Path, change: tuple[str, str], complaint: str
) -> None:
    own_file.write_text(own_file.read_text().replace(*change))
    with pytest.raises(ModelError, match=rf"own\.toml: model 'cars': .*{complaint}"):
        load_catalog([own_file])


def test_an_entry_without_a_digest_is_refused(own_file: Path) -> None:
    lines = [line for line in own_file.read_text().splitlines() if "sha256" not in line]
    own_file.write_text("\n".join(lines))
    with pytest.raises(ModelError, match="'cars': the key 'sha256' is missing"):
        load_catalog([own_file])


def test_a_file_that_is_not_toml_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text("[model.cars\n")
    with pytest.raises(ModelError, match=r"own\.toml' is not valid TOML"):
        load_catalog([path])


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"absent\.toml' cannot be read"):
        load_catalog([tmp_path / "absent.toml"])
