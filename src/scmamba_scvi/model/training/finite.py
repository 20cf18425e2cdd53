"""Where a value that is not finite came from: modality and cells, for the error that stops training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import torch
from torch import Tensor, nn

from ...errors import NonFiniteError

#: Cells that the message of an error names; all of them are in its ``cells``.
N_NAMED: Final = 3
#: What may help, whatever the reason.
ADVICE: Final = (
    "The last good weights are kept. Try a lower learning rate, plan_kwargs={'lr': ...}, or precision='32-true'."
)


def first_non_finite(module: nn.Module) -> tuple[str, str | None] | None:
    """Name of the first parameter or buffer with a value that is not finite, and the kind of modality it belongs to."""
    tensors = {name: t for name, t in module.state_dict().items() if t.is_floating_point() and t.numel()}
    # one transfer from the device for all of them
    finite = torch.stack([torch.isfinite(t).all() for t in tensors.values()]).tolist()
    for name, good in zip(tensors, finite, strict=True):
        if not good:
            return name, _kind_of(name)
    return None


def loss_error(
    module: nn.Module, z: Mapping[str, Tensor], names: Sequence[str], epoch: int, batch_idx: int
) -> NonFiniteError:
    """Why the loss of a minibatch is not finite.

    Parameters
    ----------
    z
        Embeddings ``(n, z)`` per kind of modality.
    names
        Of the cells of the minibatch ``(n,)``. With several ranks only of this one's, fewer than the rows of ``z``: the
        error then names all of them.
    """
    where = f"The loss is not finite in epoch {epoch + 1}, minibatch {batch_idx + 1}"
    weights = first_non_finite(module)
    if weights is not None:
        name, kind = weights
        reason = f"the weights {name!r}{_of_encoder(kind)} stopped being finite in the step before"
        return NonFiniteError(f"{where}: {reason}. {_cells(names)} {ADVICE}", epoch, kind, names)
    for kind, rows in z.items():
        bad = ~torch.isfinite(rows.detach()).all(1).cpu()
        if not bad.any():
            continue
        cells = [n for n, b in zip(names, bad.tolist(), strict=True) if b] if len(names) == len(bad) else list(names)
        reason = f"the embeddings of {kind} of {int(bad.sum()):,} of {len(bad):,} cells are not finite"
        return NonFiniteError(f"{where}: {reason}. {_cells(cells)} {ADVICE}", epoch, kind, cells)
    reason = "embeddings and weights are finite, the loss itself overflows"
    return NonFiniteError(f"{where}: {reason}. {_cells(names)} {ADVICE}", epoch, None, names)


def weights_error(name: str, kind: str | None, names: Sequence[str], epoch: int) -> NonFiniteError:
    """Weights are not finite after the last step of an epoch, which no loss has shown yet."""
    message = f"The weights {name!r}{_of_encoder(kind)} are not finite at the end of epoch {epoch + 1}. {_cells(names)} {ADVICE}"
    return NonFiniteError(message, epoch, kind, names)


def _of_encoder(kind: str | None) -> str:
    return f" of the encoder of {kind}" if kind else ""


def _cells(names: Sequence[str]) -> str:
    more = f" and {len(names) - N_NAMED:,} more" if len(names) > N_NAMED else ""
    return f"Cells of the minibatch: {', '.join(map(repr, names[:N_NAMED]))}{more}." if names else ""


def _kind_of(name: str) -> str | None:
    part, kind = [*name.split("."), ""][:2]
    return kind if part in ("encoders", "values") else None
