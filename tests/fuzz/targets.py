"""What is fuzzed, and what must hold for any bytes whatever.

Each target takes a list of inputs and returns a complaint for each input that breaks a promise, so
that a run goes on after a finding. Nothing here touches the network: the event loop that references
are fetched in resolves names by itself and records connections instead of making them.
"""

from __future__ import annotations

import asyncio
import ipaddress
import random
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import torch
from aiohttp.resolver import ThreadedResolver

from operators.decode_contained import ContainedDecoder
from operators.decoder import DecodeLimits
from operators.frame import Frame, Origin
from operators.image_header import DECODE_REASONS, Undecodable, read_header
from streams.fetch import Fetcher
from streams.fetched import FetchError
from streams.records import (
    MAX_FEED_LENGTH,
    MAX_ID_LENGTH,
    MAX_METADATA_BYTES,
    MAX_URI_LENGTH,
    frame_from_record,
)
from streams.settings import FetchSettings

CORPUS = Path(__file__).parent / "corpus"
SLOW_SECONDS = 1.0
"""Processor time that no input of this size may take before it is decoded."""

Complaint = tuple[bytes, str]


class Target(ABC):
    """One part of Imagewire that meets bytes from strangers."""

    words: tuple[bytes, ...] = ()
    """Fragments that mean something to it."""

    @abstractmethod
    def seeds(self) -> list[bytes]:
        """Well-formed inputs to begin from."""

    @abstractmethod
    def run(self, inputs: Sequence[bytes]) -> list[Complaint]:
        """Feed it the inputs; returns each that broke a promise, and which."""

    def close(self) -> None:  # noqa: B027 - most targets hold nothing
        """Let go of processes and sockets."""


class Records(Target):
    """`frame_from_record`: a frame or a dead letter, never an exception, within its bounds."""

    words = (
        b'"uri"', b'"id":', b'"metadata":{', b"\\ud800", b"\\u0000", b"1e999", b"-0", b"[" * 600,
        b'{"a":' * 40, b"\xff", b"\xed\xa0\x80", b'"captured_at":', b"9" * 400, b'"lane":"bulk"',
        b"NaN", b"\x7f", "\u202e".encode(), b"\xff\xd8\xff", b"2026-01-31T12:00:00+99:99",
    )  # fmt: skip

    def __init__(self) -> None:
        self._chance = random.Random(5)

    def seeds(self) -> list[bytes]:
        return [path.read_bytes() for path in sorted((CORPUS / "records").iterdir())]

    def run(self, inputs: Sequence[bytes]) -> list[Complaint]:
        return [(value, said) for value in inputs if (said := self._complaint(value))]

    def _complaint(self, value: bytes) -> str:
        chance = self._chance
        names = ("image-id", "feed", "captured-at", "content-type", "lane", "imagewire-attempt", "")
        headers = tuple(
            (chance.choice(names), value[start : start + chance.choice((0, 3, 30, 400))])
            for start in (chance.randrange(len(value) + 1) for _ in range(chance.choice((0, 0, 3))))
        )
        timestamp = chance.choice((-1, 0, 1_769_860_800_000, 2**63 - 1))
        origin = Origin("images", 0, chance.randrange(2**40), timestamp, None, value, headers)
        started = time.process_time()
        try:
            frame = frame_from_record(origin)
        except Exception as error:  # noqa: BLE001 - what is looked for
            return f"raised {error!r}"
        if time.process_time() - started > SLOW_SECONDS:
            return "was slow"
        if frame.failure is not None and frame.failure.reason == "internal-error":
            return f"met a defect: {frame.failure.detail}"
        texts = (frame.image_id, frame.feed, frame.uri or "")
        limits = (MAX_ID_LENGTH, MAX_FEED_LENGTH, MAX_URI_LENGTH)
        if any(len(text) > limit for text, limit in zip(texts, limits, strict=True)):
            return "let something too long through"
        if not all(text.isprintable() for text in texts):
            return "let control characters through"
        if len(msgspec.json.encode(frame.metadata)) > MAX_METADATA_BYTES:
            return "let too much metadata through"
        return "" if frame.event_time_ms >= 0 else "gave a time before 1970"


class _NoNetwork(asyncio.SelectorEventLoop):
    """Resolves names to addresses of every sort, and notes where it is asked to connect."""

    def __init__(self) -> None:
        super().__init__()
        self.connected: list[str] = []

    async def getaddrinfo(self, host: Any, port: Any, **_: Any) -> Any:
        public, private = "93.184.215.14", "10.0.0.1"
        text = host.decode() if isinstance(host, bytes) else str(host)
        try:
            # As the C library does for hosts that are addresses.
            addresses = [socket.inet_ntoa(socket.inet_aton(text.split("%")[0]))]
        except (OSError, UnicodeEncodeError):
            addresses = [private] if "private" in text else [public, private, "169.254.169.254"]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (item, port)) for item in addresses]

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        self.connected.append(address[0])
        raise ConnectionRefusedError("this loop has no network")


