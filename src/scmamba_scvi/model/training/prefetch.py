"""Minibatches are copied to a GPU one ahead of the training step that needs them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import torch
from torch import Tensor

from ...ops.csr import csr, is_csr


class Loader(Protocol):
    """Gives minibatches, and knows how many."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Mapping[str, Tensor]]: ...


def sent_to(
    device: torch.device, batches: Iterable[Mapping[str, Tensor]], *, ahead: bool = True
) -> Iterator[Mapping[str, Tensor]]:
    """Minibatches on ``device``; while a GPU works on one, the next is copied from pinned memory, and one more is read.

    Not ``ahead``: each when it is asked for, as where minibatches are made on the GPU.
    """
    if device.type != "cuda" or not ahead:
        on_gpu = device.type == "cuda"  # it would run out of work if each of the small tensors were waited for
        for batch in batches:
            yield {name: tensor.to(device, non_blocking=on_gpu) for name, tensor in batch.items()}
        return
    stream = torch.cuda.Stream(device)

    def send(batch: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], torch.cuda.Event]:
        """Start to copy; the event tells when the copy is done."""
        with torch.cuda.stream(stream):
            sent = {
                name: map_parts(lambda part: part.to(device, non_blocking=True), tensor)
                for name, tensor in batch.items()
            }
            return sent, stream.record_event()

    def receive(sent: tuple[dict[str, Tensor], torch.cuda.Event]) -> dict[str, Tensor]:
        """Make the step wait for the copy, and keep the copy's memory from being reused before the step is over."""
        batch, copied = sent
        current = torch.cuda.current_stream(device)
        current.wait_event(copied)
        for tensor in batch.values():
            for part in parts_of(tensor):
                part.record_stream(current)
        return batch

    pinned = ({name: map_parts(Tensor.pin_memory, t) for name, t in batch.items()} for batch in batches)
    yield from prefetched(read_ahead(pinned), send, receive)


class LoaderOnDevice:
    """A loader whose minibatches are sent to the ``device``, ahead of their use or not; ``begin`` is called for each epoch."""

    def __init__(
        self, loader: Loader, device: torch.device, *, ahead: bool, begin: Callable[[], object] = lambda: None
    ) -> None:
        self._loader, self._device, self._ahead, self._begin = loader, device, ahead, begin

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Mapping[str, Tensor]]:
        # not before the first minibatch is asked for: only then does a resumed training know its epoch
        self._begin()
        yield from sent_to(self._device, self._loader, ahead=self._ahead)


def read_ahead(items: Iterable) -> Iterator:
    """The items, each made by another thread while the one before is used."""
    iterator, end = iter(items), object()
    with ThreadPoolExecutor(1) as thread:
        following = thread.submit(next, iterator, end)
        while (item := following.result()) is not end:
            following = thread.submit(next, iterator, end)
            yield item


def prefetched(items: Iterable, send: Callable, receive: Callable) -> Iterator:
    """``receive(send(item))`` of each item; the next item is sent before one is received and given out."""
    for sent, _ in itertools.pairwise(itertools.chain(map(send, items), [None])):
        yield receive(sent)


def parts_of(tensor: Tensor) -> tuple[Tensor, ...]:
    """Tensors that hold the data: row starts, columns and values of a CSR tensor, or the dense tensor itself."""
    return (tensor.crow_indices(), tensor.col_indices(), tensor.values()) if is_csr(tensor) else (tensor,)


def map_parts(function: Callable[[Tensor], Tensor], tensor: Tensor) -> Tensor:
    """The tensor with ``function`` applied to each of its parts."""
    if not is_csr(tensor):
        return function(tensor)
    crow, col, values = map(function, parts_of(tensor))
    return csr(crow, col, values, tuple(tensor.shape))
