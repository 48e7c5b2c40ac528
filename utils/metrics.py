"""Two small networks that read pictures, and the numbers made from them.

`DigitClassifier` names a digit and gives features for `kernel_distance`; `Reader` says which digits a clip shows and where they
start to move. Both are trained on real data alone, never on samples, and frozen; how they do on real held-out data is printed
beside everything that they measure.

    python -m utils.metrics classifier     # trains it and writes assets/checkpoints/classifier.pt
    python -m utils.metrics reader         # likewise
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn
from tqdm import tqdm

from .captions import Caption, octant, parse
from .data import MNIST, Batch, MovingMNIST
from .runtime import ASSETS, amp_dtype, autocast, generator, pick_device

CHECKPOINTS = ASSETS / "checkpoints"


class DigitClassifier(nn.Module):
    """(B, 1, 28, 28) digits in [0, 1] -> logits (B, 10); `features` gives the 64 numbers before them."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.GroupNorm(4, 16), nn.SiLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.GroupNorm(8, 32), nn.SiLU(),
            nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.GroupNorm(8, 64), nn.SiLU(),
            nn.Flatten(), nn.Linear(64 * 49, 64), nn.LayerNorm(64), nn.SiLU())
        self.head = nn.Linear(64, 10)

    def features(self, digits: torch.Tensor) -> torch.Tensor:
        """(B, 1, 28, 28) in [0, 1] -> (B, 64)."""
        return self.body(digits * 2 - 1)

    def forward(self, digits: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(digits))


