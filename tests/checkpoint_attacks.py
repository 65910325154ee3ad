"""Malicious checkpoints: each attack changes a good checkpoint, with a manifest and an outline that match the change.

As a script, it runs every function that reads checkpoints on each of them. An audit hook records opened files and
executed code::

    python tests/checkpoint_attacks.py FOLDER      # FOLDER/good and FOLDER/shards are checkpoints, the latter written
                                                   # by two processes; prints a JSON object by attack
"""

from __future__ import annotations

import gzip
import io
import json
import logging
import os
import pickle
import resource
import shutil
import socket
import stat
import sys
import time
import warnings
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from loopwright import Trainer, TrainingLoop
from loopwright.checkpoint import expand, read_checkpoint, resolve, verify_checkpoint
from loopwright.errors import CheckpointError
from sealing import read_trees, seal, spell, write_manifest, write_trees
from tiny import batches, trainer

# Changes the checkpoint at a path; returns another path to read, or None.
Attack = Callable[[Path], Path | None]

FILES = ["manifest.json", "model.safetensors", "optimizer.safetensors", "state.json", "state.safetensors"]
WEIGHT = "layers.0.bias"  # float32, 8 elements


class Payload:
    """Creates a folder when it is unpickled."""

    def __reduce__(self) -> Any:
        return os.mkdir, (os.environ.get("CHECKPOINT_ATTACKS_RAN", "ran"),)


def put(name: str, data: bytes | Callable[[], bytes]) -> Attack:
    """Replace the content of a file by ``data``, or by what ``data`` returns when the attack is made."""

    def attack(path: Path) -> None:
        (path / name).write_bytes(data() if callable(data) else data)
        if name != "manifest.json":
            seal(path)

    return attack


def torch_file() -> bytes:
    buffer = io.BytesIO()
    torch.save(Payload(), buffer)
    return buffer.getvalue()


def zip_bomb() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Payload()))
        archive.writestr("archive/data/0", b"\0" * (1 << 26))
    return buffer.getvalue()


def tensors(header: dict[str, Any], data: bytes = b"", length: int | None = None) -> Attack:
    """Replace the model's tensor file by one with this header."""
    text = json.dumps(header).encode()
    size = (len(text) if length is None else length).to_bytes(8, "little")
    return put("model.safetensors", size + text + data)


def entry(shape: list[int], start: int, stop: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


def manifest(change: Callable[[dict[str, Any]], Any]) -> Attack:
    """Change the values of the manifest, and update its digest."""

    def attack(path: Path) -> None:
        values = json.loads((path / "manifest.json").read_text())
        change(values)
        write_manifest(path, values)

    return attack


def rename_in_manifest(name: str) -> Attack:
    return manifest(lambda values: values["files"].update({name: values["files"].pop("state.json")}))


def declare_bytes(num_bytes: Any) -> Attack:
    return manifest(lambda values: values["files"]["model.safetensors"].update(num_bytes=num_bytes))


def trees(change: Callable[[dict[str, Any]], Any]) -> Attack:
    """Change the values of ``state.json``, and update its outline and the manifest."""

    def attack(path: Path) -> None:
        values = read_trees(path)
        change(values)
        write_trees(path, values)

    return attack


def text(old: str, new: str) -> Attack:
    """Replace the text ``old``, which must occur in ``state.json``, by ``new``."""

    def attack(path: Path) -> None:
        whole = (path / "state.json").read_text()
        assert old in whole
        (path / "state.json").write_text(whole.replace(old, new, 1))
        seal(path)

    return attack


def link(name: str, target: str | None = None) -> Attack:
    """Replace a file by a link to ``target``, or to the same file, which is moved out of the folder."""

    def attack(path: Path) -> None:
        outside = path.parent / f"secret_{name}"
        (path / name).rename(outside)
        (path / name).symlink_to(outside if target is None else target)

    return attack


def special(make: Callable[[Path], Any]) -> Attack:
    """Replace the weights by a pipe, a device, a socket or a folder."""

    def attack(path: Path) -> None:
        (path / "model.safetensors").unlink()
        make(path / "model.safetensors")

    return attack


def make_socket(path: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # the path of a socket may have 107 bytes at most
    socket.socket(socket.AF_UNIX).bind(path.name)
    os.chdir(here)


def make_device(path: Path) -> None:
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))  # the device number of /dev/zero
    except PermissionError:
        path.symlink_to("/dev/zero")


