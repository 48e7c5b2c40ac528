"""This project's video network, training step and sampler beside public ones, interleaved in one run, on clips of 1 x 16 x 32 x 32.

    pip install --no-deps video-diffusion-pytorch==0.7.0 make-a-video-pytorch==0.4.0 einops-exts rotary-embedding-torch
    python tests/benchmark_networks.py [--device cuda] [--amp fp16] [--batch-size 8] [--publish]

Random weights, the same input, the same precision for all. A training step is forward, backward and Adam; a step of sampling is the network and what each project's own sampler
does with it, and a clip takes as many as that sampler takes by default. The networks take turns, so that what else the machine does falls on all of them; printed is the median.
--publish writes assets/results/network-speed.json, or of a GPU network-speed-NAME.json.
"""

import argparse
import json
import re
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from utils.cost import count  # noqa: E402
from utils.recipes import VDM_TEXT  # noqa: E402
from utils.runtime import ASSETS, amp_dtype, autocast, device_name, generator, pick_device, precision_name  # noqa: E402
from utils.samplers import guided_denoiser, sample_loop  # noqa: E402
from utils.unet import UNet  # noqa: E402

SHAPE = VDM_TEXT.sample_shape
Forward = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Rival:
    """A network, the function that runs it on a clip (B, 1, 16, 32, 32), and two steps of its project's sampler from noise of that shape, with the steps that it takes by default."""

    net: nn.Module
    forward: Forward
    two_steps: Forward | None
    default_steps: int | None


def times(x: torch.Tensor) -> torch.Tensor:
    """A time of 0 for each clip."""
    return torch.zeros(len(x), device=x.device)


def ours() -> Rival:
    """`vdm-text`'s network and sampler, without guidance as the others."""
    net, schedule = UNet(VDM_TEXT.net), VDM_TEXT.schedule

    def two_steps(z: torch.Tensor) -> torch.Tensor:
        denoise = guided_denoiser(net, torch.zeros(len(z), VDM_TEXT.net.embed_dim, device=z.device), 1.0, VDM_TEXT.prediction)
        for state in sample_loop(denoise, z, schedule.log_snr(schedule.times(2)), [generator(0, i) for i in range(len(z))], VDM_TEXT.sampler):
            z = state.z
        return z

    return Rival(net, lambda x: net(x, times(x), torch.zeros(len(x), VDM_TEXT.net.embed_dim, device=x.device)), two_steps, VDM_TEXT.sampling_steps)


def lucidrains_video() -> Rival:
    """video-diffusion-pytorch: its sampler is DDPM's, with every step that it was trained with."""
    from video_diffusion_pytorch import GaussianDiffusion, Unet3D

    net = Unet3D(dim=64, dim_mults=(1, 2, 4), channels=1)
    diffusion = GaussianDiffusion(net, image_size=SHAPE[-1], num_frames=SHAPE[1], channels=1)

    def two_steps(z: torch.Tensor) -> torch.Tensor:
        diffusion.to(z.device)
        for t in (1, 0):
            z = diffusion.p_sample(z, torch.full((len(z),), t, device=z.device, dtype=torch.long), clip_denoised=True)
        return z

    return Rival(net, lambda x: net(x, times(x)), two_steps, diffusion.num_timesteps)


def lucidrains_make_a_video() -> Rival:
    """make-a-video-pytorch: a network alone, without a sampler."""
    from make_a_video_pytorch import SpaceTimeUnet

    net = SpaceTimeUnet(dim=48, channels=1, dim_mult=(1, 2, 4), resnet_block_depths=(1, 1, 1), self_attns=(False, True, True), temporal_compression=(False, False, False))
    return Rival(net, lambda x: net(x, times(x)), None, None)


def diffusers_3d() -> Rival:
    """diffusers: its text-to-video network with the sampler and the number of steps of its text-to-video pipeline."""
    from diffusers import DDIMScheduler, UNet3DConditionModel

    net = UNet3DConditionModel(
        sample_size=32, in_channels=1, out_channels=1, down_block_types=("DownBlock3D", "CrossAttnDownBlock3D", "CrossAttnDownBlock3D"),
        up_block_types=("CrossAttnUpBlock3D", "CrossAttnUpBlock3D", "UpBlock3D"), block_out_channels=(32, 64, 128), layers_per_block=1,
        norm_num_groups=8, cross_attention_dim=32, attention_head_dim=32)
    scheduler = DDIMScheduler()

    def forward(x: torch.Tensor, t: torch.Tensor | None = None) -> torch.Tensor:
        return net(x, times(x) if t is None else t, torch.zeros(len(x), 1, 32, device=x.device)).sample

    def two_steps(z: torch.Tensor) -> torch.Tensor:
        scheduler.set_timesteps(2)
        for t in scheduler.timesteps:
            z = scheduler.step(forward(z, t).float(), t, z).prev_sample
        return z

    return Rival(net, forward, two_steps, 50)  # num_inference_steps of TextToVideoSDPipeline


