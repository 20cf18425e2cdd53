"""Which peaks go with which genes: vectors of features in the space that modalities share, compared near each gene."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import pandas as pd
import torch
from mudata import MuData
from scipy.stats import false_discovery_control, norm

from ..._arguments import check_count
from ..._compat import warn
from ...errors import ScmambaError
from ...ops.csr import column_sums, stored, transposed_product
from ...pp import value_transform
from ...pp.coordinates import Coordinates, chromosome_key, parse_coordinates
from ..inputs.arguments import feature_positions
from ..inputs.manager import MultiModalManager
from ..inputs.matrices import in_parts
from .cells import key_of, registered
from .embedding import EmbeddingMixin

#: Peaks are compared with others that about as many cells have: at most so many classes, of at least so many peaks each.
N_CLASSES: Final = 10
PEAKS_OF_A_CLASS: Final = 100
#: Peaks of other chromosomes that a background needs: fewer give no reliable mean and spread.
MIN_BACKGROUND: Final = 20
#: Pairs compared at a time, which takes two arrays ``(PAIRS_AT_A_TIME, z)``.
PAIRS_AT_A_TIME: Final = 1 << 16
#: A background whose cosines spread less than this is constant up to rounding, and gives no z-score.
MIN_SPREAD: Final = 1e-6
#: The same of the variance of a feature, as a fraction of its mean square.
MIN_VARIANCE: Final = 1e-9


class LinksMixin(EmbeddingMixin):
    """`get_region_links`."""

    def get_region_links(
        self,
        adata: MuData | None = None,
        *,
        genes: Sequence[str] | None = None,
        max_distance: int = 250_000,
        batch_size: int | None = None,
    ) -> pd.DataFrame:
        """Peaks near each gene, by how closely their vector and the gene's agree in the space that modalities share.

        The vector of a feature is the covariance of its value with the cells' embedding of its modality: it points to where
        the cells lie that have the feature, and no cell needs both modalities. The cosine of a pair's two vectors is compared
        with a background, the cosines of the same gene with peaks of all other chromosomes that about as many cells have:
        where cells differ in many features at once, any gene correlates with any peak, and rarely seen peaks have noisier
        vectors.

        Parameters
        ----------
        adata
            Cells with both modalities, or some with each. `None`: those of the model.
        genes
            Names. `None`: all that have coordinates.
        max_distance
            Largest distance in bases between the start of transcription and the centre of a peak, in either direction.
            Transcription starts at the start of the gene, or at its end where ``var["strand"]`` is ``"-"`` or, as Ensembl
            writes it, -1. Features without coordinates or strand in the data have those of the model. Within 250,000 bases are
            most known enhancers of a gene; a larger window has more pairs, which makes every q larger.
        batch_size
            Cells of a minibatch; changes speed only.

        Returns
        -------
        One row per pair, in falling order of z. Memory grows with the features and with the pairs, never with genes
        times peaks.

        ``gene``, ``peak``, ``chrom``
            Names.
        ``distance``
            Bases from the start of transcription to the centre of the peak, negative upstream.
        ``correlation``
            Cosine of the two vectors, -1 to 1.
        ``z``
            Distance of the correlation from the mean of the background, in its standard deviations.
        ``p``
            Probability of a z as high by chance, if the background is normal; one-sided, as a link is a peak that is
            open where the gene is active.
        ``q``
            Fraction of false links expected among all pairs with this q or a lower one [Benjamini95]_, if p holds. Where
            backgrounds have a longer tail more are false: on mouse cortex about a quarter at q < 0.1.

        Pairs whose gene or peak no cell has, or all have alike, or whose background has fewer than 20 peaks, are NaN and come
        last. Neighbouring genes that go up in the same cells are linked to the same peaks; which of them a peak regulates
        cannot be told from this.

        Raises
        ------
        ScmambaError
            There are no genes or no peaks, or none with coordinates; they have no chromosome in common; one of ``genes`` is
            unknown or has no coordinates; the model is not trained.

        References
        ----------
        .. [Benjamini95] Benjamini and Hochberg, Controlling the false discovery rate, Journal of the Royal Statistical
           Society B 1995.

        See Also
        --------
        scmamba_scvi.pl.region_links : draws the pairs against their distance.

        Examples
        --------
        >>> links = model.get_region_links(genes=mdata["rna"].var_names[:20])
        >>> links.columns[:4].tolist()
        ['gene', 'peak', 'chrom', 'distance']
        """
        check_count("max_distance", max_distance, 0)
        lacking = [kind for kind in ("rna", "atac") if kind not in self.kinds]
        if lacking:
            raise ScmambaError(f"Links are between genes and peaks; the model has {list(self.kinds)}, no {lacking[0]}.")
        data = registered(self, adata)
        genes_at, peaks_at = (self._coordinates_for_links(data.adata, kind) for kind in ("rna", "atac"))
        asked = self._genes_to_link(genes, genes_at)
        gene_vectors, _ = self._feature_vectors(data, "rna", batch_size)
        peak_vectors, n_cells = self._feature_vectors(data, "atac", batch_size)
        if not genes_at.strand.any():
            warn(
                "No strand of a gene is known, so each is taken to be transcribed from its start, which is its end for about "
                "half of them: annotate_genome(mdata, gtf=..., overwrite=True) writes the strands."
            )
        forward = genes_at.strand != -1  # also where no strand is known
        start = np.where(forward, genes_at.start, genes_at.end)
        centre = (peaks_at.start + peaks_at.end) // 2
        chrom_of_gene, chrom_of_peak = _common_chromosomes(genes_at, peaks_at)
        gene, peak = _pairs(asked, start, chrom_of_gene, centre, chrom_of_peak, max_distance)
        if not len(gene):
            warn(f"No peak lies within {max_distance:,} bases of these genes: the table is empty.")
        correlation, z = _compare(gene_vectors, peak_vectors, gene, peak, chrom_of_peak, _classes(n_cells))
        p = norm.sf(z)
        known = np.isfinite(p)
        q = np.full(len(p), np.nan)
        q[known] = false_discovery_control(p[known]) if known.any() else []
        if not known.all():
            warn(
                f"{(~known).sum():,} of {len(p):,} pairs have a feature that no cell has, or all have alike, or fewer than "
                f"{MIN_BACKGROUND} peaks to be compared with: they are NaN."
            )
        distance = np.where(forward[gene], 1, -1) * (centre[peak] - start[gene])
        order = np.argsort(-z, kind="stable")  # NaN last
        columns = {
            "gene": self.feature_names("rna")[gene], "peak": self.feature_names("atac")[peak],
            "chrom": peaks_at.names()[peak], "distance": distance, "correlation": correlation, "z": z, "p": p, "q": q,
        }  # fmt: skip
        return pd.DataFrame({name: values[order] for name, values in columns.items()})

    def _coordinates_for_links(self, mdata: MuData, kind: str) -> Coordinates:
        """Coordinates of the features of ``kind``: those of the data, which may be newer, else the model's own."""
        key = key_of(self, mdata, kind)
        of_data = parse_coordinates(mdata.mod[key].var.reindex(self.feature_names(kind)))
        where = of_data.completed(self.coordinates(kind))
        if not where.placed.any():
            advice = "annotate_genome(mdata, gtf=...) gives them" if kind == "rna" else "write chrom, start and end"
            raise ScmambaError(
                f"No feature of {key!r} has coordinates, so no peak is known to be near a gene: {advice}."
            )
        return where

    def _genes_to_link(self, genes: Sequence[str] | None, where: Coordinates) -> np.ndarray:
        """Positions of the genes, in the order of the model."""
        if genes is None:
            return np.flatnonzero(where.placed)
        names = [genes] if isinstance(genes, str) else list(dict.fromkeys(genes))
        at = np.sort(feature_positions(self.feature_names("rna"), names, "gene", "genes"))
        nowhere = self.feature_names("rna")[at[~where.placed[at]]]
        if len(nowhere):
            raise ScmambaError(
                f"{len(nowhere):,} of {len(at):,} genes have no coordinates, such as {nowhere[0]!r}: leave them out, or "
                "annotate_genome(mdata, gtf=...) places them."
            )
        return at

    @torch.no_grad()
    def _feature_vectors(
        self, data: MultiModalManager, kind: str, batch_size: int | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Vector of each feature ``(f, z)``, and in how many cells it was seen ``(f,)``, 0 where it is the same in all."""
        # the covariance of its values with the embedding, scaled to length 1, which also takes out the number of cells; zeros
        # of a feature without one, in no cell or the same in all
        embedded, matrix = self._embed_modality(data, kind, batch_size), data.matrix(kind)
        device, cells = self.module.device, np.flatnonzero(embedded.has)
        z = torch.from_numpy(embedded.z - embedded.z.mean(0, dtype=np.float64)).float().to(device)
        total = torch.zeros(matrix.n_features, z.shape[1], device=device)
        n_cells = torch.zeros(matrix.n_features, 1, device=device)
        sums, squares = torch.zeros(2, matrix.n_features, dtype=torch.double, device=device)
        is_seen = value_transform("binary", matrix.n_features)
        for part in in_parts(np.arange(len(cells)), batch_size or 1024):
            counts = matrix.read(cells[part]).to(device)
            values = self.module.transform(counts, kind)
            n_cells += transposed_product(is_seen(counts), torch.ones(len(part), 1, device=device))
            total += transposed_product(values, z[int(part[0]) : int(part[-1]) + 1])
            sums += column_sums(values)
            squares += column_sums(values, stored(values).double().square())
        varies = (squares - sums.square() / len(cells) > MIN_VARIANCE * squares)[:, None]
        length = total.norm(dim=1, keepdim=True)
        vectors = torch.where(varies & (length > 0), total / length, 0.0)
        return vectors.cpu().numpy(), torch.where(varies, n_cells, 0.0)[:, 0].cpu().numpy()


def _common_chromosomes(genes: Coordinates, peaks: Coordinates) -> tuple[np.ndarray, np.ndarray]:
    """Number of each feature's chromosome, the same for all spellings of it (chr1, 1), -1 where there is none."""
    # features without a chromosome have -1 there: the last entry
    keys = [np.array([*map(chromosome_key, where.chroms), None], object)[where.chrom] for where in (genes, peaks)]
    if not {*keys[0]} & {*keys[1]} - {None}:
        names = " or ".join(repr(where.chroms[0]) for where in (genes, peaks))
        raise ScmambaError(
            f"Genes and peaks have no chromosome in common, {names} for instance: write the chromosomes of both in one way, "
            "such as chr1, in the column of var that has them."
        )
    numbers = pd.factorize(np.concatenate(keys))[0]
    return numbers[: len(keys[0])], numbers[len(keys[0]) :]


def _pairs(
    genes: np.ndarray,
    start: np.ndarray,
    chrom_of_gene: np.ndarray,
    centre: np.ndarray,
    chrom_of_peak: np.ndarray,
    max_distance: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Gene and peak of every pair on one chromosome with at most ``max_distance`` between them, ``(m,)`` each.

    ``genes`` are the positions of those asked for; the other arrays have an entry for every gene, or for every peak.
    """
    # chromosomes one behind the other, so far apart that no window reaches into the next
    longest = max(start.max(), centre.max())
    max_distance = min(max_distance, longest)
    length = longest + max_distance + 2
    peaks = np.lexsort((centre, chrom_of_peak))
    peak_at, gene_at = (chrom_of_peak * length + centre)[peaks], (chrom_of_gene * length + start)[genes]
    low = np.searchsorted(peak_at, gene_at - max_distance, side="left")
    n = np.searchsorted(peak_at, gene_at + max_distance, side="right") - low
    within = np.arange(n.sum()) - np.repeat(n.cumsum() - n, n)  # 0 to n - 1 for each gene in turn
    return np.repeat(genes, n), peaks[np.repeat(low, n) + within]


def _classes(n_cells: np.ndarray) -> np.ndarray:
    """Class of each peak ``(f,)`` by how many cells have it, of about equal size; -1 for peaks that none has."""
    # peaks that equally many cells have are in one class, so that the order of the peaks changes nothing
    seen = n_cells > 0
    n = int(np.clip(seen.sum() // PEAKS_OF_A_CLASS, 1, N_CLASSES))
    edges = np.quantile(n_cells[seen], np.arange(1, n) / n) if seen.any() else []
    return np.where(seen, np.searchsorted(edges, n_cells, side="right"), -1)


def _compare(
    gene_vectors: np.ndarray,
    peak_vectors: np.ndarray,
    gene: np.ndarray,
    peak: np.ndarray,
    chrom: np.ndarray,
    classes: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Cosine of each pair, and its z-score among peaks of the same class on other chromosomes, ``(m,)`` each.

    Mean and variance of a gene's cosines with a set of peaks follow from the mean ``(z,)`` and the second moment
    ``(z, z)`` of the peaks' vectors, so the background is exact, over all peaks of the set, without a cosine for each.
    Vectors are unit vectors ``(f, z)``, zeros where a feature has none; ``chrom`` and ``classes`` are those of each peak.
    """
    cosine, z_score = np.full((2, len(gene)), np.nan)

    def moments(peaks: np.ndarray) -> np.ndarray:
        """Sum of the outer products of vectors with a 1 appended: second moment, sum and number in one, (z + 1, z + 1)."""
        vectors = np.pad(peak_vectors[peaks].astype(np.float64), ((0, 0), (0, 1)), constant_values=1.0)
        return vectors.T @ vectors

    placed = chrom >= 0  # a peak without a chromosome may lie on any, so it is in no background
    whole = {c: moments(placed & (classes == c)) for c in np.unique(classes[classes >= 0])}
    for (of_class, c), rows in pd.DataFrame({"class": classes[peak], "chrom": chrom[peak]}).groupby(["class", "chrom"]):
        if of_class < 0:
            continue
        background = whole[of_class] - moments((chrom == c) & (classes == of_class))
        n = background[-1, -1]
        for pairs in in_parts(rows.index.to_numpy(), PAIRS_AT_A_TIME):
            u, v = gene_vectors[gene[pairs]].astype(np.float64), peak_vectors[peak[pairs]]  # (m, z) each
            known = (u != 0).any(1) & (v != 0).any(1)
            cosine[pairs] = np.where(known, (u * v).sum(1), np.nan)
            if n < MIN_BACKGROUND:
                continue
            mean = u @ background[:-1, -1] / n
            spread = np.sqrt(np.maximum(((u @ background[:-1, :-1]) * u).sum(1) / n - mean**2, 0))
            above = cosine[pairs] - mean
            z_score[pairs] = np.where(spread > MIN_SPREAD, above / np.maximum(spread, MIN_SPREAD), np.nan)
    return cosine, z_score
