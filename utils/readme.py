"""The tables of README and of assets/results/README.md, from results files.

    python -m utils.readme
"""

from __future__ import annotations

import json
import re

from .cost import T4_SUSTAINED
from .evaluate import sampling_words
from .pretrained import runs, total_flops
from .recipes import MNIST_SIZE, RECIPES
from .runtime import ASSETS, ROOT
from .samplers import SAMPLERS
from .unet import UNet

RESULTS = ASSETS / "results"
PAGES = (ROOT / "README.md", RESULTS / "README.md")  # the front page, and every number
PAPERS = {"mnist-ddpm": "[DDPM](https://arxiv.org/abs/2006.11239)", "mnist-guided": "[classifier-free guidance](https://arxiv.org/abs/2207.12598)",
          "vdm": "[Video Diffusion Models](https://arxiv.org/abs/2204.03458)", "mav": "[Make-A-Video](https://arxiv.org/abs/2209.14792)"}  # by name prefix


def percent(row: dict, key: str) -> str:
    """A share with its 95% interval, for a table."""
    return f"{row[key]:.1%} ({row[key + '_low']:.1%} to {row[key + '_high']:.1%})"


def video_rows(rows: dict[str, dict]) -> list[str]:
    """The table of `metrics.evaluate`'s rows, as lines of Markdown; in brackets, those of the tracker, which has no network."""
    columns = {"digits": "both digits as asked", "twice": "one of them two times", "pairs": "(digit, direction) pairs as asked", "directions": "direction, of digits as asked"}
    columns = {key: title for key, title in columns.items() if key == "digits" or any(key in row for row in rows.values())}
    lines = ["| clips | kernel distance (95% interval) | " + " | ".join(columns.values()) + " | off the best path, pixels | pixels a frame | frames that look like the digit |",
             "|---|---|" + "---|" * len(columns) + "---|---|---|"]
    for name, row in rows.items():
        shares = [f"{row[key]:.1%} ({row['tracker_' + key]:.1%})" if key in row and "tracker_" + key in row else "" for key in columns]
        lines.append(f"| {name} | {row['kernel_distance']:z.3f} ({row['kernel_distance_low']:z.3f} to {row['kernel_distance_high']:z.3f}) | " + " | ".join(shares)
                     + f" | {row['rmse']:.2f} ({row['tracker_rmse']:.2f}) | {row['speed']:.2f} ({row['tracker_speed']:.2f}) | {row['identity']:.1%} ({row['tracker_identity']:.1%}) |")
    return lines


def hearing_rows(heard: dict[str, dict]) -> list[str]:
    """The table of `hearing.hearing`, as lines of Markdown."""
    levels = list(next(iter(heard.values())))
    return ["| false captions | " + " | ".join(f"log-SNR {level}" for level in levels) + " |", "|---|" + "---|" * len(levels),
            *(f"| {name} | " + " | ".join(f"{1e4 * row[level]['mean']:+.1f} ± {1e4 * row[level]['standard_error']:.1f}" for level in levels) + " |" for name, row in heard.items())]


def _amount(run: dict) -> str:
    """What a training run took, in words."""
    minutes = max(1, round(run["seconds"] / 60))
    return f"{run['steps']:,} steps, {run['samples']:,} samples, {minutes} minute{'s' * (minutes > 1)}, {run['flops']:.2g} FLOPs"


def _trained(trained: dict) -> str:
    """How weights were trained, in a sentence or two: their own run and, where they continue others, how many came before it."""
    earlier = len(runs(trained)) - 1
    before = f" Before it: {earlier} run{'s' * (earlier > 1)}, {total_flops(trained) - trained['flops']:.2g} FLOPs." if earlier else ""
    return f"{'Last run' if earlier else 'Trained'}: {_amount(trained)}, on {trained['device']} ({trained['precision']}).{before}"


