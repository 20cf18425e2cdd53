"""Carries a minibatch to the encoders and the loss; does no maths of its own."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import cast

import torch
import torch.nn.functional as F
from scvi.module.base import BaseModuleClass, LossOutput
from torch import Tensor, nn

from .._keys import present_key, x_key
from ..config import ModelConfig
from ..nn.alignment import Alignment
from ..nn.distributed import gather_rows
from ..nn.encoder import Encoder
from ..nn.gradient_caching import apply_in_parts
from ..nn.joint import JointEmbedding
from ..nn.losses import Temperature, multimodal_loss
from ..nn.sequence import SequenceNetwork
from ..ops.csr import scatter_rows, select_rows
from ..pp import FeatureLayout, ValueTransform, value_transform


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
        n_features = {kind: layout.n_features for kind, layout in layouts.items()}
        transforms = {
            kind: value_transform(config.of_kind("values", kind), f, n_bins=config.n_bins)
            for kind, f in n_features.items()
        }
        encoders = {
            kind: Encoder(
                config, kind, torch.as_tensor(layout.slots, device="cpu"), layout.n_patches, layout.patch_size
            )
            for kind, layout in layouts.items()
        }
        # `ModuleDict` is a mapping that does not know the type of its values
        self.values = cast("Mapping[str, ValueTransform]", nn.ModuleDict(transforms))
        self.encoders = cast("Mapping[str, Encoder]", nn.ModuleDict(encoders))
        self.temperature = Temperature(config.temperature, learn=config.learn_temperature)
        self.alignment = Alignment(self.kinds, config.n_latent) if config.align else None
        self.joint = JointEmbedding(n_features, config.n_latent, n_batches) if config.joint == "shared+own" else None

    def transform(self, counts: Tensor, kind: str) -> Tensor:
        """Values that the encoders read.

        Parameters
        ----------
        counts
            Counts ``(n, f)``, dense or CSR.
        kind
            Kind of modality.

        Returns
        -------
        Values ``(n, f)``, on the device of the module.
        """
        return self.values[kind](counts.to(self.device))

    def encode(self, counts: Tensor, kind: str, present: Tensor | None = None) -> Tensor:
        """Embedding of one modality as the loss reads it.

        Parameters
        ----------
        counts
            Counts ``(n, f)``, dense or CSR.
        kind
            Kind of modality.
        present
            Mask ``(n,)`` of the cells that have the modality; `None`: all.

        Returns
        -------
        Unit vectors ``(n, z)``; rows of cells that lack the modality are zero.
        """
        return self._across_cells(self._per_cell(counts, kind, present), kind, present)

    def embed_modality(self, counts: Tensor, kind: str, present: Tensor | None = None) -> Tensor:
        """Embedding of one modality as users get it: `encode`, then the alignment of the modalities.

        Parameters
        ----------
        counts, kind, present
            As in `encode`.

        Returns
        -------
        Unit vectors ``(n, z)``; rows of cells that lack the modality are zero.
        """
        return self.align(self.encode(counts, kind, present), kind)

    def align(self, z: Tensor, kind: str) -> Tensor:
        """Embeddings of one modality brought to the others, in float32 also under autocast, so that all have the same.

        Parameters
        ----------
        z
            Unit vectors ``(n, z)`` of `encode`.
        kind
            Kind of modality.

        Returns
        -------
        Unit vectors ``(n, z)``, as they were if the model has no alignment.
        """
        with torch.autocast(z.device.type, enabled=False):
            return z if self.alignment is None else self.alignment(z.float(), kind)

    def _per_cell(self, counts: Tensor, kind: str, present: Tensor | None) -> Tensor:
        """What `Encoder.hidden` makes of the cells, ``(n, hidden_width)``; rows of cells without the modality are zero."""
        encoder, n_cells = self.encoders[kind], counts.shape[0]
        if n_cells and (present is None or bool(present.any())):
            return scatter_rows(encoder.hidden(self.values[kind](select_rows(counts, present))), present)
        nothing = counts.new_zeros(n_cells, encoder.hidden_width, layout=torch.strided)
        return nothing + self._zero_of_weights(kind) if self.training else nothing

    def _across_cells(self, hidden: Tensor, kind: str, present: Tensor | None) -> Tensor:
        """Unit vectors ``(n, z)``; cells without the modality are left out, as they would shift batch statistics."""
        n_cells = len(hidden) if present is None else int(present.sum())
        if n_cells < 2 and self.training:  # batch statistics of one cell do not exist
            zero = hidden.sum() * 0.0 + self._zero_of_weights(kind)
            return hidden.new_zeros(len(hidden), self.config.n_latent) + zero
        return scatter_rows(self.encoders[kind].embed(select_rows(hidden, present)), present)

    def _zero_of_weights(self, kind: str) -> Tensor:
        """Zero with a gradient for every weight of an encoder, since other processes wait for one of each from this one."""
        sums = (p.sum() for p in self.encoders[kind].parameters() if p.requires_grad)
        return sum(sums, torch.zeros((), device=self.device)) * 0.0

    @property
    def sequences(self) -> list[SequenceNetwork]:
        """The sequence models that are computed."""
        computed = [encoder.network for encoder in self.encoders.values() if encoder.runs_network]
        return [network for network in computed if isinstance(network, SequenceNetwork)]

    @property
    def has_closed_gates(self) -> bool:
        """Whether encoders have a network beside the linear branch, and all gates that let it into embeddings are zero."""
        gates = [encoder.gate for encoder in self.encoders.values() if encoder.gate is not None]
        return bool(gates) and self.config.linear_branch and not any(bool((gate != 0).any()) for gate in gates)

    @contextlib.contextmanager
    def freezing(self, *, networks: bool = False, reference: bool = False) -> Iterator[None]:
        """Within the block, some parameters have no gradient.

        What depends on the stage of training follows from that alone: an encoder does not compute a frozen network whose gate
        is closed, and a frozen head normalizes by its running statistics.

        Parameters
        ----------
        networks
            Freeze the networks and their gates, so that the linear branch is trained alone.
        reference
            Freeze all but what the model of a query may adapt.

        Returns
        -------
        A context manager. Parameters that were frozen before stay so.
        """
        encoders = self.encoders.values()
        frozen: list[nn.Parameter] = []
        if networks:
            frozen += [p for encoder in encoders for p in encoder.network_parameters()]
        if reference:
            adapted = {id(p) for encoder in encoders for p in encoder.adaptable_parameters()}
            frozen += [p for p in self.parameters() if id(p) not in adapted]
        frozen = [p for p in frozen if p.requires_grad]
        try:
            for parameter in frozen:
                parameter.requires_grad_(False)
            yield
        finally:
            for parameter in frozen:
                parameter.requires_grad_(True)

    def joint_features(self, counts: Tensor, kind: str, present: Tensor | None = None) -> Tensor:
        """What the joint embedding reads of one modality.

        Parameters
        ----------
        counts, kind, present
            As in `encode`.

        Returns
        -------
        ``(n, 2 z)``; rows of cells that lack the modality are zero.
        """
        assert self.joint is not None, "without a joint embedding nothing reads them"
        values = self.values[kind](select_rows(counts, present))
        return scatter_rows(self.joint.features(values, self.encoders[kind](values), kind), present)

    def embed_jointly(
        self, counts: Mapping[str, Tensor], present: Mapping[str, Tensor | None], batch: Tensor | None = None
    ) -> Tensor:
        """Joint embedding of cells from any of the modalities.

        Parameters
        ----------
        counts
            Counts ``(n, f)`` per kind of modality.
        present
            Mask ``(n,)`` per kind; `None`: every cell has it.
        batch
            ``(n,)`` number of each cell's batch. Cells of batches that training did not see are not corrected for their
            batch; with `None`, no cell is.

        Returns
        -------
        Unit vectors ``(n, z)``; rows of cells that have no modality are zero.
        """
        if self.joint is None:
            z = [self.embed_modality(x, kind, present[kind]) for kind, x in counts.items()]
            return F.normalize(torch.stack(z).sum(0), dim=-1)
        unknown = self.joint.n_batches
        if batch is None:
            batch = torch.full((len(next(iter(counts.values()))),), unknown, device=self.device)
        features = {kind: self.joint_features(x, kind, present[kind]) for kind, x in counts.items()}
        return self.joint(features, present, batch.clamp(max=unknown))

    # what scvi-tools' `forward` calls, in this order, before `loss`
    def _get_inference_input(self, tensors: Mapping[str, Tensor], **_: object) -> dict:
        return {"tensors": tensors}

    def inference(
        self, tensors: Mapping[str, Tensor], micro_batch_size: int | None = None, gather: bool = False
    ) -> dict[str, dict]:
        """Embeddings of a minibatch of `MultiModalDataset`.

        Parameters
        ----------
        tensors
            Counts ``(n, f)`` of each modality, and masks ``(n,)`` of the cells that have it.
        micro_batch_size
            So many cells at most have their activations in memory together, see `apply_in_parts`; `None`: all.
        gather
            Take the minibatches of all devices as one: batch statistics, embeddings and loss are those of one device that
            has all their cells.

        Returns
        -------
        A dict with ``"z"``, unit vectors ``(n, z)`` per kind before alignment, and ``"present"``, the masks.
        """
        present = {kind: tensors.get(present_key(kind)) for kind in self.kinds if x_key(kind) in tensors}
        hidden = apply_in_parts(self._all_per_cell, tensors, micro_batch_size)
        if gather:
            hidden, present = _gather_distributed(hidden, present)
        z = {kind: self._across_cells(hidden[kind], kind, here) for kind, here in present.items()}
        return {"z": z, "present": present}

    def _get_generative_input(self, *_: object, **__: object) -> dict:
        return {}

    def generative(self) -> dict:
        """Nothing: no data are generated from embeddings.

        Returns
        -------
        An empty dict, which scvi-tools' ``forward`` returns after the embeddings.
        """
        return {}

    def _all_per_cell(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {
            kind: self._per_cell(tensors[x_key(kind)], kind, tensors.get(present_key(kind)))
            for kind in self.kinds
            if x_key(kind) in tensors
        }

    def loss(
        self, tensors: Mapping[str, Tensor], inference_outputs: Mapping[str, dict], generative_outputs: Mapping
    ) -> LossOutput:
        """Contrastive and cosine loss over the pairs that are present (equation 9 of the paper).

        Parameters
        ----------
        inference_outputs
            What `inference` returns.
        tensors, generative_outputs
            Not read: the loss is one of embeddings.

        Returns
        -------
        scvi-tools' ``LossOutput``, with the parts of the loss as ``extra_metrics``.
        """
        z, present = inference_outputs["z"], inference_outputs["present"]
        parts = multimodal_loss(
            z, present, self.temperature(),
            contrastive_weight=self.config.contrastive_weight, cosine_weight=self.config.cosine_weight,
            own_negatives=self.config.negatives == "both",
        )  # fmt: skip
        loss = parts.pop("loss")
        return LossOutput(loss=loss, n_obs_minibatch=len(next(iter(z.values()))), extra_metrics=parts)


def _gather_distributed(
    hidden: Mapping[str, Tensor], present: Mapping[str, Tensor | None]
) -> tuple[dict[str, Tensor], dict[str, Tensor | None]]:
    """What the encoders computed, and who has it, of the cells of all ranks; one exchange for all modalities."""
    masks = [hidden[k].new_ones(len(hidden[k])) if mask is None else mask.float() for k, mask in present.items()]
    rows = gather_rows(torch.cat([*hidden.values(), torch.stack(masks, 1)], 1))
    *parts, has = rows.split([*(h.shape[1] for h in hidden.values()), len(present)], 1)
    return dict(zip(hidden, parts, strict=True)), dict(zip(present, has.bool().unbind(1), strict=True))
