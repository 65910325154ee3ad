"""Slots of a sweep: how many jobs run at a time, and on which devices."""

from __future__ import annotations

from typing import Any

import pytest

from loopwright.errors import SettingError
from loopwright.experiment.sweep.slots import Slot, make_slots

VISIBLE = "CUDA_VISIBLE_DEVICES"


def slots(devices: Any = "auto", jobs_per_device: int = 1, num_parallel: int | str = "auto", **more: Any) -> list[Slot]:
    given: dict[str, Any] = {"kind": "cuda", "num_visible": 4, "num_cpu_slots": 2, "environ": {}, **more}
    kind = given.pop("kind")
    return make_slots(kind, devices, jobs_per_device, num_parallel, **given)


def test_each_visible_device_is_a_slot() -> None:
    found = slots()
    assert [slot.name for slot in found] == ["gpu 0", "gpu 1", "gpu 2", "gpu 3"]
    assert [slot.environment for slot in found] == [{VISIBLE: str(number)} for number in range(4)]


def test_several_devices_are_one_slot_and_a_device_is_several_slots() -> None:
    assert [slot.environment for slot in slots([[0, 1], [2, 3]])] == [{VISIBLE: "0,1"}, {VISIBLE: "2,3"}]
    assert [slot.name for slot in slots([0, 1], jobs_per_device=2)] == ["gpu 0", "gpu 0", "gpu 1", "gpu 1"]


def test_a_job_of_several_processes_gets_as_many_devices() -> None:
    assert [slot.name for slot in slots(devices_per_job=2)] == ["gpu 0,1", "gpu 2,3"]
    assert [slot.name for slot in slots(devices_per_job=3)] == ["gpu 0,1,2"]


def test_fewer_jobs_than_devices_use_the_first_devices() -> None:
    assert [slot.name for slot in slots(num_parallel=2)] == ["gpu 0", "gpu 1"]


def test_numbers_select_from_the_devices_that_this_process_may_use() -> None:
    found = slots([1, "GPU-5a"], environ={VISIBLE: "MIG-7,GPU-9c"})
    assert [slot.environment for slot in found] == [{VISIBLE: "GPU-9c"}, {VISIBLE: "GPU-5a"}]


def test_the_variable_that_is_set_is_used() -> None:
    found = slots([0], environ={"HIP_VISIBLE_DEVICES": "2,3"})
    assert [slot.environment for slot in found] == [{"HIP_VISIBLE_DEVICES": "2"}]


def test_jobs_on_the_cpu_need_no_devices() -> None:
    assert slots(kind="cpu", num_parallel=3) == [Slot()] * 3
    assert slots(kind="cpu") == [Slot()] * 2


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"num_parallel": 5}, "sweep.num_parallel=5: expected at most 4, the number of slots of the visible devices"),
        ({"kind": "cpu", "devices": [0]}, r"sweep.devices=\[0\]: expected auto with jobs on cpu"),
        ({"devices": [2], "environ": {VISIBLE: "7,8"}}, "sweep.devices=2: expected a number below 2, as .*=7,8"),
    ],
)
def test_devices_that_are_not_there_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        slots(**given)
