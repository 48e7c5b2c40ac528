"""Reads two digits off a clip without any network, as a second opinion on the judge.

Template matching finds two digits in every frame, a dynamic program links them over time, each digit's picture is a low quantile of its frames, and its
nearest neighbours among MNIST's training digits name it. Nothing here is trained but the templates' means (k-means of training digits).
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from tqdm import tqdm

from .data import DIGIT, mnist
from .paths import SIZE, Reading, bouncing_path, link
from .runtime import generator, progress_file

MARGIN = 2  # pixels that a digit may extend outside the frame; its place is found on the half-pixel grid, which is that of the 64-pixel canvas
PLACES = SIZE + 2 * MARGIN - DIGIT // 2  # whole pixels, in each direction, at which a template is tried
TRUNCATION = 0.25  # pixels: places on the canvas are truncated, not rounded, so a digit seen at p was meant at p + 0.25 on average


def _at_half_pixels(digits: torch.Tensor) -> torch.Tensor:
    """(K, 28, 28) in the canvas's pixels -> (K, 4, 15, 15): averaged down by 2 at the four half-pixel offsets from the frame's pixels."""
    return torch.stack([F.avg_pool2d(F.pad(digits, (x, 2 - x, y, 2 - y))[:, None], 2)[:, 0] for y in (0, 1) for x in (0, 1)], dim=1)


@lru_cache(maxsize=1)
def _templates(per_digit: int = 4, rounds: int = 8) -> torch.Tensor:
    """(10, per_digit, 4, 15, 15): k-means of the training digits, class by class."""
    images, labels = mnist("train")
    images, means = images.float() / 255, []
    for digit in range(10):
        x = images[labels == digit].flatten(1)
        mean = x[torch.randperm(len(x), generator=generator(digit))[:per_digit]]
        for _ in range(rounds):
            member = F.one_hot(torch.cdist(x, mean).argmin(1), per_digit).float()
            mean = member.T @ x / member.sum(0).clamp(min=1)[:, None]
        means.append(_at_half_pixels(mean.view(-1, DIGIT, DIGIT)))
    return torch.stack(means)


@lru_cache(maxsize=1)
def _library() -> tuple[torch.Tensor, torch.Tensor]:
    """Training digits blurred as a clip's pixels blur them and scaled to length 1, (55000, 784), 172 MB, and their labels."""
    images, labels = mnist("train")
    triangle = torch.tensor([0.25, 0.5, 0.25])  # a box of two pixels, seen from either of its pixels
    blurred = F.conv2d(images[:, None].float() / 255, (triangle[:, None] * triangle)[None, None], padding=1).flatten(1)
    return F.normalize(blurred), labels


