"""Models whose tensors have sizes and no data, and a count of the memory that their computations would need."""

import copy
import weakref
from collections.abc import Iterable

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ..modeling import VilaUConfig, VilaUForConditionalGeneration


def plain_tensors(tensor: torch.Tensor) -> list[torch.Tensor]:
    """The tensors that hold the data of `tensor`: itself, or several if it is quantized."""
    if not hasattr(tensor, "__tensor_flatten__"):
        return [tensor]
    return [plain for name in tensor.__tensor_flatten__()[0] for plain in plain_tensors(getattr(tensor, name))]


def size_of(tensors: Iterable[torch.Tensor]) -> int:
    """Bytes of `tensors`; what several of them share counts once."""
    storages = (plain.untyped_storage() for tensor in tensors for plain in plain_tensors(tensor))
    return sum({storage._cdata: storage.nbytes() for storage in storages}.values())


def model_on_meta(config: VilaUConfig, dtype: torch.dtype) -> VilaUForConditionalGeneration:
    """The model of `config` in `dtype` on the meta device; image encoder and quantizer stay in float32."""
    with torch.device("meta"):  # a model may change its configuration
        return VilaUForConditionalGeneration(copy.deepcopy(config)).to(dtype)


class LiveMemory(TorchDispatchMode):
    """
    Runs computations of `module` on tensors without data, as they are on the CPU, and counts the bytes of the tensors
    that are alive. What lives inside a single operation is not seen.

    Args:
        module (`torch.nn.Module`): on the meta device; its tensors become ones of the CPU without data. They are not
            counted, nor are its gradients.
    """

    def __init__(self, module: torch.nn.Module):
        super().__init__()
        self.without_data = FakeTensorMode(allow_non_fake_inputs=True)
        with self.without_data:
            module.to_empty(device="cpu")
        self.module = module
        self.live, self.peak, self.sizes = 0, 0, {}

    def __enter__(self):
        self.without_data.__enter__()
        for tensor in self._known():
            self.sizes.update((plain.untyped_storage()._cdata, 0) for plain in plain_tensors(tensor))
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        self.without_data.__exit__(*error)

    def _known(self):
        yield from self.module.buffers()
        for parameter in self.module.parameters():
            yield parameter
            if parameter.grad is not None:
                yield parameter.grad

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        outputs = function(*args, **(kwargs or {}))
        for output in tree_leaves(outputs):
            if isinstance(output, torch.Tensor):
                self._add(output)
        return outputs

    def _add(self, tensor: torch.Tensor):
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self.sizes:
            self.sizes[key] = storage.nbytes()
            self.live += self.sizes[key]
            self.peak = max(self.peak, self.live)
            weakref.finalize(storage, self._drop, key)

    def _drop(self, key: int):
        self.live -= self.sizes.pop(key)

    def take_peak(self) -> int:
        """Most bytes that were alive since the last call of this."""
        peak, self.peak = self.peak, self.live
        return peak
