"""Parsing of a command line: verbs, flags, overrides, and errors that are found before composition."""

from __future__ import annotations

import pytest

from loopwright.errors import SettingError
from loopwright.experiment.console.command_line import read_command_line


def test_flags_may_be_anywhere_in_the_command() -> None:
    line = read_command_line(
        ["plan", "a=1", "-m", "b=1,2", "--trust", "one", "--trust=two", "--config-dir", "mine", "~c", "+d=3"]
    )
    assert line.verb == "plan"
    assert line.overrides == ("a=1", "b=1,2", "~c", "+d=3")
    assert line.trust == ("one", "two")
    assert (line.multirun, line.config_dir, line.action) == (True, "mine", "run")


def test_validate_takes_a_directory() -> None:
    line = read_command_line(["validate", "outputs/x", "data.batch_size=4"])
    assert (line.verb, line.directory, line.overrides) == ("validate", "outputs/x", ("data.batch_size=4",))


def test_a_semicolon_needs_no_quotes_for_the_grammar_of_overrides() -> None:
    assert read_command_line(["plan", "data.delimiter=;"]).overrides == ('data.delimiter=";"',)


@pytest.mark.parametrize(
    ("words", "directories", "options"),
    [
        (["runs"], (), ()),
        (["runs", "state=failed", "val/loss<0.1", "a>=2"], (), ("state=failed", "val/loss<0.1", "a>=2")),
        (["runs", "elsewhere", "limit=3"], ("elsewhere",), ("limit=3",)),
        (["show", "../a=b", "format=json"], ("../a=b",), ("format=json",)),
    ],
)
def test_commands_that_only_read_take_directories_and_options(
    words: list[str], directories: tuple[str, ...], options: tuple[str, ...]
) -> None:
    line = read_command_line(words)
    assert (line.directories, line.overrides, line.directory) == (directories, options, None)


@pytest.mark.parametrize(
    ("words", "flags"),
    [
        (["--cfg", "job", "--resolve", "-p", "model"], ("--cfg=job", "--package=model", "--resolve")),
        (["--info"], ("--info=all",)),
        (["--info", "defaults"], ("--info=defaults",)),
        (["-sc", "install=bash"], ("--shell-completion",)),
        (["--hydra-help"], ("--hydra-help",)),
    ],
)
def test_flags_of_hydra_are_written_out_in_full(words: list[str], flags: tuple[str, ...]) -> None:
    assert read_command_line(words).hydra_flags == flags


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["plna"],
            "plna: no such command. Available: compare, config, explain, export, import-weights, lineage, plan, ",
        ),
        (["new", "NAME"], "new: no such command."),
        (["train"], "train: no such command; to train, give no command: loopwright, or loopwright loop.max_steps=500."),
        (["version"], "version: no such command; use loopwright --version."),
        (["help"], "help: no such command; use loopwright --help."),
        (["a=1", "plan"], "plan: a command comes before the overrides: loopwright plan …"),
        (["-m", "a=1,2", "plan"], "plan: a command comes before the overrides: loopwright plan …"),
        (["a=[b,", "c]"], "a=[b,: a shell splits words at spaces; use 'a=[b,c]'."),
        (["a={b:", "1,", "c: 2}", "d=1"], "a={b:: a shell splits words at spaces; use 'a={b:1,c:2}'."),
        (["--max-steps", "100"], "--max-steps: no such flag. A setting is typed as max_steps=VALUE, without dashes."),
        (["plan", "model"], "model: expected an override of the form key=value."),
        (["validate"], "validate: expected a run directory"),
        (["show"], "show: expected one run directory; use loopwright show DIR."),
        (["runs", "a", "./b=c"], "runs: expected at most one directory, not 2; use loopwright runs [DIR]."),
        (["runs", "-m"], "--multirun: cannot be used with runs."),
        (["validate", "loop.eval_steps=3"], "validate: expected a run directory"),
        (["--experimental-rerun=x"], "--experimental-rerun: refused;"),
        (["--experimental-rerun", "x"], "--experimental-rerun: refused;"),
        (["--config-name", "x"], "--config-name: refused;"),
        (["-cn", "x"], "--config-name: refused;"),
        (["-cp", "x"], "--config-path: refused;"),
        (["a=1", "--config-path=x"], "--config-path: refused;"),
        (["--experimental-re=x"], "--experimental-re: no such flag."),
        (["--multirn"], "--multirn: no such flag. Did you mean --multirun?"),
        (["hydra.searchpath=[x]"], "hydra.searchpath=[x]: refused;"),
        (["+hydra.searchpath=[x]"], "+hydra.searchpath=[x]: refused;"),
        (["++hydra.searchpath.0=x"], "++hydra.searchpath.0=x: refused;"),
        (["hydra={searchpath:[x]}"], "hydra={searchpath:[x]}: refused;"),
        (["hydra.mode=MULTIRUN"], "hydra.mode=MULTIRUN: refused; use -m for a sweep."),
        (["-m", "hydra.sweep.subdir=x"], "hydra.sweep.subdir=x: refused;"),
        (["-m", "hydra.run.dir=x"], "hydra.run.dir=x: has no effect in a sweep"),
        (["hydra.sweep.dir=x"], "hydra.sweep.dir=x: has an effect only in a sweep"),
        (["--cfg", "task"], "command line: argument --cfg/-c: invalid choice"),
        (["--trust"], "command line: argument --trust: expected one argument."),
        (["--cfg", "job", "--info"], "--info: cannot be used with --cfg."),
        (["--resolve"], "--resolve: can only be used with --cfg."),
        (["plan", "--cfg", "job"], "--cfg: cannot be used with the command plan."),
        (["config", "-m"], "--multirun: cannot be used with config."),
    ],
)
def test_invalid_command_lines_are_refused(words: list[str], said: str) -> None:
    with pytest.raises(SettingError) as caught:
        read_command_line(words)
    assert str(caught.value).startswith(said)


def test_a_list_that_is_not_split_is_left_to_the_grammar_of_overrides() -> None:
    assert read_command_line(["a=[b,", "c=1"]).overrides == ("a=[b,", "c=1")
