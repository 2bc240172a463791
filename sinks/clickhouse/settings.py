"""Where ClickHouse is and how long rows are kept."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator


class ClickHouseSettings(BaseModel):
    """Settings of the ClickHouse sink and of its reader."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    enabled: bool = Field(True, description="Write findings to ClickHouse.")
    interface: Literal["http", "chdb"] = Field(
        "http",
        description="`http` reaches a ClickHouse server (or the embedded engine's front) over the "
        "network; `chdb` opens the engine inside this process, on `path`.",
    )
    host: str = Field("127.0.0.1", description="Host name or address of the server.")
    port: int = Field(
        8123, ge=1, le=65535, description="The server's HTTP port; 8443 is usual with TLS."
    )
    username: str = Field("default", description="User that owns the tables.")
    password: SecretStr = Field(SecretStr(""), description="Password of `username`.")
    secure: bool = Field(False, description="Use HTTPS.")
    verify: bool = Field(True, description="Check the server's certificate when `secure` is on.")
    ca_cert: Path | None = Field(
        None, description="PEM file of the authority that signed the server's certificate, if it "
        "is not one that the operating system trusts.",
    )  # fmt: skip
    database: str = Field(
        "imagewire",
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        description="Database of the tables and views; made if it is not there.",
    )
    path: Path | None = Field(
        None, description="Directory of the engine's data, for the interface `chdb` only. One "
        "process may have it open.",
    )  # fmt: skip
    max_memory: int = Field(
        1_500_000_000,
        ge=200_000_000,
        description="Bytes that the engine inside this process may use, for `chdb` only.",
    )
    retention_days: int = Field(
        90, ge=0, le=36_500, description="Days after which rows are deleted, counted from when "
        "they were written; 0 keeps them for ever.",
    )  # fmt: skip
    connect_timeout: float = Field(5.0, gt=0, description="Seconds to wait for a connection.")
    send_receive_timeout: float = Field(
        30.0, gt=0, description="Seconds to wait for the answer to an insert."
    )
    query_timeout: float = Field(
        30.0, gt=0, description="Seconds that a query of `imagewire sql` may run."
    )
    query_max_rows: int = Field(
        1_000_000, ge=1, description="Most rows that a query of `imagewire sql` may return."
    )

    @model_validator(mode="after")
    def _path_belongs_to_chdb(self) -> Self:
        if self.interface == "chdb" and self.path is None:
            raise ValueError(
                "interface 'chdb' keeps its data in a directory: set clickhouse.path, or use the "
                "interface 'http' with a server's host and port"
            )
        return self
