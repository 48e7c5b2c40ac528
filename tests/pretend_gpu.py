"""A pretended GPU, for machines without one: tensors on the device "pretend" lie in the CPU's memory, and may not meet the CPU's tensors where CUDA's may not. What runs here with
`device="pretend"` has every tensor moved and every generator made where it belongs.

    python tests/pretend_gpu.py lessons/06_video_diffusion_models.py       # run a lesson's cells with it at the smoke budget

It knows nothing of CUDA's speed, memory, half precision or kernels, nor of code behind `device.type == "cuda"`.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import pkgutil
import re
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

import torch
from torch.overrides import TorchFunctionMode
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

ROOT = Path(__file__).resolve().parent.parent


class Backend(_DummyBackendModule):
    """What PyTorch asks of a device's own module."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.float16, torch.bfloat16]


_setup_privateuseone_for_python_backend("pretend", Backend())
DEVICE = torch.device("pretend", 0)
CPU = torch.device("cpu")
OPS = torch.ops.aten
BETWEEN_DEVICES = {OPS._to_copy.default, OPS.copy_.default}
INDEXING = {OPS.index.Tensor, OPS.index_put.default, OPS.index_put_.default, OPS._index_put_impl_.default, OPS._unsafe_index.Tensor}  # indices may lie on the CPU
JOINING = {OPS.cat.default, OPS.stack.default}  # take no number of another device, as arithmetic does
TO_NUMBERS = {OPS._local_scalar_dense.default, OPS.equal.default}
RealGenerator = torch.Generator


class Pretended(torch.Tensor):
    """A tensor on the pretended GPU, around one of the CPU's."""

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> Pretended:
        self = torch.Tensor._make_wrapper_subclass(cls, inner.size(), strides=inner.stride(), storage_offset=inner.storage_offset(), dtype=inner.dtype, device=DEVICE)
        self.inner = inner
        return self

    __torch_function__ = torch._C._disabled_torch_function_impl  # what comes to the CPU is a tensor like others

    @classmethod
    def __torch_dispatch__(cls, op, types, args=(), kwargs=None):
        return run(op, args, kwargs or {})

    def __reduce_ex__(self, protocol: int) -> tuple:  # a file holds the CPU's
        return self.detach().inner.__reduce_ex__(protocol)

    def __deepcopy__(self, memo: dict) -> torch.Tensor:
        if id(self) not in memo:
            with torch.no_grad():
                copied = self.detach().clone()
            copied = torch.nn.Parameter(copied, self.requires_grad) if isinstance(self, torch.nn.Parameter) else copied.requires_grad_(self.requires_grad)
            if self.grad is not None:
                copied.grad = self.grad.__deepcopy__(memo)
            memo[id(self)] = copied
        return memo[id(self)]

    def tolist(self) -> list:
        return self.detach().inner.tolist()

    def __repr__(self, **_) -> str:
        return f"{self.inner!r} on {DEVICE}"


def _register_makers() -> torch.library.Library:
    """Operations that make a tensor where there was none; all others meet a Pretended first."""
    library = torch.library.Library("aten", "IMPL")
    for schema in torch._C._jit_get_all_schemas():
        if schema.name.startswith("aten::") and any(a.name == "device" for a in schema.arguments) and not any("Tensor" in str(a.type) for a in schema.arguments):
            overload = schema.overload_name or "default"
            op = getattr(getattr(OPS, schema.name.removeprefix("aten::")), overload)
            library.impl(op, lambda *args, op=op, **kwargs: Pretended(op(*args, **{**kwargs, "device": CPU})), "PrivateUse1")
    return library


MAKERS = _register_makers()


class PretendedGenerator(RealGenerator):
    """Makes a generator for either device; its numbers are the CPU's."""

    def __new__(cls, device: torch.device | str = "cpu") -> PretendedGenerator:
        pretended = torch.device(device).type == DEVICE.type
        self = RealGenerator.__new__(cls, "cpu" if pretended else device)
        self.pretended = pretended
        return self

    def manual_seed(self, seed: int) -> PretendedGenerator:
        super().manual_seed(seed)
        return self


