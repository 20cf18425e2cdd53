"""Deep copies and pickles of a model: network, fitted values and registry; data are shared or left out."""

import copy
from typing import Any, Self, TypeVar

from ..._compat import attach_data
from .._base import ModelBase

T = TypeVar("T", bound=ModelBase)


class CopyMixin(ModelBase):
    """`copy.copy`, `copy.deepcopy` and `pickle` of a `BaseModelClass`, whose managers and trainer cannot be copied.

    A copy, deep or not, has its own network and shares the MuData. A pickled model comes back without data, like one that was
    loaded with ``adata=False``: pass data to its methods.
    """

    def __reduce__(self) -> tuple:
        return _restored, (type(self), self._state())

    def __copy__(self) -> Self:  # by default it would come back as a pickled one does, without data
        return copy.deepcopy(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        other = memo[id(self)] = _restored(type(self), copy.deepcopy(self._state(), memo))
        other.module.to(self.module.device)
        if self.adata is not None:
            attach_data(other, self.adata_manager)
        return other

    def _state(self) -> dict[str, Any]:
        return {
            "registry": self.registry_,
            # with how it is computed, which is not saved: the copy runs where the model does
            "arguments": {**self.init_params_["non_kwargs"], "config": self.config},
            "weights": {name: t.detach().cpu() for name, t in self.module.state_dict().items()},
            # by the rule by which scvi-tools saves: names that end in an underscore
            "learned": {
                name: value
                for name, value in vars(self).items()
                if name.endswith("_") and not name.startswith("_") and name not in ("registry_", "init_params_")
            },
        }


def _restored(cls: type[T], state: dict[str, Any]) -> T:
    model = cls(registry=state["registry"], **state["arguments"])
    model.module.load_state_dict(state["weights"])
    model.module.eval()
    for name, value in state["learned"].items():
        setattr(model, name, value)
    return model
