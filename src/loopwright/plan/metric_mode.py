"""`settle_mode`, which decides whether the smallest or the largest value of a metric is the best."""

from __future__ import annotations

from loopwright.errors import SettingError, nearest, refuse

# If the name of a metric after the last slash is in this tuple, or ends in an entry of _ENDINGS, smaller is better.
_SMALLER_IS_BETTER = ("loss", "perplexity", "bits_per_byte", "mean_absolute_error", "mean_squared_error")
_ENDINGS = ("_loss", "_error")


def settle_mode(mode: object, metric: str | None, setting: str = "mode") -> str:
    """Return ``mode``. If ``mode`` is None, return "min" for a metric of which smaller values are known to be better.

    Args:
        mode: "min", "max" or None.
        metric: name of the metric, such as ``val/loss``. None: a loss.
        setting: name of the setting that contains ``mode``, for the message.

    Raises:
        SettingError: if ``mode`` has another value, or if ``mode`` is None and smaller values of the metric are not
            known to be better.
    """
    if mode in ("min", "max"):
        return str(mode)
    if mode is not None:
        near = nearest(str(mode), ("min", "max"))
        raise refuse(setting, mode, "min or max", f"Did you mean {near}?" if near else "")
    last = "loss" if metric is None else metric.rsplit("/", 1)[-1]
    if last in _SMALLER_IS_BETTER or last.endswith(_ENDINGS):
        return "min"
    prefix, slash, _ = (metric or "").rpartition("/")
    near = nearest(last, [*_SMALLER_IS_BETTER, "accuracy"])
    hint = f" Did you mean {prefix}{slash}{near}?" if near not in (None, last) else ""
    raise SettingError(
        setting,
        f": expected max or min, as {metric} may be better if it is larger or if it is smaller; use {setting}=max or "
        f"{setting}=min.{hint}",
    )
