"""Everything that is shipped, rebuilt with one command: weights, then every number that is printed.

    python -m utils.train --all [--budget t4-long] [--amp fp16] [--compile] [--num 2048] [--minutes 9] [--only vdm-text]

With the budget t4-long, weights that get no less training than the shipped ones replace them, and their numbers replace those in assets/results. All others stay in --out with what
`utils.evaluate` says of them, and nothing that is shipped changes; a recipe that starts from another model still starts from the shipped one.

Finished stages are noted in --out with their settings and skipped the next time, and training resumes from its checkpoint: so the same command, given again and again,
gets everything done on a machine lent for minutes. The judge and the classifier, which measure the models, and the captioner stay as they are.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from .compare import TABLES
from .evaluate import OWN_TABLES
from .pretrained import shipped_flops, total_flops
from .recipes import MNIST_SIZE, RECIPES
from .runtime import BUDGETS, ROOT, write_json
from .train import Trainer

SHIPPED = "t4-long"  # the budget for weights that are shipped
COMPARISONS = {"joint": ["--clips", "30000"], "inflation": ["--flops", "1e14"], "conditions": ["--flops", "1e14"]}  # what each run of a table gets


@dataclass(frozen=True)
class Stage:
    """A command of the project. proofs: files that exist once it has finished, not stopped for lack of time. model: whose weights it makes or measures; None: no single model's.
    own: the command to run instead where these weights do not replace the shipped ones; None: nothing to do then."""

    model: str | None
    command: list[str]
    own: list[str] | None = None
    proofs: list[Path] = field(default_factory=list)


def stages(budget: str, amp: str, num: int, out: Path) -> dict[str, Stage]:
    """Each stage by its name, in an order in which each follows what it needs."""
    found, shared = {}, ["--amp", amp]
    for name in sorted(RECIPES, key=lambda name: (RECIPES[name].initial is not None, RECIPES[name].kind != "video")):  # the dearest first, but nothing before what it starts from
        kind, weights, size = RECIPES[name].kind, out / name / f"{name}.pt", ["--num", str(num), *shared]
        train = ["utils.train", name, "--budget", budget, "--out", str(out / name), "--resume", *shared]
        found[f"train {name}"] = Stage(name, [*train, "--publish", "--record"], train, [weights])
        found[f"evaluate {name}"] = (Stage(name, [OWN_TABLES[kind], name, "--num", str(max(2, num // 8)), *shared]) if kind in OWN_TABLES
                                     else Stage(name, ["utils.evaluate", name, *size], ["utils.evaluate", str(weights), *size]))
    for name in (name for name, recipe in RECIPES.items() if recipe.sample_shape[-1] == MNIST_SIZE):
        found[f"steps {name}"] = Stage(name, ["utils.sweep", "steps", name, "--num", str(num)])
        if RECIPES[name].captions:
            found[f"guidance {name}"] = Stage(name, ["utils.sweep", "guidance", name, "--num", str(num)])
    for what in ("guidance", "intervals", "rivals"):
        found[f"{what} vdm-text"] = Stage("vdm-text", ["utils.sweep", what, "vdm-text", "--num", str(max(2, num // 8)), *shared])
    found["temporal vdm"] = Stage("vdm", ["utils.sweep", "temporal", "vdm", "--num", str(max(2, num // 8)), *shared])
    found["survival"] = Stage("vdm-text", ["utils.survival", "vdm-text", "--num", str(max(2, num // 8)), *shared])
    found["extension"] = Stage("vdm-text", ["utils.extension", "vdm-text", "--num", str(max(2, num // 4)), *shared])
    for table, size in COMPARISONS.items():
        folder = out / table
        found[table] = Stage(None, ["utils.compare", table, *size, "--num", str(max(2, num // 4)), *shared, "--out", str(folder)], proofs=[folder / f"{variant}.pt" for variant in TABLES[table]])
    found["tables"] = Stage(None, ["utils.readme"])
    return found


def replaces(name: str | None, budget: str) -> bool:
    """Do weights of this recipe and budget replace the shipped ones: is the budget SHIPPED, and is their training, over all runs, no less (as `--publish` asks)? name None: only the budget counts.
    WeightsError when what the recipe starts from is missing or does not fit."""
    if name is None or budget != SHIPPED or not (there := shipped_flops(name)):
        return budget == SHIPPED
    length = RECIPES[name].budget(budget)
    planned = total_flops(Trainer(RECIPES[name], length, "cpu", "off").provenance(length.steps), name)
    if planned < there:
        print(f"{name}: the shipped weights had {there:.3g} FLOPs of training, these get {planned:.3g} and do not take their place")
    return planned >= there


def main(argv: list[str]) -> int:
    """Run what is not finished yet, as `python -m utils.train --all` with the arguments `argv`; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m utils.train --all", description="Train and measure everything that is shipped.")
    parser.add_argument("--budget", default=SHIPPED, choices=BUDGETS, help=f"how long to train; weights of {SHIPPED} alone take the place of shipped ones (default: {SHIPPED})")
    parser.add_argument("--amp", default="auto", choices=("auto", "fp16", "bf16", "off"))
    parser.add_argument("--compile", action="store_true", help="compile the networks in training (not on a T4)")
    parser.add_argument("--num", type=int, default=2048, help="samples behind each number")
    parser.add_argument("--minutes", type=float, help="start nothing after so many minutes, and let training stop there with a checkpoint")
    parser.add_argument("--only", nargs="+", metavar="STAGE", help="stages, or names of models")
    parser.add_argument("--out", type=Path, default=Path("runs/all"), help="weights of each budget and precision have a folder in it")
    a = parser.parse_args(argv)
    start, folder = time.monotonic(), a.out.resolve() / f"{a.budget}-{a.amp}"
    every = stages(a.budget, a.amp, a.num, folder)
    if unknown := set(a.only or ()) - {word for name in every for word in (name, name.split()[-1])}:
        parser.error(f"there is no stage or model {sorted(unknown)[0]!r}; there are {', '.join(map(repr, every))}, and the models {', '.join(RECIPES)}")
    folder.mkdir(parents=True, exist_ok=True)
    note = folder / "done.json"
    done = json.loads(note.read_text()) if note.exists() else {}
    if a.budget != SHIPPED:
        print(f"weights of the budget {a.budget} and their numbers go to {folder}; nothing that is shipped changes")
    replacing: dict[str | None, bool] = {}
    for name, stage in every.items():
        if a.only and name not in a.only and name.split()[-1] not in a.only:
            continue
        try:
            if stage.model not in replacing:
                replacing[stage.model] = replaces(stage.model, a.budget)
        except (RuntimeError, ValueError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        command = stage.command if replacing[stage.model] else stage.own
        if command is None:
            print(f"left out: {name}, which is for weights that are shipped")
            continue
        settings = [argument for argument in command if not argument.startswith(str(folder))]  # folder may move
        if done.get(name) == settings:
            continue
        left = None if a.minutes is None else a.minutes - (time.monotonic() - start) / 60
        if left is not None and left <= 0:
            print(f"time is up before: {name}; the same command goes on")
            return 0
        print(f"[{(time.monotonic() - start) / 60:.1f} min] {name}{', which was done with other settings' if name in done else ''}", flush=True)
        limit = ["--minutes", f"{left:.2f}"] if left is not None and stage.proofs else []
        compiled = ["--compile"] if a.compile and command[0] == "utils.train" else []
        if subprocess.run([sys.executable, "-m", *command, *compiled, *limit], cwd=ROOT).returncode:
            print(f"error: the stage {name!r} failed; what it printed says why. Mend it and give the same command again.", file=sys.stderr)
            return 1
        if not all(path.exists() for path in stage.proofs):
            print(f"time is up in: {name}; the same command goes on")
            return 0
        done[name] = settings
        write_json(note, done)
    print(f"done; weights, and what was done with which settings, are in {folder}")
    return 0
