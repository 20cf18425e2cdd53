"""What a training found: `training_summary_`, and the line that is printed about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Sized
from typing import Any, Final

from .callbacks import KeepBest

#: What the scores that training can watch are called in print, and how to read them.
SCORES: Final[dict[str, tuple[str, str]]] = {
    "foscttm_validation": (
        "held-out FOSCTTM", "share of cells that lie closer than the partner; 0 is perfect, 0.5 is chance",
    ),
    "recall_at_10_validation": (
        "held-out recall@10", "share of cells whose partner is among the 10 nearest; 1 is perfect",
    ),
    "modality_gap_validation": ("held-out modality gap", "distance between the means of the modalities; 0 is best"),
    "validation_loss": ("held-out loss", "lower is better"),
}  # fmt: skip


#: What the phases of a training that has two are called in print.
PHASES: Final = {"linear": "the linear part", "whole": "the whole network"}


def best_of(kept: Sequence[KeepBest], history: Mapping[str, Sized]) -> dict[str, Any]:
    """Score and epoch of the weights that are kept, and the scores before the first step.

    Parameters
    ----------
    kept
        What each phase of this training found.
    history
        Of the model; it begins with the epochs of earlier calls of `train`.

    Returns
    -------
    ``best_epoch`` is the row of ``history``, counted from 0 over all calls and phases; `None`: before the first step.
    """
    summary: dict[str, Any] = {"best_epoch": None, "best": None, "start": kept[0].start if kept else {}}
    before = max(0, len(history.get("train_loss", ())) - sum(phase.n_epochs for phase in kept))
    for phase in kept:
        summary["best"] = phase.best if phase.best is not None else summary["best"]
        if phase.best_epoch is not None:
            summary["best_epoch"] = before + phase.best_epoch
        before += phase.n_epochs
    return summary


def describe_result(summary: Mapping[str, Any], kept: Mapping[str, KeepBest]) -> str:
    """The line that is printed after training; its epochs are counted from 1, as those of progress bars and figures.

    Parameters
    ----------
    summary
        What `best_of` returned, and the name of the score under ``monitor``.
    kept
        What each phase found, by the name of the phase.
    """
    score, meaning = SCORES[summary["monitor"]]
    if summary["best"] is None:
        return f"Kept the last weights: the {score} was never finite."
    start = summary["start"].get(summary["monitor"])
    before = "" if start is None or summary["best_epoch"] is None else f", {start:.4f} before training"
    return f"Kept the weights {_when(summary['best_epoch'], kept)}: {score} {summary['best']:.4f}{before} ({meaning})."


def _when(best_epoch: int | None, kept: Mapping[str, KeepBest]) -> str:
    if best_epoch is None:
        return "from before the first step"
    # a later phase starts from the best weights of the one before, and has a best epoch only if it improved on them
    name, epoch = [(name, phase.best_epoch) for name, phase in kept.items() if phase.best_epoch is not None][-1]
    if len(kept) == 1 and epoch == best_epoch:
        return f"of epoch {best_epoch + 1}"
    # every phase has a progress bar of its own, which counts from 1 again
    part = PHASES[name] if len(kept) > 1 else "this training"
    return f"of epoch {best_epoch + 1} (epoch {epoch + 1} of {part})"
