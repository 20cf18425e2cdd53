"""Cell types on the frozen joint embedding: learned from labelled cells, predicted for cells of any set of modalities."""

import itertools
import numbers
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData
from scvi import settings

from ..._arguments import listed
from ..._columns import obs_column
from ..._compat import warn
from ..._keys import JOINT
from ...errors import ScmambaError
from ..inputs.arguments import check_fraction
from ..inputs.kinds import kinds_in
from ..inputs.manager import MultiModalManager
from .cells import key_of, kind_of, registered, resolve_cells, warn_of_unread
from .embedding import EmbeddingMixin
from .linear_classifier import LinearClassifier, fit_linear_classifier


class ClassifierMixin(EmbeddingMixin):
    """`train_classifier` and `predict`."""

    def train_classifier(
        self,
        adata: MuData | AnnData | None = None,
        *,
        labels_key: str | None = None,
        unlabeled_category: str | float | None = None,
        batch_size: int | None = None,
    ) -> None:
        """Learn labels from the joint embedding, which stays as it is.

        There is a logistic regression for every set of modalities that cells may have, trained on cells embedded from these
        alone: cells of RNA alone lie elsewhere in the embedding than cells with all modalities. The penalty of each, and the
        temperature that calibrates it, are those with the least loss on cells that it has not seen (five-fold; [Guo17]_).
        Cells are weighted by one over the root of the frequency of their label, between equal weights of all cells, which
        favour frequent types, and of all types.
        :meth:`save` and :meth:`export` keep the classifier; training the model again discards it.

        Parameters
        ----------
        adata
            Labelled cells: MuData, or AnnData of one modality. `None`: those of the model.
        labels_key
            Column of ``obs``. `None`: the ``labels_key`` of `setup_mudata`.
        unlabeled_category
            Label of cells whose type is not known; cells with a missing value are taken so, too. `None`: the one of
            `setup_mudata`.
        batch_size
            Cells of a minibatch; changes speed only.

        Raises
        ------
        ScmambaError
            No such column, fewer than two labels or a label with a single cell, or the model is not trained.

        References
        ----------
        .. [Guo17] Guo et al., On calibration of modern neural networks, ICML 2017.

        Examples
        --------
        >>> model.train_classifier(labels_key="cell_type")
        >>> model.predict(soft=True).columns.tolist()
        ['type_1', 'type_2', 'type_3']
        """
        setup = self._setup_args
        labels_key = setup["labels_key"] if labels_key is None else labels_key
        unknown = setup["unlabeled_category"] if unlabeled_category is None else unlabeled_category
        classifiers: dict[str, dict[str, Any]] = {}
        data = registered(self, adata)
        warn_of_unread(self, data.adata)
        labels = _labels(data.adata, labels_key, unknown)
        kinds = list(kinds_in(data.adata, self.kinds))
        for n_kinds in range(len(kinds), 0, -1):
            for subset in itertools.combinations(kinds, n_kinds):
                found = self._fit_classifier(data, subset, labels, batch_size)
                if found is not None:
                    classifiers["+".join(subset)] = found.to_dict()
        if not classifiers:
            raise ScmambaError(
                f"Of the modalities {kinds}, none has labelled cells of two labels with at least two cells each."
            )
        self.classifier_ = {"labels_key": labels_key, "by_modalities": classifiers}

    def predict(
        self,
        adata: MuData | AnnData | None = None,
        indices: Sequence[int] | Sequence[bool] | np.ndarray | None = None,
        *,
        modality: str | None = None,
        soft: bool = False,
        threshold: float = 0.0,
        batch_size: int | None = None,
    ) -> np.ndarray | pd.DataFrame:
        """Labels of cells, each predicted from the modalities that were measured in it.

        Parameters
        ----------
        adata
            MuData, which may lack modalities, or AnnData of one. `None`: the MuData of the model.
        indices
            Cells, positions in ``obs`` or a mask. `None`: all.
        modality
            Read this modality only, as if nothing else had been measured. `None` or ``"joint"``: all that a cell has.
        soft
            Probabilities instead of labels.
        threshold
            Cells whose best label is less probable than this get the label ``"unsure"``; with 0, no cell does.
            Probabilities are calibrated for cells like those that had labels: a cell of a type that none of them had may get
            a label with confidence.
        batch_size
            Cells of a minibatch; changes speed only.

        Returns
        -------
        Labels ``(n_cells,)`` as text, also those that were numbers; or with ``soft`` a DataFrame of probabilities, cells by
        labels. Cells are in the order of ``obs`` or of ``indices``; those without the modality, or with none that the model
        knows, are `None` or NaN, with one warning.

        Raises
        ------
        ScmambaError
            No classifier was trained, or none for the modalities of these cells, or ``threshold`` is outside 0 to 1.

        Examples
        --------
        >>> model.train_classifier(labels_key="cell_type")
        >>> # "unsure" where the probability is below 0.7
        >>> mdata.obs["predicted"] = model.predict(threshold=0.7)
        >>> # cells with RNA alone
        >>> model.predict(mdata["rna"][:5], soft=True).shape
        (5, 3)
        """
        if self.classifier_ is None:
            raise ScmambaError("There is no classifier yet: model.train_classifier(labels_key=...) makes one.")
        check_fraction("threshold", threshold, "a probability")
        classifiers = {
            key: LinearClassifier.from_dict(values) for key, values in self.classifier_["by_modalities"].items()
        }
        kind = None if modality == JOINT else kind_of(self, modality)
        data = registered(self, adata, kind)
        cells = resolve_cells(indices, data.adata.obs_names)
        if kind is not None:
            key_of(self, data.adata, kind)
        found = self._probabilities(classifiers, data, cells, batch_size, None if kind is None else [kind])
        found = found.set_axis(data.adata.obs_names[cells])
        n_missing = int(found.iloc[:, 0].isna().sum())
        if n_missing:
            warn(f"{n_missing:,} of {len(found):,} cells have nothing to predict from: they get no label.")
        return found if soft else _most_probable(found, threshold)

    def _fit_classifier(
        self, data: MultiModalManager, subset: Sequence[str], labels: pd.Series, batch_size: int | None
    ) -> LinearClassifier | None:
        """Of cells that have all of ``subset``, embedded from these alone; `None` if fewer than two labels have two cells."""
        known = labels.dropna()
        for kind in subset:
            known = known[known.index.isin(data.adata.mod[self.kinds[kind]].obs_names)]
        counts = known.value_counts()
        known = known[known.isin(counts.index[counts >= 2])]
        if known.nunique() < 2:
            return None
        absent = sorted(set(labels.dropna()) - set(known))
        if absent:
            warn(
                f"Fewer than two cells with {' and '.join(subset)} have the labels {absent[:5]}: cells with just these "
                f"modalities will not be given them."
            )
        z = self._embed(data, None, data.adata.obs_names.get_indexer(known.index), batch_size, subset)
        return fit_linear_classifier(z, known.to_numpy(), settings.seed or 0)

    def _probabilities(
        self,
        classifiers: Mapping[str, LinearClassifier],
        data: MultiModalManager,
        cells: np.ndarray,
        batch_size: int | None,
        reads: Sequence[str] | None,
    ) -> pd.DataFrame:
        """Probabilities of ``cells``, by the classifier for the modalities of each, or for those of them that it ``reads``."""
        labels = pd.Index(dict.fromkeys(label for one in classifiers.values() for label in one.classes), dtype=object)
        out = np.full((len(cells), len(labels)), np.nan)
        measured = self._measured_kinds(data.adata, reads or list(self.kinds))[cells]
        asked = np.flatnonzero(measured != "")
        z = np.empty((len(cells), self.config.n_latent), dtype=np.float32)
        if len(asked):
            z[asked] = self._embed(data, None, cells[asked], batch_size, reads)
        for key in pd.unique(measured[asked]):
            rows = np.flatnonzero(measured == key)
            if key not in classifiers:
                raise ScmambaError(
                    f"{len(rows):,} cells have {key} only, and the classifier was trained on cells with "
                    f"{list(classifiers)}: train it on labelled cells that have {key}."
                )
            out[rows] = 0
            columns = labels.get_indexer(classifiers[key].classes)
            out[np.ix_(rows, columns)] = np.exp(classifiers[key].log_proba(z[rows]))
        return pd.DataFrame(out, columns=labels)

    def _measured_kinds(self, mdata: MuData, kinds: Sequence[str]) -> np.ndarray:
        """Those of ``kinds`` that each cell of ``mdata`` has, in the order of the model: ``"rna+atac"``, ``""`` for none."""
        out = np.full(mdata.n_obs, "", dtype=object)
        for kind, key in kinds_in(mdata, {kind: self.kinds[kind] for kind in kinds}).items():
            out[mdata.obs_names.isin(mdata.mod[key].obs_names)] += f"+{kind}"
        return np.array([names.removeprefix("+") for names in out], dtype=object)


