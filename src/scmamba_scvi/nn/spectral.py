"""Initialization of the linear branch: truncated SVD of each modality, then canonical correlation between them.

Everything streams over blocks of transformed cells and makes nothing as large as the data. Two modalities give ridge
canonical correlation analysis (Hotelling 1936); more give its MAXVAR generalisation (Kettenring 1971), to which the
two-modality case reduces exactly. Each variate is scaled by its canonical correlation, i.e. by how reproducible it is
between the modalities, without which cells are matched far worse ("CCA" beside "weighted CCA" in docs/benchmarks-methods.md).
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor

from ..ops.csr import column_sums, product, scatter_rows, transposed_product

#: Extra directions of the randomised range finder (Halko, Martinsson and Tropp 2011, section 4.4).
OVERSAMPLE = 10
#: Of the polynomial between two orthogonalisations: higher ones separate directions better, and lose small ones in float32.
FILTER_DEGREE = 3
#: How much one filter may amplify the leading direction. Rounding leaves 1e-7 of it in other columns, so these keep two of the
#: seven digits of float32, enough for the next filter to go on from; beyond 1e14 nothing but the leading direction is left.
MOST_AMPLIFIED = 1e12

#: Begins a pass over the data: row blocks ``(cells of the block, f)``, dense or CSR, the same in every pass.
Blocks = Callable[[], Iterable[Tensor]]


@dataclasses.dataclass(frozen=True)
class TruncatedSVD:
    """Leading right singular vectors of a centred matrix, and its rows in their coordinates.

    What is as long as the features is on the device of the data, scores are on the CPU: what is made of them is small.
    """

    mean: Tensor  # (f,)
    components: Tensor  # (f, k), orthonormal
    scores: Tensor  # (cells, k)


def truncated_svd(
    blocks: Blocks,
    n_features: int,
    n_components: int,
    *,
    n_passes: int = 13,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> TruncatedSVD:
    """Subspace iteration on the covariance between cells with Chebyshev filters, one pass over the data per product.

    The singular values of accessibility fall off slowly, so that plain iteration leaves directions mixed: it takes 30 passes
    for what filters of degree 3 (Rutishauser 1969; Saad 2011, section 5.3) do in 13.

    ``blocks`` on ``device``, of ``n_features`` ``f``, are begun once per pass, the last time for the scores. Of fewer
    features than ``n_components`` ``k``, there are as many components as features. ``seed`` is that of the random first
    basis, which is the same on every device.
    """
    generator = torch.Generator().manual_seed(seed)
    width = min(n_components + OVERSAMPLE, n_features)
    first = torch.randn(n_features, width, generator=generator).to(device)
    scores, image, mean = _random_scores(blocks, first)
    left = n_passes - 2
    while left > 0:
        scores, image, degree = _filtered(blocks, mean, scores, image, min(FILTER_DEGREE, left))
        left -= degree
    # LAPACK stores by columns, with which products of sparse rows are far slower
    basis = torch.linalg.qr(image).Q.contiguous()
    offset = mean @ basis
    scores = torch.cat([product(block, basis) - offset for block in blocks()])  # (cells, k')
    _, vectors = torch.linalg.eigh(_gram(scores))
    leading = vectors.flip(1)[:, :n_components].float()
    return TruncatedSVD(mean, basis @ leading, (scores @ leading).cpu())


def canonical_directions(
    scores: Mapping[str, Tensor], present: Mapping[str, Tensor], n_components: int, *, ridge: float = 0.1
) -> tuple[dict[str, Tensor], Tensor]:
    """Directions of each modality that agree with the others, each variate of variance 1.

    ``scores`` are ``(cells, k)`` per modality, all over the same cells, of which ``present`` ``(cells,)`` says who has it.
    Returned are a map ``(k, n_components)`` per modality, with fewer columns where the modalities span fewer, and the
    correlations ``(n_components,)`` on these cells in falling order. ``ridge`` is added to each covariance, as a fraction
    of its mean variance: on few cells the smallest variances are too small.
    """
    kinds = list(scores)
    s = {k: scores[k].double() for k in kinds}
    whitening = {k: power(ridged(_covariance(s[k][present[k]], s[k][present[k]]), ridge), -0.5) for k in kinds}
    agreement, vectors = torch.linalg.eigh(_whitened_covariance(s, present, whitening))
    n_components = min(n_components, *(v.shape[1] for v in s.values()))
    correlations = ((agreement.flip(0)[:n_components] - 1) / (len(kinds) - 1)).clamp(0, 1)
    parts = vectors.flip(1)[:, :n_components].split([s[k].shape[1] for k in kinds])
    # an eigenvector shares its unit length among the modalities; each part alone has length 1 / sqrt(modalities)
    maps = {k: (whitening[k] @ part * len(kinds) ** 0.5).float() for k, part in zip(kinds, parts, strict=True)}
    return maps, correlations.float()


def linear_initialization(
    svds: Mapping[str, TruncatedSVD],
    present: Mapping[str, Tensor],
    n_latent: int,
    weights: Tensor | None = None,
) -> dict[str, Tensor]:
    """Linear map ``(f, z)`` of every modality, minus its mean, to the shared space: `canonical_directions` times their weights.

    ``svds`` are of each modality's own training cells, in the order of all training cells, of which ``present``
    ``(cells,)`` says who has it; ``n_latent`` is ``z``. ``weights`` are those of the directions by rank, in any number, and
    there are no more directions than weights; `None`: their correlations on these cells.
    """
    maps, correlations = canonical_directions(_scores_of_all_cells(svds, present), present, n_latent)
    if weights is not None:
        correlations = weights[: len(correlations)]
        maps = {k: m[:, : len(correlations)] for k, m in maps.items()}
    return {k: svd.components @ (maps[k] * correlations).to(svd.components.device) for k, svd in svds.items()}


def held_out_correlations(
    blocks: Mapping[str, Callable[[Tensor], Blocks]],
    present: Mapping[str, Tensor],
    n_features: Mapping[str, int],
    n_components: int,
    n_latent: int,
    *,
    n_folds: int = 4,
    n_passes: int = 7,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Canonical correlations by rank on cells that the directions were not found on.

    On the cells that they were found on, weak directions correlate by chance. Each of ``n_folds`` parts of the cells is
    held out once; ``n_passes`` are fewer than in `truncated_svd`, since these directions are not kept.

    ``blocks`` gives per modality, for a mask ``(cells,)``, the passes over the cells in the mask that have it, on ``device``
    and in order; masks, as ``present``, are on the CPU. ``n_features`` and ``n_components`` are ``f`` of each modality and
    ``k``, ``n_latent`` the directions asked for; ``seed`` is that of the parts and of the decompositions.

    Returned is ``(at most z,)``, pooled over the parts and averaged over the pairs of modalities, not sorted; zeros if no
    part has two cells that share modalities.
    """
    n_cells = len(next(iter(present.values())))
    fold = torch.randperm(n_cells, generator=torch.Generator().manual_seed(seed)) % n_folds
    variates = {k: torch.zeros(n_cells, n_latent) for k in blocks}
    for part in range(n_folds):
        fit, held_out = fold != part, fold == part
        svds = {
            k: truncated_svd(of_cells(fit), n_features[k], n_components, n_passes=n_passes, seed=seed, device=device)
            for k, of_cells in blocks.items()
        }
        present_in_fit = {k: mask[fit] for k, mask in present.items()}
        maps, found = canonical_directions(_scores_of_all_cells(svds, present_in_fit), present_in_fit, n_latent)
        n_latent = min(n_latent, len(found))
        for k, svd in svds.items():
            of_part = _scores(blocks[k](held_out)(), svd) @ maps[k]
            variates[k][held_out & present[k], : of_part.shape[1]] = of_part
    correlations = []
    for a, b in itertools.combinations(blocks, 2):
        parts = [present[a] & present[b] & (fold == part) for part in range(n_folds)]
        parts = [both for both in parts if int(both.sum()) > 1]
        if parts:
            u, v = (torch.cat([z[both] - z[both].mean(0) for both in parts]) for z in (variates[a], variates[b]))
            spread = (u.square().sum(0) * v.square().sum(0)).sqrt().clamp_min(torch.finfo(torch.float32).tiny)
            correlations.append(((u * v).sum(0) / spread)[:n_latent])
    return torch.stack(correlations).mean(0) if correlations else torch.zeros(n_latent)


