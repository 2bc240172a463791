"""All settings: one `imagewire.toml`, every key overridable by an environment variable.

A variable's name is `IMAGEWIRE_`, the table, two underscores and the key:
`IMAGEWIRE_KAFKA__BOOTSTRAP_SERVERS`. The environment wins over the file, the file over the
defaults.
Unknown keys are refused with the nearest valid name; secrets are masked wherever settings print.
"""

from __future__ import annotations

import ipaddress
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec
from pydantic import (
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from imagewire.api.settings import ApiSettings
from imagewire.model_health_settings import ModelHealthSettings
from imagewire.policy_settings import PolicySettings
from imagewire.retention_settings import RetentionSettings
from imagewire.secret_files import SecretFileError, named_by_file, read_secret_files
from imagewire.settings_mistakes import Mistakes, NotJsonError
from imagewire.webhooks_settings import WebhookSettings
from models.precision import Precision
from operators.decode_limits import DecodeLimits, Isolation
from operators.privacy_options import PrivacyOptions
from operators.redact_options import RedactionOptions
from operators.terms_options import TermsOptions
from sinks.clickhouse.settings import ClickHouseSettings
from sinks.kafka.settings import KafkaSettings
from sinks.qdrant.settings import QdrantSettings
from streams.reviews_settings import AuditSettings, ReviewSettings
from streams.settings import (
    MEBIBYTE,
    BanSettings,
    BatchSettings,
    FetchSettings,
    ReuseSettings,
    Section,
    StreamSettings,
)

PREFIX = "IMAGEWIRE_"
CONFIG_VARIABLE = "IMAGEWIRE_CONFIG"
DEFAULT_FILE = Path("imagewire.toml")

OTHER_VARIABLES = frozenset({CONFIG_VARIABLE, "IMAGEWIRE_CACHE", "IMAGEWIRE_KAFKA_HOME"})
"""Variables that are no settings: the file's place, the caches, a Kafka installation."""
_FRONT_PREFIX = "IMAGEWIRE_FRONT_"


class ConfigurationError(Exception):
    """The settings cannot be used; the message names each wrong key, why, and what to do."""


class DecodeSettings(Section):
    """What an image may be at most, checked from its header before it is decoded, and how it is
    decoded. docs/decoding.md says more."""

    max_pixels: int = Field(
        80_000_000, ge=1, description="Largest width times height; a decoded pixel takes 3 bytes."
    )
    max_side: int = Field(30_000, ge=1, description="Largest width or height in pixels.")
    max_frames: int = Field(
        1000,
        ge=1,
        description="Most pictures in one file, such as an animation; only the first is decoded.",
    )
    max_memory: int = Field(
        1024 * MEBIBYTE,
        ge=1,
        description="Bytes that the images being decoded at once may take together. An image that "
        "needs more, up to 32 times max_pixels, is decoded alone.",
    )
    timeout: float = Field(
        10.0, gt=0, le=3600, description="Seconds that decoding one image may take."
    )
    truncated: Literal["reject", "tolerate"] = Field(
        "reject",
        description="Files whose end is missing: 'reject' them, or 'tolerate' them with the rest "
        "of the picture grey, which their findings say.",
    )
    isolation: Isolation = Field(
        "process",
        description="Where images are decoded: 'process' contains crashes, endless loops and "
        "floods of memory in child processes; 'thread' does not.",
    )
    reduce: Literal["auto", "off"] = Field(
        "auto",
        description="Size at which JPEGs are decoded: 'auto' reduces large ones to a half, a "
        "quarter or an eighth of their sides where no operator needs more; 'off' decodes all in "
        "full. The operator text needs all, unless its reading_side is set.",
    )
    threads: int | None = Field(
        None, ge=1, le=256, description="Decoder threads; as many as CPU cores when not set."
    )

    def limits(self, max_bytes: int) -> DecodeLimits:
        """These limits and the one on encoded bytes, which is among the settings of fetching."""
        return DecodeLimits(
            max_bytes=max_bytes,
            max_pixels=self.max_pixels,
            max_side=self.max_side,
            max_frames=self.max_frames,
            max_memory=self.max_memory,
            timeout=self.timeout,
            truncated=self.truncated,
        )


class ModelSettings(Section):
    """Where and how networks run."""

    device: str = Field(
        "auto", description="'auto' (the first CUDA device, else the CPU), 'cpu' or 'cuda:N'."
    )
    precision: Precision = Field(
        "auto",
        description="'auto': fp16 on CUDA, bf16 on CPUs that compute in it, else fp32.",
    )
    threads: int | None = Field(
        None, ge=1, le=1024, description="Torch threads; as many as CPU cores when not set."
    )
    replicas: int | None = Field(
        None,
        ge=1,
        le=64,
        description="Copies of the models, each at work on a batch of its own with its share of "
        "the threads; when not set, one for each thread up to 4 on a CPU, and one on a GPU.",
    )
    memory_share: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Share of a CUDA device's memory that torch may take, all of it when not set; "
        "the workers of 'imagewire worker --processes' divide it among them. DALI takes its own.",
    )
    catalogs: tuple[Path, ...] = Field(
        (), description="Files that add to or override the catalogue of models."
    )


