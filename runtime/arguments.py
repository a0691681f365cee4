"""Arguments: checks of single ones, which give them the types of Python where numpy has its own;
and groups of them."""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeVar

from ssdiff_trt.runtime.errors import InputError

T = TypeVar("T")


def check_seed(seed: int) -> int:
    """The seed as a Python integer.

    Raises:
        InputError: if it is not a whole number from 0 to 2**64 - 1.
    """
    number = _index(seed)
    if number is None or not 0 <= number < 2**64:
        raise InputError(
            f"The seed {seed!r} does not work; give a whole number from 0 on.", parameter="seed"
        )
    return number


def whole(name: str, value: int) -> int:
    """An argument as a Python integer; those of numpy are whole numbers too.

    Raises:
        InputError: if it is not a whole number.
    """
    if (number := _index(value)) is None:
        raise InputError(f"{value!r} does not work; give a whole number.", parameter=name)
    return number


def _index(value: Any) -> int | None:
    try:
        return None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        return None


def positive(name: str, value: int) -> int:
    """An argument of 1 or more as a Python integer.

    Raises:
        InputError: if it is not such a number.
    """
    if not 1 <= (number := whole(name, value)) < 2**31:
        raise InputError(f"{value} does not work; give a number of 1 or more.", parameter=name)
    return number


def above_zero(name: str, value: float, noun: str = "") -> float:
    """An argument as a Python number, finite and above 0; ``noun`` begins the error's sentence.

    Raises:
        InputError: if it is not such a number.
    """
    try:
        works, stated = 0 < value < math.inf, f"{value:g}"
    except (TypeError, ValueError):
        works, stated = False, repr(value)
    if not works:
        raise InputError(f"{noun}{stated} does not work; give a number above 0.", parameter=name)
    return float(value)


def share_of(name: str, value: float) -> float:
    """A share as a Python number, 0 to 1.

    Raises:
        InputError: if it is not such a number.
    """
    if not 0 <= check_number(name, value) <= 1:
        raise InputError(f"{value} does not work; give a number from 0 to 1.", parameter=name)
    return float(value)


def full_scale_of(name: str, value: float) -> float:
    """A full scale as a Python number; see :func:`above_zero`."""
    return above_zero(name, value, "A full scale of ")


def whole_numbers(name: str, values: Sequence[int]) -> tuple[int, ...]:
    """An argument that is a list of whole numbers, as Python integers.

    Raises:
        InputError: if it is none.
    """
    return tuple(whole(name, value) for value in _listed(name, values))


def bands_of(name: str, values: Sequence[int | str]) -> tuple[int | str, ...]:
    """An argument that is a list of bands, by number or name, with Python integers.

    Raises:
        InputError: if it is none.
    """
    listed = _listed(name, values)
    return tuple(value if isinstance(value, str) else whole(name, value) for value in listed)


def _listed(name: str, values: Sequence[T]) -> Sequence[T]:
    if isinstance(values, str) or not hasattr(values, "__iter__"):
        raise InputError(
            f"{values!r} does not work; give a list, such as [3, 2, 1].", parameter=name
        )
    return values


def settle(group: Any, **conversions: Callable[[str, Any], Any]) -> None:
    """Check and convert fields of a group that are not None."""
    for name, convert in conversions.items():
        if (value := getattr(group, name)) is not None:
            object.__setattr__(group, name, convert(name, value))


def check_shift(shift: str | Sequence[float]) -> None:
    """That a shift is auto, none, or two finite numbers.

    Raises:
        InputError: if not.
    """
    works = shift in ("auto", "none") if isinstance(shift, str) else _is_pair(shift)
    if not works:
        raise InputError(
            f"A shift of {_stated(shift)} does not work; give auto, none, or two numbers, rows and "
            "columns of PAN.",
            parameter="shift",
        )


def check_interval(name: str, interval: Sequence[float]) -> None:
    """That an argument is two finite numbers, the first below the second.

    Raises:
        InputError: if not.
    """
    if not _is_pair(interval) or interval[0] >= interval[1]:
        raise InputError(
            f"The interval {_stated(interval)} does not work; give two numbers, the smaller first.",
            parameter=name,
        )


def _is_pair(values: Any) -> bool:
    """Whether an argument is two finite numbers."""
    try:
        return len(values) == 2 and all(map(math.isfinite, values))
    except TypeError:
        return False


def _stated(values: Any) -> str:
    """An argument as it is typed; of another type, as Python shows it."""
    try:
        return values if isinstance(values, str) else ",".join(f"{value:.12g}" for value in values)
    except (TypeError, ValueError):
        return repr(values)


def area_of(name: str, area: Sequence[float] | str) -> tuple[float, ...] | str:
    """An area as four Python numbers, or the path of a file.

    Raises:
        InputError: if it is neither.
    """
    if isinstance(area, str | os.PathLike):
        return os.fspath(area)
    try:
        left, bottom, right, top = bounds = tuple(map(float, area))
        works = left < right and bottom < top and all(map(math.isfinite, bounds))
    except (TypeError, ValueError):
        works = False
    if not works:
        raise InputError(
            f"The area {_stated(area)} does not work; give minx,miny,maxx,maxy, each minimum below "
            "its maximum, or a GeoJSON file.",
            parameter=name,
        )
    return bounds


def check_number(name: str, value: float) -> float:
    """That an argument is a number; it may be NaN.

    Returns:
        The argument.

    Raises:
        InputError: if not.
    """
    try:
        math.isnan(value)
    except TypeError:
        raise InputError(f"{value!r} does not work; give a number.", parameter=name) from None
    return value


def check_choice(name: str, value: str | None, choices: Sequence[str]) -> None:
    """That an argument is one of several words, or None.

    Raises:
        InputError: if not.
    """
    if value is not None and value not in choices:
        raise InputError(
            f"The {name} {value!r} is unknown; choose one of {', '.join(choices)}.", parameter=name
        )


def take(group: type[T], arguments: dict[str, Any]) -> T:
    """Make a group of the arguments that belong to it, and remove them from the others."""
    names = [field.name for field in fields(group)]  # type: ignore[arg-type]
    return group(**{name: arguments.pop(name) for name in names if name in arguments})


def changed(options: Any) -> dict[str, Any]:
    """The fields of a group that do not have their defaults."""
    return {
        field.name: value
        for field in fields(options)
        if (value := getattr(options, field.name)) != field.default
    }


def none_left(arguments: Mapping[str, Any], function: str) -> None:
    """That no argument is left, as Python does for named parameters.

    Raises:
        TypeError: if one is.
    """
    for name in arguments:
        raise TypeError(f"{function}() got an unexpected keyword argument {name!r}")
