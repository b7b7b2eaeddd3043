"""The schema of config.yaml: values in its types, and a mistake in words.

workflow/schemas/config.schema.yaml describes each key.
"""

import functools
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from hipgpt.base.errors import UserError
from hipgpt.base.nearest import did_you_mean
from hipgpt.base.paths import SCHEMA
from hipgpt.config.values import shown, shown_key

LONGEST_NUMBER = 100  # characters; Python refuses to read integers of thousands of digits


@functools.cache
def load_schema() -> dict[str, Any]:
    import yaml

    found: dict[str, Any] = yaml.load(
        SCHEMA.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    )
    return found


def coerced(value: Any, schema: Mapping[str, Any]) -> Any:
    """Return value with strings turned into the numbers, booleans and nulls that the schema asks for, if possible."""
    if isinstance(value, Mapping):
        known, other = schema.get("properties", {}), schema.get("additionalProperties")
        other = other if isinstance(other, Mapping) else {}
        return {key: coerced(item, known.get(key, other)) for key, item in value.items()}
    if isinstance(value, list):
        return [coerced(item, schema.get("items", {})) for item in value]
    types = schema.get("type", [])
    types = [types] if isinstance(types, str) else types
    if isinstance(value, str) and "string" not in types:
        return _read_string(value, types)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # the schema refuses a string here, but its comparisons would accept NaN
    if isinstance(value, float) and value.is_integer() and "integer" in types:
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool) and "number" in types:
        return float(value)
    return value


def _read_string(text: str, types: list[str]) -> Any:
    word = text.strip().lower()
    if len(word) > LONGEST_NUMBER:
        return text
    if "boolean" in types and word in ("true", "false"):
        return word == "true"
    if "null" in types and word in ("null", "none", "~"):
        return None
    if "integer" in types and re.fullmatch(r"[+-]?\d+", word):
        return int(word)
    if re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", word):
        number = float(word)
        if not math.isfinite(number):
            return text
        if "number" in types:
            return number
        if "integer" in types and number.is_integer():
            return int(number)
    return text


def check(config: Mapping[str, Any], schema: Mapping[str, Any], prefix: str) -> None:
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match

    error = best_match(Draft202012Validator(schema).iter_errors(config))
    if error is not None:
        raise UserError(f"config: {_explain(error, prefix)}")


def _explain(error: Any, prefix: str) -> str:
    where = prefix + ".".join(shown_key(part) for part in error.absolute_path)
    if error.validator == "additionalProperties":
        known = error.schema.get("properties", {})
        unknown = next(key for key in error.instance if key not in known)
        key = f"{where}.{shown_key(unknown)}".lstrip(".")
        remedy = did_you_mean(str(unknown), known) or f"; accepted here: {', '.join(known)}"
        return f"{key}: unknown key{remedy}"
    if error.validator == "required":
        missing = next(key for key in error.validator_value if key not in error.instance)
        about = error.schema.get("properties", {}).get(missing, {}).get("description", "")
        return f"{where}.{missing}".lstrip(".") + f": missing; {about}".rstrip("; ")
    got = "nothing" if error.instance is None else shown(error.instance)
    return f"{where or 'top level'}: got {got}, expected {' '.join(_expected(error.schema))}"


def _expected(schema: Mapping[str, Any]) -> Iterator[str]:
    if "enum" in schema:
        yield "one of " + ", ".join(str(value) for value in schema["enum"])
    if "type" in schema:
        types = [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
        yield " or ".join("keys and values" if kind == "object" else kind for kind in types)
    bounds = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<", "pattern": "matching",
              "minLength": "of length >=", "minItems": "of length >="}  # fmt: skip
    limits = [f"{sign} {schema[key]}".replace(r"\Z", "$") for key, sign in bounds.items() if key in schema]
    if limits:
        yield " and ".join(limits)
    if schema.get("description"):
        yield f"({schema['description'].rstrip('.')})"
