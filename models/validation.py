"""Turn pydantic's validation errors into sentences that name the key and the nearest valid one.

Catalogue entries, the options inside them and the options of operators are all checked this way, so
that a typing error reads the same wherever it was made.
"""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import BaseModel, ValidationError

from models.errors import nearest


def explain(error: ValidationError, schema: type[BaseModel], ignore: str = "") -> Iterator[str]:
    """One phrase for each thing that is wrong with values that were read into `schema`.

    Args:
        ignore: a field that the user does not write, left out of suggestions.
    """
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            known = [name for name in schema.model_fields if name != ignore]
            yield f"unknown key '{key}'{nearest(key, known)}"
        elif problem["type"] == "missing":
            yield f"the key '{key}' is missing"
        else:
            yield f"key '{key}': {problem['msg']}"