class HttpSettings(Section):
    """The worker's own HTTP endpoint: /metrics and /healthz."""

    enabled: bool = Field(True, description="Serve it.")
    host: str = Field(
        "127.0.0.1",
        description="Address to bind to. Any other than a loopback address needs a key.",
    )
    port: int = Field(9108, ge=0, le=65_535, description="Port; 0 takes any free one.")
    key: SecretStr | None = Field(
        None,
        min_length=1,
        description="Asked for as 'Authorization: Bearer KEY' when set.",
    )

    @model_validator(mode="after")
    def _key_beyond_loopback(self) -> HttpSettings:
        if self.enabled and self.key is None and not _is_loopback(self.host):
            raise ValueError(
                f"host '{self.host}' can be reached from other machines, so a key is needed; "
                "set http.key (IMAGEWIRE_HTTP__KEY), or bind to 127.0.0.1"
            )
        return self


class LogSettings(Section):
    """What the worker writes to standard error."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="Least important level that is written."
    )


class Settings(BaseSettings):
    """Everything in `imagewire.toml`, table by table."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter="__", extra="forbid", validate_default=True
    )

    kafka: KafkaSettings = Field(default_factory=KafkaSettings)
    stream: StreamSettings = Field(default_factory=StreamSettings)
    fetch: FetchSettings = Field(default_factory=FetchSettings)
    decode: DecodeSettings = Field(default_factory=DecodeSettings)
    batch: BatchSettings = Field(default_factory=BatchSettings)
    reuse: ReuseSettings = Field(default_factory=ReuseSettings)
    bans: BanSettings = Field(default_factory=BanSettings)
    models: ModelSettings = Field(default_factory=ModelSettings)
    operators: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description="A table for each operator: enabled, when (a condition under which it runs), "
        "and the operator's own options.",
    )
    policy: PolicySettings = Field(default_factory=PolicySettings)
    terms: TermsOptions = Field(default_factory=TermsOptions)
    redaction: RedactionOptions = Field(default_factory=RedactionOptions)
    privacy: PrivacyOptions = Field(default_factory=PrivacyOptions)
    clickhouse: ClickHouseSettings = Field(default_factory=ClickHouseSettings)
    qdrant: QdrantSettings = Field(default_factory=QdrantSettings)
    reviews: ReviewSettings = Field(default_factory=ReviewSettings)
    audit: AuditSettings = Field(default_factory=AuditSettings)
    retention: RetentionSettings = Field(default_factory=RetentionSettings)
    model_health: ModelHealthSettings = Field(default_factory=ModelHealthSettings)
    webhooks: tuple[WebhookSettings, ...] = Field(
        (),
        description="Receivers of verdicts, each a table [[webhooks]].",
    )
    http: HttpSettings = Field(default_factory=HttpSettings)
    api: ApiSettings = Field(default_factory=ApiSettings)
    log: LogSettings = Field(default_factory=LogSettings)

    @field_validator("fetch")
    @classmethod
    def _bytes_fit(cls, fetch: FetchSettings) -> FetchSettings:
        if fetch.max_bytes > 1024 * MEBIBYTE:
            raise ValueError("fetch.max_bytes is over 1 GiB; no image needs that")
        return fetch

    @field_validator("retention")
    @classmethod
    def _decisions_last(
        cls, retention: RetentionSettings, info: ValidationInfo
    ) -> RetentionSettings:
        clickhouse = info.data.get("clickhouse")
        if clickhouse is not None and clickhouse.enabled:
            retention.check_decisions_last(clickhouse.retention_days)
        return retention

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # The file arrives as init settings, so the environment comes before them.
        return _Environment(settings_cls), init_settings