def _earlier_runs(trained: dict) -> list[str]:
    """The runs that weights continue or rest on, oldest first, as folded lines of Markdown; empty if there are none."""
    lines = []
    for run in map(json.loads, list(runs(trained))[:-1]):
        changed = [" (text encoder anew)"] if run.get("fresh_text") else []
        changed += [f" (grown from {'-'.join(map(str, run['grown_from']['channels']))})"] if "grown_from" in run else []
        lines.append(f"- {run['date']}, `{run['recipe']}`{''.join(changed)}: {_amount(run)}, {run['device']}")
    return ["<details><summary>Earlier runs</summary>", "", *lines, "", "</details>", ""] if lines else []


def result_of(name: str) -> dict | None:
    """The results file of a shipped model; None when there is none."""
    path = next((path for ending in ("", "-frames") if (path := RESULTS / f"{name}{ending}.json").exists()), None)
    return None if path is None else json.loads(path.read_text())


def _paper(name: str) -> str:
    return next(paper for start, paper in PAPERS.items() if name.startswith(start))


def _devices(trained: dict) -> str:
    """The kinds of hardware that weights were trained on, the one that did most first."""
    flops: dict[str, float] = {}
    for run, spent in runs(trained).items():
        device = json.loads(run)["device"].split(",")[0]
        flops[device] = flops.get(device, 0) + spent
    return " and ".join(sorted(flops, key=lambda device: -flops[device]))


def _in_short(result: dict) -> str:
    """A model's results, each number beside its floor and that of a control or the plain way."""
    model, rows = result["model"], result["rows"]
    if model == "mav-interpolate":
        return f"missing frames off by {rows[model]['missed']:.3f} (keyframes repeated {rows['keyframes repeated']['missed']:.3f}, cross-fade {rows['cross-fade']['missed']:.3f})"
    if model == "mav-upsample":
        return (f"off by {rows['shared noise']['missed']:.3f} (bilinear {rows['bilinear']['missed']:.3f}); flicker of a still clip {rows['shared noise']['flicker']:.4f} "
                f"(separate noise {rows['separate noise']['flicker']:.4f})")
    if RECIPES[model].sample_shape[-1] != MNIST_SIZE:
        rows = next(iter(rows.values()))
    real, ours = next(row for name, row in rows.items() if name.startswith("real")), rows[model]
    control = "control: half speed" if "control: half speed" in rows else "control: noise"
    said = [f"{words} {ours[key]:.1%} (real {real[key]:.1%})" for key, words in (("digits", "digits as asked"), ("pairs", "digits that move as asked")) if key in ours]
    said += [f"off the best path {ours['rmse']:.2f} px (real {real['rmse']:.2f})"] if "rmse" in ours else []
    return "; ".join([*said, f"kernel distance {ours['kernel_distance']:z.3f} (real {real['kernel_distance']:z.3f}, {control.removeprefix('control: ')} {rows[control]['kernel_distance']:z.3f})"])


def summary_table() -> str:
    """One row for each shipped model, as Markdown: date, model, paper, how it was made, results."""
    lines = ["| date | model | paper | configuration | result on held-out digits (floor and control) | details |", "|---|---|---|---|---|---|"]
    for name, recipe in RECIPES.items():
        if (result := result_of(name)) is None:
            continue
        t, shape, flops = result["trained"], recipe.sample_shape, total_flops(result["trained"])
        size = (f"{shape[1]} frames of " if shape[1] > 1 else "") + f"{shape[2]}×{shape[3]}"
        captions = "no captions" if recipe.captions is None else "captions" if recipe.paired else "clips without captions"
        lines.append(f"| {t['date']} | `{name}` | {_paper(name)} | {size}, {captions}; {sum(p.numel() for p in UNet(recipe.net).parameters()) / 1e6:.2f}M parameters; {flops:.1e} FLOPs on {_devices(t)} "
                     f"(on a T4 {max(1, round(flops / T4_SUSTAINED / 60))} min, estimate) | {_in_short(result)} | n = {result['n']}, {sampling_words(result)}: [all rows](assets/results/README.md#{name}) |")
    return "\n".join(lines)


