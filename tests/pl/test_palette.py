from __future__ import annotations

import itertools

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from scmamba_scvi.pl._palette import FEW, MISSING, modality_colors, palette

#: How dichromats see linear sRGB (Machado, Oliveira and Fernandes 2009, severity 1).
VISION = {
    "usual": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def lab_of(color, vision="usual"):
    """From sRGB to CIELAB under D65 (IEC 61966-2-1, CIE 15)."""
    rgb = np.array(to_rgb(color))
    linear = np.clip(VISION[vision] @ np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4), 1e-6, 1)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    x, y, z = np.cbrt(to_xyz @ linear / np.array([0.9505, 1.0, 1.089]))
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


def test_palette_is_stable_and_its_colours_are_apart():
    colors = palette(40)
    assert palette(22) == colors[:22] and palette(5) == list(FEW[:5])
    lab = np.array([lab_of(c) for c in (*colors[:22], MISSING)])
    distance = np.sqrt(((lab[:, None] - lab) ** 2).sum(-1))[np.triu_indices(23, 1)]
    assert distance.min() > 15  # a difference of about 2 can be seen side by side
    assert len(set(palette(100))) == 100


def test_modalities_have_a_colour_each_and_a_kind_keeps_its_own():
    assert modality_colors(["rna", "atac"]) == modality_colors(["gex", "peaks"]) == list(FEW[:2])
    for keys in (["rna", "gex"], ["adt", "prot", "rna"], ["atac", "peaks", "methylation"]):
        assert len(set(modality_colors(keys))) == len(keys)
        assert modality_colors(keys)[0] == modality_colors(keys[:1])[0]


@pytest.mark.parametrize("vision", VISION)
def test_cells_of_the_modalities_are_told_apart_where_they_mix(vision):
    """Tritanopia is how everybody sees very small points, lightness alone a print in grey."""
    for a, b in itertools.combinations(modality_colors(["rna", "atac", "protein"]), 2):
        assert np.linalg.norm(np.subtract(lab_of(a, vision), lab_of(b, vision))) > 40
        assert abs(lab_of(a)[0] - lab_of(b)[0]) > 10
