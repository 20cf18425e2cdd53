"""A simulated genome, and programs on it: sets of genes and of the peaks beside them that are active together.

A program is a distribution over features (a topic of an admixture). A cell is a mixture of programs, the same in all
modalities up to fixed weights: only this links the profiles of a cell in two modalities.
"""

import dataclasses
from typing import Final

import numpy as np
import pandas as pd

#: Lengths of the human chromosomes in bases (GRCh38, rounded to millions).
CHROMOSOMES: Final = dict(zip(
    [*(f"chr{i}" for i in range(1, 23)), "chrX", "chrY"],
    np.array([248, 242, 198, 190, 182, 171, 159, 145, 138, 134, 135, 133,
              114, 107, 102, 90, 83, 80, 59, 64, 47, 51, 156, 57]) * 1_000_000,
    strict=True,
))  # fmt: skip
#: Neighbouring types share a lineage and its program, which makes them hard to tell apart.
TYPES_PER_LINEAGE: Final = 3
#: Continuous programs that occur in all types: states are seen in every modality, private ones in one modality only.
N_STATES: Final = 5
N_PRIVATE: Final = 2
#: Fraction of the genes in one program.
PROGRAM_FRACTION: Final = 0.03


@dataclasses.dataclass(frozen=True)
class Structure:
    """How many programs of each sort there are; the ``k`` rows are base, lineages, types, states, private."""

    n_types: int
    n_lineages: int
    lineage_of: np.ndarray  # (n_types,) lineage of each type
    first_type: int  # row of the program of the first type
    n_shared: int  # programs that every modality has
    n_programs: int  # k


