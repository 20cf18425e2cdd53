"""Counts of a cell to a sequence of patches along the genome (paper, section 4.1.1)."""

import math

import torch
from torch import Tensor, nn

from ..ops.csr import bag_offsets, bag_product, grouped, is_csr, product, row_index


class FeatureEmbedding(nn.Module):
    """A vector per feature; a cell is the sum of its features' vectors, weighted by their values.

    On a sparse minibatch only the stored values are touched.

    Parameters
    ----------
    n_features
        ``f``.
    d_out
        Length ``e`` of a vector.

    Examples
    --------
    >>> nn.FeatureEmbedding(100, 16)(torch.rand(2, 100)).shape
    torch.Size([2, 16])
    """

    def __init__(self, n_features: int, d_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(n_features, d_out) / math.sqrt(n_features))  # (f, e)

    def forward(self, x: Tensor) -> Tensor:
        """Sum of the features' vectors, weighted by their values.

        Parameters
        ----------
        x
            Values ``(n, f)``, dense or CSR.

        Returns
        -------
        ``(n, e)``.
        """
        return product(x, self.weight)

    total = forward  # the name under which `PatchTokenizer` has it


class PatchTokenizer(nn.Module):
    """Features of a patch times their embeddings, projected to the width of the network, plus a position.

    Parameters
    ----------
    slots
        Place of each feature in the padded grid of ``c * w`` slots (``n_patches`` times ``patch_size``), int64 ``(f,)``: the
        layout is an index, data are never copied to be reordered.
    n_patches, patch_size
        ``c`` and ``w``.
    d_model, d_feature
        ``d``, and ``e``, which is read by ``patch_embedding="feature"`` only.
    patch_embedding
        ``"feature"``: every feature has a vector of its own. ``"shared"``: one projection ``(w, d)`` for all patches,
        equation 1 of the paper; feature 7 of every patch then has the same vector, which costs most of the signal
        ("network alone: shared projection" in docs/benchmarks-parts.md).

    Examples
    --------
    >>> slots = torch.arange(100)
    >>> tokenizer = nn.PatchTokenizer(slots, 4, 25, d_model=32, d_feature=16)
    >>> tokens, total = tokenizer(torch.rand(2, 100))
    >>> tokens.shape, total.shape
    (torch.Size([2, 4, 32]), torch.Size([2, 16]))
    """

    slots: Tensor
    _patch_of: Tensor
    _offset_of: Tensor

    def __init__(
        self,
        slots: Tensor,
        n_patches: int,
        patch_size: int,
        *,
        d_model: int,
        d_feature: int = 64,
        patch_embedding: str = "feature",
    ) -> None:
        super().__init__()
        self.n_patches, self.patch_size, self.shared = n_patches, patch_size, patch_embedding == "shared"
        # not in the state dict: slots follow from the layout, which is saved with the model
        self.register_buffer("slots", slots.long().clone(), persistent=False)
        # divided here once: integer division for every stored value would cost as much as the product
        self.register_buffer("_patch_of", (self.slots // patch_size).int(), persistent=False)
        self.register_buffer("_offset_of", (self.slots % patch_size).int(), persistent=False)
        # features in the order of their slots make sorted bags; others cost one sort per minibatch
        self._in_order = bool((slots.diff() > 0).all())
        if self.shared:
            self.weight = nn.Parameter(torch.randn(patch_size, d_model) / math.sqrt(patch_size))  # (w, d)
            self.project: nn.Module = nn.Identity()
        else:
            self.weight = FeatureEmbedding(len(slots), d_feature).weight  # (f, e)
            self.project = nn.Linear(d_feature, d_model, bias=False)
        self.position = nn.Parameter(0.02 * torch.randn(n_patches, d_model))  # (c, d)
        self.position._no_weight_decay = True  # type: ignore[attr-defined]  # read by the training plan

    def embed(self, x: Tensor) -> Tensor:
        """Embedding of every patch, before projection and position.

        Parameters
        ----------
        x
            Values ``(n, f)``, dense or CSR.

        Returns
        -------
        ``(n, c, e)``; with ``patch_embedding="shared"``, ``e`` is ``d``.
        """
        if is_csr(x) and self.shared and x.device.type == "cuda":
            return self._embed_on_grid(x)
        return self._embed_csr(x) if is_csr(x) else self._embed_dense(x)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What the blocks read, and what the linear branch reads.

        Parameters
        ----------
        x
            Values ``(n, f)``, dense or CSR.

        Returns
        -------
        Tokens ``(n, c, d)``, and the sum of the patch embeddings ``(n, e)``.
        """
        patches = self.embed(x)  # (n, c, e)
        return self.project(patches) + self.position, patches.sum(1)

    def total(self, x: Tensor) -> Tensor:
        """The sum of the patch embeddings alone: cheaper than :meth:`forward`, as no token is made.

        Parameters
        ----------
        x
            Values ``(n, f)``, dense or CSR.

        Returns
        -------
        ``(n, e)``.
        """
        if self.shared:
            return self.embed(x).sum(1)
        return product(x, self.weight)

    def _embed_csr(self, x: Tensor) -> Tensor:
        n, values, col = x.shape[0], x.values(), x.col_indices()
        # the bag of each stored value is its (cell, patch)
        bag = (row_index(x.crow_indices(), col) * self.n_patches).add_(self._patch_of.index_select(0, col))
        if self._in_order:
            offsets = bag_offsets(bag, n * self.n_patches)
        else:
            order, offsets = grouped(bag, n * self.n_patches)
            values, col = values.index_select(0, order), col.index_select(0, order)
        index = self._offset_of.index_select(0, col) if self.shared else col
        return bag_product(values, index, offsets, self.weight).view(n, self.n_patches, self.weight.shape[1])

    def _embed_on_grid(self, x: Tensor) -> Tensor:
        """A GPU multiplies by the zeros of a patch sooner than it sums the wide rows of its stored values."""
        col = x.col_indices()
        row, slot = row_index(x.crow_indices(), col).long(), self.slots.index_select(0, col)
        grid = x.values().new_zeros(x.shape[0], self.n_patches * self.patch_size)
        grid = grid.index_put((row, slot), x.values()).unflatten(1, (self.n_patches, self.patch_size))  # (n, c, w)
        with torch.autocast(x.device.type, enabled=False):
            return grid @ self.weight

    def _embed_dense(self, x: Tensor) -> Tensor:
        grid = self._to_grid(x.T).view(self.n_patches, self.patch_size, len(x))  # (c, w, n)
        # the linear branch reads the sums, which are in float32 for CSR too
        with torch.autocast(x.device.type, enabled=False):
            if self.shared:
                return torch.einsum("cwn,we->nce", grid, self.weight)
            weight = self._to_grid(self.weight).view(self.n_patches, self.patch_size, -1)  # (c, w, e)
            return torch.einsum("cwn,cwe->nce", grid, weight)

    def _to_grid(self, by_feature: Tensor) -> Tensor:
        """Rows ``(f, ...)`` at their slots among zeros, ``(c * w, ...)``."""
        grid = by_feature.new_zeros(self.n_patches * self.patch_size, by_feature.shape[1])
        return grid.index_copy(0, self.slots, by_feature)
