"""`Summary`: prints a table of the parameters of the model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from loopwright.callbacks.parameter_table import Row, parameter_table
from loopwright.errors import check_count
from loopwright.hooks import Callback
from loopwright.regular_files import replace_file

if TYPE_CHECKING:
    from loopwright.loop import LoopCallback
    from loopwright.trainer import Trainer

MODEL_FILE = "model.txt"


class Summary(Callback):
    """Passes a table of the model's parameters to the loggers at the start of a fit, and writes it to ``model.txt``.

    Each row contains the name and shape of a parameter tensor, its number of parameters, and whether the optimizer
    trains the tensor. The file is in the run directory. Without a run directory, no file is written.

    Args:
        max_rows: maximum number of rows. In a model with more parameter tensors, the tensors of a module share a row.
    """

    def __init__(self, max_rows: int = 40) -> None:
        self._max_rows = check_count("max_rows", max_rows)

    def on_fit_start(self, trainer: Trainer, train_dataloader: Any, val_dataloader: Any, loop: LoopCallback) -> None:
        """Log and write the table."""
        groups = [] if trainer.optimizer is None else trainer.optimizer.param_groups
        updated = {id(parameter) for group in groups for parameter in group["params"]}
        rows = [  # torch.compile adds the prefix _orig_mod to the names
            Row.of(name.replace("_orig_mod.", ""), parameter, parameter.requires_grad and id(parameter) in updated)
            for name, parameter in trainer.model.named_parameters()
        ]
        table = parameter_table(rows, self._max_rows)
        for logger in trainer.loggers:
            logger.log_text({"parameters": table}, trainer.global_step)
        if trainer.run_dir is not None and not trainer.rank:
            replace_file(trainer.run_dir / MODEL_FILE, f"{trainer.model_lines}\n\n{table}\n".encode())
