"""Clips of 1 x 16 x 32 x 32 a second of this project's video network beside public ones, interleaved in one run.

    pip install --no-deps video-diffusion-pytorch==0.7.0 make-a-video-pytorch==0.4.0 einops-exts rotary-embedding-torch
    python tests/benchmark_networks.py [--device cuda] [--amp fp16] [--batch-size 8] [--publish]

Random weights, the same input, the same precision for all. A training step is forward, backward and Adam. The networks take turns, so
that what else the machine does falls on all of them; printed is the median. --publish writes assets/results/network-speed.json.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from utils.cost import count  # noqa: E402
from utils.recipes import VDM_TEXT  # noqa: E402
from utils.runtime import ASSETS, amp_dtype, autocast, device_name, pick_device, precision_name  # noqa: E402
from utils.unet import UNet  # noqa: E402

RESULTS = ASSETS / "results" / "network-speed.json"
Forward = Callable[[torch.Tensor], torch.Tensor]


def networks(device: torch.device) -> dict[str, tuple[nn.Module, Forward]]:
    """Each network with the function that runs it on a clip (B, 1, 16, 32, 32)."""
    from diffusers import UNet3DConditionModel
    from make_a_video_pytorch import SpaceTimeUnet
    from video_diffusion_pytorch import Unet3D

    ours = UNet(VDM_TEXT.net).to(device)
    lucid = Unet3D(dim=64, dim_mults=(1, 2, 4), channels=1).to(device)
    pseudo = SpaceTimeUnet(dim=48, channels=1, dim_mult=(1, 2, 4), resnet_block_depths=(1, 1, 1), self_attns=(False, True, True),
                           temporal_compression=(False, False, False)).to(device)
    conditional = UNet3DConditionModel(
        sample_size=32, in_channels=1, out_channels=1, down_block_types=("DownBlock3D", "CrossAttnDownBlock3D", "CrossAttnDownBlock3D"),
        up_block_types=("CrossAttnUpBlock3D", "CrossAttnUpBlock3D", "UpBlock3D"), block_out_channels=(32, 64, 128), layers_per_block=1,
        norm_num_groups=8, cross_attention_dim=32, attention_head_dim=32).to(device)

    def times(x: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(x), device=x.device)

    return {"vdm-text": (ours, lambda x: ours(x, times(x), torch.zeros(len(x), VDM_TEXT.net.embed_dim, device=x.device))),
            "video-diffusion-pytorch, Unet3D": (lucid, lambda x: lucid(x, times(x))),
            "make-a-video-pytorch, SpaceTimeUnet": (pseudo, lambda x: pseudo(x, times(x))),
            "diffusers, UNet3DConditionModel": (conditional, lambda x: conditional(x, times(x), torch.zeros(len(x), 1, 32, device=x.device)).sample)}


def seconds(work: Callable[[], None], device: torch.device) -> float:
    """How long one call takes, to the end of what it started on the device."""
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


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
    rows, taken, work = {}, {}, {}
    for name, (net, forward) in networks(device).items():
        one = torch.randn(1, 1, 16, 32, 32, device=device)
        cost = count(net, lambda: forward(one))
        rows[name] = {"parameters": cost.parameters, "gflop_per_clip": round(cost.flops / 1e9, 1),
                      "saved_activations_mib": round(cost.saved_bytes / 2**20, 1)}
        x, optimizer = torch.randn(a.batch_size, 1, 16, 32, 32, device=device), torch.optim.Adam(net.parameters())

        def train(net=net, forward=forward, x=x, optimizer=optimizer) -> None:
            optimizer.zero_grad(set_to_none=True)
            with autocast(device, dtype):
                loss = forward(x).float().square().mean()
            loss.backward()
            optimizer.step()

        @torch.no_grad()
        def sample(forward=forward, x=x) -> None:
            with autocast(device, dtype):
                forward(x)

        work[name], taken[name] = {"train": train, "sample": sample}, {"train": [], "sample": []}
    for turn in range(a.rounds + 1):
        for name, kinds in work.items():
            for kind, step in kinds.items():
                spent = seconds(step, device)
                if turn:  # the first is to warm up
                    taken[name][kind].append(spent)
    for name, row in rows.items():
        for kind in ("train", "sample"):
            row[f"{kind}_clips_per_second"] = round(a.batch_size / statistics.median(taken[name][kind]), 3)
    print(f"{device_name(device)}, {precision_name(dtype)}, batch {a.batch_size}, median of {a.rounds} rounds")
    print(f"{'':38s}parameters  GFLOP a clip  saved MiB   training clips/s (ours x)   one step of sampling, clips/s (ours x)")
    ours = rows["vdm-text"]
    for name, row in rows.items():
        speed = "".join(f"{row[f'{kind}_clips_per_second']:16.2f} ({ours[f'{kind}_clips_per_second'] / row[f'{kind}_clips_per_second']:.1f})" for kind in ("train", "sample"))
        print(f"{name:38s}{row['parameters'] / 1e6:9.2f}M{row['gflop_per_clip']:14.1f}{row['saved_activations_mib']:11.0f}   {speed}")
    if a.publish:
        result = {"device": device_name(device), "precision": precision_name(dtype), "batch_size": a.batch_size, "rounds": a.rounds, "rows": rows}
        RESULTS.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
