"""Minibatches on their way to a GPU, one ahead of the step that needs them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

import torch
from torch import Tensor

from ..ops.csr import csr, is_csr


class OneAhead:
    """Iterates over a loader; while a minibatch is used, the next one is copied from pinned memory beside the step.

    Parameters
    ----------
    loader
        Of minibatches as dicts of tensors, dense or CSR, on the CPU.
    device
        A CUDA device.
    """

    def __init__(self, loader: Iterable[Mapping[str, Tensor]], device: torch.device) -> None:
        self._loader, self._device = loader, device

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        stream = torch.cuda.Stream(self._device)
        yield from one_ahead(self._loader, lambda batch: self._send(batch, stream), self._arrive)

    def _send(
        self, batch: Mapping[str, Tensor], stream: torch.cuda.Stream
    ) -> tuple[dict[str, Tensor], torch.cuda.Event]:
        """Begin to copy; the event tells when it is done."""
        with torch.cuda.stream(stream):
            sent = {
                name: of_parts(tensor, lambda part: part.pin_memory().to(self._device, non_blocking=True))
                for name, tensor in batch.items()
            }
            return sent, stream.record_event()

    def _arrive(self, sent: tuple[dict[str, Tensor], torch.cuda.Event]) -> dict[str, Tensor]:
        """Make the step wait for the copy, and keep its memory from being used again before the step is over."""
        batch, copied = sent
        current = torch.cuda.current_stream(self._device)
        current.wait_event(copied)
        for tensor in batch.values():
            of_parts(tensor, lambda part: part.record_stream(current) or part)
        return batch


def one_ahead(items: Iterable, send: Callable, arrive: Callable) -> Iterator:
    """``arrive(send(item))`` of each item, the next one sent before the one at hand is given out."""
    sent = None
    for item in items:
        following = send(item)
        if sent is not None:
            yield arrive(sent)
        sent = following
    if sent is not None:
        yield arrive(sent)


def of_parts(tensor: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    """``function`` of a dense tensor, or of the three parts of a CSR tensor."""
    if not is_csr(tensor):
        return function(tensor)
    parts = (tensor.crow_indices(), tensor.col_indices(), tensor.values())
    return csr(*map(function, parts), tuple(tensor.shape))
