"""The figures and the tables of README, from shipped weights and results files.

    python -m utils.readme             # writes assets/figures/*.gif and the tables between README's markers
    python -m utils.readme --tables    # the tables alone
"""

from __future__ import annotations

import argparse
import json
import re
import shutil

import torch

from . import show
from .controls import spoiled
from .data import MovingMNIST
from .model import Model
from .pretrained import load_pretrained
from .recipes import MNIST_SIZE, RECIPES
from .runtime import ASSETS, ROOT, generator, outputs, randn_per_sample
from .samplers import SAMPLERS, guided_denoiser, sample_loop

FIGURES, RESULTS, README = ASSETS / "figures", ASSETS / "results", ROOT / "README.md"
GALLERY = ("3 and 7", "1 moving up and 0 moving down", "4 moving left and 8 moving up right", "2 moving right and 5 moving left",
           "9 and 6", "0 moving up left and 1 moving right", "6 moving down and 3 moving up", "7 moving down right and 4 moving left")


def film(model: Model, num: int, steps: int, every: int, sampler: str, seed: int, labels: torch.Tensor | None = None) -> torch.Tensor:
    """`num` images on their way out of noise, (num, 1, frames, H, W) in [0, 1]: the noise, then every k-th step, then a rest on the result."""
    generators = [generator(seed, i, 3) for i in range(num)]
    z = randn_per_sample(model.sample_shape, generators)
    cond = None if labels is None else model.encode(labels=labels)
    frames, schedule = [z], model.recipe.schedule
    with torch.no_grad():
        for state in sample_loop(guided_denoiser(model.net, cond, 1.0, model.prediction), z, schedule.log_snr(schedule.times(steps)), generators, sampler):
            if state.step % every == 0:
                frames.append(state.z)
    return (torch.cat(frames + [frames[-1]] * 8, dim=2).clamp(-1, 1) + 1) / 2


def denoising_gif() -> None:
    """assets/figures/01_denoising.gif: twelve digits coming out of noise (ancestral sampling, 100 steps)."""
    show.gif(film(load_pretrained("mnist-ddpm", device="cpu"), 12, 100, 5, "ancestral", seed=1), FIGURES / "01_denoising.gif", columns=6, scale=2)


def fast_samplers_gif() -> None:
    """assets/figures/02_fast_samplers.gif: a row of digits for each sampler, sixteen steps from the same noise."""
    model, labels = load_pretrained("mnist-guided", device="cpu"), torch.arange(10)
    rows = [film(model, 10, 16, 1, sampler, 2, labels) for sampler in ("ancestral", "ddim", "dpm++")]
    show.gif(torch.cat(rows), FIGURES / "02_fast_samplers.gif", columns=10, scale=2, fps=4)


def guidance_gif() -> None:
    """assets/figures/03_guidance.gif: two rows of the digits 0 to 9 while the guidance scale rises."""
    model = load_pretrained("mnist-guided", device="cpu")
    frames = [model.sample(labels=torch.arange(10).repeat(2), guidance_scale=g, seed=3) for g in (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)]
    show.gif(torch.cat(frames + frames[-1:] * 3, dim=2), FIGURES / "03_guidance.gif", columns=10, scale=2, fps=2)


def controls_gif() -> None:
    """assets/figures/04_controls.gif: a real clip (top left), and the same clip spoiled in seven ways, in the order of `controls.spoiled`."""
    real = (MovingMNIST("test", seed=8).sample(1).video + 1) / 2
    show.gif(torch.cat([real, *spoiled(1, seed=8).values()]), FIGURES / "04_controls.gif", columns=4, scale=3)


def text_to_video_gif() -> None:
    """assets/figures/06_text_to_video.gif: one clip for each caption of GALLERY, seed 0, none rejected."""
    show.gif(load_pretrained("vdm-text", device="cpu").sample(list(GALLERY), seed=0), FIGURES / "06_text_to_video.gif", columns=4, scale=3)


def from_lesson(name: str) -> None:
    """assets/figures/NAME as the lesson of its number wrote it to the folder of outputs; SystemExit when it is not there."""
    if not (outputs() / name).exists():
        raise SystemExit(f"error: {name} is not in {outputs().name}/. Make it with: python -m utils.notebooks run {name[:2]}")
    shutil.copyfile(outputs() / name, FIGURES / name)


def percent(row: dict, key: str) -> str:
    """A share with its 95% interval, for a table."""
    return f"{row[key]:.1%} ({row[key + '_low']:.1%} to {row[key + '_high']:.1%})"


