"""`flag_parser`, which returns the parser of the flags of ``loopwright``."""

from __future__ import annotations

import argparse
import re
from typing import Any, NoReturn

from loopwright.errors import SettingError, did_you_mean

_REFUSED = {
    "--experimental-rerun": "this flag would run code from a pickle file; use loopwright validate DIR",
    "--config-name": "the root configuration is fixed; choose options with group=option",
    "--config-path": "the root configuration is fixed; add a directory of your own with --config-dir DIR",
}


class _Parser(argparse.ArgumentParser):
    """An argument parser that raises a `SettingError` for an invalid command line."""

    def error(self, message: str) -> NoReturn:
        unknown = re.fullmatch(r"unrecognized arguments: (\S+).*", message, flags=re.DOTALL)
        if unknown:
            flag = unknown[1].split("=")[0]
            known = [name for name in self._option_string_actions if name.startswith("--") and name not in _REFUSED]
            setting = flag.lstrip("-").replace("-", "_")
            others = f" A setting is typed as {setting}=VALUE, without dashes. See loopwright --help."
            raise SettingError(flag, f": no such flag.{did_you_mean(flag, known) or others}")
        raise SettingError("command line", f": {message}.")


class _Refuse(argparse.Action):
    """The argparse action of flags in `_REFUSED`. It raises a `SettingError`."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option_string: Any = None
    ) -> None:
        raise SettingError(self.option_strings[0], f": refused; {_REFUSED[self.option_strings[0]]}.")


def flag_parser() -> argparse.ArgumentParser:
    """Return the parser of the flags of ``loopwright``. Its errors are `SettingError`."""
    parser = _Parser(prog="loopwright", add_help=False, allow_abbrev=False)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--help", "-h", action="store_true")
    parser.add_argument("--version", action="store_true")
    parser.add_argument("--trust", action="append", default=[], metavar="NAME")
    parser.add_argument("--allow-env", action="append", default=[], metavar="NAME")
    parser.add_argument("--multirun", "-m", action="store_true")
    parser.add_argument("--run", "-r", action="store_true")
    parser.add_argument("--config-dir", "-cd", metavar="DIR")
    parser.add_argument("--cfg", "-c", choices=["job", "hydra", "all"])
    parser.add_argument("--resolve", action="store_true")
    parser.add_argument("--package", "-p", metavar="PACKAGE")
    parser.add_argument("--info", "-i", nargs="?", const="all",
                        choices=["all", "config", "defaults", "defaults-tree", "plugins", "searchpath"])  # fmt: skip
    parser.add_argument("--shell-completion", "-sc", action="store_true")
    parser.add_argument("--hydra-help", action="store_true")
    parser.add_argument("--experimental-rerun", action=_Refuse, nargs="?")
    parser.add_argument("--config-name", "-cn", action=_Refuse, nargs="?")
    parser.add_argument("--config-path", "-cp", action=_Refuse, nargs="?")
    return parser
