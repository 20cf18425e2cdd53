"""How probable a match is: a temperature of the cosines, fitted to held-out pairs."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import numpy as np
import torch
from scipy.optimize import minimize_scalar

from ..._compat import warn
from ..._keys import KINDS
from ...metrics.distances import as_matrix
from .._base import ModelBase
from .._module import SCMAMBAModule
from ..inputs.sampling import sample
from .held_out import MIN_PAIRS, HeldOut

#: Held-out pairs that the temperature is fitted to: one number needs no more, and all their cosines are in memory at once.
MAX_PAIRS = 2_000


@torch.inference_mode()
def calibrate(module: SCMAMBAModule, held_out: HeldOut, seed: int) -> dict[str, float]:
    """Temperature of each pair of kinds that at least `MIN_PAIRS` of the cells have, which were not trained on."""
    temperatures = {}
    for a, b in itertools.combinations(held_out.z, 2):
        both = (held_out.present[a] & held_out.present[b]).numpy()
        pairs = sample(np.flatnonzero(both), MAX_PAIRS, seed)
        if len(pairs) >= MIN_PAIRS:
            aligned = (module.align(held_out.z[kind][pairs].to(module.device), kind) for kind in (a, b))
            temperatures[pair_key(a, b)] = fit_temperature(*(z.cpu().numpy() for z in aligned))
    return temperatures


def match_temperature(model: ModelBase, a: str, b: str) -> float:
    """Temperature of two kinds, fitted to held-out pairs; else it is that of the loss."""
    fitted = model.match_temperatures_.get(pair_key(a, b))
    return model.module.temperature().item() if fitted is None else fitted


def warn_of_uncalibrated(model: ModelBase, pairs: Iterable[tuple[str, str]], what: str) -> None:
    """Name the ``pairs`` of kinds without a fitted temperature, of which ``what`` is therefore not calibrated."""
    unknown = [f"{a} and {b}" for a, b in pairs if pair_key(a, b) not in model.match_temperatures_]
    if unknown:
        warn(
            f"The {what} is not calibrated, because this model held out fewer than {MIN_PAIRS} cells with "
            f"{', or with '.join(unknown)}: train with a smaller train_size, or with more cells."
        )


def pair_key(a: str, b: str) -> str:
    """Name of two kinds in `ModelBase.match_temperatures_`, such as ``"rna-atac"``."""
    return "-".join(sorted((a, b), key=KINDS.index))


def fit_temperature(x: np.ndarray, y: np.ndarray) -> float:
    """The ``t`` with which ``exp(cosine / t)`` best predicts which ``y`` is the true match of each ``x``, and the reverse.

    Maximum likelihood over pairs ``(n, z)`` that were not trained on. Where a candidate's chance to be the true match is
    proportional to ``exp(cosine / t)``, its fraction of the sum over candidates is its probability, however many there are.
    """
    cosine = as_matrix(x, "x") @ as_matrix(y, "y").T  # (n, n)

    def loss(log_t: float) -> float:
        logits = cosine / np.exp(log_t)
        return float((logits.logsumexp(0) + logits.logsumexp(1) - 2 * logits.diagonal()).mean())

    return float(np.exp(minimize_scalar(loss, bounds=(np.log(0.005), np.log(5.0)), method="bounded").x))
