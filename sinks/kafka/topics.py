"""Creates the topics before anybody subscribes to them.

A consumer that subscribes to a topic that does not exist lets many brokers create it with one
partition, and Faust then refuses to start because the counts differ. So topics come first.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Any

from aiokafka import errors
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from sinks.kafka.errors import as_sink_error
from sinks.kafka.reachable import connection_error
from sinks.kafka.settings import KafkaSettings
from sinks.sink import TransientSinkError

log = logging.getLogger(__name__)

_LEADERS_WITHIN_S = 15.0
_CONFIGURATION_WITHIN_S = 10.0


async def ensure_topics(settings: KafkaSettings) -> list[str]:
    """Create every topic of `settings.topics` that is missing, and wait until each has leaders.

    Topics that exist are left as they are; a differing partition count is logged as a warning,
    because adding partitions moves keys and is the operator's decision. So is a topic that forgets
    what has to stand for ever, see `forgetful_topics`.

    Returns:
        The names of the topics created.

    Raises:
        TransientSinkError: no broker can be reached, or leaders were not elected in 15 seconds.
        PermanentSinkError: the broker refuses, for instance for want of rights or replicas.
    """
    where = f"creating topics on {settings.bootstrap_servers}"
    try:
        client = AIOKafkaAdminClient(**settings.client_options())
    except (OSError, ValueError) as error:
        raise as_sink_error(error, where) from error
    try:
        await client.start()
        return await _create_missing(client, settings)
    except (errors.KafkaError, OSError, ValueError) as error:
        raise await connection_error(settings, error, where) from error
    finally:
        await client.close()


async def forgetful_topics(
    client: AIOKafkaAdminClient, settings: KafkaSettings, existing: Iterable[str]
) -> dict[str, str]:
    """Topics of bans, policies, decisions or tombstones that are not compacted, and what is wrong.

    Such a topic was made by somebody else, or by a broker that makes what is asked for. It works
    for a week; then bans and decisions expire, and what was erased may come back.

    Args:
        existing: names of topics that are there.
    """
    wanted = {
        name: setting
        for name in settings.topics.all()
        if (setting := settings.topics.configuration(name).get("cleanup.policy")) is not None
        and name in set(existing)
    }
    if not wanted:
        return {}
    resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in wanted]
    found: dict[str, str] = {}
    try:
        async with asyncio.timeout(_CONFIGURATION_WITHIN_S):
            answers = await client.describe_configs(resources)
        for answer in answers:
            for _, _, _, name, entries in answer.resources:
                values = {entry[0]: entry[1] for entry in entries}
                policy = values.get("cleanup.policy")
                if policy is not None and name in wanted and policy != wanted[name]:
                    found[name] = (
                        f"topic {name} has cleanup.policy={policy}, so records that have to stand "
                        f"for ever expire; set it: kafka-configs.sh --alter --topic {name} "
                        f"--add-config cleanup.policy={wanted[name]}"
                    )
    except (errors.KafkaError, OSError, TimeoutError, ValueError, TypeError) as error:
        # tansu does not say, and a user may lack the right to ask.
        log.debug("how topics are cleaned up is not known: %r", error)
    return found


async def _create_missing(client: AIOKafkaAdminClient, settings: KafkaSettings) -> list[str]:
    # All topics are listed instead of those wanted: asking for a topic by name creates it, with
    # one partition, on brokers with auto.create.topics.enable.
    existing = await _partitions_by_topic(client)
    missing: list[str] = []
    for name in settings.topics.all():
        if name not in existing:
            missing.append(name)
        elif len(existing[name]) != settings.partitions:
            log.warning(
                "topic %s has %d partitions, not the %d of kafka.partitions; it is left as it is",
                name,
                len(existing[name]),
                settings.partitions,
            )
    for complaint in (await forgetful_topics(client, settings, existing)).values():
        log.warning("%s", complaint)
    if not missing:
        return []
    response = await client.create_topics(
        [
            NewTopic(
                name,
                settings.partitions,
                settings.replication_factor,
                topic_configs=settings.topics.configuration(name),
            )
            for name in missing
        ]
    )
    created: list[str] = []
    for name, code, *message in response.topic_errors:
        kind = errors.for_code(code)
        if kind is errors.NoError:
            created.append(name)
        elif kind is not errors.TopicAlreadyExistsError:  # another worker was quicker
            detail = message[0] if message and message[0] else "no reason given"
            raise kind(f"topic {name}: {detail}")
    await _wait_for_leaders(client, missing)
    return created


async def _wait_for_leaders(client: AIOKafkaAdminClient, names: list[str]) -> None:
    try:
        async with asyncio.timeout(_LEADERS_WITHIN_S):
            while True:
                existing = await _partitions_by_topic(client)
                if all(
                    existing.get(name)
                    and all(partition["leader"] >= 0 for partition in existing[name])
                    for name in names
                ):
                    return
                await asyncio.sleep(0.1)
    except TimeoutError as error:
        raise TransientSinkError(
            f"topics {', '.join(names)} were created but have no leaders after "
            f"{_LEADERS_WITHIN_S:.0f} s; look at the brokers' logs"
        ) from error


async def _partitions_by_topic(client: AIOKafkaAdminClient) -> dict[str, list[dict[str, Any]]]:
    return {topic["topic"]: topic["partitions"] for topic in await client.describe_topics()}
