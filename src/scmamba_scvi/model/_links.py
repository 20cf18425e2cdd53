"""Which peaks go with which genes: vectors of features in the space that modalities share, compared near each gene."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from mudata import MuData

from ..errors import ScmambaError, UnknownNameError
from ..ops.csr import is_csr, transposed_product
from ..pp._coordinates import Coordinates, chromosome_key, parse_coordinates
from ._arguments import check_count, near
from ._cells import opened, views
from ._genome import places_of
from ._matrix import in_parts

if TYPE_CHECKING:
    from torch import Tensor

#: Peaks are compared with others that as many cells have: at most so many classes, of at least so many peaks each.
N_CLASSES: Final = 10
PEAKS_OF_A_CLASS: Final = 100
#: Fewer peaks of other chromosomes have no mean and spread to speak of.
MIN_BACKGROUND: Final = 20
#: Pairs compared at a time: two arrays of this times ``z`` numbers.
BLOCK: Final = 1 << 16
#: Spread of cosines below which a background is flat.
FLAT: Final = 1e-6


class LinksMixin:
    """`region_links`."""

    def region_links(
        self,
        genes: Sequence[str] | None = None,
        adata: MuData | None = None,
        *,
        max_distance: int = 250_000,
        batch_size: int | None = None,
    ) -> pd.DataFrame:
        """Peaks near each gene, by how closely their vector and the gene's agree in the space that modalities share.

        The vector of a feature is the covariance, over the cells that have its modality, of its value with the cells'
        view of this modality: it points to where the cells lie that have the feature. Genes and peaks have theirs from
        views of their own, so that no cell needs both modalities. A pair's correlation is the cosine of its two vectors.
        It is compared with what the same gene gives with peaks of all other chromosomes that about as many cells have,
        as how often a peak is seen changes how sure its vector is, and cells that differ in everything correlate
        everything.

        Parameters
        ----------
        genes
            Names. `None`: all that have coordinates.
        adata
            Cells with both modalities, or some with each. `None`: those of the model.
        max_distance
            Bases between the start of transcription and the centre of a peak, either way. The start is that of the gene,
            or its end where ``var["strand"]`` of the genes is ``"-"``. 250,000 holds most known enhancers of a gene;
            more pairs make every q larger.
        batch_size
            Cells of a minibatch; changes speed only.

        Returns
        -------
        One row per pair, the surest first. Memory grows with the features and with the pairs, never with genes times peaks.

        ``gene``, ``peak``, ``chrom``
            Names.
        ``distance``
            Bases from the start of transcription to the centre of the peak, negative upstream.
        ``correlation``
            Cosine of the two vectors, -1 to 1.
        ``z``
            Its distance from the mean of the background, in standard deviations of the background.
        ``p``, ``q``
            Probability of as high a z by chance, if the background is normal, one-sided: a link is a peak that is open
            where the gene is active. And the share of false links expected among all pairs with this q or a lower one
            [Benjamini95]_. Neighbouring genes that go up together share their peaks, and nothing here can tell which of
            them a peak serves.

        Pairs whose gene or peak no cell has, or that have fewer than 20 peaks to be compared with, are NaN and come last.

        Raises
        ------
        ScmambaError
            The model or the data lack genes or peaks, none of either or a gene that was named has no coordinates, or a
            name is not known.
        RuntimeError
            The model is not trained.

        References
        ----------
        .. [Benjamini95] Benjamini and Hochberg, Controlling the false discovery rate, Journal of the Royal Statistical
           Society B 1995.

        See Also
        --------
        scmamba_scvi.pl.region_links : draws it against distance.

        Examples
        --------
        >>> links = model.region_links(genes=mdata["rna"].var_names[:20])
        >>> links.columns[:4].tolist()
        ['gene', 'peak', 'chrom', 'distance']
        """
        from scipy.stats import false_discovery_control, norm

        self._check_if_trained(warn=False, message="Train the model first: model.train().")
        check_count("max_distance", max_distance, 0)
        if isinstance(adata, AnnData):
            raise ScmambaError("One AnnData holds one modality: pass a MuData with both, mudata.MuData({...}).")
        lacking = [kind for kind in ("rna", "atac") if kind not in self.kinds]
        if lacking:
            raise ScmambaError(f"Links are between genes and peaks; the model has {list(self.kinds)}, no {lacking[0]}.")
        with opened(self, adata) as mdata:
            where = {kind: self._places_for_links(mdata, kind) for kind in ("rna", "atac")}
            asked = self._genes_to_link(genes, where["rna"])
            forward = _strand(mdata, self.kinds["rna"], self.feature_names("rna")) != "-"
            gene_vectors, _ = self._feature_vectors(mdata, "rna", batch_size)
            peak_vectors, n_cells = self._feature_vectors(mdata, "atac", batch_size)
        start = np.where(forward, where["rna"].start, where["rna"].end)
        centre = (where["atac"].start + where["atac"].end) // 2
        chrom_of_gene, chrom_of_peak = _common_chromosomes(where["rna"], where["atac"])
        gene, peak = _pairs(asked, start, chrom_of_gene, centre, chrom_of_peak, max_distance)
        correlation, z = _compare(gene_vectors, peak_vectors, gene, peak, chrom_of_peak, _classes(n_cells))
        p = norm.sf(z)
        known = np.isfinite(p)
        q = np.full(len(p), np.nan)
        q[known] = false_discovery_control(p[known]) if known.any() else []
        if not known.all():
            warnings.warn(
                f"{(~known).sum():,} of {len(p):,} pairs have a feature that no cell has, or fewer than "
                f"{MIN_BACKGROUND} peaks to be compared with: they are NaN.",
                UserWarning, stacklevel=2,
            )  # fmt: skip
        distance = np.where(forward[gene], 1, -1) * (centre[peak] - start[gene])
        order = np.argsort(-z, kind="stable")  # NaN last
        columns = {
            "gene": self.feature_names("rna")[gene], "peak": self.feature_names("atac")[peak],
            "chrom": where["atac"].names()[peak], "distance": distance, "correlation": correlation, "z": z, "p": p, "q": q,
        }  # fmt: skip
        return pd.DataFrame({name: values[order] for name, values in columns.items()})

    def _places_for_links(self, mdata: MuData, kind: str) -> Coordinates:
        """Those the model was made with; of a model made without any, those of the data."""
        where = places_of(self, kind)
        key = self.kinds[kind]
        if not where.placed.any() and key in mdata.mod:
            where = parse_coordinates(mdata.mod[key].var.reindex(self.feature_names(kind)))
        if not where.placed.any():
            advice = "annotate_genome(mdata, gtf=...) gives them" if kind == "rna" else "write chrom, start and end"
            raise ScmambaError(f"No feature of {key!r} has coordinates, so nothing is near anything: {advice}.")
        return where

    def _genes_to_link(self, genes: Sequence[str] | None, where: Coordinates) -> np.ndarray:
        """Positions of the genes, in the order of the model."""
        if genes is None:
            return np.flatnonzero(where.placed)
        names, known = pd.Index([genes] if isinstance(genes, str) else genes), pd.Index(self.feature_names("rna"))
        if not len(names):
            raise ScmambaError("genes is empty: name some, or None for all.")
        at = known.get_indexer(names)
        if (at < 0).any():
            unknown = names[at < 0]
            raise UnknownNameError(f"gene ({len(unknown):,} of {len(names):,})", unknown[0], near(unknown[0], known))
        if not where.placed[at].all():
            nowhere = names[~where.placed[at]]
            raise ScmambaError(
                f"{len(nowhere):,} of {len(names):,} genes have no coordinates, such as {nowhere[0]!r}: leave them out."
            )
        return np.unique(at)

    @torch.no_grad()
    def _feature_vectors(self, mdata: MuData, kind: str, batch_size: int | None) -> tuple[np.ndarray, np.ndarray]:
        """Covariance of each feature with the view, up to the number of cells, as unit vectors ``(f, z)``; cells with it ``(f,)``.

        A feature that no cell has, or that all have alike, has a vector of zeros.
        """
        view = views(self, mdata, kind, batch_size)
        matrix = self.get_anndata_manager(mdata, required=True).matrix(kind)
        device, cells = self.module.device, np.flatnonzero(view.has)
        z = torch.from_numpy(view.z - view.z.mean(0, dtype=np.float64)).float().to(device)
        total = torch.zeros(matrix.n_features, z.shape[1], device=device)
        n_cells = torch.zeros(matrix.n_features, device=device)
        for part in in_parts(np.arange(len(cells)), batch_size or 1024):
            counts = matrix.read(cells[part]).to(device)
            n_cells += _n_not_zero(counts)
            total += transposed_product(self.module.values[kind](counts).detach(), z[int(part[0]) : int(part[-1]) + 1])
        length = total.norm(dim=1, keepdim=True)
        return torch.where(length > 0, total / length, 0.0).cpu().numpy(), n_cells.cpu().numpy()


def _n_not_zero(counts: Tensor) -> Tensor:
    """Cells that have each feature ``(f,)``, of counts ``(n, f)``."""
    if not is_csr(counts):
        return (counts != 0).sum(0)
    return torch.bincount(counts.col_indices()[counts.values() != 0], minlength=counts.shape[1])


def _strand(mdata: MuData, key: str, names: np.ndarray) -> np.ndarray:
    """``"+"``, ``"-"`` or anything else where it is not known, ``(f,)``."""
    var = mdata.mod[key].var
    if "strand" not in var:
        return np.full(len(names), "", dtype=object)
    return var["strand"].astype(object).reindex(names).astype(str).to_numpy(dtype=object)


def _common_chromosomes(*places: Coordinates) -> list[np.ndarray]:
    """Number of each feature's chromosome, the same for all spellings of it, -1 where there is none."""
    keys = {key: i for i, key in enumerate(dict.fromkeys(chromosome_key(c) for p in places for c in p.chroms))}
    return [np.array([*(keys[chromosome_key(c)] for c in p.chroms), -1], dtype=np.int64)[p.chrom] for p in places]


