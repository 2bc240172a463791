"""The synchronous client. docs/client.md shows it at work.

`imagewire.client.asynchronous` has the same verbs for asyncio.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Unpack

from imagewire.client import calls
from imagewire.client import models as answers
from imagewire.client.arguments import (
    ImageFilters,
    ListSettings,
    Moment,
    Picture,
    PublishOptions,
    Reference,
    SearchFilters,
    TrialOptions,
)
from imagewire.client.errors import broken_result
from imagewire.client.transport import Transport

if TYPE_CHECKING:
    import pyarrow as pa

_PAGE = 200


class Imagewire(Transport):
    """The API's verbs; a context manager. For use in one thread at a time.

    Args:
        url: the API's address; IMAGEWIRE_URL if not given, else that of `imagewire up`.
        key: of api.keys; IMAGEWIRE_KEY if not given. None is needed where the API has none.
        timeout: seconds for an answer, where a verb does not need more.
        retries: how often a GET is asked again while the API is away, and any verb after 429.
        transport: httpx's, to reach the API in another way than over TCP.

    Every verb raises `ApiError` or `UnreachableError`; see `imagewire.client.errors`.
    """

    def publish(
        self,
        picture: Picture | None = None,
        *,
        uri: str | None = None,
        wait: float = 0.0,
        **options: Unpack[PublishOptions],
    ) -> answers.Published:
        """Publish a picture (bytes, or a file's path), or the address of one.

        Args:
            wait: seconds to wait for what is found in it; 0 does not wait.
            options: id, feed, lane, captured_at, metadata.
        """
        return self._do(calls.publish(picture, uri, wait, options))

    def publish_many(self, references: Sequence[Reference]) -> list[answers.Published]:
        """Publish references: all, or none if one is wrong."""
        return self._do(calls.publish_many(references))

    def image(
        self, image_id: str, *, feed: str | None = None, wait: float = 0.0
    ) -> answers.ImageDetail:
        """Everything known of one image.

        Args:
            wait: seconds to go on asking for one that is not stored yet.

        Raises:
            NotFoundError
        """
        return self._do(calls.image(image_id, feed, wait))

    def image_page(
        self, *, cursor: str | None = None, limit: int = 50, **filters: Unpack[ImageFilters]
    ) -> answers.ImagePage:
        """A page of images, newest first; `images` gives all pages.

        Args:
            cursor: `next` of the page before.
            filters: feed, verdict, label, text, since, until.
        """
        return self._do(calls.image_page(filters, cursor, limit))

    def images(self, **filters: Unpack[ImageFilters]) -> Iterator[answers.Image]:
        """Every image, newest first, page by page while it is read.

        Args:
            filters: feed, verdict, label, text, since, until.
        """
        cursor: str | None = None
        while True:
            page = self._do(calls.image_page(filters, cursor, _PAGE))
            yield from page.images
            if (cursor := page.next) is None:
                return

    def picture(
        self, image_id: str, *, size: int = 320, unblurred: bool = False, feed: str | None = None
    ) -> bytes:
        """The picture as WebP, with what is private hidden unless the key has the scope review.

        Args:
            size: of the longer side in pixels.
        """
        return self._do(
            calls.picture(image_id, "picture", size=size, unblurred=unblurred, feed=feed)
        )

    def annotated(
        self,
        image_id: str,
        *,
        size: int = 640,
        boxes: bool = True,
        text: bool = True,
        scores: bool = True,
        feed: str | None = None,
    ) -> bytes:
        """The picture as WebP, with what was found drawn over it."""
        return self._do(
            calls.picture(
                *(image_id, "annotated"),
                size=size,
                boxes=boxes,
                text=text,
                scores=scores,
                feed=feed,
            )
        )

    def explain(
        self, image_id: str, *, label: str, size: int = 640, feed: str | None = None
    ) -> bytes:
        """A heat map as WebP: what of the picture speaks for `label`."""
        return self._do(calls.picture(image_id, "explain", label=label, size=size, feed=feed))

    def search(
        self,
        picture: Picture | None = None,
        *,
        image_id: str | None = None,
        vector: Sequence[float] | None = None,
        text: str | None = None,
        **filters: Unpack[SearchFilters],
    ) -> answers.SearchAnswer:
        """Images that look like a picture, a stored image, or a vector, the most similar first.

        Args:
            filters: limit, feed, verdict, labels, since, until, min_score.
        """
        return self._do(calls.search(picture, image_id, vector, text, filters))

    def duplicates(
        self,
        since: Moment,
        until: Moment,
        *,
        feed: str | None = None,
        threshold: float | None = None,
    ) -> answers.DuplicatesAnswer:
        """Groups of images that are nearly the same picture."""
        return self._do(calls.duplicates(since, until, feed, threshold))

    def feeds(self) -> list[answers.Feed]:
        """All feeds, those with the latest images first."""
        return self._do(calls.feeds())

    def sql(
        self,
        query: str,
        params: Mapping[str, Any] | None = None,
        *,
        max_rows: int | None = None,
    ) -> answers.SqlResult:
        """The result of one statement that reads; `{name:Type}` stands for a parameter.

        Raises:
            SqlError: it was refused, or ClickHouse could not answer it.
        """
        result = self._do(calls.sql(query, params, max_rows))
        if result.error is not None:
            raise broken_result(result.error)
        return result

    def sql_arrow(
        self,
        query: str,
        params: Mapping[str, Any] | None = None,
        *,
        max_rows: int | None = None,
    ) -> pa.Table:
        """The same as an Arrow table, with ClickHouse's types. Needs pyarrow."""
        import pyarrow.ipc

        content = self._do(calls.sql_bytes(query, params, max_rows, "arrow"))
        return pyarrow.ipc.open_stream(content).read_all()

    def sql_file(
        self,
        query: str,
        output: Literal["csv", "parquet", "arrow"],
        params: Mapping[str, Any] | None = None,
        *,
        max_rows: int | None = None,
    ) -> bytes:
        """The same as the content of a file."""
        return self._do(calls.sql_bytes(query, params, max_rows, output))

    def sql_schema(self) -> answers.SqlSchema:
        """The views and their columns, with what they mean."""
        return self._do(calls.sql_schema())

    def review_queue(
        self,
        *feeds: str,
        why: Literal["policy", "audit"] | None = None,
        cursor: str | None = None,
        limit: int = 50,
    ) -> answers.ReviewQueue:
        """A page of what waits for people, the longest waiting first; none is claimed."""
        return self._do(calls.review_queue(feeds, why, cursor, limit))

    def review_next(
        self,
        *feeds: str,
        why: Literal["policy", "audit"] | None = None,
        skip: Sequence[str] = (),
        reviewer: str | None = None,
    ) -> answers.NextImage:
        """The image to decide now: yours for a while, and again until you decide.

        Args:
            skip: ids of images to leave for later.
        """
        return self._do(calls.review_next(feeds, why, skip, reviewer))

    def decide(
        self,
        image_id: str,
        decision: Literal["allow", "block"],
        *,
        reason: str = "",
        labels: Sequence[str] = (),
        reviewer: str | None = None,
    ) -> answers.Decision:
        """Decide over an image, and over others with the same bytes.

        Raises:
            NotFoundError: it is not stored.
        """
        made = self._do(calls.decide([(image_id, decision)], reason, labels, reviewer))
        return made.decisions[0]

    def decide_many(
        self,
        decisions: Mapping[str, Literal["allow", "block"]],
        *,
        reason: str = "",
        labels: Sequence[str] = (),
        reviewer: str | None = None,
    ) -> answers.Decisions:
        """Decide over up to 200 images: image id to decision."""
        pairs = list(decisions.items())
        return self._do(calls.decide(pairs, reason, labels, reviewer))

    def undo(self, *image_ids: str, reviewer: str | None = None) -> list[answers.Decision]:
        """Take your decisions on these images back; your last one if none is named.

        Raises:
            NotFoundError: there is none, or it was taken back already.
        """
        return self._do(calls.undo(image_ids, reviewer))

    def review_stats(self) -> answers.ReviewStatistics:
        """Who decided how much, and how often people and rules agree."""
        return self._do(calls.review_stats())

    def policy(self, *, hours: int = 24) -> answers.Policy:
        """The policy in force, and how often its rules fired in the last hours."""
        return self._do(calls.policy(hours))

    def check_policy(self, text: str) -> answers.CheckedPolicy:
        """Whether workers could use this policy (TOML), and doubts about it."""
        return self._do(calls.check_policy(text))

    def diff_policy(
        self, text: str, *, since: Moment = "7d", **options: Unpack[TrialOptions]
    ) -> answers.PolicyDiff:
        """Which verdicts of stored images would change under this policy (TOML). No model runs.

        Args:
            since: a time, or how long ago: `30m`, `2h`, `7d`.
            options: feeds, against (another policy's text; else the stored verdicts), max_images.

        Raises:
            InvalidRequestError: it cannot be used; the message gives line and column.
        """
        return self._do(calls.diff_policy(text, since, options))

    def put_policy(self, text: str) -> answers.PublishedPolicy:
        """Put a policy (TOML) in force on every worker.

        Raises:
            InvalidRequestError: it cannot be used; the message gives line and column.
        """
        return self._do(calls.put_policy(text))

    def withdraw_policy(self) -> answers.PublishedPolicy:
        """Send the workers back to the policy in their settings."""
        return self._do(calls.withdraw_policy())

    def models(self, *, hours: int = 168) -> answers.Models:
        """The models that worked in the last hours, and how their results drift."""
        return self._do(calls.list_models(hours))

    def banlists(self) -> list[answers.Banlist]:
        """Every list of banned images, with how much is on it."""
        return self._do(calls.banlists())

    def set_banlist(self, name: str, **settings: Unpack[ListSettings]) -> answers.Banlist:
        """Make a list, or change its settings; what is left out stays as it is."""
        return self._do(calls.set_banlist(name, settings))

    def ban_entries(
        self,
        name: str,
        *,
        kind: Literal["pdq", "sha256", "exemplar"] | None = None,
        cursor: str | None = None,
        limit: int = 50,
    ) -> answers.BanEntries:
        """A page of what is on a list, by kind and hash."""
        return self._do(calls.ban_entries(name, kind, cursor, limit))

    def ban(
        self,
        name: str,
        *image_ids: str,
        pictures: Sequence[Picture] = (),
        pdq: Sequence[str] = (),
        sha256: Sequence[str] = (),
        exemplar: bool = False,
        comment: str = "",
    ) -> answers.AddedBans:
        """Put images on a list: stored ones by their ids, others by their files or hashes.

        Args:
            exemplar: ban what resembles the pictures instead of their hashes.
        """
        return self._do(calls.ban(name, image_ids, pictures, pdq, sha256, exemplar, comment))

    def unban(
        self, name: str, kind: Literal["pdq", "sha256", "exemplar"], digest: str
    ) -> answers.Removed:
        """Take an entry of a list away."""
        return self._do(calls.unban(name, kind, digest))

    def remove_banlist(self, name: str) -> answers.Removed:
        """Take a list away, with all that is on it."""
        return self._do(calls.remove_banlist(name))

    def stats(self, *, minutes: int = 10, feed: str | None = None) -> answers.Statistics:
        """Throughput, latency and failures of the last minutes, and what waits."""
        return self._do(calls.stats(minutes, feed))