def sparse(name: str) -> Attack:
    """Replace a file by a sparse one of 1 TiB, which is also the size in the manifest."""

    def attack(path: Path) -> None:
        with open(path / name, "wb") as file:
            file.truncate(1 << 40)
        if name != "manifest.json":
            manifest(lambda values: values["files"][name].update(num_bytes=1 << 40))(path)

    return attack


def link_to_folder(path: Path) -> Path:
    made = path.parent / "linked"
    made.symlink_to(path)
    return made


def distributed(path: Path) -> None:
    """Replace all files by a checkpoint of `torch.distributed.checkpoint`, whose metadata is a pickle."""
    for name in FILES:
        (path / name).unlink()
    (path / ".metadata").write_bytes(pickle.dumps(Payload()))
    (path / "__0_0.distcp").write_bytes(torch_file())


def bare(name: str, data: Callable[[], bytes]) -> Attack:
    """Replace the folder by a single file."""

    def attack(path: Path) -> Path:
        shutil.rmtree(path)
        file = path.parent / name
        file.write_bytes(data())
        return file

    return attack


def weight(size: int, start: int, stop: int, dtype: str = "F32") -> dict[str, Any]:
    return {WEIGHT: entry([size], start, stop, dtype)}


def set_at(*way: Any) -> Callable[[dict[str, Any]], Any]:
    """Set one value in a tree: the last argument is the value, the others are the keys that lead to it."""

    def change(values: Any) -> None:
        for key in way[:-2]:
            values = values[key]
        values[way[-2]] = way[-1]

    return change


SECOND = "model-00002-of-00002.safetensors"


def shard(change: Callable[[dict[str, torch.Tensor]], Any], name: str = SECOND) -> Attack:
    """Change the tensors in a file of a checkpoint of two processes."""

    def attack(path: Path) -> None:
        found = safetensors.torch.load((path / name).read_bytes())
        change(found)
        (path / name).write_bytes(safetensors.torch.save(found))
        seal(path)

    return attack


def shard_header(header: dict[str, Any], data: bytes = b"", length: int | None = None) -> Attack:
    """Replace a file of a checkpoint of two processes by a file with this header."""
    text = json.dumps(header).encode()
    return put(SECOND, (len(text) if length is None else length).to_bytes(8, "little") + text + data)


def rename_shard(name: str) -> Attack:
    return manifest(lambda values: values["files"].update({name: values["files"].pop(SECOND)}))


def unlisted(*names: str) -> Attack:
    return manifest(lambda values: [values["files"].pop(name) for name in names])


def shards(number: Any) -> Attack:
    return manifest(lambda values: values.update(shards=number, world_size=number))


def shape(*way: Any) -> Attack:
    return trees(set_at("shapes", *way))


GROUP = ("optimizer", "param_groups", 0)
RNG = ("state", "streams", "numpy", "~tuple")

