"""Weights: located wherever they are, never used unless they are the promised ones."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from models.errors import ModelError
from models.weights import verified_weights

CONTENT = b"weights " * 300_000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@dataclass
class FileServer:
    """An HTTP server on a free port that counts what is asked of it."""

    port: int
    asked: list[str] = field(default_factory=list)
    content: bytes = CONTENT

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}/{path}"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FileServer]:
    monkeypatch.setenv("IMAGEWIRE_CACHE", str(tmp_path / "cache"))
    files = FileServer(0)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            files.asked.append(self.path)
            found = "absent" not in self.path
            body = files.content if found else b"no such file"
            self.send_response(200 if found else 404)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
            self.send_header("ETag", '"1"')
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    files.port = http.server_address[1]
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield files
    http.shutdown()
    thread.join()
    http.server_close()


def cached_files(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_a_local_file_is_used_where_it_is(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(CONTENT)
    assert verified_weights("net@1", str(path), DIGEST) == path
    assert verified_weights("net@1", path.as_uri(), DIGEST) == path


def test_changed_weights_are_refused_with_both_digests(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(CONTENT[:-1] + b"!")
    with pytest.raises(ModelError) as refusal:
        verified_weights("net@1", str(path), DIGEST)
    message = str(refusal.value)
    assert "net@1" in message and str(path) in message and DIGEST in message
    assert hashlib.sha256(path.read_bytes()).hexdigest() in message


def test_missing_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"there are no weights at '.*absent\.onnx'"):
        verified_weights("net@1", str(tmp_path / "absent.onnx"), DIGEST)


def test_a_missing_package_is_named() -> None:
    with pytest.raises(ModelError, match="package 'no_such_package', which is not installed"):
        verified_weights("net@1", "package:no_such_package/net.onnx", DIGEST)


@pytest.mark.parametrize("location", ["package:nudenet", "package:nudenet/../secret"])
def test_a_package_location_stays_inside_the_package(location: str) -> None:
    with pytest.raises(ModelError, match="does not name a file inside a package"):
        verified_weights("net@1", location, DIGEST)


def test_remote_weights_are_fetched_once(server: FileServer) -> None:
    first = verified_weights("net@1", server.url("v1/net.onnx"), DIGEST)
    assert first.read_bytes() == CONTENT
    assert first.name == "net.onnx"
    assert verified_weights("net@1", server.url("v1/net.onnx"), DIGEST) == first
    assert server.asked == ["/v1/net.onnx"]


def test_a_damaged_cached_copy_is_fetched_again(server: FileServer) -> None:
    path = verified_weights("net@1", server.url("net.onnx"), DIGEST)
    path.write_bytes(b"damaged")
    assert verified_weights("net@1", server.url("net.onnx"), DIGEST).read_bytes() == CONTENT
    assert len(server.asked) == 2


def test_wrong_remote_weights_leave_nothing_behind(server: FileServer, tmp_path: Path) -> None:
    server.content = b"something else"
    with pytest.raises(ModelError, match=f"promises {DIGEST}; nothing was kept"):
        verified_weights("net@1", server.url("net.onnx"), DIGEST)
    assert cached_files(tmp_path) == []


def test_an_unreachable_address_is_explained(server: FileServer, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"cannot be fetched from '.*absent\.onnx'.*404"):
        verified_weights("net@1", server.url("absent.onnx"), DIGEST)
    assert cached_files(tmp_path) == []


def test_object_stores_are_read_with_the_clouds_own_settings(
    server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.port}")
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    path = verified_weights("net@1", "s3://bucket/models/net.onnx", DIGEST)
    assert path.read_bytes() == CONTENT
    assert server.asked == ["/bucket/models/net.onnx"]


def test_an_unwritable_cache_is_explained(
    server: FileServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    occupied = tmp_path / "occupied"
    occupied.write_text("a file where a folder should be")
    monkeypatch.setenv("IMAGEWIRE_CACHE", str(occupied))
    with pytest.raises(ModelError, match="set IMAGEWIRE_CACHE"):
        verified_weights("net@1", server.url("net.onnx"), DIGEST)
