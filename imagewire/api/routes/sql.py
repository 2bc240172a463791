"""SQL: one statement that reads, and what there is to ask about."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Header
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from imagewire.api.keys import Caller, Scope, needs
from imagewire.api.problems import Problem
from imagewire.api.services import Shared
from imagewire.api.sql_results import MEDIA_TYPES, SqlFormat, accepted_format
from imagewire.api.view_comments import COLUMN_COMMENTS, VIEW_COMMENTS

router = APIRouter(tags=["sql"])

Reader = Annotated[Caller, Depends(needs(Scope.READ))]
Plain = str | int | float | bool | None
Value = Plain | list[Plain | list[Plain]]

_COLUMNS = """
SELECT table, name, type, comment FROM system.columns
WHERE database = currentDatabase() AND table IN
    (SELECT name FROM system.tables WHERE database = currentDatabase() AND engine = 'View')
ORDER BY table, position
"""
_EXAMPLE: dict[str, Any] = {
    "query": "SELECT label, count() AS images FROM detections WHERE feed = {feed:String} "
    "GROUP BY label ORDER BY images DESC",
    "params": {"feed": "gate-3"},
    "format": "json",
    "max_rows": 1000,
}


class SqlQuestion(BaseModel):
    """A statement, and how its result is wanted."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [_EXAMPLE]})

    query: str = Field(
        min_length=1,
        max_length=100_000,
        description="One statement that reads: SELECT, WITH, SHOW, DESCRIBE, EXPLAIN, EXISTS; "
        "without FORMAT. `{name:Type}` stands for a parameter.",
    )
    params: dict[Annotated[str, Field(max_length=64)], Value] = Field(
        {}, max_length=100, description="Values of the parameters."
    )
    format: SqlFormat | None = Field(
        None, description="Of the result; what the header Accept says if not given, else JSON."
    )
    max_rows: int | None = Field(
        None, ge=1, le=1_000_000_000, description="Rows after which the result is cut."
    )
    spreadsheet_safe: bool = Field(
        True,
        description="In CSV, put an apostrophe before text that a spreadsheet would run as a "
        "formula: whoever sends pictures chooses the text in them.",
    )


class SqlColumn(BaseModel):
    """A column of a result."""

    name: str
    type: str = Field(description="ClickHouse's name of the type.")


class SqlAnswer(BaseModel):
    """A result as JSON."""

    columns: list[SqlColumn]
    rows: list[list[Any]] = Field(
        description="Integers beyond 2^53 and decimals are text; times are RFC 3339."
    )
    row_count: int | None = Field(description="null if the result broke off.")
    truncated: bool = Field(description="Rows were left out.")
    elapsed_ms: float
    error: str | None = Field(description="Why the result broke off.")


class ViewColumn(SqlColumn):
    """A column of a view."""

    comment: str


class View(BaseModel):
    """A view, in which every record counts once."""

    name: str
    comment: str
    columns: list[ViewColumn]


class SqlSchema(BaseModel):
    """What can be asked about."""

    database: str
    views: list[View]


_RESULTS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The result, streamed.",
        "content": {
            "application/json": {"schema": SqlAnswer.model_json_schema()},
            **{
                media_type.partition(";")[0]: {"schema": {"type": "string", "format": "binary"}}
                for name, media_type in MEDIA_TYPES.items()
                if name != "json"
            },
        },
    },
    406: {"description": "No format that the header Accept names."},
}


@router.post(
    "/v1/sql",
    summary="Ask in SQL",
    response_class=Response,
    responses=_RESULTS,
)
async def ask_in_sql(
    services: Shared,
    caller: Reader,
    question: Annotated[SqlQuestion, Body()],
    accept: Annotated[str, Header(max_length=1000)] = "*/*",
) -> Response:
    """The result of one statement that reads tables and views. Files, other servers and every
    change are refused; time, rows and memory are limited."""
    caller.require_all_feeds()
    output = question.format or accepted_format(accept)
    if output is None:
        raise Problem(
            406,
            "not-acceptable",
            "No such representation",
            f"results come as {', '.join(MEDIA_TYPES)}; name one as `format`",
        )
    return await services.sql.answer(
        question.query,
        {name: _bindable(value) for name, value in question.params.items()},
        output,
        max_rows=question.max_rows,
        spreadsheet_safe=question.spreadsheet_safe,
    )


@router.get("/v1/sql/schema", summary="The views and their columns")
async def list_views(services: Shared, caller: Reader) -> SqlSchema:
    """Every view with its columns, their types and what they mean."""
    caller.require_all_feeds()
    views: dict[str, list[ViewColumn]] = {}
    for row in await services.query(_COLUMNS):
        name, view = row["name"], row["table"]
        comment = row["comment"] or _column_comment(view, name)
        views.setdefault(view, []).append(ViewColumn(name=name, type=row["type"], comment=comment))
    return SqlSchema(
        database=services.settings.clickhouse.database,
        views=[
            View(name=name, comment=VIEW_COMMENTS.get(name, ""), columns=columns)
            for name, columns in sorted(views.items(), key=lambda item: _order(item[0]))
        ],
    )


def _bindable(value: Any) -> Any:
    """Bool as 1 and 0, which parameters of every numeric type take."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, list):
        return [_bindable(each) for each in value]
    return value


def _column_comment(view: str, column: str) -> str:
    own: Mapping[str, str] = COLUMN_COMMENTS.get(view, {})
    return own.get(column) or COLUMN_COMMENTS[""].get(column, "")


def _order(view: str) -> tuple[int, str]:
    known = list(VIEW_COMMENTS)
    return (known.index(view) if view in known else len(known), view)
