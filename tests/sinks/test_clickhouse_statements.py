"""What the SQL lexer and the guard of read-only statements promise."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sinks.clickhouse.sql_guard import RefusedStatement, reading_statement
from sinks.clickhouse.sql_lexer import (
    UnterminatedLiteral,
    first_word,
    split_insert,
    split_statements,
    tokens,
    trailing_format,
)

TABLE_FUNCTIONS = frozenset({"file", "url", "s3", "remote", "executable", "numbers", "eval"})


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1",
        "select * from detections where label = 'file'",
        "SELECT 'into outfile', \"label\" FROM `detections`",
        "WITH a AS (SELECT 1) SELECT * FROM a",
        "(SELECT 1) UNION ALL (SELECT 2)",
        "FROM images SELECT count()",
        "SHOW TABLES",
        "DESCRIBE TABLE images",
        "EXPLAIN SELECT 1",
        "SELECT number FROM numbers(10)",
        "SELECT profile, url FROM t",
        "SELECT {a:String}",
        "SELECT 'é 😀', '--', '/*'",
        "SELECT 'it''s', 'it\\'s'",
        "SELECT 1;",
    ],
)
def test_statements_that_read_tables_pass_unchanged(sql: str) -> None:
    assert reading_statement(sql, TABLE_FUNCTIONS) == sql.rstrip(";")


@pytest.mark.parametrize(
    "sql",
    [
        "",
        "-- nothing",
        ";",
        "INSERT INTO t VALUES (1)",
        "DROP TABLE t",
        "KILL QUERY WHERE 1",
        "SET readonly = 0",
        "USE other",
        "SYSTEM SHUTDOWN",
        "/* SELECT */ DROP TABLE t",
        "SELECT 1; DROP TABLE t",
        "SELECT 1 INTO OUTFILE '/a'",
        "SELECT 1 into/**/outfile '/a'",
        "SELECT 1 INTO -- x\n OUTFILE '/a'",
        "SELECT file('/etc/passwd')",
        "SELECT `file`('/etc/passwd')",
        "SELECT \"file\"('/etc/passwd')",
        "SELECT `fil\\x65`('/etc/passwd')",
        "SELECT file /* */ ('/etc/passwd')",
        "SELECT arrayMap(file, ['/etc/passwd'])",
        "SELECT arrayMap(x -> file(x), ['/etc/passwd'])",
        "SELECT * FROM URL('http://a')",
        "SELECT * FROM `s3`('http://a')",
        "DESCRIBE url('http://a')",
        "DESCRIBE TABLE url/**/('http://a')",
        "SELECT * FROM eval('SELECT 1')",
        "SELECT aiGenerate('x', 'y')",
        "SELECT 1 -- '\n, file('/etc/passwd') -- '",
        "SELECT 1 // '\n, file('/etc/passwd') // '",
        "SELECT 1 # '\n, file('/etc/passwd') # '",
        "SELECT 1 #! '\n, file('/etc/passwd') #! '",
        "SELECT $$'$$, file('/etc/passwd'), $$'$$",
        "SELECT $a$'$a$, file('/etc/passwd'), '",
        "SELECT ‘’’, file(’/etc/passwd’)",
        "SELECT x'\\', file('/etc/passwd') --'",
        "SELECT\u00a01",
        "SELECT 'open",
        "SELECT /* open",
        "SELECT \0 1",
    ],
)
def test_anything_that_does_more_than_read_is_refused(sql: str) -> None:
    with pytest.raises(RefusedStatement):
        reading_statement(sql, TABLE_FUNCTIONS)


def test_comments_never_reach_the_engine() -> None:
    sql = "SELECT 1 -- one\n, /* two */ 2 # three\n, 3 // four"
    assert reading_statement(sql, ()).split() == ["SELECT", "1", ",", "2", ",", "3"]


def test_a_refusal_says_what_is_refused() -> None:
    with pytest.raises(RefusedStatement, match="'url' is refused: it reaches files"):
        reading_statement("SELECT * FROM url('http://a')", TABLE_FUNCTIONS)


@given(st.text(alphabet="aF(')`\"\\-/*#$; \n’", max_size=40))
def test_tokens_cover_the_text_or_the_text_is_refused(sql: str) -> None:
    raw = sql.encode()
    try:
        found = list(tokens(raw))
    except UnterminatedLiteral:
        return
    covered = b"".join(token.text for token in found)
    assert covered.translate(None, b" \n") == raw.translate(None, b" \n")
    assert all(raw[token.start : token.end] == token.text for token in found)


@pytest.mark.parametrize(
    ("sql", "word"),
    [("  select 1", "SELECT"), ("/* a */ -- b\n ((WITH", "WITH"), ("'x'", ""), ("", "")],
)
def test_the_first_keyword_is_found_behind_comments_and_brackets(sql: str, word: str) -> None:
    assert first_word(sql.encode()) == word


@pytest.mark.parametrize(
    ("sql", "head", "input_format", "data"),
    [
        (b"INSERT INTO t FORMAT Native\n\x01'\x00", b"INSERT INTO t ", "Native", b"\x01'\x00"),
        (b"insert into t (a) values (1),\n\n(2)", b"insert into t (a) ", "Values", b" (1),\n\n(2)"),
        (b"INSERT INTO `format` FORMAT CSV 1", b"INSERT INTO `format` ", "CSV", b"1"),
        (b"INSERT INTO t SETTINGS a=1 FORMAT TSV\r\n\r\nx", b"INSERT INTO t SETTINGS a=1 ", "TSV",
         b"\r\nx"),
    ],
)  # fmt: skip
def test_insert_data_is_parted_from_its_statement(
    sql: bytes, head: bytes, input_format: str, data: bytes
) -> None:
    insert = split_insert(sql)
    assert insert is not None
    assert (insert.head, insert.input_format, bytes(insert.data)) == (head, input_format, data)


@pytest.mark.parametrize(
    "sql", [b"INSERT INTO t SELECT 1 FORMAT x", b"INSERT INTO t FROM INFILE 'a'", b"SELECT 1"]
)
def test_an_insert_without_data_stays_whole(sql: bytes) -> None:
    assert split_insert(sql) is None


@pytest.mark.parametrize(
    ("sql", "name"),
    [
        ("SELECT 1 FORMAT JSON", "JSON"),
        ("SELECT 1 FORMAT JSON SETTINGS a = 1", "JSON"),
        ("SELECT 1 format CSV -- end", "CSV"),
        ("SELECT format FROM images", None),
        ("SELECT a AS format FROM images WHERE 1", None),
        ("SELECT 'x FORMAT JSON'", None),
        ("SELECT * FROM (SELECT 1 FORMAT JSON)", None),
    ],
)
def test_a_closing_format_clause_is_recognised(sql: str, name: str | None) -> None:
    found = trailing_format(sql.encode())
    assert (found[0] if found else None) == name


def test_a_script_is_parted_at_semicolons_outside_of_strings() -> None:
    script = "-- first; really\nCREATE a;\n\nSELECT ';' /* ; */;\n;"
    assert split_statements(script) == ["CREATE a", "SELECT ';'"]
