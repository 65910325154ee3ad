"""Functions that return the texts of ``loopwright --help`` and ``loopwright COMMAND --help``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from loopwright.errors import printable
from loopwright.experiment.console.command_line import VERBS, WITH_PATH
from loopwright.experiment.console.reading_verbs import READING_VERBS

_HEAD = """\
loopwright: train PyTorch models from composed configurations

  loopwright                                       train the default experiment
  loopwright loop.eval_frequency=100 model=cnn     change some settings
  loopwright loop=validation ckpt_path=DIR         validate a checkpoint; several: 'ckpt_paths="DIR/checkpoints/*"'
  loopwright -m loop.grad_accum_steps=1,2,4        run a sweep
"""

_FLAGS = """\
Flags
  -m, --multirun        run one job for each combination of values separated by commas
  --config-dir DIR      add a directory of your own configuration files, searched after the shipped ones; default:
                        config_dir under [tool.loopwright] in the pyproject.toml of the current directory
  --trust NAME          let configurations name classes of package NAME, so that its code runs; can be repeated
  --allow-env NAME      let configurations read the environment variable NAME with ${oc.env:NAME}; its value is masked
                        in the files and messages of the run; can be repeated
  --cfg job|hydra|all   print the configuration without running; also accepts --resolve, --package NAME
  --info [WHAT]         print how the configuration is found and composed
  -sc install=SHELL     print the script that installs completion for bash, zsh or fish
  --hydra-help          print Hydra's own help
  --version, -h, --help
"""

_GRANTS = "[--trust NAME] [--allow-env NAME]"

# The options, overrides and flags that each command accepts.
_VERB_USAGE = {
    "resume": f"[loop.max_steps=N] [SECTION.KEY=VALUE …] {_GRANTS}",
    "validate": f"[SECTION.KEY=VALUE …] [ckpt_path=DIR] [split=test] {_GRANTS}",
    "predict": f"[data.path=FILE] [output=FILE] [ckpt_path=DIR] [split=NAME] [SECTION.KEY=VALUE …] {_GRANTS}",
    "reproduce": f"[SECTION.KEY=VALUE …] [hydra.run.dir=DIR] {_GRANTS}",
    "export": "[output=FILE] [weights=averaged] [ckpt_path=last]",
    "import-weights": "[output=DIR] [key=NAME]",
    "sweep": f"[sweep.KEY=VALUE …] [jobs=3,7] [from=start|checkpoint] [sort=KEY] [format=csv] [watch=true] {_GRANTS}",
    "verify": f"[OVERRIDE …] [--config-dir DIR] {_GRANTS}",
    "plan": f"[OVERRIDE …] [-m] [--config-dir DIR] {_GRANTS}",
    "config": f"[OVERRIDE …] [origins=true] [format=json|csv|md] [--config-dir DIR] {_GRANTS}",
    "explain": f"[OVERRIDE …] [format=json] [--config-dir DIR] {_GRANTS}",
}

_ABOUT_DIR = (
    "DIR is a run directory: its path, the last six digits of its name, or the word last for the run that was started "
    "or resumed most recently."
)

_NO_GROUPS = (".", "downstream")  # folders whose files are not options; the files in downstream/ describe tasks


def config_groups(directories: Sequence[Path]) -> dict[str, list[str]]:
    """Return the names of the options of each configuration group, such as ``{"model": ["cnn", "mlp"], …}``."""
    groups: dict[str, set[str]] = {}
    for directory in directories:
        for file in directory.rglob("*.yaml"):
            group = file.parent.relative_to(directory).as_posix()
            if group not in _NO_GROUPS and not group.startswith("hydra"):
                groups.setdefault(group, set()).add(file.stem)
    return {group: sorted(options) for group, options in sorted(groups.items())}


def help_text(directories: Sequence[Path]) -> str:
    """Return the help text, with all commands and flags, and the options of each group in ``directories``."""
    verbs = "".join(f"  loopwright {verb:<15} {meaning}\n" for verb, meaning in VERBS.items())
    listed = [f"{group}: {', '.join(options)}" for group, options in config_groups(directories).items()]
    groups = "".join(f"  {printable(line, keeps_newlines=False)}\n" for line in listed)
    return (
        f"{_HEAD}\nCommands\n{verbs}\n{_FLAGS}\nConfiguration groups (group=option)\n{groups}\n"
        f"{_ABOUT_DIR}\n"
        "Override any value by its path, such as optimizer.lr=0.01; loopwright config prints all values.\n"
    )


def verb_help(verb: str) -> str:
    """Return the help text of one command, with its purpose, arguments and flags."""
    if verb in READING_VERBS:
        known = READING_VERBS[verb]
        meaning, where = known.meaning.partition(": ")[2], f"  {_ABOUT_DIR}\n" if known.least else ""
        return (
            f"loopwright {verb} {known.arguments}\n\n  {meaning}\n{where}\nAll commands and flags: loopwright --help\n"
        )
    argument = f" {WITH_PATH[verb]}" if verb in WITH_PATH else ""
    argument = {"verify": " WHAT", "explain": " KEY", "sweep": " WHAT DIR"}.get(verb, argument)
    meaning = VERBS[verb].removeprefix(f"{verb}{argument}: ")
    where = f"  {_ABOUT_DIR}\n" if argument == " DIR" else ""
    usage = f"loopwright {verb}{argument} {_VERB_USAGE[verb]}"
    return f"{usage}\n\n  {meaning}\n{where}\nAll commands and flags: loopwright --help\n"
