"""Values of settings: from text and TOML, of the right type, within their range, or named in one sentence."""

from __future__ import annotations

import math
import tomllib
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

TINY = 5e-324  # the least positive float: more than zero
KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a word"}
SHOWN = 10**20  # a number that a message still shows


class ConfigError(ValueError):
    """A setting that does not exist or cannot have that value; the message names both."""


def check_range(name: str, value: float, low: float, high: float) -> None:
    """Raise ConfigError unless `value` lies between both ends, which belong to the range, and is finite."""
    if low <= value <= high and value != math.inf:  # false for NaN
        return
    if low == TINY:
        raise ConfigError(f"{name} is {shown(value)}: a finite number above 0 is needed")
    if high == math.inf:
        raise ConfigError(f"{name} is {shown(value)}: a finite number, at least {low}, is needed")
    raise ConfigError(f"{name} is {shown(value)}: a number from {low} to {high} is needed")


def shown(value: Any) -> str:
    """A value in a message: not hundreds of digits of it."""
    text = repr(value) if not isinstance(value, int) or abs(value) < SHOWN else "a number of too many digits"
    return text if len(text) <= 80 else f"{text[:80]}…"


def parse_override(key: str, value: str) -> dict[str, Any]:
    """A setting given as text: a TOML value, or a bare word.

    Raises:
        ConfigError: several lines, or thousands of digits or of brackets.
    """
    if "\n" in value:
        raise ConfigError(f"--set {key} takes one line, not {shown(value)}: give --set once for each setting")
    try:
        return {key: tomllib.loads(f"value = {value}")["value"]}
    except tomllib.TOMLDecodeError:
        return {key: value}  # --set precision=bf16
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"--set {key} takes a short value, not {value[:20]}…") from error


def parse_file(file: Path) -> dict[str, Any]:
    """The settings in a TOML file.

    Raises:
        ConfigError: it cannot be read, or is no TOML in UTF-8.
    """
    try:
        return tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file} is no text in UTF-8: save it as UTF-8") from error
    except (ValueError, RecursionError) as error:  # also what TOML allows and Python does not: thousands of digits
        raise ConfigError(f"{file} is no TOML: {error}") from error


def typed(key: str, value: Any, hint: Any) -> Any:
    """`value` as the field's type; ints pass for floats, lists for tuples, nothing else is converted.

    Raises:
        ConfigError: it is of another type.
    """
    if get_origin(hint) is Literal:
        # 1 == True == 1.0, but a setting that is 1 or 2 is neither true nor a fraction.
        if any(value == choice and type(value) is type(choice) for choice in get_args(hint)):
            return value
        raise ConfigError(f"{key} is one of {', '.join(map(str, get_args(hint)))}, not {shown(value)}")
    if get_origin(hint) is tuple:
        kinds = get_args(hint)
        if isinstance(value, (list, tuple)) and len(value) == len(kinds):
            return tuple(typed(key, item, kind) for item, kind in zip(value, kinds, strict=True))
        raise ConfigError(f"{key} is a list of {len(kinds)} numbers, not {shown(value)}")
    if hint is float and type(value) is int:
        try:
            return float(value)
        except OverflowError as error:
            raise ConfigError(f"{key} is {shown(value)}: a finite number is needed") from error
    if type(value) is not hint:
        raise ConfigError(f"{key} is {KINDS[hint]}, not {shown(value)}")
    return value
