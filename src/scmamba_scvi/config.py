"""Options of the network and of training: two frozen dataclasses and one table of presets."""

import dataclasses
import numbers
from collections.abc import Callable, Iterable, Mapping
from types import NoneType
from typing import Annotated, Any, Final, Literal, NamedTuple, TypeAlias, TypeVar, get_args, get_origin, get_type_hints

from ._keys import KINDS
from .errors import ScmambaError, UnknownNameError, written

T = TypeVar("T")
#: Wider than any network that was trained: a larger size is a typing error or an attack.
WIDEST: Final = 65_536
#: Numbers of larger size are infinite in float32.
LARGEST: Final = 3.4e38


class Rule(NamedTuple):
    """What values of an option must be, in the words of the message that refuses others."""

    words: str
    holds: Callable[[Any], bool]


Size: TypeAlias = Annotated[int, Rule(f"at least 1 and at most {WIDEST:,}", lambda value: 1 <= value <= WIDEST)]
SizeFrom2: TypeAlias = Annotated[int, Rule(f"at least 2 and at most {WIDEST:,}", lambda value: 2 <= value <= WIDEST)]
SizeOrZero: TypeAlias = Annotated[int, Rule(f"at least 0 and at most {WIDEST:,}", lambda value: 0 <= value <= WIDEST)]
Weight: TypeAlias = Annotated[float, Rule(f"at least 0 and at most {WIDEST:,}", lambda value: 0 <= value <= WIDEST)]
Positive: TypeAlias = Annotated[float, Rule("above 0", lambda value: value > 0)]
NotNegative: TypeAlias = Annotated[float, Rule("at least 0", lambda value: value >= 0)]
Fraction: TypeAlias = Annotated[float, Rule("in [0, 1)", lambda value: 0 <= value < 1)]
Layers: TypeAlias = Annotated[
    tuple[int, ...],
    Rule("indices of layers, counted from 0", lambda value: all(type(i) is int and i >= 0 for i in value)),
]
#: A value for every kind of modality, or one per kind.
PerKind: TypeAlias = T | Mapping[str, T]
#: Types that are accepted for an annotated type, and their name in messages.
_TYPES: Final[dict[type, tuple[tuple[type, ...], str]]] = {
    bool: ((bool,), "True or False"), int: ((int,), "a whole number"), float: ((int, float), "a finite number"),
    str: ((str,), "text"), tuple: ((tuple, list), "a tuple"),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The network, its initialization and its loss.

    Options whose type has a ``Mapping`` also take a dict from kind of modality to value.

    Raises
    ------
    ScmambaError
        A value is out of its bounds, or two options exclude each other.

    Examples
    --------
    >>> config.ModelConfig(n_latent=32).encoder
    'mamba'
    """

    # -- architecture
    #: What reads the patches; ``"linear"`` has the linear branch alone.
    encoder: Literal["mamba", "mlp", "linear"] = "mamba"
    #: Dimensions z of the embedding. Of one alone, all vectors of length 1 are the same or opposite.
    n_latent: SizeFrom2 = 64
    #: A vector per feature, or one projection for all patches (the paper).
    patch_embedding: Literal["feature", "shared"] = "feature"
    #: Most features of a patch. None takes so many that ``max_patches`` patches are enough.
    patch_size: PerKind[Size | None] = None
    #: Only read where ``patch_size`` is None. Of a genome with more chromosomes, each is one patch.
    max_patches: Size = 24
    d_feature: Size = 64  #: Width e of the vector of a feature; where it is not given, at least ``n_latent``.
    d_model: Size = 64  #: Width d of a token.
    n_layers: PerKind[SizeOrZero] = 1  #: Number of blocks.
    d_state: Size = 32  #: Size s of the state of a head of Mamba2. Above 128, plain torch scans on a GPU too.
    expand: Size = 1  #: Inner width i of Mamba2 is ``expand * d_model``.
    headdim: Size = 64  #: Width p of a head of Mamba2; divides the inner width.
    d_conv: Size = 4  #: Tokens that the convolution of Mamba2 reads.
    d_mlp: Size = 128  #: Hidden width of the gated MLP of a block.
    bidirectional: bool = False  #: Scan the patches from both ends.
    attention_layers: PerKind[Layers] = ()  #: Indices of blocks that have attention instead of Mamba2.
    attention_heads: Size = 4  #: Heads of these blocks.
    #: How tokens become one vector. It is their mean, the last one (the paper), or the sum of both.
    pooling: Literal["mean", "last", "mean+last"] = "mean"
    d_head: SizeOrZero = 128  #: Hidden width of the projection head; 0 is one linear layer.
    pool_norm: Literal["batch", "none"] = "batch"  #: Normalization between pooling and head.
    # -- initialization
    #: A linear map from the summed feature embeddings to the latent space, beside the network.
    linear_branch: bool = True
    #: Initialize the linear branch with the correlation-weighted CCA of the training cells.
    spectral: bool = True
    #: Components of each modality. None takes ``n_latent``, without accessibility ``2 * n_latent``. Of few cells
    #: there are fewer, also than a number given: one for 8 cells with several modalities, without accessibility for 4.
    spectral_components: SizeFrom2 | None = None
    #: Directions are weighted by their correlations on held-out cells, or on the cells they were fitted to.
    spectral_weights: Literal["in-sample", "held-out"] = "held-out"
    gate_init: float = 0.0  #: Factor of the network's part of the embedding before training.
    #: Factor of residual branches before training (LayerScale). None has no such parameters.
    layer_scale: float | None = 0.01
    #: Bring the modality-specific embeddings together after training, see :class:`scmamba_scvi.nn.Alignment`.
    align: bool = True
    # -- joint embedding
    #: ``"shared+own"`` is the modality-specific embeddings beside the reliable components of each modality, ``"shared"``
    #: the mean of these embeddings.
    joint: Literal["shared+own", "shared"] = "shared+own"
    #: Weight of the embeddings beside the components; only read by ``"shared+own"``.
    joint_shared_weight: Weight = 0.7
    #: Subtract batch offsets; needs a ``batch_key`` and ``"shared+own"``.
    correct_batches: bool = True
    # -- value transforms
    #: A name of :func:`scmamba_scvi.pp.value_transform` per kind of modality.
    values: PerKind[str] = dataclasses.field(
        default_factory=lambda: {"rna": "pareto", "atac": "tfidf", "protein": "clr"}
    )
    n_bins: Size = 51  #: Only read by ``values="binned"``.
    # -- regularization
    mask_rate: Fraction = 0.5  #: Fraction of the input that is masked in a training step.
    dropout: Fraction = 0.1  #: Before the projection head, and in ``encoder="mlp"``.
    # -- loss
    temperature: Positive = 0.07  #: Of the contrastive loss, before training.
    learn_temperature: bool = True  #: Train the temperature too.
    #: With ``"both"`` other cells of the own modality are negatives too, so that modalities do not lie apart; with
    #: ``"other"`` (the paper) only those of other modalities.
    negatives: Literal["both", "other"] = "both"
    contrastive_weight: Weight = 1.0  #: Weight of the contrastive loss.
    cosine_weight: Weight = 0.0  #: Weight of the cosine term. The paper has 1, which finds no more true matches here.
    # -- how it is computed: results are equal up to rounding; not saved, a model that is loaded has the default
    ssd_backend: str = "auto"  #: See :func:`scmamba_scvi.ops.backend.ssd`.

    def __post_init__(self) -> None:
        _check_options(self)
        if self.encoder == "linear" and not self.linear_branch:
            raise ScmambaError("encoder='linear' has nothing but the linear branch: leave linear_branch=True.")
        if not self.linear_branch and self.gate_init == 0:
            raise ScmambaError(
                "gate_init=0 without a linear branch makes every embedding zero: pass gate_init=1 or linear_branch=True."
            )
        d_inner = self.expand * self.d_model
        if d_inner % self.headdim:
            largest = max(n for n in range(1, self.headdim) if d_inner % n == 0)
            raise ScmambaError(
                f"expand * d_model = {d_inner} must be a multiple of headdim = {self.headdim}: "
                f"choose headdim among the divisors, such as {largest}."
            )
        if self.encoder == "mamba":
            self._check_attention()
        if self.spectral and self.linear_branch:
            if self.encoder == "mamba" and self.patch_embedding == "shared":
                raise ScmambaError(
                    "patch_embedding='shared' has no vector per feature to hold the spectral initialization: pass "
                    "spectral=False or patch_embedding='feature'."
                )
            if self.d_feature < self.n_latent:
                raise ScmambaError(
                    f"d_feature = {self.d_feature} must be at least n_latent = {self.n_latent} to hold the spectral "
                    f"initialization: raise d_feature or pass spectral=False."
                )

    def _check_attention(self) -> None:
        """Check that the blocks that are to have attention are there, and that heads can share the width."""
        options = self.attention_layers, self.n_layers
        per_kind = any(isinstance(option, Mapping) for option in options)
        for kind in KINDS:
            if any(isinstance(option, Mapping) and kind not in option for option in options):
                continue  # `of_kind` names it, if the data have this kind
            attention, n_layers = self.of_kind("attention_layers", kind), self.of_kind("n_layers", kind)
            if not attention:
                continue
            if max(attention) >= n_layers:
                of = f" of {kind}" if per_kind else ""
                raise ScmambaError(
                    f"attention_layers = {attention}{of} must be below n_layers = {n_layers}{of}, as blocks are counted from "
                    f"0: change one of them; attention_layers=() has no attention."
                )
            if self.d_model % self.attention_heads:
                raise ScmambaError(
                    f"d_model = {self.d_model} must be a multiple of attention_heads = {self.attention_heads}: change one "
                    f"of them."
                )

    def of_kind(self, name: str, kind: str) -> Any:
        """Value of an option for one kind of modality.

        Parameters
        ----------
        name
            Name of the option.
        kind
            ``"rna"``, ``"atac"`` or ``"protein"``.

        Returns
        -------
        The value, or that of the kind where the option is a dict.

        Raises
        ------
        ScmambaError
            If the option has values for other kinds only.

        Examples
        --------
        >>> deep = config.ModelConfig(n_layers={"rna": 1, "atac": 2})
        >>> deep.of_kind("n_layers", "atac")
        2
        """
        value = getattr(self, name)
        if not isinstance(value, Mapping):
            return value
        if kind not in value:
            raise ScmambaError(f"{name} has no value for {kind!r}: add one to {dict(value)}.")
        return value[kind]

    def architecture(self) -> dict[str, Any]:
        """What is saved with a model.

        Returns
        -------
        A dict of all options but ``ssd_backend``, which says how the model is computed on this machine.

        Examples
        --------
        >>> "ssd_backend" in config.ModelConfig(ssd_backend="torch").architecture()
        False
        """
        return {name: value for name, value in dataclasses.asdict(self).items() if name != "ssd_backend"}


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How a model is trained; `train(plan_kwargs={...})` overrides options.

    Raises
    ------
    ScmambaError
        A value is out of its bounds.

    Examples
    --------
    >>> config.TrainConfig(lr=1e-3).spectral_lr
    0.0003
    """

    lr: Positive = 5e-4  #: Learning rate of the network.
    spectral_lr: Positive = 3e-4  #: Of the linear branch. It is low, since the branch starts good.
    #: Train the linear branch alone before the full network; needs ``linear_branch`` and ``gate_init=0``.
    linear_first: bool = True
    weight_decay: NotNegative = 0.05  #: Of the network's matrices; biases, norms and the linear branch have none.
    warmup: Fraction = 0.1  #: Fraction of the steps with a rising learning rate.
    #: Compute activations of blocks again in the backward pass instead of keeping them. It is a third slower and needs a
    #: fraction of the memory. `None`: as few do so as make a minibatch fit into the free memory of GPU, machine or job.
    checkpoint_activations: bool | None = None
    #: Enough to tell FOSCTTM 0.08 from 0.09; more only cost training cells.
    max_validation_cells: Annotated[int, Rule("at least 0", lambda value: value >= 0)] = 5_000
    buffer_mb: Positive = 1024.0  #: Memory for reading counts from a file; data in memory are not copied.

    def __post_init__(self) -> None:
        _check_options(self)


#: Differences from the defaults above.
PRESETS: Final[dict[str, dict[str, Any]]] = {
    # a laptop: short sequences, narrow network
    "small": {},
    # one GPU
    "base": {"d_model": 256, "max_patches": 256, "n_layers": 4, "d_state": 64, "expand": 2, "headdim": 64, "d_mlp": 512},
    "large": {"d_model": 512, "max_patches": 512, "n_layers": 8, "d_state": 128, "expand": 2, "headdim": 64,
              "d_mlp": 1024, "d_feature": 128},
    # the published shape and loss (arXiv 2506.20697; sizes of its PBMC configuration); BatchNorm before the head, without
    # which it collapses, and masking, without which it learns cells by heart, are not published (docs/paper-preset.md)
    "paper": {"patch_embedding": "shared", "patch_size": {"rna": 256, "atac": 256, "protein": 128}, "d_model": 512,
              "n_layers": {"rna": 10, "atac": 12, "protein": 4}, "d_state": 128, "expand": 2, "headdim": 128,
              "d_mlp": 1024, "attention_layers": (2,), "pooling": "last", "d_head": 0,
              "linear_branch": False, "spectral": False, "gate_init": 1.0, "layer_scale": None, "joint": "shared",
              "values": {"rna": "log1p", "atac": "binary", "protein": "binned"}, "mask_rate": 0.25,
              "temperature": 0.2, "learn_temperature": False, "negatives": "other", "cosine_weight": 1.0,
              "align": False},
}  # fmt: skip


def name_of_preset(preset: str) -> str:
    """The preset that ``"auto"`` stands for, on every machine the same; any other name stays."""
    return "small" if preset == "auto" else preset


def resolve_config(preset: str, **overrides: Any) -> ModelConfig:
    """Configuration of a preset, some options changed.

    Parameters
    ----------
    preset
        ``"small"`` (a laptop; also ``"auto"``), ``"base"`` (one GPU), ``"large"``, or ``"paper"`` (the published shape and
        loss).
    **overrides
        Options of `ModelConfig`. A dict per kind changes the kinds it names only.

    Returns
    -------
    `ModelConfig`.

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
    preset = name_of_preset(preset)
    if preset not in PRESETS:
        raise UnknownNameError("preset", preset, ["auto", *PRESETS])
    check_option_names("model option", overrides, ModelConfig)
    config = ModelConfig(**PRESETS[preset])
    for name, value in overrides.items():
        default = getattr(config, name)
        if isinstance(default, Mapping) and isinstance(value, Mapping):
            overrides[name] = {**default, **value}
    if "d_feature" not in overrides and _holds_initialization(config, overrides):
        overrides["d_feature"] = max(config.d_feature, overrides.get("n_latent", config.n_latent))
    return dataclasses.replace(config, **overrides)


def _holds_initialization(config: ModelConfig, overrides: Mapping[str, Any]) -> bool:
    """Whether the vectors of features hold the spectral initialization, which needs ``n_latent`` dimensions."""
    chosen = {name: overrides.get(name, getattr(config, name)) for name in ("spectral", "linear_branch", "n_latent")}
    return bool(chosen["spectral"] and chosen["linear_branch"]) and isinstance(chosen["n_latent"], numbers.Integral)


def check_option_names(what: str, names: Iterable[str], config_class: type[ModelConfig | TrainConfig]) -> None:
    """Answer a name that is no option of this configuration with the known ones."""
    known = [field.name for field in dataclasses.fields(config_class)]
    for name in names:
        if name not in known:
            raise UnknownNameError(what, name, known)


def _check_options(config: ModelConfig | TrainConfig) -> None:
    """Check every option against its annotation; lists become tuples, numbers of numpy and torch, unknown to JSON, Python's."""
    for name, annotation in get_type_hints(type(config), include_extras=True).items():
        value = _plain(getattr(config, name))
        object.__setattr__(config, name, value)
        _check_option(name, value, annotation)


def _check_option(name: str, value: Any, annotation: Any) -> None:
    types = [annotation] if get_origin(annotation) in (None, Annotated, Literal) else get_args(annotation)
    per_kind = [get_args(a)[1] for a in types if get_origin(a) is Mapping]
    if per_kind and isinstance(value, Mapping):
        for kind, of_kind in value.items():
            if kind not in KINDS:
                raise UnknownNameError(f"kind of modality in {name}", kind, KINDS)
            _check_option(name, of_kind, per_kind[0])
        return
    if value is None and NoneType in types:
        return
    expected, *rules = get_args(types[0]) if get_origin(types[0]) is Annotated else [types[0]]
    choices = get_args(expected) if get_origin(expected) is Literal else ()
    accepted, words = _TYPES[str if choices else get_origin(expected) or expected]
    is_bool_by_mistake = isinstance(value, bool) and bool not in accepted  # Python counts True as an int
    is_infinite = isinstance(value, int | float) and not abs(value) <= LARGEST
    if not isinstance(value, accepted) or is_bool_by_mistake or is_infinite:
        raise ScmambaError(f"{written(name)} must be {words}, got {value!r}.")
    if choices and value not in choices:
        raise UnknownNameError(written(name), value, choices)
    for rule in rules:
        if not rule.holds(value):
            raise ScmambaError(f"{written(name)} must be {rule.words}, got {value!r}.")


def _plain(entry: Any) -> Any:
    if isinstance(entry, Mapping):
        return {kind: _plain(value) for kind, value in entry.items()}
    if isinstance(entry, tuple | list):
        return tuple(_plain(value) for value in entry)
    return entry.item() if getattr(entry, "ndim", None) == 0 else entry
