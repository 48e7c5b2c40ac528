"""Where the code runs: device, mixed precision, seeds, budget, Colab, versions.

Nothing here knows about diffusion. Every other file of `utils` may import it.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from importlib import metadata
from pathlib import Path
from typing import IO

import torch

ROOT = Path(__file__).resolve().parent.parent
ASSETS = ROOT / "assets"
BUDGETS = ("smoke", "cpu", "t4", "t4-long")
TESTED_VERSIONS = {"python": "3.13", "torch": "2.11.0", "torchvision": "0.26.0", "einops": "0.8.2", "ipywidgets": "7.7.1"}


def pick_device(device: str | torch.device | None = None) -> torch.device:
    """The device to use: `device` if given, else CUDA, else Apple MPS, else the CPU.

    Raises RuntimeError, saying what to do, when a named device is not available.
    """
    if device is None:
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    device = torch.device(device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise RuntimeError("No CUDA GPU is available. On Colab: Runtime > Change runtime type > T4 GPU, then run again. "
                           "Elsewhere pass device='cpu', or device=None to take what there is.")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise RuntimeError("Apple MPS is not available here. Pass device='cpu', or device=None to take what there is.")
    return device


def amp_dtype(device: torch.device, amp: str = "auto") -> torch.dtype | None:
    """The autocast type for `device`, or None for plain float32.

    `amp` is "auto", "fp16", "bf16" or "off". "auto" takes bfloat16 on GPUs of compute capability 8.0 and above,
    float16 below (a T4 is 7.5: it emulates bfloat16, slowly, although `torch.cuda.is_bf16_supported()` says yes),
    bfloat16 on CPUs that multiply in it, and float32 elsewhere.
    """
    if amp == "off":
        return None
    if amp == "bf16":
        return torch.bfloat16
    if amp == "fp16":
        if device.type == "cpu":
            raise ValueError("float16 training needs a GPU. On a CPU use --amp bf16 or --amp off.")
        return torch.float16
    if amp != "auto":
        raise ValueError(f"amp must be auto, fp16, bf16 or off, not {amp!r}.")
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16
    if device.type == "cpu" and _cpu_multiplies_bfloat16():
        return torch.bfloat16
    return None


def check_compiles(device: torch.device) -> None:
    """ValueError where `torch.compile` cannot work: its kernels are written in Triton, which has dropped GPUs below compute capability 8.0."""
    if device.type == "cuda" and torch.cuda.get_device_capability(device) < (8, 0):
        raise ValueError("torch.compile needs Triton, which supports GPUs of compute capability 8.0 and above (a T4 has 7.5): train without it.")


def _cpu_multiplies_bfloat16() -> bool:
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.exists() and "avx512_bf16" in cpuinfo.read_text()


def autocast(device: torch.device, dtype: torch.dtype | None):
    """A context in which matrix products run in `dtype`; does nothing when `dtype` is None."""
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)


def generator(*seed: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator whose state depends on every number of `seed` (so streams can be numbered, not shared)."""
    mixed = 0
    for number in seed:
        mixed = (mixed * 6364136223846793005 + int(number) + 1442695040888963407) % 2**63
        mixed ^= mixed >> 29
    return torch.Generator(device).manual_seed(mixed)


def randn_per_sample(shape: Sequence[int], generators: Sequence[torch.Generator]) -> torch.Tensor:
    """(len(generators), *shape) standard normal float32 on the CPU, row i from generator i alone.

    A sample then depends on its own seed only, not on the batch size or the device.
    """
    return torch.stack([torch.randn(tuple(shape), generator=g) for g in generators])


def budget() -> str:
    """One of BUDGETS: the environment variable LESSON_BUDGET, else "t4" with a GPU and "cpu" without."""
    chosen = os.environ.get("LESSON_BUDGET") or ("cpu" if pick_device().type == "cpu" else "t4")
    if chosen not in BUDGETS:
        raise ValueError(f"LESSON_BUDGET is {chosen!r}; it must be one of {', '.join(BUDGETS)}.")
    return chosen


def in_colab() -> bool:
    """True inside Google Colab."""
    return "google.colab" in sys.modules or "COLAB_RELEASE_TAG" in os.environ


