"""The network, in torch alone: tokens from counts, Mamba2 blocks, pooling, the loss, and the initialization."""

from .alignment import Alignment
from .attention import Attention
from .block import Block, GatedMLP
from .encoder import Encoder
from .losses import Temperature, cosine_distance, info_nce, multimodal_loss
from .mamba2 import Mamba2
from .tokenizer import FeatureEmbedding, PatchTokenizer

__all__ = [
    "Alignment",
    "Attention",
    "Block",
    "Encoder",
    "FeatureEmbedding",
    "GatedMLP",
    "Mamba2",
    "PatchTokenizer",
    "Temperature",
    "cosine_distance",
    "info_nce",
    "multimodal_loss",
]
