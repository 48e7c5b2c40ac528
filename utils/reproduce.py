"""Everything that is shipped, made anew with one command: weights, then every number that is printed.

    python -m utils.reproduce [--budget t4-long] [--amp fp16] [--num 2048] [--minutes 9] [--only vdm-text]

Stages that are finished are marked in --out and left out the next time, and training goes on from its checkpoint: so the same command, again and again,
gets through on a machine that is lent for minutes. The judge and the classifier, by which models are measured, stay as they are.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

from .evaluate import OWN_TABLES
from .recipes import MNIST_SIZE, RECIPES
from .runtime import BUDGETS, ROOT


def stages(budget: str, amp: str, num: int, out: Path) -> dict[str, list[str]]:
    """Each stage's name and command, in an order in which what is needed comes first."""
    commands = {}
    for name in sorted(RECIPES, key=lambda name: (RECIPES[name].initial is not None, RECIPES[name].kind != "video")):  # the dearest first, but nothing before what it starts from
        kind = RECIPES[name].kind
        commands[f"train {name}"] = ["utils.train", name, "--budget", budget, "--amp", amp, "--out", str(out / name), "--resume", "--publish", "--record"]
        commands[f"evaluate {name}"] = ([OWN_TABLES[kind], name, "--num", str(num // 8), "--amp", amp] if kind in OWN_TABLES
                                        else ["utils.evaluate", name, "--num", str(num), "--amp", amp])
    for name in (name for name, recipe in RECIPES.items() if recipe.sample_shape[-1] == MNIST_SIZE):
        commands[f"steps {name}"] = ["utils.sweep", "steps", name, "--num", str(num)]
        if RECIPES[name].captions:
            commands[f"guidance {name}"] = ["utils.sweep", "guidance", name, "--num", str(num)]
    commands["extension"] = ["utils.extension", "vdm-text", "--num", str(num // 4), "--amp", amp]
    commands["joint training"] = ["utils.compare", "joint", "--amp", amp, "--out", str(out / "joint")]
    commands["inflation"] = ["utils.compare", "inflation", "--amp", amp, "--out", str(out / "inflation")]
    commands["tables"] = ["utils.readme", "--tables"]
    return commands


def main() -> None:
    """Run what is not finished yet."""
    parser = argparse.ArgumentParser(prog="python -m utils.reproduce", description="Train and measure everything that is shipped.")
    parser.add_argument("--budget", default="t4-long", choices=BUDGETS)
    parser.add_argument("--amp", default="auto", choices=("auto", "fp16", "bf16", "off"))
    parser.add_argument("--num", type=int, default=2048, help="samples behind each number")
    parser.add_argument("--minutes", type=float, help="start nothing after so many minutes, and let training stop there with a checkpoint")
    parser.add_argument("--only", nargs="*", help="stages, or names of models")
    parser.add_argument("--out", type=Path, default=Path("runs/reproduce"))
    a = parser.parse_args()
    start, done = time.monotonic(), a.out / "done"
    a.out.mkdir(parents=True, exist_ok=True)
    finished = done.read_text().splitlines() if done.exists() else []
    for name, command in stages(a.budget, a.amp, a.num, a.out.resolve()).items():
        if name in finished or a.only and name not in a.only and name.split()[-1] not in a.only:
            continue
        left = None if a.minutes is None else a.minutes - (time.monotonic() - start) / 60
        if left is not None and left <= 0:
            print(f"time is up before: {name}; the same command goes on")
            return
        if left is not None and command[0] == "utils.train":
            command = [*command, "--minutes", f"{left:.2f}"]
        print(f"[{(time.monotonic() - start) / 60:.1f} min] {name}", flush=True)
        if subprocess.run([sys.executable, "-m", *command], cwd=ROOT).returncode:
            raise SystemExit(f"error: the stage {name!r} failed; what it printed says why. Mend it and give the same command again.")
        if command[0] == "utils.train" and not (Path(command[command.index("--out") + 1]) / f"{command[1]}.pt").exists():
            print(f"time is up in: {name}; the same command goes on")
            return
        finished.append(name)
        done.write_text("\n".join(finished) + "\n")


if __name__ == "__main__":
    main()
