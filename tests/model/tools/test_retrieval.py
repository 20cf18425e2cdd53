"""The search beside numpy, and its memory."""

import subprocess
import sys

import numpy as np
import pytest
from scipy.special import softmax
from shapes import pairs_of_vectors, unit

from scmamba_scvi.model.tools.retrieval import log_evidence, nearest_references


@pytest.mark.parametrize(("n", "m", "k"), [(7, 5, 5), (300, 200, 1), (120, 6000, 10)])
def test_search_is_that_of_numpy(n, m, k):
    q, r = unit(np.random.default_rng(1).normal(size=(n, 8))), unit(np.random.default_rng(2).normal(size=(m, 8)))
    found = nearest_references(q, r, k, temperature=0.1)
    cosine = q.astype(np.float64) @ r.T.astype(np.float64)
    order = np.argsort(-cosine, axis=1)[:, :k]
    np.testing.assert_array_equal(found.indices, order)
    np.testing.assert_allclose(found.cosine, np.take_along_axis(cosine, order, 1), atol=1e-5)
    fraction = softmax(cosine / 0.1, axis=1)
    np.testing.assert_allclose(found.confidence, np.take_along_axis(fraction, order, 1), atol=1e-5)


def test_an_excluded_reference_neither_matches_nor_counts():
    q, r = unit(np.random.default_rng(1).normal(size=(9, 4))), unit(np.random.default_rng(2).normal(size=(20, 4)))
    exclude = np.array([3, -1, 0, 19, -1, 5, 5, 7, 2])
    found = nearest_references(q, r, 19, 0.2, exclude)
    for i, j in enumerate(exclude):
        assert j not in found.indices[i] or j < 0
        alone = nearest_references(q[i : i + 1], np.delete(r, j, 0) if j >= 0 else r, 19, 0.2)
        np.testing.assert_allclose(found.confidence[i], alone.confidence[0], atol=1e-6)


def test_evidence_is_pointwise_mutual_information():
    x, y = pairs_of_vectors(50)
    cosine = x.astype(np.float64) @ y.T.astype(np.float64)
    ratio = np.exp(cosine / 0.2)
    want = cosine.diagonal() / 0.2 - (np.log(ratio.mean(0)) + np.log(ratio.mean(1))) / 2
    np.testing.assert_allclose(log_evidence(x, y, 0.2), want, atol=1e-5)


def test_memory_does_not_grow_with_queries_times_references():
    """12,000 cells in 12,000: all cosines together would be 576 MB."""
    code = (
        "import resource, numpy as np; from scmamba_scvi.model.tools.retrieval import nearest_references as search\n"
        "x = np.random.default_rng(0).normal(size=(12_000, 16)).astype(np.float32)\n"
        "x /= np.linalg.norm(x, axis=1, keepdims=True); search(x[:500], x[:500], 5, 0.1)\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = peak(); search(x, x, 5, 0.1); print((peak() - before) / 1024)"
    )
    run = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert float(run.stdout.split()[-1]) < 150
