"""A banned image costs no more than recognising it, and its neighbours lose nothing by it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from models.catalog import Catalog
from models.device import Device
from operators.ban_records import Banlist, BannedExemplar, BannedHash, BanRecord, key_of
from operators.banlists import Banlists, Change
from operators.chain import OperatorChain
from operators.exemplars import packed
from operators.findings import Detection, Embedding
from operators.fingerprint import FingerprintOperator, pdq
from operators.frame import Frame, Origin
from operators.known_images import KNOWN, KnownImages
from operators.operator import Operator, OperatorError
from operators.policy import Policy
from operators.run_conditions import RunConditions

CPU = Device(torch.device("cpu"), torch.float32)
CATALOG = Catalog([])


class Looking(Operator):
    """Stands for a network: writes down whom it looked at."""

    def __init__(self) -> None:
        super().__init__({}, CPU, CATALOG)
        self.seen: list[str] = []

    def process(self, frames: Sequence[Frame]) -> None:
        self.seen += [frame.image_id for frame in frames]
        for frame in frames:
            self.look(frame)

    def look(self, frame: Frame) -> None:
        """Fill the findings."""


class Objects(Looking):
    name: ClassVar[str] = "objects"

    def look(self, frame: Frame) -> None:
        if "face" in frame.image_id:
            frame.findings.objects.append(Detection("FACE", 0.9, (0, 0, 1, 1)))


class Embedder(Looking):
    name: ClassVar[str] = "embedding"

    def look(self, frame: Frame) -> None:
        frame.findings.embedding = Embedding("embedder@1", [0.6, 0.8])


class Text(Looking):
    name: ClassVar[str] = "text"


@pytest.fixture
def banlists() -> Iterator[Banlists]:
    lists = Banlists()
    yield lists
    lists.close()


def ban(banlists: Banlists, *records: BanRecord) -> None:
    banlists.apply(Change(key_of(record), record) for record in records)


def photo(name: str) -> torch.Tensor:
    from skimage import data

    return torch.from_numpy(np.ascontiguousarray(getattr(data, name)()))


def frame(name: str, picture: str | None = None, **options: Any) -> Frame:
    content = name.encode()
    made = Frame(name, "uploads", 0, Origin("images", 0, 0, 0), content=content, **options)
    if picture is not None:
        made.pixels = photo(picture)
    return made


def policy(tmp_path: Path, *rules: str) -> Policy:
    file = tmp_path / "policy.toml"
    file.write_text("\n".join(f"[[rules]]\n{rule}" for rule in rules))
    return Policy.load(file)


BLOCK = "name = 'banned'\nwhen = '''hashes.exists(h, h.action == 'block')'''\naction = 'block'"
NUDITY = "name = 'faces'\nwhen = '''objects.size() > 0'''\naction = 'review'"


def banned_picture(name: str, **options: Any) -> list[BanRecord]:
    digest, _ = pdq(photo(name))
    return [Banlist(name="terror", **options), BannedHash(list="terror", kind="pdq", hash=digest)]


def banned_file(content: bytes, **options: Any) -> list[BanRecord]:
    digest = hashlib.sha256(content).hexdigest()
    return [
        Banlist(name="terror", **options),
        BannedHash(list="terror", kind="sha256", hash=digest),
    ]


def chain_of(banlists: Banlists, rules: Policy, **options: Any) -> tuple[OperatorChain, Objects]:
    objects = Objects()
    skip = options.pop("skip_models", True)
    chain = OperatorChain(
        [FingerprintOperator({}, CPU, CATALOG), objects],
        rules,
        known_images=KnownImages(banlists, skip_models=skip),
        **options,
    )
    chain.setup()
    return chain, objects


def test_a_banned_file_is_settled_before_it_is_decoded(banlists: Banlists, tmp_path: Path) -> None:
    ban(banlists, *banned_file(b"bad"))
    chain, _ = chain_of(banlists, policy(tmp_path, BLOCK))
    frames = [frame("bad"), frame("good")]
    settled = chain.recognise(frames)
    assert [one.image_id for one in settled] == ["bad"]
    chain.decide(settled)
    findings = settled[0].findings
    assert findings.verdict is not None
    assert findings.verdict.action == "block"
    assert findings.extra[KNOWN] == {"skipped": ["fingerprint", "objects"]}
    assert settled[0].content is None
    assert frames[1].findings.hashes == []
    assert frames[1].content is not None


def test_an_image_that_nothing_looked_at_is_not_allowed_by_a_policy_that_comes_meanwhile(
    banlists: Banlists, tmp_path: Path
) -> None:
    ban(banlists, *banned_file(b"bad"))
    chain, _ = chain_of(banlists, policy(tmp_path, BLOCK))
    settled = chain.recognise([frame("bad")])
    chain.use_policy(policy(tmp_path, NUDITY))
    chain.decide(settled)
    verdict = settled[0].findings.verdict
    assert verdict is not None
    assert verdict.action == "review"
    assert "was not analysed" in verdict.rules[-1].explanation


def test_a_banned_picture_is_told_of_before_any_network_looks(
    banlists: Banlists, tmp_path: Path
) -> None:
    ban(banlists, *banned_picture("astronaut"))
    saved: list[tuple[str, str, int]] = []
    chain, objects = chain_of(
        banlists, policy(tmp_path, BLOCK), saved=lambda *what: saved.append(what)
    )
    order: list[str] = []
    chain.on_settled = lambda frames: order.extend(
        f"{one.image_id} before {len(objects.seen)} were seen" for one in frames
    )
    frames = [frame("bad", "astronaut"), frame("good", "coffee")]
    chain.analyse(frames)
    assert order == ["bad before 0 were seen"]
    assert objects.seen == ["good"]
    assert saved == [("objects", "banlist", 1)]
    assert [match.list for match in frames[0].findings.hashes] == ["terror"]
    assert frames[0].findings.extra[KNOWN] == {"skipped": ["objects"]}
    assert all(one.pixels is None for one in frames)


@pytest.mark.parametrize(
    ("options", "rules"),
    [
        ({"action": "review"}, [BLOCK]),
        ({}, [NUDITY]),
        ({}, [BLOCK.replace("'block')'''", "'block') && objects.size() == 0'''")]),
        ({}, [BLOCK, NUDITY + "\npriority = 5"]),
        ({}, [BLOCK + "\nshadow = true"]),
    ],
    ids=["list-asks-for-review", "no-rule", "rule-needs-objects", "outranked", "shadow"],
)
def test_where_later_findings_could_matter_every_operator_looks(
    banlists: Banlists, tmp_path: Path, options: dict[str, Any], rules: list[str]
) -> None:
    ban(banlists, *banned_picture("astronaut", **options), *banned_file(b"face", **options))
    chain, objects = chain_of(banlists, policy(tmp_path, *rules))
    one = frame("face", "astronaut")
    assert chain.recognise([one]) == []
    chain.process([one])
    assert objects.seen == ["face"]
    assert len(one.findings.hashes) == 2
    assert KNOWN not in one.findings.extra


def test_banned_images_are_analysed_in_full_if_that_is_wanted(
    banlists: Banlists, tmp_path: Path
) -> None:
    ban(banlists, *banned_picture("astronaut"))
    chain, objects = chain_of(banlists, policy(tmp_path, BLOCK), skip_models=False)
    one = frame("face", "astronaut")
    chain.process([one])
    assert objects.seen == ["face"]
    assert one.findings.verdict is not None
    assert one.findings.verdict.action == "block"


def test_a_list_of_allowed_pictures_may_still_speak_for_a_banned_file(
    banlists: Banlists, tmp_path: Path
) -> None:
    rule = BLOCK.replace("'block')'''", "'block') && !hashes.exists(h, h.action == 'allow')'''")
    digest, _ = pdq(photo("astronaut"))
    ban(banlists, *banned_file(b"news"))
    ban(banlists, Banlist(name="press", action="allow"))
    ban(banlists, BannedHash(list="press", kind="pdq", hash=digest))
    chain, objects = chain_of(banlists, policy(tmp_path, rule))
    one = frame("news", "astronaut")
    assert chain.recognise([one]) == []
    chain.process([one])
    assert one.findings.verdict is not None
    assert one.findings.verdict.action == "allow"
    assert objects.seen == ["news"]


def test_findings_made_earlier_are_compared_with_the_lists_of_today(
    banlists: Banlists, tmp_path: Path
) -> None:
    chain, _ = chain_of(banlists, policy(tmp_path, BLOCK))
    one = frame("new", "astronaut")
    chain.process([one])
    ban(banlists, *banned_picture("astronaut"))
    chain.recognise_again([one])
    assert [match.list for match in one.findings.hashes] == ["terror"]
    banlists.apply([Change(key_of(Banlist(name="terror")), None)])
    chain.recognise_again([one])
    assert one.findings.hashes == []


def test_what_resembles_an_exemplar_is_told_of(banlists: Banlists, tmp_path: Path) -> None:
    exemplar = BannedExemplar(
        list="terror", hash="ab" * 32, model="embedder@1", vector=packed([0.6, 0.8])
    )
    ban(banlists, Banlist(name="terror", reason="looks"), exemplar)
    chain = OperatorChain([Embedder()], policy(tmp_path, BLOCK), known_images=KnownImages(banlists))
    one = frame("one", "coffee")
    chain.process([one])
    [match] = one.findings.similar
    assert (match.exemplar, match.list, match.reason) == ("ab" * 32, "terror", "looks")
    assert match.distance == pytest.approx(0, abs=0.001)


def conditional(when: str, *, running: Sequence[str] = ("objects", "text")) -> RunConditions:
    return RunConditions.read({"text": {"when": when}}, running)


def test_an_operator_runs_where_its_condition_holds(tmp_path: Path) -> None:
    text = Text()
    saved: list[tuple[str, str, int]] = []
    chain = OperatorChain(
        [Objects(), text],
        policy(tmp_path, NUDITY),
        conditions=conditional("objects.exists(o, o.label == 'FACE') && feed != 'cctv'"),
        saved=lambda *what: saved.append(what),
    )
    frames = [frame("face-1", "coffee"), frame("none", "coffee"), frame("face-2", "coffee")]
    frames[2].feed = "cctv"
    chain.process(frames)
    assert text.seen == ["face-1"]
    assert saved == [("text", "when", 2)]
    assert all(one.findings.verdict is not None for one in frames)


def test_a_condition_that_cannot_be_evaluated_lets_the_operator_look(tmp_path: Path) -> None:
    text = Text()
    chain = OperatorChain(
        [text],
        policy(tmp_path, NUDITY),
        conditions=conditional("metadata.rank > 3", running=["text"]),
    )
    chain.process([frame("without-rank", "coffee"), frame("low", "coffee", metadata={"rank": 1})])
    assert text.seen == ["without-rank"]


@pytest.mark.parametrize(
    ("when", "message"),
    [
        ("scores['nsfw'] > 0.5", "reads 'scores', which is not known when 'text' has its turn"),
        ("texts.size() > 0", "reads 'texts', which is not known"),
        ("feeds == 'a'", "unknown variable 'feeds'"),
        (True, "write a condition in quotes"),
    ],
)
def test_a_condition_on_what_is_not_known_in_time_is_refused(when: Any, message: str) -> None:
    with pytest.raises(OperatorError, match=r"operators\.text\.when") as error:
        conditional(when)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("when", "scope"),
    [("objects.size() > 0", "content"), ("feed == 'a'", "feed"), ("metadata.x == 1", "frame")],
)
def test_findings_are_shared_only_among_images_that_the_same_operators_look_at(
    when: str, scope: str
) -> None:
    assert conditional(when).depend_on == scope
