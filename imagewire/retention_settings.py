"""How long what was found is kept, by table and by feed."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from streams.settings import Section

Days = Annotated[int, Field(ge=1, le=36_500)]


class RetentionSettings(Section):
    """Days after which rows and vectors are deleted, counted from when they were written. Workers
    look at their start and then every so often. clickhouse.retention_days is the longest for rows
    of images and failures: what stands here can only be shorter."""

    images_days: Days | None = Field(None, description="Rows of images.")
    failures_days: Days | None = Field(None, description="Rows of failures.")
    reviews_days: Days | None = Field(
        None,
        description="Decisions of people; kept for ever when not set. At least as long as rows of "
        "images: without its decision an image would wait for people again.",
    )
    vectors_days: Days | None = Field(
        None, description="Vectors in Qdrant; kept for ever when not set."
    )
    feeds: dict[str, Days] = Field(
        default_factory=dict,
        description="Feed to days, for rows of every table and for vectors; holds if it is shorter "
        "than what holds for all feeds.",
    )
    interval: float = Field(3600.0, ge=1, le=86_400, description="Seconds between two looks.")

    def of_images(self, clickhouse_days: int) -> int | None:
        """Days for which rows of images of all feeds are kept, `None` for ever.

        Args:
            clickhouse_days: clickhouse.retention_days.
        """
        days = [each for each in (self.images_days, clickhouse_days or None) if each is not None]
        return min(days, default=None)

    def check_decisions_last(self, clickhouse_days: int) -> None:
        """
        Raises:
            ValueError: decisions would go before the images that they are about.
        """
        images = self.of_images(clickhouse_days)
        if self.reviews_days is None or (images is not None and self.reviews_days >= images):
            return
        kept = "for ever" if images is None else f"{images} days"
        raise ValueError(
            f"reviews_days ({self.reviews_days}) is less than rows of images are kept ({kept}), so "
            "images that people have decided would wait for them again; make it "
            + ("no less" if images is not None else "unset")
            + f", or set images_days to {self.reviews_days} or less"
        )