ATTACKS: dict[str, Attack] = {
    **{f"pickle as {name}": put(name, pickle.dumps(Payload())) for name in FILES},
    **{f"torch file as {name}": put(name, torch_file()) for name in FILES},
    "folder of torch.distributed.checkpoint": distributed,
    "bare .pt": bare("weights.pt", torch_file),
    "bare pickle": bare("state.pkl", lambda: pickle.dumps(Payload())),
    "zip bomb as weights": put("model.safetensors", zip_bomb),
    "zip bomb as state": put("state.json", zip_bomb),
    "gzip bomb as state": put("state.json", lambda: gzip.compress(b" " * (1 << 26))),
    "header of 2**60 bytes": tensors({}, length=2**60),
    "header of 2**64 - 1 bytes": tensors({}, length=2**64 - 1),
    "tensor of 2**60 numbers": tensors(weight(2**60, 0, 2**62)),
    "tensor whose size overflows": tensors({WEIGHT: entry([2**62, 2**62], 0, 0)}),
    "tensor that ends before it begins": tensors(weight(1, 4, 0), b"0" * 4),
    "tensor beyond the file": tensors(weight(8, 0, 32), b"0" * 4),
    "tensor of negative shape": tensors(weight(-8, 0, 32), b"0" * 32),
    "tensors that overlap": tensors({**weight(8, 0, 32), "b": entry([8], 16, 48)}, b"0" * 48),
    "tensor after a hole": tensors(weight(8, 8, 40), b"0" * 40),
    "data that belongs to no tensor": tensors(weight(8, 0, 32), b"0" * 64),
    "tensor of unknown dtype": tensors(weight(8, 0, 32, "OBJECT"), b"0" * 32),
    "tensor name with an escape": tensors({"\x1b[2J\n": entry([8], 0, 32)}, b"0" * 32),
    "a name twice in a header": put(
        "model.safetensors", (lambda t: len(t).to_bytes(8, "little") + t + b"0" * 8)(
            b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],'
            b'"data_offsets":[4,8]}}'
        ),
    ),
    "manifest with a file in the parent folder": rename_in_manifest("../secret"),
    "manifest with an absolute path": rename_in_manifest("/etc/passwd"),
    "manifest with an unexpected file": rename_in_manifest("state.pkl"),
    "manifest with no files": manifest(lambda values: values["files"].clear()),
    "manifest with 2**60 bytes": declare_bytes(2**60),
    "manifest with 2**70 bytes": declare_bytes(2**70),
    "manifest with negative bytes": declare_bytes(-1),
    "manifest with NaN bytes": declare_bytes(float("nan")),
    "manifest with 10**4000 as step": manifest(lambda values: values.update(step=10**4000)),
    "manifest 900 deep": put("manifest.json", b"[" * 900 + b"]" * 900),
    "manifest 100,000 deep": put("manifest.json", b'{"a":' * 100_000),
    "manifest with a key twice": put("manifest.json", spell({"schema": 1}).replace(b"{", b'{"schema": 2,', 1)),
    **{f"{name} is a link out of the folder": link(name) for name in FILES},
    "state is a link to a secret": link("state.json", "/etc/passwd"),
    "state is a link to itself": link("state.json", "state.json"),
    "state is a link to a device": link("state.json", "/dev/zero"),
    "state is a link to a missing file": link("state.json", "/nowhere"),
    "folder is a link": link_to_folder,
    "weights are a pipe": special(os.mkfifo),
    "weights are a device": special(make_device),
    "weights are a socket": special(make_socket),
    "weights are a folder": special(os.mkdir),
    "manifest of a terabyte": sparse("manifest.json"),
    "state of a terabyte": sparse("state.json"),
    "weights of a terabyte": sparse("model.safetensors"),
    "a key twice": text('"state":{', '"state":{"more":1,"more":2,'),
    "a part twice": text('"state":{', '"state":{},"state":{'),
    "NaN as text": text('"global_step":2', '"global_step":NaN'),
    "a number that is infinite": text('"global_step":2', '"global_step":1e999'),
    "a number of 5,000 digits": text('"global_step":2', '"global_step":' + "9" * 5000),
    "state 100,000 deep": put("state.json", b"[" * 100_000),
    "millions of values": put("state.json", b"[" + b"[]," * 5_000_000 + b"[]]"),
    "an outline of 2**60 entries": text('"outline":{', f'"outline":{{"more":{2**60},'),
    "no step": trees(lambda values: values["state"]["position"].pop("global_step")),
    "a step of 10**4000": trees(set_at("state", "position", "global_step", {"~int": hex(10**4000)})),
    "a step of 10**5000": trees(set_at("state", "position", "global_step", {"~int": hex(10**5000)})),
    "a plan of 10**4000 steps": trees(set_at("state", "plan", "stop_step", {"~int": hex(10**4000)})),
    "a step that is NaN": trees(set_at("state", "position", "global_step", {"~float": "nan"})),
    "another step": trees(set_at("state", "position", "global_step", 1)),
    "a learning rate that is NaN": trees(set_at(*GROUP, "lr", {"~float": "nan"})),
    "a learning rate that is a string": trees(set_at(*GROUP, "lr", "__import__('os')")),
    "parameters in another order": trees(set_at(*GROUP, "params", [3, 2, 1, 0])),
    "state of parameter 2**60": trees(lambda values: values["optimizer"]["state"]["~dict"][0].__setitem__(0, 2**60)),
    "a position out of range in NumPy's generator": trees(set_at(*RNG, 2, 2**31 - 1)),
    "NumPy's generator with another name": trees(set_at(*RNG, 0, "os.system")),
    "an unknown tag": trees(set_at("state", "position", {"~pickle": "gASVAAAA"})),
    "a tensor of another file": trees(set_at("model", WEIGHT, {"~tensor": "../optimizer.safetensors"})),
    "a plan that starts after its end": trees(set_at("state", "plan", "start_step", 10**18)),
    "a state for an unknown callback": trees(set_at("state", "callbacks", "os.system", {"command": "id"})),
}  # fmt: skip

