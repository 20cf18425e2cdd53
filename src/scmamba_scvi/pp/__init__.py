"""Steps before the network: features to patches along the genome, counts to the values that the network reads."""

from ._genome import annotate_genome
from ._layout import FeatureLayout, feature_layout
from .values import VALUE_TRANSFORMS, ValueTransform, value_transform

__all__ = [
    "VALUE_TRANSFORMS",
    "FeatureLayout",
    "ValueTransform",
    "annotate_genome",
    "feature_layout",
    "value_transform",
]
