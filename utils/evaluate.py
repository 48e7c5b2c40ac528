"""Every metric of a model or of a file of clips, as JSON with n, seed, seconds and, beside each number, a floor and controls.

    python -m utils.evaluate vdm-text [--num 512]        # the shipped model: writes assets/results/vdm-text.json
    python -m utils.evaluate runs/vdm-text/vdm-text.pt   # the weights of your own run: writes vdm-text-evaluation.json beside them
    python -m utils.evaluate real [--num 2048]           # the metrics themselves, on real clips: writes assets/results/metrics.json
    python -m utils.evaluate clips.npz                   # writes clips.json beside it; arrays: videos, and captions if there are any
    python -m utils.evaluate vdm-text --clips FOLDER --sample-only    # on a machine with a GPU; later, without --sample-only, the rest

Captions, clips and reference come from the test digits; the judge and the classifier were trained on the training digits.
"""

from __future__ import annotations

import argparse
import json
import time
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from .data import MNIST, Batch, DataError, MovingMNIST
from .hearing import hearing
from .metrics import check_clips, classify, digit_features, evaluate, kernel_distance, kernel_distance_interval, motion, named, obeyed, read
from .model import Model
from .paths import Reading
from .pretrained import available_models, load_model
from .recipes import MNIST_SIZE
from .runtime import ASSETS, device_name, generator, precision_name, telling_of_errors, write_json, written_whole
from .tracker import TRUNCATION

RESULTS = ASSETS / "results"
HEARD = 256  # the most clips used to measure a model's hearing: enough, as both sides get the same noise
OWN_TABLES = {"interpolate": "utils.interpolation", "upsample": "utils.super_resolution"}


def evaluate_image(model: Model, num: int, seed: int, **options) -> dict[str, dict]:
    """Kernel distance to `num` real test digits, and the share that the classifier reads with over 90% confidence; for a model with captions,
    asked for real images' digits, also the share read as asked."""
    reference, held_out = MNIST("test", seed=seed + 1).sample(num), MNIST("test", seed=seed + 2).sample(num)
    labels = held_out.labels[:, 0] if model.recipe.captions else None
    rows = {"real held-out (floor)": (held_out.video + 1) / 2, model.name: model.sample(labels=labels, num=num, seed=seed, **options),
            "control: noise": torch.rand(num, 1, 1, 28, 28, generator=generator(seed, 4))}
    features = digit_features((reference.video + 1) / 2)
    return {name: {"kernel_distance": round(kernel_distance(digit_features(images), features), 4),
                   "confident": round(float((classify(images).amax(1) > 0.9).float().mean()), 4),
                   **({} if labels is None else {key: round(value, 4) for key, value in named(images, labels).items()})} for name, images in rows.items()}


def evaluate_frames(model: Model, num: int, seed: int, **options) -> dict[str, dict]:
    """Moving MNIST frames from a text-to-image model, repeated as still clips of 16 frames: how many show both digits of the caption, and how many one of them two times, as read by the judge, and the kernel distance
    to `num` real frames in the judge's features. Captions name only digits, or also directions, which no still frame can obey."""

    def real(kind: str, stream: int) -> Batch:
        return replace(model.recipe, captions=kind).dataset("test", 4 * seed + stream).sample(num)

    def measured(images: torch.Tensor, captions: list[str] | None) -> dict:
        reading = read(images.expand(-1, -1, 16, -1, -1))
        obedience = {} if captions is None else {key: value for key, value in obeyed(reading, captions).items() if key.startswith(("digits", "twice"))}
        return {**kernel_distance_interval(reading.features, reference), **obedience, "n": num}

    reference = read(((real("digits", 1).video + 1) / 2).expand(-1, -1, 16, -1, -1)).features
    rows = {}
    for stream, kind in ((2, "digits"), (3, "motion")):
        held_out = real(kind, stream)
        shown = {"real held-out frames (floor)": (held_out.video + 1) / 2, model.name: model.sample(held_out.captions, seed=seed, **options)}
        if kind == "digits":
            shown["control: noise"] = torch.rand(held_out.video.shape, generator=generator(seed, 4))
        rows[kind] = {name: {key: round(value, 4) for key, value in measured(images, held_out.captions).items()} for name, images in shown.items()}
    return rows