class _Environment(EnvSettingsSource):
    """Environment variables, and the files that they name. Operators' options, which have no
    declared types, are read as JSON where they are JSON (`false`, `0.4`), else as text."""

    def __call__(self) -> dict[str, Any]:
        values = super().__call__()
        read_secret_files(Settings, values, named_by_file(Settings, _variables()))
        for options in values.get("operators", {}).values():
            if isinstance(options, dict):
                for key, text in options.items():
                    options[key] = _json_or_text(text)
        return values

    def decode_complex_value(self, field_name: str, field: FieldInfo | None, value: Any) -> Any:
        try:
            return super().decode_complex_value(field_name, field, value)  # type: ignore[arg-type]
        except ValueError as error:
            raise NotJsonError(field_name, value) from error


class LoadedSettings(msgspec.Struct, frozen=True):
    """Settings, and where they came from: `file` is `None` when there is none, `origins` maps
    dotted keys that are not defaults to `file` or to the variable's name."""

    settings: Settings
    file: Path | None
    origins: dict[str, str]


def load_settings(file: Path | None = None) -> LoadedSettings:
    """Read the settings.

    Args:
        file: the TOML file; else the one that IMAGEWIRE_CONFIG names; else `imagewire.toml` in the
            working folder, if it is there.

    Raises:
        ConfigurationError
    """
    path = file or (Path(name) if (name := os.environ.get(CONFIG_VARIABLE)) else None)
    if path is None and DEFAULT_FILE.exists():
        path = DEFAULT_FILE
    content = {} if path is None else _read_toml(path)
    try:
        variables = named_by_file(Settings, _variables())
    except SecretFileError as error:
        raise ConfigurationError(str(error)) from None
    in_file = _leaves(content)
    mistakes = Mistakes(Settings, PREFIX, variables, path, in_file)
    if unknown := mistakes.unknown_variables():
        raise ConfigurationError(unknown)
    try:
        settings = Settings(**content)
    except SecretFileError as error:
        raise ConfigurationError(str(error)) from None
    except ValidationError as error:
        raise ConfigurationError(mistakes.explain(error)) from None
    except SettingsError as error:
        cause = error.__cause__
        if isinstance(cause, NotJsonError):
            raise ConfigurationError(mistakes.explain_not_json(cause)) from None
        raise ConfigurationError(f"the settings cannot be read: {error}") from error
    return LoadedSettings(settings, path, dict.fromkeys(in_file, "file") | variables)


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} is no TOML: {error}") from error


def _variables() -> dict[str, str]:
    """Dotted key to the name of the variable that sets it."""
    return {
        name[len(PREFIX) :].lower().replace("__", "."): name
        for name in sorted(os.environ)
        if name.upper().startswith(PREFIX)
        and name not in OTHER_VARIABLES
        and not name.startswith(_FRONT_PREFIX)
    }


def _leaves(values: Mapping[str, Any], prefix: str = "") -> list[str]:
    found = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            found += _leaves(value, f"{prefix}{key}.")
        else:
            found.append(f"{prefix}{key}")
    return found


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _json_or_text(text: Any) -> Any:
    if not isinstance(text, str):
        return text
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text
