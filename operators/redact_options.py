"""The settings of redaction: what is taken out of text, and where it is not."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

PersonalKind = Literal["email", "phone", "card", "iban", "id", "address"]


class RedactionOptions(BaseModel):
    """Personal data taken out of text before it is stored or published.
    docs/moderation/privacy-text.md says what is recognised, and what is not."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    enabled: bool = Field(True, description="Take personal data out.")
    kinds: frozenset[PersonalKind] = Field(
        frozenset({"email", "phone", "card", "iban", "id", "address"}),
        description="What is taken out.",
    )
    countries: tuple[str, ...] = Field(
        ("us", "gb", "de", "fr", "es", "it"),
        description="Countries whose national ids, addresses and phone numbers without a country "
        "code are recognised.",
    )
    keep_raw_text: bool = Field(
        False, description="Keep text as it was read, for the feeds of raw_feeds only."
    )
    raw_feeds: tuple[str, ...] = Field(
        (),
        description="Names or patterns (*, ?) of the feeds whose text is kept as it was read, if "
        "keep_raw_text is true. What is personal in it is still marked.",
    )

    @field_validator("countries")
    @classmethod
    def _known(cls, countries: tuple[str, ...]) -> tuple[str, ...]:
        # Here and not above: commands that read no settings need not load its tables.
        from phonenumbers import SUPPORTED_REGIONS

        for country in countries:
            if country != country.lower() or country.upper() not in SUPPORTED_REGIONS:
                raise ValueError(f"'{country}' is no country; use two small letters, such as 'de'")
        return countries

    @model_validator(mode="after")
    def _raw_where_named(self) -> RedactionOptions:
        if self.keep_raw_text != bool(self.raw_feeds):
            raise ValueError(
                "raw text is kept where both are set: keep_raw_text = true, and the feeds in "
                "raw_feeds (['*'] for all)"
            )
        return self