def seconds(work: Callable[[], None], device: torch.device) -> float:
    """How long one call takes, to the end of what it started on the device; on a CPU, of whose threads one works, the time that it had, whatever else the machine does."""
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    start = clock()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return clock() - start


def peak_bytes(work: Callable[[], None], device: torch.device) -> int:
    """The most memory that one call holds beyond what was there before it."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        work()
    held = most = 0  # the profiler's public tables have sums alone; what is needed is the order of allocations
    for event in sorted((e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"), key=lambda e: e.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most


def publish(name: str, result: dict, device: torch.device) -> None:
    """Write assets/results/NAME.json, of a GPU NAME-GPU.json, so that machines do not overwrite each other."""
    ending = "" if device.type == "cpu" else "-" + re.sub(r"\W+", "-", device_name(device).lower())
    (ASSETS / "results" / f"{name}{ending}.json").write_text(json.dumps(result, indent=1) + "\n")


def main() -> None:
    """Measure, print a table, and keep it on request."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device")
    parser.add_argument("--amp", default="off", choices=("fp16", "bf16", "off"))
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--publish", action="store_true")
    a = parser.parse_args()
    device = pick_device(a.device)
    dtype = amp_dtype(device, a.amp)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rivals = {"vdm-text": ours(), "video-diffusion-pytorch, Unet3D": lucidrains_video(), "make-a-video-pytorch, SpaceTimeUnet": lucidrains_make_a_video(),
              "diffusers, UNet3DConditionModel": diffusers_3d()}
    rows, taken, work = {}, {}, {}
    for name, rival in rivals.items():
        net, x, one = rival.net.to(device), torch.randn(a.batch_size, *SHAPE, device=device), torch.randn(1, *SHAPE, device=device)
        optimizer = torch.optim.Adam(net.parameters())

        def train(rival=rival, x=x, optimizer=optimizer) -> None:
            optimizer.zero_grad(set_to_none=True)
            with autocast(device, dtype):
                loss = rival.forward(x).float().square().mean()
            loss.backward()
            optimizer.step()

        @torch.no_grad()
        def sample(rival=rival, x=x) -> None:
            with autocast(device, dtype):
                rival.two_steps(x)

        cost = count(net, lambda rival=rival, one=one: rival.forward(one))
        train()  # Adam's moments are there from now on
        rows[name] = {"parameters": cost.parameters, "gflop_per_clip": round(cost.flops / 1e9, 1), "saved_activations_mib": round(cost.saved_bytes / 2**20, 1),
                      "peak_memory_mib": round(peak_bytes(train, device) / 2**20)}
        work[name] = {"train": train} | ({"sample": sample} if rival.two_steps else {})
        taken[name] = {kind: [] for kind in work[name]}
    for turn in range(a.rounds + 1):
        for name, kinds in work.items():
            for kind, step in kinds.items():
                spent = seconds(step, device)
                if turn:  # the first is to warm up
                    taken[name][kind].append(spent)
    for name, row in rows.items():
        row["train_clips_per_second"] = round(a.batch_size / statistics.median(taken[name]["train"]), 3)
        if rivals[name].two_steps:
            row["sample_seconds_per_clip_and_step"] = round(statistics.median(taken[name]["sample"]) / 2 / a.batch_size, 5)
            row["sampling_steps"] = rivals[name].default_steps
    print(f"{device_name(device)}, {precision_name(dtype)}, batch {a.batch_size}, median of {a.rounds} rounds")
    print(json.dumps(rows, indent=1))
    if a.publish:
        result = {"device": device_name(device), "precision": precision_name(dtype), "batch_size": a.batch_size, "rounds": a.rounds, "rows": rows}
        publish("network-speed", result, device)


if __name__ == "__main__":
    main()