class CheckGenerators(TorchFunctionMode):
    """While it is on, a generator of one device draws no numbers for the other. (Operations below are handed another object for it.)"""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if (generator := kwargs.get("generator")) is not None:
            tensors = [value for value in args if isinstance(value, torch.Tensor)]
            device = kwargs.get("device") or (tensors[0].device if tensors else CPU)
            if (torch.device(device).type == DEVICE.type) != getattr(generator, "pretended", False):
                raise RuntimeError(f"{function.__name__} on {device} got a generator of the other device.")
        return function(*args, **kwargs)


def run(op, args: tuple, kwargs: dict):
    """Do what `op` does with the tensors inside; RuntimeError where CUDA would refuse."""
    there, here = {}, []
    inner_args, inner_kwargs = _taken_out(args, there, here), {name: _taken_out(value, there, here) for name, value in kwargs.items()}
    device = kwargs.get("device")
    result_there = bool(there) if device is None else torch.device(device).type == DEVICE.type
    if here and there and op not in BETWEEN_DEVICES and any(tensor.dim() or op in JOINING for tensor in here) and not (op in INDEXING and isinstance(args[0], Pretended)):
        raise RuntimeError(f"Expected all tensors to be on the same device: {op} got tensors of {DEVICE} and, of the CPU, those of shapes {[tuple(tensor.shape) for tensor in here]}.")
    if op is OPS.copy_.default:
        result_there = isinstance(args[0], Pretended)
    result = op(*inner_args, **inner_kwargs)
    return _put_in(result, there) if result_there and op not in TO_NUMBERS else result


def _taken_out(value, there: dict, here: list):
    """An argument with the CPU's tensors and device; of the tensors, what was on the pretended GPU goes into `there`, by the id of what is inside, what was not into `here`."""
    if isinstance(value, Pretended):
        there[id(value.inner)] = value
        return value.inner
    if isinstance(value, torch.Tensor):
        here.append(value)
    elif isinstance(value, (list, tuple)):
        return type(value)([_taken_out(item, there, here) for item in value])
    elif isinstance(value, torch.device) and value.type == DEVICE.type:
        return CPU
    return value


def _put_in(value, there: dict):
    """A result with its tensors on the pretended GPU: what was changed in place is the tensor that it was."""
    if isinstance(value, torch.Tensor):
        return there[id(value)] if id(value) in there else Pretended(value)
    return type(value)([_put_in(item, there) for item in value]) if isinstance(value, (list, tuple)) else value


@contextlib.contextmanager
def pretended_gpu() -> Iterator[torch.device]:
    """Inside, `device="pretend"` works."""
    torch.Generator = PretendedGenerator
    try:
        with CheckGenerators():
            yield DEVICE
    finally:
        torch.Generator = RealGenerator


def run_lesson(path: Path) -> bool:
    """Run a lesson's cells as on a machine whose one device is the pretended GPU; say where cells fail. True: none does."""
    from IPython.core.interactiveshell import InteractiveShell

    import utils
    from utils import runtime

    pick = runtime.pick_device
    modules = [runtime, *(importlib.import_module(f"utils.{module.name}") for module in pkgutil.iter_modules(utils.__path__))]
    for module in modules:
        if hasattr(module, "pick_device"):
            module.pick_device = lambda device=None: DEVICE if device is None else pick(device)
    shell, good, line, start = InteractiveShell.instance(), True, 1, time.monotonic()
    shell.showtraceback = lambda *_, **__: None  # told below
    with pretended_gpu():
        for cell in re.split(r"^# %%", path.read_text(), flags=re.MULTILINE):
            if line > 1 and not cell.startswith(" [markdown]"):
                outcome = shell.run_cell(f"#{cell}", store_history=True)
                error = outcome.error_before_exec or outcome.error_in_exec
                if error is not None:
                    good = False
                    print(f"{path.name}, cell at line {line}: {type(error).__name__}: {error}\n{''.join(traceback.format_tb(error.__traceback__)[-4:])}", file=sys.stderr)
            line += cell.count("\n")
    print(f"{path.name} on a pretended GPU: {'works' if good else 'FAILS'}, {time.monotonic() - start:.0f} s", file=sys.stderr)
    return good


if __name__ == "__main__":
    os.environ |= {"LESSON_BUDGET": "smoke", "MPLBACKEND": "Agg"}
    sys.path.insert(0, str(ROOT))
    with tempfile.TemporaryDirectory() as outputs:
        os.environ["LESSON_OUTPUTS"] = outputs
        os.chdir(ROOT)
        sys.exit(0 if run_lesson(Path(sys.argv[1])) else 1)
