"""Carries a minibatch to the encoders and the loss; does no maths of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
import torch.nn.functional as F
from scvi.module.base import BaseModuleClass, LossOutput, auto_move_data
from torch import Tensor, nn

from .._keys import present_key, x_key
from ..config import ModelConfig
from ..nn.distributed import gather_rows
from ..nn.encoder import Encoder
from ..nn.gradient_caching import apply_in_parts
from ..nn.joint import JointEmbedding
from ..nn.losses import Temperature, multimodal_loss
from ..ops.csr import select_rows
from ..pp import FeatureLayout, value_transform


class SCMAMBAModule(BaseModuleClass):
    """A value transform and an encoder per modality, and the temperature they share.

    Parameters
    ----------
    config
        Shape of the network, and the weights of the losses.
    layouts
        Order and patches of the features, per kind of modality.
    n_batches
        Number of batches in the training data.

    Examples
    --------
    >>> list(model.module.encoders), model.module.config.n_latent
    (['rna', 'atac'], 64)
    """

    def __init__(self, config: ModelConfig, layouts: Mapping[str, FeatureLayout], n_batches: int = 1) -> None:
        super().__init__()
        self.config = config
        self.kinds = list(layouts)
        self.values = nn.ModuleDict(
            {
                kind: value_transform(config.of_kind("values", kind), layout.n_features, n_bins=config.n_bins)
                for kind, layout in layouts.items()
            }
        )
        self.encoders = nn.ModuleDict(
            {
                kind: Encoder(
                    config, kind, torch.as_tensor(layout.slots, device="cpu"), layout.n_patches, layout.patch_size
                )
                for kind, layout in layouts.items()
            }
        )
        self.temperature = Temperature(config.temperature, learn=config.learn_temperature)
        self.joint = None
        if config.joint == "shared+own":
            n_features = {kind: layout.n_features for kind, layout in layouts.items()}
            self.joint = JointEmbedding(n_features, config.n_latent, n_batches)

    def transform(self, counts: Tensor, kind: str) -> Tensor:
        """Values ``(n, f)`` of counts on the CPU, where they stay; the module itself may be on a GPU."""
        return self.values[kind](counts.to(self.device)).cpu()

    def encode(self, counts: Tensor, kind: str, present: Tensor) -> Tensor:
        """Counts ``(n, f)`` to unit vectors ``(n, z)``; rows of cells that lack the modality are zero."""
        return self._across_cells(self._per_cell(counts, kind, present), kind, present)

    def _per_cell(self, counts: Tensor, kind: str, present: Tensor) -> Tensor:
        """What `Encoder.per_cell` makes of the cells, ``(n, hidden_width)``; rows of cells without the modality are zero."""
        encoder = self.encoders[kind]
        if bool(present.any()):
            return _at_their_rows(encoder.per_cell(self.values[kind](select_rows(counts, present))), present)
        nothing = counts.new_zeros(len(present), encoder.hidden_width, layout=torch.strided)
        return nothing + self._zero_of_weights(kind) if self.training else nothing

    def _across_cells(self, hidden: Tensor, kind: str, present: Tensor) -> Tensor:
        """Unit vectors ``(n, z)``; cells without the modality are left out, as they would shift batch statistics."""
        if int(present.sum()) < 2 and self.training:  # batch statistics of one cell do not exist
            zero = hidden.sum() * 0.0 + self._zero_of_weights(kind)
            return hidden.new_zeros(len(present), self.config.n_latent) + zero
        return _at_their_rows(self.encoders[kind].across_cells(hidden[present]), present)

    def _zero_of_weights(self, kind: str) -> Tensor:
        """Zero with a gradient for every weight of an encoder, since other processes wait for one of each from this one."""
        sums = (p.sum() for p in self.encoders[kind].parameters() if p.requires_grad)
        return sum(sums, torch.zeros((), device=self.device)) * 0.0

    @property
    def has_closed_gates(self) -> bool:
        """Whether encoders have a network beside the linear part, and all gates that let it into embeddings are zero."""
        gates = [encoder.gate for encoder in self.encoders.values() if encoder.gate is not None]
        return bool(gates) and self.config.skip and all(bool((gate == 0).all()) for gate in gates)

    @contextlib.contextmanager
    def only_linear(self, on: bool) -> Iterator[None]:
        """Within the block, embeddings are those of the linear parts, without the networks; nothing changes if not ``on``."""
        encoders = list(self.encoders.values())
        # training on several devices waits for a gradient of every parameter that requires one
        paused = [p for encoder in encoders for p in encoder.network_parameters() if p.requires_grad] if on else []
        for parameter in paused:
            parameter.requires_grad_(False)
        for encoder in encoders:
            encoder.only_linear = on
        try:
            yield
        finally:
            for encoder in encoders:
                encoder.only_linear = False
            for parameter in paused:
                parameter.requires_grad_(True)

    @contextlib.contextmanager
    def frozen_reference(self, on: bool) -> Iterator[None]:
        """Within the block, only what the model of a query may adapt has gradients; nothing changes if not ``on``."""
        encoders = list(self.encoders.values()) if on else []
        adapted = {id(p) for encoder in encoders for p in encoder.adaptable_parameters()}
        frozen = [p for p in self.parameters() if p.requires_grad and id(p) not in adapted] if on else []
        for parameter in frozen:
            parameter.requires_grad_(False)
        for encoder in encoders:
            encoder.keep_statistics = True
        try:
            yield
        finally:
            for parameter in frozen:
                parameter.requires_grad_(True)
            for encoder in encoders:
                encoder.keep_statistics = False

    def joint_features(self, counts: Tensor, kind: str, present: Tensor) -> Tensor:
        """Counts ``(n, f)`` to what the joint embedding reads, ``(n, 2 z)``; zero for cells that lack the modality."""
        values = self.values[kind](select_rows(counts, present))
        return _at_their_rows(self.joint.features(values, self.encoders[kind](values), kind), present)

    def embed_jointly(
        self, counts: Mapping[str, Tensor], present: Mapping[str, Tensor], batch: Tensor | None = None
    ) -> Tensor:
        """Unit vectors ``(n, z)`` of cells from counts ``(n, f)`` of any modalities, zero for cells that have none.

        ``batch`` ``(n,)`` is the number of each cell's batch. Cells of batches that training did not see are not corrected
        for their batch; with `None`, no cell is.
        """
        if self.joint is None:
            return F.normalize(sum(self.encode(x, kind, present[kind]) for kind, x in counts.items()), dim=-1)
        unknown = self.joint.n_batches
        if batch is None:
            batch = torch.full((len(next(iter(present.values()))),), unknown, device=self.device)
        features = {kind: self.joint_features(x, kind, present[kind]) for kind, x in counts.items()}
        return self.joint(features, present, batch.clamp(max=unknown))

    @auto_move_data
    def forward(
        self,
        tensors: Mapping[str, Tensor],
        loss_kwargs: dict | None = None,
        compute_loss: bool = True,
        micro_batch_size: int | None = None,
        gather: bool = False,
    ):
        """Embeddings and, if asked for, the loss of a minibatch.

        Parameters
        ----------
        tensors
            Counts and presence per modality, as `MultiModalDataset` gives them.
        loss_kwargs
            For `loss`, which reads none: scvi-tools' own training plan passes some.
        compute_loss
            Return the loss as a third value.
        micro_batch_size
            Cells whose activations are in memory together, see `apply_in_parts`; `None`: all of the minibatch.
        gather
            Treat the minibatches of all ranks as one: batch statistics, embeddings and loss are those of one device that
            has all their cells.
        """
        present = {kind: tensors[present_key(kind)] for kind in self.kinds if x_key(kind) in tensors}
        hidden = apply_in_parts(self._all_per_cell, tensors, micro_batch_size)
        if gather:
            hidden, present = _of_all_ranks(hidden, present)
        z = {kind: self._across_cells(hidden[kind], kind, here) for kind, here in present.items()}
        outputs = {"z": z, "present": present}
        return (outputs, {}, self.loss(tensors, outputs, **(loss_kwargs or {}))) if compute_loss else (outputs, {})

    def _all_per_cell(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {
            kind: self._per_cell(tensors[x_key(kind)], kind, tensors[present_key(kind)])
            for kind in self.kinds
            if x_key(kind) in tensors
        }

    def loss(self, tensors: Mapping[str, Tensor], inference_outputs: Mapping[str, dict], **_: object) -> LossOutput:
        """Contrastive and cosine loss over the pairs that are present (equation 9 of the paper)."""
        z, present = inference_outputs["z"], inference_outputs["present"]
        parts = multimodal_loss(
            z, present, self.temperature(),
            contrastive_weight=self.config.contrastive_weight, cosine_weight=self.config.cosine_weight,
        )  # fmt: skip
        loss = parts.pop("loss")
        return LossOutput(loss=loss, n_obs_minibatch=len(next(iter(present.values()))), extra_metrics=parts)


def _at_their_rows(x: Tensor, present: Tensor) -> Tensor:
    """Rows of the present cells in their places in the minibatch, rows of zeros for the other cells."""
    return F.pad(x, (0, 0, 0, 1))[torch.where(present, present.cumsum(0) - 1, present.sum())]


def _of_all_ranks(
    hidden: Mapping[str, Tensor], present: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What the encoders computed, and who has it, of the cells of all ranks; one exchange for all modalities."""
    masks = torch.stack(list(present.values()), 1)  # (n, kinds)
    rows = gather_rows(torch.cat([*hidden.values(), masks.float()], 1))
    *parts, masks = rows.split([*(h.shape[1] for h in hidden.values()), len(present)], 1)
    return dict(zip(hidden, parts, strict=True)), dict(zip(present, masks.bool().unbind(1), strict=True))
