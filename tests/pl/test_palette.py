from __future__ import annotations

import numpy as np
from matplotlib.colors import to_rgb

from scmamba_scvi.pl._palette import FEW, MISSING, modality_colors, palette


def lab_of(color):
    """From sRGB to CIELAB under D65 (IEC 61966-2-1, CIE 15)."""
    rgb = np.array(to_rgb(color))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
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
