"""`CausalLM`: a model that wraps a causal language model of Hugging Face's ``transformers``."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from loopwright.errors import SettingError, did_you_mean, on_one_line, refuse, refuse_type
from loopwright.models.batches import predict_next, tokens_of

_IGNORED = -100


class CausalLM(nn.Module):
    """A causal language model of ``transformers``, loaded from a local directory or built from a configuration.

    This class requires ``pip install 'loopwright[lm]'``.

    ``model(batch)`` takes a mapping with the entry ``tokens``, an int64 tensor of shape B x (T + 1). B is
    the batch size, T the number of input tokens in a row, and V the vocabulary size. The outputs are

    - ``loss``: mean cross entropy over the predicted tokens, in nats;
    - ``num_items``: number of predicted tokens;
    - ``logits``: tensor of shape B x T x V;
    - ``targets``: tokens to predict, B x T; targets of -100 are ignored.

    Nothing is downloaded, and no code in the directory is executed. Weights are read from safetensors files only.

    Args:
        path: directory written by ``save_pretrained``, from which the weights are loaded.
        config: mapping with a ``model_type``, such as gpt2, and settings of this model type. The weights are
            initialised at random. Either ``path`` or ``config`` must be None.

    Raises:
        SettingError: if ``path`` and ``config`` are both None or both given, or if ``transformers`` cannot build the
            model.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None, config: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        if (path is None) == (config is None):
            raise refuse("path", path, "a directory written by save_pretrained, or config instead of path, not both")
        self.causal_lm = _from_directory(Path(path)) if path is not None else _from_config(dict(config or {}))
        self._takes_positions = "position_ids" in inspect.signature(self.causal_lm.forward).parameters
        settings: Any = self.causal_lm.config
        length = getattr(settings, "max_position_embeddings", None)
        self._given: tuple[str, object] = ("config", dict(config or {})) if path is None else ("path", str(path))
        if not isinstance(length, int) or length < 1:
            raise self._refuse("a model whose configuration has max_position_embeddings, 1 or more")
        self.vocab_size: int = settings.vocab_size
        self.context_length: int = length
        self.caches = self._check_causality()

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Predict the tokens of a batch and compute the loss."""
        tokens_BS = tokens_of(batch, least=2, most=self.context_length + 1)
        read_BT, targets_BT = tokens_BS[:, :-1], tokens_BS[:, 1:]
        num_items = (targets_BT != _IGNORED).sum()
        logits_BTV = self.logits(read_BT.masked_fill(read_BT == _IGNORED, 0))
        total = functional.cross_entropy(
            logits_BTV.flatten(end_dim=1), targets_BT.flatten(), ignore_index=_IGNORED, reduction="sum"
        )
        loss = total / num_items.clamp_min(1)
        return {"loss": loss, "num_items": num_items, "logits": logits_BTV, "targets": targets_BT}

    def predict(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Predict the token after each row: ``prediction``, of shape B, and ``probability``, B x V.

        At most the last ``context_length`` tokens of a row are read. Tokens of -100 at the end of a row are padding.

        Raises:
            SettingError: for a batch without tokens, or with tokens of another shape.
        """
        return predict_next(self.logits, batch, self.context_length, _IGNORED)

    def logits(self, tokens_BT: Tensor) -> Tensor:
        """Return the logits of the next token at each position, B x T x V."""
        logits_BTV: Tensor = self.causal_lm(input_ids=tokens_BT, use_cache=False).logits
        return logits_BTV

    def _refuse(self, expected: str, remedy: str = "") -> SettingError:
        setting, given = self._given
        return refuse(setting, given, expected, remedy)

    @torch.no_grad()
    def _check_causality(self) -> bool:
        """Check that no prediction depends on later tokens, and return whether the model caches keys and values."""
        device = next(self.parameters()).device
        if device.type == "meta":  # meta tensors have shapes but no values
            return False
        is_training = self.training
        tokens_BT = torch.zeros(2, min(4, self.context_length), dtype=torch.int64, device=device)
        tokens_BT[1, -1] = self.vocab_size - 1
        outputs = self.eval().causal_lm(input_ids=tokens_BT)
        self.train(is_training)
        change_T = (outputs.logits[0] - outputs.logits[1]).abs().amax(dim=-1)
        if (change_T[:-1] > 1e-3 * change_T[-1]).any():  # rounding causes much smaller differences
            remedy = "set config.is_decoder=true if the model has this setting"
            raise self._refuse("a model whose predictions do not depend on later tokens", remedy)
        return getattr(outputs, "past_key_values", None) is not None

    def begin(self, tokens_BT: Tensor, lengths_B: Tensor) -> tuple[Tensor, Any]:
        """Process prompts of ``lengths_B`` tokens, padded at the end, and cache their keys and values.

        The padding is moved to the beginning of each row, as in ``generate`` of ``transformers``.

        Returns:
            The logits of the token after each prompt, B x V, and the cache that `go_on` takes as ``read``.
        """
        positions_T = torch.arange(tokens_BT.shape[1], device=tokens_BT.device)
        num_before_B1 = tokens_BT.shape[1] - lengths_B.unsqueeze(1)
        sources_BT = (positions_T - num_before_B1).clamp_min(0)
        mask_BT = (positions_T >= num_before_B1).long()
        return self._read(tokens_BT.gather(1, sources_BT), mask_BT, sources_BT, None)

    def go_on(self, tokens_B: Tensor, read: Any) -> tuple[Tensor, Any]:
        """Process one more token in each row. Return the logits of the next token, B x V, and the new cache."""
        mask_BT, positions_B, cache = read
        mask_BT = functional.pad(mask_BT, (0, 1), value=1)
        return self._read(tokens_B.unsqueeze(1), mask_BT, positions_B.unsqueeze(1) + 1, cache)

    def _read(self, tokens_BT: Tensor, mask_BT: Tensor, positions_BT: Tensor, cache: Any) -> tuple[Tensor, Any]:
        given = {"attention_mask": mask_BT, "past_key_values": cache, "use_cache": True}
        if self._takes_positions:
            given["position_ids"] = positions_BT
        outputs = self.causal_lm(input_ids=tokens_BT, **given)
        return outputs.logits[:, -1], (mask_BT, positions_BT[:, -1], outputs.past_key_values)