def results_table() -> str:
    """The measurements of each shipped model, as Markdown."""
    lines = []
    for path in (RESULTS / f"{name}.json" for name in RECIPES):
        if not path.exists():
            continue
        result = json.loads(path.read_text())
        t = result["trained"]
        lines += [f"### {result['model']}", "", f"{_trained(t)} Measured on test digits, n = {result['n']} a row, {result['sampler']} sampling, {sampling_words(result)}, seed {result['seed']}.", "", *_earlier_runs(t)]
        if RECIPES[result["model"]].kind == "image" and RECIPES[result["model"]].sample_shape[-1] != MNIST_SIZE:
            for kind, rows in result["rows"].items():
                lines += [{"motion": "Captions with directions, which a still frame cannot obey:", "digits": "Captions of digits alone:"}[kind], "",
                          "| frames, as still clips | kernel distance (95% interval) | both digits as asked | one of them two times |", "|---|---|---|---|"]
                lines += [f"| {name} | {row['kernel_distance']:z.3f} ({row['kernel_distance_low']:z.3f} to {row['kernel_distance_high']:z.3f}) | {percent(row, 'digits')} | {percent(row, 'twice')} |"
                          for name, row in rows.items()] + [""]
        elif RECIPES[result["model"]].kind == "video":
            for kind, rows in result["rows"].items():
                lines += [{"motion": "Prompts of digits and directions:", "digits": "Prompts of digits alone:", "unconditional": "Without prompts:"}[kind], "", *video_rows(rows), ""]
            if "hearing" in result:
                lines += ["What a false caption of a real clip adds to the loss, in 1/10,000, in the same noise (± standard error; 0: the words are not heard):", "", *hearing_rows(result["hearing"]), ""]
        else:
            asked = "digits" in result["rows"][result["model"]]
            lines += ["| images | kernel distance | read with over 90% confidence |" + " read as asked |" * asked, "|---|---|---|" + "---|" * asked]
            lines += [f"| {name} | {row['kernel_distance']:z.3f} | {row['confident']:.1%} |" + (f" {percent(row, 'digits')} |" if asked else "")
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
        floor, noise = (rows[control]["kernel_distance"] for control in ("real held-out (floor)", "control: noise"))
        for sampler in SAMPLERS:
            cells = [f"{rows[f'{sampler} {count}']['kernel_distance']:z.3f}" if f"{sampler} {count}" in rows else "" for count in counts]
            gap = rows.get(f"{sampler} 32", {}).get("to_1000_steps")
            lines.append(f"| `{name}`, n = {result['n']} (real {floor:z.3f}, noise {noise:.3f}) | {sampler} | " + " | ".join(cells) + (f" | {gap['gap']:+.3f} ({gap['gap_low']:+.3f} to {gap['gap_high']:+.3f}) |" if gap else " | |"))
    return "\n".join(lines)


def guidance_table() -> str:
    """Obedience, variety and distance of mnist-guided against the guidance scale, as Markdown."""
    result = json.loads((RESULTS / "mnist-guided-guidance.json").read_text())
    return "\n".join([f"| `mnist-guided`, n = {result['n']} | read as asked | variety (real digits = 1) | kernel distance |", "|---|---|---|---|"]
                     + [f"| {name} | {percent(row, 'digits')} | {row['variety']:.2f} | {row['kernel_distance']:z.3f} |" for name, row in result["rows"].items()])


def clip_guidance_table() -> str:
    """What the judge reads off clips of vdm-text against the guidance scale, as Markdown."""
    return _read_off_clips("guidance")


def interval_guidance_table() -> str:
    """The same with guidance at some noise levels only."""
    return _read_off_clips("intervals")


def rivals_table() -> str:
    """The same with guidance away from rival captions."""
    return _read_off_clips("rivals")


def temporal_table() -> str:
    """What the judge reads off clips of vdm against temporal guidance, as Markdown."""
    return _read_off_clips("temporal", "vdm")


def _read_off_clips(sweep: str, model: str = "vdm-text") -> str:
    result = json.loads((RESULTS / f"{model}-{sweep}.json").read_text())
    columns = {"digits": "both digits", "twice": "one of them two times", "pairs": "pairs with their direction", "directions": "direction, of digits as asked", "both_ways": "both ways, whichever digit", "same_way": "both the same way"}
    columns = {key: title for key, title in columns.items() if all(f"{key}_low" in row for row in result["rows"].values())}
    far = all("kernel_distance" in row for row in result["rows"].values())
    lines = [f"| `{result['model']}`, n = {result['n']}, {result['split']} digits, {result['device']} | " + "".join(f"{title} | " for title in columns.values())
             + "off the best path, pixels | frames that look like the digit |" + " kernel distance (95% interval) |" * far, "|---|" + "---|" * (len(columns) + 2 + far)]
    for name, row in result["rows"].items():
        distance = f" {row['kernel_distance']:z.3f} ({row['kernel_distance_low']:z.3f} to {row['kernel_distance_high']:z.3f}) |" if far else ""
        lines.append(f"| {name} | " + "".join(f"{percent(row, key)} | " for key in columns) + f"{row['rmse']:.2f} | {row['identity']:.1%} |{distance}")
    return "\n".join(lines)


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


def settings_table(compared: str = "settings") -> str:
    """Settings, or optimizers, of `vdm-text` that were compared at equal FLOPs, as Markdown."""
    rows = json.loads((RESULTS / f"video-{compared}.json").read_text())
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
    lines += [f"| {row['variant']} | {row['flops']:.2g} | {sum(row['validation_loss'].values()) / len(row['validation_loss']):.4f} | {row['kernel_distance']:z.3f} |" for row in rows]
    return "\n".join(lines)


def extension_table() -> str:
    """Real clips made four times as long by replacement and by reconstruction guidance, as Markdown."""
    result = json.loads((RESULTS / "vdm-text-extension.json").read_text())
    lines = [f"| `{result['model']}`, n = {result['n']}, {result['steps']} steps, {result['device']} | kernel distance | off the best path, pixels | frames that look like the digit | both given digits there "
             "| off one path across the seam | given frames missed by |", "|---|---|---|---|---|---|---|"]
    for name, row in result["rows"].items():
        missed = f"{row['missed']:.3f}" if "missed" in row else ""
        lines.append(f"| {name} | {row['kernel_distance']:z.3f} | {row['rmse']:.2f} | {row['identity']:.1%} | {row['digits']:.1%} | {row['across']:.2f} | {missed} |")
    return "\n".join(lines)


def survival_table() -> str:
    """What is left of real clips that are noised and sampled from there, as Markdown."""
    result = json.loads((RESULTS / "vdm-text-survival.json").read_text())
    lines = [f"| `{result['model']}`, n = {result['n']}, {result['steps']} steps, guidance {result['guidance_scale']:g}, {result['device']}: sampled from log-SNR | both digits as asked | one of them two times "
             "| (digit, direction) pairs as asked | off the best path, pixels | frames that look like the digit | pixels changed by |", "|---|---|---|---|---|---|---|"]
    lines += [f"| {name} | {row['digits']:.1%} | {row['twice']:.1%} | {row['pairs']:.1%} | {row['rmse']:.2f} | {row['identity']:.1%} | {row['changed']:.3f} |" for name, row in result["rows"].items()]
    return "\n".join(lines)


def neighbours_table() -> str:
    """How much a caption still tells about a hidden digit whose neighbour is clearer, as Markdown."""
    lines = []
    for path in sorted(RESULTS.glob("*-neighbours.json")):
        result = json.loads(path.read_text())
        first = next(iter(result.values()))
        lines += [f"| `{path.name.removesuffix('-neighbours.json')}` at log-SNR {first['log_snr']:g}, n = {next(iter(first['rows'].values()))['n']} | last run "
                  + "".join(f"| neighbour clearer by {clearer} " for clearer in first["rows"]) + f"| both digits as asked, n = {first['drawn']['digits_n']}, guidance {first['drawn']['guidance_scale']:g} | one of them twice |",
                  "|---|---|" + "---|" * len(first["rows"]) + "---|---|"]
        lines += [f"| {name} | {_amount(row['trained'])}, on {row['trained']['device']} | "
                  + " | ".join(f"{cell['loss']:.4f}; {1e4 * cell['mean']:+.0f} ± {1e4 * cell['standard_error']:.0f}" for cell in row["rows"].values())
                  + f" | {row['drawn']['digits']:.1%} | {row['drawn']['twice']:.1%} |" for name, row in result.items()] + [""]
    return "\n".join(lines).strip()


def growth_table() -> str:
    """Networks that were enlarged and trained on, beside the shipped ones, as Markdown."""
    lines = ["| | trained | FLOPs in all | both digits as asked, by guidance |", "|---|---|---|---|"]
    for name, table in json.loads((RESULTS / "grown-networks.json").read_text()).items():
        for what, row in table["rows"].items():
            t, by_scale = row["trained"], ", ".join(f"{scale}: {numbers['digits']:.1%}" for scale, numbers in row["guidance"].items())
            lines.append(f"| `{name}`, {what} | {t['steps']:,} steps of {t['samples'] // t['steps']}, {t['device']} | {row['flops']:.2g} | {by_scale} (n = {table['n']}, {table['split']}, {table['steps']} steps) |")
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


def conditions_table() -> str:
    """Layers over time that were trained with the null condition, and with captions, at equal FLOPs, as Markdown."""
    rows = json.loads((RESULTS / "video-conditions.json").read_text())
    levels = list(rows[0]["validation_loss"])
    lines = [f"| {rows[0]['flops']:.1e} FLOPs each, {rows[0]['device']}, n = {rows[0]['n']} | clips seen | " + " | ".join(f"loss at {level}, with the caption (without)" for level in levels)
             + " | both digits as asked | one of them twice |", "|---|" + "---|" * (len(levels) + 3)]
    lines += [f"| {row['variant']} | {row['clips']:,} | " + " | ".join(f"{row['validation_loss'][level]:.4f} ({row['validation_loss_without_caption'][level]:.4f})" for level in levels)
              + f" | {row['digits']:.1%} | {row['twice']:.1%} |" for row in rows]
    return "\n".join(lines)


def _made_by(result: dict) -> list[str]:
    t = result["trained"]
    return [f"{_trained(t)} Measured on {result['split']} digits, n = {result['n']}, {result['steps']} steps, {result['device']}, seed {result['seed']}.", "", *_earlier_runs(t)]


def interpolation_table() -> str:
    """Frames between keyframes, as Markdown."""
    result = json.loads((RESULTS / "mav-interpolate-frames.json").read_text())
    lines = [*_made_by(result), "| 16 keyframes to 76 frames | missing frames off by | judder | edges, real = 1 | all keyframes there | kernel distance | off the best path, pixels | pixels a frame "
             "| frames that look like the digit | both digits there |", "|---|---|---|---|---|---|---|---|---|---|"]
    lines += [f"| {name} | {row['missed']:.3f} | {row['judder']:.2f} | {row['edges']:.2f} | {'yes' if row['keyframes'] else 'no'} | {row['kernel_distance']:z.3f} | {row['rmse']:.2f} | {row['speed']:.2f} "
              f"| {row['identity']:.1%} | {row['digits']:.1%} |" for name, row in result["rows"].items()]
    return "\n".join(lines)


def super_resolution_table() -> str:
    """Clips at twice the size, as Markdown."""
    result = json.loads((RESULTS / "mav-upsample-frames.json").read_text())
    lines = [*_made_by(result), "| 32 to 64 pixels | off by | averaged down again, off by | sharpness, real = 1 | change from frame to frame, real = 1 | flicker of a still clip | digits read at full size | their kernel distance |",
             "|---|---|---|---|---|---|---|---|"]
    lines += [f"| {name} | {row['missed']:.3f} | {row['again']:.3f} | {row['sharpness']:.2f} | {row['change']:.2f} | {row['flicker']:.4f} | {percent(row, 'digits')} | {row['kernel_distance']:z.3f} |"
              for name, row in result["rows"].items()]
    return "\n".join(lines)


def speed_table() -> str:
    """The video network beside public ones on each machine where they were compared, as Markdown."""
    lines = []
    for path in sorted(RESULTS.glob("network-speed*.json")):
        result = json.loads(path.read_text())
        ours = next(iter(result["rows"].values()))
        lines += [f"| {result['device']}, {result['precision']}, batch {result['batch_size']} | parameters | GFLOP a clip, forward and backward | saved activations, MiB | peak memory of a training step, MiB "
                  "| training, clips a second | one step of sampling, seconds a clip | a clip, by the sampler's default steps, seconds |", "|---|---|---|---|---|---|---|---|"]
        for name, row in result["rows"].items():
            cells = [f"{row['parameters'] / 1e6:.2f}M", f"{row['gflop_per_clip']:.1f}" + _times(row["gflop_per_clip"] / ours["gflop_per_clip"], "more"),
                     f"{row['saved_activations_mib']:.0f}" + _times(row["saved_activations_mib"] / ours["saved_activations_mib"], "more"),
                     f"{row['peak_memory_mib']}" + _times(row["peak_memory_mib"] / ours["peak_memory_mib"], "more"),
                     f"{row['train_clips_per_second']:.2f}" + _times(ours["train_clips_per_second"] / row["train_clips_per_second"], "slower")]
            if "sampling_steps" in row:
                step, mine = row["sample_seconds_per_clip_and_step"], ours["sample_seconds_per_clip_and_step"]
                cells += [f"{step:.2f}" + _times(step / mine, "slower"),
                          f"{step * row['sampling_steps']:.0f} ({row['sampling_steps']} steps)" + _times(step * row["sampling_steps"] / mine / ours["sampling_steps"], "slower")]
            else:
                cells += ["has no sampler", ""]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join(lines).strip()


def speedups_table() -> str:
    """What each speed-up of training and sampling is worth, on each machine where it was measured, as Markdown."""
    lines = []
    for path in sorted(RESULTS.glob("speedups*.json")):
        result = json.loads(path.read_text())
        for kind, rows in result["rows"].items():
            lines += [f"| {kind}; {result['device']}, {result['precision']}, batch {result['batch_size']} | seconds | times as long |", "|---|---|---|"]
            lines += [f"| {name} | {taken:.3f} | {taken / rows['as it is']:.2f}× |" for name, taken in rows.items()] + [""]
    return "\n".join(lines).strip()


def _times(ratio: float, word: str) -> str:
    return "" if ratio == 1 else f", {ratio:.0f}× {word}"


TABLES = {"summary": summary_table, "results": results_table, "steps": steps_table, "guidance": guidance_table, "clip-guidance": clip_guidance_table, "clip-intervals": interval_guidance_table, "clip-rivals": rivals_table, "clip-temporal": temporal_table, "speed": speed_table, "speedups": speedups_table, "shapes": shapes_table, "settings": settings_table, "optimizers": lambda: settings_table("optimizers"),
          "joint": joint_table, "survival": survival_table, "neighbours": neighbours_table, "growth": growth_table, "extension": extension_table, "inflation": inflation_table, "conditions": conditions_table, "interpolation": interpolation_table, "super-resolution": super_resolution_table}


def minutes(lesson: str) -> str:
    """A lesson's minutes of reading, exercises and machine time (a T4, two CPU cores), from its header; lesson: its file's name without ending."""
    header = re.search(r"\| reading \| exercises \|.*\n.*\n# \| (\d+) minutes \| (\d+) minutes \| (\d+ / \d+) minutes", (ROOT / "lessons" / f"{lesson}.py").read_text())
    return f"{header[1]} + {header[2]} | {header[3]}"


def with_tables(text: str) -> str:
    """The text of a page with each table that it has a place for, between <!-- NAME --> and <!-- /NAME -->, and the minutes of the lessons it lists renewed."""
    text = re.sub(r"^(\| \d\d \| .*\(lessons/(\w+)\.ipynb\) .*\|)[^|]*\|[^|]*\|$", lambda m: f"{m[1]} {minutes(m[2])} |", text, flags=re.MULTILINE)
    for name, make in TABLES.items():
        text = re.sub(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", lambda m, make=make: f"{m[1]}{make()}\n{m[2]}", text, flags=re.DOTALL)
    return text


def main() -> None:
    """Write the tables of every page."""
    for page in PAGES:
        page.write_text(with_tables(page.read_text()))


if __name__ == "__main__":
    main()
