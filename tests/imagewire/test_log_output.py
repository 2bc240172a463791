"""A worker's log stays readable while something is away for hours."""

from __future__ import annotations

import logging

from aiokafka.errors import GroupCoordinatorNotAvailableError, NodeNotReadyError

from imagewire.cli.log_output import Repetitions, is_news


def record(name: str, message: str, *arguments: object, at: float = 0.0) -> logging.LogRecord:
    made = logging.LogRecord(name, logging.WARNING, __file__, 1, message, arguments, None)
    made.created = at
    return made


def test_a_library_that_repeats_itself_is_heard_once_a_minute_with_the_count() -> None:
    repetitions = Repetitions(seconds=60)
    assert repetitions.filter(record("aiokafka.conn", "no broker at %s", "a", at=0))
    for second in range(1, 60):
        assert not repetitions.filter(record("aiokafka.conn", "no broker at %s", "b", at=second))
    again = record("aiokafka.conn", "no broker at %s", "c", at=60)
    assert repetitions.filter(again)
    assert again.getMessage() == "no broker at c (59 more like it left out)"


def test_a_clock_that_is_set_back_silences_nobody() -> None:
    repetitions = Repetitions(seconds=60)
    assert repetitions.filter(record("aiokafka.conn", "no broker at %s", "a", at=10_000))
    assert repetitions.filter(record("aiokafka.conn", "no broker at %s", "a", at=100))
    assert not repetitions.filter(record("aiokafka.conn", "no broker at %s", "a", at=130))


def test_different_messages_do_not_silence_each_other() -> None:
    repetitions = Repetitions()
    assert repetitions.filter(record("aiokafka.conn", "no broker at %s", "a"))
    assert repetitions.filter(record("aiokafka.conn", "bad answer from %s", "a"))
    assert repetitions.filter(record("urllib3", "no broker at %s", "a"))


def test_imagewires_own_lines_are_never_left_out() -> None:
    repetitions = Repetitions()
    for _ in range(3):
        assert repetitions.filter(record("streams.sink_writer", "sink %s rejects image %r", "a"))


def test_what_every_first_join_goes_through_alarms_nobody() -> None:
    failed = "Group Coordinator Request failed: %s"
    name = "aiokafka.consumer.group_coordinator"
    assert not is_news(record(name, failed, GroupCoordinatorNotAvailableError()))
    assert is_news(record(name, failed, NodeNotReadyError()))
    assert is_news(record("streams.intake", "no image is taken: %s", "no broker answers"))
