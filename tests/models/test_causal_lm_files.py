"""A directory of weights with files that never end is refused before ``transformers`` reads it."""

from __future__ import annotations

from pathlib import Path

import pytest

import special
from loopwright.errors import SettingError
from loopwright.models import CausalLM


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", ["pipe", "device", "socket"])
@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "generation_config.json"])
def test_a_file_that_never_ends_is_refused(name: str, kind: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    special.make(tmp_path / name, kind)
    with pytest.raises(SettingError, match=r"path=.*: expected a directory (of regular files|written by)"):
        CausalLM(path=tmp_path)
