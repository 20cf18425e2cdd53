"""Where a value that is not finite came from: modality and cells, for the error that stops training."""

from collections.abc import Mapping, Sequence
from typing import Final

import torch
from torch import Tensor, nn

from ..._arguments import listed
from ...errors import NonFiniteError

#: Cells that the message of an error names; all of them are in its ``cells``.
N_NAMED: Final = 3
#: What may help, whatever the reason.
ADVICE: Final = (
    "The last good weights are kept. Try a lower learning rate, plan_kwargs={'lr': ...}, or precision='32-true'."
)


def first_non_finite(module: nn.Module) -> tuple[str, str | None] | None:
    """The first parameter or buffer with a value that is not finite, in words, and the kind of modality it belongs to."""
    tensors = {name: t for name, t in module.state_dict().items() if t.is_floating_point() and t.numel()}
    # one transfer from the device for all of them
    finite = torch.stack([torch.isfinite(t).all() for t in tensors.values()]).tolist()
    for name, good in zip(tensors, finite, strict=True):
        if not good:
            part, kind, *_ = [*name.split("."), ""]
            if part in ("encoders", "values"):
                return f"the weights {name!r} of the encoder of {kind}", kind
            return f"the weights {name!r}", None
    return None


def loss_error(
    module: nn.Module, z: Mapping[str, Tensor], names: Sequence[str], epoch: int, batch_idx: int
) -> NonFiniteError:
    """Why the loss of a minibatch with embeddings ``z`` ``(n, z)`` per kind is not finite.

    ``names`` are those of its cells; on several devices of this process's alone, and the error then names all of them.
    """
    where = f"The loss is not finite in epoch {epoch + 1}, minibatch {batch_idx + 1}"
    weights = first_non_finite(module)
    if weights is not None:
        what, kind = weights
        return _error(f"{where}: {what} stopped being finite in the step before.", epoch, kind, names)
    for kind, rows in z.items():
        bad = ~torch.isfinite(rows.detach()).all(1).cpu()
        if bad.any():
            cells = [n for n, b in zip(names, bad.tolist(), strict=True) if b] if len(names) == len(bad) else names
            reason = f"the embeddings of {kind} of {int(bad.sum()):,} of {len(bad):,} cells are not finite"
            return _error(f"{where}: {reason}.", epoch, kind, cells)
    return _error(f"{where}: embeddings and weights are finite, the loss itself overflows.", epoch, None, names)


def weights_error(module: nn.Module, names: Sequence[str], epoch: int) -> NonFiniteError | None:
    """Weights that the last step of an epoch left not finite, which no loss has shown yet; `None` if all are finite."""
    weights = first_non_finite(module)
    if weights is None:
        return None
    what, kind = weights
    return _error(f"T{what[1:]} are not finite at the end of epoch {epoch + 1}.", epoch, kind, names)


def _error(message: str, epoch: int, kind: str | None, names: Sequence[str]) -> NonFiniteError:
    if names:
        message += f" Cells of the minibatch: {listed([*map(repr, names)], N_NAMED)}."
    return NonFiniteError(f"{message} {ADVICE}", epoch, kind, names)