def _labels(mdata: MuData, labels_key: str | None, unknown: str | float) -> pd.Series:
    """Label of each cell as text, missing where it is not known; at least two labels, each of at least two cells."""
    if labels_key is None:
        raise ScmambaError(
            "Which labels? setup_mudata was given no labels_key: name the column, train_classifier(labels_key=...)."
        )
    labels = known_labels(obs_column(mdata, labels_key, "labels_key"), unknown)
    counts = labels.value_counts()
    if len(counts) < 2:
        raise ScmambaError(
            f"A classifier needs at least two labels; {labels_key!r} has {list(counts.index)} in "
            f"{int(counts.sum()):,} labelled cells (cells with the label {unknown!r} count as unlabelled)."
        )
    single = sorted(counts.index[counts < 2])
    if single:
        raise ScmambaError(
            f"Labels of a single cell can be neither learned nor checked: {listed(list(map(repr, single)), 5)}. Merge them "
            f"with others, or call them unknown: obs[{labels_key!r}] = obs[{labels_key!r}].astype('string')"
            f".replace({{{single[0]!r}: {unknown!r}}}), in the obs that has this column."
        )
    return labels


def known_labels(column: pd.Series, unknown: str | float) -> pd.Series:
    """Labels as text, missing where they are, or are the one that stands for an ``unknown`` type."""
    column = column.astype(object)
    labels = column.where(column.notna(), None).map(str, na_action="ignore")
    return labels.where((labels != str(unknown)) & ~_equal_numbers(column, unknown), None)


def _equal_numbers(column: pd.Series, value: str | float) -> pd.Series:
    """Which entries are the number ``value``: -1 is -1.0 in a column of floats, as one of whole numbers with gaps becomes."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return pd.Series(False, index=column.index)
    is_number = column.map(lambda entry: isinstance(entry, numbers.Real) and not isinstance(entry, bool | np.bool_))
    return is_number & (column == number)


def _most_probable(found: pd.DataFrame, threshold: float) -> np.ndarray:
    """Most probable label of each cell, ``"unsure"`` below the threshold, `None` where no probability is known."""
    values = found.fillna(-1.0).to_numpy()
    out = found.columns.to_numpy(dtype=object)[values.argmax(axis=1)]
    out[values.max(axis=1) < threshold] = "unsure"
    out[found.isna().any(axis=1)] = None
    return out
