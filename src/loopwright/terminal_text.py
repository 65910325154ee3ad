"""Functions that fit text to a terminal: they wrap long lines, and replace characters that cannot be shown.

This module imports only the standard library and `loopwright.errors`, because every command prints its output with it.
"""

from __future__ import annotations

import re
import shutil
import sys
import textwrap

from loopwright.errors import printable

# One word of a shell command. Its characters may be quoted by $'…', '…' or "…", or escaped by a backslash.
_SHELL_WORD = re.compile(r"""(?:\$'(?:\\.|[^'\\])*'|'[^']*'|"(?:\\.|[^"\\])*"|\\.|[^\s'"\\])+""")
_ROW = re.compile(r" *\S+(?: \S+)* {2,}(?=\S)")  # the label of a row, and the spaces before its text
BARS = "▁▂▃▄▅▆▇█"  # characters with which curves are drawn in a line of text
_PLAIN_BARS = str.maketrans(BARS, "_.:-=+*#")


def fitted(text: str) -> str:
    """Wrap text to the width of the terminal. If standard output is not a terminal, return the text unchanged."""
    return wrapped(text, shutil.get_terminal_size().columns) if sys.stdout.isatty() else text


def wrapped(text: str, width: int) -> str:
    """Break lines of more than ``width`` characters between words, and indent the continuation lines.

    Words are never broken. In a row such as ``  saves   every step``, continuation lines begin below ``every``. A
    loopwright command after a label gets its own line. Each broken line of a command ends with a backslash, so that the
    command can be pasted into a shell.
    """
    return "\n".join(part for line in text.split("\n") for part in _wrap(line, width))


def _wrap(line: str, width: int) -> list[str]:
    if len(line) <= width:
        return [line]
    label, is_command, words = line.partition(": loopwright ")
    if is_command:
        return [f"{label}:", *_wrap_command(f"loopwright {words}", width)]
    row = _ROW.match(line)
    leading = len(line) - len(line.lstrip())
    return _fill(line, width, indent=row.end() if row and row.end() <= width // 2 else leading + 2)


def _wrap_command(command: str, width: int) -> list[str]:
    """Break a shell command between its arguments."""
    arguments = _SHELL_WORD.findall(command)
    if " ".join(arguments) != command:  # the text is not a shell command
        return [f"  {command}"]
    lines = [f"  {arguments[0]}"]
    for argument in arguments[1:]:
        if len(lines[-1]) + len(argument) + 3 > width:  # 3: a space before the argument, and " \" after the argument
            lines[-1] += " \\"
            lines.append(f"    {argument}")
        else:
            lines[-1] += f" {argument}"
    return lines


def _fill(line: str, width: int, indent: int) -> list[str]:
    return textwrap.wrap(line, width, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False)


def encodable(text: str, encoding: str | None) -> str:
    """Replace the characters of ``text`` that ``encoding`` cannot represent by similar characters or escapes.

    Control characters and characters that change the direction of text are also replaced by escapes, because ``text``
    may contain words from untrusted files.
    """
    encoding, text = encoding or "utf-8", printable(text)
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        text = in_ascii(text).encode(encoding, "backslashreplace").decode(encoding)
    return text


def in_ascii(text: str) -> str:
    """Replace the characters in `BARS` by ASCII characters, for outputs that cannot encode them."""
    return text.translate(_PLAIN_BARS)
