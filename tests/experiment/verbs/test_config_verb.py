"""``loopwright config`` with and without origins."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable

import pytest
import yaml

from command import Answer

Cli = Callable[..., Answer]


def test_each_value_has_its_origin_in_aligned_columns(cli: Cli) -> None:
    answer = cli("config", "origins=true", "loop.num_steps=20", "optimizer.lr=0.5")
    assert (answer.code, answer.err) == (0, "")
    lines = answer.out.splitlines()
    column = lines[0].index("conf/loop/training.yaml:1")
    assert all(line[column - 2 : column] == "  " and line[column] != " " for line in lines)
    assert {line.index(" = ") for line in lines} == {lines[0].index(" = ")}
    found = {line.split(" = ")[0].strip(): line[column:] for line in lines}
    assert found["loop.max_steps"] == "Loopwright: loop.num_steps=20 was typed"
    assert found["optimizer.lr"] == "optimizer.lr=0.5"
    assert found["optimizer.betas"] == "conf/optimizer/adamw.yaml:4"
    assert found["checkpoint.monitor"].endswith(", as ${objective}")


def test_all_formats_have_the_fields_of_the_configuration(cli: Cli) -> None:
    words = ["experiment=gpt_stdlib", "loop.num_epochs=1"]
    config = yaml.safe_load(cli("config", *words).out)
    rows = json.loads(cli("config", *words, "origins=true", "format=json").out)
    assert [list(row) for row in rows] == [["key", "value", "origin"]] * len(rows)
    for row in rows:
        value = config
        for name in row["key"].split("."):
            value = value[name]
        assert value == row["value"]
    table = list(csv.DictReader(io.StringIO(cli("config", *words, "origins=true", "format=csv").out)))
    assert [(row["key"], row["origin"]) for row in table] == [(row["key"], row["origin"]) for row in rows]
    markdown = cli("config", *words, "origins=true", "format=md").out.splitlines()
    assert markdown[0] == "| key | value | origin |" and len(markdown) == len(rows) + 2


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["origins=yes"], "origins='yes': expected true or false."),
        (["format=json"], "format=json: has an effect only with origins=true."),
        (["origins=true", "format=xml"], "format='xml': expected text, json, csv or md."),
        (["origins=true", "data=csv"], "data.path=???: a value must be given."),
        (["origins=true", "origins=true"], "origins: given twice; give it once."),
    ],
    ids=lambda each: " ".join(each) if isinstance(each, list) else "",
)
def test_a_wrong_command_is_refused_in_one_line(cli: Cli, words: list[str], error: str) -> None:
    answer = cli("config", *words)
    assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1)
    assert answer.err.startswith(error)
