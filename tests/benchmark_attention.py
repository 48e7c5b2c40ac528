"""Fused attention against `utils.layers.attend` on this CPU, forward and backward, interleaved in one run.

    python tests/benchmark_attention.py
"""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
import torch.nn.functional as F

from utils.layers import attend


def main() -> None:
    torch.set_num_threads(1)
    print("tokens  dtype      fused ms  attend ms  ratio")
    for tokens in (16, 49, 64):
        for dtype in (torch.float32, torch.bfloat16):
            q, k, v = (torch.randn(128, 4, tokens, 32, dtype=dtype).requires_grad_() for _ in range(3))
            seconds = {F.scaled_dot_product_attention: [], attend: []}
            for _ in range(7):
                for function, taken in seconds.items():
                    start = time.perf_counter()
                    function(q, k, v).sum().backward()
                    taken.append(time.perf_counter() - start)
            fused, ours = (sorted(taken)[3] * 1e3 for taken in seconds.values())
            print(f"{tokens:6d}  {str(dtype)[6:]:9s} {fused:9.1f} {ours:10.1f} {fused / ours:6.1f}")


if __name__ == "__main__":
    main()
