"""Tells receivers of verdicts once more what they were not told: dead letters of that stage.

They are posted from here and not put back on the topic of verdicts, where every other consumer
would get them again, and might take an old verdict for the newest. A message keeps its id, so a
receiver that had it all the same discards it. Of images that were erased nobody is told.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import Literal

import msgspec
from aiohttp.abc import AbstractResolver
from aiokafka import ConsumerRecord

from imagewire.dead_letters import Letter, LetterFilter, dead_letters
from imagewire.settings import Settings
from imagewire.webhooks import STAGE, decode_told, message_body
from imagewire.webhooks_sending import WebhookSender
from sinks.kafka.settings import KafkaSettings
from sinks.sink import TransientSinkError
from streams.compacted_topic import CompactedTopic
from streams.tombstones import Tombstones

_NAME = re.compile(r"webhook '(?P<name>[A-Za-z0-9_-]+)' was not told")
_TOMBSTONES_WITHIN_SECONDS = 60.0

Outcome = Literal["delivered", "failed", "forgotten", "unknown"]


@dataclass(frozen=True, slots=True)
class ToldAgain:
    """What became of one message.

    Attributes:
        webhook: its receiver.
        outcome: `delivered`, `failed`, `forgotten` (the image was erased) or `unknown` (no such
            receiver in the settings, or the letter cannot be read any more). `None`: not tried.
        detail: for people; holds neither the secret nor the path of the address.
    """

    letter: Letter
    webhook: str
    outcome: Outcome | None = None
    detail: str = ""


async def tell_again(
    settings: Settings,
    wanted: LetterFilter,
    names: Collection[str] = (),
    *,
    dry_run: bool = False,
    on_done: Callable[[ToldAgain], object] = lambda told: None,
    resolver: AbstractResolver | None = None,
) -> list[ToldAgain]:
    """Post what was given up, one message after the other.

    Args:
        wanted: which dead letters; its stages count for nothing.
        names: only what is for these receivers; any if empty.
        dry_run: post nothing.
        on_done: told of each message.

    Raises:
        TransientSinkError: the broker cannot be reached.
        WebhookSecretError: a receiver has no usable secret.
    """
    wanted = replace(wanted, stages=(STAGE,))
    done: list[ToldAgain] = []

    def finish(told: ToldAgain) -> None:
        done.append(told)
        on_done(told)

    async with AsyncExitStack() as stack:
        reading = await stack.enter_async_context(dead_letters(settings.kafka))
        given_up = _given_up(await reading.scan(), wanted, names)
        if dry_run or not given_up:
            for letter, webhook in given_up.items():
                finish(ToldAgain(letter, webhook))
            return done
        tombstones = await stack.enter_async_context(_tombstones(settings.kafka))
        senders = {
            webhook.name: await stack.enter_async_context(WebhookSender(webhook, resolver))
            for webhook in settings.webhooks
            if webhook.name in given_up.values()
        }
        missing = dict(given_up)
        async for chunk in reading.read(given_up):
            for letter, record in chunk:
                webhook = missing.pop(letter)
                sender = senders.get(webhook)
                if sender is None:
                    finish(
                        ToldAgain(letter, webhook, "unknown", "the settings have no such webhook")
                    )
                else:
                    finish(await _one(letter, record, webhook, sender, tombstones))
        for letter, webhook in missing.items():
            finish(ToldAgain(letter, webhook, "unknown", "the dead letter has expired meanwhile"))
    return done


def _given_up(
    letters: Sequence[Letter], wanted: LetterFilter, names: Collection[str]
) -> dict[Letter, str]:
    """The letters that are meant, each with its receiver; one for each verdict and receiver."""
    newest: dict[tuple[str, tuple[str, int, int]], Letter] = {}
    for letter in letters:
        said = _NAME.search(letter.detail)
        if said is None or not wanted.matches(letter) or (names and said["name"] not in names):
            continue
        key = (said["name"], letter.source)
        if key not in newest or letter.failed_at_ms >= newest[key].failed_at_ms:
            newest[key] = letter
    ordered = sorted(newest.items(), key=lambda item: (item[1].failed_at_ms, item[1].offset))
    return {letter: name for (name, _), letter in ordered}


async def _one(
    letter: Letter,
    record: ConsumerRecord,
    webhook: str,
    sender: WebhookSender,
    tombstones: Tombstones,
) -> ToldAgain:
    try:
        told = decode_told(record.value or b"")
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        return ToldAgain(letter, webhook, "unknown", f"the dead letter holds no verdict: {error}")
    arrived = letter.first_timestamp_ms
    if tombstones.covers(told.image_id, told.content_id, told.feed, arrived):
        return ToldAgain(letter, webhook, "forgotten", "the image was erased meanwhile")
    attempt = await sender.send(
        told.message_id(record.headers, letter.source), message_body(arrived, record.value)
    )
    outcome: Outcome = "delivered" if attempt.outcome == "delivered" else "failed"
    return ToldAgain(letter, webhook, outcome, attempt.detail)


@asynccontextmanager
async def _tombstones(kafka: KafkaSettings) -> AsyncIterator[Tombstones]:
    """Every tombstone that stands."""
    found = Tombstones()
    topic = CompactedTopic(kafka, kafka.topics.forgotten, found.apply)
    following = asyncio.create_task(topic.run())
    try:
        try:
            async with asyncio.timeout(_TOMBSTONES_WITHIN_SECONDS):
                await topic.ready()
        except TimeoutError as error:
            raise TransientSinkError(
                f"which images were erased is not known: topic {kafka.topics.forgotten} could not "
                f"be read within {_TOMBSTONES_WITHIN_SECONDS:.0f} s; nothing was posted"
            ) from error
        yield found
    finally:
        following.cancel()
        with suppress(asyncio.CancelledError):
            await following
