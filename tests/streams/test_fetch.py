"""Promises of fetching: what may be read is read, and nothing that a reference says is trusted."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gzip
import os
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp.abc
import pytest
from aiohttp import web

from streams.addresses import AddressRules
from streams.fetch import Fetcher
from streams.fetched import FetchError, shown
from streams.settings import FetchSettings

IMAGE = bytes(range(256)) * 40
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Site:
    """A web server on the loopback address, and a fetcher that may reach it."""

    def __init__(self) -> None:
        self.requests: list[web.Request] = []
        self.handler: Handler | None = None
        self.port = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        assert self.handler is not None
        return await self.handler(request)

    def uri(self, path: str = "/a.jpg", host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    def settings(self, **changes: Any) -> FetchSettings:
        return FetchSettings(
            **{
                "allow_networks": ("127.0.0.0/8",),
                "ports": {80, 443, self.port},
                "timeout": 60.0,
                "attempts": 1,
                **changes,
            }
        )

    async def fetch(
        self, path: str = "/a.jpg", handler: Handler | None = None, **changes: Any
    ) -> bytes:
        self.handler = handler or self.handler
        async with Fetcher(self.settings(**changes)) as fetcher:
            return await fetcher.fetch(self.uri(path))

    async def refusal(
        self, path: str = "/a.jpg", handler: Handler | None = None, **changes: Any
    ) -> FetchError:
        with pytest.raises(FetchError) as caught:
            await self.fetch(path, handler, **changes)
        return caught.value


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    site = Site()
    application = web.Application()
    application.router.add_route("GET", "/{path:.*}", site.answer)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    listener = web.TCPSite(runner, "127.0.0.1", 0)
    await listener.start()
    site.port = runner.addresses[0][1]
    yield site
    await runner.cleanup()


def body(content: bytes = IMAGE, status: int = 200, **headers: str) -> Handler:
    async def answer(request: web.Request) -> web.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(body=content, status=status, headers=named)

    return answer


def in_turn(*handlers: Handler) -> Handler:
    remaining = list(handlers)

    async def answer(request: web.Request) -> web.StreamResponse:
        return await (remaining.pop(0) if len(remaining) > 1 else remaining[0])(request)

    return answer


async def refusal(
    uri: str, resolver: aiohttp.abc.AbstractResolver | None = None, **settings: Any
) -> FetchError:
    settings = {"timeout": 60.0, "attempts": 1, **settings}
    async with Fetcher(FetchSettings(**settings), resolver) as fetcher:
        with pytest.raises(FetchError) as caught:
            await fetcher.fetch(uri)
    return caught.value


async def test_an_image_arrives_byte_for_byte(site: Site) -> None:
    assert await site.fetch(handler=body()) == IMAGE
    headers = site.requests[0].headers
    assert headers["Accept-Encoding"] == "identity"
    assert "Cookie" not in headers
    assert "Authorization" not in headers


@pytest.mark.parametrize(
    ("status", "reason"),
    [(404, "not-found"), (410, "not-found"), (403, "http-status"), (204, "http-status")],
)
async def test_an_answer_that_will_not_change_is_not_asked_for_again(
    site: Site, status: int, reason: str
) -> None:
    error = await site.refusal(handler=body(b"", status), attempts=5)
    assert error.reason == reason
    assert str(status) in str(error)
    assert len(site.requests) == 1


@pytest.mark.parametrize("status", [408, 429, 500, 503])
async def test_an_answer_that_may_change_is_asked_for_again(
    site: Site, no_backoff: None, status: int
) -> None:
    assert await site.fetch(handler=in_turn(body(b"", status), body()), attempts=3) == IMAGE
    assert len(site.requests) == 2


async def test_after_its_attempts_a_reference_is_given_up(site: Site) -> None:
    error = await site.refusal(handler=body(b"", 500), attempts=2)
    assert error.reason == "http-status"
    assert len(site.requests) == 2


async def test_all_attempts_share_one_deadline(site: Site) -> None:
    started = time.monotonic()
    error = await site.refusal(handler=body(b"", 500), attempts=20, timeout=2.0)
    assert error.reason == "timeout"
    assert time.monotonic() - started < 30


async def test_redirects_are_followed_with_their_relative_addresses(site: Site) -> None:
    handler = in_turn(
        body(b"", 302, Location="/b/c.jpg"),
        body(b"", 307, Location="d.jpg?x=1"),
        body(b"", 301, Location=f"//127.0.0.1:{site.port}/e.jpg"),
        body(),
    )
    assert await site.fetch(handler=handler) == IMAGE
    assert [r.path_qs for r in site.requests] == ["/a.jpg", "/b/c.jpg", "/b/d.jpg?x=1", "/e.jpg"]


async def test_redirects_are_followed_only_so_far(site: Site) -> None:
    error = await site.refusal(handler=body(b"", 302, Location="/again"), max_redirects=3)
    assert error.reason == "too-many-redirects"
    assert len(site.requests) == 4


@pytest.mark.parametrize(
    "location",
    [
        "file:///etc/passwd",
        "ftp://127.0.0.1/a",
        "data:image/png;base64,AAAA",
        "http://127.0.0.1:22/",
        "http://169.254.169.254/latest/meta-data/",
        "http://10.0.0.1/",
        "http://2852039166/",
        "http://user:password@127.0.0.1/",
        "http://[::1]/",
    ],
)
async def test_a_redirect_passes_the_same_checks_as_a_reference(site: Site, location: str) -> None:
    error = await site.refusal(handler=body(b"", 302, Location=location), file_roots=("/etc",))
    assert error.reason == "forbidden"
    assert len(site.requests) == 1


@pytest.mark.parametrize("location", ["http://[::1", "http://a:99999/", "http://a\\@b/"])
async def test_a_redirect_to_no_address_is_named(site: Site, location: str) -> None:
    error = await site.refusal(handler=body(b"", 302, Location=location))
    assert error.reason == "bad-uri"


async def test_a_redirect_that_leads_nowhere_is_an_answer_like_others(site: Site) -> None:
    assert (await site.refusal(handler=body(b"", 302))).reason == "http-status"


async def test_an_announced_length_above_the_limit_is_not_read(site: Site) -> None:
    error = await site.refusal(handler=body(), max_bytes=1000)
    assert error.reason == "too-many-bytes"
    assert str(len(IMAGE)) in str(error)


async def test_an_endless_body_is_stopped_at_the_limit(site: Site) -> None:
    sent = 0

    async def endless(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse()
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            while True:
                await response.write(b"x" * 65536)
                sent += 65536
        return response

    error = await site.refusal(handler=endless, max_bytes=1_000_000)
    assert error.reason == "too-many-bytes"
    assert sent < 20_000_000


async def test_a_body_of_exactly_the_limit_is_taken(site: Site) -> None:
    assert await site.fetch(handler=body(), max_bytes=len(IMAGE)) == IMAGE


async def test_a_dripping_body_is_stopped_at_the_deadline(site: Site) -> None:
    async def dripping(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            for _ in range(6000):
                await response.write(b"x")
                await asyncio.sleep(0.02)
        return response

    started = time.monotonic()
    error = await site.refusal(handler=dripping, timeout=0.3)
    assert error.reason == "timeout"
    assert time.monotonic() - started < 30


async def raw_server(answer: bytes) -> tuple[asyncio.Server, int]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    return server, server.sockets[0].getsockname()[1]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf", "cut-off"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nha", "cut-off"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "unreachable"),
        (b"", "unreachable"),
    ],
)
async def test_a_server_that_breaks_off_or_speaks_no_http_is_named(
    answer: bytes, reason: str
) -> None:
    server, port = await raw_server(answer)
    async with server:
        error = await refusal(
            f"http://127.0.0.1:{port}/a.jpg?token=geheim",
            allow_networks=("127.0.0.0/8",),
            ports={port},
        )
    assert error.reason == reason
    assert error.transient
    assert "geheim" not in str(error)


async def test_a_port_where_nobody_listens_is_unreachable() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        error = await refusal(
            f"http://127.0.0.1:{port}/", allow_networks=("127.0.0.0/8",), ports={port}
        )
    assert error.reason == "unreachable"
    assert error.transient


async def test_an_empty_body_is_named(site: Site) -> None:
    assert (await site.refusal(handler=body(b""))).reason == "empty"


async def test_a_compressed_body_that_nobody_asked_for_is_refused(site: Site) -> None:
    bomb = gzip.compress(b"\0" * 10_000_000)
    error = await site.refusal(handler=body(bomb, Content_Encoding="gzip"))
    assert error.reason == "http-status"
    assert "Content-Encoding 'gzip'" in str(error)
    assert await site.fetch(handler=body(Content_Encoding="identity")) == IMAGE


async def test_what_gives_access_never_stands_in_an_error(site: Site) -> None:
    error = await site.refusal("/a.jpg?X-Amz-Signature=geheim#geheim", body(b"", 403))
    assert "geheim" not in str(error)
    assert "/a.jpg?…" in str(error)
    moved = body(b"", 302, Location="/b.jpg?signature=geheim")
    error = await site.refusal(handler=in_turn(moved, body(b"", 404)))
    assert "geheim" not in str(error)
    for uri in ("http://user:geheim@example.com/", "s3://a:geheim@bucket/k", "x://a?geheim"):
        assert "geheim" not in str(await refusal(uri))
    assert shown("https://u:p@h/x?q#f") == "https://…@h/x?…"
    assert shown("data:image/png;base64,AAAA") == "data:image/png;base64,…"
    assert len(shown("http://h/" + "x" * 9000)) < 300


LOOPBACK = [
    "127.0.0.1",
    "127.0.0.1.",
    "127.1",
    "127.255.255.254",
    "2130706433",
    "017700000001",
    "0x7f000001",
    "0x7f.1",
    "0177.0.0.1",
    "0",
    "0.0.0.0",
    "127。0。0。1",
    "①②⑦.0.0.1",
    "[::1]",
    "[::]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::127.0.0.1]",
    "[2002:7f00:1::]",
    "[64:ff9b::7f00:1]",
    "[64:ff9b:1:7f00:0:100::]",
    "[2001:0:4136:e378:8000:63bf:80ff:fffe]",
    "localhost",
    "localhost.",
    "LOCALHOST",
    "ip6-localhost",
]
NOT_PUBLIC = [
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
    "192.88.99.1",
    "203.0.113.1",
    "240.0.0.1",
    "198.18.0.1",
    "224.0.0.1",
    "255.255.255.255",
    "[fe80::1]",
    "[fe80::1%25eth0]",
    "[fc00::1]",
    "[fd00:ec2::254]",
    "[fec0::1]",
    "[ff02::1]",
    "[2001:db8::1]",
    "[2002:a9fe:a9fe::]",
]


class OnlyLocalNames(aiohttp.abc.AbstractResolver):
    """What a system's resolver says, without asking the network."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[aiohttp.abc.ResolveResult]:
        if "localhost" not in host.lower():
            raise OSError(f"no such name: {host}")
        return resolved("127.0.0.1", port) + resolved("::1", port)

    async def close(self) -> None: ...


