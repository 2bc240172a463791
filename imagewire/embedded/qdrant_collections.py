"""Collections and aliases of the embedded Qdrant: one folder and one engine shard for each.

    DIR/lock                      held while a process has DIR open
    DIR/aliases.json              alias to collection
    DIR/collections/NAME/         collection.json (its vectors) and shard/ (the engine's own files)

The engine has no collections, no aliases and no names; a Qdrant server has, and its clients use
them to move to a new embedder without a gap. So they are kept here.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import threading
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import grpc
import qdrant_edge as edge

from imagewire.embedded.qdrant_convert import RequestError, invalid

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,254}")

NEVER_INDEX_KB = 1 << 40
"""An indexing threshold above any size: no HNSW graph is built while serving.

The engine builds a graph with Python's lock held, so that nothing else is answered meanwhile: 47 to
129 seconds for 50 000 vectors of 512 dimensions on 2 cores. Reading all vectors instead takes 7 ms
there and 27 ms at 200 000, less than fetching the picture. Larger collections are indexed by
`--optimize` while nothing is served, or belong on a Qdrant server.
"""


class StorageLockedError(Exception):
    """Another process has the folder open."""


@dataclass(frozen=True, slots=True)
class CollectionConfig:
    """What a collection was created with.

    Attributes:
        size: dimension of its vectors.
        distance: `Cosine`, `Euclid`, `Dot` or `Manhattan`.
    """

    size: int
    distance: str


class Collection:
    """One engine shard, and when its changes reach the disk.

    The engine writes to a log in memory that survives the process but not the machine; `flush`
    makes it safe, with some twenty `fsync`s: 14 ms on an idle disk, 250 ms on a busy one, Python's
    lock held. So writers that wait at the same time share one.
    """

    def __init__(self, name: str, config: CollectionConfig, shard: edge.EdgeShard) -> None:
        self.name = name
        self.config = config
        self.shard = shard
        self._writing = threading.Lock()
        self._flushing = threading.Lock()
        self._written = 0
        self._flushed = 0

    def write(self, operation: edge.UpdateOperation, wait: bool) -> None:
        """Apply `operation`; with `wait` it is on the disk when this returns."""
        with self._writing:
            self.shard.update(operation)
            self._written += 1
            mine = self._written
        if wait:
            self.flush(mine)

    def flush(self, up_to: int | None = None) -> None:
        """Bring changes to the disk, if those up to number `up_to` (all, by default) are not."""
        with self._flushing:
            written = self._written
            if self._flushed < (written if up_to is None else up_to):
                self.shard.flush()
                self._flushed = written

    def close(self) -> None:
        self.flush()
        with self._writing, self._flushing:
            self.shard.close()

    @classmethod
    def open(cls, name: str, folder: Path, index: bool = False) -> Collection:
        """Open the collection in `folder`, finishing a creation that was cut short."""
        config = CollectionConfig(**_read_json(folder / "collection.json"))
        shard_folder = folder / "shard"
        engine_config = edge.EdgeConfig(
            vectors=edge.EdgeVectorParams(
                size=config.size, distance=getattr(edge.Distance, config.distance)
            ),
            optimizers=edge.EdgeOptimizersConfig(
                indexing_threshold=None if index else NEVER_INDEX_KB
            ),
        )
        # The engine loads whatever there is and makes good what is missing beside it; only a shard
        # whose creation never began has to be created.
        if shard_folder.exists() and any(shard_folder.iterdir()):
            shard = edge.EdgeShard.load(str(shard_folder), engine_config)
        else:
            shard_folder.mkdir(exist_ok=True)
            shard = edge.EdgeShard.create(str(shard_folder), engine_config)
        return cls(name, config, shard)


class CollectionStore:
    """All collections below one folder, owned by one process.

    Raises:
        StorageLockedError: another process holds the folder; the message names its process id.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._collections_folder = folder / "collections"
        self._collections_folder.mkdir(parents=True, exist_ok=True)
        self._lock_file = _lock(folder / "lock")
        self._changes = threading.Lock()
        self._collections: dict[str, Collection] = {}
        self._aliases: dict[str, str] = {}
        aliases = folder / "aliases.json"
        if aliases.exists():
            self._aliases = _read_json(aliases)
        for entry in sorted(self._collections_folder.iterdir()):
            if (entry / "collection.json").exists():
                self._collections[entry.name] = Collection.open(entry.name, entry)
            else:  # a creation or deletion that was cut short
                shutil.rmtree(entry)

    def find(self, name: str) -> Collection:
        """The collection of that name or alias."""
        found = self._collections.get(self._aliases.get(name, name))
        if found is None:
            raise RequestError(
                grpc.StatusCode.NOT_FOUND, f"Not found: Collection `{name}` doesn't exist!"
            )
        return found

    def exists(self, name: str) -> bool:
        return self._aliases.get(name, name) in self._collections

    def names(self) -> list[str]:
        return sorted(self._collections)

    def aliases(self) -> list[tuple[str, str]]:
        """Alias and collection, in the order of aliases."""
        return sorted(self._aliases.items())

    def create(self, name: str, config: CollectionConfig) -> None:
        if not _NAME.fullmatch(name):
            raise invalid(
                f"collection name '{name}' may hold letters, digits, '_', '-' and '.', "
                "at most 255, and begins with none of the last two"
            )
        with self._changes:
            if self.exists(name):
                raise RequestError(
                    grpc.StatusCode.ALREADY_EXISTS, f"Collection `{name}` already exists!"
                )
            folder = self._collections_folder / name
            folder.mkdir()
            _write_json(folder / "collection.json", asdict(config))
            self._collections[name] = Collection.open(name, folder)

    def delete(self, name: str) -> bool:
        """Remove a collection and the aliases that point at it. False if it is not there."""
        with self._changes:
            collection = self._collections.pop(name, None)
            if collection is None:
                return False
            kept = {alias: target for alias, target in self._aliases.items() if target != name}
            if kept != self._aliases:
                self._store_aliases(kept)
            collection.close()
            folder = self._collections_folder / name
            # First what makes the folder a collection, so that half a deletion is finished at the
            # next start instead of coming back to life empty.
            (folder / "collection.json").unlink()
            shutil.rmtree(folder)
            return True

    def change_aliases(self, changes: Iterator[tuple[str, str | None]]) -> None:
        """Apply all of `changes` (alias and new target, None to remove) at once or none."""
        with self._changes:
            aliases = dict(self._aliases)
            for alias, target in changes:
                if target is None:
                    aliases.pop(alias, None)
                    continue
                # A rename names the target by the alias that is going away.
                target = aliases.get(target, target)
                if target not in self._collections:
                    raise RequestError(
                        grpc.StatusCode.NOT_FOUND,
                        f"Not found: Collection `{target}` doesn't exist!",
                    )
                if alias in self._collections:
                    raise RequestError(
                        grpc.StatusCode.ALREADY_EXISTS,
                        f"`{alias}` is a collection and cannot be an alias too",
                    )
                aliases[alias] = target
            self._store_aliases(aliases)

    def flush(self) -> None:
        """Bring to the disk what was written without waiting for it."""
        for collection in list(self._collections.values()):
            collection.flush()

    def close(self) -> None:
        """Flush and close every shard, and give the folder free."""
        with self._changes:
            for collection in self._collections.values():
                collection.close()
            self._collections.clear()
        self._lock_file.close()

    def _store_aliases(self, aliases: Mapping[str, str]) -> None:
        _write_json(self._folder / "aliases.json", aliases)
        self._aliases = dict(aliases)


def optimize(folder: Path) -> list[str]:
    """Build the search graphs of all collections below `folder`, which must not be served.

    Returns:
        The names of the collections that gained by it.

    Raises:
        StorageLockedError: a process serves the folder.
    """
    (folder / "collections").mkdir(parents=True, exist_ok=True)
    lock_file = _lock(folder / "lock")
    gained: list[str] = []
    try:
        for entry in sorted((folder / "collections").iterdir()):
            if (entry / "collection.json").exists():
                shard = Collection.open(entry.name, entry, index=True).shard
                if shard.optimize():
                    gained.append(entry.name)
                shard.flush()
                shard.close()
    finally:
        lock_file.close()
    return gained


def _lock(path: Path) -> IO[str]:
    file = path.open("a+", encoding="ascii")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = file.read().strip() or "unknown"
        file.close()
        raise StorageLockedError(
            f"{path.parent} is in use by process {holder}; stop that one, or name another folder"
        ) from None
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file


def _read_json(path: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return value


def _write_json(path: Path, value: object) -> None:
    """Replace `path` so that a crash leaves the old content or the new."""
    fresh = path.with_suffix(".new")
    with fresh.open("w", encoding="utf-8") as file:
        json.dump(value, file, indent=1, sort_keys=True)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