class References(Target):
    """`Fetcher.fetch`: bytes or `FetchError`, and no connection but to public addresses."""

    words = (
        b"http://", b"@", b"%00", b"%2f", b"\\", b"[::1]", b"127.0.0.1", b"0x7f000001", b"#", b"?",
        b"..", b"localhost", b"169.254.169.254", b"[::ffff:7f00:1]", b":80", b":99999", b"\r\n",
        "\u2044".encode(), "。".encode(), "①".encode(), b"file:", b"private.example", b"//", b"%25",
        b"0177.1", b"metadata.google.internal", b"[fe80::1%25lo]", b";base64,", b"://",
    )  # fmt: skip

    def __init__(self) -> None:
        self._loop = _NoNetwork()
        self._fetcher = self._loop.run_until_complete(self._open())

    def seeds(self) -> list[bytes]:
        return (CORPUS / "references" / "all.txt").read_bytes().splitlines()

    def run(self, inputs: Sequence[bytes]) -> list[Complaint]:
        return self._loop.run_until_complete(self._all(inputs))

    def close(self) -> None:
        self._loop.run_until_complete(self._fetcher.__aexit__(None, None, None))
        self._loop.close()

    async def _open(self) -> Fetcher:
        # This resolver asks the loop, which has answers of its own.
        return await Fetcher(FetchSettings(attempts=1), ThreadedResolver()).__aenter__()

    async def _all(self, inputs: Sequence[bytes]) -> list[Complaint]:
        complaints = []
        for value in inputs:
            # Records carry printable text only, but redirects carry anything.
            uri = value.decode("utf-8", errors="replace")
            self._loop.connected.clear()
            started = time.process_time()
            said = ""
            try:
                await self._fetcher.fetch(uri)
            except FetchError:
                pass
            except Exception as error:  # noqa: BLE001 - what is looked for
                said = f"raised {error!r}"
            if time.process_time() - started > SLOW_SECONDS:
                said = "was slow"
            for text in self._loop.connected:
                if not _is_public(text):
                    said = f"connected to {text}"
            if said:
                complaints.append((value, said))
        return complaints


def _is_public(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return address.is_global and not address.is_multicast


class Screening(Target):
    """`read_header`: a header or `Undecodable`, in a moment."""

    words = (
        b"acTL", b"fcTL", b"IEND", b"IDAT", b"ANMF", b"VP8X", b"ispe", b"moov", b"meta", b"stsz",
        b"\xff\xd8\xff", b"\xff\xda", b"\xff\xd9", b"\xff\xc2", b"\xff\xe1", b"Exif\x00\x00",
        b"II*\x00\x08\x00\x00\x00", b"MM\x00+", b"GIF89a", b"\x21\xf9\x04", b"\x2c", b"BM", b"avis",
        b"iCCP", b"zTXt", b"iloc", b"grid", b"\xff\xdd", b"\xff\xc4", b"\xff\xdb", b"av1C", b"eXIf",
    )  # fmt: skip

    def seeds(self) -> list[bytes]:
        return [path.read_bytes() for path in sorted((CORPUS / "images").iterdir())]

    def run(self, inputs: Sequence[bytes]) -> list[Complaint]:
        return [(content, said) for content in inputs if (said := self._complaint(content))]

    def _complaint(self, content: bytes) -> str:
        started = time.process_time()
        try:
            header = read_header(content, 1000)
        except Undecodable as problem:
            return "" if problem.reason in DECODE_REASONS else f"gave the reason {problem.reason}"
        except Exception as error:  # noqa: BLE001 - what is looked for
            return f"raised {error!r}"
        if time.process_time() - started > SLOW_SECONDS:
            return "was slow"
        return "" if min(header.width, header.height) >= 0 and header.frames > 0 else "bad header"


class Decoding(Screening):
    """A contained decoder: pixels or a reason for each image, and its neighbours are never harmed.

    What kills its process or takes its time is contained, so it is no broken promise; it is counted
    and kept in `contained`, since each one is a fault in a library.
    """

    def __init__(self) -> None:
        limits = DecodeLimits(max_pixels=4_000_000, timeout=20.0, truncated="tolerate")
        self._decoder = ContainedDecoder(torch.device("cpu"), limits)
        self._good = (CORPUS / "images" / "plain.png").read_bytes()
        self.contained: list[Complaint] = []
        self.outcomes: dict[str, int] = {}

    def run(self, inputs: Sequence[bytes]) -> list[Complaint]:
        contents = [self._good, *inputs, self._good]
        frames = [Frame("id", "fuzz", 0, Origin("t", 0, 0, 0), content=item) for item in contents]
        try:
            self._decoder.decode(frames)
        except Exception as error:  # noqa: BLE001 - what is looked for
            return [(b"\n--\n".join(inputs), f"the batch raised {error!r}")]
        complaints = []
        for frame, content in zip(frames, contents, strict=True):
            reason = frame.failure.reason if frame.failure is not None else "decoded"
            self.outcomes[reason] = self.outcomes.get(reason, 0) + 1
            if (frame.pixels is None) != frame.failed:
                complaints.append((content, "has neither pixels nor a reason"))
            elif frame.failure is not None and reason not in DECODE_REASONS:
                complaints.append((content, f"failed with {frame.failure}"))
            elif frame.failure is not None and content is self._good:
                complaints.append((content, f"is good, and failed with {frame.failure}"))
            elif frame.failure is not None and reason in {"decoder-crash", "timeout"}:
                self.contained.append((content, frame.failure.detail))
        return complaints

    def close(self) -> None:
        self._decoder.close()


TARGETS: dict[str, type[Target]] = {
    "records": Records,
    "references": References,
    "screening": Screening,
    "decoding": Decoding,
}
