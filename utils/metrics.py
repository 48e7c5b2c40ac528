"""The metrics behind every table: distances between sets of features, what readers find in clips against what captions ask for, and how
the digits move.

`evaluate` gives all of them for a set of clips, beside the same metrics for real held-out clips (the floor) and for clips
spoiled on purpose (controls: see `controls`). Lesson 04 shows how well the metrics themselves work.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from tqdm import tqdm

from . import judge
from .captions import Caption, parse
from .controls import spoiled
from .data import MovingMNIST
from .paths import FREE, SIZE, Reading
from .runtime import generator, progress_file
from .tracker import nearest_training_digit, track

FLOOR = "real held-out clips (floor)"


@torch.no_grad()
def digit_features(images: torch.Tensor) -> torch.Tensor:
    """(N, 1, 1, 28, 28) images in [0, 1] -> (N, 64) features of the classifier."""
    return torch.cat([judge.load_network("classifier").features(chunk[:, :, 0].float()) for chunk in images.split(256)])


@torch.no_grad()
def classify(images: torch.Tensor) -> torch.Tensor:
    """(N, 1, 1, 28, 28) images in [0, 1] -> (N, 10) probabilities of the digits."""
    return torch.cat([judge.load_network("classifier")(chunk[:, :, 0].float()) for chunk in images.split(256)]).softmax(1)


def named(images: torch.Tensor, labels: torch.Tensor) -> dict[str, float | int]:
    """Share of images (N, 1, 1, 28, 28) in [0, 1] the classifier reads as their labels (N,): "digits" with n and a 95% interval (Wilson)."""
    return _share("digits", (classify(images).argmax(1) == labels.cpu()).tolist())


def kernel_distance(x: torch.Tensor, y: torch.Tensor) -> float:
    """Unbiased squared kernel distance between two sets of features, (N, D) and (M, D), float: the polynomial kernel
    (x.y / D + 1)^3 of the kernel inception distance (arXiv 1801.01401). About 0, of either sign, for two draws of one distribution."""
    _check_features(x, y)
    return float(_kernel_distances(x, y, torch.ones(1, len(x)), torch.ones(1, len(y))))


def kernel_distance_gap(x: torch.Tensor, other: torch.Tensor, reference: torch.Tensor, resamples: int = 1000, seed: int = 0) -> dict[str, float]:
    """How much further from `reference` (M, D) the features x (N, D) are than `other` (N, D): the difference of the two kernel
    distances as "gap" with a 95% bootstrap interval "gap_low" to "gap_high". Row i of x and of other come from the same seed and are
    resampled together, with the same references; this removes most of the spread of the difference. The interval is too wide, not too narrow,
    where both sets are as near to the reference as real data would be.
    """
    if x.shape != other.shape:
        raise ValueError(f"Paired features have one shape; got {tuple(x.shape)} and {tuple(other.shape)}.")
    g = generator(seed)
    rows, references = _times_drawn(len(x), resamples, g), _times_drawn(len(reference), resamples, g)
    gaps = _kernel_distances(x, reference, rows, references) - _kernel_distances(other, reference, rows, references)
    low, high = gaps.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return {"gap": kernel_distance(x, reference) - kernel_distance(other, reference), "gap_low": low, "gap_high": high}


def _times_drawn(num: int, resamples: int, g: torch.Generator) -> torch.Tensor:
    """(resamples, num): how often each of `num` rows is drawn when `num` are drawn with replacement."""
    drawn = torch.randint(num, (resamples, num), generator=g)
    return torch.zeros(resamples, num).scatter_add_(1, drawn, torch.ones(resamples, num))


def _check_features(x: torch.Tensor, y: torch.Tensor) -> None:
    if x.dim() != 2 or y.dim() != 2 or x.shape[1] != y.shape[1] or min(len(x), len(y)) < 2:
        raise ValueError(f"Expected features (N, D) and (M, D) with N, M > 1; got {tuple(x.shape)} and {tuple(y.shape)}.")


def _kernel_distances(x: torch.Tensor, y: torch.Tensor, x_times: torch.Tensor, y_times: torch.Tensor) -> torch.Tensor:
    """(R,) float64: unbiased kernel distances of x (N, D) and y (M, D), row i of x taken x_times[r, i] times, row j of y y_times[r, j].
    No row is ever paired with itself."""
    x, y, x_times, y_times = x.double(), y.double(), x_times.double(), y_times.double()

    def kernel(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (a @ b.T / a.shape[1] + 1) ** 3

    def within(a: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        pairs = times.sum(1) ** 2 - times.square().sum(1)
        return (((times @ kernel(a, a).fill_diagonal_(0)) * times).sum(1)) / pairs

    between = ((x_times @ kernel(x, y)) * y_times).sum(1) / (x_times.sum(1) * y_times.sum(1))
    return within(x, x_times) + within(y, y_times) - 2 * between


def kernel_distance_interval(x: torch.Tensor, reference: torch.Tensor, resamples: int = 200, seed: int = 0) -> dict[str, float]:
    """`kernel_distance` of x (N, D) and reference (M, D) with a 95% bootstrap interval over the rows of both; like `kernel_distance_gap`'s, too
    wide rather than too narrow if x is as near as real data would be."""
    g = generator(seed)
    gaps = _kernel_distances(x, reference, _times_drawn(len(x), resamples, g), _times_drawn(len(reference), resamples, g))
    low, high = gaps.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return {"kernel_distance": kernel_distance(x, reference), "kernel_distance_low": low, "kernel_distance_high": high}


def frechet_distance(x: torch.Tensor, y: torch.Tensor) -> float:
    """Squared Frechet distance between Gaussians fitted to two sets of features, (N, D) and (M, D): |m_x - m_y|^2 + tr(S_x + S_y - 2 (S_x S_y)^(1/2)).

    Not 0 for two draws of one distribution: the floor falls as about tr(S)(D + 4) / (2N), so give both sets, and the floor, the same N of at least a few times D.
    Heusel et al. 2017 (arXiv 1706.08500), equation 6, in features other than theirs: never comparable with published FVD or FID.
    """
    _check_features(x, y)
    x, y = x.double(), y.double()
    values, vectors = torch.linalg.eigh(x.T.cov())
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    cross = torch.linalg.eigvalsh(root @ y.T.cov() @ root).clamp(min=0).sqrt().sum()
    return float((x.mean(0) - y.mean(0)).square().sum() + x.T.cov().trace() + y.T.cov().trace() - 2 * cross)


def precision_recall(x: torch.Tensor, reference: torch.Tensor, neighbours: int = 5) -> dict[str, float]:
    """Share of features x (N, D) that lie within the reach of the reference (M, D), "precision", and the other way round, "recall". A point's reach
    is the distance to its `neighbours`-th neighbour in its own set. Kynkaanniemi et al. 2019 (arXiv 1904.06991), section 2. ValueError for sets without so many neighbours."""
    _check_features(x, reference)
    if min(len(x), len(reference)) <= neighbours:
        raise ValueError(f"Precision and recall with {neighbours} neighbours need at least {neighbours + 1} samples, and as many to compare them with; got {len(x)} and {len(reference)}.")

    def covered(points: torch.Tensor, by: torch.Tensor) -> float:
        reach = torch.cdist(by, by).kthvalue(neighbours + 1).values  # the nearest is the point itself
        return float((torch.cdist(points, by) <= reach).any(1).float().mean())

    return {"precision": covered(x, reference), "recall": covered(reference, x)}


def variety(features: torch.Tensor, labels: torch.Tensor) -> float:
    """Mean variance of features (N, D) within the classes that labels (N,) name, summed over D: how much samples of one class differ; classes with one sample do not count.
    Meaningful beside the same number of real samples with the same labels. ValueError if no class has two."""
    parts = [part for label in labels.unique() if len(part := features[labels == label].double()) > 1]
    if not parts:
        raise ValueError("variety needs at least two samples of a class.")
    return float(sum(part.var(0).sum() * len(part) for part in parts) / sum(len(part) for part in parts))


def check_clips(clips: torch.Tensor) -> torch.Tensor:
    """Clips (N, 1, T, S, S) in [0, 1], S a multiple of 32, as the readers need them: (N, 1, T, 32, 32) float32 on the CPU, averaged down. ValueError for
    another shape or range."""
    size = clips.shape[-1] if clips.dim() == 5 else 0
    if clips.dim() != 5 or clips.shape[1] != 1 or clips.shape[-2] != size or size % SIZE or clips.shape[2] < 3 or not len(clips):
        raise ValueError(f"Expected clips of shape (N, 1, T, 32, 32), or a multiple of 32 pixels, with T at least 3; got {tuple(clips.shape)}.")
    clips = clips.detach().cpu().float()
    if not clips.isfinite().all():
        raise ValueError("Clips hold values that are not numbers (NaN or infinity).")
    if clips.min() < -1e-4 or clips.max() > 1 + 1e-4:
        raise ValueError(f"Clips are in [0, 1]; got values from {clips.min():.3g} to {clips.max():.3g}. "
                         "A dataset's video is in [-1, 1]: pass (video + 1) / 2.")
    return F.avg_pool3d(clips, (1, size // SIZE, size // SIZE))


def read(clips: torch.Tensor) -> Reading:
    """The judge's `Reading` of clips (N, 1, T, S, S) in [0, 1]; see `check_clips`."""
    return judge.read(check_clips(clips))


