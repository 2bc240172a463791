"""What is promised of SQL over HTTP: it reads and nothing else, in every format, within limits."""

from __future__ import annotations

import csv
import io
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet
import pytest

pytestmark = [pytest.mark.timeout(180), pytest.mark.xdist_group("api-asking")]

MANY = "SELECT number, toString(number) AS text FROM numbers({count:UInt64})"


def ask(place: Any, query: str, **more: Any) -> httpx.Response:
    return place.post("/v1/sql", json={"query": query, **more})


def test_a_result_comes_with_the_types_of_its_columns(place: Any) -> None:
    place.write([place.image("typed", "sql-types", text="M150")])
    answer = ask(
        place,
        "SELECT image_id, event_time, labels, scores, verdict FROM images WHERE feed = {f:String}",
        params={"f": "sql-types"},
    ).json()
    assert [column["type"] for column in answer["columns"]][:2] == [
        "String",
        "DateTime64(3, 'UTC')",
    ]
    [[image_id, event_time, labels, scores, verdict]] = answer["rows"]
    assert (image_id, labels, scores, verdict) == (
        "typed",
        ["bus", "person"],
        {"nsfw": 0.25},
        "allow",
    )
    assert event_time.endswith("Z") and len(event_time) == len("2026-01-31T08:15:00.000Z")
    assert answer["row_count"] == 1 and answer["truncated"] is False and answer["error"] is None


def test_values_that_json_would_change_come_as_text(place: Any) -> None:
    query = (
        "SELECT 18446744073709551615 AS big, 7 AS small, toInt128(-5) AS wide, "
        "toDecimal64(1.5, 3) AS price, nan AS nothing, toIPv6('::1') AS address, '\\xff' AS bytes, "
        "[toUInt64(18446744073709551615)] AS list, CAST(NULL AS Nullable(DateTime)) AS never"
    )
    [row] = place.sql(query)
    assert row == [
        *("18446744073709551615", 7, "-5", "1.500", None, "::1", "\ufffd"),
        *(["18446744073709551615"], None),
    ]


@pytest.mark.parametrize("way", ["format", "accept"])
def test_all_formats_hold_the_same_rows(place: Any, way: str) -> None:
    def got(name: str, media_type: str) -> bytes:
        more: dict[str, Any] = {"format": name} if way == "format" else {}
        headers = {} if way == "format" else {"Accept": f"text/nonsense, {media_type}"}
        question = {"query": MANY, "params": {"count": 70_000}, **more}
        answer = place.post("/v1/sql", json=question, headers=headers)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"].startswith(media_type)
        return answer.content

    rows = list(csv.reader(io.StringIO(got("csv", "text/csv").decode())))
    assert rows[0] == ["number", "text"] and len(rows) == 70_001 and rows[-1] == ["69999", "69999"]
    stream = pa.ipc.open_stream(got("arrow", "application/vnd.apache.arrow.stream")).read_all()
    parquet = pa.parquet.read_table(io.BytesIO(got("parquet", "application/vnd.apache.parquet")))
    assert stream.equals(parquet)
    assert stream.num_rows == 70_000 and stream.schema.field("number").type == pa.uint64()


def test_max_rows_cuts_and_says_so(place: Any) -> None:
    answer = ask(place, MANY, params={"count": 10}, max_rows=3).json()
    assert len(answer["rows"]) == 3 and answer["truncated"] is True
    exactly = ask(place, MANY, params={"count": 3}, max_rows=3).json()
    assert len(exactly["rows"]) == 3 and exactly["truncated"] is False


def test_text_that_a_spreadsheet_would_run_is_made_harmless_in_csv(place: Any) -> None:
    query = "SELECT '=HYPERLINK(1)' AS a, '-1+2' AS b, '-12.5' AS c, 'fine' AS d, -3 AS e"
    safe = ask(place, query, format="csv").text.splitlines()[1]
    assert safe == '"\'=HYPERLINK(1)","\'-1+2","-12.5","fine",-3'
    raw = ask(place, query, format="csv", spreadsheet_safe=False).text.splitlines()[1]
    assert raw == '"=HYPERLINK(1)","-1+2","-12.5","fine",-3'


@pytest.mark.parametrize(
    "query",
    [
        "DROP TABLE images_raw",
        "INSERT INTO images_raw (image_id) VALUES ('x')",
        "SELECT file('/etc/passwd')",
        "SELECT arrayMap(file, ['/etc/passwd'])",
        "SELECT * FROM url('http://127.0.0.1/', 'CSV', 'a String')",
        "SELECT * FROM merge('system', 'one') INTO OUTFILE 'x'",
        "SELECT 1; SELECT 2",
        "/* SELECT */ SYSTEM SHUTDOWN",
        "SELECT 1 FORMAT CSV",
        "SELECT $$x$$",
        "SET readonly = 0",
    ],
)
def test_what_does_more_than_read_is_refused(place: Any, query: str) -> None:
    answer = ask(place, query)
    assert answer.status_code == 403
    problem = answer.json()
    assert problem["type"] == "urn:imagewire:problem:sql-refused" and problem["message"]