REST = {"layers.3.weight": entry([0, 8], 16, 16), "layers.3.bias": entry([0], 16, 16),
        "layers.0.weight": entry([4, 4], 16, 80)}  # fmt: skip

# Attacks on a checkpoint that two processes have written.
SHARD_ATTACKS: dict[str, Attack] = {
    "shards: a missing shard": lambda path: (path / SECOND).unlink(),
    "shards: a shard that the manifest lacks": unlisted(SECOND),
    "shards: more shards than files": shards(3),
    "shards: 10**9 shards": shards(10**9),
    "shards: 99,999 shards": shards(99_999),
    "shards: no shards": shards(0),
    "shards: a negative number of shards": shards(-1),
    "shards: true as the number of shards": shards(True),
    "shards: text as the number of shards": shards("2"),
    "shards: a number of shards that is not the number of processes": manifest(lambda v: v.update(world_size=3)),
    "shards: schema 3": manifest(lambda values: values.update(schema=3)),
    "shards: schema 1": manifest(lambda values: values.update(schema=1)),
    "shards: an unknown field": manifest(lambda values: values.update(more=1)),
    "shards: a file in the parent folder": rename_shard(f"../{SECOND}"),
    "shards: a file of another pattern": rename_shard("model-2-of-2.safetensors"),
    "shards: a file of a third shard": rename_shard("model-00003-of-00002.safetensors"),
    "shards: a whole file beside the shards": rename_shard("model.safetensors"),
    "shards: rows that are missing": shard(lambda t: t.update({WEIGHT: t[WEIGHT][:3].clone()})),
    "shards: rows that overlap": shard(lambda t: t.update({WEIGHT: t[WEIGHT].repeat(2)})),
    "shards: rows of another width": shard(lambda t: t.update({WEIGHT: t[WEIGHT].reshape(4, 1)})),
    "shards: a tensor that is missing": shard(lambda t: t.pop(WEIGHT)),
    "shards: an unknown tensor in the second shard": shard(lambda t: t.update(more=torch.zeros(1))),
    "shards: an unknown tensor in the first shard": shard(
        lambda t: t.update(more=torch.zeros(1)), "model-00001-of-00002.safetensors"
    ),
    "shards: another dtype": shard(lambda t: t.update({WEIGHT: t[WEIGHT].view(torch.int32)})),
    "shards: a pickle": put(SECOND, pickle.dumps(Payload())),
    "shards: a torch file": put(SECOND, torch_file()),
    "shards: an empty file": put(SECOND, b""),
    "shards: a header of 2**60 bytes": shard_header({}, length=2**60),
    "shards: a header that is a list": put(SECOND, (2).to_bytes(8, "little") + b"[]"),
    "shards: a tensor beyond the file": shard_header(REST | {WEIGHT: entry([4], 80, 96)}, b"0" * 80),
    "shards: tensors that overlap": shard_header(REST | {WEIGHT: entry([4], 64, 80)}, b"0" * 80),
    "shards: a hole": shard_header(REST | {WEIGHT: entry([4], 0, 16)} | {"b": entry([1], 90, 94)}, b"0" * 94),
    "shards: data that belongs to no tensor": shard_header(REST | {WEIGHT: entry([4], 0, 16)}, b"0" * 99),
    "shards: a tensor of 2**60 numbers": shard_header({WEIGHT: entry([2**60], 0, 2**62)}),
    "shards: a tensor of negative shape": shard_header(REST | {WEIGHT: entry([-4], 0, 16)}, b"0" * 80),
    "shards: a tensor of unknown dtype": shard_header(REST | {WEIGHT: entry([4], 0, 16, "OBJECT")}, b"0" * 80),
    "shards: a link out of the folder": link(SECOND),
    "shards: a terabyte": sparse(SECOND),
    "shards: more rows than there are": shape("model", WEIGHT, [16]),
    "shards: 2**60 rows": shape("model", WEIGHT, [2**60]),
    "shards: a negative number of rows": shape("model", WEIGHT, [-8]),
    "shards: a shape that is text": shape("model", WEIGHT, "8"),
    "shards: a shape without dimensions": shape("model", WEIGHT, []),
    "shards: a shape of 1,000 dimensions": shape("model", WEIGHT, [8] + [1] * 1000),
    "shards: the shape of an unknown tensor": shape("model", "os.system", [8]),
    "shards: no shape": trees(lambda values: values["shapes"]["model"].pop(WEIGHT)),
    "shards: no shapes": trees(lambda values: values.pop("shapes")),
    "shards: shapes that are a list": trees(set_at("shapes", [])),
}  # fmt: skip
ATTACKS |= SHARD_ATTACKS