def obeyed(reading: Reading, captions: Sequence[str]) -> dict[str, float | int]:
    """How well clips of two digits do what their captions say, according to a reading.

    digits: share of clips whose two digits are the caption's; twice: of captions with two different digits, the share whose clips show one of them twice instead. For captions with motion also: pairs, the share of a caption's (digit, direction)
    pairs that are found, that is: the digit is read and sets off within 45 degrees of the direction (chance, once digits are right: 1/4); directions,
    the same among digits that are read as asked; directions_chance, its mean when the captions' directions are shuffled at random; octants: the share of these digits within 22.5 degrees, the right one of eight directions (chance 1/8); angle_error: their median angle in
    degrees from the direction (11 if all is well, as a direction stands for an eighth of the circle). A digit that stands still is 180 degrees off.
    And, whatever the digits are, of captions whose two directions are further apart than neighbours: both_ways, the share of clips in which one digit sets off within 45 degrees of the one and the other of the other;
    same_way, the share in which instead both set off within 45 degrees of the same one.
    Shares come with n and a 95% interval (Wilson). ValueError unless there is one caption of two digits for each clip.
    """
    if len(reading.digits) != len(captions):
        raise ValueError(f"{len(reading.digits)} clips but {len(captions)} captions.")
    asked = [parse(text) for text in captions]
    if any(len(a.digits) != 2 for a in asked):
        raise ValueError("The readers read two digits: captions must name two.")
    numbers = _share("digits", [sorted(a.digits) == sorted(seen) for a, seen in zip(asked, reading.digits.tolist())])
    different = [(a.digits, seen) for a, seen in zip(asked, reading.digits.tolist()) if a.digits[0] != a.digits[1]]
    if different:
        numbers |= _share("twice", [first == second and first in digits for digits, (first, second) in different])
    errors = [error for a, digits, angles in zip(asked, reading.digits.tolist(), reading.angles.tolist()) if a.directions
              for error in _errors(a.digits, [45 * direction for direction in a.directions], digits, angles)]
    if errors:
        there = [error for error in errors if error is not None]
        numbers |= {**_share("pairs", [error is not None and error <= 45 for error in errors]), **_share("directions", [error <= 45 for error in there]),
                    **_share("octants", [error <= 22.5 for error in there])}
        if there:
            numbers["angle_error"] = float(torch.tensor(there).median())
            numbers["directions_chance"] = _directions_chance(asked, reading)
    near = [[[_degrees_apart(angle, 45 * direction) <= 45 for direction in a.directions] for angle in angles]
            for a, angles in zip(asked, reading.angles.tolist()) if a.directions and _degrees_apart(*(45 * direction for direction in a.directions)) > 45]
    if near:
        both = [one[0] and other[1] or one[1] and other[0] for one, other in near]
        numbers |= {**_share("both_ways", both), **_share("same_way", [not ways and any(map(all, zip(one, other))) for ways, (one, other) in zip(both, near)])}
    return numbers


