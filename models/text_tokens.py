"""Words as the numbers that CLIP's text half was trained on.

It reads the `tokenizer.json` that comes with CLIP models: byte pairs that end words with `</w>`.
The rules are few, so no package is needed for them: the text is composed (NFC), put into lower case
and cut into words, numbers and the rest; each piece is spelled in bytes, and the pairs that were
merged in training are merged again, the most frequent first.
"""

from __future__ import annotations

import functools
import json
import unicodedata
from collections.abc import Iterator, Mapping
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

from models.errors import ModelError

_LARGEST_FILE = 64 * 1024 * 1024
_SUFFIX = "</w>"
_CONTRACTIONS = ("'re", "'ve", "'ll", "'s", "'t", "'m", "'d")
_START, _END = "<|startoftext|>", "<|endoftext|>"
_STRAIGHT = str.maketrans("‘’“”", "''\"\"")
"""Quotes as they were made straight before training."""
_LONGEST_WORD = 200
"""Characters; what is longer is cut, since merging grows with the square of the length."""


class ClipTokens:
    """Turns text into token ids.

    Args:
        path: a `tokenizer.json`.
        model: `name@version`, for messages.

    Attributes:
        start, end: the ids that a text begins and ends with.

    Raises:
        ModelError: it is none of CLIP's kind.
    """

    def __init__(self, path: Path, model: str) -> None:
        document = _read(path, model)
        found = document.get("model")
        if not isinstance(found, dict) or found.get("type") != "BPE":
            raise _unlike(path, model, "its model is not BPE")
        if found.get("end_of_word_suffix") != _SUFFIX:
            raise _unlike(path, model, f"its words do not end with {_SUFFIX}")
        try:
            self._ids = {str(token): int(number) for token, number in found["vocab"].items()}
            for added in document.get("added_tokens") or []:
                self._ids[str(added["content"])] = int(added["id"])
            pairs = [_pair(merge) for merge in found["merges"]]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise _unlike(path, model, f"its vocabulary cannot be read ({error!r})") from error
        missing = [token for token in (_START, _END) if token not in self._ids]
        if missing:
            raise _unlike(path, model, f"it has no {' and no '.join(missing)}")
        self._ranks = {pair: rank for rank, pair in enumerate(pairs)}
        self.start, self.end = self._ids[_START], self._ids[_END]

    def ids(self, text: str, length: int) -> list[int]:
        """The ids of `text` between `start` and `end`, at most `length`: what is longer is cut."""
        found = [self.start]
        for word in _words(text):
            if len(found) >= length:
                break
            found += [self._ids.get(piece, self.end) for piece in self._pieces(word)]
        return [*found[: length - 1], self.end]

    def _pieces(self, word: str) -> list[str]:
        """The word as pieces that the vocabulary has."""
        letters = _letters()
        pieces = [letters[byte] for byte in word.encode("utf-8", "replace")]
        pieces[-1] += _SUFFIX
        while len(pieces) > 1:
            best = min(pairwise(pieces), key=lambda pair: self._ranks.get(pair, len(self._ranks)))
            if best not in self._ranks:
                break
            pieces = _merged(pieces, best)
        return pieces


def _read(path: Path, model: str) -> Mapping[str, Any]:
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise _unlike(path, model, f"it is larger than {_LARGEST_FILE} bytes")
        document = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(
            f"model '{model}': the tokenizer '{path}' cannot be read ({error}); give the "
            "tokenizer.json of the model"
        ) from error
    if not isinstance(document, dict):
        raise _unlike(path, model, "it is no JSON object")
    return document


def _unlike(path: Path, model: str, why: str) -> ModelError:
    return ModelError(
        f"model '{model}': the tokenizer '{path}' is not of CLIP's kind: {why}; give the "
        "tokenizer.json of a CLIP model"
    )


def _pair(merge: Any) -> tuple[str, str]:
    """A merge is written `a b`, in newer files as a list."""
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return str(left), str(right)


def _merged(pieces: list[str], pair: tuple[str, str]) -> list[str]:
    """`pieces` with every such pair made one, from the left."""
    made: list[str] = []
    position = 0
    while position < len(pieces):
        if tuple(pieces[position : position + 2]) == pair:
            made.append(pair[0] + pair[1])
            position += 2
        else:
            made.append(pieces[position])
            position += 1
    return made


def _words(text: str) -> Iterator[str]:
    """Runs of letters, single numbers, runs of other signs, and the endings that English cuts off.
    Space only parts them."""
    for chunk in unicodedata.normalize("NFC", text.translate(_STRAIGHT)).lower().split():
        rest = chunk
        while rest:
            ending = next((each for each in _CONTRACTIONS if rest.startswith(each)), None)
            word = ending or _leading(rest)
            yield word[:_LONGEST_WORD]
            rest = rest[len(word) :]


def _leading(text: str) -> str:
    kind, run = next(groupby(text, _kind))
    return text[0] if kind == "number" else "".join(run)


def _kind(character: str) -> str:
    return {"L": "letter", "N": "number"}.get(unicodedata.category(character)[0], "sign")


@functools.cache
def _letters() -> tuple[str, ...]:
    """A printable character for each of the 256 bytes, as GPT-2 and CLIP have them."""
    own = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), 256)]
    others = (chr(256 + number) for number in range(256 - len(own)))
    return tuple(chr(byte) if byte in own else next(others) for byte in range(256))
