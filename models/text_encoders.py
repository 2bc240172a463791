"""The text half of an encoder that was trained on pictures and words, such as CLIP's.

A description becomes a point in the same space as pictures, so that pictures are found by words.
The half is an entry of the catalogue like every other model, and so is its tokenizer: their files
are hashed before they are opened. The encoder's entry names the half, and the half its tokenizer.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from models.catalog import Catalog, ModelCard
from models.embedders import EmbedderOptions
from models.errors import ModelError
from models.image_input import card_options
from models.text_tokens import ClipTokens

_Run = Callable[[NDArray[np.int64]], Any]

_MASKS = ("attention_mask", "mask")
_POOLED = ("text_embeds", "text_features", "sentence_embedding")
"""What exports call the vector where they give more than that."""


class TextEncoderOptions(BaseModel):
    """The `options` that a text half's catalogue entry may have.

    Attributes:
        tokenizer: the catalogue's name of its tokenizer (task `tokenizer`).
        context: tokens that it takes; 77 in every CLIP model.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    tokenizer: str
    context: int = Field(default=77, ge=3, le=1024)


class TextEncoder:
    """A text half that is ready to run, on the processor. One instance belongs to one thread.

    Attributes:
        card: its catalogue entry.
        dimension: length of its vectors.
    """

    def __init__(self, card: ModelCard, catalog: Catalog) -> None:
        _require(card, "text-embedding", ("onnx", "torchscript"))
        options = card_options(card, TextEncoderOptions)
        tokenizer = catalog.get(options.tokenizer)
        _require(tokenizer, "tokenizer", ("tokenizer-json",))
        self.card = card
        self._tokens = ClipTokens(tokenizer.verified_path(), tokenizer.full_name)
        self._context = options.context
        path = card.verified_path()
        try:
            self._run = _onnx(path) if card.format == "onnx" else _torchscript(path)
        except Exception as error:
            raise ModelError(
                f"model '{card.full_name}': '{path}' cannot be loaded as {card.format} "
                f"({type(error).__name__}: {error}); check 'format' in its catalogue entry"
            ) from error
        self.dimension = len(self.embed("a photo"))

    def embed(self, text: str) -> list[float]:
        """The point of `text`, of unit length; words beyond `context` tokens are left out.

        Raises:
            ModelError: the network fails, or gives no vector.
        """
        ids = self._tokens.ids(text, self._context)
        # CLIP looks at what stands up to the end token, so any padding does; 0 is OpenAI's own.
        padded = np.zeros((1, self._context), np.int64)
        padded[0, : len(ids)] = ids
        try:
            found = np.asarray(self._run(padded), np.float64)
        except Exception as error:
            raise ModelError(
                f"model '{self.card.full_name}' fails on a text ({type(error).__name__}: {error}); "
                "check 'context' in the options of its catalogue entry"
            ) from error
        if found.ndim != 2 or len(found) != 1:
            raise ModelError(
                f"model '{self.card.full_name}' gives an output of shape {found.shape} for one "
                "text, not one vector; export the projected text embedding"
            )
        norm = float(np.linalg.norm(found))
        if not 0 < norm < np.inf:
            raise ModelError(f"model '{self.card.full_name}' gives this text no direction")
        vector: list[float] = (found[0] / norm).tolist()
        return vector


def load_text_encoder(card: ModelCard, catalog: Catalog) -> TextEncoder | None:
    """The text half of the encoder `card`, its files verified first; `None` if it names none.

    Raises:
        ModelError: it is not in the catalogue, cannot be verified, or cannot be loaded.
    """
    words = card_options(card, EmbedderOptions).words
    return None if words is None else TextEncoder(catalog.get(words), catalog)


def _require(card: ModelCard, task: str, formats: tuple[str, ...]) -> None:
    if card.task != task:
        raise ModelError(
            f"model '{card.full_name}' is for {card.task}, not for {task}; name another"
        )
    if card.format not in formats:
        raise ModelError(
            f"model '{card.full_name}': format '{card.format}' is not taken for {task}; "
            f"give {' or '.join(formats)}"
        )


def _torchscript(path: Path) -> _Run:
    network = torch.jit.load(str(path), map_location="cpu").eval()  # type: ignore[no-untyped-call]

    def run(ids: NDArray[np.int64]) -> Any:
        with torch.inference_mode():
            found = network(torch.from_numpy(ids))
        if isinstance(found, dict):
            found = next((found[name] for name in _POOLED if name in found), None)
        return (found[0] if isinstance(found, tuple) else found).float().numpy()

    return run


def _onnx(path: Path) -> _Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    wanted = next((name for name in _POOLED if name in names), names[0])
    inputs = session.get_inputs()

    def run(ids: NDArray[np.int64]) -> Any:
        end = int(ids[0].nonzero()[0][-1]) + 1
        mask = np.arange(ids.shape[1])[None] < end
        feed = {
            each.name: (mask if each.name in _MASKS else ids).astype(
                np.int32 if each.type == "tensor(int32)" else np.int64
            )
            for each in inputs
        }
        return session.run([wanted], feed)[0]

    return run