def _directions_chance(asked: Sequence[Caption], reading: Reading, deals: int = 20) -> float:
    """The share of directions within 45 degrees for captions whose directions were shuffled: what a model that ignores them gets. More than a quarter, as two equal digits are matched in
    whichever order fits better."""
    directed, g = [(a, k) for k, a in enumerate(asked) if a.directions], generator(0)
    drawn = torch.tensor([direction for a, _ in directed for direction in a.directions])
    hits = total = 0
    for _ in range(deals):
        dealt = drawn[torch.randperm(len(drawn), generator=g)].view(len(directed), -1).tolist()
        for (a, k), directions in zip(directed, dealt):
            errors = _errors(a.digits, [45 * direction for direction in directions], reading.digits[k].tolist(), reading.angles[k].tolist())
            there = [error for error in errors if error is not None]
            hits, total = hits + sum(error <= 45 for error in there), total + len(there)
    return hits / total


def direction_confusion(reading: Reading, captions: Sequence[str]) -> torch.Tensor:
    """(8, 9) int64: of the digits read as asked, how many should set off in direction i (row, index into DIRECTIONS) and do in direction j (column; the
    last: stand still). Only captions of two digits with motion count."""
    counts = torch.zeros(8, 9, dtype=torch.long)
    for text, digits, angles in zip(captions, reading.digits.tolist(), reading.angles.tolist(), strict=True):
        asked = parse(text)
        if asked.directions and len(asked.digits) == 2:
            for direction, k in zip(asked.directions, _partners(asked.digits, [45 * direction for direction in asked.directions], digits, angles)):
                if k is not None:
                    counts[direction, 8 if math.isnan(angles[k]) else round(angles[k] / 45) % 8] += 1
    return counts