def _from_directory(path: Path) -> nn.Module:
    if not (path / "config.json").is_file():
        raise refuse("path", str(path), "a directory written by save_pretrained, with a config.json")
    for entry in sorted(path.iterdir()):
        if not entry.is_file() and not entry.is_dir():
            raise refuse("path", str(path), f"a directory of regular files; {entry.name} is not a regular file")
    from transformers import AutoModelForCausalLM  # optional dependency

    try:
        model: nn.Module = AutoModelForCausalLM.from_pretrained(
            path, local_files_only=True, trust_remote_code=False, use_safetensors=True, dtype=torch.float32
        )
    except Exception as error:  # transformers raises errors of many types
        problem = f"; error from transformers: {on_one_line(str(error), 200)}"
        raise refuse("path", str(path), f"a causal language model in safetensors{problem}") from error
    return model


def _from_config(config: dict[str, Any]) -> nn.Module:
    from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForCausalLM  # optional dependency

    kind = config.pop("model_type", None)
    if not isinstance(kind, str):
        raise refuse_type("config.model_type", kind, "a model type of transformers, such as gpt2")
    if kind not in CONFIG_MAPPING:
        hint = did_you_mean(kind, CONFIG_MAPPING)
        raise refuse("config.model_type", kind, f"a model type of transformers, such as gpt2{hint}")
    known = AutoConfig.for_model(kind).to_dict()
    for name in config:
        if name not in known:
            raise SettingError(f"config.{name}", f": {kind} has no such setting.{did_you_mean(name, known)}")
    try:
        model: nn.Module = AutoModelForCausalLM.from_config(
            AutoConfig.for_model(kind, **config), trust_remote_code=False
        )
    except Exception as error:  # transformers raises errors of many types
        problem = f"error from transformers: {on_one_line(str(error), 200)}"
        raise refuse(
            "config", {"model_type": kind, **config}, f"settings of a causal language model; {problem}"
        ) from error
    return model