class Reader(nn.Module):
    """(B, 1, 16, 32, 32) clips in [0, 1] -> for every digit how often it is there, and for every digit which way it starts.

    `counts` (B, 10, 3): logits of digit d being there 0, 1 or 2 times. `moves` (B, 10, 8): logits of a digit d starting in octant k.
    """

    def __init__(self) -> None:
        super().__init__()
        self.frames = nn.Sequential(  # frame by frame: what is there
            nn.Conv2d(1, 24, 5, stride=2, padding=2), nn.GroupNorm(8, 24), nn.SiLU(),
            nn.Conv2d(24, 48, 3, padding=1), nn.GroupNorm(8, 48), nn.SiLU(),
            nn.Conv2d(48, 64, 3, stride=2, padding=1), nn.GroupNorm(8, 64), nn.SiLU(),
            nn.Conv2d(64, 64, 3, padding=1), nn.GroupNorm(8, 64), nn.SiLU())
        self.motion = nn.Sequential(  # neighbouring frames: where it goes
            nn.Conv3d(64, 64, 3, stride=(1, 2, 2), padding=1), nn.GroupNorm(8, 64), nn.SiLU(),
            nn.Conv3d(64, 64, 3, padding=1), nn.GroupNorm(8, 64), nn.SiLU())
        self.counts = nn.Sequential(nn.Linear(128, 128), nn.SiLU(), nn.Linear(128, 30))
        self.moves = nn.Sequential(nn.Linear(128, 128), nn.SiLU(), nn.Linear(128, 80))

    def forward(self, clips: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """clips (B, 1, T, 32, 32) in [0, 1] -> counts (B, 10, 3), moves (B, 10, 8)."""
        t = clips.shape[2]
        h = self.frames(rearrange(clips, "b c t h w -> (b t) c h w") * 2 - 1)
        h = rearrange(h, "(b t) c h w -> b c t h w", t=t)
        what = torch.cat([h.amax((3, 4)).mean(2), h.mean((2, 3, 4))], dim=1)
        first = self.motion(h[:, :, :8])  # direction is velocity[0]: the first frames tell
        where = torch.cat([first.amax((2, 3, 4)), first[:, :, 0].amax((2, 3))], dim=1)
        return (rearrange(self.counts(what), "b (digit n) -> b digit n", n=3),
                rearrange(self.moves(where), "b (digit k) -> b digit k", k=8))


def reader_loss(counts: torch.Tensor, moves: torch.Tensor, labels: torch.Tensor, octants: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of the counts plus binary cross-entropy of (digit, octant) pairs; labels, octants (B, 2) int64."""
    present = F.one_hot(labels, 10).sum(1)  # (B, 10), 0..2
    pairs = torch.zeros_like(moves).index_put((torch.arange(len(labels), device=labels.device)[:, None], labels, octants),
                                              torch.ones((), device=moves.device))
    return F.cross_entropy(rearrange(counts, "b d n -> b n d"), present) + F.binary_cross_entropy_with_logits(moves, pairs) * 4


def _train(network: nn.Module, data: MNIST | MovingMNIST, loss_of: Callable[[nn.Module, Batch, torch.device], torch.Tensor],
           steps: int, batch_size: int, device: str | None) -> None:
    where = pick_device(device)
    dtype = amp_dtype(where)
    network.to(where)
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    scaler = torch.amp.GradScaler(where.type, enabled=dtype == torch.float16)
    bar = tqdm(range(steps), desc=type(network).__name__, mininterval=5)
    for step in bar:
        with autocast(where, dtype):
            loss = loss_of(network, data.sample(batch_size, index=step), where)
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        schedule.step()
        if step % 50 == 0:
            bar.set_postfix(loss=f"{float(loss.detach()):.3f}")


def _classifier_loss(network: nn.Module, batch: Batch, where: torch.device) -> torch.Tensor:
    return F.cross_entropy(network((batch.video[:, :, 0].to(where) + 1) / 2).float(), batch.labels[:, 0].to(where))


def _reader_loss(network: nn.Module, batch: Batch, where: torch.device) -> torch.Tensor:
    counts, moves = network((batch.video.to(where) + 1) / 2)
    return reader_loss(counts.float(), moves.float(), batch.labels.to(where), octant(batch.velocity[:, :, 0]).to(where))


@lru_cache
def load_network(name: str) -> DigitClassifier | Reader:
    """The frozen "classifier" or "reader", on the CPU. FileNotFoundError says how to make it."""
    path = CHECKPOINTS / f"{name}.pt"
    if not path.exists():
        raise FileNotFoundError(f"{path.name} is not in assets/checkpoints/: restore it with `git checkout -- assets`, "
                                f"or train it with `python -m utils.metrics {name}`.")
    network = {"classifier": DigitClassifier, "reader": Reader}[name]()
    network.load_state_dict({key: tensor.float() for key, tensor in torch.load(path, map_location="cpu", weights_only=True).items()})
    return network.eval().requires_grad_(False)


@torch.no_grad()
def digit_features(images: torch.Tensor) -> torch.Tensor:
    """(N, 1, 1, 28, 28) images in [0, 1] -> (N, 64) features of the classifier."""
    return torch.cat([load_network("classifier").features(chunk[:, :, 0].float()) for chunk in images.split(256)])


@torch.no_grad()
def classify(images: torch.Tensor) -> torch.Tensor:
    """(N, 1, 1, 28, 28) images in [0, 1] -> (N, 10) probabilities of the digits."""
    return torch.cat([load_network("classifier")(chunk[:, :, 0].float()) for chunk in images.split(256)]).softmax(1)


@torch.no_grad()
def read(clips: torch.Tensor, batch_size: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    """What two-digit clips show: digits (N, 2) int64 in ascending order, and moves (N, 10, 8), the probability that a digit starts in an octant.

    clips (N, 1, T, 32, 32) in [0, 1]; ValueError for another shape or range.
    """
    check_clips(clips)
    reader = load_network("reader")
    outputs = [reader(chunk.cpu().float()) for chunk in clips.split(batch_size)]
    log_counts = torch.cat([counts for counts, _ in outputs]).log_softmax(-1)  # (N, 10, 3)
    first, second = torch.triu_indices(10, 10)  # the 55 multisets of two digits
    times = F.one_hot(first, 10) + F.one_hot(second, 10)  # (55, 10)
    score = sum(torch.where(times == n, log_counts[:, None, :, n], torch.zeros(())) for n in range(3)).sum(-1)  # (N, 55)
    best = score.argmax(1)
    return torch.stack([first[best], second[best]], dim=1), torch.cat([moves for _, moves in outputs]).sigmoid()


def kernel_distance(x: torch.Tensor, y: torch.Tensor) -> float:
    """Unbiased squared kernel distance between two sets of features, (N, D) and (M, D), float: the polynomial kernel
    (x.y / D + 1)^3 of the kernel inception distance (arXiv 1801.01401). About 0, of either sign, for two draws of one distribution."""
    if x.dim() != 2 or y.dim() != 2 or x.shape[1] != y.shape[1] or min(len(x), len(y)) < 2:
        raise ValueError(f"Expected features (N, D) and (M, D) with N, M > 1; got {tuple(x.shape)} and {tuple(y.shape)}.")
    return float(_kernel_distances(x, y, torch.ones(1, len(x)), torch.ones(1, len(y))))


def kernel_distance_gap(x: torch.Tensor, other: torch.Tensor, reference: torch.Tensor, resamples: int = 1000, seed: int = 0) -> dict[str, float]:
    """How much further from `reference` (M, D) the features x (N, D) are than those of `other` (N, D): the difference of the two kernel
    distances as "gap" with a 95% bootstrap interval "gap_low" to "gap_high". Row i of x and of other come from the same seed and are
    drawn together, and so are the references, which takes most of the spread out of the difference. The interval is too wide, not too narrow,
    where both sets are as near to the reference as real data would be.
    """
    if x.shape != other.shape:
        raise ValueError(f"Paired features have one shape; got {tuple(x.shape)} and {tuple(other.shape)}.")
    g = generator(seed)

    def times_drawn(num: int) -> torch.Tensor:
        drawn = torch.randint(num, (resamples, num), generator=g)
        return torch.zeros(resamples, num).scatter_add_(1, drawn, torch.ones(resamples, num))

    rows, references = times_drawn(len(x)), times_drawn(len(reference))
    gaps = _kernel_distances(x, reference, rows, references) - _kernel_distances(other, reference, rows, references)
    low, high = gaps.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return {"gap": kernel_distance(x, reference) - kernel_distance(other, reference), "gap_low": low, "gap_high": high}


def _kernel_distances(x: torch.Tensor, y: torch.Tensor, x_times: torch.Tensor, y_times: torch.Tensor) -> torch.Tensor:
    """(R,) float64: unbiased kernel distances of x (N, D) and y (M, D), row i of x taken x_times[r, i] times, of y y_times[r, j] times.
    No row is ever paired with itself."""
    x, y, x_times, y_times = x.double(), y.double(), x_times.double(), y_times.double()

    def kernel(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (a @ b.T / a.shape[1] + 1) ** 3

    def within(a: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        pairs = times.sum(1) ** 2 - times.square().sum(1)
        return (((times @ kernel(a, a).fill_diagonal_(0)) * times).sum(1)) / pairs

    between = ((x_times @ kernel(x, y)) * y_times).sum(1) / (x_times.sum(1) * y_times.sum(1))
    return within(x, x_times) + within(y, y_times) - 2 * between


def variety(features: torch.Tensor, labels: torch.Tensor) -> float:
    """Mean variance of features (N, D) within the classes that labels (N,) name, summed over D: how much samples of one class differ.
    Means something beside the same number of real samples with the same labels."""
    parts = [features[labels == label].double() for label in labels.unique()]
    if min(len(part) for part in parts) < 2:
        raise ValueError("variety needs at least two samples of every class.")
    return float(sum(part.var(0).sum() * len(part) for part in parts) / len(features))


def check_clips(clips: torch.Tensor) -> None:
    """ValueError unless clips are (N, 1, T, 32, 32) in [0, 1]."""
    if clips.dim() != 5 or clips.shape[1] != 1 or clips.shape[-2:] != (32, 32):
        raise ValueError(f"Expected clips of shape (N, 1, T, 32, 32); got {tuple(clips.shape)}.")
    if clips.min() < -1e-4 or clips.max() > 1 + 1e-4:
        raise ValueError(f"Clips are in [0, 1]; got values from {clips.min():.3g} to {clips.max():.3g}. "
                         "A dataset's video is in [-1, 1]: pass (video + 1) / 2.")


def named(images: torch.Tensor, labels: torch.Tensor) -> dict[str, float | int]:
    """How many images (N, 1, 1, 28, 28) in [0, 1] the classifier reads as their labels (N,): "digits" with n and a 95% interval (Wilson)."""
    return _share("digits", (classify(images).argmax(1) == labels.cpu()).tolist())


def obeyed(clips: torch.Tensor, captions: Sequence[str]) -> dict[str, float | int]:
    """How well clips (N, 1, 16, 32, 32) in [0, 1] do what their captions say, for captions of two digits.

    digits: share of clips whose two digits read as the caption's. directions: share of a caption's (digit, direction) pairs for
    which the reader's most likely octant of that digit is within 45 degrees (only captions with motion count).
    Each comes with n and a 95% interval (Wilson).
    """
    if len(clips) != len(captions):
        raise ValueError(f"{len(clips)} clips but {len(captions)} captions.")
    asked = [parse(text) for text in captions]
    digits, moves = read(clips)
    right = [sorted(a.digits) == d.tolist() for a, d in zip(asked, digits)]
    pairs = [pair for a, m in zip(asked, moves) if a.directions for pair in _pairs_right(a, m)]
    return {**_share("digits", right), **_share("directions", pairs)}


def _pairs_right(asked: Caption, moves: torch.Tensor) -> list[bool]:
    if len(set(asked.digits)) == 1:  # "3 moving left and 3 moving up": both octants must be likely, in any order
        likely = moves[asked.digits[0]].topk(2).indices.tolist()
        return max(([_near(a, b) for a, b in zip(asked.directions, order)] for order in (likely, likely[::-1])), key=sum)
    return [_near(k, int(moves[d].argmax())) for d, k in zip(asked.digits, asked.directions)]


def _near(a: int, b: int) -> bool:
    return (a - b) % 8 in (0, 1, 7)


def _share(name: str, right: list[bool]) -> dict[str, float | int]:
    n, k = len(right), sum(right)
    if n == 0:
        return {f"{name}_n": 0}
    z = 1.96
    centre, half = (k + z * z / 2) / (n + z * z), z * math.sqrt(k * (n - k) / n + z * z / 4) / (n + z * z)
    return {name: k / n, f"{name}_low": centre - half, f"{name}_high": centre + half, f"{name}_n": n}


def main() -> None:
    """Train one of the two networks, print how it does on held-out real data and on noise, and write it."""
    parser = argparse.ArgumentParser(description="Train the networks that the numbers are made with.")
    parser.add_argument("network", choices=("classifier", "reader"))
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--device")
    a = parser.parse_args()
    torch.manual_seed(0)
    network = DigitClassifier() if a.network == "classifier" else Reader()
    if a.network == "classifier":
        _train(network, MNIST("train", seed=1), _classifier_loss, a.steps, 128, a.device)
    else:
        _train(network, MovingMNIST("train", seed=1), _reader_loss, a.steps, 32, a.device)
    CHECKPOINTS.mkdir(parents=True, exist_ok=True)
    torch.save({key: tensor.detach().half().cpu() for key, tensor in network.state_dict().items()}, CHECKPOINTS / f"{a.network}.pt")
    load_network.cache_clear()
    if a.network == "classifier":
        batch = MNIST("validation", seed=9).sample(2000)
        print("accuracy on real digits:", float((classify((batch.video + 1) / 2).argmax(1) == batch.labels[:, 0]).float().mean()))
        return
    batch = MovingMNIST("validation", seed=9, captions="motion").sample(512)
    print("real clips:", obeyed((batch.video + 1) / 2, batch.captions))
    print("noise:", obeyed(torch.rand(batch.video.shape, generator=generator(1)), batch.captions))


if __name__ == "__main__":
    main()
