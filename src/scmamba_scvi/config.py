"""Options of the network and of training: two frozen dataclasses and one table of presets."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeAlias, TypeVar

from ._keys import KINDS
from .errors import ScmambaError, UnknownNameError

T = TypeVar("T")
#: Wider than any network that was trained: a larger size is a typing error or an attack.
WIDEST: Final = 65_536
#: Numbers of larger size are infinite in float32.
LARGEST: Final = 3.4e38
#: Options that name one of a few choices.
CHOICES: Final[dict[str, tuple[str, ...]]] = {
    "encoder": ("mamba", "mlp", "linear"),
    "patch_embedding": ("feature", "shared"),
    "pooling": ("mean", "last", "mean+last"),
    "joint": ("shared+own", "shared"),
    "spectral_weights": ("in-sample", "held-out"),
    "pool_norm": ("batch", "tanh", "none"),
    "monitor": ("foscttm_validation", "recall_at_10_validation", "modality_gap_validation", "validation_loss"),
}
#: Options that may be `None`, and their type otherwise.
OPTIONAL: Final[dict[str, type]] = {
    "patch_size": int, "spectral_components": int, "layer_scale": float, "patience": int, "checkpoint_activations": bool,
}  # fmt: skip
#: Options that may hold one value per kind of modality.
PER_KIND: Final = frozenset({"patch_size", "n_layers", "attention_layers", "values"})
#: Types that are accepted for an option, by the type of its default, and their name in messages.
_TYPES: Final[dict[type, tuple[tuple[type, ...], str]]] = {
    bool: ((bool,), "True or False"), int: ((int,), "a whole number"), float: ((int, float), "a finite number"),
    str: ((str,), "text"), tuple: ((tuple, list), "a tuple"),
}  # fmt: skip
#: A value for every kind of modality, or one per kind.
PerKind: TypeAlias = T | Mapping[str, T]


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The network, its start and its loss. Options annotated ``PerKind`` also take a dict, from kind of modality to value.

    Examples
    --------
    >>> config.ModelConfig(n_latent=32).encoder
    'mamba'
    """

    # -- architecture
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
    pool_norm: str = "batch"  # between pooling and head: "batch" | "tanh" | "none"
    # -- start of training
    skip: bool = True  # linear map from the summed token embeddings to the latent space
    spectral: bool = True  # start the skip at the correlation-weighted CCA of the training cells
    spectral_components: int | None = None  # None: n_latent, fewer on few cells
    # how directions are weighted: by their correlations on held-out cells, or "in-sample", on the cells they come from
    spectral_weights: str = "held-out"
    gate_init: float = 0.0  # the network's part of the embedding starts at this multiple
    layer_scale: float | None = 0.01  # residual branches start at this multiple; None: no LayerScale
    # -- joint embedding
    # "shared+own": the views beside the reliable components of each modality; "shared": the mean of the views
    joint: str = "shared+own"
    joint_shared_weight: float = 0.5  # weight of the views beside the components; only read by "shared+own"
    correct_batches: bool = True  # subtract the offsets of batches; needs a batch_key and "shared+own"
    # -- value transforms
    values: PerKind[str] = dataclasses.field(
        default_factory=lambda: {"rna": "pareto", "atac": "tfidf", "protein": "clr"}
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
    # -- how it is computed: results are equal up to rounding
    ssd_backend: str = "auto"
    compile: bool = False  # torch.compile of every block: a minute at the first step, fewer passes over memory on CUDA

    def __post_init__(self) -> None:
        _check_kinds(self)
        _use_plain_numbers(self)
        _check_types(self)
        _check_choices(self)
        for name in ("n_latent", "max_patches", "d_feature", "d_model", "d_state", "expand", "headdim", "d_conv", "d_mlp",
                     "attention_heads", "n_bins", "spectral_components", "patch_size"):  # fmt: skip
            _check_range(self, name, 1, WIDEST)
        for name in ("n_layers", "d_head", "contrastive_weight", "cosine_weight", "joint_shared_weight"):
            _check_range(self, name, 0, WIDEST)
        _check_positive(self, "temperature")
        for name in ("mask_rate", "dropout"):
            _check_share(self, name)
        self._check_attention_layers()
        self._check_start()
        self._check_widths()

    def _check_attention_layers(self) -> None:
        for layer in (i for layers in _values_of(self.attention_layers) for i in layers):
            if isinstance(layer, bool) or not isinstance(layer, int) or layer < 0:
                raise ScmambaError(f"attention_layers must be indices of layers, counted from 0, got {layer!r}.")

    def _check_start(self) -> None:
        """Something has to reach the embedding before training."""
        if self.encoder == "linear" and not self.skip:
            raise ScmambaError("encoder='linear' has nothing but the skip: leave skip=True.")
        if not self.skip and self.gate_init == 0:
            raise ScmambaError(
                "gate_init=0 without a skip starts every embedding at zero: pass gate_init=1 or skip=True."
            )
        if self.encoder == "mamba" and self.patch_embedding == "shared" and self.spectral and self.skip:
            raise ScmambaError(
                "patch_embedding='shared' has no vector per feature to hold the spectral start: pass spectral=False or "
                "patch_embedding='feature'."
            )

    def _check_widths(self) -> None:
        """Heads divide the inner width, and features are wide enough for the spectral start."""
        d_inner = self.expand * self.d_model
        if d_inner % self.headdim:
            raise ScmambaError(
                f"expand * d_model = {d_inner} must be a multiple of headdim = {self.headdim}: "
                f"choose headdim among the divisors, such as {_largest_divisor(d_inner, self.headdim)}."
            )
        if self.spectral and self.skip and self.patch_embedding == "feature" and self.d_feature < self.n_latent:
            raise ScmambaError(
                f"d_feature = {self.d_feature} must be at least n_latent = {self.n_latent} to hold the spectral start: "
                f"raise d_feature or pass spectral=False."
            )

    @property
    def corrects_batches(self) -> bool:
        """Whether the offsets of batches are subtracted from the joint embedding, given a ``batch_key``."""
        return self.correct_batches and self.joint == "shared+own"

    def of_kind(self, name: str, kind: str) -> Any:
        """Value of option ``name`` for modalities of ``kind``.

        Raises
        ------
        ScmambaError
            If the option has values for other kinds only.

        Examples
        --------
        >>> config.ModelConfig(n_layers={"rna": 1, "atac": 2}).of_kind("n_layers", "atac")
        2
        """
        value = getattr(self, name)
        if not isinstance(value, Mapping):
            return value
        if kind not in value:
            raise ScmambaError(f"{name} has no value for {kind!r}: add one to {dict(value)}.")
        return value[kind]

    def to_dict(self) -> dict[str, Any]:
        """Plain values of all options.

        Examples
        --------
        >>> config.ModelConfig(n_latent=32).to_dict()["n_latent"]
        32
        """
        return dataclasses.asdict(self)

    def architecture(self) -> dict[str, Any]:
        """Plain values of all options but those of how it is computed (`RUNTIME`): what is saved with a model.

        Examples
        --------
        >>> "compile" in config.ModelConfig(compile=True).architecture()
        False
        """
        return {name: value for name, value in self.to_dict().items() if name not in RUNTIME}


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How a model is trained; `train(plan_kwargs={...})` overrides options.

    Examples
    --------
    >>> config.TrainConfig(monitor="recall_at_10_validation").monitor_mode
    'max'
    """

    lr: float = 5e-4  # of the network
    spectral_lr: float = 3e-4  # of the parameters that hold the spectral start: low, since they start good
    linear_first: bool = True  # train the linear part alone before the network may add to it; needs skip, gate_init=0
    weight_decay: float = 0.05
    warmup: float = 0.1  # share of the steps with a rising learning rate
    gradient_clip: float = 1.0  # largest norm of the gradient
    patience: int | None = None  # epochs without better held-out retrieval before training stops; None: by their length
    monitor: str = "foscttm_validation"  # score that early stopping watches, see `CHOICES`
    batch_pure: bool = False  # fill each minibatch from one batch of batch_key, so that the batch tells no cells apart
    # compute activations of blocks again in the backward pass instead of keeping them: a third slower, a fraction of the
    # memory; None: only where the activations of a minibatch do not fit on the GPU
    checkpoint_activations: bool | None = None
    max_validation_cells: int = 5_000  # enough to tell FOSCTTM 0.08 from 0.09; more only cost training cells
    buffer_mb: float = 1024.0  # memory for reading counts from a file; data in memory are not copied

    def __post_init__(self) -> None:
        _use_plain_numbers(self)
        _check_types(self)
        _check_choices(self)
        for name in ("lr", "spectral_lr", "buffer_mb"):
            _check_positive(self, name)
        for name in ("weight_decay", "gradient_clip", "max_validation_cells"):
            _check_range(self, name, 0, math.inf)
        _check_range(self, "patience", 1, math.inf)
        _check_share(self, "warmup")

    @property
    def monitor_mode(self) -> str:
        """``"min"`` or ``"max"``: whether a lower or a higher value of the monitor is better."""
        return "max" if self.monitor.startswith("recall") else "min"


#: Options of how the network is computed on this machine. They are not saved: a model that is loaded has the defaults.
RUNTIME: Final = frozenset({"ssd_backend", "compile"})
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
    """Configuration of the preset with ``overrides`` applied; a dict per kind changes the kinds it names only.

    Raises
    ------
    UnknownNameError
        For a preset or an option that does not exist.
    ScmambaError
        For a value that cannot be used.

    Examples
    --------
    >>> config.resolve_config("small", n_latent=32).n_latent
    32
    """
    if preset not in PRESETS:
        raise UnknownNameError("preset", preset, PRESETS)
    _check_names("model option", overrides, ModelConfig)
    config = ModelConfig(**PRESETS[preset])
    for name, value in overrides.items():
        default = getattr(config, name)
        if isinstance(default, Mapping) and isinstance(value, Mapping):
            overrides[name] = {**default, **value}
    return dataclasses.replace(config, **overrides)


def resolve_train_config(**overrides: Any) -> TrainConfig:
    """Training configuration with ``overrides`` applied.

    Raises
    ------
    UnknownNameError
        For an option that does not exist.
    ScmambaError
        For a value that cannot be used.

    Examples
    --------
    >>> config.resolve_train_config(batch_pure=True).batch_pure
    True
    """
    _check_names("training option", overrides, TrainConfig)
    return TrainConfig(**overrides)


def _check_names(what: str, names: Iterable[str], config_class: type[ModelConfig | TrainConfig]) -> None:
    known = [field.name for field in dataclasses.fields(config_class)]
    for name in names:
        if name not in known:
            raise UnknownNameError(what, name, known)


def _check_kinds(config: ModelConfig) -> None:
    for field in dataclasses.fields(config):
        entry = getattr(config, field.name)
        for kind in entry if isinstance(entry, Mapping) else ():
            if kind not in KINDS:
                raise UnknownNameError(f"kind of modality in {field.name}", kind, KINDS)


def _use_plain_numbers(config: ModelConfig | TrainConfig) -> None:
    """Replace numbers of numpy and torch, which JSON cannot hold, by those of Python."""
    for field in dataclasses.fields(config):
        object.__setattr__(config, field.name, _plain(getattr(config, field.name)))


def _plain(entry: Any) -> Any:
    if isinstance(entry, Mapping):
        return {kind: _plain(value) for kind, value in entry.items()}
    if isinstance(entry, tuple | list):
        return type(entry)(_plain(value) for value in entry)
    return entry.item() if getattr(entry, "ndim", None) == 0 else entry


def _check_types(config: ModelConfig | TrainConfig) -> None:
    """Every value is of the type of its option, and numbers are finite."""
    for field in dataclasses.fields(config):
        entry = getattr(config, field.name)
        accepted, words = _TYPES[_type_of(field)]
        for value in _values_of(entry) if field.name in PER_KIND else [entry]:
            if value is None and field.name in OPTIONAL:
                continue
            is_bool_by_mistake = isinstance(value, bool) and bool not in accepted  # Python counts True as an int
            is_infinite = isinstance(value, int | float) and not abs(value) <= LARGEST
            if not isinstance(value, accepted) or is_bool_by_mistake or is_infinite:
                raise ScmambaError(f"{field.name} must be {words}, got {value!r}.")


def _type_of(field: dataclasses.Field) -> type:
    if field.name == "values":  # its default is a dict, a value per kind
        return str
    return OPTIONAL.get(field.name, type(field.default))


def _values_of(entry: Any) -> list[Any]:
    return list(entry.values()) if isinstance(entry, Mapping) else [entry]


def _check_choices(config: ModelConfig | TrainConfig) -> None:
    for field in dataclasses.fields(config):
        value, known = getattr(config, field.name), CHOICES.get(field.name)
        if known and value not in known:
            raise UnknownNameError(field.name, value, known)


def _check_range(config: ModelConfig | TrainConfig, name: str, least: float, most: float) -> None:
    for value in _values_of(getattr(config, name)):
        if value is not None and not least <= value <= most:
            bound = f"at least {least}" if value < least else f"at most {most:,}"
            raise ScmambaError(f"{name} must be {bound}, got {value}.")


def _check_positive(config: ModelConfig | TrainConfig, name: str) -> None:
    if not getattr(config, name) > 0:
        raise ScmambaError(f"{name} must be above 0, got {getattr(config, name)}.")


def _check_share(config: ModelConfig | TrainConfig, name: str) -> None:
    if not 0 <= getattr(config, name) < 1:
        raise ScmambaError(f"{name} must be in [0, 1), got {getattr(config, name)}.")


def _largest_divisor(n: int, at_most: int) -> int:
    return max(k for k in range(1, at_most + 1) if n % k == 0)
