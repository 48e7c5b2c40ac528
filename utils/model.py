"""A trained model as its user sees it: `load_pretrained("vdm-text").sample(["3 and 7"])`, and what it can do with existing clips.

All inputs and outputs are in [0, 1]; only `net` and `predict_x` use [-1, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from tqdm import tqdm

from .captions import Caption, digits_of, rivals, tokenize
from .diffusion import augment, q_sample, to_x
from .keyframes import join, windows
from .recipes import Recipe
from .runtime import amp_dtype, autocast, generator, pick_device, progress_file, randn_per_sample
from .samplers import Denoiser, Known, RivalDenoiser, SampleState, guided_denoiser, reconstruction_denoiser, sample_loop, temporally_guided
from .unet import UNet

CPU_CHUNK = {"image": 64, "upsample": 16}  # samples (for upsample: frames) in one network call, else 8; more is slower on a CPU
GPU_CHUNK = {"upsample": 512}  # else 64
METHODS = ("reconstruction", "replacement", "trained")
MAX_AUGMENTATION = 0.5  # of the clips to be made sharper, in training
AUGMENTATION = 0.1  # the same in sampling, by default
WEIGHT = 5.0  # of reconstruction guidance, by default
DOWNSAMPLED_WEIGHT = 10.0  # the same where only averaged pixels are known


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
    guidance_interval: tuple[float, float] | None = None
    rival_scale: float = 0.0
    follow_rivals: bool = True
    temporal_scale: float = 1.0
    fps: float | None = None
    watch: Callable[[SampleState], object] | None = None

    def __post_init__(self) -> None:
        if self.steps is not None and self.steps < 1:
            raise ValueError(f"steps must be at least 1, not {self.steps}.")
        if self.fps is not None and not self.fps > 0:
            raise ValueError(f"fps is a number of frames a second, above 0; got {self.fps}.")
        if self.guidance_interval is not None and not self.guidance_interval[0] < self.guidance_interval[1]:
            raise ValueError(f"guidance_interval is the lowest log-SNR that is guided and, above it, where guidance ends; got {self.guidance_interval}.")
        if self.rival_scale < 0 or self.rival_scale and (self.langevin or self.guidance_rescale or self.guidance_interval):
            raise ValueError(f"rival_scale is at least 0, and above it goes neither with a Langevin corrector nor with guidance_rescale or guidance_interval; got {self.rival_scale}.")
        if self.temporal_scale < 0:
            raise ValueError(f"temporal_scale is at least 0, and 1 without temporal guidance; got {self.temporal_scale}.")


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

    @property
    def trained_steps(self) -> int:
        """Training steps behind the weights: of their own run and of the runs of the same recipe that it continued; 0 when nothing is known."""
        run, steps = self.provenance, 0
        while run is not None and run.get("recipe") == self.name:
            steps, run = steps + run["steps"], run.get("initial")
        return steps

    def log_snr(self, t: torch.Tensor | float) -> torch.Tensor:
        """t in [0, 1] -> log-SNR, float64, same shape."""
        return self.recipe.schedule.log_snr(t)

    def encode(self, captions: Sequence[str] | str | None = None, labels: torch.Tensor | None = None,
               num: int | None = None) -> torch.Tensor:
        """N captions, or labels (N, digits) or (N,) for one digit each, to the condition (N, embed_dim). Neither: the null condition, num rows of zeros.

        Raises CaptionError for a caption outside the grammar, ValueError when the model takes no captions.
        """
        captions = _said(captions, labels)
        if captions is None:
            return torch.zeros(1 if num is None else num, self.recipe.net.embed_dim, device=self.device)
        if self.recipe.captions is None:
            raise ValueError(f"{self.name} was trained without captions: leave captions and labels out.")
        captions = [captions] if isinstance(captions, str) else list(captions)
        return self.net.encode(tokenize(captions).to(self.device))

    def predict_x(self, z: torch.Tensor, log_snr: torch.Tensor, cond: torch.Tensor | None = None, **inputs) -> torch.Tensor:
        """The network's estimate of the data, unclipped: z (B, C, T, H, W), log_snr (B,) -> the shape of z. inputs: further network inputs (`UNet.forward`)."""
        return to_x(self.net(z, log_snr, cond, **inputs), z, log_snr, self.prediction)

    @torch.no_grad()
    def sample(self, captions: Sequence[str] | str | None = None, *, num: int | None = None, labels: torch.Tensor | None = None,
               num_frames: int | None = None, seed: int = 0, progress: bool | tqdm = False, **sampling) -> torch.Tensor:
        """Generate (N, C, T, H, W) float32 in [0, 1] on the CPU.

        captions (N strings, or one for all `num`) or labels (N, digits) say what to show; without them the null condition is sampled.
        num_frames: a length other than the training clips'. The noise of sample i depends only on (seed, i): the same on every device and for every
        `num`. Further keywords: steps, sampler ("ddim", "ancestral", "dpm++"), guidance_scale (g: 1 = as trained, more = closer to the
        caption, less varied) and fps (frames a second, for models that take it), by default the recipe's; eta, gamma, langevin (see `sample_loop`); guidance_rescale, guidance_interval (see `guided_denoiser`); rival_scale, how strongly to
        keep away from clips that show one of a caption's two digits two times, and follow_rivals (`RivalDenoiser`; about twice as long); temporal_scale, how closely frames belong together, 1 being as trained
        (`temporally_guided`; models of clips; about twice as long); watch, a function called with the SampleState of every step. rival_scale and temporal_scale, too, are by default the recipe's (see `sampled_with`) where a clip is sampled from
        nothing; `vary`, `inpaint` and the others, which are given a part, do without unless told.
        """
        if self.kind == "upsample":
            raise ValueError(f"{self.name} makes clips sharper: call upsample(video).")
        if isinstance(captions, str):
            captions = [captions] * (num or 1)
        captions = _said(captions, labels)
        num = (1 if num is None else num) if captions is None else len(captions) if num is None else num
        if num < 1 or captions is not None and len(captions) != num:
            raise ValueError(f"num is {num}, but there are {len(captions)} captions or labels." if captions is not None
                             else f"num must be at least 1, not {num}.")
        frames = self.sample_shape[1] if num_frames is None else num_frames
        if frames < 1 or self.kind == "image" and frames != 1:
            raise ValueError(f"num_frames must be at least 1, and 1 for an image model; got {frames}.")
        sampling |= self.sampled_with(sampling, captions is not None)
        cond = self._conditions(captions, num, sampling)
        denoised = [self._denoised(_samples(rows), frames, _rows(cond, rows), Sampling(**sampling), seed, advance) for rows, advance in self._chunks(num, 1, sampling, progress)]
        return torch.cat(denoised)

    @torch.no_grad()
    def vary(self, video: torch.Tensor, log_snr: float, captions: Sequence[str] | str | None = None, *, seed: int = 0, progress: bool | tqdm = False, **sampling) -> torch.Tensor:
        """Other clips, or images, that the same noisy data may hide: `video` (N, C, T, H, W) in [0, 1] is noised to `log_snr` and sampled from there (SDEdit, arXiv 2108.01073). Same shape as video.

        The lower log_snr, the less is kept: at -20, nothing. What a model gets wrong when given real clips at one noise level, and right at a higher log-SNR, is decided between the two. steps: of the whole
        schedule, of which only the remaining part is run. captions (N, or one for all) and further keywords: see `sample`. ValueError for clips and levels that do not fit.
        """
        low, high = (float(self.recipe.schedule.log_snr(t)) for t in (1.0, 0.0))
        if not low - 1e-6 <= log_snr < high:  # a schedule's end is -20 up to rounding
            raise ValueError(f"log_snr must be from {low:g}, noise, to below {high:g}, data, as in the schedule of {self.name}; got {log_snr:g}.")
        video, log_snr = self._checked(video, images=True), max(low, log_snr)
        cond = self._conditions(captions, len(video), sampling)
        done = [self._denoised(_samples(rows), video.shape[2], _rows(cond, rows), Sampling(**sampling), seed, advance, begun=(2 * video[rows] - 1, log_snr))
                for rows, advance in self._chunks(len(video), 1, sampling, progress)]
        return torch.cat(done)

    @torch.no_grad()
    def inpaint(self, video: torch.Tensor, mask: torch.Tensor, captions: Sequence[str] | str | None = None, *, method: str | None = None,
                weight: float = WEIGHT, seed: int = 0, progress: bool | tqdm = False, **sampling) -> torch.Tensor:
        """Sample what is missing in clips: the frames or pixels where mask is 0. (N, C, T, H, W) in [0, 1] -> the same, unchanged where mask is 1.

        mask: bool, or 0 and 1, in a shape that broadcasts to (N, 1, T, H, W): 1 = given. captions: N, or one for all. method: "reconstruction", guidance by the gradient of
        the error at what is given, with this weight (w_r; `reconstruction_denoiser`); "replacement", which is weight 0: what is given is only put in, freshly noised, at every step
        (*Video Diffusion Models*, section 3.1); or "trained": a model of kind "interpolate" takes what is given, if whole frames, as input, as in training (*Make-A-Video*, section 3.3). Default: "trained" for such
        a model, else "reconstruction". A mask of zeros samples as `sample` does with the same seed, rival_scale and temporal_scale. Guidance takes about twice as long as replacement: it also runs the network backwards.
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
        cond, weight = self._conditions(captions, len(video), sampling), self._weight(method, weight)
        if weight is None and not (mask.amin((3, 4)) == mask.amax((3, 4))).all():
            raise ValueError(f"{self.name} was trained with whole frames given: for a mask over pixels use method='reconstruction'.")
        done = [self._completed(video[rows], mask[rows], _samples(rows), _rows(cond, rows), weight, Sampling(**sampling), seed, advance)
                for rows, advance in self._chunks(len(video), 1, sampling, progress)]
        return torch.cat(done)

    @torch.no_grad()
    def extend(self, video: torch.Tensor, num_frames: int, captions: Sequence[str] | str | None = None, *, overlap: int = 8, backward: bool = False,
               method: str | None = None, weight: float = WEIGHT, seed: int = 0, progress: bool | tqdm = False, **sampling) -> torch.Tensor:
        """Extend clips (N, C, T, H, W) in [0, 1], T at least 1, to num_frames frames, the given ones included and unchanged: (N, C, num_frames, H, W).

        Block by block, the model is given the last `overlap` frames so far (or all, if fewer) and completes them to a clip of its own length, as `inpaint`
        does; memory apart from the result does not grow with the length. A single frame is set in motion. backward: make the frames before. Of captions (N, or one for all) only digits count,
        as directions describe a clip's first frame. method, weight and further keywords: see `inpaint`, `sample`. ValueError for what does not fit.
        """
        video, size = self._checked(video), self.sample_shape[1]
        n, given = len(video), video.shape[2]
        if num_frames < given:
            raise ValueError(f"num_frames is the length of the result, at least the {given} frames that are given; got {num_frames}.")
        if not 1 <= overlap < size:
            raise ValueError(f"overlap must be from 1 to {size - 1}, as {self.name} makes {size} frames at a time; got {overlap}.")
        if captions is not None:
            captions = digits_of([captions] * n if isinstance(captions, str) else captions)
        cond, weight = self._conditions(captions, n, sampling), self._weight(method, weight)
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
                clip = self._completed(clip, mask.expand(len(clip), 1, *clip.shape[2:]), _samples(rows, block), _rows(cond, rows), weight, Sampling(**sampling), seed, advance)
                new = clip[:, :, :size - known] if backward else clip[:, :, known:]
                wanted = min(new.shape[2], num_frames - length)
                frames.append(new[:, :, new.shape[2] - wanted:] if backward else new[:, :, :wanted])
                length += wanted
                context = clip[:, :, :overlap] if backward else clip[:, :, -overlap:]
            done.append(torch.cat(frames[::-1] if backward else frames, dim=2))
        return torch.cat(done)

    @torch.no_grad()
    def super_resolve(self, video: torch.Tensor, captions: Sequence[str] | str | None = None, *, weight: float = DOWNSAMPLED_WEIGHT, seed: int = 0,
                      progress: bool | tqdm = False, **sampling) -> torch.Tensor:
        """Sample clips (N, C, T, H, W) in [0, 1] that look like `video` (N, C, T, H/k, W/k) when k x k pixels are averaged, without training for it: reconstruction guidance where what is known is
        the clip downsampled, differentiably (*Video Diffusion Models*, section 3.1). captions, weight and further keywords: see `inpaint`, `sample`; ValueError likewise.
        """
        weight = _not_negative(weight)
        _, _, height, width = self.sample_shape
        factor = height // video.shape[-2] if isinstance(video, torch.Tensor) and video.dim() == 5 and video.shape[-2] else 0
        video = self._checked(video, (height // factor, width // factor) if factor > 1 and height % factor == 0 == width % factor else (height // 2, width // 2))
        cond = self._conditions(captions, len(video), sampling)
        done = []
        for rows, advance in self._chunks(len(video), 1, sampling, progress):
            observed = (2 * video[rows] - 1).to(self.device)

            def guide(denoise: Denoiser, observed: torch.Tensor = observed) -> Denoiser:
                return reconstruction_denoiser(denoise, lambda x: F.avg_pool3d(x, (1, factor, factor)), observed, weight)

            done.append(self._denoised(_samples(rows), video.shape[2], _rows(cond, rows), Sampling(**sampling), seed, advance, guide=guide))
        return torch.cat(done)

    @torch.no_grad()
    def interpolate(self, keyframes: torch.Tensor, *, skip: int = 5, captions: Sequence[str] | str | None = None, seed: int = 0, progress: bool | tqdm = False,
                    **sampling) -> torch.Tensor:
        """Fill in frames between keyframes (N, C, K, H, W) in [0, 1], `skip` apart and unchanged in the result (N, C, skip * (K - 1) + 1, H, W)
        (*Make-A-Video*, section 3.3): in windows of the model's length with shared ends, so that 16 keyframes at skip 5 become 76 frames.

        fps, by default the recipe's: frames a second of the result. Other keywords: see `sample`; captions do little: none were used in training. ValueError for a model
        of another kind, and for numbers that do not fit.
        """
        if self.kind != "interpolate":
            raise ValueError(f"{self.name} was not trained to interpolate: load 'mav-interpolate', or use inpaint.")
        keyframes = self._checked(keyframes)
        clips, given = windows(keyframes, skip, self.sample_shape[1])
        n, count = clips.shape[:2]
        cond, flat = self._conditions(captions, n, sampling), clips.flatten(0, 1)
        mask = given[:, None, None].expand(len(flat), 1, *flat.shape[2:])
        done = [self._completed(flat[rows], mask[rows], [(i // count, i % count) for i, in _samples(rows)], _rows(None if cond is None else cond.repeat_interleave(count, dim=0), rows), None,
                                Sampling(**sampling), seed, advance)
                for rows, advance in self._chunks(len(flat), 1, sampling, progress)]
        return join(torch.cat(done).unflatten(0, (n, count)))

    @torch.no_grad()
    def upsample(self, video: torch.Tensor, *, captions: Sequence[str] | str | None = None, share_noise: bool = True, augmentation: float = AUGMENTATION, seed: int = 0,
                 progress: bool | tqdm = False, **sampling) -> torch.Tensor:
        """Clips (N, C, T, H, W) in [0, 1] at twice the height and width, frame by frame (*Make-A-Video*, section 3.2).

        share_noise: all frames of a clip start from the same noise, and get the same noise in each step, so that what does not move does not flicker; without it, the noise of frames from the seventeenth on depends on how many
        fit on the device at once. augmentation: standard
        deviation, from 0 to 0.5, of noise added to `video` (in [-1, 1]), so that flaws of generated clips are not mistaken for detail. Of captions (N, or one for all) only the digits count.
        Other keywords: see `sample`. ValueError for a model of another kind, and for what does not fit.
        """
        if self.kind != "upsample":
            raise ValueError(f"{self.name} was not trained to make clips sharper: load 'mav-upsample', or use super_resolve.")
        if not 0 <= augmentation <= MAX_AUGMENTATION:
            raise ValueError(f"augmentation must be from 0 to {MAX_AUGMENTATION}, not {augmentation}.")
        video = self._checked(video, (self.sample_shape[2] // 2, self.sample_shape[3] // 2))
        n, frames = len(video), video.shape[2]
        if captions is not None:
            captions = digits_of([captions] * n if isinstance(captions, str) else captions)
        cond, size = self._conditions(captions, n, sampling), self._chunk()
        done = []
        with self._bar(n * -(-frames // size), sampling, progress) as bar:
            for i in range(n):
                parts = []
                for first in range(0, frames, size):
                    part, sample = 2 * video[i:i + 1, :, first:first + size] - 1, (i,) if share_noise else (i, first)
                    noise = randn_per_sample(part.shape[1:2] + ((1,) if share_noise else part.shape[2:3]) + part.shape[3:], [generator(seed, i, 6, *sample[1:])])
                    level = torch.full((1,), float(augmentation))
                    inputs = {"low_res": augment(part, level, noise).to(self.device), "augmentation": level.to(self.device)}
                    parts.append(self._denoised([sample], part.shape[2], _rows(cond, slice(i, i + 1)), Sampling(**sampling), seed, bar.update, inputs=inputs, share_noise=share_noise))
                done.append(torch.cat(parts, dim=2))
        return torch.cat(done)

    def sampled_with(self, sampling: dict, from_captions: bool) -> dict[str, str | int | float]:
        """With what steps, sampler, guidance_scale, rival_scale and temporal_scale `sample` works, given its keywords `sampling` and captions or none: what they do not say, the recipe does; but its
        rival_scale holds only for guided clips (guidance_scale above 1) and ancestral sampling, without Langevin corrector, guidance_rescale and guidance_interval, and its temporal_scale only if single images were learnt."""
        r = self.recipe
        knows_images = r.num_images or r.frozen is not None
        defaults = {"steps": r.sampling_steps, "sampler": r.sampler, "guidance_scale": r.guidance_scale, "rival_scale": r.rival_scale, "temporal_scale": r.temporal_scale if knows_images else 1.0}
        found = {name: default if sampling.get(name) is None else sampling[name] for name, default in defaults.items()}
        with_rivals = from_captions and found["guidance_scale"] > 1 and found["sampler"] == "ancestral" and not any(sampling.get(key) for key in ("langevin", "guidance_rescale", "guidance_interval"))
        return found if with_rivals or sampling.get("rival_scale") is not None else {**found, "rival_scale": 0.0}

    def network_steps(self, num: int, steps: int | None = None, frames: int | None = None) -> int:
        """How many denoising steps, each of one batch, `num` samples take (for "upsample": clips of `frames` frames, else ValueError); progress bars count these."""
        if self.kind == "upsample" and frames is None:
            raise ValueError(f"{self.name} goes frame by frame: say how many frames a clip has.")
        steps, size = steps or self.recipe.sampling_steps, self._chunk()
        return steps * (num * -(-frames // size) if self.kind == "upsample" else -(-num // size))

    def _chunk(self) -> int:
        return CPU_CHUNK.get(self.kind, 8) if self.device.type == "cpu" else GPU_CHUNK.get(self.kind, 64)

    @contextmanager
    def _bar(self, batches: int, sampling: dict, progress: bool | tqdm) -> Iterator[tqdm]:
        """A progress bar over the steps of `batches` batches, or the caller's own."""
        if isinstance(progress, tqdm):
            yield progress
        else:
            with tqdm(total=batches * (sampling.get("steps") or self.recipe.sampling_steps), desc="sampling", disable=not progress, leave=False, file=progress_file()) as bar:
                yield bar

    def _chunks(self, num: int, blocks: int, sampling: dict, progress: bool | tqdm) -> Iterator[tuple[slice, Callable[[], object]]]:
        """Slices of `num` samples to run together, and what to call at each step; one progress bar covers all `blocks` of all samples."""
        size = self._chunk()
        with self._bar(-(-num // size) * blocks, sampling, progress) as bar:
            for start in range(0, num, size):
                yield slice(start, min(start + size, num)), bar.update

    def _denoised(self, samples: Sequence[tuple[int, ...]], frames: int, cond: torch.Tensor | None, how: Sampling, seed: int, advance: Callable[[], object],
                  known: Known | None = None, guide: Callable[[Denoiser], Denoiser] | None = None, inputs: dict[str, torch.Tensor] | None = None,
                  share_noise: bool = False, begun: tuple[torch.Tensor, float] | None = None) -> torch.Tensor:
        """Denoise samples to data in [0, 1], on the CPU. samples: the number of each, and which part of it this is: with the seed they determine its noise; inputs: of the network;
        begun: data in [-1, 1] in the shape of the samples, and the log-SNR to which it is first noised."""
        generators = [generator(seed, number, 3, *part) for number, *part in samples]
        channels, _, height, width = self.sample_shape
        z = randn_per_sample((channels, 1 if share_noise else frames, height, width), generators).to(self.device).expand(-1, -1, frames, -1, -1)
        scale = self.recipe.guidance_scale if how.guidance_scale is None else how.guidance_scale
        inputs = {**(inputs or {}), **self.frame_rate(how.fps, len(z))}
        if how.temporal_scale != 1 and self.kind != "video":
            raise ValueError(f"temporal_scale is for models that make clips from nothing, and {self.name} does not.")
        run = partial(self._run if how.temporal_scale == 1 else temporally_guided(self._run, how.temporal_scale), **inputs)
        if how.rival_scale:
            if (how.sampler or self.recipe.sampler) != "ancestral" or cond is None or cond.dim() != 3:
                raise ValueError("rival_scale is for ancestral sampling from captions.")
            denoise = RivalDenoiser(run, cond[:, 0], cond[:, 1:], scale, how.rival_scale, self.prediction, how.gamma, how.follow_rivals)
        else:
            denoise = guided_denoiser(run, cond, scale, self.prediction, how.guidance_rescale, how.guidance_interval)
        schedule = self.recipe.schedule
        log_snrs = schedule.log_snr(schedule.times(how.steps or self.recipe.sampling_steps))
        if begun is not None:
            log_snrs = torch.cat([torch.tensor([begun[1]], dtype=log_snrs.dtype), log_snrs[log_snrs > begun[1]]])
            z = q_sample(begun[0].to(self.device), log_snrs[:1].float().expand(len(z)).to(self.device), z)
        for state in sample_loop(denoise if guide is None else guide(denoise), z, log_snrs, generators, how.sampler or self.recipe.sampler,
                                 how.eta, how.gamma, how.langevin, known=known, share_noise=share_noise):
            advance()
            if how.watch is not None:
                how.watch(state)
        return ((state.z.clamp(-1, 1) + 1) / 2).float().cpu()

    def _completed(self, video: torch.Tensor, mask: torch.Tensor, samples: Sequence[tuple[int, ...]], cond: torch.Tensor | None, weight: float | None, how: Sampling, seed: int,
                   advance: Callable[[], object]) -> torch.Tensor:
        """video (B, C, T, H, W) in [0, 1] with what mask (B, 1, T, H, W) leaves out sampled anew; samples: see `_denoised`; weight None: what is given is an input."""
        x, given = (2 * video - 1).to(self.device), mask.to(self.device)
        if weight is None:
            clip = self._denoised(samples, video.shape[2], cond, how, seed, advance, inputs={"mask": given.float(), "given": x})
            return torch.where(mask, video, clip)
        known = Known(x, given, [generator(seed, number, 5, *part) for number, *part in samples])

        def guide(denoise: Denoiser) -> Denoiser:
            return reconstruction_denoiser(denoise, lambda x_hat: torch.where(given, x_hat, 0), torch.where(given, x, 0), weight, ~given)

        clip = self._denoised(samples, video.shape[2], cond, how, seed, advance, known, guide if weight and given.any() else None)
        return torch.where(mask, video, clip)

    def frame_rate(self, fps: float | None, num: int) -> dict[str, torch.Tensor]:
        """The network's fps input (num,), by default the recipe's; empty for a network that takes none. ValueError for fps that it cannot take."""
        if self.recipe.fps is None:
            if fps is not None:
                raise ValueError(f"{self.name} was trained at one frame rate: leave fps out.")
            return {}
        return {"fps": torch.full((num,), float(fps or self.recipe.fps), device=self.device)}

    def _conditions(self, captions: Sequence[str] | str | None, num: int, sampling: dict) -> torch.Tensor | None:
        """(N, embed_dim) for the captions, or where `sampling` asks for rivals (N, 1 + R, embed_dim) with theirs."""
        if captions is None:
            return None
        captions = [captions] * num if isinstance(captions, str) else list(captions)
        if len(captions) != num:
            raise ValueError(f"{num} clips, but {len(captions)} captions.")
        if not sampling.get("rival_scale"):
            return self.encode(captions)
        return self.encode([caption for text in captions for caption in (text, *rivals(text))]).unflatten(0, (num, -1))

    def _checked(self, video: torch.Tensor, size: tuple[int, int] | None = None, images: bool = False) -> torch.Tensor:
        """Clips, or images where allowed, as float32 on the CPU; ValueError for an image model where not allowed, another shape, or values out of range."""
        if self.kind == "image" and not images or self.kind == "upsample" and size is None:
            raise ValueError(f"{self.name} makes {'images' if self.kind == 'image' else 'clips sharper'}: for this take a video model.")
        channels, (height, width) = self.sample_shape[0], size or self.sample_shape[2:]
        if not isinstance(video, torch.Tensor) or video.dim() != 5 or video.shape[1] != channels or video.shape[3:] != (height, width) or not video.numel():
            raise ValueError(f"Expected clips as a tensor of shape (N, {channels}, T, {height}, {width}); got "
                             f"{tuple(video.shape) if isinstance(video, torch.Tensor) else type(video).__name__}.")
        video = video.detach().float().cpu()
        if not (video.min() >= 0 and video.max() <= 1):
            raise ValueError(f"Clips are in [0, 1]; got values from {video.min():.3g} to {video.max():.3g}. A dataset's video is in [-1, 1]: pass (video + 1) / 2.")
        return video

    def _weight(self, method: str | None, weight: float) -> float | None:
        """The weight of reconstruction guidance, 0 for replacement, None if the given frames are network inputs."""
        if method is None:
            method = "trained" if self.kind == "interpolate" else "reconstruction"
        if method not in METHODS:
            raise ValueError(f"method must be one of {', '.join(METHODS)}, not {method!r}.")
        if method == "trained":
            if self.kind != "interpolate":
                raise ValueError(f"{self.name} was not trained to be told what is given: use method 'reconstruction', or load 'mav-interpolate'.")
            return None
        return _not_negative(weight) if method == "reconstruction" else 0.0

    def _run(self, z: torch.Tensor, log_snr: torch.Tensor, cond: torch.Tensor | None, **inputs: torch.Tensor) -> torch.Tensor:
        twice = {name: torch.cat([tensor] * (len(z) // len(tensor))) for name, tensor in inputs.items()}  # with guidance z holds every clip twice, or more often
        with autocast(self.device, self.dtype):
            return self.net(z, log_snr, cond, **twice).float()


def _not_negative(weight: float) -> float:
    if not weight >= 0:
        raise ValueError(f"weight must be at least 0, not {weight}.")
    return weight


def _said(captions: Sequence[str] | str | None, labels: torch.Tensor | None) -> Sequence[str] | str | None:
    """The captions, or those that labels (N, digits) or (N,) stand for; ValueError for both."""
    if captions is not None and labels is not None:
        raise ValueError("Pass captions or labels, not both.")
    if labels is None:
        return captions
    labels = torch.as_tensor(labels)
    return [str(Caption(tuple(row))) for row in (labels[:, None] if labels.dim() == 1 else labels).tolist()]


def _rows(cond: torch.Tensor | None, rows: slice) -> torch.Tensor | None:
    return None if cond is None else cond[rows]


def _samples(rows: slice, *part: int) -> list[tuple[int, ...]]:
    return [(i, *part) for i in range(rows.start, rows.stop)]
