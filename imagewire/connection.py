"""Where the client commands connect: the stack that runs here, else what the settings name.

`imagewire sql` beside a running `imagewire up` should just work, so a running stack is used unless
the user named something else (a settings file, or variables that say where the broker or store is).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from imagewire.embedded.datadir import RunRecord, find_running
from imagewire.settings import ConfigurationError, LoadedSettings, Settings, load_settings

DEFAULT_DATA = Path("imagewire-data")


@dataclass(frozen=True)
class Connection:
    """Settings whose addresses can be used, and the running stack they came from, if any.

    Attributes:
        assumed: nobody named an address and no stack runs: they are the settings' defaults.
    """

    settings: Settings
    stack: RunRecord | None
    assumed: bool = False


def find_connection(data: Path | None = None, config: Path | None = None) -> Connection:
    """Resolve where to connect.

    Args:
        data: the data directory of a running stack; must run when given.
        config: a settings file; used as it is when given.

    Raises:
        ConfigurationError: `data` is given but nothing runs on it, or the settings are wrong.
    """
    loaded = load_settings(config)
    if data is None and _names_addresses(loaded):
        return Connection(loaded.settings, None)
    stack = find_running(data or DEFAULT_DATA)
    if stack is None:
        if data is not None:
            raise ConfigurationError(
                f"no stack runs on {data}; start one with: imagewire up --data {data}"
            )
        return Connection(loaded.settings, None, assumed=True)
    settings = pointed_at(loaded.settings, stack)
    if settings.policy.calibrations_folder is None:
        folder = calibrations_of(data or DEFAULT_DATA)
        policy = settings.policy.model_copy(update={"calibrations_folder": folder})
        settings = settings.model_copy(update={"policy": policy})
    return Connection(settings, stack)


def calibrations_of(data: Path) -> Path:
    """The folder of calibrations that a stack on the data directory `data` has."""
    return data.resolve() / "calibrations"


def _names_addresses(loaded: LoadedSettings) -> bool:
    return any(key.split(".")[0] in ("kafka", "clickhouse", "qdrant") for key in loaded.origins)


def pointed_at(settings: Settings, stack: RunRecord) -> Settings:
    """`settings` with the stack's addresses; for reading, so ClickHouse's user is the analyst."""
    values = settings.model_dump()
    values["kafka"]["bootstrap_servers"] = stack.broker_address
    values["clickhouse"] |= {
        "interface": "http",
        "host": stack.clickhouse_host,
        "port": stack.clickhouse_port,
        "username": stack.analyst_user,
        "password": stack.analyst_password,
    }
    values["qdrant"] |= {
        "host": stack.qdrant_host,
        "grpc_port": stack.qdrant_port,
        "api_key": stack.qdrant_api_key,
    }
    return settings.model_copy(
        update={
            name: type(getattr(settings, name))(**values[name])
            for name in ("kafka", "clickhouse", "qdrant")
        }
    )
