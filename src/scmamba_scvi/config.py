"""Knobs of the network and of training: two frozen dataclasses and one table of presets."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Final, TypeAlias, TypeVar

from ._keys import KINDS
from .errors import ScmambaError, UnknownNameError

T = TypeVar("T")
#: Wider than any network that was trained; what is asked beyond it is a slip or an attack.
WIDEST: Final = 65_536
#: Scores that training can watch.
MONITORS: Final = ("foscttm_validation", "recall_at_10_validation", "modality_gap_validation", "validation_loss")
#: Entries that may be `None`, and what they are otherwise.
OPTIONAL: Final = {
    "patch_size": 1, "spectral_components": 1, "layer_scale": 1.0, "patience": 1, "checkpoint_activations": True,
}  # fmt: skip
#: Entries that may hold a value per kind of modality.
PER_KIND: Final = frozenset({"patch_size", "n_layers", "attention_layers", "values"})
_TYPES: Final[dict[type, tuple[tuple[type, ...], str]]] = {
    bool: ((bool,), "True or False"), int: ((int,), "a whole number"), float: ((int, float), "a finite number"),
    str: ((str,), "text"), tuple: ((tuple, list), "a tuple"),
}  # fmt: skip
#: A value for every kind of modality, or one per kind.
PerKind: TypeAlias = T | Mapping[str, T]


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Shape of the network. Entries that take a dict accept one value per kind of modality.

    Examples
    --------
    >>> config.ModelConfig(n_latent=32).encoder
    'mamba'
    """

    # -- what the network is
    encoder: str = "mamba"  # "mamba" | "mlp" | "linear"
    n_latent: int = 64  # z
    patch_embedding: str = "feature"  # a vector per feature, or one projection "shared" by all patches (the paper)
    patch_size: PerKind[int | None] = None  # features of a patch; None: so many that max_patches patches are enough
    max_patches: int = 24  # only read where patch_size is None
    d_feature: int = 64  # e
    d_model: int = 64  # d
    n_layers: PerKind[int] = 1
    d_state: int = 32  # s
    expand: int = 1  # i = expand * d
    headdim: int = 64  # p
    d_conv: int = 4
    d_mlp: int = 128  # hidden width of the gated MLP of a block
    bidirectional: bool = False
    attention_layers: PerKind[tuple[int, ...]] = ()  # indices of blocks that use attention instead of Mamba2
    attention_heads: int = 4
    pooling: str = "mean"  # "mean" | "last" | "mean+last"
    d_head: int = 128  # hidden width of the head; 0: one linear layer
    pool_norm: str = "batch"  # what stands between pooling and head: "batch" | "tanh" | "none"
    # -- how it starts
    skip: bool = True  # linear map from the summed token embeddings to the latent space
    spectral: bool = True  # start the skip at the correlation-weighted CCA of the training cells
    spectral_components: int | None = None  # None: n_latent, fewer on few cells
    spectral_weights: str = (
        "held-out"  # of the directions: correlations on other cells, or "in-sample", on the cells themselves
    )
    gate_init: float = 0.0  # the network's part of the embedding starts at this multiple
    layer_scale: float | None = 0.01  # residual branches start at this multiple; None: no LayerScale
    # -- what a cell's modalities become together
    joint: str = (
        "shared+own"  # the views beside each modality's reliable components, or the mean of the views, "shared"
    )
    joint_shared_weight: float = 0.5  # of the views beside each modality's components; read by "shared+own"
    correct_batches: bool = True  # take batches' offsets out of the joint embedding; needs a batch_key and "shared+own"
    # -- what the counts become
    values: PerKind[str] = dataclasses.field(
        default_factory=lambda: {"rna": "evened", "atac": "tfidf", "protein": "clr"}
    )
    n_bins: int = 51  # only read by values="binned"
    # -- regularisation
    mask_rate: float = 0.5  # share of the input that is hidden in a training step
    dropout: float = 0.1
    # -- loss
    temperature: float = 0.07
    learn_temperature: bool = True
    contrastive_weight: float = 1.0
    cosine_weight: float = 1.0
    # -- how it is computed; results are equal to rounding
    ssd_backend: str = "auto"
    compile: bool = False  # torch.compile of every block: a minute at the first step, fewer passes over memory on CUDA

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, Mapping):
                continue
            for kind in value:
                if kind not in KINDS:
                    raise UnknownNameError(f"kind of modality in {field.name}", kind, KINDS)
        _check_types(self, PER_KIND)
        _check_choice("encoder", self.encoder, ("mamba", "mlp", "linear"))
        _check_choice("patch_embedding", self.patch_embedding, ("feature", "shared"))
        _check_choice("pooling", self.pooling, ("mean", "last", "mean+last"))
        _check_choice("joint", self.joint, ("shared+own", "shared"))
        _check_choice("spectral_weights", self.spectral_weights, ("in-sample", "held-out"))
        _check_choice("pool_norm", self.pool_norm, ("batch", "tanh", "none"))
        for name in ("n_latent", "max_patches", "d_feature", "d_model", "d_state", "expand", "headdim", "d_conv", "d_mlp",
                     "attention_heads", "n_bins", "spectral_components", "patch_size"):  # fmt: skip
            _check_range(name, getattr(self, name), 1, WIDEST)
        for name in ("n_layers", "d_head", "contrastive_weight", "cosine_weight", "joint_shared_weight"):
            _check_range(name, getattr(self, name), 0, WIDEST)
        if not self.temperature > 0:
            raise ScmambaError(f"temperature must be above 0, got {self.temperature}.")
        for layer in (i for layers in _values_of(self.attention_layers) for i in layers):
            if isinstance(layer, bool) or not isinstance(layer, int):
                raise ScmambaError(f"attention_layers are numbers of layers, got {layer!r}.")
        for name in ("mask_rate", "dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ScmambaError(f"{name} must be in [0, 1), got {getattr(self, name)}.")
        if self.encoder == "linear" and not self.skip:
            raise ScmambaError("encoder='linear' has nothing but the skip: leave skip=True.")
        if not self.skip and self.gate_init == 0:
            raise ScmambaError(
                "gate_init=0 without a skip starts every embedding at zero: pass gate_init=1 or skip=True."
            )
        if self.expand * self.d_model % self.headdim:
            raise ScmambaError(
                f"expand * d_model = {self.expand * self.d_model} must be a multiple of headdim = {self.headdim}: "
                f"choose headdim among the divisors, such as {_largest_divisor(self.expand * self.d_model, self.headdim)}."
            )
        if self.spectral and self.skip and self.patch_embedding == "feature" and self.d_feature < self.n_latent:
            raise ScmambaError(
                f"d_feature = {self.d_feature} must be at least n_latent = {self.n_latent} to hold the spectral start: "
                f"raise d_feature or pass spectral=False."
            )

    @property
    def corrects_batches(self) -> bool:
        """Whether the joint embedding has batches' offsets taken out, given a ``batch_key``."""
        return self.correct_batches and self.joint == "shared+own"

    def of_kind(self, name: str, kind: str) -> Any:
        """Value of entry ``name`` for modalities of ``kind``.

        Examples
        --------
        >>> config.ModelConfig(n_layers={"rna": 1, "atac": 2}).of_kind("n_layers", "atac")
        2
        """
        value = getattr(self, name)
        if not isinstance(value, Mapping):
            return value
        if kind not in value:
            raise ScmambaError(f"{name} says nothing about {kind!r}: add it, it has {dict(value)}.")
        return value[kind]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as they are saved with a model.

        Examples
        --------
        >>> config.ModelConfig(n_latent=32).to_dict()["n_latent"]
        32
        """
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How a model is trained; `train(plan_kwargs={...})` overrides entries.

    Examples
    --------
    >>> config.TrainConfig(monitor="recall_at_10_validation").monitor_mode
    'max'
    """

    lr: float = 5e-4  # of the network
    spectral_lr: float = 3e-4  # of what starts at the spectral solution: slow, it is already good
    linear_first: bool = True  # train the linear part alone before the network may add to it; needs skip, gate_init=0
    weight_decay: float = 0.05
    warmup: float = 0.1  # share of the steps with a rising learning rate
    gradient_clip: float = 1.0  # largest norm of the gradient
    patience: int | None = None  # epochs without better held-out retrieval before training stops; None: by their length
    monitor: str = "foscttm_validation"  # or "recall_at_10_validation", "validation_loss"
    batch_pure: bool = False  # fill each minibatch from one batch of batch_key: what differs is then not the batch
    # compute activations of blocks again in the backward pass instead of keeping them: a third slower, a fraction of the
    # memory; None: on where a GPU could not keep those of a minibatch
    checkpoint_activations: bool | None = None
    max_validation_cells: int = 5_000  # enough to tell 0.08 from 0.09; more only cost training cells
    buffer_mb: float = 1024.0  # memory for counts of data in a file; data in memory are used where they are

    def __post_init__(self) -> None:
        _check_types(self, frozenset())
        _check_choice("monitor", self.monitor, MONITORS)
        for name in ("lr", "spectral_lr", "buffer_mb"):
            if not getattr(self, name) > 0:
                raise ScmambaError(f"{name} must be above 0, got {getattr(self, name)}.")
        for name in ("weight_decay", "gradient_clip", "max_validation_cells"):
            _check_range(name, getattr(self, name), 0, math.inf)
        _check_range("patience", self.patience, 1, math.inf)
        if not 0 <= self.warmup < 1:
            raise ScmambaError(f"warmup must be in [0, 1), got {self.warmup}.")

    @property
    def monitor_mode(self) -> str:
        """Whether a lower or a higher value is better."""
        return "max" if self.monitor.startswith("recall") else "min"


#: Differences from the defaults above.
PRESETS: Final[dict[str, dict[str, Any]]] = {
    # a laptop: short sequences, narrow network
    "small": {},
    # one GPU
    "base": {"d_model": 256, "max_patches": 256, "n_layers": 4, "d_state": 64, "expand": 2, "headdim": 64, "d_mlp": 512},
    "large": {"d_model": 512, "max_patches": 512, "n_layers": 8, "d_state": 128, "expand": 2, "headdim": 64,
              "d_mlp": 1024, "d_feature": 128},
    # the published shape (arXiv 2506.20697; sizes of its PBMC configuration)
    "paper": {"patch_embedding": "shared", "patch_size": {"rna": 256, "atac": 256, "protein": 128}, "d_model": 512,
              "n_layers": {"rna": 10, "atac": 12, "protein": 4}, "d_state": 128, "expand": 2, "headdim": 128,
              "d_mlp": 1024, "attention_layers": (2,), "pooling": "last", "pool_norm": "tanh", "d_head": 0,
              "skip": False, "spectral": False, "gate_init": 1.0, "layer_scale": None, "joint": "shared",
              "values": {"rna": "log1p", "atac": "binary", "protein": "binned"}, "mask_rate": 0.0,
              "temperature": 0.2, "learn_temperature": False},
}  # fmt: skip


def resolve_config(preset: str, **overrides: Any) -> ModelConfig:
    """The preset's configuration with ``overrides`` applied; unknown names are answered with the known ones.

    Examples
    --------
    >>> config.resolve_config("small", n_latent=32).n_latent
    32
    """
    if preset not in PRESETS:
        raise UnknownNameError("preset", preset, PRESETS)
    known = [f.name for f in dataclasses.fields(ModelConfig)]
    for name in overrides:
        if name not in known:
            raise UnknownNameError("model option", name, known)
    config = ModelConfig(**PRESETS[preset])
    for name, value in overrides.items():
        default = getattr(config, name)
        if isinstance(default, Mapping) and isinstance(value, Mapping):
            overrides[name] = {**default, **value}  # naming one kind keeps the others
    return dataclasses.replace(config, **overrides)


def resolve_train_config(**overrides: Any) -> TrainConfig:
    """Training configuration with ``overrides`` applied; unknown names are answered with the known ones.

    Examples
    --------
    >>> config.resolve_train_config(batch_pure=True).batch_pure
    True
    """
    known = [f.name for f in dataclasses.fields(TrainConfig)]
    for name in overrides:
        if name not in known:
            raise UnknownNameError("training option", name, known)
    return TrainConfig(**overrides)


def _check_types(config: ModelConfig | TrainConfig, per_kind: frozenset[str]) -> None:
    """Every entry is of the type of its default, a number where that is `None`; numbers are finite."""
    for field in dataclasses.fields(config):
        own = getattr(config, field.name)
        if hasattr(own, "item"):  # a number of numpy's, which JSON does not know
            object.__setattr__(config, field.name, own.item())
        default = OPTIONAL.get(field.name, field.default)
        for value in (
            _values_of(getattr(config, field.name)) if field.name in per_kind else [getattr(config, field.name)]
        ):
            if field.name in OPTIONAL and value is None:
                continue
            wanted, words = _TYPES[type(default)] if field.name != "values" else _TYPES[str]
            wrong = not isinstance(value, wanted) or (isinstance(value, bool) and bool not in wanted)
            if wrong or (isinstance(value, float) and not math.isfinite(value)):
                raise ScmambaError(f"{field.name} must be {words}, got {value!r}.")


def _values_of(entry: Any) -> list[Any]:
    return list(entry.values()) if isinstance(entry, Mapping) else [entry]


def _check_range(name: str, entry: Any, least: float, most: float) -> None:
    for value in _values_of(entry):
        if value is not None and not least <= value <= most:
            bound = f"at least {least}" if value < least else f"at most {most:,}"
            raise ScmambaError(f"{name} must be {bound}, got {value}.")


def _check_choice(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise UnknownNameError(name, value, known)


def _largest_divisor(n: int, at_most: int) -> int:
    return max(k for k in range(1, at_most + 1) if n % k == 0)