def _errors(digits: Sequence[int], angles: Sequence[float], other_digits: Sequence[int], other_angles: Sequence[float]) -> list[float | None]:
    """For each of two digits, degrees between its angle and that of the same digit among two others; None where it is not among them."""
    return [None if k is None else _degrees_apart(angle, other_angles[k])
            for angle, k in zip(angles, _partners(digits, angles, other_digits, other_angles))]


def _partners(digits: Sequence[int], angles: Sequence[float], other_digits: Sequence[int], other_angles: Sequence[float]) -> tuple[int | None, ...]:
    """For each of two digits, which of two others matches it: the same digit, and the nearest angles if both orders are possible; None where none does."""

    def apart(partners: tuple[int | None, ...]) -> float:
        return sum(360 if k is None else _degrees_apart(angle, other_angles[k]) for angle, k in zip(angles, partners))

    orders = [tuple(k if other_digits[k] == digit else None for digit, k in zip(digits, order)) for order in ((0, 1), (1, 0))]
    return min(orders, key=apart)


def _degrees_apart(angle: float, other: float) -> float:
    """0 to 180; a digit that stands still (NaN) is as far as can be from one that moves."""
    if math.isnan(angle) or math.isnan(other):
        return 0.0 if math.isnan(angle) and math.isnan(other) else 180.0
    return abs((other - angle + 180) % 360 - 180)


def motion(reading: Reading) -> dict[str, float]:
    """How digits move: rmse, the median over digits of the distance from the best bouncing path, in pixels of a 32-pixel frame (not 0 for real digits: places
    are truncated to whole pixels, and a wall stops a digit for the rest of a frame); speed, the paths' mean speed, in pixels per frame; outside: the share of
    frames in which a digit is more than a pixel beyond a wall; identity: the share of frames that look like the digit that their track looks like most often."""
    beyond = torch.maximum(-reading.tracks, reading.tracks - FREE * SIZE).amax(-1) > 1
    most = reading.frame_digits.mode(-1, keepdim=True).values
    return {"rmse": float(reading.path.rmse.median()), "speed": float(reading.path.velocity.norm(dim=-1).mean()),
            "outside": float(beyond.float().mean()), "identity": float((reading.frame_digits == most).float().mean())}


def entropy(digits: torch.Tensor) -> float:
    """Entropy in nats of how often each digit occurs in `digits` (any shape, 0 to 9): at most ln 10 = 2.303."""
    share = torch.bincount(digits.flatten(), minlength=10).double() / digits.numel()
    return float(-(share * share.clamp(min=1e-12).log()).sum())


def agreement(one: Reading, other: Reading) -> dict[str, float]:
    """How far two readings of the same clips agree: same_digits, the share of clips in which both find the same two digits; same_directions, of the
    same_directions_n digits that both find, the share whose directions are within 45 degrees of each other."""
    same = (one.digits.sort(1).values == other.digits.sort(1).values).all(1)
    errors = [error for row in zip(one.digits.tolist(), one.angles.tolist(), other.digits.tolist(), other.angles.tolist()) for error in _errors(*row) if error is not None]
    return {"same_digits": float(same.float().mean()), **({"same_directions": sum(error <= 45 for error in errors) / len(errors)} if errors else {}),
            "same_directions_n": len(errors)}