def _random_scores(blocks: Blocks, directions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Scores of the cells in random directions ``(cells, k')``, their image ``(f, k')``, and the mean cell ``(f,)``.

    Blocks are never centred, which would fill them.
    """
    total = directions.new_zeros(len(directions))

    def score(block: Tensor, rows: slice) -> Tensor:
        total.add_(column_sums(block).float())
        return product(block, directions)

    scores, image = _scores_and_image(blocks, score)
    mean = total / len(scores)
    image.addr_(mean, scores.sum(0), alpha=-1)
    return scores - mean @ directions, image, mean


def _scores_and_image(blocks: Blocks, score: Callable[[Tensor, slice], Tensor]) -> tuple[Tensor, Tensor]:
    """In one pass, what ``score`` gives for each block and its place among the cells, and the image of all that.

    The image of scores is the transposed matrix times the scores; of the centred matrix, minus the mean times their sums.
    """
    parts: list[Tensor] = []
    image, begin = None, 0
    for block in blocks():
        parts.append(score(block, slice(begin, begin := begin + block.shape[0])))
        of_block = transposed_product(block, parts[-1])
        image = of_block if image is None else image.add_(of_block)
    assert image is not None, "there are cells"
    return torch.cat(parts), image


def _filtered(blocks: Blocks, mean: Tensor, scores: Tensor, image: Tensor, degree: int) -> tuple[Tensor, Tensor, int]:
    """Scores and their image after a Chebyshev polynomial of the covariance between cells, one pass per degree.

    The polynomial stays within one below the smallest eigenvalue that the scores see, and rises steeply above it: its degree,
    the third result, is lower than ``degree`` where the leading direction would grow too much. Scores are as long as the
    cells: in their coordinates, all but products with the data costs nothing where features are many.
    """
    rotation, seen = _ritz(scores, image)
    now, image = scores @ rotation, image @ rotation  # nearly eigenvectors: rounding errors stay apart
    # of data of lower rank than the scores, the smallest eigenvalue is a rounding error
    tiny = torch.finfo(torch.float32).tiny
    cut = max(seen[0].item(), torch.finfo(torch.float32).eps * seen[-1].item(), tiny)
    while degree > 1 and math.cosh(degree * math.acosh(max(1.0, 2 * seen[-1].item() / cut - 1))) > MOST_AMPLIFIED:
        degree -= 1

    def next_term(now: Tensor, before: Tensor | None, image: Tensor) -> tuple[Tensor, Tensor]:
        offset = mean @ image

        def score(block: Tensor, rows: slice) -> Tensor:
            part = (product(block, image) - offset) * (2 / cut) - now[rows]
            return part if before is None else 2 * part - before[rows]

        term, its_image = _scores_and_image(blocks, score)
        return term, its_image.addr_(mean, term.sum(0), alpha=-1)

    before = None
    for _ in range(degree):
        (now, image), before = next_term(now, before, image), now
        size = now.norm(dim=0).clamp_min(tiny)  # the recurrence is linear: no column overflows
        before, now, image = before / size, now / size, image.div_(size)
    return now, image, degree


def _ritz(scores: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
    """Map of ``scores`` to orthonormal vectors that are nearly eigenvectors, and their eigenvalues, both rising.

    Columns that depend on others become rounding errors.
    """
    lengths, vectors = torch.linalg.eigh(_gram(scores))
    least = torch.finfo(torch.float32).eps * lengths[-1].item()
    orthonormal = vectors / lengths.clamp_min(max(least, torch.finfo(torch.float32).tiny)).sqrt()
    seen, turn = torch.linalg.eigh(orthonormal.T @ _gram(image) @ orthonormal)
    return (orthonormal @ turn).float(), seen


def _gram(x: Tensor) -> Tensor:
    """``x.T @ x`` in float64."""
    return sum(
        (part.T @ part for part in map(Tensor.double, x.split(2**16))), start=x.new_zeros((), dtype=torch.double)
    )


def _whitened_covariance(
    scores: Mapping[str, Tensor], present: Mapping[str, Tensor], whitening: Mapping[str, Tensor]
) -> Tensor:
    """Covariance of the whitened scores of all modalities, each pair over the cells that have both."""
    # of three modalities, two may never meet: their part stays zero
    covariance = torch.block_diag(*(torch.eye(len(w), dtype=torch.double) for w in whitening.values()))
    places = dict(zip(scores, torch.arange(len(covariance)).split([len(whitening[k]) for k in scores]), strict=True))
    for a, b in itertools.permutations(scores, 2):
        both = present[a] & present[b]
        if int(both.sum()) > 1:
            part = whitening[a] @ _covariance(scores[a][both], scores[b][both]) @ whitening[b]
            covariance[places[a][:, None], places[b]] = part
    return covariance


def _scores_of_all_cells(svds: Mapping[str, TruncatedSVD], present: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {k: scatter_rows(svd.scores, present[k]) for k, svd in svds.items()}


def _scores(blocks: Iterable[Tensor], svd: TruncatedSVD) -> Tensor:
    """Rows of ``blocks`` in the coordinates of ``svd``, ``(cells, k)``."""
    offset = svd.mean @ svd.components
    parts = [(product(block, svd.components) - offset).cpu() for block in blocks]
    return torch.cat([svd.scores.new_zeros(0, svd.scores.shape[1]), *parts])


def _covariance(a: Tensor, b: Tensor) -> Tensor:
    return (a - a.mean(0)).T @ (b - b.mean(0)) / len(a)


def ridged(moments: Tensor, ridge: float) -> Tensor:
    """Second moments ``(k, k)`` with ``ridge`` times their mean added to the diagonal; finite without any variance too."""
    mean = moments.diagonal().mean().clamp_min(torch.finfo(torch.float32).tiny)
    return moments + ridge * mean * torch.eye(len(moments), dtype=moments.dtype, device=moments.device)


def power(moments: Tensor, exponent: float) -> Tensor:
    """Power of a symmetric, positive definite matrix ``(k, k)``."""
    values, vectors = torch.linalg.eigh(moments)
    return vectors * values**exponent @ vectors.T
