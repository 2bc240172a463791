"""`imagewire serve`: the HTTP API and the console, without anything else."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


def serve(
    *,
    host: str | None = None,
    port: Annotated[int | None, Parameter(name=["--port", "--api-port"])] = None,
    data: Annotated[Path | None, Parameter(name=["--data", "-d"])] = None,
    config: Annotated[Path | None, Parameter(name=["--config", "-c"])] = None,
) -> int:
    """Serve the HTTP API and the console, until Ctrl-C.

    `imagewire up` does so already. Alone it asks the Kafka, ClickHouse and Qdrant that the settings
    name, or a running stack. ClickHouse is only read, so its user may be one that may only read.

    Args:
        host: Address to bind to, instead of api.host. Any but a loopback address needs api.keys.
        port: Port, instead of api.port; 0 takes any free one.
        data: Data directory of the running stack to serve.
        config: Settings file that names the stores.
    """
    from pydantic import ValidationError

    from imagewire.api.serving import serve as serve_api
    from imagewire.cli.log_output import write_log
    from imagewire.cli.terminal import console, printable
    from imagewire.connection import find_connection
    from imagewire.settings import ConfigurationError

    connection = find_connection(data, config)
    settings = connection.settings
    given = {"host": host, "port": port}
    values = settings.api.model_dump() | {
        name: value for name, value in given.items() if value is not None
    }
    updates: dict[str, object] = {}
    try:
        updates["api"] = type(settings.api)(**values)
    except ValidationError as error:
        reasons = "; ".join(each["msg"].removeprefix("Value error, ") for each in error.errors())
        raise ConfigurationError(reasons) from None
    stack = connection.stack
    if stack is not None and not settings.fetch.file_roots:
        # Those that its worker may read are those that pictures are shown from.
        roots = tuple(Path(root) for root in stack.file_roots)
        updates["fetch"] = settings.fetch.model_copy(update={"file_roots": roots})
    settings = settings.model_copy(update=updates)

    def listening(at: str, number: int) -> None:
        place = f"[{at}]" if ":" in at else at
        console.print(printable(f"console http://{place}:{number}/"), soft_wrap=True, markup=False)

    write_log(settings.log.level)
    try:
        import uvloop
    except ImportError:  # there is none for Windows
        asyncio.run(serve_api(settings, listening))
    else:
        uvloop.run(serve_api(settings, listening))
    return 0
