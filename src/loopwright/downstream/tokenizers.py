"""A tokenizer for bytes, and a tokenizer that is loaded from a file of Hugging Face's ``tokenizers``."""

from __future__ import annotations

import os
from pathlib import Path

from loopwright.errors import refuse, refuse_type

_MAX_FILE_BYTES = 1 << 28


class ByteTokenizer:
    """A tokenizer in which each byte of the UTF-8 text is a token. There is no token for the end of a text.

    Args:
        prefix: string of one byte. If an evaluation request gives the model no context (text to continue), the model
            reads this byte first. The default is a newline, which is also the byte before the text of `stdlib_text`.

    Raises:
        SettingError: if ``prefix`` is not exactly one byte.
    """

    vocab_size = 256
    end_token: int | None = None

    def __init__(self, prefix: str = "\n") -> None:
        if not isinstance(prefix, str) or len(prefix.encode()) != 1:
            raise refuse("prefix", prefix, "a string of one byte")
        self.prefix_token = prefix.encode()[0]

    def encode(self, text: str) -> list[int]:
        """Return the bytes of ``text``."""
        return list(text.encode())

    def decode(self, tokens: list[int]) -> str:
        """Decode the bytes as UTF-8. Invalid bytes are replaced by U+FFFD."""
        return bytes(tokens).decode("utf-8", errors="replace")


class TokenizerFile:
    """A tokenizer that Hugging Face's ``tokenizers`` saved as JSON (``pip install 'loopwright[lm]'``).

    Args:
        path: path of the tokenizer file. In a model directory of Hugging Face, this file is ``tokenizer.json``.
        end: token for the end of a text. Generation stops at this token.
        prefix: token that the model reads first if an evaluation request gives the model no context (text to continue);
            None selects ``end``.

    Raises:
        SettingError: if the file does not exist or is not a tokenizer, or if the tokenizer does not contain the tokens
            ``end`` and ``prefix``.
    """

    def __init__(self, path: str | os.PathLike[str], end: str = "<|endoftext|>", prefix: str | None = None) -> None:
        from tokenizers import Tokenizer  # optional dependency

        if not isinstance(path, str | os.PathLike):
            raise refuse_type("path", path, "a tokenizer file of Hugging Face's tokenizers")
        if not Path(path).is_file() or Path(path).stat().st_size > _MAX_FILE_BYTES:
            raise refuse("path", str(path), "a tokenizer file of Hugging Face's tokenizers, such as tokenizer.json")
        try:
            self._tokenizer = Tokenizer.from_file(os.fspath(path))
        except Exception as error:  # tokenizers raises no more specific class
            problem = str(error).splitlines()[0]
            raise refuse(
                "path", str(path), f"a tokenizer file of Hugging Face's tokenizers; reading it failed: {problem}"
            ) from error
        self.vocab_size: int = self._tokenizer.get_vocab_size()
        self.end_token: int | None = self._token("end", end)
        self.prefix_token = self._token("prefix", end if prefix is None else prefix)

    def encode(self, text: str) -> list[int]:
        """Return the tokens of ``text`` without special tokens."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, tokens: list[int]) -> str:
        """Return ``tokens`` as a string, without special tokens."""
        text: str = self._tokenizer.decode(tokens, skip_special_tokens=True)
        return text

    def _token(self, setting: str, text: str) -> int:
        token: int | None = self._tokenizer.token_to_id(text)
        if token is None:
            raise refuse(setting, text, "a token of this tokenizer")
        return token
