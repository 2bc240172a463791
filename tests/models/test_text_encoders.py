"""Text halves: words become points among those of pictures, whatever the user's own files hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from colour_words import TOWERS, catalogue, tokenizer

from models.catalog import Catalog, load_catalog
from models.device import Device
from models.embedders import load_embedder
from models.errors import ModelError
from models.text_encoders import load_text_encoder
from models.text_tokens import ClipTokens


@pytest.mark.parametrize("kind", list(TOWERS))
def test_words_are_near_the_pictures_that_they_describe(
    kind: str, float32: Device, tmp_path: Path
) -> None:
    catalog = load_catalog([catalogue(tmp_path, kind)])
    card = catalog.get("colours")
    words = load_text_encoder(card, catalog)
    assert words is not None and words.dimension == 3
    pictures = torch.zeros((3, 16, 16, 3), dtype=torch.uint8)
    for axis in range(3):
        pictures[axis, ..., axis] = 200
    encoder = load_embedder(card, float32)
    points = encoder.embed(encoder.batch(list(pictures)))
    for axis, text in enumerate(("Red", "a GREEN bag", "blue!")):
        vector = torch.tensor(words.embed(text))
        assert vector.norm() == pytest.approx(1)
        assert int((points @ vector).argmax()) == axis, text
    assert words.embed("red " * 50) == pytest.approx(words.embed("red"), abs=0.01)


def test_an_encoder_without_a_text_half_has_none(catalog: Catalog) -> None:
    assert load_text_encoder(catalog.get("efficientnet-lite0"), catalog) is None


def test_pairs_are_merged_as_in_training_and_endings_cut_off(tmp_path: Path) -> None:
    tokens = ClipTokens(tokenizer(tmp_path), "t@1")
    names = json.loads((tmp_path / "tokenizer.json").read_text())["model"]["vocab"]
    shown = {number: name for name, number in names.items()}

    def pieces(text: str, length: int = 77) -> list[str]:
        return [shown[number] for number in tokens.ids(text, length)[1:-1]]

    assert pieces("  Red\n greEN ") == ["red</w>", "green</w>"]
    assert pieces("rede") == ["r", "e", "d", "e</w>"]
    assert pieces("red!blue") == ["red</w>", "!</w>", "blue</w>"]
    assert tokens.ids("red " * 9, 4)[0::3] == [tokens.start, tokens.end]
    assert pieces("") == []


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({'task = "text-embedding"': 'task = "classification"'}, "not for text-embedding"),
        ({'words = "colour-words"': 'words = "colour-word"'}, "did you mean 'colour-words'"),
        ({'tokenizer = "colour-tokens"': 'tokenizer = "colours"'}, "not for tokenizer"),
        ({"context = 8": "context = 9, pad = 1"}, "unknown key 'pad'"),
        ({'weights = "words.pt"': 'weights = "pictures.pt"'}, "have SHA-256"),
        ({'format = "tokenizer-json"': 'format = "onnx"'}, "give tokenizer-json"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_reason(
    changes: dict[str, str], complaint: str, tmp_path: Path
) -> None:
    catalog = load_catalog([catalogue(tmp_path, **changes)])
    with pytest.raises(ModelError, match=complaint):
        load_text_encoder(catalog.get("colours"), catalog)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"type": "Unigram"}, "its model is not BPE"),
        ({"end_of_word_suffix": None}, "do not end with </w>"),
        ({"merges": [7]}, "its vocabulary cannot be read"),
        ({"vocab": {"a": 1}}, "no <|startoftext|>"),
    ],
)
def test_another_kind_of_tokenizer_is_refused(
    changes: dict[str, Any], complaint: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelError) as refused:
        ClipTokens(tokenizer(tmp_path, **changes), "t@1")
    assert complaint in str(refused.value)