def video_rows(rows: dict[str, dict]) -> list[str]:
    """The table of `metrics.evaluate`'s rows, as lines of Markdown; what the tracker, which has no network, says is in brackets."""
    motion = any("pairs" in row for row in rows.values())
    lines = ["| clips | kernel distance (95% interval) | both digits as asked |" + " (digit, direction) pairs as asked | direction, of digits as asked |" * motion
             + " off the best path, pixels | pixels a frame | frames that look like the digit |", "|---|---|---|" + "---|---|" * motion + "---|---|---|"]
    for name, row in rows.items():
        shares = [f"{row[key]:.1%} ({row['tracker_' + key]:.1%})" if key in row and "tracker_" + key in row else "" for key in ("digits", "pairs", "directions")[:3 if motion else 1]]
        lines.append(f"| {name} | {row['kernel_distance']:.3f} ({row['kernel_distance_low']:.3f} to {row['kernel_distance_high']:.3f}) | " + " | ".join(shares)
                     + f" | {row['rmse']:.2f} ({row['tracker_rmse']:.2f}) | {row['speed']:.2f} ({row['tracker_speed']:.2f}) | {row['identity']:.1%} ({row['tracker_identity']:.1%}) |")
    return lines


def _started_from(trained: dict) -> str:
    origin = trained.get("initial")
    return "" if origin is None else f", from weights of `{origin['recipe']}` ({origin['steps']:,} steps, {origin['flops']:.2g} FLOPs, {origin['device']}){_started_from(origin)}"


def results_table() -> str:
    """What was measured of each shipped model, as Markdown."""
    lines = []
    for path in (RESULTS / f"{name}.json" for name in RECIPES):
        if not path.exists():
            continue
        result = json.loads(path.read_text())
        t = result["trained"]
        lines += [f"**`{result['model']}`**: trained on {t['device']} ({t['precision']}), {t['steps']:,} steps, {t['samples']:,} samples, {t['seconds'] / 60:.0f} minutes, "
                  f"{t['flops']:.2g} FLOPs{_started_from(t)}. Measured on test digits, n = {result['n']} a row, {result['steps']} steps ({result['sampler']}), seed {result['seed']}"
                  + (f", guidance {result['guidance_scale']:g}." if RECIPES[result['model']].captions else "."), ""]
        if RECIPES[result["model"]].kind == "image" and RECIPES[result["model"]].sample_shape[-1] != MNIST_SIZE:
            for kind, rows in result["rows"].items():
                lines += [{"motion": "Captions with directions, which a still frame cannot obey:", "digits": "Captions of digits alone:"}[kind], "",
                          "| frames, as still clips | kernel distance (95% interval) | both digits as asked |", "|---|---|---|"]
                lines += [f"| {name} | {row['kernel_distance']:.3f} ({row['kernel_distance_low']:.3f} to {row['kernel_distance_high']:.3f}) | {percent(row, 'digits')} |"
                          for name, row in rows.items()] + [""]
        elif RECIPES[result["model"]].kind == "video":
            for kind, rows in result["rows"].items():
                lines += [{"motion": "Prompts of digits and directions:", "digits": "Prompts of digits alone:", "unconditional": "Without prompts:"}[kind], "", *video_rows(rows), ""]
        else:
            asked = "digits" in result["rows"][result["model"]]
            lines += ["| images | kernel distance | read with over 90% confidence |" + " read as asked |" * asked, "|---|---|---|" + "---|" * asked]
            lines += [f"| {name} | {row['kernel_distance']:.3f} | {row['confident']:.1%} |" + (f" {percent(row, 'digits')} |" if asked else "")
                      for name, row in result["rows"].items()]
        lines.append("")
    return "\n".join(lines).strip()


def steps_table() -> str:
    """Kernel distance against denoising steps for each image model and sampler, as Markdown."""
    results = {name: json.loads(path.read_text()) for name in RECIPES if (path := RESULTS / f"{name}-steps.json").exists()}
    counts = sorted({row["steps"] for result in results.values() for row in result["rows"].values() if "steps" in row})
    lines = ["| model | sampler | " + " | ".join(f"{count} steps" for count in counts) + " | 32 against 1000 steps, paired (95% interval) |", "|---|---|" + "---|" * (len(counts) + 1)]
    for name, result in results.items():
        rows = result["rows"]
        for sampler in SAMPLERS:
            cells = [f"{rows[f'{sampler} {count}']['kernel_distance']:.3f}" if f"{sampler} {count}" in rows else "" for count in counts]
            gap = rows.get(f"{sampler} 32", {}).get("to_1000_steps")
            lines.append(f"| `{name}` | {sampler} | " + " | ".join(cells) + (f" | {gap['gap']:+.3f} ({gap['gap_low']:+.3f} to {gap['gap_high']:+.3f}) |" if gap else " | |"))
        for control in ("real held-out (floor)", "control: noise"):
            lines.append(f"| `{name}`, n = {result['n']} | {control} | {rows[control]['kernel_distance']:.3f} |" + " |" * len(counts))
    return "\n".join(lines)


