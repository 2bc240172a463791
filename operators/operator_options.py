"""Check an operator's table of the settings before anything is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from models.validation import explain
from operators.operator import OperatorError

Options = TypeVar("Options", bound=BaseModel)


def checked(operator: str, options: Mapping[str, Any], schema: type[Options]) -> Options:
    """`options` as `schema`.

    Raises:
        OperatorError: a key is unknown (the nearest is named) or has a wrong value.
    """
    try:
        return schema.model_validate(dict(options))
    except ValidationError as error:
        raise OperatorError(
            f"operator '{operator}': in its settings: {'; '.join(explain(error, schema))}"
        ) from error