def structure_of(n_types: int) -> Structure:
    """Programs for so many types, in as few lineages as hold `TYPES_PER_LINEAGE` types each."""
    n_lineages = -(-n_types // TYPES_PER_LINEAGE)
    n_shared = 1 + n_lineages + n_types + N_STATES
    lineage_of = np.arange(n_types) * n_lineages // n_types
    return Structure(n_types, n_lineages, lineage_of, 1 + n_lineages, n_shared, n_shared + N_PRIVATE)


def place_genes(rng: np.random.Generator, n_genes: int) -> pd.DataFrame:
    """Genes in clusters along the chromosomes, sorted: columns chrom, start, end, strand; ``(n_genes, 4)``."""
    chrom = _draw_chromosomes(rng, n_genes)
    n_clusters = max(1, n_genes // 8)
    # every cluster has a place on every chromosome, as a fraction of its length; a gene takes the one on its own
    centre = rng.random((n_clusters, len(CHROMOSOMES)))[rng.integers(n_clusters, size=n_genes), chrom]
    start = centre * _length_of(chrom) + rng.laplace(scale=100_000, size=n_genes)
    width = np.clip(rng.lognormal(np.log(20_000), 1.1, n_genes), 500, 800_000)
    genes, _ = _sorted_features(chrom, start, width)
    return genes.assign(strand=rng.choice(["+", "-"], n_genes))


def place_peaks(rng: np.random.Generator, n_peaks: int, genes: pd.DataFrame) -> tuple[pd.DataFrame, np.ndarray]:
    """Peaks at promoters, around genes and between them, sorted; and the gene that each follows ``(n_peaks,)``, -1 for none."""
    n_genes = len(genes)
    chrom = _draw_chromosomes(rng, n_peaks)
    start = rng.random(n_peaks) * _length_of(chrom)
    gene = np.full(n_peaks, -1)
    n_near = round(0.6 * n_peaks)
    # first one promoter per gene, then enhancers of genes drawn at random
    gene[:n_near] = np.r_[rng.permutation(n_genes), rng.integers(n_genes, size=n_peaks)][:n_near]
    is_promoter = np.arange(n_near) < n_genes
    distance = np.where(is_promoter, rng.normal(0, 300, n_near), rng.laplace(0, 25_000, n_near))
    tss = np.where(genes["strand"] == "+", genes["start"], genes["end"])
    chrom[:n_near] = genes["chrom"].cat.codes.to_numpy()[gene[:n_near]]
    start[:n_near] = tss[gene[:n_near]] + distance
    # one in four of the peaks beside a gene does not follow it
    gene[:n_near][rng.random(n_near) < 0.25] = -1
    peaks, order = _sorted_features(chrom, start, np.clip(rng.normal(900, 150, n_peaks), 200, 1_500))
    return peaks, gene[order]


def gene_programs(rng: np.random.Generator, n_genes: int, structure: Structure) -> np.ndarray:
    """Distributions over genes, rows sum to one, float64 ``(k, n_genes)``.

    Every program but the base holds regions of one to four neighbouring genes, and no gene is in two of them.
    """
    base = rng.lognormal(0, 2.4, n_genes)
    regions = np.split(np.arange(n_genes), np.flatnonzero(rng.random(n_genes - 1) < 0.4) + 1)
    rng.shuffle(regions)
    wanted = max(3, round(PROGRAM_FRACTION * n_genes))
    programs = np.zeros((structure.n_programs, n_genes))
    programs[0] = base
    for k in range(1, structure.n_programs):
        members: list[int] = []
        while len(members) < wanted and regions:
            members.extend(regions.pop())
        if not members:  # fewer genes than programs need
            members = list(rng.integers(n_genes, size=1))
        # markers are seldom the most abundant genes: the root evens out the base levels
        programs[k, members] = np.sqrt(base[members]) * rng.gamma(2.0, size=len(members))
    return programs / programs.sum(1, keepdims=True)


def peak_programs(
    rng: np.random.Generator, gene: np.ndarray, programs_of_genes: np.ndarray, structure: Structure
) -> np.ndarray:
    """Distributions over peaks, rows sum to one, float64 ``(k, n_peaks)``: peaks follow the programs of their genes.

    ``gene`` ``(n_peaks,)`` is the one that each peak follows, -1 for none. The private programs are drawn independently of
    those of the genes, ``(k, n_genes)``.
    """
    n_peaks = len(gene)
    base = rng.lognormal(0, 1.0, n_peaks)
    active = programs_of_genes[:, gene] * (gene >= 0)  # (k, n_peaks)
    active[structure.n_shared :] = rng.random((N_PRIVATE, n_peaks)) < PROGRAM_FRACTION
    # some peaks that follow no gene belong to a program too, as distal enhancers whose gene is unknown do
    distal = (rng.random(active.shape) < PROGRAM_FRACTION / 3) & (gene < 0)
    programs = np.where((active > 0) | distal, np.sqrt(base) * rng.gamma(2.0, size=active.shape), 0.0)
    programs[0] = base
    # with few peaks a program may have none: it then equals the base
    programs[programs.sum(1) == 0] = base
    return programs / programs.sum(1, keepdims=True)


def _draw_chromosomes(rng: np.random.Generator, n: int) -> np.ndarray:
    lengths = np.array([*CHROMOSOMES.values()], dtype=float)
    lengths[-1] /= 4  # chrY is mostly empty
    return rng.choice(len(lengths), size=n, p=lengths / lengths.sum())


def _length_of(chrom: np.ndarray) -> np.ndarray:
    return np.array([*CHROMOSOMES.values()])[chrom]


def _sorted_features(chrom: np.ndarray, start: np.ndarray, width: np.ndarray) -> tuple[pd.DataFrame, np.ndarray]:
    """Features inside their chromosomes, sorted, no two of one start; and the order in which they came."""
    width = width.astype(np.int64)
    start = np.clip(start.astype(np.int64), 1, _length_of(chrom) - width - len(chrom))
    order = np.lexsort((start, chrom))
    chrom, start, width = chrom[order], start[order], width[order]
    for c in np.unique(chrom):
        here, at = chrom == c, np.arange((chrom == c).sum())
        start[here] = np.maximum.accumulate(start[here] - at) + at  # each at least one base after the one before
    names = pd.Categorical.from_codes(chrom, categories=[*CHROMOSOMES])
    return pd.DataFrame({"chrom": names, "start": start, "end": start + width}), order