def outputs() -> Path:
    """The folder for what a lesson makes (clips, checkpoints): the environment variable LESSON_OUTPUTS, for example a folder on
    Google Drive, else outputs/ in the repository, which is not under version control.

    Raises RuntimeError when it cannot be made.
    """
    folder = Path(os.environ.get("LESSON_OUTPUTS") or ROOT / "outputs")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RuntimeError(f"Could not make the folder {folder.name}/ for what the lesson makes ({error.strerror}). Set the environment variable "
                           "LESSON_OUTPUTS to a folder that you may write to.") from error
    return folder


@contextmanager
def interrupts_wait() -> Iterator[None]:
    """Ctrl-C and SIGTERM wait while it is open: in the middle of `torch.save` they would surface as an error about the file. For the main thread; others are not interrupted."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked: list[int] = []
    before = {number: signal.signal(number, lambda number, frame: asked.append(number)) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if asked:
        signal.raise_signal(asked[0])


@contextmanager
def written_whole(path: Path) -> Iterator[IO[bytes]]:
    """A binary file to write to, which is moved to `path` once all of it is on disk; Ctrl-C and SIGTERM wait for that. If anything is raised before (OSError: disk full, no
    permission), nothing is left of it, and an older file at `path` stays as it was."""
    temporary = path.with_name(path.name + ".partial")
    with interrupts_wait():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(temporary, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException as error:
            with suppress(OSError):  # nothing to tidy up where nothing could be written
                temporary.unlink()
            cause = error.__context__
            if isinstance(error, RuntimeError) and isinstance(cause, OSError):  # torch.save hides the disk's error behind one of its own
                raise OSError(cause.errno, cause.strerror) from error
            raise


def write_json(path: Path, what: object, indent: int | None = 1) -> None:
    """Write `what` as JSON, with a newline at the end: whole, or not at all (`written_whole`)."""
    with written_whole(path) as file:
        file.write((json.dumps(what, indent=indent) + "\n").encode())


@contextmanager
def telling_of_errors() -> Iterator[None]:
    """For commands: errors in what they are given, or in the files here, end them with `error: ...` and exit status 1 instead of a traceback."""
    try:
        yield
    except (ValueError, RuntimeError, OSError) as error:
        raise SystemExit(f"error: {error}") from error


def progress_file():
    """Where progress bars go: standard error, but in a notebook, which paints that red, standard output."""
    return sys.stdout if "ipykernel" in sys.modules else sys.stderr


def precision_name(dtype: torch.dtype | None) -> str:
    """The precision that an autocast type of `amp_dtype` stands for, such as "bfloat16"; None is "float32"."""
    return "float32" if dtype is None else str(dtype).removeprefix("torch.")


def device_name(device: torch.device) -> str:
    """The hardware's name for tables, such as "Tesla T4" or "CPU, 2 threads"."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return "Apple GPU (MPS)" if device.type == "mps" else f"CPU, {torch.get_num_threads()} thread{'s' if torch.get_num_threads() > 1 else ''}"


def peak_memory_mib(device: torch.device) -> int:
    """The most memory that this process has held so far, in MiB: on CUDA, what torch allocated on the GPU; else what the process had in RAM."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 2**20)
    unit = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, KiB on Linux
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20)


def versions() -> dict[str, str]:
    """The versions found of everything in TESTED_VERSIONS."""
    found = {"python": platform.python_version()}
    for name in list(TESTED_VERSIONS)[1:]:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "absent"
    return found


def banner() -> str:
    """Device, budget and versions (tested on Colab / found here) in three lines; says what to click without a GPU."""
    device, found = pick_device(), versions()
    pairs = ", ".join(f"{name} {tested} / {found[name]}" for name, tested in TESTED_VERSIONS.items())
    lines = [f"device: {device_name(device)}   budget: {budget()}", f"versions tested / found: {pairs}"]
    if device.type == "cpu":
        where = "Runtime > Change runtime type > T4 GPU (free)" if in_colab() else "a CUDA or Apple GPU"
        lines.append(f"No GPU: the lesson trains only a little here and goes on from shipped weights. For live training: {where}.")
    return "\n".join(lines)
