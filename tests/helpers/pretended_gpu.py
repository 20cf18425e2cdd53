"""A device in name only: tensors say that they are on it, their numbers are in the memory of the CPU.

After `add_device`, code can put tensors on it and compute with them. As on a GPU, an operation on tensors of both
devices is an error, and so is numpy's view of such a tensor. What only CUDA has is not there: kernels, streams, half
precision under autocast, a generator of its own. Torch cannot take the device back: use a process of its own, and call
`add_device` before anything imports this package.
"""

from __future__ import annotations

import contextlib
import functools

import torch
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

NAME = "pretended"
aten = torch.ops.aten
#: Operations that move values from one device to another.
MOVES = (aten._to_copy, aten.copy_, aten.to)
#: Operations that take indices from the CPU for values on a GPU.
INDEXING = (aten.index.Tensor, aten.index_put.default, aten.index_put_.default)


class OnDevice(torch.Tensor):
    """A tensor that says it is on the device; ``held`` has its values."""

    held: torch.Tensor

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> OnDevice:
        where = {"dispatch_layout": True}
        if held.layout is torch.strided:
            where = {"strides": held.stride(), "storage_offset": held.storage_offset()}
        tensor = torch.Tensor._make_wrapper_subclass(
            cls, held.shape, dtype=held.dtype, device=torch.device(NAME, 0), **where
        )
        tensor.held = held
        return tensor

    def tolist(self) -> list:
        return self.held.tolist()

    def __reduce_ex__(self, protocol: int):
        return self.held.__reduce_ex__(protocol)  # read back, it is on the CPU

    def __format__(self, spec: str) -> str:
        return format(self.held, spec)

    def __repr__(self, **_: object) -> str:
        return f"OnDevice({self.held})"

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})

    __torch_function__ = torch._C._disabled_torch_function_impl


class Generator(torch.Generator):
    """A generator that may be asked for on the device."""

    def __new__(cls, device: torch.device | str = "cpu") -> Generator:
        return super().__new__(cls, "cpu" if torch.device(device).type == NAME else device)


class _Operations(TorchDispatchMode):
    """Sees operations that make tensors on the device from nothing, or from tensors of the CPU."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


#: Keeps what is registered; autocast casts nothing on the device.
_autocast = torch.library.Library("_", "IMPL", "AutocastPrivateUse1")


def can_add_device() -> bool:
    """Whether this torch can be told of a device from Python."""
    return hasattr(backend_registration, "_setup_privateuseone_for_python_backend")


def add_device() -> torch.device:
    """Let torch know the device, for the rest of the process."""
    module = backend_registration._DummyBackendModule()
    module.get_amp_supported_dtype = lambda: [torch.bfloat16, torch.float16]
    backend_registration._setup_privateuseone_for_python_backend(NAME, backend_module=module)
    _autocast.fallback(torch.library.fallthrough_kernel)
    torch.Generator = Generator
    torch.tensor = functools.partial(_tensor, torch.tensor)
    # tensors of inference mode are made where no operation is seen
    torch.inference_mode = lambda mode=True: torch.no_grad() if mode else contextlib.nullcontext()
    _Operations().__enter__()
    return torch.device(NAME, 0)


def _tensor(make, data, *, device=None, **options) -> torch.Tensor:
    """`torch.tensor`, which would make a tensor on the device where no operation is seen."""
    made = make(data, **options)
    return made if device is None else made.to(device)


def _run(func, args: tuple, kwargs: dict):
    """One operation, on the values that are held."""
    if func is torch.ops.prim.layout.default:
        return args[0].held.layout
    tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
    on_device = any(isinstance(t, OnDevice) for t in tensors)
    if func is aten.copy_.default:
        on_device = isinstance(args[0], OnDevice)
    if kwargs.get("device") is not None:
        on_device = torch.device(kwargs["device"]).type == NAME
        kwargs = {**kwargs, "device": "cpu" if on_device else kwargs["device"]}
    if on_device and func.overloadpacket not in MOVES:
        _check_devices(func, args, tensors)
    wrappers = {id(t.held): t for t in tensors if isinstance(t, OnDevice)}
    found = func(*tree_map(_held, args), **tree_map(_held, kwargs))

    def placed(value):
        if not isinstance(value, torch.Tensor):
            return value
        if on_device:  # what was changed in place stays the same tensor
            return wrappers[id(value)] if id(value) in wrappers else OnDevice(value)
        return value

    return tree_map(placed, found)


def _check_devices(func, args: tuple, tensors: list[torch.Tensor]) -> None:
    if func in INDEXING:
        tensors = [t for i, t in enumerate(args) if i != 1 and isinstance(t, torch.Tensor)]
    # single numbers may come from the CPU
    if any(not isinstance(t, OnDevice) and t.ndim for t in tensors):
        raise RuntimeError(f"{func} was given tensors of both devices")


def _held(value):
    return value.held if isinstance(value, OnDevice) else value
