"""What comparing an image with the banlists costs, by how many hashes are banned.

Hashes are random, as those of unlike pictures nearly are, and so are the images: nothing matches,
which is what nearly all images do. One thread, in processor time.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import torch

from bench.figures import Options, Report, figure
from operators.ban_records import BanKey, Banlist, BannedExemplar, BannedHash
from operators.banlists import Banlists, Change
from operators.exemplars import Exemplars, packed
from operators.findings import Fingerprint

COUNTS = (1_000, 100_000, 1_000_000)
TARGET = 1000.0
"""Microseconds an image beside a million PDQ hashes."""
EXEMPLARS = (100, 1_000, 10_000)
DIMENSION = 1280
BATCH = 16
_AT_ONCE = 2_000


def run(options: Options) -> Report:
    """Measure matching beside every number of hashes, then of exemplars."""
    counts = COUNTS[:1] if options.quick else COUNTS
    repeats = 1 if options.quick else options.repeats
    images = 20 if options.quick else 300
    figures, rows = [], []
    for count in counts:
        banlists, built = _banned(count)
        turned, upright, by_bytes = [], [], []
        plain, _ = _banned(count, turns=False)
        for _ in range(repeats):
            turned.append(_matching(banlists, images))
            upright.append(_matching(plain, images))
            by_bytes.append(_by_bytes(banlists, images))
        plain.close()
        banlists.close()
        options.report(f"{count:,} hashes: {turned[-1]:.0f} µs")
        target = TARGET if count == COUNTS[-1] else None
        figures.append(
            figure(f"known_images_pdq_{count}_us", turned, target=target, better="lower", unit="µs")
        )
        figures.append(
            figure(f"known_images_sha256_{count}_us", by_bytes, better="lower", unit="µs")
        )
        rows.append(
            f"| {count:,} | {_median(turned):.0f} | {_median(upright):.0f} | "
            f"{_median(by_bytes):.1f} | {built:.1f} |"
        )
    near = []
    for count in EXEMPLARS[:1] if options.quick else EXEMPLARS:
        spent = [_resembling(count) for _ in range(repeats)]
        figures.append(
            figure(f"known_images_exemplars_{count}_us", spent, better="lower", unit="µs")
        )
        near.append(f"| {count:,} | {_median(spent):.0f} |")
    text = "\n".join(
        [
            "Processor time in µs for one image, on one thread. PDQ: all eight positions of the "
            "picture are looked up, then the upright one alone. Every hash within 31 bits is found "
            "(the index misses none; `tests/operators/test_hash_index.py`).",
            "",
            "| banned hashes | PDQ, turned and mirrored too | PDQ, upright only | SHA-256 | "
            "processor seconds to load and index |",
            "|---|---|---|---|---|",
            *rows,
            "",
            f"Embeddings of {DIMENSION} numbers in batches of {BATCH}, by one matrix product:",
            "",
            "| exemplars | µs an image |",
            "|---|---|",
            *near,
        ]
    )
    return Report("Known images", "make bench ONLY=known_images", text, figures)


def _banned(count: int, *, turns: bool = True) -> tuple[Banlists, float]:
    """A list with so many hashes of each kind, and the processor seconds that it took."""
    codes = np.random.default_rng(1).integers(0, 256, (count, 32), dtype=np.uint8)
    banlists = Banlists(turns=turns)
    any_hash = BannedHash(list="banned", kind="pdq", hash="0" * 64)
    started = time.process_time()
    banlists.begin_loading()
    banlists.apply([Change(BanKey("list", "banned"), Banlist(name="banned"))])
    for kind in ("pdq", "sha256"):
        for start in range(0, count, _AT_ONCE):
            banlists.apply(
                Change(BanKey(kind, "banned", code.tobytes().hex()), any_hash)
                for code in codes[start : start + _AT_ONCE]
            )
    banlists.end_loading()
    return banlists, time.process_time() - started


def _fingerprints(images: int) -> list[Fingerprint]:
    codes = np.random.default_rng(2).integers(0, 256, (images, 64), dtype=np.uint8)
    return [Fingerprint(code[:32].tobytes().hex(), code[32:].tobytes().hex(), 90) for code in codes]


def _matching(banlists: Banlists, images: int) -> float:
    fingerprints = _fingerprints(images)
    started = time.process_time()
    for fingerprint in fingerprints:
        banlists.match_picture(fingerprint)
    return (time.process_time() - started) / images * 1e6


def _by_bytes(banlists: Banlists, images: int) -> float:
    fingerprints = _fingerprints(images)
    started = time.process_time()
    for fingerprint in fingerprints:
        banlists.match_content(fingerprint.content_id)
    return (time.process_time() - started) / images * 1e6


def _resembling(count: int) -> float:
    generator = np.random.default_rng(3)
    exemplars = Exemplars()
    for number in range(count):
        vector = _unit(generator.standard_normal(DIMENSION)).tolist()
        exemplars.add(
            0,
            BannedExemplar(
                list="banned", hash=f"{number:064x}", model="m@1", vector=packed(vector)
            ),
        )
    asked = [_unit(generator.standard_normal(DIMENSION)).tolist() for _ in range(BATCH)]
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rounds = 10
        started = time.process_time()
        for _ in range(rounds):
            list(exemplars.near("m@1", asked, {0: 0.3}))
        return (time.process_time() - started) / rounds / BATCH * 1e6
    finally:
        torch.set_num_threads(before)


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def _median(values: Sequence[float]) -> float:
    return float(np.median(values))