def evaluate_video(model: Model, num: int, seed: int, folder: Path | None = None, sample_only: bool = False, **options) -> dict[str, dict]:
    """The rows of `metrics.evaluate`, named after the model: for prompts with motion under "motion" and, without controls, for prompts of digits only under "digits";
    for a model without captions, under "unconditional". folder, sample_only: see `evaluate_model`; if nothing is measured, no rows."""
    rows, progress = {}, options.get("progress", False)
    for kind in _kinds(model):
        prompts = None if model.recipe.captions is None else replace(model.recipe, captions=kind).dataset("test", 2 * seed + 3).sample(num).captions
        clips = kept_clips(None if folder is None else _path(folder, model, kind), model, prompts, num, seed, **options)
        if not sample_only:
            rows[kind] = _named(model.name, evaluate(clips, prompts, seed=seed, controls=kind != "digits", progress=progress))
    return rows


def _kinds(model: Model) -> tuple[str, ...]:
    return ("unconditional",) if model.recipe.captions is None else ("motion", "digits")


def _path(folder: Path, model: Model, kind: str) -> Path:
    return folder / f"{model.name}-{kind}.npz"


def kept_clips(path: Path | None, model: Model, prompts: list[str] | None, num: int, seed: int, **options) -> torch.Tensor:
    """The model's clips for the prompts, or `num` clips without prompts: sampled, or read from the file at `path`, which keeps them as whole grey levels from 0 to 255.
    DataError if the file has other weights, prompts or settings."""
    made = {"trained": model.provenance, "n": num, "seed": seed, **model.sampled_with(options, prompts is not None)}
    if path is not None and path.exists():
        clips, captions = read_clips(path)
        if captions != prompts or made != {key: value for key, value in _made(path).items() if key in made}:
            raise DataError(f"{path.name} holds clips of other weights or prompts, or sampled with other settings: give the command that made it, or another folder.")
        return clips
    clips = model.sample(prompts, num=num, seed=seed, **options)
    if path is None:
        return clips
    made |= {"device": device_name(model.device), "precision": precision_name(model.dtype)}
    levels = (255 * clips).round().to(torch.uint8)
    with written_whole(path) as file:
        np.savez_compressed(file, videos=levels.numpy(), made=json.dumps(made), **({} if prompts is None else {"captions": prompts}))
    return levels.float() / 255


def sampling_words(result: dict) -> str:
    """What a results file says of `Model.sampled_with`, in words; of guidance only where there is any."""
    scale, away, temporal = (result.get(key, none) for key, none in (("guidance_scale", 1.0), ("rival_scale", 0.0), ("temporal_scale", 1.0)))
    return (f"{result['steps']} steps" + f", guidance {scale:g}" * (scale != 1) + f", {away:g} away from rivals" * bool(away)
            + f", temporal guidance {temporal:g}" * (temporal != 1))


def _made(path: Path) -> dict:
    with np.load(path, allow_pickle=False) as file:
        return json.loads(str(file["made"])) if "made" in file.files else {}


def _named(name: str, rows: dict[str, dict]) -> dict[str, dict]:
    return {name if row == "clips" else row: {key: value if isinstance(value, list) else round(value, 4) for key, value in numbers.items()}
            for row, numbers in rows.items()}


def read_clips(path: Path) -> tuple[torch.Tensor, list[str] | None]:
    """Clips and captions from an .npz file: "videos", (N, 1, T, S, S) or (N, T, S, S), uint8 0-255 or floating point in [0, 1], and optionally "captions", N strings.

    Raises DataError, with what to do, for a file that is missing, damaged, or holds something else.
    """
    if not path.exists():
        raise DataError(f"There is no file {path.name}. Give a model's name ({', '.join(available_models())}), weights (.pt), or an .npz file with clips.")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, AttributeError) as error:
        raise DataError(f"{path.name} is damaged or not an .npz file ({type(error).__name__}). Write it with "
                        "np.savez_compressed(path, videos=clips, captions=captions).") from error
    if "videos" not in arrays:
        raise DataError(f"{path.name} has no array 'videos', only {', '.join(arrays) or 'nothing'}.")
    if arrays["videos"].dtype != np.uint8 and arrays["videos"].dtype.kind != "f":
        raise DataError(f"{path.name} holds videos of type {arrays['videos'].dtype}; expected uint8 from 0 to 255 or floating point in [0, 1].")
    videos = torch.from_numpy(arrays["videos"])
    if videos.dim() == 4:
        videos = videos[:, None]
    videos = videos.float() / 255 if videos.dtype == torch.uint8 else videos.float()
    captions = [str(text) for text in arrays["captions"].tolist()] if "captions" in arrays else None
    return videos, captions


