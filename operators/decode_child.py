"""The process that decodes hostile images, and the nursery that it is forked from.

    python -I -S decode_child.py CONTROL_FD PARENT_PID SEARCH_PATH FUNCTION

Started as a script, this is the nursery: it imports the decoding libraries once, runs no hostile
bytes, and forks a decoder whenever the parent asks, which takes milliseconds where a new
interpreter takes 0.3 s. It has one thread, so forking is safe. Its environment holds no secrets.

Lives are tied together: the nursery ends when the parent's end of the control socket closes, by
whatever death; the kernel kills its decoders when the nursery ends, even one in an endless loop.
Ctrl-C and SIGTERM are ignored in both, because the parent still has images to finish then.
"""

import array
import ctypes
import importlib
import json
import os
import resource
import signal
import socket
import struct
import sys
from collections.abc import Callable
from typing import Any

PR_SET_PDEATHSIG = 1
PR_SET_NO_NEW_PRIVS = 38
PARENT_CHECK_SECONDS = 2.0
"""How often the nursery looks whether its parent is still there, in case that another process holds
a copy of the parent's socket."""
WORN_BYTES = 256 * 1024 * 1024
"""A decoder whose address space has grown by more than this asks to be replaced."""

FORK, REAP = b"F", b"R"
MESSAGE_BYTES = 16_384
DETAIL_CHARACTERS = 500
"""Of an explanation; as JSON it may take twelve bytes a character."""


def nursery(control: socket.socket, parent: int, function: str) -> None:
    """Fork decoders on request until the parent is gone."""
    libc = ctypes.CDLL(None, use_errno=True)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    module, _, name = function.partition(":")
    # A module of the decoder's kind: `prepare()`, and a function that decodes one image.
    decoding = importlib.import_module(module)
    decoding.prepare()
    decode: Callable[..., Any] = getattr(decoding, name)
    own = os.getpid()
    quiet = os.open(os.devnull, os.O_RDWR)
    control.settimeout(PARENT_CHECK_SECONDS)
    while True:
        try:
            message, ancillary, _, _ = control.recvmsg(64, socket.CMSG_SPACE(2 * 4))
        except TimeoutError:
            if os.getppid() != parent:
                return
            continue
        if not message:
            return
        if message[:1] == REAP:
            (child,) = struct.unpack("<i", message[1:])
            _, status = os.waitpid(child, 0)
            control.send(struct.pack("<i", status))
            continue
        descriptors = _descriptors(ancillary)
        (largest,) = struct.unpack("<q", message[1:])
        child = os.fork()
        if child == 0:
            control.close()
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != own:  # it died before the call above
                os._exit(1)
            for stream in (0, 1, 2):
                os.dup2(quiet, stream)
            # Whatever happens, a decoder never goes back into the nursery's loop.
            try:
                serve(socket.socket(fileno=descriptors[0]), descriptors[1], decode, largest)
            finally:
                os._exit(1)
        for descriptor in descriptors:
            os.close(descriptor)
        control.send(struct.pack("<i", child))


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    found = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return list(found)


def serve(requests: socket.socket, shared: int, decode: Callable[..., Any], largest: int) -> None:
    """Decode one image after the other until the parent closes the socket.

    Shared memory holds the encoded bytes at its beginning and takes the pixels after them.
    `largest` is the most memory in bytes that any image may need.
    """
    import mmap

    import numpy as np

    from operators.decode_limits import DecodeLimits
    from operators.image_facts import ImageHeader, Undecodable

    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    memory = mmap.mmap(shared, 0)
    os.close(shared)
    board = np.frombuffer(memory, np.uint8)
    at_birth = _address_space()
    ceiling = _lower(resource.RLIM_INFINITY, at_birth + WORN_BYTES + largest)
    resource.setrlimit(resource.RLIMIT_AS, (ceiling, ceiling))
    while True:
        message = requests.recv(MESSAGE_BYTES)
        if not message:
            os._exit(0)
        request = json.loads(message)
        content = board[: request["bytes"]].tobytes()
        now = _address_space()
        # What its header says bounds what an image may take, whatever follows the header.
        allowed = _lower(ceiling, now + request["memory"])
        resource.setrlimit(resource.RLIMIT_AS, (allowed, ceiling))
        answer: dict[str, Any]
        try:
            room = board[request["pixels_at"] :]
            found = decode(
                content,
                ImageHeader(**request["header"]),
                DecodeLimits(**request["limits"]),
                request["reduction"],
                room,
            )
            height, width = found.pixels.shape[:2]
            if height * width * 3 > room.size:
                raise Undecodable("too-many-pixels", f"the picture is {width} x {height}")
            if not np.may_share_memory(found.pixels, room):
                target = room[: height * width * 3]
                np.copyto(target.reshape(height, width, 3), found.pixels)
            answer = {"height": height, "width": width, "truncated": found.truncated}
        except Undecodable as problem:
            answer = {"reason": problem.reason, "detail": problem.detail[:DETAIL_CHARACTERS]}
        except MemoryError:
            answer = {"reason": "out-of-memory"}
        except Exception as error:  # noqa: BLE001 - told to the parent, which tells of it
            said = f"the decoder raised {type(error).__name__}: {error}"
            answer = {"reason": "decoder-crash", "detail": said[:DETAIL_CHARACTERS]}
        found = None
        resource.setrlimit(resource.RLIMIT_AS, (ceiling, ceiling))
        answer["worn"] = now - at_birth > WORN_BYTES or answer.get("reason") == "out-of-memory"
        requests.send(json.dumps(answer).encode())


def _lower(ceiling: int, wanted: int) -> int:
    """`wanted`, or the limit that is in force already if that is lower."""
    for limit in (ceiling, resource.getrlimit(resource.RLIMIT_AS)[1]):
        if limit != resource.RLIM_INFINITY:
            wanted = min(wanted, limit)
    return wanted


def _address_space() -> int:
    """Bytes of address space that this process takes."""
    with open("/proc/self/statm", "rb") as file:  # noqa: PTH123 - pathlib is not worth its import
        return int(file.read().split()[0]) * resource.getpagesize()


if __name__ == "__main__":
    sys.path[:] = json.loads(sys.argv[3])
    with socket.socket(fileno=int(sys.argv[1])) as parents:
        nursery(parents, int(sys.argv[2]), sys.argv[4])
