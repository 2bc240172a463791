"""A model of pictures and words that anybody can check: mean colours, and their names.

It is made of files as users would bring their own: two networks, a tokenizer, and a catalogue that
names them with their SHA-256.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from models.weights import sha256_of

CONTEXT = 8
WORDS = ("red</w>", "green</w>", "blue</w>")


def tokenizer(folder: Path, **changes: Any) -> Path:
    """Letters, what ends a word, and the merges that make the names of three colours."""
    letters = "abdegnrlu"
    vocabulary = ["!", *letters, *(f"{letter}</w>" for letter in (*letters, "!"))]
    merges = []
    for word in ("red", "green", "blue"):
        pieces = [*word[:-1], f"{word[-1]}</w>"]
        while len(pieces) > 1:
            pieces[-2:] = [f"{pieces[-2]} {pieces[-1]}"]
            merges.append(pieces[-1])
            pieces[-1] = pieces[-1].replace(" ", "")
            vocabulary.append(pieces[-1])
    vocabulary += ["<|startoftext|>", "<|endoftext|>"]
    numbers = {token: number for number, token in enumerate(vocabulary)}
    model = {
        "type": "BPE",
        "end_of_word_suffix": "</w>",
        "vocab": numbers,
        "merges": merges,
    }
    path = folder / "tokenizer.json"
    path.write_text(json.dumps({"model": model | changes, "added_tokens": []}))
    return path


def table(tokens: Path) -> np.ndarray:
    """What each token says: red, green or blue, and next to nothing for all others."""
    numbers = json.loads(tokens.read_text())["model"]["vocab"]
    values = np.zeros((len(numbers), 3), np.float32)
    for axis, word in enumerate(WORDS):
        values[numbers[word], axis] = 1
    values[numbers["<|endoftext|>"]] = 0.01
    return values


class Tower(torch.nn.Module):
    def __init__(self, values: np.ndarray) -> None:
        super().__init__()
        self.table = torch.nn.Parameter(torch.from_numpy(values))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.table[ids].sum(1)


def torchscript_tower(folder: Path, values: np.ndarray) -> Path:
    path = folder / "words.pt"
    ids = torch.zeros((1, CONTEXT), dtype=torch.int64)
    torch.jit.save(torch.jit.trace(Tower(values), ids), path)
    return path


def onnx_tower(folder: Path, values: np.ndarray) -> Path:
    """As exports have it: with a mask, and the vectors of tokens before the one that is meant."""
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["last_hidden_state"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "axis"], ["wide"]),
        helper.make_node("Mul", ["last_hidden_state", "wide"], ["seen"]),
        helper.make_node("ReduceSum", ["seen", "one"], ["text_embeds"], keepdims=0),
    ]
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, [1, "length"])
        for name in ("input_ids", "attention_mask")
    ]
    outputs = [
        helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, [1, "length", 3]),
        helper.make_tensor_value_info("text_embeds", TensorProto.FLOAT, [1, 3]),
    ]
    constants = {"table": values, "axis": np.array([2]), "one": np.array([1])}
    stored = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "words", inputs, outputs, stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path = folder / "words.onnx"
    onnx.save(model, path)
    return path


Make = Callable[[Path, np.ndarray], Path]
TOWERS: dict[str, Make] = {"torchscript": torchscript_tower, "onnx": onnx_tower}


def catalogue(folder: Path, kind: str = "torchscript", **changes: str) -> Path:
    """A catalogue file with the encoder `colours` and its text half.

    Args:
        kind: of the text half's file.
        changes: texts in the catalogue, and what stands there instead.
    """
    tokens = tokenizer(folder)
    network = torch.nn.Sequential(torch.nn.AvgPool2d(8), torch.nn.Flatten())
    pictures = folder / "pictures.pt"
    torch.jit.save(torch.jit.trace(network, torch.zeros(1, 3, 8, 8)), pictures)
    words = TOWERS[kind](folder, table(tokens))
    entries = {
        "colours": (
            "embedding",
            "torchscript",
            pictures,
            'input_size = 8\noptions = { words = "colour-words", mean = [0, 0, 0], '
            "std = [1, 1, 1] }",
        ),
        "colour-words": (
            "text-embedding",
            kind,
            words,
            f'options = {{ tokenizer = "colour-tokens", context = {CONTEXT} }}',
        ),
        "colour-tokens": ("tokenizer", "tokenizer-json", tokens, ""),
    }
    text = ""
    for name, (task, form, path, more) in entries.items():
        text += (
            f'[model.{name}]\nversion = "1"\ntask = "{task}"\nweights = "{path.name}"\n'
            f'sha256 = "{sha256_of(path)}"\nlicence = "CC0-1.0"\nformat = "{form}"\n{more}\n'
        )
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    file = folder / "models.toml"
    file.write_text(text)
    return file
