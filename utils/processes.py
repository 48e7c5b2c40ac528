"""Several processes that train one network, one for each GPU (or CPU), as `torchrun` starts them.

    torchrun --nproc_per_node=2 -m utils.train vdm-text --budget t4-long
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist

from .runtime import pick_device


class ProcessLostError(RuntimeError):
    """Another process of the run is gone; the message says how to go on."""


@dataclass(frozen=True)
class Processes:
    """One process of `size`; rank 0 writes checkpoints and prints."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Is this the one that writes and prints?"""
        return self.rank == 0

    def shares(self, num: int, parts: int = 1) -> list[slice]:
        """This process's rows of a batch of `num`, in `parts` pieces of equal length. ValueError when num is not divisible, or parts is less than 1."""
        if parts < 1:
            raise ValueError(f"A batch is shared out in at least 1 part, not {parts}.")
        if num % (self.size * parts):
            raise ValueError(f"A batch of {num} cannot be shared evenly by {self.size} process{'es' if self.size > 1 else ''} in {parts} part{'s' if parts > 1 else ''} each: "
                             f"choose a --batch-size divisible by {self.size * parts}.")
        each = num // (self.size * parts)
        return [slice(k * each, (k + 1) * each) for k in range(self.rank * parts, (self.rank + 1) * parts)]

    def mean(self, numbers: torch.Tensor) -> torch.Tensor:
        """The mean over all processes of a tensor that each has."""
        if self.size > 1:
            with telling_of_lost_processes():
                numbers = numbers.clone()
                dist.all_reduce(numbers)
                numbers /= self.size
        return numbers


ALONE = Processes()


@contextmanager
def telling_of_lost_processes() -> Iterator[None]:
    """Turn a communication backend's error about a lost peer into a ProcessLostError."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and not any(word in str(error).lower() for word in ("gloo", "nccl", "connection", "peer")):
            raise
        raise ProcessLostError("Another process of this run is gone. Start the same command again with --resume: it goes on from the last checkpoint, "
                               "with as many processes as you like.") from error


@contextmanager
def join(device: str | torch.device | None = None) -> Iterator[tuple[Processes, torch.device]]:
    """This process's place among those that `torchrun` started, and its device; alone where `torchrun` did not start it."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    device = pick_device(device)
    if size == 1:
        yield ALONE, device
        return
    if device.type not in ("cuda", "cpu"):
        raise ValueError(f"Several processes train on CUDA GPUs or on CPUs, not on {device.type}: add --device cpu, or start one process.")
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        if device.index >= torch.cuda.device_count():
            raise ValueError(f"There are {torch.cuda.device_count()} GPUs here for {os.environ.get('LOCAL_WORLD_SIZE', size)} processes: lower --nproc_per_node.")
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Processes(dist.get_rank(), dist.get_world_size()), device
    finally:
        dist.destroy_process_group()
