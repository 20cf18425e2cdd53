"""What is fitted to the training cells before the first step of training and after the last."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
import torch
from scvi import settings

from ..._arguments import listed
from ..._compat import warn
from ..._keys import x_key
from ...config import TrainConfig
from .._base import ModelBase
from ..inputs.kinds import kinds_in
from ..inputs.manager import MultiModalDataset
from ..inputs.matrices import ModalityMatrix
from ..inputs.sampling import modalities_of, sample, sample_chunks, sample_with_rare
from .alignment import fit_alignment
from .calibration import calibrate
from .held_out import embed_all
from .initialization import MAX_CELLS, decompose, fit_values, initialize_linear_branch
from .joint_embedding import MIN_CELLS_OF_BATCH, fit_joint, fit_new_batches, initialize_joint, small_batches


class FittingMixin(ModelBase):
    """Value transforms, spectral initialization and joint embedding of a model whose module is an `SCMAMBAModule`."""

    def _initialize(self, cells: np.ndarray, held_out: np.ndarray, buffer_mb: float = TrainConfig.buffer_mb) -> None:
        """Fit to the training ``cells`` what must be known before the first step; once in the life of a model."""
        if self.is_initialized_:
            return
        seed, known_counts = settings.seed or 0, self.adata_manager.requires_counts
        # in rising order, so that a file is read once from front to back
        in_order = np.sort(cells) if self._dataset().on_disk else cells
        fit_values(self.module, self._matrices(), in_order, known_counts)
        is_spectral = self.config.spectral and self.config.linear_branch
        if is_spectral or self.module.joint is not None:
            chosen, matrices, rows = self._sample(cells, buffer_mb)
            svds = decompose(self.module, matrices, rows, seed)
            if is_spectral:
                initialize_linear_branch(self.module, matrices, rows, svds, seed)
            if self.module.joint is not None:
                initialize_joint(self.module, self._matrices(), chosen, held_out, svds, seed, known_counts)
        self.is_initialized_ = True

    def _fit_joint_embedding(self, cells: np.ndarray, buffer_mb: float = TrainConfig.buffer_mb) -> None:
        """Fit the joint embedding to the encoders as they are; in the model of a query, only the offsets of new batches."""
        if self.module.joint is None:
            return
        before = {kind: self._knows_offset(kind) for kind in self.modalities_}
        if self.is_query_:
            self._forget_offsets(slice(self.reference_batches_, self.n_batches_))
        else:
            self._fit_joint_to(cells, buffer_mb)
        self._place_new_batches()
        self._warn_of_lost(before)

    def _fit_joint_to(self, cells: np.ndarray, buffer_mb: float) -> None:
        """Fit the joint embedding, with the offsets of the batches of the training ``cells``."""
        chosen, matrices, rows = self._sample(cells, buffer_mb)
        batches = None
        if self._corrects_batches:
            batches = self.adata_manager.batches
            assert batches is not None, "train has checked that"
            batches = batches[chosen]
            present = {kind: matrix.present(rows) for kind, matrix in matrices.items()}
            self._warn_of_small(small_batches(batches, present))
            self._forget_offsets(slice(self.n_batches_))
            self._learned_offsets({kind: batches[has] for kind, has in present.items()})
        removed = fit_joint(self.module, matrices, rows, batches, settings.seed or 0)
        self.training_summary_["batch_variance_removed"] = removed

    def _place_new_batches(self) -> None:
        """Estimate the offsets that are not known, of batches of which the data have cells."""
        batches = self.adata_manager.batches
        if not self._corrects_batches or batches is None:
            return
        matrices = self._matrices()
        is_new = {
            kind: np.isin(batches, self.unknown_offsets_[kind]) & matrix.present(np.arange(len(batches)))
            for kind, matrix in matrices.items()
        }
        fit_new_batches(self.module, matrices, batches, is_new, settings.seed or 0)
        self._warn_of_small(small_batches(batches, is_new))
        self._learned_offsets({kind: batches[new] for kind, new in is_new.items()})

    def _forget_offsets(self, batches: slice) -> None:
        """The offsets of these batches are not known: the encoders have changed since they were estimated."""
        assert self.module.joint is not None, "only called for a model that has one"
        for kind in self.modalities_:
            self.module.joint.get_buffer(f"batch_offset_{kind}")[batches] = 0
        forgotten = range(self.n_batches_)[batches]
        self.unknown_offsets_ = {k: sorted({*unknown, *forgotten}) for k, unknown in self.unknown_offsets_.items()}

    def _learned_offsets(self, batches: Mapping[str, np.ndarray]) -> None:
        """Per kind, the batches of cells that offsets are estimated from; of too few cells they are zero, with a warning."""
        self.unknown_offsets_ = {
            k: np.setdiff1d(unknown, batches.get(k, [])).tolist() for k, unknown in self.unknown_offsets_.items()
        }

    def _warn_of_lost(self, before: Mapping[str, np.ndarray]) -> None:
        """Name the batches of an earlier training that this one had no cells of; ``before`` tells per kind which were known."""
        lost: dict[int, list[str]] = {}
        for kind, known in before.items():
            for number in np.flatnonzero(known & ~self._knows_offset(kind)).tolist():
                lost.setdefault(number, []).append(self.modalities_[kind])
        if not lost:
            return
        named = [
            f"{self.batches[number]!r}" + (f" ({', '.join(keys)})" if len(keys) < len(self.modalities_) else "")
            for number, keys in lost.items()
        ]
        warn(
            f"The joint embedding is no longer corrected for batches of which this training had no cells: "
            f"{listed(named, 3)}. Train on the cells of all batches, or map theirs afterwards: "
            f"SCMAMBA.load_query_data(mdata, model)."
        )

    def _warn_of_small(self, small: Mapping[int, Mapping[str, int]]) -> None:
        """Name the batches that are too small, in one modality or in all, to be corrected for: cells per modality."""
        if not small:
            return
        warn(
            f"Batches too small to be corrected in the joint embedding: {self._name_batches(small)}. The offset of a batch in "
            f"a modality is estimated from at least {MIN_CELLS_OF_BATCH} cells that have it, of those trained on if any "
            f"were. Check that {self.batch_key!r} is the column of the batches."
        )

    def _name_batches(self, cells_of: Mapping[int, Mapping[str, int]]) -> str:
        """The first batches with their numbers of cells, per modality where these differ."""
        named = []
        for number, sizes in cells_of.items():
            is_whole = len(sizes) == len(self.modalities_) and len(set(sizes.values())) == 1
            cells = [
                f"{size}" if is_whole else f"{size} with {self.modalities_[kind]!r}" for kind, size in sizes.items()
            ]
            named.append(f"{self._batch_categories[number]!r} ({', '.join(dict.fromkeys(cells))})")
        return listed(named, 3)

    def _uncorrected_batches(self) -> dict[int, dict[str, int]]:
        """Batches of the data for which the joint embedding has no offset in a modality: cells per modality that have it."""
        manager = self.adata_manager
        batches = manager.batches
        if not self._corrects_batches or self.module.joint is None or batches is None:
            return {}
        found: dict[int, dict[str, int]] = {}
        for kind in kinds_in(manager.adata, self.modalities_):
            offsets = self.module.joint.get_buffer(f"batch_offset_{kind}").cpu().numpy()
            present = manager.matrix(kind).present(np.arange(len(batches)))
            numbers, sizes = np.unique(batches[present], return_counts=True)
            if len(numbers) == 1 and not offsets.any() and sizes[0] >= MIN_CELLS_OF_BATCH:
                continue  # all cells are of one batch: there is nothing to correct
            for number, size in zip(numbers.tolist(), sizes.tolist(), strict=True):
                if not offsets[min(number, self.n_batches_)].any():
                    found.setdefault(number, {})[kind] = size
        return found

    @torch.inference_mode()
    def _fit_to_validation(self, cells: np.ndarray, held_out: np.ndarray) -> None:
        """Bring the modalities together, and fit the temperatures of matches, as cells show that training did not see."""
        seed, matrices = settings.seed or 0, self._matrices()
        embedded = embed_all(self.module, matrices, held_out)
        if self.module.alignment is not None and not self.is_query_:  # a query leaves that of the reference as it is
            fit_alignment(self.module, matrices, cells, embedded, seed)
        # a query keeps what its reference found, where its own cells do not tell better
        before = self.match_temperatures_ if self.is_query_ else {}
        self.match_temperatures_ = {**before, **calibrate(self.module, embedded, seed)}

    def _sample(self, cells: np.ndarray, buffer_mb: float) -> tuple[np.ndarray, dict[str, ModalityMatrix], np.ndarray]:
        """Training cells that several passes are made over, their counts in memory, and their positions in these."""
        dataset = self._dataset()
        at_most, draw = MAX_CELLS, sample
        if dataset.on_disk:
            at_most, draw = min(MAX_CELLS, dataset.cells_within(buffer_mb / 2)), sample_chunks
        has = modalities_of(dataset.matrices, cells)
        cells = sample_with_rare(cells, has, at_most, partial(draw, seed=settings.seed or 0))
        if not dataset.on_disk:
            return cells, dataset.matrices, cells
        return cells, dataset.loaded(cells).matrices, np.arange(len(cells))

    def _dataset(self) -> MultiModalDataset:
        kinds = kinds_in(self.adata, self.modalities_)  # those of a query may be fewer
        return self.adata_manager.create_torch_dataset(data_and_attributes=[x_key(kind) for kind in kinds])

    def _matrices(self) -> dict[str, ModalityMatrix]:
        return self._dataset().matrices