def memorised(pictures: torch.Tensor, held_out: torch.Tensor) -> float:
    """How often a digit's picture (..., 28, 28) is nearer to its nearest training digit than a held-out one is to its own: the area under the ROC curve. About 0.5 is
    right, 1 means copies of the training digits, 0 means pictures unlike any digit."""
    mine, real = nearest_training_digit(pictures), nearest_training_digit(held_out)
    return float((mine[:, None] < real).float().mean() + 0.5 * (mine[:, None] == real).float().mean())


def evaluate(videos: torch.Tensor, captions: Sequence[str] | None = None, reference: torch.Tensor | None = None, seed: int = 0, controls: bool = True,
             tracked: int = 128, progress: bool = False) -> dict[str, dict[str, float | int | list]]:
    """All metrics of clips of two digits, as named rows: "clips", "real held-out clips (floor)", and, unless controls is False, those of `spoiled`.

    videos (N, 1, T, S, S) in [0, 1], S a multiple of 32 (averaged down to 32), N at least 8. captions: what was asked for, N strings of two digits each. reference: real
    clips to compare with, (M, 1, T, S, S) in [0, 1], M at least 6; by default N Moving MNIST clips of test digits. The floor and the source of the controls are N others, with captions of the same kind.

    A row holds: kernel_distance to the reference (with _low and _high), frechet_distance, precision, recall (all in the judge's features); digits and what else `obeyed` finds; rmse,
    speed, outside, identity (`motion`); entropy of the digits; confusion, for captions with motion (`direction_confusion`, nested lists); and, named tracker_..., what the tracker finds in the first `tracked` clips of the row (about 15 a second per core): `obeyed`, `motion`, its `agreement` with the
    judge, and `memorised`. Deterministic in its arguments.
    """
    clips = check_clips(videos)
    num, t = len(clips), clips.shape[2]
    if num < 8:
        raise ValueError(f"Distances need at least 8 clips; got {num}.")
    if captions is not None and len(captions) != num:
        raise ValueError(f"{num} clips but {len(captions)} captions.")
    kind = "motion" if captions is None or any(parse(text).directions for text in captions) else "digits"
    if reference is None:
        reference = (MovingMNIST("test", 2 * seed + 1, num_frames=t, captions=None).sample(num).video + 1) / 2
    held_out = MovingMNIST("test", 2 * seed + 2, num_frames=t, captions=kind).sample(num)
    rows = {FLOOR: ((held_out.video + 1) / 2, held_out.captions), "clips": (clips, captions)}
    if controls:
        rows |= {name: (bad, held_out.captions) for name, bad in spoiled(num, t, 2 * seed + 2).items()}
    target = read(reference).features
    numbers, pictures = {}, None
    for name, (shown, asked) in (bar := tqdm(rows.items(), disable=not progress, desc="reading", leave=False, file=progress_file())):
        bar.set_postfix_str(name)
        reading, second = judge.read(shown), track(shown[:tracked])
        pictures = second.pictures if pictures is None else pictures  # the floor's, the first row
        x = reading.features
        numbers[name] = {**kernel_distance_interval(x, target), "frechet_distance": frechet_distance(x, target), **precision_recall(x, target),
                         **({} if asked is None else obeyed(reading, asked)), **motion(reading), "entropy": entropy(reading.digits), "n": num}
        if asked is not None and kind == "motion":
            numbers[name]["confusion"] = direction_confusion(reading, asked).tolist()
        other = {**({} if asked is None else obeyed(second, asked[:tracked])), **motion(second), **agreement(reading[:tracked], second),
                   "memorised": memorised(second.pictures, pictures), "n": len(second.digits)}
        numbers[name] |= {f"tracker_{key}": value for key, value in other.items()}
    return numbers


def _share(name: str, right: list[bool]) -> dict[str, float | int]:
    n, k = len(right), sum(right)
    if n == 0:
        return {f"{name}_n": 0}
    z = 1.96
    centre, half = (k + z * z / 2) / (n + z * z), z * math.sqrt(k * (n - k) / n + z * z / 4) / (n + z * z)
    return {name: k / n, f"{name}_low": centre - half, f"{name}_high": centre + half, f"{name}_n": n}
