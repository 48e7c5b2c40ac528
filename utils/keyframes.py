"""Which frames of a clip are given: keyframes, an end, or the first frame alone (*Make-A-Video*, section 3.3); and how keyframes make up windows."""

from __future__ import annotations

import torch


def keyframe_mask(num_frames: int, skip: int) -> torch.Tensor:
    """(num_frames,) bool, True at every skip-th frame from the first."""
    return torch.arange(num_frames) % skip == 0


def sample_masks(num: int, num_frames: int, g: torch.Generator) -> torch.Tensor:
    """Which frames of `num` training clips are given, (num, 1, num_frames, 1, 1) float, 1 = given: of six clips, on average, three get keyframes (every fifth or third frame),
    one its first frames (up to half), one only its first frame, one nothing."""
    kind = torch.randint(6, (num,), generator=g)
    skip = 3 + 2 * (torch.rand(num, generator=g) < 0.75).long()  # 5, or 3 in one of four clips
    first = torch.randint(1, num_frames // 2 + 1, (num,), generator=g)
    frame = torch.arange(num_frames)[None]
    given = torch.where(kind[:, None] < 3, frame % skip[:, None] == 0, frame < torch.where(kind == 3, first, (kind == 4).long())[:, None])
    return given.float()[:, None, :, None, None]


def windows(keyframes: torch.Tensor, skip: int, num_frames: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Keyframes (N, C, K, H, W) as windows of num_frames frames with shared ends, (N, W, C, num_frames, H, W), zero where not given, and the mask (num_frames,) of given frames.

    A window holds (num_frames - 1) / skip gaps, so 16 keyframes at skip 5 make five windows of 16 frames, 76 frames in all. ValueError for numbers that do not fit.
    """
    if not 2 <= skip < num_frames or (num_frames - 1) % skip:
        fit = [k for k in range(2, num_frames) if (num_frames - 1) % k == 0]
        raise ValueError(f"skip must be one of {', '.join(map(str, fit))}, so that keyframes fall on both ends of {num_frames} frames; got {skip}.")
    gaps = (num_frames - 1) // skip
    count, rest = divmod(keyframes.shape[2] - 1, gaps)
    if count < 1 or rest:
        raise ValueError(f"With skip {skip} a window of {num_frames} frames takes {gaps + 1} keyframes, the last of one being the first of the next: "
                         f"pass {gaps + 1}, {2 * gaps + 1}, {3 * gaps + 1}, ... keyframes, not {keyframes.shape[2]}.")
    n, c, _, h, w = keyframes.shape
    clips = keyframes.new_zeros(n, count, c, num_frames, h, w)
    for k in range(count):
        clips[:, k, :, ::skip] = keyframes[:, :, k * gaps:k * gaps + gaps + 1]
    return clips, keyframe_mask(num_frames, skip)


def join(clips: torch.Tensor) -> torch.Tensor:
    """Windows (N, W, C, T, H, W) with shared ends to clips (N, C, W * (T - 1) + 1, H, W)."""
    first, rest = clips[:, 0], clips[:, 1:, :, 1:]
    return torch.cat([first, *rest.unbind(1)], dim=2)
