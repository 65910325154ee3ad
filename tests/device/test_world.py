"""`read_world`: the variables of torchrun and of srun, and variables that are missing or wrong."""

from __future__ import annotations

import pytest

from loopwright.device import World, read_world
from loopwright.device.world import first_host
from loopwright.errors import SettingError

TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "x",
    "WORLD_SIZE": "4",
    "RANK": "3",
    "LOCAL_WORLD_SIZE": "2",
    "LOCAL_RANK": "1",
    "MASTER_ADDR": "node1",
    "MASTER_PORT": "29500",
}
SRUN = {
    "SLURM_STEP_ID": "0",
    "SLURM_NTASKS": "4",
    "SLURM_PROCID": "2",
    "SLURM_LOCALID": "0",
    "SLURM_STEP_NODELIST": "gpu[03-04]",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
    "SLURM_JOB_ID": "123456",
}


def test_torchrun_and_srun_are_recognised() -> None:
    torchrun = World(
        launcher="torchrun", world_size=4, rank=3, local_world_size=2, local_rank=1, address=("node1", 29500)
    )
    assert read_world(TORCHRUN) == torchrun
    srun = World(launcher="srun", world_size=4, rank=2, local_world_size=2, local_rank=0, address=("gpu03", 18456))
    assert read_world(SRUN) == srun


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"WORLD_SIZE": "1", "RANK": "0"},
        {"SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_JOB_ID": "7"},  # a batch script, without srun
        {"SLURM_STEP_ID": "0", "SLURM_NTASKS": "1"},
    ],
)
def test_one_process_is_alone(environ: dict[str, str]) -> None:
    assert read_world(environ) == World()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"RANK": "4"}, r"RANK='4': expected a whole number from 0 to 3"),
        ({"RANK": "-1"}, r"RANK='-1'"),
        ({"WORLD_SIZE": "many"}, r"WORLD_SIZE='many': expected a whole number"),
        ({"WORLD_SIZE": "²"}, r"WORLD_SIZE"),
        ({"LOCAL_RANK": "9"}, r"LOCAL_RANK='9'"),
        ({"MASTER_PORT": "70000"}, r"MASTER_PORT"),
        ({"MASTER_ADDR": ""}, r"MASTER_ADDR"),
    ],
)
def test_a_wrong_variable_is_refused_by_name(changed: dict[str, str], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        read_world(TORCHRUN | changed)


def test_a_missing_rank_is_refused() -> None:
    with pytest.raises(SettingError, match="RANK is not set: expected a whole number from 0 to 1, which the launcher"):
        read_world({"WORLD_SIZE": "2"})


@pytest.mark.parametrize(
    ("hosts", "first"),
    [
        ("node7", "node7"),
        ("a,b,c", "a"),
        ("node[3-5,9],other1", "node3"),
        ("node[003]", "node003"),
        ("rack2-n[1,4]-ib,x", "rack2-n1-ib"),
    ],
)
def test_the_first_host_of_a_list_of_slurm(hosts: str, first: str) -> None:
    assert first_host(hosts) == first


@pytest.mark.parametrize("hosts", ["", "[1-2]", "a b", "node[", "node[x]"])
def test_another_text_is_refused(hosts: str) -> None:
    with pytest.raises(SettingError, match="SLURM_STEP_NODELIST"):
        first_host(hosts)
