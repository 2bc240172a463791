"""The settings of term lists: which files, and what their terms mean."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Kind = Literal["exact", "phrase", "regex"]
Spelling = Literal["full", "case", "none"]
Severity = Literal["", "low", "medium", "high", "critical"]

WITHOUT_SPACES = frozenset({"zh", "ja", "th", "lo", "km", "my", "bo"})
"""Languages that put no spaces between words, so that a term may begin and end anywhere."""


class TermListOptions(BaseModel):
    """One term list. What its file says of itself or of a term goes before what is said here."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    file: Path = Field(description="A .toml or .csv file; any other is read as one term a line.")
    kind: Kind = Field("phrase", description="How terms are meant.")
    language: str = Field(
        "", max_length=35, description="Language of the terms, such as 'de'; any if empty."
    )
    boundaries: bool | None = Field(
        None,
        description="Terms are whole words. When not set: yes, but for languages without spaces.",
    )
    normalise: Spelling | None = Field(
        None,
        description="How much spelling is undone: 'full', 'case' (case and width) or 'none'. When "
        "not set: 'none' for regular expressions, else 'full'.",
    )
    category: str = Field("", max_length=100, description="For rules and readers: 'group/sub'.")
    severity: Severity = Field("", description="For rules and readers.")


class TermsOptions(BaseModel):
    """Lists of words and phrases that are looked for in what is read. docs/moderation/text.md says
    more."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    lists: dict[str, TermListOptions] = Field(
        default_factory=dict,
        description="A table for each list, [terms.lists.NAME]: file, and if need be kind (exact, "
        "phrase or regex), language, boundaries, normalise (full, case or none), category and "
        "severity.",
    )
    max_terms: int = Field(200_000, ge=1, description="Most terms in all lists together.")
    reload_seconds: float = Field(
        5.0, ge=0, description="How often files are looked at for changes; 0 for never."
    )
