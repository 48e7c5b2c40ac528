"""What a training step takes on a GPU, by samples a step, precision, and with or without `torch.compile`: milliseconds, memory, and whether the losses agree.

    python tests/benchmark_training_steps.py [--amp fp16] [--publish]

The shipped weights of `vdm-text` train on, every time on the same batches, one configuration after the other; printed are medians. Compiling takes a minute or two.
--publish writes assets/results/training-steps-NAME.json, NAME of the GPU; with --alone the file says that nothing else ran on the machine.
"""

import argparse
import json
import statistics
import sys
from dataclasses import replace
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmark_networks import publish  # noqa: E402
from utils.pretrained import load_pretrained  # noqa: E402
from utils.recipes import VDM_TEXT, Budget  # noqa: E402
from utils.runtime import device_name, pick_device, versions  # noqa: E402
from utils.train import Trainer  # noqa: E402

FIRST = 3000  # of so many steps, past the warm-up of the learning rate
OF = 100_000


def measure(device: torch.device, batch_size: int, amp: str, compiled: bool, steps: int) -> dict:
    """The row of one configuration."""
    trainer = Trainer(replace(VDM_TEXT, curriculum=None), Budget(OF, batch_size), device, amp, 0, load_pretrained("vdm-text", "cpu"), compiled=compiled)
    trainer.step = FIRST
    for _ in range(8):  # kernels are compiled and chosen
        trainer.train_step()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    done = [trainer.train_step() for _ in range(steps)]
    milliseconds = 1000 * statistics.median(progress.seconds for progress in done)
    return {"clips_a_step": batch_size, "amp": amp, "compiled": compiled, "milliseconds": round(milliseconds, 1), "clips_per_second": round(1000 * batch_size / milliseconds, 1),
            "peak_memory_mib": round(torch.cuda.max_memory_allocated() / 2**20) if device.type == "cuda" else None,
            "skipped": sum(progress.skipped for progress in done), "losses": [round(progress.loss, 4) for progress in done[-6:]]}


def main() -> None:
    """Measure, print, and keep on request."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device")
    parser.add_argument("--amp", default="fp16", choices=("fp16", "bf16"), help="what is compared with float32")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[16, 64], help="the last one in all ways, the others in 16 bits alone")
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--alone", action="store_true", help="nothing else runs on the machine")
    parser.add_argument("--publish", action="store_true")
    a = parser.parse_args()
    device, (*small, large) = pick_device(a.device), a.batch_sizes
    ways = [(large, "off", False), *((size, a.amp, False) for size in small), (large, a.amp, False), (large, a.amp, True)]
    rows = []
    for way in ways:
        rows.append(measure(device, *way, a.steps))
        print(json.dumps(rows[-1]), flush=True)
    if a.publish:
        publish("training-steps", {"device": device_name(device), "steps": a.steps, "alone": a.alone, "versions": versions(), "rows": rows}, device)


if __name__ == "__main__":
    main()