def evaluate_file(path: Path, seed: int = 0, progress: bool = False) -> dict:
    """All metrics of clips in an .npz file (see `read_clips`) and how they were measured, ready for JSON."""
    start = time.monotonic()
    videos, captions = read_clips(path)
    rows = _named(path.stem, evaluate(videos, captions, seed=seed, progress=progress))
    return {"file": path.name, "n": len(videos), "seed": seed, "seconds": round(time.monotonic() - start), "rows": rows}


def evaluate_real(num: int, seed: int = 0, progress: bool = False) -> dict:
    """The metrics of real clips, drawn once more, beside floor and controls; and of the true positions of the floor's digits, truncated to whole pixels as when drawn:
    the best that a tracker could do."""
    start = time.monotonic()
    again = MovingMNIST("test", 2 * seed + 3, captions="motion").sample(num)
    rows = _named("real clips, drawn once more", evaluate((again.video + 1) / 2, again.captions, seed=seed, progress=progress))
    known = MovingMNIST("test", 2 * seed + 2, captions="motion").sample(num)
    perfect = Reading(known.labels, (2 * known.position).floor() / 2 + TRUNCATION, known.labels[..., None].expand(known.position.shape[:3]))
    rows["a perfect tracker on the floor's clips"] = {key: round(value, 4) for key, value in {**obeyed(perfect, known.captions), **motion(perfect), "n": num}.items()}
    return {"n": num, "seed": seed, "seconds": round(time.monotonic() - start), "rows": rows}


def circumstances(model: Model, num: int, seed: int) -> dict:
    """What every results file says about how it was made."""
    return {"model": model.name, "n": num, "seed": seed, "device": device_name(model.device), "precision": precision_name(model.dtype),
            "trained": model.provenance}


class ResultRows:
    """The rows of a results file, kept from run to run as long as the file has the same weights, seed, number of samples and `more`. Rows of several machines: the file names them all."""

    def __init__(self, path: Path, model: Model, num: int, seed: int, **more) -> None:
        self.path, self.model, self.num, self.seed, self.more = path, model, num, seed, more

    def _known(self) -> dict:
        known = json.loads(self.path.read_text()) if self.path.exists() else {}
        expected = {"n": self.num, "seed": self.seed, "trained": self.model.provenance, **self.more}
        return known if all(known.get(key) == value for key, value in expected.items()) else {}

    def rows(self) -> dict[str, dict]:
        """The rows already in the file, if still valid."""
        return self._known().get("rows", {})

    def write(self, name: str, row: dict) -> None:
        """Write a row to the file, keeping the others."""
        made, known = circumstances(self.model, self.num, self.seed), self._known()
        for key in ("device", "precision"):
            made[key] = " and ".join(dict.fromkeys([*known[key].split(" and "), made[key]])) if known else made[key]
        write_json(self.path, {**made, **self.more, "rows": {**known.get("rows", {}), name: row}})
        print(name, row, flush=True)


def table_parser(module: str, description: str, model: str, num: int) -> argparse.ArgumentParser:
    """The arguments of a command that writes a table of `ResultRows`: the model, number of samples, seed, steps, split, precision, device, which rows, and output file."""
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=description)
    parser.add_argument("model", nargs="?", default=model)
    parser.add_argument("--num", type=int, default=num)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--split", default="test", choices=("test", "validation"))
    parser.add_argument("--amp", default="auto", choices=("auto", "fp16", "bf16", "off"), help="precision of the network (default: by the device)")
    parser.add_argument("--device")
    parser.add_argument("--only", nargs="*", help="rows whose names contain one of these words; a whole name means that row alone")
    parser.add_argument("--out", type=Path, help="(default, of test digits: a file in assets/results)")
    return parser


def chosen_rows(names: Iterable[str], only: Sequence[str] | None) -> list[str]:
    """The names that `--only` selects (None: all): those that contain one of its words; a whole name selects only itself. ValueError for a word that selects nothing."""
    names = list(names)
    if nothing := [word for word in only or () if not any(word in name for name in names)]:
        raise ValueError(f"--only {nothing[0]} selects no row; there are: {', '.join(names)}.")
    return [name for name in names if only is None or any(word == name or word not in names and word in name for word in only)]


