"""Random choices among cells, for what takes too long on all of them."""

from collections.abc import Callable, Mapping

import numpy as np

from .matrices import ModalityMatrix

#: Neighbouring cells that are read together. One buffer holds chunks from all over the file, so that a file sorted by
#: sample or type still gives mixed minibatches.
CELLS_PER_CHUNK = 64


def sample(cells: np.ndarray, at_most: int, seed: int) -> np.ndarray:
    """All ``cells``, or a random choice of ``at_most`` of them in rising order."""
    if len(cells) <= at_most:
        return cells
    return np.sort(np.random.default_rng(seed).choice(cells, at_most, replace=False))


def sample_with_rare(
    cells: np.ndarray, has: np.ndarray, at_most: int, draw: Callable[[np.ndarray, int], np.ndarray]
) -> np.ndarray:
    """All ``cells``, or ``at_most`` of them, with what is rare among them.

    A tenth have each modality, and half have several, if there are that many. A plain sample of many cells would hold hardly
    any of a rare modality, whose components would be chance, or of cells with several, which alone tell what modalities
    share. ``has`` ``(n, modalities)`` says which modalities each cell has; ``draw`` samples some cells, of a given number.
    """
    if len(cells) <= at_most:
        return draw(cells, at_most)
    chosen = np.zeros(len(cells), dtype=bool)
    for of_modality in has.T:
        enough = min(int(of_modality.sum()), at_most // 10)
        if of_modality.mean() * at_most < enough:
            chosen |= np.isin(cells, draw(cells[of_modality], enough))
    others, paired, n_pairs = ~chosen, has.sum(axis=1) > 1, at_most // 2
    if paired.mean() * at_most < n_pairs:
        missing = max(0, n_pairs - int((paired & chosen).sum()))
        chosen |= np.isin(cells, draw(cells[paired & others], missing))
        others = ~paired & ~chosen
    return np.sort(np.concatenate([cells[chosen], draw(cells[others], at_most - int(chosen.sum()))]))


def modalities_of(matrices: Mapping[str, ModalityMatrix], cells: np.ndarray) -> np.ndarray:
    """Which of the modalities each of the ``cells`` has, ``(n, modalities)``."""
    return np.stack([matrix.present(cells) for matrix in matrices.values()], axis=1)


def is_paired(matrices: Mapping[str, ModalityMatrix], cells: np.ndarray) -> np.ndarray:
    """Which ``cells`` have at least two of the modalities, ``(n,)``."""
    return modalities_of(matrices, cells).sum(axis=1) > 1


def sample_chunks(cells: np.ndarray, at_most: int, seed: int) -> np.ndarray:
    """All ``cells`` in rising order; if they are more than ``at_most``, those of randomly chosen chunks of the file."""
    cells = np.sort(cells)
    if len(cells) <= at_most:
        return cells
    parts = chunks(cells)
    order = np.random.default_rng(seed).permutation(len(parts))
    return np.sort(np.concatenate([parts[i] for i in order])[:at_most])


def chunks(cells: np.ndarray) -> list[np.ndarray]:
    """Cells in runs of neighbours, which are read from a file together."""
    return np.split(cells, np.arange(CELLS_PER_CHUNK, len(cells), CELLS_PER_CHUNK))
