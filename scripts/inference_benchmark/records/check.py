"""Documents checked against the types of records."""

import re
from collections.abc import Iterator
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")


class RecordError(ValueError):
    """A document that is no usable record of a cell or study; the message says why, without the path."""


class OtherSettingsError(RecordError):
    """A document that is a record of other settings than those of today."""


def checked(document: Any, kind: type[T], where: str = "") -> T:
    """A document as a value of this type. Raises RecordError, which names the place and the value, where it is none.
    where: the document's own place."""
    try:
        return msgspec.convert(document, kind)
    except msgspec.ValidationError as error:
        what, _, place = str(error).partition(" - at `$")
        place = place.strip(".`")
        what = what[0].lower() + what[1:]
        where = re.sub(r"^variables\b", "environment", where + place)
        raise RecordError(f"{where}{_value_at(place, document)}: {what}" if where else what) from None


def check_known(document: Any, known: Any, where: str = "") -> None:
    """Raises RecordError where a document has a key that what was made of it lacks. where: the document's place."""
    for key in _unknown(document, known, where):
        raise RecordError(f"{key.removeprefix('.')}: unknown key")


def _value_at(place: str, document: Any) -> str:
    """`` is 'x'`` for the place of a wrong value; "" for one of a mapping or list, or one that is not found."""
    try:
        for key, index in re.findall(r"(\w[^.[]*)|\[(\d+)\]", place):
            document = document[key or int(index)]
    except (LookupError, TypeError):
        return ""
    return "" if isinstance(document, (dict, list, tuple)) else f" is {repr(document)[:60]}"


def _unknown(document: Any, known: Any, where: str) -> Iterator[str]:
    if isinstance(document, dict):
        known = known if isinstance(known, dict) else vars(known)
        for key, value in document.items() if document != known else ():
            if key not in known:
                yield f"{where}.{key}"
            elif isinstance(value, (dict, list, tuple)):
                yield from _unknown(value, known[key], f"{where}.{key}")
    elif document and isinstance(document[0], dict):
        for index, (value, of_known) in enumerate(zip(document, known, strict=True)):
            yield from _unknown(value, of_known, f"{where}[{index}]")
