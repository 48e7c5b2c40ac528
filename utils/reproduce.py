"""Everything that is shipped, made anew with one command: weights, then every number that is printed.

    python -m utils.train --all [--budget t4-long] [--amp fp16] [--compile] [--num 2048] [--minutes 9] [--only vdm-text]

Stages that are finished are marked in --out and left out the next time, and training goes on from its checkpoint: so the same command, again and again,
gets through on a machine that is lent for minutes. The judge and the classifier, by which models are measured, stay as they are.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from .compare import TABLES
from .evaluate import OWN_TABLES
from .recipes import MNIST_SIZE, RECIPES
from .runtime import BUDGETS, ROOT


COMPARISONS = {"joint": {"smoke": ["--clips", "8"], "cpu": ["--clips", "2000"], "t4": ["--clips", "10000"], "t4-long": ["--clips", "30000"]},
               "inflation": {"smoke": ["--flops", "1e11"], "cpu": ["--flops", "1.5e13"], "t4": ["--flops", "3e13"], "t4-long": ["--flops", "1e14"]}}  # what each run of a table gets


@dataclass(frozen=True)
class Stage:
    """A command of the project, and the files that are there when it came to its end and did not stop for lack of time."""

    command: list[str]
    proofs: list[Path] = field(default_factory=list)


def stages(budget: str, amp: str, num: int, out: Path, compiled: bool = False) -> dict[str, Stage]:
    """Each stage by its name, in an order in which what is needed comes first."""
    found = {}
    for name in sorted(RECIPES, key=lambda name: (RECIPES[name].initial is not None, RECIPES[name].kind != "video")):  # the dearest first, but nothing before what it starts from
        kind, shared = RECIPES[name].kind, ["--amp", amp]
        found[f"train {name}"] = Stage(["utils.train", name, "--budget", budget, "--out", str(out / name), "--resume", "--publish", "--record", *shared, *(["--compile"] if compiled else [])], [out / name / f"{name}.pt"])
        found[f"evaluate {name}"] = Stage([OWN_TABLES[kind], name, "--num", str(max(2, num // 8)), *shared] if kind in OWN_TABLES else ["utils.evaluate", name, "--num", str(num), *shared])
    for name in (name for name, recipe in RECIPES.items() if recipe.sample_shape[-1] == MNIST_SIZE):
        found[f"steps {name}"] = Stage(["utils.sweep", "steps", name, "--num", str(num)])
        if RECIPES[name].captions:
            found[f"guidance {name}"] = Stage(["utils.sweep", "guidance", name, "--num", str(num)])
    found["guidance vdm-text"] = Stage(["utils.sweep", "guidance", "vdm-text", "--num", str(max(2, num // 8)), "--amp", amp])
    found["survival"] = Stage(["utils.survival", "vdm-text", "--num", str(max(2, num // 8)), "--amp", amp])
    found["extension"] = Stage(["utils.extension", "vdm-text", "--num", str(max(2, num // 4)), "--amp", amp])
    for table, sizes in COMPARISONS.items():
        folder = out / table
        found[table] = Stage(["utils.compare", table, *sizes[budget], "--num", str(max(2, num // 4)), "--amp", amp, "--out", str(folder)],
                             [folder / f"{variant}.pt" for variant in TABLES[table]])
    found["tables"] = Stage(["utils.readme"])
    return found


def main(argv: list[str]) -> int:
    """Run what is not finished yet, as `python -m utils.train --all` with the arguments `argv`; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m utils.train --all", description="Train and measure everything that is shipped.")
    parser.add_argument("--budget", default="t4-long", choices=BUDGETS)
    parser.add_argument("--amp", default="auto", choices=("auto", "fp16", "bf16", "off"))
    parser.add_argument("--compile", action="store_true", help="compile the networks in training (not on a T4)")
    parser.add_argument("--num", type=int, default=2048, help="samples behind each number")
    parser.add_argument("--minutes", type=float, help="start nothing after so many minutes, and let training stop there with a checkpoint")
    parser.add_argument("--only", nargs="*", help="stages, or names of models")
    parser.add_argument("--out", type=Path, default=Path("runs/all"))
    a = parser.parse_args(argv)
    start, done = time.monotonic(), a.out / "done"
    a.out.mkdir(parents=True, exist_ok=True)
    finished = done.read_text().splitlines() if done.exists() else []
    for name, stage in stages(a.budget, a.amp, a.num, a.out.resolve(), a.compile).items():
        if name in finished or a.only and name not in a.only and name.split()[-1] not in a.only:
            continue
        left = None if a.minutes is None else a.minutes - (time.monotonic() - start) / 60
        if left is not None and left <= 0:
            print(f"time is up before: {name}; the same command goes on")
            return 0
        print(f"[{(time.monotonic() - start) / 60:.1f} min] {name}", flush=True)
        limit = ["--minutes", f"{left:.2f}"] if left is not None and stage.proofs else []
        if subprocess.run([sys.executable, "-m", *stage.command, *limit], cwd=ROOT).returncode:
            print(f"error: the stage {name!r} failed; what it printed says why. Mend it and give the same command again.", file=sys.stderr)
            return 1
        if not all(path.exists() for path in stage.proofs):
            print(f"time is up in: {name}; the same command goes on")
            return 0
        finished.append(name)
        done.write_text("\n".join(finished) + "\n")
    return 0
