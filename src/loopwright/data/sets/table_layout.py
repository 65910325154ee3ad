"""`TableLayout`: the delimiter, the decimal sign and the text encoding of a table file."""

from __future__ import annotations

import re
from dataclasses import dataclass

from loopwright.errors import refuse

# Names of delimiters. On a command line, most of the characters themselves need quotes.
SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "pipe", " ": "space"}
_DELIMITERS = {name: sign for sign, name in SEPARATORS.items()}
_DECIMALS = {"point": ".", "comma": ","}
# Bytes that are control characters in Latin-1, but letters and signs in the similar encoding cp1252 of Windows.
_WINDOWS_BYTE = re.compile(rb"[\x80-\x9f]")


@dataclass(frozen=True, slots=True)
class TableLayout:
    """Delimiter, decimal sign and text encoding of a table file.

    Attributes:
        delimiter: character between two cells.
        decimal: decimal point or decimal comma.
        codec: name of the text encoding in Python.
    """

    delimiter: str = ","
    decimal: str = "."
    codec: str = "utf-8-sig"

    @property
    def has_null_bytes(self) -> bool:
        """Whether text in this encoding contains null bytes."""
        return b"\0" in "a".encode(self.codec)


def read_layout(delimiter: str = ",", decimal: str = ".", encoding: str = "utf-8") -> TableLayout:
    """Return the layout that three settings describe.

    Args:
        delimiter: one character, or its name: comma, semicolon, tab, pipe or space.
        decimal: ``.`` or ``,``, or its name: point or comma.
        encoding: name of a text encoding that Python knows.

    Raises:
        SettingError: for an invalid value.
    """
    between = _DELIMITERS.get(delimiter, delimiter) if isinstance(delimiter, str) else delimiter
    if not isinstance(between, str) or len(between) != 1 or between in '"\r\n':
        names = ", ".join(_DELIMITERS)
        expected = f"one of {names}, or one character other than a quotation mark or a line break"
        raise refuse("delimiter", delimiter, expected)
    sign = _DECIMALS.get(decimal, decimal) if isinstance(decimal, str) else decimal
    if sign not in (".", ","):
        raise refuse("decimal", decimal, "point or comma")
    return TableLayout(between, sign, _codec(encoding))


def _codec(encoding: str) -> str:
    try:
        "a".encode(encoding)
    except (LookupError, TypeError, ValueError):  # an unknown name, or a codec that is not for text
        raise refuse("encoding", encoding, "the name of a text encoding, such as utf-8, latin-1 or cp1252") from None
    return "utf-8-sig" if re.fullmatch(r"utf[-_]?8", encoding, re.IGNORECASE) else encoding


def not_text(content: bytes, layout: TableLayout, error: UnicodeError | None = None) -> str:
    """Return the end of the message for a table that is not text in the given encoding, with an encoding to try.

    Args:
        content: content of the file, or its beginning.
        layout: layout with which the file was read.
        error: error that Python raised; None for a null character.
    """
    problem = "a null character" if error is None else "text in another encoding"
    if isinstance(error, UnicodeDecodeError):
        problem = f"a byte {error.object[error.start]:#04x}"
    expected = f"expected text in {layout.codec.removesuffix('-sig').upper()}, found {problem}"
    if layout.codec != "utf-8-sig":
        return f": {expected}; set data.encoding to the encoding of the table."
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return f": {expected}; use data.encoding=utf-16."
    if error is None:
        return f": {expected}; save the table as UTF-8."
    other = "cp1252" if _WINDOWS_BYTE.search(content) else "latin-1"
    return f": {expected}; use data.encoding={other}, or save the table as UTF-8."
