"""Banlists promise: what is banned is found at once, what is taken back is not, whatever is being
built meanwhile; and each list's own limits hold."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
import pytest

from operators.ban_records import (
    BanKey,
    Banlist,
    BannedExemplar,
    BannedHash,
    BanRecord,
    BanRecordError,
    decode,
    decode_key,
    encode,
    key_of,
)
from operators.banlists import MOST_MATCHES, Banlists, Change, consulted
from operators.exemplars import packed
from operators.findings import Fingerprint
from operators.hash_layers import FREEZE_AT

CONTENT = hashlib.sha256(b"some picture").hexdigest()


@pytest.fixture
def banlists() -> Iterator[Banlists]:
    lists = Banlists()
    yield lists
    lists.close()


def hashes(count: int, seed: int = 1) -> list[str]:
    codes = np.random.default_rng(seed).integers(0, 256, (count, 32), dtype=np.uint8)
    return [code.tobytes().hex() for code in codes]


def add(banlists: Banlists, *records: BanRecord) -> None:
    banlists.apply(Change(key_of(record), record) for record in records)


def remove(banlists: Banlists, *records: BanRecord) -> None:
    banlists.apply(Change(key_of(record), None) for record in records)


def banned(digest: str, *, list: str = "terror", kind: str = "pdq") -> BannedHash:
    return BannedHash(list=list, kind=kind, hash=digest)  # type: ignore[arg-type]


def found(banlists: Banlists, digest: str, quality: int = 100) -> list[tuple[str, int]]:
    fingerprint = Fingerprint(CONTENT, digest, quality)
    return [(match.list, match.distance) for match in banlists.match_picture(fingerprint)]


def near(digest: str, bits: int) -> str:
    flat = np.unpackbits(np.frombuffer(bytes.fromhex(digest), np.uint8))
    flat[:bits] ^= 1
    return np.packbits(flat).tobytes().hex()


def test_a_ban_is_in_force_at_once_and_names_its_list(banlists: Banlists) -> None:
    [digest] = hashes(1)
    add(banlists, Banlist(name="terror", reason="propaganda", action="review"), banned(digest))
    [match] = banlists.match_picture(Fingerprint(CONTENT, near(digest, 12), 90))
    assert (match.list, match.kind, match.distance) == ("terror", "pdq", 12)
    assert (match.reason, match.action, match.entry) == ("propaganda", "review", digest)


def test_a_file_is_known_by_its_bytes_alone(banlists: Banlists) -> None:
    add(banlists, Banlist(name="terror"), banned(CONTENT, kind="sha256"))
    [match] = banlists.match_content(CONTENT)
    assert (match.list, match.kind, match.entry) == ("terror", "sha256", CONTENT)
    assert banlists.match_content(hashlib.sha256(b"other").hexdigest()) == []


def test_what_is_taken_back_is_not_found_and_may_come_back(banlists: Banlists) -> None:
    [digest] = hashes(1)
    for kind in ("pdq", "sha256"):
        add(banlists, Banlist(name="terror"), banned(digest, kind=kind))
        remove(banlists, banned(digest, kind=kind))
    assert found(banlists, digest) == []
    assert banlists.match_content(digest) == []
    add(banlists, banned(digest), banned(digest, kind="sha256"))
    assert found(banlists, digest) == [("terror", 0)]
    assert len(banlists.match_content(digest)) == 1


@pytest.mark.parametrize("kind", ["pdq", "sha256"])
def test_changes_hold_while_indexes_are_built_over_and_over(banlists: Banlists, kind: str) -> None:
    digests = hashes(30 * FREEZE_AT)
    add(banlists, Banlist(name="terror"))

    def is_banned(digest: str) -> bool:
        if kind == "sha256":
            return bool(banlists.match_content(digest))
        return found(banlists, digest) == [("terror", 0)]

    present: dict[str, bool] = {}
    generator = np.random.default_rng(3)
    for start in range(0, len(digests), 500):
        part = digests[start : start + 500]
        add(banlists, *(banned(digest, kind=kind) for digest in part))
        present |= dict.fromkeys(part, True)
        for digest in generator.choice(list(present), 60, replace=False):
            remove(banlists, banned(digest, kind=kind))
            present[digest] = False
        for digest in generator.choice(list(present), 20, replace=False):
            assert is_banned(digest) is present[digest]
    banlists.end_loading()
    for digest in generator.choice(list(present), 500, replace=False):
        assert is_banned(digest) is present[digest]
    assert banlists.counts[kind] == pytest.approx(sum(present.values()), abs=2 * FREEZE_AT)


def test_loading_very_many_ends_with_all_of_them_in_force(banlists: Banlists) -> None:
    digests = hashes(150_000)
    banlists.begin_loading()
    add(banlists, *(banned(digest) for digest in digests), Banlist(name="terror"))
    banlists.end_loading()
    for digest in digests[::10_000]:
        assert found(banlists, near(digest, 31)) == [("terror", 31)]


def test_each_list_has_its_own_distance_and_quality(banlists: Banlists) -> None:
    [digest] = hashes(1)
    add(
        banlists,
        Banlist(name="strict", max_distance=10, min_quality=80),
        Banlist(name="loose", max_distance=31, min_quality=0),
        banned(digest, list="strict"),
        banned(digest, list="loose"),
    )
    assert {name for name, _ in found(banlists, near(digest, 10), 80)} == {"strict", "loose"}
    assert found(banlists, near(digest, 11), 80) == [("loose", 11)]
    assert found(banlists, near(digest, 10), 79) == [("loose", 10)]
    assert found(banlists, near(digest, 32), 80) == []


def test_mirrored_and_turned_pictures_match_unless_that_is_switched_off() -> None:
    import torch
    from skimage import data

    from operators.fingerprint import pdq

    picture = data.astronaut()
    digest, _ = pdq(torch.from_numpy(picture))
    mirrored, quality = pdq(torch.from_numpy(np.ascontiguousarray(picture[:, ::-1])))
    for turns, expected in ((True, ["mirrored"]), (False, [])):
        banlists = Banlists(turns=turns)
        add(banlists, Banlist(name="terror"), banned(digest))
        matches = banlists.match_picture(Fingerprint(CONTENT, mirrored, quality))
        assert [match.turned for match in matches] == expected
        banlists.close()


def test_an_entry_waits_for_its_list_and_a_list_that_is_gone_matches_nothing(
    banlists: Banlists,
) -> None:
    [digest] = hashes(1)
    add(banlists, banned(digest))
    assert found(banlists, digest) == []
    add(banlists, Banlist(name="terror"))
    assert found(banlists, digest) == [("terror", 0)]
    remove(banlists, Banlist(name="terror"))
    assert found(banlists, digest) == []


def test_a_list_is_consulted_for_its_share_of_images_and_always_for_the_same() -> None:
    content_ids = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(4000)]
    chosen = {one for one in content_ids if consulted(0.25, one)}
    assert len(chosen) / len(content_ids) == pytest.approx(0.25, abs=0.03)
    assert chosen == {one for one in content_ids if consulted(0.25, one)}
    # As in hasher-matcher-actioner, one number is drawn for an image, and every list compares it.
    assert chosen <= {one for one in content_ids if consulted(0.5, one)}
    assert not any(consulted(0.0, one) for one in content_ids)
    assert all(consulted(1.0, one) for one in content_ids)


def test_an_image_that_matches_very_many_entries_has_findings_of_bounded_size(
    banlists: Banlists,
) -> None:
    [digest] = hashes(1)
    entries = [banned(near(digest, bits)) for bits in range(31)]
    add(banlists, Banlist(name="terror"), *entries)
    distances = [distance for _, distance in found(banlists, digest)]
    assert distances == list(range(MOST_MATCHES))


def exemplar(vector: list[float], digest: str = CONTENT, **others: str) -> BannedExemplar:
    fields = {"list": "terror", "model": "embedder@1", "hash": digest} | others
    return BannedExemplar(vector=packed(vector), **fields)


def test_an_exemplar_is_known_by_its_nearness_in_the_same_embedders_space(
    banlists: Banlists,
) -> None:
    add(banlists, Banlist(name="terror", max_embedding_distance=0.2), exemplar([1.0, 0.0]))
    [first, second] = banlists.match_embedding(
        "embedder@1", [[0.9, (1 - 0.81) ** 0.5], [0.0, 1.0]], [CONTENT, CONTENT]
    )
    assert [(match.exemplar, match.list) for match in first] == [(CONTENT, "terror")]
    assert first[0].distance == pytest.approx(0.1, abs=0.002)
    assert second == []
    assert banlists.match_embedding("embedder@2", [[1.0, 0.0]], [CONTENT]) == [[]]
    remove(banlists, exemplar([1.0, 0.0]))
    assert banlists.match_embedding("embedder@1", [[1.0, 0.0]], [CONTENT]) == [[]]


def test_removing_one_exemplar_leaves_the_others(banlists: Banlists) -> None:
    units = np.eye(40).tolist()
    digests = hashes(40)
    entries = [exemplar(unit, digest) for unit, digest in zip(units, digests, strict=True)]
    add(banlists, Banlist(name="terror"), *entries)
    remove(banlists, *entries[:35:2])
    matches = banlists.match_embedding("embedder@1", units, [CONTENT] * 40)
    left = [bool(one) for one in matches]
    assert left == [number % 2 == 1 or number > 34 for number in range(40)]
    assert all(not one or one[0].exemplar == digests[n] for n, one in enumerate(matches))


@pytest.mark.parametrize("vector", [[0.0, 0.0], [float("nan"), 1.0], [float("inf"), 1.0]])
def test_an_exemplar_without_direction_is_left_out(banlists: Banlists, vector: list[float]) -> None:
    add(banlists, Banlist(name="terror", max_embedding_distance=1.0), exemplar(vector))
    assert banlists.counts["exemplar"] == 0


def test_records_come_back_from_their_wire_form() -> None:
    records: list[BanRecord] = [
        Banlist(name="terror", owner="trust", enabled_ratio=0.5),
        banned(hashes(1)[0]),
        exemplar([0.6, 0.8]),
    ]
    for record in records:
        key = decode_key(key_of(record).encode())
        assert decode(key, encode(record)) == record


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (b"list:terror", b'{"record":"list","name":"other"}'),
        (b"list:terror", b'{"record":"list","name":"terror","enabled_ratio":2}'),
        (b"list:terror", b'{"record":"list","name":"terror","max_distance":32}'),
        (b"list:terror", b'{"record":"hash","list":"terror","kind":"pdq","hash":"00"}'),
        (b"list:terror", b'{"record":"list","name":"terror","owner":"' + b"x" * 70_000 + b'"}'),
        (b"list:terror", b"\xff"),
    ],
)
def test_a_record_that_does_not_fit_its_key_or_its_limits_is_refused(
    key: bytes, value: bytes
) -> None:
    with pytest.raises(BanRecordError):
        decode(decode_key(key), value)


@pytest.mark.parametrize("key", [None, b"", b"list:", b"list:../x", b"pdq:terror:00", b"\xff:x:y"])
def test_a_key_of_anything_else_is_refused(key: bytes | None) -> None:
    with pytest.raises(BanRecordError):
        decode_key(key)


def test_a_key_names_a_list_or_an_entry() -> None:
    assert decode_key(b"list:A_B") == BanKey("list", "A_B")
    digest = hashes(1)[0]
    assert decode_key(f"pdq:A_B:{digest}".encode()) == BanKey("pdq", "A_B", digest)


def test_a_list_may_go_while_it_is_asked(
    banlists: Banlists, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = Banlist(name="terror")
    [digest] = hashes(1)
    add(banlists, own, banned(digest), banned(digest, kind="sha256"))

    def taken_away_meanwhile(ratio: float, content_id: str) -> bool:
        remove(banlists, own)
        return consulted(ratio, content_id)

    monkeypatch.setattr("operators.banlists.consulted", taken_away_meanwhile)
    assert [match.list for match in banlists.match_content(digest)] == ["terror"]
    add(banlists, own)
    assert found(banlists, digest) == [("terror", 0)]
    assert found(banlists, digest) == []