def test_limits_cannot_be_lifted_in_the_statement(place: Any) -> None:
    answer = ask(place, "SELECT 1 SETTINGS max_execution_time = 0")
    assert answer.status_code == 403 and answer.json()["code"] == 164


def test_clickhouse_speaks_for_itself(place: Any) -> None:
    answer = ask(place, "SELECT lable FROM detections")
    assert answer.status_code == 400
    problem = answer.json()
    assert problem["code"] == 47 and problem["name"] == "UNKNOWN_IDENTIFIER"
    assert problem["message"].startswith("Unknown expression") and "lable" in problem["message"]
    assert "http://" not in answer.text and str(place.writer.port) not in problem["detail"]


@pytest.mark.parametrize(
    ("query", "params"),
    [
        ("SELECT '%(a)s'", {"a": "' , file('/etc/passwd') , '"}),
        ("SELECT 1", {"a": 1}),
        ("SELECT {b:String}", {"a": 1, "b": "x"}),
        ("SELECT {a:String}", {"a`b": "x"}),
    ],
)
def test_a_parameter_without_a_place_never_gets_into_the_text(
    place: Any, query: str, params: dict[str, Any]
) -> None:
    answer = ask(place, query, params=params)
    assert answer.status_code == 403 and "has no place" in answer.json()["detail"]


def test_parameters_of_every_kind_arrive_unchanged(place: Any) -> None:
    params = {"s": "it's \\ {x:y} \n\t%s ü", "n": -3, "b": True, "l": ["a'b", "c"], "z": None}
    [row] = place.sql(
        "SELECT {s:String}, {n:Int32}, {b:Bool}, {l:Array(String)}, {z:Nullable(String)}",
        params=params,
    )
    assert row == [params["s"], -3, True, ["a'b", "c"], None]


def test_a_result_that_fails_late_is_not_taken_for_a_whole_one(place: Any) -> None:
    query = "SELECT throwIf(number = 400000) AS a FROM numbers(500000)"
    # The embedded engine knows before it sends the first row.
    assert ask(place, query).json()["code"] == 395
    broken = ask(place, "SELECT ['\\xff'] AS a", format="csv")
    assert broken.status_code == 400 and "toValidUTF8" in broken.json()["detail"]


def test_who_may_ask(place: Any) -> None:
    question = {"query": "SELECT 1"}
    assert place.post("/v1/sql", "guest", json=question).status_code == 403
    confined = place.post("/v1/sql", "eve", json=question)
    assert confined.status_code == 403 and "confined" in confined.json()["detail"]
    assert place.get("/v1/sql/schema", "eve").status_code == 403
    assert httpx.post(f"{place.url}/v1/sql", json=question, trust_env=False).status_code == 401


def test_requests_that_cannot_be_meant_are_explained(place: Any) -> None:
    assert ask(place, "").status_code == 422
    assert ask(place, "SELECT 1", format="xml").status_code == 422
    assert ask(place, "SELECT 1", max_rows=0).status_code == 422
    assert ask(place, "SELECT 1", surprise=1).status_code == 422
    wanted = {"Accept": "image/png"}
    answer = place.post("/v1/sql", json={"query": "SELECT 1"}, headers=wanted)
    assert answer.status_code == 406 and "parquet" in answer.json()["detail"]


def test_many_statements_at_once_wait_or_are_told_to_come_again(place: Any) -> None:
    import concurrent.futures

    with concurrent.futures.ThreadPoolExecutor(30) as pool:
        answers = list(pool.map(lambda _: ask(place, "SELECT sleep(0.2)").status_code, range(30)))
    assert set(answers) <= {200, 429} and answers.count(200) >= 18
    assert place.sql("SELECT 1") == [[1]]


def test_a_reader_who_leaves_gives_the_place_to_others(place: Any) -> None:
    question = {"query": MANY, "params": {"count": 900_000}}
    headers = {"Authorization": f"Bearer {place.keys['ann']}"}
    for _ in range(4):
        with httpx.stream(
            "POST", f"{place.url}/v1/sql", json=question, headers=headers, trust_env=False
        ) as answer:
            assert answer.status_code == 200
            next(answer.iter_raw())
    assert place.sql("SELECT 1") == [[1]]


def test_the_schema_tells_every_view_with_what_it_means(place: Any) -> None:
    schema = place.get("/v1/sql/schema").json()
    views = {view["name"]: view for view in schema["views"]}
    assert schema["database"] == place.writer.database
    assert {"images", "detections", "current_verdicts", "reviews"} <= set(views)
    assert not any(name.endswith("_raw") for name in views)
    assert [name for name, view in views.items() if not view["comment"]] == []
    columns = {column["name"]: column for column in views["images"]["columns"]}
    assert columns["event_time"]["type"] == "DateTime64(3, 'UTC')"
    assert columns["pdq"]["comment"]
