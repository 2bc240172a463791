"""The settings of what pictures that leave the service must not show.

Free of torch, like all settings: a command that only prints them must not wait for it.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

FACES = "faces"
"""Stands for every face in the list of what is hidden."""

Method = Literal["pixelate", "blur", "solid"]
"""How the cells of a place are painted: with edges, running into each other, or as one."""


class PrivacyOptions(BaseModel):
    """What is hidden in pictures that leave the service, and how.

    Attributes:
        blur: `faces`, and labels of the detector; empty shows everything.
        method: how it is hidden: `pixelate`, `blur` or `solid`; none can be undone.
        margin: by how much each place is widened on every side, as a share of its size.
        confidence: what scores higher is hidden; low, since a face that is missed does more harm
            than a patch too many. 0.2 is the value of deface, which hides faces in videos.
        model: the face detector, of the catalogue.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    blur: tuple[str, ...] = Field(
        (FACES,),
        description="What is made unrecognisable in every picture that leaves the service: "
        "'faces', and labels of the detector (operators.objects). Empty shows everything.",
    )
    method: Method = Field(
        "pixelate",
        description="How: 'pixelate' and 'blur' leave the mean colours of 4 cells along the longer "
        "side, 'solid' leaves one; none can be undone.",
    )
    margin: float = Field(
        0.25,
        ge=0.0,
        le=2.0,
        description="By how much each place is widened on every side, as a share of its size.",
    )
    confidence: float = Field(
        0.2,
        gt=0.0,
        lt=1.0,
        description="What scores higher is hidden. Low, since a face that is missed does more harm "
        "than a patch too many.",
    )
    model: str = Field("centerface", description="The face detector, of the catalogue of models.")

    @field_validator("blur")
    @classmethod
    def _named(cls, blur: tuple[str, ...]) -> tuple[str, ...]:
        if "" in blur:
            raise ValueError("a label is empty; name a label of the detector, or 'faces'")
        return tuple(dict.fromkeys(blur))
