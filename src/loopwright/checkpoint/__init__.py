"""Functions and classes that save and load checkpoints, which are folders of safetensors and JSON files."""

from loopwright.checkpoint.checkpointing import Checkpointing
from loopwright.checkpoint.choose import (
    FINISHED_ERRORS,
    FINISHED_FILE,
    Chosen,
    choose,
    find_best,
    is_named,
    manifest_digest,
    read_finished,
    within,
)
from loopwright.checkpoint.encode import check_state, decode, encode
from loopwright.checkpoint.files import FileRecord, Manifest
from loopwright.checkpoint.find import expand, folder_problem, resolve
from loopwright.checkpoint.foreign import read_torch_weights
from loopwright.checkpoint.host_copies import HostCopies
from loopwright.checkpoint.pack import Contents, pack, pack_shard
from loopwright.checkpoint.read import Checkpoint, read_checkpoint, read_entries, verify_checkpoint
from loopwright.checkpoint.retention import prune
from loopwright.checkpoint.shards import Sharing
from loopwright.checkpoint.transport import from_bytes, to_bytes
from loopwright.checkpoint.weights import (
    check_weights,
    fitting_weights,
    in_dtypes_of,
    load_fitting_weights,
    load_weights,
    parameter_names,
    plain_names,
    plain_parameters,
    refuse_lazy,
    unsaved_buffers,
    weights_digest,
)
from loopwright.checkpoint.write import (
    begin_shards,
    clean_leftovers,
    commit_shards,
    remove_checkpoint,
    write_checkpoint,
    write_contents,
    write_shard,
)
from loopwright.records import step_folder, steps_in

__all__ = [
    "FINISHED_ERRORS",
    "FINISHED_FILE",
    "Checkpoint",
    "Checkpointing",
    "Chosen",
    "Contents",
    "FileRecord",
    "HostCopies",
    "Manifest",
    "Sharing",
    "begin_shards",
    "check_state",
    "check_weights",
    "choose",
    "clean_leftovers",
    "commit_shards",
    "decode",
    "encode",
    "expand",
    "find_best",
    "fitting_weights",
    "folder_problem",
    "from_bytes",
    "in_dtypes_of",
    "is_named",
    "load_fitting_weights",
    "load_weights",
    "manifest_digest",
    "pack",
    "pack_shard",
    "parameter_names",
    "plain_names",
    "plain_parameters",
    "prune",
    "read_checkpoint",
    "read_entries",
    "read_finished",
    "read_torch_weights",
    "refuse_lazy",
    "remove_checkpoint",
    "resolve",
    "step_folder",
    "steps_in",
    "to_bytes",
    "unsaved_buffers",
    "verify_checkpoint",
    "weights_digest",
    "within",
    "write_checkpoint",
    "write_contents",
    "write_shard",
]
