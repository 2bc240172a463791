"""What an analyst's statement may ask of the embedded engine: settings and their ceilings.

A server keeps these in a settings profile; chDB has no users, so the front applies them to every
statement before `readonly=1`, which is set last and locks them.
"""

from __future__ import annotations

from collections.abc import Mapping

from imagewire.embedded.clickhouse_engine import BAD_ARGUMENTS, EngineError

ANALYST_LIMITS: Mapping[str, int] = {
    "max_execution_time": 60,
    "max_result_rows": 5_000_000,
    "max_result_bytes": 512 << 20,
    "max_threads": 4,
}
"""Settings that an analyst may lower and never raise."""
ANALYST_SETTINGS = frozenset(
    {
        "date_time_input_format", "date_time_output_format", "extremes", "join_use_nulls", "limit",
        "max_block_size", "offset", "result_overflow_mode", "session_timezone",
        "timeout_overflow_mode",
        "output_format_arrow_compression_method", "output_format_arrow_string_as_string",
        "output_format_arrow_low_cardinality_as_dictionary",
        "output_format_json_named_tuples_as_objects", "output_format_json_quote_64bit_integers",
        "output_format_json_quote_denormals", "output_format_native_encode_types_in_binary_format",
        "output_format_native_use_flattened_dynamic_and_json_serialization",
        "output_format_native_write_json_as_string", "output_format_parquet_string_as_string",
        "output_format_pretty_max_rows", "cancel_http_readonly_queries_on_client_close",
        "use_query_cache",
    }
)  # fmt: skip
"""Other settings that an analyst may send. A list and not a prefix: `output_format_schema` and
`format_template_*` name files."""


ANALYST_MEMORY_SHARE = 0.3
"""Of the engine's memory, for one statement. People's that need so much are rarely more than two at
once, as the API allows; what is left has to do for the writer's inserts and the merges."""


def analyst_settings(asked: Mapping[str, str], max_memory: int) -> dict[str, str]:
    """The settings under which an analyst's statement runs: those asked for, within the limits.

    Args:
        asked: settings that came with the statement.
        max_memory: bytes that the engine may use.

    Raises:
        EngineError: a setting is not open to analysts, or a limit is not a number.
    """
    limits = {**ANALYST_LIMITS, "max_memory_usage": int(max_memory * ANALYST_MEMORY_SHARE)}
    settings = {name: str(limit) for name, limit in limits.items()}
    for name, value in asked.items():
        if name in limits:
            try:
                wanted = float(value)
            except ValueError as error:
                raise EngineError(
                    BAD_ARGUMENTS, f"setting {name} is not a number: {value!r}. (BAD_ARGUMENTS)"
                ) from error
            if 0 < wanted < limits[name]:  # 0 means without limit
                settings[name] = value
        elif name in ANALYST_SETTINGS:
            settings[name] = value
        elif name != "readonly":
            raise EngineError(164, f"Cannot modify '{name}' setting in readonly mode. (READONLY)")
    return settings
