"""A trained model as its user holds it: `load_pretrained("vdm-text").sample(["3 and 7"])`, and what it can do with clips that are there already.

Everything that goes in or comes out is in [0, 1]; only `net` and `predict_x` speak [-1, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from tqdm import tqdm

from .captions import Caption, parse, tokenize
from .diffusion import to_x
from .recipes import Recipe
from .runtime import amp_dtype, autocast, generator, pick_device, randn_per_sample
from .samplers import Denoiser, Known, SampleState, guided_denoiser, reconstruction_denoiser, sample_loop
from .unet import UNet

CPU_CHUNK = {"image": 64, "video": 8}  # samples that go through the network at once; more is slower on a CPU
GPU_CHUNK = 64
METHODS = ("reconstruction", "replacement")
WEIGHT = 5.0  # of reconstruction guidance, by default
DOWNSAMPLED_WEIGHT = 10.0  # the same for pixels that are known averaged down


@dataclass(frozen=True)
class Sampling:
    """How to sample: see `Model.sample`. None: the recipe's. watch: called after every step of every batch with its SampleState."""

    steps: int | None = None
    sampler: str | None = None
    guidance_scale: float | None = None
    eta: float = 0.0
    gamma: float = 0.1
    langevin: float = 0.0
    guidance_rescale: float = 0.0
    watch: Callable[[SampleState], object] | None = None

    def __post_init__(self) -> None:
        if self.steps is not None and self.steps < 1:
            raise ValueError(f"steps must be at least 1, not {self.steps}.")


