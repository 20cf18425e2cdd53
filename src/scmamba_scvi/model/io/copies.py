"""Deep copies and pickles of a model: network, fitted values and registry; data are shared or left out."""

from __future__ import annotations

import copy
from typing import Any, Self

import torch

from ..._compat import plain_registry, share_data
from .._base import ModelBase


class CopyMixin(ModelBase):
    """`copy.deepcopy` and `pickle` of a `BaseModelClass`, whose managers and trainer cannot be copied.

    A deep copy has its own network and shares the MuData. A pickled model comes back without data, like one that was
    loaded with ``adata=False``: pass data to its methods.
    """

    def __getstate__(self) -> dict[str, Any]:
        arguments = self.init_params_
        return {
            "registry": plain_registry(self.registry_),
            "arguments": {**arguments["non_kwargs"], **arguments["kwargs"]["overrides"]},
            "weights": {name: t.detach().cpu() for name, t in self.module.state_dict().items()},
            # by the rule by which scvi-tools saves: names that end in an underscore
            "learned": {
                name: value
                for name, value in vars(self).items()
                if name.endswith("_") and not name.startswith("_") and name not in ("registry_", "init_params_")
            },
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        with torch.random.fork_rng(
            devices=[]
        ):  # the weights drawn here are replaced at once: others must not see the draw
            self.__init__(registry=state["registry"], **state["arguments"])
        self.module.load_state_dict(state["weights"])
        self.module.eval()
        for name, value in state["learned"].items():
            setattr(self, name, value)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        other = type(self).__new__(type(self))
        memo[id(self)] = other
        other.__setstate__(copy.deepcopy(self.__getstate__(), memo))
        other.module.to(self.module.device)
        if self.adata is not None:
            share_data(self, other)
        return other
