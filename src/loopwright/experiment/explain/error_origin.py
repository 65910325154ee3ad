"""`with_origin`, which adds the line of a user's file to the error about a value that this line sets."""

from __future__ import annotations

import re
from collections.abc import Sequence

from hydra.errors import HydraException

from loopwright.errors import SettingError
from loopwright.experiment.compose.composer import Composer
from loopwright.experiment.compose.origins import names_in, read_origins
from loopwright.experiment.jobs.job_settings import at_config_path

_PATH = re.compile(r"[A-Za-z_]\w*(?:\.\w+|\[\d+\])*")


def with_origin(error: SettingError, composer: Composer, overrides: Sequence[str]) -> SettingError:
    """Return the error with the file and line that set the value, if the line is in a file of the user.

    The error is returned unchanged if the value was typed or a shipped file sets it, and if the error is not about one
    value.

    Args:
        error: error about the configuration of one job.
        composer: composer of the configuration.
        overrides: overrides of the job.
    """
    error = at_config_path(error)
    if len(composer.directories) == 1 or not _PATH.fullmatch(error.setting):
        return error
    try:
        writers = read_origins(composer, overrides).writers(names_in(error.setting))
    except (SettingError, HydraException):  # the files themselves are wrong
        return error
    if not writers or writers[-1].is_override or writers[-1].is_shipped:
        return error
    return type(error)(error.setting, f"{error.problem} Set by {writers[-1].place}.")