def guidance_table() -> str:
    """Obedience, variety and distance of mnist-guided against the guidance scale, as Markdown."""
    result = json.loads((RESULTS / "mnist-guided-guidance.json").read_text())
    return "\n".join([f"| `mnist-guided`, n = {result['n']} | read as asked | variety (real digits = 1) | kernel distance |", "|---|---|---|---|"]
                     + [f"| {name} | {percent(row, 'digits')} | {row['variety']:.2f} | {row['kernel_distance']:.3f} |" for name, row in result["rows"].items()])


def shapes_table() -> str:
    """The shapes of the video network that were compared at equal FLOPs, as Markdown."""
    rows = json.loads((RESULTS / "video-shapes.json").read_text())
    levels = list(rows[0]["validation_loss"])
    lines = ["| shape (width from fine to coarse) | parameters | GFLOP a clip | saved activations, MiB | clips seen | "
             + " | ".join(f"loss at {level}" for level in levels) + " |", "|---|" + "---|" * (len(levels) + 4)]
    for row in rows:
        lines.append(f"| {row['variant']} | {row['parameters'] / 1e6:.2f}M | {row['gflop_per_clip']:.1f} | {row['saved_activations_mib']:.0f} | {row['clips']:,} | "
                     + " | ".join(f"{row['validation_loss'][level]:.3f}" for level in levels) + " |")
    return "\n".join(lines)


def settings_table() -> str:
    """Settings of `vdm-text` that were compared at equal FLOPs, as Markdown."""
    rows = json.loads((RESULTS / "video-settings.json").read_text())
    levels = list(rows[0]["validation_loss"])
    lines = ["| setting | steps | clips seen | " + " | ".join(f"loss at {level}" for level in levels) + " | the same without captions at -2 |", "|---|" + "---|" * (len(levels) + 3)]
    for row in rows:
        lines.append(f"| {row['variant']} | {row['steps']:,} | {row['clips']:,} | " + " | ".join(f"{row['validation_loss'][level]:.4f}" for level in levels)
                     + f" | {row['validation_loss_without_caption']['-2']:.4f} |")
    return "\n".join(lines)


def joint_table() -> str:
    """Nine runs of `vdm` with 0, 4 and 8 images a clip, as Markdown."""
    rows = json.loads((RESULTS / "video-joint.json").read_text())
    last = rows[-1]
    lines = [f"| {last['clips']:,} clips a run, {last['device']}, n = {last['n']} | FLOPs | mean loss on held-out clips | kernel distance |", "|---|---|---|---|"]
    lines += [f"| {row['variant']} | {row['flops']:.2g} | {sum(row['validation_loss'].values()) / len(row['validation_loss']):.4f} | {row['kernel_distance']:.3f} |" for row in rows]
    return "\n".join(lines)


def extension_table() -> str:
    """Real clips made four times as long by replacement and by reconstruction guidance, as Markdown."""
    result = json.loads((RESULTS / "vdm-text-extension.json").read_text())
    lines = [f"| `{result['model']}`, n = {result['n']}, {result['steps']} steps, {result['device']} | kernel distance | off the best path, pixels | frames that look like the digit | both given digits there "
             "| off one path across the seam | given frames missed by |", "|---|---|---|---|---|---|---|"]
    for name, row in result["rows"].items():
        missed = f"{row['missed']:.3f}" if "missed" in row else ""
        lines.append(f"| {name} | {row['kernel_distance']:.3f} | {row['rmse']:.2f} | {row['identity']:.1%} | {row['digits']:.1%} | {row['across']:.2f} | {missed} |")
    return "\n".join(lines)


def inflation_table() -> str:
    """A network inflated from the image model against other ways to start, at equal FLOPs, as Markdown."""
    rows = json.loads((RESULTS / "video-inflation.json").read_text())
    levels = list(rows[0]["validation_loss"])
    lines = [f"| {rows[0]['flops']:.1e} FLOPs each, {rows[0]['device']}, n = {rows[0]['n']} | clips seen | " + " | ".join(f"loss at {level}" for level in levels)
             + " | both digits as asked | off the best path, pixels | frames that look like the digit |", "|---|" + "---|" * (len(levels) + 4)]
    lines += [f"| {row['variant']} | {row['clips']:,} | " + " | ".join(f"{row['validation_loss'][level]:.3f}" for level in levels)
              + f" | {row['digits']:.1%} | {row['rmse']:.2f} | {row['identity']:.1%} |" for row in rows]
    return "\n".join(lines)


