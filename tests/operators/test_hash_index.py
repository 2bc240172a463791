"""What the index of hashes promises: nothing near is missed, nothing far is found."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch

from operators.fingerprint import pdq
from operators.hash_index import LINEAR_UP_TO, ExactIndex, PdqIndex
from operators.pdq_turns import TURNS, turned


def random_codes(count: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 32), dtype=np.uint8)


def changed(code: np.ndarray, bits: int, generator: np.random.Generator) -> np.ndarray:
    """`code` with so many of its bits changed."""
    flat = np.unpackbits(code)
    flat[generator.choice(256, bits, replace=False)] ^= 1
    return np.packbits(flat)


@pytest.mark.parametrize("count", [LINEAR_UP_TO, 20_000])
def test_every_hash_within_31_bits_is_found_and_none_beyond(count: int) -> None:
    codes = random_codes(count)
    index = PdqIndex(codes)
    generator = np.random.default_rng(2)
    for row in range(600):
        bits = int(generator.integers(0, 40))
        found = index.search(changed(codes[row], bits, generator)[None])
        expected = [(row, bits)] if bits <= 31 else []
        assert list(zip(found.rows.tolist(), found.distances.tolist(), strict=True)) == expected


def test_hashes_whose_differences_gather_in_few_words_are_found() -> None:
    codes = random_codes(5000)
    index = PdqIndex(codes)
    for first in range(0, 225, 5):
        flat = np.unpackbits(codes[first])
        flat[first : first + 31] ^= 1
        assert first in index.search(np.packbits(flat)[None]).rows


def test_hashes_whose_differences_are_spread_over_all_words_are_found() -> None:
    codes = random_codes(5000)
    index = PdqIndex(codes)
    for row in range(200):
        flat = np.unpackbits(codes[row]).reshape(16, 16)
        flat[:, row % 16] ^= 1
        flat[1:, (row + 5) % 16] ^= 1
        found = index.search(np.packbits(flat)[None])
        assert (row, 31) in zip(found.rows.tolist(), found.distances.tolist(), strict=True)


def test_several_queries_are_answered_at_once_and_told_apart() -> None:
    codes = random_codes(3000)
    found = PdqIndex(codes).search(codes[[5, 2000, 5]])
    pairs = zip(found.queries.tolist(), found.rows.tolist(), strict=True)
    assert sorted(pairs) == [(0, 5), (1, 2000), (2, 5)]


def test_a_distance_for_which_hashes_could_be_missed_is_refused() -> None:
    with pytest.raises(ValueError, match="may be missed"):
        PdqIndex(random_codes(2)).search(random_codes(1), 32)


def test_an_exact_hash_is_found_wherever_it_stands() -> None:
    codes = np.concatenate([random_codes(5000), random_codes(10)])
    index = ExactIndex(codes)
    assert sorted(index.rows_of(codes[3].tobytes())) == [3, 5003]
    near = bytearray(codes[3].tobytes())
    near[31] ^= 1
    assert index.rows_of(bytes(near)) == []
    assert index.rows_of(hashlib.sha256(b"other").digest()) == []


def positions(picture: np.ndarray) -> dict[str, np.ndarray]:
    """The picture in every position, by its name."""
    across, half = picture[:, ::-1], picture[::-1, ::-1]
    return {
        "": picture,
        "mirrored": across,
        "mirrored top to bottom": picture[::-1],
        "turned by 180°": half,
        "turned by 90°": np.rot90(picture, -1),
        "turned by 270°": np.rot90(picture),
        "turned by 90° and mirrored": picture.transpose(1, 0, 2),
        "turned by 270° and mirrored": half.transpose(1, 0, 2),
    }


def test_the_hash_of_a_turned_picture_leads_back_to_that_of_the_upright_one() -> None:
    from skimage import data

    picture = data.astronaut()
    banned = pdq(torch.from_numpy(picture))[0]
    wanted = np.frombuffer(bytes.fromhex(banned), np.uint8)
    assert set(TURNS) == set(positions(picture))
    for name, turned_picture in positions(picture).items():
        digest, _ = pdq(torch.from_numpy(np.ascontiguousarray(turned_picture)))
        distances = np.bitwise_count(turned(bytes.fromhex(digest)) ^ wanted).sum(axis=1)
        assert distances.min() <= 31
        # How the picture was turned, which undoing its turn from the hash found out.
        assert TURNS[int(distances.argmin())] == name