def _pairs(
    genes: np.ndarray,
    start: np.ndarray,
    chrom_of_gene: np.ndarray,
    centre: np.ndarray,
    chrom_of_peak: np.ndarray,
    max_distance: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Gene and peak of every pair on one chromosome with at most ``max_distance`` between them, ``(m,)`` each."""
    order = np.lexsort((centre, chrom_of_peak))
    found: list[tuple[np.ndarray, np.ndarray]] = []
    for chrom in np.unique(chrom_of_gene[genes]):
        here = genes[chrom_of_gene[genes] == chrom]
        first, last = np.searchsorted(chrom_of_peak[order], [chrom, chrom + 1])
        peaks = order[first:last]
        low = np.searchsorted(centre[peaks], start[here] - max_distance, side="left")
        high = np.searchsorted(centre[peaks], start[here] + max_distance, side="right")
        n = high - low
        offset = np.arange(n.sum()) - np.repeat(n.cumsum() - n, n)
        found.append((np.repeat(here, n), peaks[np.repeat(low, n) + offset]))
    gene, peak = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return gene, peak


def _classes(n_cells: np.ndarray) -> np.ndarray:
    """Class of each peak ``(f,)`` by how many cells have it, of about equal size, -1 for peaks that none has.

    Peaks that equally many cells have are in one class, so that the order of the peaks changes nothing.
    """
    seen = n_cells > 0
    n = int(np.clip(seen.sum() // PEAKS_OF_A_CLASS, 1, N_CLASSES))
    edges = np.quantile(n_cells[seen], np.arange(1, n) / n) if seen.any() else []
    return np.where(seen, np.searchsorted(edges, n_cells, side="right"), -1)


def _compare(
    genes: np.ndarray, peaks: np.ndarray, gene: np.ndarray, peak: np.ndarray, chrom: np.ndarray, classes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Cosine of each pair, and its z-score among peaks of the same class on other chromosomes, ``(m,)`` each.

    Mean and variance of a gene's cosines with a set of peaks follow from the mean ``(z,)`` and the second moment
    ``(z, z)`` of the peaks' vectors: exact, over all peaks of the set, none of which is visited again per gene.

    Parameters
    ----------
    genes, peaks
        Unit vectors ``(f, z)``; zeros where there is none.
    gene, peak
        Pairs ``(m,)``.
    chrom, classes
        Chromosome and class of each peak.
    """
    cosine, z = np.full((2, len(gene)), np.nan)
    placed = chrom >= 0  # a peak without a chromosome may lie on any
    for of_class in np.unique(classes[peak][classes[peak] >= 0]):
        whole = _moments(peaks[placed & (classes == of_class)])
        pairs_of_class = np.flatnonzero(classes[peak] == of_class)
        for c in np.unique(chrom[peak[pairs_of_class]]):
            own = _moments(peaks[(chrom == c) & (classes == of_class)])
            n, total, square = (a - b for a, b in zip(whole, own, strict=True))
            for pairs in in_parts(pairs_of_class[chrom[peak[pairs_of_class]] == c], BLOCK):
                u = genes[gene[pairs]].astype(np.float64)  # (m, z)
                known = (u != 0).any(1) & (peaks[peak[pairs]] != 0).any(1)
                cosine[pairs] = np.where(known, (u * peaks[peak[pairs]]).sum(1), np.nan)
                if n < MIN_BACKGROUND:
                    continue
                mean = u @ (total / n)
                spread = np.sqrt(np.maximum(((u @ (square / n)) * u).sum(1) - mean**2, 0))
                z[pairs] = np.where(spread > FLAT, (cosine[pairs] - mean) / np.maximum(spread, FLAT), np.nan)
    return cosine, z


def _moments(vectors: np.ndarray) -> tuple[int, np.ndarray, np.ndarray]:
    """Number, sum ``(z,)`` and sum of the outer products ``(z, z)`` of vectors ``(f, z)``."""
    vectors = vectors.astype(np.float64)
    return len(vectors), vectors.sum(0), vectors.T @ vectors
