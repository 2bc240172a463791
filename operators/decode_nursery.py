"""The parent's side of the nursery, from which the processes that decode images are forked.

What the nursery and its decoders are given is written out here: a search path for modules, a few
variables that no secret is in, and one socket. See `decode_child` for what they do with it.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
import threading
from pathlib import Path

from operators import decode_child

START_SECONDS = 60.0
"""A nursery takes 0.4 s to start on an idle machine."""

_ENVIRONMENT = {
    "LC_ALL": "C.UTF-8",
    # One image, one core: images are decoded side by side.
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    # Pictures of ordinary size are decoded into memory that was used before, larger ones give
    # theirs back: fresh pages for every picture cost a fifth of the time (docs/decoding.md).
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(8 * 1024 * 1024),
    "MALLOC_TRIM_THRESHOLD_": str(64 * 1024 * 1024),
    "MALLOC_TOP_PAD_": str(16 * 1024 * 1024),
}
_PASSED_ON = ("LD_LIBRARY_PATH", "SYSTEMROOT", "TZ")
"""Where shared libraries are; none of these is a place for secrets."""


class NurseryError(RuntimeError):
    """Decoding processes cannot be started; the message says why."""


class Nursery:
    """One nursery process. Its methods may be called from any thread."""

    def __init__(self, function: str) -> None:
        """Start it, without waiting until it is ready.

        Args:
            function: `module:name` of what decodes one image; the module has a `prepare()`, too.
        """
        self._lock = threading.Lock()
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.settimeout(START_SECONDS)
        root = str(Path(decode_child.__file__).resolve().parents[1])
        # Absolute, because the nursery does not run in this folder.
        path = [str(Path(entry).absolute()) for entry in (root, *sys.path) if entry]
        environment = _ENVIRONMENT | {
            name: os.environ[name] for name in _PASSED_ON if name in os.environ
        }
        try:
            with theirs:
                self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and script
                    [
                        sys.executable,
                        "-I",
                        "-S",
                        decode_child.__file__,
                        str(theirs.fileno()),
                        str(os.getpid()),
                        json.dumps(path),
                        function,
                    ],
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(),),
                    cwd="/",
                    # Ctrl-C in a terminal goes to the whole group, and is for the parent alone.
                    start_new_session=True,
                )
        except OSError as error:
            self._control.close()
            raise NurseryError(f"no process for decoding can be started: {error}") from error

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def fork(self, connection: socket.socket, shared: int, largest_memory: int) -> int:
        """A new decoder, which serves `connection` and shares the memory behind `shared`.

        Returns:
            Its process id. It stays valid until `reap`.

        Raises:
            NurseryError: the nursery has died, or does not answer.
        """
        request = decode_child.FORK + struct.pack("<q", largest_memory)
        return self._ask(request, [connection.fileno(), shared])

    def reap(self, pid: int) -> int:
        """Wait for a decoder that was killed or is ending.

        Returns:
            Its wait status (see `os.waitstatus_to_exitcode`).

        Raises:
            NurseryError: the nursery has died, and its decoders with it.
        """
        return self._ask(decode_child.REAP + struct.pack("<i", pid), [])

    def close(self) -> None:
        """End the nursery and, through the kernel, every decoder that came from it."""
        self._process.kill()
        self._process.wait()
        self._control.close()

    def _ask(self, request: bytes, descriptors: list[int]) -> int:
        with self._lock:
            try:
                socket.send_fds(self._control, [request], descriptors)
                answer = self._control.recv(64)
            except OSError as error:
                raise NurseryError(f"the nursery of decoders does not answer: {error}") from error
        if len(answer) != 4:
            raise NurseryError(
                f"the nursery of decoders has ended with {self._process.poll()}; its error is on "
                "standard error"
            )
        (number,) = struct.unpack("<i", answer)
        return int(number)