def table_path(parser: argparse.ArgumentParser, a: argparse.Namespace, ending: str) -> Path:
    """Where `table_parser`'s arguments send the table: numbers of validation digits, to choose by, are not filed as results."""
    if a.out is None and a.split != "test":
        parser.error(f"numbers of {a.split} digits are to choose by, and do not go to assets/results: say where with --out")
    return a.out or RESULTS / f"{a.model}-{ending}.json"


def evaluate_model(model: Model, num: int, seed: int = 0, folder: Path | None = None, sample_only: bool = False, **options) -> dict:
    """All metrics of a model and how they were measured, ready for JSON. options: those of `Model.sample` (steps, guidance_scale, ...). folder: where clips are kept, and read
    if already sampled, for example on a machine with a GPU lent for minutes; sample_only: measure nothing. ValueError for unsuitable models."""
    if model.kind in OWN_TABLES:
        raise ValueError(f"{model.name} does not make clips from nothing: what is shipped of it is measured by `python -m {OWN_TABLES[model.kind]} {model.name}`.")
    if sample_only and folder is None or folder is not None and model.kind != "video":
        raise ValueError("Clips are kept of models that make videos, and to sample alone needs a folder for them: see --clips.")
    start, r = time.monotonic(), model.recipe
    if model.kind == "video":
        check_clips(torch.zeros(1, *model.sample_shape))  # fails before sampling clips that nothing here can read
        rows = evaluate_video(model, num, seed, folder, sample_only, **options)
    else:
        rows = (evaluate_image if r.sample_shape[-1] == MNIST_SIZE else evaluate_frames)(model, num, seed, **options)
    in_training = model.kind == "video" and r.paired
    heard = {"hearing": hearing(model, min(num, HEARD), seed)} if in_training and not sample_only else {}
    sampled_on = {} if folder is None else {key: value for key, value in _made(_path(folder, model, _kinds(model)[0])).items() if key in ("device", "precision")}
    return {**circumstances(model, num, seed), **sampled_on, **model.sampled_with(options, r.captions is not None),
            "seconds": round(time.monotonic() - start), "rows": rows, **heard}


@telling_of_errors()
def main() -> None:
    """Evaluate the model, the weights or the clips named on the command line and write their results file."""
    parser = argparse.ArgumentParser(prog="python -m utils.evaluate", description="Measure a model, or clips from an .npz file (videos, captions).")
    parser.add_argument("what", help="a shipped model's name, weights that a run has written (.pt), clips (.npz), or 'real'")
    parser.add_argument("--num", type=int, default=512, help="clips, or images, a row")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, help="denoising steps (default: the recipe's)")
    parser.add_argument("--guidance-scale", type=float, help="(default: the recipe's)")
    parser.add_argument("--rival-scale", type=float, help="guidance away from rival captions (default: the recipe's)")
    parser.add_argument("--temporal-scale", type=float, help="temporal guidance, 1 for none (default: the recipe's)")
    parser.add_argument("--amp", default="auto", choices=("auto", "fp16", "bf16", "off"), help="precision of the network (default: by the device)")
    parser.add_argument("--device")
    parser.add_argument("--out", type=Path, help="where the JSON goes (default: assets/results/MODEL.json, or beside the file)")
    parser.add_argument("--clips", type=Path, metavar="FOLDER", help="keep the sampled clips there, and take those that are there already")
    parser.add_argument("--sample-only", action="store_true", help="sample into --clips and measure nothing")
    a = parser.parse_args()
    if (a.what.endswith(".npz") or a.what == "real") and (a.clips or a.sample_only):
        parser.error("--clips and --sample-only are for a model that samples")
    if a.what.endswith(".npz"):
        path = Path(a.what)
        result, out = evaluate_file(path, a.seed, progress=True), path.with_suffix(".json")
    elif a.what == "real":
        result, out = evaluate_real(a.num, a.seed, progress=True), RESULTS / "metrics.json"
    else:
        model, weights = load_model(a.what, a.device, a.amp), Path(a.what)
        out = weights.with_name(f"{weights.stem}-evaluation.json") if weights.suffix == ".pt" else RESULTS / f"{a.what}.json"  # NAME.json beside weights holds their loss
        result = evaluate_model(model, a.num, a.seed, a.clips, a.sample_only, progress=True, steps=a.steps, guidance_scale=a.guidance_scale, rival_scale=a.rival_scale, temporal_scale=a.temporal_scale)
    if a.sample_only:
        return
    write_json(a.out or out, result)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
