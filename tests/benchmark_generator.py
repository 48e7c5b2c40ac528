"""Clips of 16 x 32 x 32 that the generator makes a second on one core, and its share of a training step: python tests/benchmark_generator.py [--device cuda]

Prints the best of five repetitions, as other work on the machine only ever slows one down.
"""

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from utils.data import MovingMNIST  # noqa: E402
from utils.recipes import VDM_TEXT, Budget  # noqa: E402
from utils.runtime import device_name, pick_device  # noqa: E402
from utils.train import Trainer  # noqa: E402


def best_seconds(work, device: torch.device, repetitions: int = 5) -> float:
    """Seconds of the fastest call after one to warm up."""
    seconds = []
    for _ in range(repetitions + 1):
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:])


def main() -> None:
    """Print clips a second for each kind of caption, and the share of a step of `vdm-text`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device")
    parser.add_argument("--batch-size", type=int, default=16, help="clips in the training step that is compared with")
    a = parser.parse_args()
    device = pick_device(a.device)
    torch.set_num_threads(1)
    for captions in (None, "digits", "motion", "mixed"):
        source = MovingMNIST("train", captions=captions, device=device)
        print(f"{device_name(device)}, captions {captions}: {256 / best_seconds(lambda: source.sample(256), device):,.0f} clips a second")
    trainer = Trainer(replace(VDM_TEXT, curriculum=None), Budget(100, a.batch_size), device=device)
    step, data = best_seconds(trainer.train_step, device), best_seconds(lambda: trainer.data.sample(a.batch_size, index=0), device)
    print(f"training step of vdm-text, batch {a.batch_size}: {step * 1000:.0f} ms, of which the data {data / step:.2%}")


if __name__ == "__main__":
    main()
