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


def sample_with_pairs(
    cells: np.ndarray, paired: np.ndarray, at_most: int, draw: Callable[[np.ndarray, int], np.ndarray]
) -> np.ndarray:
    """All ``cells``, or ``at_most`` of them, half of which have several modalities if there are that many.

    Where such cells are rare, a plain sample would hold hardly any, and only they tell what modalities share. ``draw``
    samples some cells, of a given number.
    """
    n_pairs = at_most // 2
    if len(cells) <= at_most or paired.mean() * at_most >= n_pairs:  # a plain sample has enough
        return draw(cells, at_most)
    pairs = draw(cells[paired], n_pairs)
    return np.sort(np.concatenate([pairs, draw(cells[~paired], at_most - len(pairs))]))


def is_paired(matrices: Mapping[str, ModalityMatrix], cells: np.ndarray) -> np.ndarray:
    """Which ``cells`` have at least two of the modalities, ``(n,)``."""
    return np.sum([matrix.present(cells) for matrix in matrices.values()], axis=0) > 1


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
