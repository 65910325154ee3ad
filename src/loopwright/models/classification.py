"""What the classifiers return for a batch.

Shape suffixes: B batch, C classes.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def classify(logits_BC: Tensor, label_B: Tensor) -> dict[str, Tensor]:
    """Compare logits with labels.

    Returns:
        ``loss``, the mean cross entropy in nats; ``accuracy``, the fraction of the batch whose largest logit is that
        of its label, in the type of the logits; ``logits``. Nothing is read back from the device.
    """
    is_correct_B = logits_BC.detach().argmax(dim=-1) == label_B
    return {
        "loss": functional.cross_entropy(logits_BC, label_B),
        "accuracy": is_correct_B.to(logits_BC.dtype).mean(),
        "logits": logits_BC,
    }
