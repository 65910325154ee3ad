"""Functions that check the devices, the data and the model of a job that several processes train."""

from __future__ import annotations

from torch import nn

from loopwright.data import Loader
from loopwright.device import Device, count_devices
from loopwright.errors import SettingError, refuse
from loopwright.experiment.jobs.objects import JobObjects

_BATCH_NORM = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def check_devices(device: Device) -> None:
    """Refuse more processes than this machine has devices of the kind ``device.kind``. The CPU has no limit.

    Raises:
        SettingError: if there are more processes than devices.
    """
    num_devices = count_devices(device.kind)
    if num_devices is not None and device.num_processes > num_devices:
        expected = f"{num_devices} or fewer with kind={device.kind}, because this machine has {num_devices}"
        raise refuse("device.num_processes", device.num_processes, expected, f"use device.num_processes={num_devices}")


def check_processes(objects: JobObjects, model: nn.Module | None) -> tuple[str, ...]:
    """Refuse a batch size that is smaller than the number of processes. Return notes about batch normalisation.

    Args:
        objects: objects of the job.
        model: model of the job; None: the model was not built.

    Raises:
        SettingError: if ``data.batch_size`` is smaller than the number of processes.
    """
    num_processes, train = objects.device.num_processes, objects.data.train
    if num_processes == 1 or not isinstance(train, Loader):
        return ()
    if train.batch_size < num_processes:
        expected = f"expected {num_processes} or more, a row for each of {num_processes} processes"
        raise SettingError("data.batch_size", f"={train.batch_size}: {expected}.")
    rest = len(train.dataset) % train.batch_size
    fewest = min(train.batch_size, rest or train.batch_size)
    has_batch_norm = model is not None and any(isinstance(each, _BATCH_NORM) for each in model.modules())
    if has_batch_norm and fewest < 2 * num_processes:
        return (
            f"a micro-batch of {fewest} rows is divided over {num_processes} processes: batch normalisation fails in a "
            "process with one row; use another data.batch_size",
        )
    return ()