WATCHED = ("pickle.find_class", "marshal.loads", "os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "exec",
           "socket.connect", "compile", "import", "ctypes.dlopen")  # fmt: skip


def new_trainer(num_steps: int = 2, **settings: Any) -> Trainer:
    """Return a trainer for making the good checkpoints and for reading the others."""
    return trainer(TrainingLoop(max_steps=num_steps), **settings)


def readers(path: Path) -> list[Callable[[], object]]:
    """Return every function that reads a checkpoint. The first reads all of it; others may read only a part."""
    return [
        partial(new_trainer(num_steps=4).fit, batches(5), ckpt_path=path),
        partial(read_checkpoint, path),
        partial(read_checkpoint, path, weights_only=True),
        partial(verify_checkpoint, path),
        partial(resolve, path.parent),
        partial(expand, f"{path.parent}/*"),
        partial(new_trainer().validate, [batches(1)], ckpt_path=path),
        partial(new_trainer().fit, batches(5), init_from=path),
    ]


def main(folder: Path) -> dict[str, dict[str, Any]]:
    """Run every reader on every attack; return the errors, opened files, executed code, time and memory."""
    events: list[tuple[str, str]] = []
    is_watching = False

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if is_watching and (event == "open" or event in WATCHED):
            events.append((event, str(arguments[0])))

    sys.addaudithook(watch)
    warnings.simplefilter("ignore")  # showing a warning opens source files
    logging.disable()
    results: dict[str, dict[str, Any]] = {}
    for name in ("no attack", "no attack on shards", *ATTACKS):
        path = folder / f"attack_{len(results)}" / "step_00000002"
        shutil.copytree(folder / ("shards" if "shards" in name else "good"), path)
        attacked = ATTACKS[name](path) if name in ATTACKS else None
        errors = []
        began_seconds = time.monotonic()
        for read in readers(attacked or path):
            events.clear() if not errors else None
            is_watching = True
            try:
                read()
            except CheckpointError as error:
                errors.append(str(error))
            except BaseException as error:  # noqa: BLE001  (an unexpected error is recorded)
                errors.append(f"{type(error).__name__}!")
            else:
                errors.append("")
            is_watching = False
        results[name] = {
            "errors": errors,
            "seconds": time.monotonic() - began_seconds,
            "opened": [what for event, what in events if event == "open" and not what.isdigit()],
            "run": [f"{event} {what}" for event, what in events if event != "open"],
            "folder": str(path),
            "max_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        }
    return results


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
