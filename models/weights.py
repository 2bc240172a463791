"""Where a model's weights are, and the proof that they are the right ones.

Weights are programs in all but name, and a changed byte changes verdicts silently, so no loader
ever opens a file that has not just been hashed. Remote weights are fetched once into a cache folder
that is addressed by their SHA-256: a new version of a model can never be mistaken for an old one.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

import httpx
import obstore
from obstore.store import from_url

from models.errors import ModelError

CHUNK_BYTES = 1 << 20
"""Read size while hashing and fetching: large enough to keep SHA-256 at the disk's speed."""

CONNECT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 60.0

OBJECT_STORES = ("s3", "gs", "az")
REMOTE_SCHEMES = ("http", "https", *OBJECT_STORES)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file as 64 lower-case hex digits, read in pieces of `CHUNK_BYTES`."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(CHUNK_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def cache_folder() -> Path:
    """Where fetched weights are kept: `IMAGEWIRE_CACHE`, else `imagewire` in the XDG cache."""
    named = os.environ.get("IMAGEWIRE_CACHE")
    if named:
        return Path(named)
    xdg = os.environ.get("XDG_CACHE_HOME")
    return (Path(xdg) if xdg else Path.home() / ".cache") / "imagewire"


def is_remote(location: str) -> bool:
    return urlsplit(location).scheme in REMOTE_SCHEMES


def verified_weights(model: str, location: str, sha256: str) -> Path:
    """The local file with the weights of `model`, fetched if need be, its SHA-256 checked.

    Args:
        model: `name@version`, for messages.
        location: `package:<module>/<path>`, a path, `file:`, `http(s)://`, `s3://`, `gs://`, `az://`.
        sha256: the expected digest, 64 lower-case hex digits.

    Raises:
        ModelError: the weights are missing, unreachable, or not those that were promised.
    """
    if is_remote(location):
        return _fetched(model, location, sha256)
    path = _local_path(model, location)
    if not path.is_file():
        raise ModelError(
            f"model '{model}': there are no weights at '{path}'; "
            "put the file there or correct 'weights' in the catalogue"
        )
    actual = _readable_digest(model, path)
    if actual != sha256:
        raise ModelError(
            f"model '{model}': the weights in '{path}' have SHA-256 {actual}, but the catalogue "
            f"promises {sha256}; restore the file (for a bundled model reinstall its package), or "
            "correct 'sha256' in the catalogue if you trust the new file"
        )
    return path


def _readable_digest(model: str, path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError as error:
        raise ModelError(
            f"model '{model}': the weights in '{path}' cannot be read ({error.strerror}); "
            "correct the file's permissions"
        ) from error


def _local_path(model: str, location: str) -> Path:
    parts = urlsplit(location)
    if parts.scheme == "package":
        return _package_path(model, location.removeprefix("package:"))
    if parts.scheme == "file":
        return Path(url2pathname(parts.path))
    return Path(location).expanduser()


def _package_path(model: str, inside: str) -> Path:
    """Find `<module>/<path>` without importing the module: that may be slow or do something."""
    module, _, relative = inside.partition("/")
    if not module or not relative or ".." in PurePosixPath(relative).parts:
        raise ModelError(
            f"model '{model}': 'package:{inside}' does not name a file inside a package; "
            "write package:<module>/<path of the file in it>"
        )
    try:
        spec = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(
            f"model '{model}': its weights are inside the Python package '{module}', which is not "
            "installed here; install it or name other weights in the catalogue"
        )
    return Path(next(iter(spec.submodule_search_locations))) / relative


def _fetched(model: str, location: str, sha256: str) -> Path:
    """The cached copy if it is sound, else a fresh one, moved into place only after its check."""
    name = PurePosixPath(unquote(urlsplit(location).path)).name or "weights"
    target = cache_folder() / "weights" / sha256 / name
    if target.is_file() and _readable_digest(model, target) == sha256:
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=".fetching-")
        partial = Path(name)
        digest = hashlib.sha256()
        try:
            with os.fdopen(descriptor, "wb") as file:
                for piece in _pieces(model, location):
                    digest.update(piece)
                    file.write(piece)
            if digest.hexdigest() != sha256:
                raise ModelError(
                    f"model '{model}': what '{location}' delivered has SHA-256 "
                    f"{digest.hexdigest()}, but the catalogue promises {sha256}; nothing was kept. "
                    "Check the address, or correct 'sha256' if you trust the new file"
                )
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise ModelError(
            f"model '{model}': its weights cannot be stored under '{target.parent}' ({error}); "
            "free some space, or set IMAGEWIRE_CACHE to a folder that can be written"
        ) from error
    return target


def _pieces(model: str, location: str) -> Iterator[bytes]:
    """The remote file piece by piece; every kind of failure becomes a `ModelError`."""
    try:
        if urlsplit(location).scheme in OBJECT_STORES:
            yield from _object_pieces(location)
        else:
            timeout = httpx.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
            with httpx.stream("GET", location, follow_redirects=True, timeout=timeout) as answer:
                answer.raise_for_status()
                yield from answer.iter_bytes(CHUNK_BYTES)
    except (httpx.HTTPError, obstore.exceptions.BaseError, ValueError) as error:
        raise ModelError(
            f"model '{model}': its weights cannot be fetched from '{location}' "
            f"({type(error).__name__}: {error}); check the address and the network, or download "
            "the file yourself and give its path as 'weights'"
        ) from error


def _object_pieces(location: str) -> Iterator[bytes]:
    """Credentials come from the environment or the machine's role, as the cloud's own tools do."""
    parts = urlsplit(location)
    store = from_url(f"{parts.scheme}://{parts.netloc}")
    for piece in obstore.get(store, unquote(parts.path).lstrip("/")).stream(CHUNK_BYTES):
        yield bytes(piece)