def _place(frames: torch.Tensor, templates: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Where the best of templates (K, 4, 15, 15) fits in frames (M, 32, 32): places (M, 2) in half pixels, and by how much each template there reduces
    the frame's squared error, (M, K)."""
    weights = templates.flatten(0, 1)[:, None]
    e = F.conv2d(F.pad(frames, (MARGIN,) * 4)[:, None], 2 * weights, bias=-weights.square().sum((1, 2, 3))).unflatten(1, (-1, 4))  # (M, K, 4, H, W)
    best = e.amax(1).flatten(1).argmax(1)
    fall, y, x = torch.unravel_index(best, e.shape[2:])
    return _half_pixels(fall, y, x), e[torch.arange(len(e)), :, fall, y, x]


def _half_pixels(fall: torch.Tensor, y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Places (..., 2) in half pixels, given which of `_at_half_pixels` fits where in the padded frame."""
    return torch.stack([2 * y + fall // 2, 2 * x + fall % 2], dim=-1) - 2 * MARGIN


def _draw(templates: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Templates (M, 4, 15, 15) at places (M, 2) in half pixels, as frames (M, 32, 32)."""
    row = torch.arange(len(places))
    shown = F.pad(templates[row, places[:, 0] % 2 * 2 + places[:, 1] % 2], (SIZE,) * 4)
    corner = SIZE - places.div(2, rounding_mode="floor")
    pixel = torch.arange(SIZE)
    return shown[row[:, None, None], (corner[:, :1] + pixel)[:, :, None], (corner[:, 1:] + pixel)[:, None, :]]


def _two_places(frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Matching pursuit: places (M, 2, 2) of two digits in half pixels and what each class explains there, (M, 2, 10). The digits overlap by maximum, so
    what one of them explains is removed before the other is looked for, and then both are looked for once more."""
    templates = _templates()
    bank = templates.flatten(0, 1)
    places, explained = [None, None], [None, None]
    rest = frames
    for k in (0, 1, 0, 1):
        places[k], e = _place(rest, bank)
        explained[k] = rearrange(e, "m (d k) -> m d k", d=10).amax(-1)
        rest = (frames - _draw(bank[e.argmax(1)], places[k])).clamp(min=0)
    return torch.stack(places, dim=1), torch.stack(explained, dim=1)


def _pictures(clips: torch.Tensor, tracks: torch.Tensor) -> torch.Tensor:
    """Each digit as seen along its track, (N, K, 28, 28) in the canvas's pixels: clips (N, T, 32, 32), tracks (N, K, T, 2) in pixels. A low quantile over frames,
    as the other digit only ever adds light."""
    n, k, t, _ = tracks.shape
    border = 4 * MARGIN
    canvas = F.pad(clips.repeat_interleave(2, 2).repeat_interleave(2, 3), (border,) * 4)
    corner = ((2 * tracks).round().long() + border).clamp(0, canvas.shape[-1] - DIGIT)
    pixel = torch.arange(DIGIT)
    crops = canvas[torch.arange(n)[:, None, None, None, None], torch.arange(t)[:, None, None],
                   (corner[..., :1] + pixel)[..., :, None], (corner[..., 1:] + pixel)[..., None, :]]
    return crops.quantile(0.4, dim=2)


def _nearest(pictures: torch.Tensor, neighbours: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The training digits nearest to pictures (..., 28, 28), both scaled to length 1 so that a dim digit is still a digit: distances and labels, (..., neighbours)."""
    blurred, labels = _library()
    rows = F.normalize(pictures.flatten(0, -3).flatten(1))
    found = [(part @ blurred.T).topk(neighbours) for part in rows.split(256)]
    shape = (*pictures.shape[:-2], neighbours)
    distances = (2 - 2 * torch.cat([f.values for f in found])).clamp(min=0).sqrt()
    return distances.view(shape), labels[torch.cat([f.indices for f in found])].view(shape)


def nearest_training_digit(pictures: torch.Tensor) -> torch.Tensor:
    """Distance (M,) of each of M pictures (..., 28, 28) of a `Reading` to the nearest training digit, blurred like it."""
    return _nearest(pictures, 1)[0].flatten()


def _name(pictures: torch.Tensor) -> torch.Tensor:
    """Pictures (..., 28, 28) -> digits (...): the commonest label of the five nearest training digits, the nearest breaking ties."""
    near = _nearest(pictures, 5)[1]
    return (F.one_hot(near, 10).sum(-2) + 0.5 * F.one_hot(near[..., 0], 10)).argmax(-1)


def _without(clips: torch.Tensor, own: torch.Tensor, places: torch.Tensor, k: int) -> torch.Tensor:
    """Clips (N, T, 32, 32) with the digit other than k removed: own (N, 2, 4, 15, 15), places (N, 2, T, 2) in half pixels."""
    t = clips.shape[1]
    other = _draw(repeat(own[:, 1 - k], "n p h w -> (n t) p h w", t=t), places[:, 1 - k].flatten(0, 1))
    return (clips - rearrange(other, "(n t) h w -> n t h w", t=t)).clamp(min=0)


def _follow(clips: torch.Tensor, own: torch.Tensor, tracks: torch.Tensor) -> torch.Tensor:
    """Tracks (N, 2, T, 2) refined, near the best bouncing path, with each digit's own picture as template: places in half pixels."""
    n = len(clips)
    expected = bouncing_path(tracks).positions
    everywhere = torch.meshgrid(torch.arange(4), torch.arange(PLACES), torch.arange(PLACES), indexing="ij")
    grid = _half_pixels(*everywhere) / 2  # (4, PLACES, PLACES, 2)
    places = (2 * tracks).round().long()
    for k in (0, 1, 0, 1):
        rest = F.pad(_without(clips, own, places, k), (MARGIN,) * 4)
        e = 2 * F.conv2d(rest.transpose(0, 1), own[:, k].flatten(0, 1)[:, None], groups=n)  # each clip with its own template
        far = (grid - expected[:, k, :, None, None, None]).square().sum(-1).clamp(max=16)
        best = (rearrange(e, "t (n p) h w -> n t p h w", n=n) - 0.5 * far).flatten(2).argmax(2)
        places[:, k] = _half_pixels(*torch.unravel_index(best, grid.shape[:3]))
    return places


def _frame_digits(clips: torch.Tensor, own: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """The digit (N, 2, T) whose templates best explain what is at each place, frame by frame."""
    bank = _templates()
    norms = bank.square().sum((-1, -2))
    pixel = torch.arange(bank.shape[-1])
    found = []
    for k in (0, 1):
        rest = F.pad(_without(clips, own, places, k), (MARGIN,) * 4).flatten(0, 1)
        place = places[:, k].flatten(0, 1)
        corner = place.div(2, rounding_mode="floor") + MARGIN
        crops = rest[torch.arange(len(rest))[:, None, None], (corner[:, :1] + pixel)[:, :, None], (corner[:, 1:] + pixel)[:, None, :]]
        fall = place[:, 0] % 2 * 2 + place[:, 1] % 2
        e = 2 * torch.einsum("m h w, d k p h w -> m d k p", crops, bank) - norms
        found.append(e[torch.arange(len(e)), :, :, fall].amax(2).argmax(1).view(clips.shape[:2]))
    return torch.stack(found, dim=1)


@torch.no_grad()
def track(clips: torch.Tensor, progress: bool = False, chunk: int = 8) -> Reading:
    """Read clips (N, 1, T, 32, 32) in [0, 1] of two digits, T at least 3; see `Reading`."""
    parts = []
    for part in tqdm(clips[:, 0].float().split(chunk), desc="tracking", disable=not progress, leave=False, file=progress_file()):
        n = len(part)
        places, explained = (rearrange(x, "(n t) k c -> n t k c", n=n) for x in _two_places(part.flatten(0, 1)))
        swap = link(places / 2, explained.softmax(-1))
        places = places.gather(2, torch.stack([swap, 1 - swap], dim=2)[..., None].expand(-1, -1, -1, 2)).transpose(1, 2)
        own = _at_half_pixels(_pictures(part, places / 2).flatten(0, 1)).unflatten(0, (n, 2))
        places = _follow(part, own, places / 2)
        pictures = _pictures(part, places / 2)
        parts.append((_name(pictures), places / 2 + TRUNCATION, _frame_digits(part, own, places), pictures))
    digits, tracks, frame_digits, pictures = (torch.cat(x) for x in zip(*parts))
    return Reading(digits, tracks, frame_digits, pictures)
