"""Publishing a policy to the workers that follow the control topic."""

from __future__ import annotations

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from operators.policy_file import MAX_BYTES, PolicyError
from sinks.kafka.settings import KafkaSettings
from sinks.kafka.topics import ensure_topics
from sinks.sink import TransientSinkError


async def publish_policy(settings: KafkaSettings, name: str, content: bytes | None) -> None:
    """Put `content`, the TOML of a policy that was checked, under `name`; `None` withdraws it, so
    that workers go back to their files.

    Raises:
        PolicyError: it is too large.
        TransientSinkError: the broker cannot be reached or does not take it.
    """
    if content is not None and len(content) > MAX_BYTES:
        raise PolicyError(f"policy '{name}' is larger than {MAX_BYTES} bytes; split it by feed")
    await ensure_topics(settings)
    producer = AIOKafkaProducer(**settings.producer_options())
    try:
        await producer.start()
        await producer.send_and_wait(settings.topics.policy, content, key=name.encode())
    except (KafkaError, OSError) as error:
        raise TransientSinkError(
            f"the broker at {settings.bootstrap_servers} does not take the policy: {error!r}"
        ) from error
    finally:
        await producer.stop()
