"""Models whose tensors have no data, and a count of the memory that their computations would need."""

import copy
import weakref
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ..modeling import VilaUConfig, VilaUForConditionalGeneration


def plain_tensors(tensor: torch.Tensor) -> list[torch.Tensor]:
    """Returns the tensors that hold the data of `tensor`: itself, or several if it is quantized."""
    # The protocol of torch for tensor subclasses: torchao's 8-bit weights hold integers and scales.
    if not hasattr(tensor, "__tensor_flatten__"):
        return [tensor]
    return [plain for name in tensor.__tensor_flatten__()[0] for plain in plain_tensors(getattr(tensor, name))]


def size_of(tensors: Iterable[torch.Tensor]) -> int:
    """Returns the bytes of `tensors`; a storage that several of them share counts once."""
    storages = (plain.untyped_storage() for tensor in tensors for plain in plain_tensors(tensor))
    return sum({storage._cdata: storage.nbytes() for storage in storages}.values())


def model_on_meta(config: VilaUConfig, dtype: torch.dtype) -> VilaUForConditionalGeneration:
    """Builds a model of `config` in `dtype` on the meta device; image encoder and quantizer stay in float32."""
    # the configuration is copied, because a model may change it
    with torch.device("meta"):
        model = VilaUForConditionalGeneration(copy.deepcopy(config))
    model.to(dtype)  # type: ignore[arg-type]  # transformers wraps `to` without its first argument
    return model


class LiveMemory(TorchDispatchMode):
    """
    Counts the bytes of live tensors while `module` computes on tensors without data.

    Computations run as on the CPU. Memory that one operation allocates and releases is not counted.

    Args:
        module (`torch.nn.Module`): a module on the meta device. Its tensors are replaced by tensors on the CPU without
            data. They and their gradients are not counted.
    """

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        # Unlike meta tensors, fake tensors report the CPU as their device. So the model runs the code for a CPU.
        self.without_data = FakeTensorMode(allow_non_fake_inputs=True)
        with self.without_data:
            module.to_empty(device="cpu")
        self.module = module
        self.live = 0
        self.peak = 0
        self.sizes: dict[int, int] = {}  # bytes of the live storages, by their address

    def __enter__(self) -> "LiveMemory":
        self.without_data.__enter__()
        for tensor in self._known():
            self.sizes.update((plain.untyped_storage()._cdata, 0) for plain in plain_tensors(tensor))
        super().__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, traceback)
        self.without_data.__exit__(kind, error, traceback)

    def _known(self) -> Iterator[torch.Tensor]:
        """Yields the tensors that are not counted: parameters, buffers and gradients of the module."""
        yield from self.module.buffers()
        for parameter in self.module.parameters():
            yield parameter
            if parameter.grad is not None:
                yield parameter.grad

    def __torch_dispatch__(
        self, function: Callable, types: tuple, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Runs one operation of torch and counts its results. torch calls it for each operation in the block."""
        outputs = function(*args, **(kwargs or {}))
        for output in tree_leaves(outputs):
            if isinstance(output, torch.Tensor):
                self._add(output)
        return outputs

    def _add(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self.sizes:
            self.sizes[key] = storage.nbytes()
            self.live += self.sizes[key]
            self.peak = max(self.peak, self.live)
            # A storage, not a tensor, is freed: views of it and the graph of the backward pass keep it alive.
            weakref.finalize(storage, self._drop, key)

    def _drop(self, key: int) -> None:
        self.live -= self.sizes.pop(key)

    def take_peak(self) -> int:
        """Returns the largest number of live bytes since the previous call."""
        peak = self.peak
        self.peak = self.live
        return peak
