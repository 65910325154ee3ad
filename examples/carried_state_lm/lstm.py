"""`CarriedLSTM`: an LSTM language model that passes its state from each batch to the next."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class CarriedLSTM(nn.Module):
    """Predicts the next byte of a text. Row *i* of a batch continues row *i* of the previous batch.

    Args:
        batch_size: number of rows in a training batch.
        width: number of features of an embedded byte, and of a layer.
        num_layers: number of LSTM layers.
        dropout: fraction of activations dropped in training.
    """

    training_state: Tensor

    def __init__(self, batch_size: int, width: int = 128, num_layers: int = 2, dropout: float = 0.2) -> None:
        super().__init__()
        self.embedding = nn.Embedding(256, width)
        self.dropout = nn.Dropout(dropout)
        self.lstm = nn.LSTM(width, width, num_layers, dropout=dropout, batch_first=True)
        self.head = nn.Linear(width, 256)
        # The state after the previous batch. A resume restores this state, because checkpoints contain buffers.
        self.register_buffer("training_state", torch.zeros(2, num_layers, batch_size, width))
        # The state of a validation is not saved, because each validation begins with zeros.
        self.validation_state = torch.empty(0)

    def forward(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Return the mean loss over the bytes of the batch, in nats, and store the state after the batch."""
        if batch["is_first"]:  # the first batch of a pass over the text
            num_rows = len(batch["inputs"])
            state = self.training_state.new_zeros(2, self.lstm.num_layers, num_rows, self.lstm.hidden_size)
        else:
            state = self.training_state if self.training else self.validation_state
        logits, new_state = self.logits(batch["inputs"], state)
        if self.training:  # detached, so that gradients are computed within one batch
            self.training_state = new_state.detach()
        else:
            self.validation_state = new_state.detach()
        loss = functional.cross_entropy(logits.flatten(0, 1), batch["targets"].flatten())
        return {"loss": loss, "num_items": batch["targets"].numel()}

    def logits(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits of the byte after each input, and the state after the last input."""
        output, new_state = self.lstm(self.dropout(self.embedding(inputs)), (state[0], state[1]))
        return self.head(self.dropout(output)), torch.stack(new_state)
