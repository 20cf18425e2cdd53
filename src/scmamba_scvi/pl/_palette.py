"""Colours for categories: safe for every kind of colour vision while they are few, as different as possible when many."""

from collections.abc import Sequence
from typing import Final

from .._keys import Kind, kind_of_key

#: Okabe & Ito's colours for all kinds of colour vision, strongest contrast first, without black, which is for text.
FEW: Final = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442")
#: Those for thin lines: yellow is too pale on white.
LINES: Final = FEW[:-1]
#: Those of the kinds of modality, whose cells mix: apart for every kind of colour vision, also as small points, where blue and
#: green look alike, and in lightness.
OF_KIND: Final[dict[Kind, str]] = {"rna": FEW[0], "atac": FEW[1], "protein": "#A50F15"}
#: Grey, for cells without a value.
MISSING: Final = "#D0D0D0"
#: Those for more categories: each is the one farthest in CIELAB from `FEW`, `MISSING` and all before it, among colours that
#: are neither too pale nor too dark for points on white. Scanpy's longer palettes hold greys and nearly white colours.
_MORE: Final = """
4B3C0F 690F87 87001E 5A9600 FFA587 9687FF 004B4B C3C378 FF4B78 5A2D4B 004B00 B40078 5AE178 3CE1E1 FF96FF 877800
788769 003C96 D2C3FF A55A2D 966969 875AA5 96D2A5 2D9696 F05A4B 69964B 2D96FF FF69B4 FFB4C3 3C4B69 D2964B 692D1E
00E1B4 8787B4 A51E00 C35A69 00963C A5D25A 871E4B C3A587 B44BB4 C3B43C 0F694B 781E69 87C3D2 0F7896 0F69E1 B4004B
4B5A00 96874B FFB4F0 D2A5FF 784BC3 FF964B 69C378 FF87A5 87A5F0 F0C387 4B4B87 B46900 00C3E1 C3A5C3 3C4B2D 879600
693C00 C37869 875A3C 6978D2 C34B87 781E00 00783C 785A78 964B78 C378F0 C32D3C 96691E 69A587 A5B487 B487C3 B48700
4B2D78 FF7878 2D780F A5C3F0 E1785A C39696 B44B3C 69C34B F0C33C B4C32D 00B4A5 F087D2 5A3C2D
"""


def palette(n: int) -> list[str]:
    """``n`` colours, at most 100, which begin every longer palette."""
    return [*FEW, *(f"#{color}" for color in _MORE.split())][:n]


def modality_colors(keys: Sequence[str]) -> list[str]:
    """A colour per key of ``mdata.mod``: that of its kind, whatever stands beside it; others get the next ones.

    Of two keys of one kind, the later one is one of the others.
    """
    kinds: list[str] = []
    for key in keys:
        kind = kind_of_key(key) or key
        kinds.append(key if kind in kinds else kind)
    others = [kind for kind in dict.fromkeys(kinds) if kind not in OF_KIND]
    color = dict(zip([*OF_KIND, *others], [*OF_KIND.values(), *palette(2 + len(others))[2:]], strict=True))
    return [color[kind] for kind in kinds]