def _made_by(result: dict) -> str:
    t = result["trained"]
    return (f"**`{result['model']}`**: trained on {t['device']} ({t['precision']}), {t['steps']:,} steps, {t['samples']:,} samples, {t['seconds'] / 60:.0f} minutes, {t['flops']:.2g} FLOPs"
            f"{_started_from(t)}. Measured on {result['split']} digits, n = {result['n']}, {result['steps']} steps, {result['device']}, seed {result['seed']}.")


def interpolation_table() -> str:
    """Frames between keyframes, as Markdown."""
    result = json.loads((RESULTS / "mav-interpolate-frames.json").read_text())
    lines = [_made_by(result), "", "| 16 keyframes to 76 frames | missing frames off by | judder | edges, real = 1 | all keyframes there | kernel distance | off the best path, pixels | pixels a frame "
             "| frames that look like the digit | both digits there |", "|---|---|---|---|---|---|---|---|---|---|"]
    lines += [f"| {name} | {row['missed']:.3f} | {row['judder']:.2f} | {row['edges']:.2f} | {'yes' if row['keyframes'] else 'no'} | {row['kernel_distance']:.3f} | {row['rmse']:.2f} | {row['speed']:.2f} "
              f"| {row['identity']:.1%} | {row['digits']:.1%} |" for name, row in result["rows"].items()]
    return "\n".join(lines)


def super_resolution_table() -> str:
    """Clips at twice the size, as Markdown."""
    result = json.loads((RESULTS / "mav-upsample-frames.json").read_text())
    lines = [_made_by(result), "", "| 32 to 64 pixels | off by | averaged down again, off by | sharpness, real = 1 | change from frame to frame, real = 1 | flicker of a still clip | digits read at full size | their kernel distance |",
             "|---|---|---|---|---|---|---|---|"]
    lines += [f"| {name} | {row['missed']:.3f} | {row['again']:.3f} | {row['sharpness']:.2f} | {row['change']:.2f} | {row['flicker']:.4f} | {percent(row, 'digits')} | {row['kernel_distance']:.3f} |"
              for name, row in result["rows"].items()]
    return "\n".join(lines)


def speed_table() -> str:
    """The video network beside public ones, as Markdown."""
    result = json.loads((RESULTS / "network-speed.json").read_text())
    ours = next(iter(result["rows"].values()))
    lines = [f"| {result['device']}, {result['precision']}, batch {result['batch_size']} | parameters | GFLOP a clip | saved activations, MiB | training, clips a second | one denoising step, clips a second |",
             "|---|---|---|---|---|---|"]
    for name, row in result["rows"].items():
        speeds = [f"{row[key]:.2f}" + ("" if row is ours else f" ({ours[key] / row[key]:.0f} times slower)") for key in ("train_clips_per_second", "sample_clips_per_second")]
        lines.append(f"| {name} | {row['parameters'] / 1e6:.2f}M | {row['gflop_per_clip']:.1f} | {row['saved_activations_mib']:.0f} | " + " | ".join(speeds) + " |")
    return "\n".join(lines)


def with_tables(text: str) -> str:
    """README's text with the tables between its markers made anew."""
    tables = {"results": results_table, "steps": steps_table, "guidance": guidance_table, "speed": speed_table, "shapes": shapes_table, "settings": settings_table, "joint": joint_table, "extension": extension_table,
              "inflation": inflation_table, "interpolation": interpolation_table, "super-resolution": super_resolution_table}
    for name, make in tables.items():
        text, found = re.subn(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", lambda m, t=make(): f"{m[1]}{t}\n{m[2]}", text, flags=re.DOTALL)
        if found != 1:
            raise ValueError(f"README.md needs one pair of markers <!-- {name} --> and <!-- /{name} -->; found {found}.")
    return text


def main() -> None:
    """Write figures and tables."""
    parser = argparse.ArgumentParser(prog="python -m utils.readme", description="Make README's figures and tables.")
    parser.add_argument("--tables", action="store_true", help="only the tables")
    if not parser.parse_args().tables:
        for figure in (denoising_gif, fast_samplers_gif, guidance_gif, controls_gif, text_to_video_gif):
            figure()
        for name in ("05_who_sees_whom.gif", "07_packs.gif", "08_extension.gif", "09_pseudo_3d.gif", "10_make_a_video.gif", "11_interpolation.gif", "12_pipeline.gif"):
            from_lesson(name)
    README.write_text(with_tables(README.read_text()))


if __name__ == "__main__":
    main()