class Model:
    """A network with its recipe. `net` is in evaluation mode, without gradients, on `device`; in sampling it runs in the precision that
    `amp` says (see `runtime.amp_dtype`; float32 by default), everything around it in float32."""

    def __init__(self, recipe: Recipe, net: UNet, provenance: dict | None = None, device: str | torch.device | None = None,
                 amp: str = "off") -> None:
        self.recipe, self.provenance = recipe, provenance or {}
        self.name, self.kind, self.prediction, self.sample_shape = recipe.name, recipe.kind, recipe.prediction, recipe.sample_shape
        self.device = pick_device(device)
        self.net = net.to(self.device).eval().requires_grad_(False)
        self.dtype = amp_dtype(self.device, amp)

    def log_snr(self, t: torch.Tensor | float) -> torch.Tensor:
        """t in [0, 1] -> log-SNR, float64, same shape."""
        return self.recipe.schedule.log_snr(t)

    def encode(self, captions: Sequence[str] | str | None = None, labels: torch.Tensor | None = None,
               num: int | None = None) -> torch.Tensor:
        """N captions, or labels (N, digits) or (N,) for one digit each, to the condition (N, embed_dim). Neither: the null condition, num rows of zeros.

        Raises CaptionError for a caption outside the grammar, ValueError when the model takes no captions.
        """
        if captions is not None and labels is not None:
            raise ValueError("Pass captions or labels, not both.")
        if labels is not None:
            labels = torch.as_tensor(labels)
            captions = [str(Caption(tuple(row))) for row in (labels[:, None] if labels.dim() == 1 else labels).tolist()]
        if captions is None:
            return torch.zeros(1 if num is None else num, self.recipe.net.embed_dim, device=self.device)
        if self.recipe.captions is None:
            raise ValueError(f"{self.name} was trained without captions: leave captions and labels out.")
        captions = [captions] if isinstance(captions, str) else list(captions)
        return self.net.encode(tokenize(captions).to(self.device))

    def predict_x(self, z: torch.Tensor, log_snr: torch.Tensor, cond: torch.Tensor | None = None, *, num_images: int = 0) -> torch.Tensor:
        """The network's estimate of the data, unclipped: z (B, C, T, H, W), log_snr (B,) -> the shape of z."""
        return to_x(self.net(z, log_snr, cond, num_images=num_images), z, log_snr, self.prediction)

    @torch.no_grad()
    def sample(self, captions: Sequence[str] | str | None = None, *, num: int | None = None, labels: torch.Tensor | None = None,
               num_frames: int | None = None, seed: int = 0, progress: bool = False, **sampling) -> torch.Tensor:
        """Generate (N, C, T, H, W) float32 in [0, 1] on the CPU.

        captions (N strings, or one for all `num`) or labels (N, digits) say what; without them the null condition is sampled.
        num_frames: another length than the training clips'. The noise of sample i depends on (seed, i) alone: the same on every device and for every
        `num`. Further keywords: steps, sampler ("ddim", "ancestral", "dpm++") and guidance_scale (g: 1 = as trained, more = closer to the
        caption, less varied), by default the recipe's; eta, gamma, langevin (see `sample_loop`); guidance_rescale (see `guided_denoiser`); watch, a
        function that is called with the SampleState of every step.
        """
        if isinstance(captions, str):
            captions = [captions] * (num or 1)
        given = captions if captions is not None else labels
        num = (1 if num is None else num) if given is None else len(given) if num is None else num
        if num < 1 or given is not None and len(given) != num:
            raise ValueError(f"num is {num}, but there are {len(given)} captions or labels." if given is not None
                             else f"num must be at least 1, not {num}.")
        frames = self.sample_shape[1] if num_frames is None else num_frames
        if frames < 1 or self.kind == "image" and frames != 1:
            raise ValueError(f"num_frames must be at least 1, and 1 for an image model; got {frames}.")
        cond = None if given is None else self.encode(captions, labels)
        denoised = [self._denoised(rows, frames, cond, Sampling(**sampling), seed, advance) for rows, advance in self._chunks(num, 1, sampling, progress)]
        return torch.cat(denoised)

    @torch.no_grad()
    def inpaint(self, video: torch.Tensor, mask: torch.Tensor, captions: Sequence[str] | str | None = None, *, method: str = "reconstruction",
                weight: float = WEIGHT, seed: int = 0, progress: bool = False, **sampling) -> torch.Tensor:
        """Sample what is missing of clips: the frames or pixels where mask is 0. (N, C, T, H, W) in [0, 1] -> the same, unchanged where mask is 1.

        mask: bool, or 0 and 1, in a shape that broadcasts to (N, 1, T, H, W): 1 = given. captions: N, or one for all. method: "reconstruction", guidance by the gradient of
        the error at what is given, with this weight (w_r; `reconstruction_denoiser`), or "replacement", which is weight 0: what is given is only put in, freshly noised, at every step
        (*Video Diffusion Models*, section 3.1). A mask that gives nothing samples as `sample` does with the same seed. Guidance costs about three network calls in place of one.
        Further keywords as for `sample`. ValueError for shapes, ranges, masks and methods that do not fit.
        """
        video = self._checked(video)
        if not isinstance(mask, torch.Tensor) or mask.dtype != torch.bool and not ((mask == 0) | (mask == 1)).all():
            raise ValueError("mask is a tensor of bool, or of 0 and 1 (1 = given).")
        shape = (len(video), 1, *video.shape[2:])
        try:
            mask = mask.bool().cpu().expand(shape)
        except RuntimeError as error:
            raise ValueError(f"mask has shape {tuple(mask.shape)}, which does not broadcast to {shape}: (N, 1, T, H, W) of the video.") from error
        cond, weight = self._conditions(captions, len(video)), self._weight(method, weight)
        done = [self._completed(video[rows], mask[rows], rows, cond, weight, Sampling(**sampling), (seed,), advance)
                for rows, advance in self._chunks(len(video), 1, sampling, progress)]
        return torch.cat(done)

    @torch.no_grad()
    def extend(self, video: torch.Tensor, num_frames: int, captions: Sequence[str] | str | None = None, *, overlap: int = 8, backward: bool = False,
               method: str = "reconstruction", weight: float = WEIGHT, seed: int = 0, progress: bool = False, **sampling) -> torch.Tensor:
        """Go on from clips (N, C, T, H, W) in [0, 1], T at least 1, to num_frames frames, those given included and unchanged: (N, C, num_frames, H, W).

        Block by block: the last `overlap` frames there are (fewer where there are fewer) are given, and the model completes them to a clip of its own length, as `inpaint`
        does; memory beside the result does not grow with the length. A single frame is set in motion. backward: the frames before. Of captions (N, or one for all) only the digits count, as a
        direction is that of a clip's first frame. method, weight and further keywords: see `inpaint`, `sample`. ValueError for what does not fit.
        """
        video, size = self._checked(video), self.sample_shape[1]
        n, given = len(video), video.shape[2]
        if num_frames < given:
            raise ValueError(f"num_frames is the length of the result, at least the {given} frames that are given; got {num_frames}.")
        if not 1 <= overlap < size:
            raise ValueError(f"overlap must be from 1 to {size - 1}, as {self.name} makes {size} frames at a time; got {overlap}.")
        if captions is not None:
            captions = [str(Caption(parse(text).digits)) for text in ([captions] * n if isinstance(captions, str) else captions)]
        cond, weight = self._conditions(captions, n), self._weight(method, weight)
        blocks, length = 0, given
        while length < num_frames:
            blocks, length = blocks + 1, length + size - min(overlap, length)
        done = []
        for rows, advance in self._chunks(n, blocks, sampling, progress):
            frames = [video[rows]]
            context, length = video[rows][:, :, :overlap] if backward else video[rows][:, :, -overlap:], given
            for block in range(blocks):
                known = context.shape[2]
                clip = context.new_zeros(*context.shape[:2], size, *context.shape[3:])
                mask = torch.zeros(size, 1, 1, dtype=torch.bool)
                place = slice(size - known, size) if backward else slice(known)
                clip[:, :, place], mask[place] = context, True
                clip = self._completed(clip, mask.expand(len(clip), 1, *clip.shape[2:]), rows, cond, weight, Sampling(**sampling), (seed, block), advance)
                new = clip[:, :, :size - known] if backward else clip[:, :, known:]
                wanted = min(new.shape[2], num_frames - length)
                frames.append(new[:, :, new.shape[2] - wanted:] if backward else new[:, :, :wanted])
                length += wanted
                context = clip[:, :, :overlap] if backward else clip[:, :, -overlap:]
            done.append(torch.cat(frames[::-1] if backward else frames, dim=2))
        return torch.cat(done)

    @torch.no_grad()
    def super_resolve(self, video: torch.Tensor, captions: Sequence[str] | str | None = None, *, weight: float = DOWNSAMPLED_WEIGHT, seed: int = 0,
                      progress: bool = False, **sampling) -> torch.Tensor:
        """Sample clips (N, C, T, H, W) in [0, 1] that look like `video` (N, C, T, H/k, W/k) when k x k pixels are averaged, with no training for it: reconstruction guidance where what is known is
        a differentiable downsample of the clip (*Video Diffusion Models*, section 3.1). captions, weight and further keywords: see `inpaint`, `sample`.
        """
        _, _, height, width = self.sample_shape
        factor = height // video.shape[-2] if isinstance(video, torch.Tensor) and video.dim() == 5 and video.shape[-2] else 0
        video = self._checked(video, (height // factor, width // factor) if factor > 1 and height % factor == 0 == width % factor else (height // 2, width // 2))
        cond = self._conditions(captions, len(video))
        done = []
        for rows, advance in self._chunks(len(video), 1, sampling, progress):
            observed = (2 * video[rows] - 1).to(self.device)

            def guide(denoise: Denoiser, observed: torch.Tensor = observed) -> Denoiser:
                return reconstruction_denoiser(denoise, lambda x: F.avg_pool3d(x, (1, factor, factor)), observed, weight)

            done.append(self._denoised(rows, video.shape[2], cond, Sampling(**sampling), seed, advance, guide=guide))
        return torch.cat(done)

    def _chunks(self, num: int, blocks: int, sampling: dict, progress: bool) -> Iterator[tuple[slice, Callable[[], object]]]:
        """Which of `num` samples go through the network together, and what to call at each step of one progress bar over all `blocks` of all."""
        chunk = CPU_CHUNK.get(self.kind, 8) if self.device.type == "cpu" else GPU_CHUNK
        starts = range(0, num, chunk)
        steps = sampling.get("steps") or self.recipe.sampling_steps
        with tqdm(total=len(starts) * blocks * steps, desc="sampling", disable=not progress, leave=False) as bar:
            for start in starts:
                yield slice(start, min(start + chunk, num)), bar.update

    def _denoised(self, rows: slice, frames: int, cond: torch.Tensor | None, how: Sampling, seed: int, advance: Callable[[], object], block: tuple[int, ...] = (),
                  known: Known | None = None, guide: Callable[[Denoiser], Denoiser] | None = None) -> torch.Tensor:
        """Samples number rows.start to rows.stop, from noise of (seed, number, block) to data in [0, 1], on the CPU."""
        generators = [generator(seed, i, 3, *block) for i in range(rows.start, rows.stop)]
        z = randn_per_sample((self.sample_shape[0], frames, *self.sample_shape[2:]), generators).to(self.device)
        scale = self.recipe.guidance_scale if how.guidance_scale is None else how.guidance_scale
        denoise = guided_denoiser(self._run, None if cond is None else cond[rows], scale, self.prediction, how.guidance_rescale)
        schedule = self.recipe.schedule
        log_snrs = schedule.log_snr(schedule.times(how.steps or self.recipe.sampling_steps))
        for state in sample_loop(denoise if guide is None else guide(denoise), z, log_snrs, generators, how.sampler or self.recipe.sampler,
                                 how.eta, how.gamma, how.langevin, known=known):
            advance()
            if how.watch is not None:
                how.watch(state)
        return ((state.z.clamp(-1, 1) + 1) / 2).float().cpu()

    def _completed(self, video: torch.Tensor, mask: torch.Tensor, rows: slice, cond: torch.Tensor | None, weight: float, how: Sampling, seed: tuple[int, ...],
                   advance: Callable[[], object]) -> torch.Tensor:
        """video (B, C, T, H, W) in [0, 1], samples number rows.start to rows.stop, with what mask (B, 1, T, H, W) does not give sampled anew; seed: and the block."""
        x, given = (2 * video - 1).to(self.device), mask.to(self.device)
        known = Known(x, given, [generator(seed[0], i, 5, *seed[1:]) for i in range(rows.start, rows.stop)])

        def guide(denoise: Denoiser) -> Denoiser:
            return reconstruction_denoiser(denoise, lambda x_hat: torch.where(given, x_hat, 0), torch.where(given, x, 0), weight, ~given)

        clip = self._denoised(rows, video.shape[2], cond, how, seed[0], advance, seed[1:], known, guide if weight and given.any() else None)
        return torch.where(mask, video, clip)

    def _conditions(self, captions: Sequence[str] | str | None, num: int) -> torch.Tensor | None:
        if captions is None:
            return None
        captions = [captions] * num if isinstance(captions, str) else list(captions)
        if len(captions) != num:
            raise ValueError(f"{num} clips, but {len(captions)} captions.")
        return self.encode(captions)

    def _checked(self, video: torch.Tensor, size: tuple[int, int] | None = None) -> torch.Tensor:
        """A clip or more as float32 on the CPU; ValueError for a model of images, another shape or values out of range."""
        if self.kind == "image":
            raise ValueError(f"{self.name} makes images: for clips take a video model.")
        channels, (height, width) = self.sample_shape[0], size or self.sample_shape[2:]
        if not isinstance(video, torch.Tensor) or video.dim() != 5 or video.shape[1] != channels or video.shape[3:] != (height, width) or not video.numel():
            raise ValueError(f"Expected clips as a tensor of shape (N, {channels}, T, {height}, {width}); got "
                             f"{tuple(video.shape) if isinstance(video, torch.Tensor) else type(video).__name__}.")
        video = video.detach().float().cpu()
        if not (video.min() >= 0 and video.max() <= 1):
            raise ValueError(f"Clips are in [0, 1]; got values from {video.min():.3g} to {video.max():.3g}. A dataset's video is in [-1, 1]: pass (video + 1) / 2.")
        return video

    @staticmethod
    def _weight(method: str, weight: float) -> float:
        if method not in METHODS:
            raise ValueError(f"method must be one of {', '.join(METHODS)}, not {method!r}.")
        if not weight >= 0:
            raise ValueError(f"weight must be at least 0, not {weight}.")
        return weight if method == "reconstruction" else 0.0

    def _run(self, z: torch.Tensor, log_snr: torch.Tensor, cond: torch.Tensor | None) -> torch.Tensor:
        with autocast(self.device, self.dtype):
            return self.net(z, log_snr, cond).float()
