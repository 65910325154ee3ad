"""What was built from a section, or refused, is used again for the next job with an equal section."""

from __future__ import annotations

import pytest

from loopwright.errors import SettingError
from loopwright.experiment.jobs.section_cache import SectionCache


def test_an_object_is_built_once_for_equal_sections() -> None:
    cache = SectionCache()
    configs = [{"a": {"x": 1}}, {"a": {"x": 1}}, {"a": {"x": 1.0}}]
    first, second, third = (cache.once(config, ["a"], object) for config in configs)
    assert first is second is not third
    assert cache.once(configs[0], ["a"], object, "other") is not third


def test_an_error_is_kept_too() -> None:
    cache, calls = SectionCache(), []

    def refuse() -> None:
        calls.append(1)
        raise SettingError("a", ": wrong.")

    for value, num_calls in ((1, 1), (1, 1), (2, 2)):
        with pytest.raises(SettingError, match=r"^a: wrong\.$"):
            cache.once({"a": value}, ["a"], refuse)
        assert len(calls) == num_calls


def test_a_check_reads_what_has_changed_since_it_passed() -> None:
    cache = SectionCache()
    model = {"width": 3}

    def read(config: dict[str, object], fails: bool = False) -> dict[str, object]:
        with cache.changed("names", config) as sections:
            if fails:
                raise SettingError("a", ": wrong.")
        return sections

    with pytest.raises(SettingError):
        read({"model": model}, fails=True)
    assert read({"model": model, "seed": 0}) == {"model": model, "seed": 0}
    assert read({"model": model, "seed": 1}) == {"seed": 1}
    assert read({"model": dict(model), "seed": 1}) == {"model": model}
