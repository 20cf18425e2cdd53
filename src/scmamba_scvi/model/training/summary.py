"""What a training found: `training_summary_`, and the line that is logged about it."""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple


class Score(NamedTuple):
    """A score that training can watch: its name in print, how to read it, and whether ``"min"`` or ``"max"`` is best."""

    label: str
    meaning: str
    mode: str = "min"


#: By the name that it is logged under.
SCORES: Final[dict[str, Score]] = {
    "foscttm_validation": Score("FOSCTTM", "0 is perfect, 0.5 chance"),
    "recall_at_10_validation": Score("recall@10", "1 is perfect", "max"),
    "modality_gap_validation": Score("modality gap", "0 is best"),
    "validation_loss": Score("loss", "lower is better"),
}


def describe_batches(removed: Mapping[str, float]) -> str:
    """What the correction of batches took out of the joint embedding, a fraction of the variance per kind of modality."""
    parts = ", ".join(f"{fraction:.1%} in {kind}" for kind, fraction in removed.items())
    return f"Batch offsets removed from the joint embedding. Fraction of the variance: {parts}."


def describe_result(summary: Mapping[str, Any]) -> str:
    """The line that is logged after training; its epochs are counted from 1, as those of progress bars and figures."""
    label, meaning, _ = SCORES[summary["monitor"]]
    best, epoch, start = summary["best"], summary["best_epoch"], summary["start"].get(summary["monitor"])
    if best is None:
        return f"Validation {label} was never finite: the last weights are kept."
    if epoch is None:
        return f"No epoch improved on the initial weights, which are kept. Validation {label} {best:.3f} ({meaning})."
    change = f"{best:.3f}" if start is None else f"{start:.3f} -> {best:.3f}"
    return f"Best epoch: {epoch + 1}. Validation {label} {change} ({meaning})."
