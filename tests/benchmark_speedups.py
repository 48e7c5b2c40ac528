"""What each thing that makes training and sampling fast is worth: undone one by one, and all together, interleaved in one run.

    python tests/benchmark_speedups.py [--device cuda] [--batch-size 4] [--rounds 7] [--publish]

Of `vdm-text`, random weights. --publish writes assets/results/speedups.json, or of a GPU speedups-NAME.json.
"""

import argparse
import contextlib
import json
import statistics
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from unittest import mock

import torch
import torch.nn.functional as F
from einops import rearrange

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmark_networks import publish, seconds  # noqa: E402
from utils import layers, optimizer  # noqa: E402
from utils.captions import tokenize  # noqa: E402
from utils.recipes import VDM_TEXT, Budget  # noqa: E402
from utils.runtime import autocast, device_name, pick_device, precision_name  # noqa: E402
from utils.samplers import guided_denoiser  # noqa: E402
from utils.train import EMA, Trainer  # noqa: E402



@contextlib.contextmanager
def convolutions_of_clips() -> Iterator[None]:
    """A 3D convolution with a kernel of 1x3x3 over (B, C, T, H, W), as the paper writes it, in place of a 2D one over frames."""

    def forward(self, x: torch.Tensor, num_frames: int = 1, num_images: int = 0) -> torch.Tensor:
        clips = rearrange(x, "(b t) c h w -> b c t h w", t=num_frames)
        clips = F.conv3d(clips, self.weight[:, :, None], self.bias, stride=(1, *self.stride), padding=(0, *self.padding))
        return rearrange(clips, "b c t h w -> (b t) c h w")

    with mock.patch.object(layers.Convolution, "forward", forward):
        yield


@contextlib.contextmanager
def plain_attention() -> Iterator[None]:
    """Three matrix products with the logits in memory, wherever there is a fused kernel."""
    with mock.patch.object(layers, "attend", lambda q, k, v: ((q * q.shape[-1] ** -0.5) @ k.mT).softmax(dim=-1).to(v.dtype) @ v):
        yield


@contextlib.contextmanager
def fused_attention() -> Iterator[None]:
    """The fused kernel, also for few tokens on a CPU."""
    with mock.patch.object(layers, "attend", F.scaled_dot_product_attention):
        yield


@contextlib.contextmanager
def a_tensor_at_a_time() -> Iterator[None]:
    """Optimizer and EMA parameter by parameter."""
    several = optimizer.orthogonalized

    @torch.no_grad()
    def update(self: EMA, net: torch.nn.Module) -> None:
        for mine, new in zip(self.net.parameters(), net.parameters()):
            mine.lerp_(new, 1 - self.decay)

    with mock.patch.object(EMA, "update", update), mock.patch.object(optimizer, "orthogonalized", lambda matrices: torch.cat([several(one[None]) for one in matrices])):
        yield


def training(device: torch.device, amp: str, batch_size: int) -> Callable[[], None]:
    """A training step on data drawn for it."""
    trainer = Trainer(replace(VDM_TEXT, curriculum=None), Budget(1000, batch_size), device, amp)
    return lambda: trainer.train_step()


def sampling(device: torch.device, amp: str, batch_size: int, one_batch: bool = True, grad: bool = False) -> Callable[[], None]:
    """A guided step of sampling, both halves in one batch or one after the other."""
    trainer = Trainer(VDM_TEXT, Budget(1, 1), device, amp)
    net, z = trainer.net, torch.randn(batch_size, *VDM_TEXT.sample_shape, device=device)
    cond, log_snr = net.encode(tokenize(["3 and 7"] * batch_size).to(device)).detach(), torch.zeros(batch_size, device=device)
    denoise = guided_denoiser(net, cond, 4.0, "v")

    def work() -> None:
        with torch.set_grad_enabled(grad), autocast(device, trainer.dtype):
            if one_batch:
                denoise(z, log_snr)
            else:
                conditional, null = net(z, log_snr, cond), net(z, log_snr, torch.zeros_like(cond))
                null + 4.0 * (conditional - null)

    return work


def main() -> None:
    """Measure, print, and keep on request."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--publish", action="store_true")
    a = parser.parse_args()
    device = pick_device(a.device)
    torch.set_num_threads(1)
    dtype, n, plain = Trainer(VDM_TEXT, Budget(1, 1), device).dtype, a.batch_size, contextlib.nullcontext
    fast, slow = training(device, "auto", n), training(device, "off", n)
    drawn, drawn_slow = sampling(device, "auto", n), sampling(device, "off", n)
    steps = {"training step": {
        "as it is": (fast, [plain]),
        f"float32, not {precision_name(dtype)}": (slow, [plain]),
        "3D convolutions over clips, not 2D ones over frames": (fast, [convolutions_of_clips]),
        "attention over space never fused": (fast, [plain_attention]),
        "attention over space always fused": (fast, [fused_attention]),
        "optimizer and EMA a tensor at a time": (fast, [a_tensor_at_a_time]),
        "all undone": (slow, [convolutions_of_clips, plain_attention, a_tensor_at_a_time])},
        "guided step of sampling": {
        "as it is": (drawn, [plain]),
        f"float32, not {precision_name(dtype)}": (drawn_slow, [plain]),
        "3D convolutions over clips, not 2D ones over frames": (drawn, [convolutions_of_clips]),
        "the two halves one after the other": (sampling(device, "auto", n, one_batch=False), [plain]),
        "gradients not switched off": (sampling(device, "auto", n, grad=True), [plain]),
        "all undone": (sampling(device, "off", n, one_batch=False, grad=True), [convolutions_of_clips, plain_attention])}}
    taken: dict[str, dict[str, list[float]]] = {kind: {name: [] for name in ways} for kind, ways in steps.items()}
    for turn in range(a.rounds + 1):
        for kind, ways in steps.items():
            for name, (work, undone) in ways.items():
                with contextlib.ExitStack() as stack:
                    for undo in undone:
                        stack.enter_context(undo())
                    spent = seconds(work, device)
                if turn:  # the first is to warm up
                    taken[kind][name].append(spent)
    rows = {kind: {name: round(statistics.median(times), 4) for name, times in ways.items()} for kind, ways in taken.items()}
    result = {"device": device_name(device), "precision": precision_name(dtype), "batch_size": n, "rounds": a.rounds, "rows": rows}
    print(json.dumps(result, indent=1))
    if a.publish:
        publish("speedups", result, device)


if __name__ == "__main__":
    main()