def resolved(address: str, port: int) -> list[aiohttp.abc.ResolveResult]:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return [
        aiohttp.abc.ResolveResult(
            hostname="name", host=address, port=port, family=family, proto=0, flags=0
        )
    ]


@pytest.mark.parametrize("host", LOOPBACK + NOT_PUBLIC)
async def test_no_spelling_of_an_inner_address_is_reached_by_default(host: str) -> None:
    error = await refusal(f"http://{host}/", OnlyLocalNames())
    assert error.reason == "forbidden"
    assert "fetch.allow_networks" in str(error)


class Answers(aiohttp.abc.AbstractResolver):
    """Answers each look-up with the next of its address lists."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[aiohttp.abc.ResolveResult]:
        return [one for address in self.answers.pop(0) for one in resolved(address, port)]

    async def close(self) -> None: ...


@pytest.mark.parametrize(
    "addresses", [["127.0.0.1"], ["::1", "10.0.0.7"], ["fe80::1%eth0"], ["::ffff:169.254.169.254"]]
)
async def test_a_name_that_leads_inside_is_refused(addresses: list[str]) -> None:
    error = await refusal("http://images.example/", Answers(addresses))
    assert error.reason == "forbidden"
    assert "images.example" in str(error)


async def test_of_several_addresses_only_the_permitted_are_connected_to(site: Site) -> None:
    site.handler = body()
    settings = site.settings(allow_networks=("127.0.0.1/32",))
    async with Fetcher(settings, Answers(["127.0.0.2", "::1", "127.0.0.1"])) as fetcher:
        assert await fetcher.fetch(site.uri(host="images.example")) == IMAGE


async def test_a_name_is_looked_up_once_so_its_second_answer_changes_nothing(site: Site) -> None:
    site.handler = body()
    resolver = Answers(["127.0.0.1"], ["10.0.0.1"])
    settings = site.settings(allow_networks=("127.0.0.1/32",))
    async with Fetcher(settings, resolver) as fetcher:
        assert await fetcher.fetch(site.uri(host="images.example")) == IMAGE
    assert len(resolver.answers) == 1


async def test_a_name_that_does_not_exist_is_unreachable() -> None:
    error = await refusal("http://nowhere.example/", OnlyLocalNames())
    assert error.reason == "unreachable"
    assert error.transient


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "a.jpg",
        "/etc/passwd",
        "ftp://example.com/a",
        "gopher://127.0.0.1/",
        "javascript:alert(1)",
        "jar:file:///etc/passwd!/",
        "http:",
        "http://",
        "http:///a.jpg",
        "http://[::1",
        "http://example.com:99999/",
        "http://example.com:x/",
        "http://a\\@127.0.0.1/",
        "file://[",
        "data:image/png",
        "data:;base64,###",
        "data:;base64,AAA",
    ],
)
async def test_what_is_no_address_is_named(uri: str) -> None:
    assert (await refusal(uri, file_roots=("/",))).reason == "bad-uri"


async def test_credentials_ports_and_schemes_that_were_not_allowed_are_refused() -> None:
    for uri, settings in (
        ("http://user:password@example.com/", {}),
        ("http://user@example.com/", {}),
        ("http://1.1.1.1 &@93.184.216.34# @127.0.0.1/", {}),
        ("http://example.com:6379/", {}),
        ("https://example.com:80/", {"ports": {443}}),
    ):
        assert (await refusal(uri, **settings)).reason == "forbidden", uri
    error = await refusal("http://example.com/", schemes={"https"})
    assert error.reason == "bad-uri"
    assert "allowed: https" in str(error)


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("data:image/png;base64,aGFsbG8=", b"hallo"),
        ("DATA:;BASE64,aGFsbG8%3D", b"hallo"),
        ("data:,hallo%20du%FF", b"hallo du\xff"),
    ],
)
async def test_data_references_hold_their_bytes(uri: str, expected: bytes) -> None:
    async with Fetcher(FetchSettings()) as fetcher:
        assert await fetcher.fetch(uri) == expected


async def test_data_references_are_bounded_and_not_empty() -> None:
    large = base64.b64encode(b"x" * 101).decode()
    for uri in (f"data:;base64,{large}", "data:," + "x" * 101, "data:," + "%41" * 10_000):
        assert (await refusal(uri, max_bytes=100)).reason == "too-many-bytes"
    assert (await refusal("data:,")).reason == "empty"


async def test_files_below_the_roots_are_read(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    (root / "sub").mkdir(parents=True)
    (root / "sub" / "ein Bild%3F#1.jpg").write_bytes(IMAGE)
    (root / "link.jpg").symlink_to(root / "sub" / "ein Bild%3F#1.jpg")
    async with Fetcher(FetchSettings(file_roots=(root,))) as fetcher:
        for path in ("sub/ein%20Bild%253F%231.jpg", "link.jpg", "sub/../link.jpg"):
            assert await fetcher.fetch(f"file://{root}/{path}") == IMAGE
            assert await fetcher.fetch(f"file://localhost{root}/{path}") == IMAGE


async def test_a_root_that_is_a_link_holds_what_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.jpg").write_bytes(IMAGE)
    (tmp_path / "linked").symlink_to(tmp_path / "real")
    async with Fetcher(FetchSettings(file_roots=(tmp_path / "linked",))) as fetcher:
        assert await fetcher.fetch(f"file://{tmp_path}/linked/a.jpg") == IMAGE


async def test_no_file_outside_the_roots_is_read(tmp_path: Path) -> None:
    root, outside = tmp_path / "photos", tmp_path / "photos-secret"
    root.mkdir()
    outside.mkdir()
    (outside / "a.jpg").write_bytes(IMAGE)
    (root / "link.jpg").symlink_to(outside / "a.jpg")
    (root / "folder").symlink_to(outside)
    for path in (
        f"{outside}/a.jpg",
        f"{root}/link.jpg",
        f"{root}/folder/a.jpg",
        f"{root}/../photos-secret/a.jpg",
        f"{root}/%2e%2e/photos-secret/a.jpg",
        f"{root}/..%2Fphotos-secret/a.jpg",
        "/proc/self/environ",
    ):
        error = await refusal(f"file://{path}", file_roots=(root,))
        assert error.reason == "forbidden", path
    error = await refusal(f"file://{root}/a.jpg")
    assert error.reason == "forbidden"
    assert "fetch.file_roots" in str(error)
    error = await refusal(f"file://other.host{root}/a.jpg", file_roots=(root,))
    assert error.reason == "bad-uri"


async def test_what_is_no_regular_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        for name, reason in (("pipe", "forbidden"), ("", "forbidden"), ("socket", "not-found")):
            error = await asyncio.wait_for(
                refusal(f"file://{tmp_path}/{name}", file_roots=(tmp_path,)), 60
            )
            assert error.reason == reason, name
    error = await asyncio.wait_for(refusal("file:///dev/zero", file_roots=("/dev",)), 60)
    assert error.reason == "forbidden"


async def test_a_file_that_is_missing_empty_or_too_large_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "large").write_bytes(b"x" * 101)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name, reason in (
        ("missing", "not-found"),
        ("missing/deeper", "not-found"),
        ("loop", "not-found"),
        ("a%00b", "not-found"),
        ("x" * 300, "not-found"),
        ("empty", "empty"),
        ("large", "too-many-bytes"),
    ):
        error = await refusal(f"file://{tmp_path}/{name}", file_roots=(tmp_path,), max_bytes=100)
        assert error.reason == reason, name


async def test_only_the_buckets_that_were_named_are_read() -> None:
    for uri in ("s3://other/a.jpg", "gs://photos/a.jpg", "s3://photos.evil/a.jpg", "s3:///a.jpg"):
        error = await refusal(uri, buckets=("s3://photos",))
        assert error.reason == "forbidden", uri
        assert "fetch.buckets" in str(error)
    error = await refusal("s3://photos/", buckets=("s3://photos/",))
    assert error.reason == "bad-uri"


def test_networks_of_ones_own_can_be_allowed() -> None:
    from ipaddress import ip_address, ip_network

    rules = AddressRules([ip_network("10.1.0.0/16"), ip_network("fd00:1::/32")])
    for address in ("10.1.2.3", "::ffff:10.1.2.3", "fd00:1::5", "93.184.216.34", "2606:4700::1"):
        assert rules.permits(ip_address(address)), address
    for address in ("10.2.0.1", "::ffff:10.2.0.1", "fd00:2::5", "127.0.0.1"):
        assert not rules.permits(ip_address(address)), address


async def test_whether_a_file_outside_the_roots_is_there_cannot_be_told(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "there").touch()
    answers = {
        (error.reason, str(error).replace(name, "NAME"))
        for name in ("there", "not-there", "there/deeper")
        for error in [await refusal(f"file://{tmp_path}/{name}", file_roots=(root,))]
    }
    assert {reason for reason, _ in answers} == {"forbidden"}
    assert len(answers) == 1


async def test_a_relative_path_is_no_file_reference(tmp_path: Path) -> None:
    assert (await refusal("file:tmp", file_roots=(tmp_path,))).reason == "bad-uri"
