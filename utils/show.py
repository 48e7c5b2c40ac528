"""Pictures of images and clips: grids, film strips, x-t slices, GIF players, the live training board, a caption box.

Clips are (N, 1, T, H, W) in [0, 1]. matplotlib is imported where it is used, IPython and ipywidgets only where a notebook is
needed, so the rest of `utils` works without them.
"""

from __future__ import annotations

import base64
import html
import json
import textwrap
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from einops import rearrange
from tqdm import tqdm

from .captions import DIRECTIONS
from .recipes import RECIPES
from .runtime import ASSETS, device_name, outputs, progress_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .model import Model
    from .train import Trainer
    from .unet import UNet

_ARROWS = dict(zip(DIRECTIONS, "→↗↑↖←↙↓↘"))
BLUE, ORANGE, GREY = "#2a78b8", "#d5731f", "#8a8a8a"  # told apart without colour vision; lines differ in style too
SMALL, TITLE = 10, 12  # size of labels and titles, in points: legible on a phone


def _clips(clips: torch.Tensor) -> torch.Tensor:
    """(N, 1, T, H, W) or (1, T, H, W) in [0, 1] to (N, 1, T, H, W), or ValueError."""
    clips = clips.detach().float().cpu()
    clips = clips[None] if clips.dim() == 4 else clips
    if clips.dim() != 5 or clips.shape[1] != 1:
        raise ValueError(f"Expected clips of shape (N, 1, T, H, W); got {tuple(clips.shape)}.")
    if clips.min() < -0.01 or clips.max() > 1.01:
        raise ValueError(f"Expected values in [0, 1]; got {clips.min():.2f} to {clips.max():.2f}. For a dataset's video pass (video + 1) / 2.")
    return clips.clamp(0, 1)


def _picture(ax, picture: np.ndarray) -> None:
    ax.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    ax.set_xticks([])
    ax.set_yticks([])


def _label(ax, text: str) -> None:
    ax.set_ylabel(text, rotation=0, ha="right", va="center", fontsize=SMALL)


def _two_lines(text: str) -> str:
    """A long caption on two lines, one for each digit."""
    return text.replace(" and ", " and\n") if len(text) > 16 else text


def image_grid(images: torch.Tensor, columns: int = 10, titles: Sequence[str] | None = None, title: str = "") -> Figure:
    """Images (N, 1, 1, H, W) in [0, 1] as a figure of rows of `columns`."""
    import matplotlib.pyplot as plt

    pictures = _clips(images)[:, 0, 0].numpy()
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    titles = titles and [textwrap.fill(text, 13) for text in titles]
    lines = max((text.count("\n") + 1 for text in titles), default=0) if titles else 0
    figure, axes = plt.subplots(rows, columns, figsize=(0.85 * columns, 0.85 * rows + (0.35 if title else 0) + (0.2 + 0.14 * (lines - 1) if titles else 0) * rows), squeeze=False,
                                layout="constrained")
    for i, ax in enumerate(axes.flat):
        if i < len(pictures):
            _picture(ax, pictures[i])
            ax.set_title(titles[i] if titles else "", fontsize=8, pad=2)
        else:
            ax.axis("off")
    figure.suptitle(title or None, fontsize=TITLE)
    plt.close(figure)
    return figure


def image_rows(rows: dict[str, torch.Tensor], columns: Sequence[str] | None = None, title: str = "", cell: float = 0.85) -> Figure:
    """Named rows of images (N, 1, 1, H, W) in [0, 1], each `cell` inches wide, one below another; `columns` names the N images of a row."""
    import matplotlib.pyplot as plt

    pictures = torch.stack([_clips(images)[:, 0, 0] for images in rows.values()]).numpy()
    count, width = pictures.shape[:2]
    figure, axes = plt.subplots(count, width, figsize=(cell * width + 1.5, cell * count + (0.35 if title else 0) + (0.2 if columns else 0)), squeeze=False,
                                layout="constrained")
    for i, name in enumerate(rows):
        for k in range(width):
            _picture(axes[i, k], pictures[i, k])
        _label(axes[i, 0], name)
    for ax, text in zip(axes[0], columns or ()):
        ax.set_title(text, fontsize=SMALL, pad=2)
    figure.suptitle(title or None, fontsize=TITLE)
    plt.close(figure)
    return figure


def film_strip(clips: torch.Tensor, captions: Sequence[str] | None = None, every: int = 1, title: str = "", xlabel: str = "",
               borders: Sequence[int] = (), under: Sequence[str] = ()) -> Figure:
    """Each clip (N, 1, T, H, W) as a row of frames, left to right in time; `xlabel` where the axis is not frames; a line before each frame in `borders`; a text `under` each frame of the last row."""
    import matplotlib.pyplot as plt

    clips = _clips(clips)[:, :, ::every]
    n, _, t, h, w = clips.shape
    strips = torch.ones(n, h, t * (w + 1) - 1)
    for k in range(t):
        strips[:, :, k * (w + 1):k * (w + 1) + w] = clips[:, 0, k]
    height = 0.62 if t > 7 else 1.1  # few frames: large enough to see single strokes
    figure, axes = plt.subplots(n, 1, figsize=(9, height * n + 0.6), squeeze=False, layout="constrained")
    for i, ax in enumerate(axes[:, 0]):
        _picture(ax, strips[i].numpy())
        _label(ax, _two_lines(captions[i]) if captions else "")
        for k in borders:
            ax.axvline(k / every * (w + 1) - 1, color=ORANGE, linewidth=2.5)
    axes[-1, 0].set_xticks([k * (w + 1) + w / 2 for k in range(len(under))], under, fontsize=SMALL)
    axes[-1, 0].tick_params(length=0)
    axes[-1, 0].set_xlabel(xlabel or f"frame 0 to {(t - 1) * every}" + (f", every {every}" if every > 1 else ""), fontsize=SMALL)
    figure.suptitle(title or None, fontsize=TITLE)
    plt.close(figure)
    return figure


def xt_slice(clips: torch.Tensor, captions: Sequence[str] | None = None, title: str = "", time_across: bool = False) -> Figure:
    """Each clip seen from above: the brightest pixel of every column (x, across) at every frame (t, downwards). A digit that moves
    evenly draws a straight line, a bounce makes a corner, a jump a gap. time_across: t to the right, x upwards, one clip a row, for long clips."""
    import matplotlib.pyplot as plt

    slices = _clips(clips).amax(dim=3)[:, 0]  # (N, T, W)
    columns = 1 if time_across else min(4, len(slices))
    rows = -(-len(slices) // columns)
    size = (9, 1.1 * rows + 0.5) if time_across else (2.1 * columns, 1.7 * rows + 0.3)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    for i, ax in enumerate(axes.flat):
        if i >= len(slices):
            ax.axis("off")
            continue
        _picture(ax, slices[i].T.flip(0).numpy() if time_across else slices[i].numpy())
        text = captions[i] if captions else ""
        if time_across:
            ax.set_aspect("auto")
            _label(ax, text.replace(": ", ":\n"))
        else:
            ax.set_title(_two_lines(text), fontsize=9, pad=2)
    if time_across:
        axes[-1, 0].set_xlabel(f"t: frame 0 to {slices.shape[1] - 1}; x upwards", fontsize=SMALL)
    else:
        axes[0, 0].set_ylabel("t (frames)", fontsize=SMALL)
        axes[0, 0].set_xlabel("x", fontsize=SMALL)
    figure.suptitle(title or None, fontsize=TITLE)
    plt.close(figure)
    return figure


def direction_tables(tables: dict[str, torch.Tensor]) -> Figure:
    """Tables of `metrics.direction_confusion`, side by side: the share of digits asked to set off in a direction (row) that sets off in each (column)."""
    import matplotlib.pyplot as plt

    names = [_ARROWS[name] for name in DIRECTIONS]
    figure, axes = plt.subplots(1, len(tables), figsize=(3.3 * len(tables), 3.5), squeeze=False, layout="constrained")
    for ax, (title, table) in zip(axes[0], tables.items()):
        counts = torch.as_tensor(table)
        shares = counts / counts.sum(1, keepdim=True).clamp(min=1)
        ax.imshow(shares.numpy(), vmin=0, vmax=1, cmap="Blues")
        for i, row in enumerate(shares.tolist()):
            for j, share in enumerate(row):
                if share >= 0.005:
                    ax.text(j, i, f"{100 * share:.0f}", ha="center", va="center", fontsize=8, color="white" if share > 0.5 else "black")
        ax.set_xticks(range(9), [*names, "still"], fontsize=9)
        ax.set_yticks(range(8), names, fontsize=SMALL)
        ax.set_title(f"{title}\n{int(counts.sum())} digits", fontsize=SMALL)
        ax.set_xlabel("sets off, % of the row", fontsize=SMALL)
    axes[0, 0].set_ylabel("asked for", fontsize=8)
    plt.close(figure)
    return figure


def network_diagram(net: UNet, sample_shape: tuple[int, int, int, int], title: str = "") -> Figure:
    """A U-Net as it runs on a sample (C, T, H, W): its stages from left to right, one row per resolution, with their output channels and what each is made of:
    R a residual block, S attention over space, T attention over time. Dashed: the skip connections. The shapes are those of an actual run, not of the configuration."""
    import matplotlib.pyplot as plt

    from .unet import Stage

    seen, hooks = [], []
    for module in net.modules():
        if isinstance(module, Stage):
            hooks.append(module.register_forward_hook(lambda stage, given, out: seen.append((stage, *out.shape[1:3]))))
    weight = next(net.parameters())
    with torch.no_grad():
        net(torch.zeros(1, *sample_shape, device=weight.device, dtype=weight.dtype), torch.zeros(1, device=weight.device, dtype=weight.dtype))
    for hook in hooks:
        hook.remove()
    heights = sorted({height for _, _, height in seen}, reverse=True)
    figure, ax = plt.subplots(figsize=(9, 0.8 * len(heights) + 0.8), layout="constrained")
    places = [(1.6 * k, -heights.index(height)) for k, (_, _, height) in enumerate(seen)]
    for (x, y), (stage, channels, _) in zip(places, seen):
        parts = [("R", BLUE)] + [("S", ORANGE)] * (stage.space is not None) + [("T", "black")] * (stage.time is not None)
        for k, (letter, colour) in enumerate(parts):
            ax.add_patch(plt.Rectangle((x + 0.36 * k, y - 0.2), 0.34, 0.4, color=colour))
            ax.text(x + 0.36 * k + 0.17, y, letter, color="white", ha="center", va="center", fontsize=9)
        ax.text(x + 0.18 * len(parts), y + 0.24, channels, ha="center", va="bottom", fontsize=9)
    ends = [(x, x + 0.36 * (1 + (stage.space is not None) + (stage.time is not None)), y) for (x, y), (stage, _, _) in zip(places, seen)]
    for (_, right, y), (left, _, below) in zip(ends, ends[1:]):
        ax.annotate("", (left - 0.03, below), (right, y), arrowprops={"arrowstyle": "->", "color": GREY})
    for k in range((len(ends) - 2) // 2):  # every stage on the way down has its partner on the way up; the two in the middle have none
        (start, right, y), (left, end, _) = ends[k], ends[-1 - k]
        between = sum(end[2] == y for end in ends[k + 1:-1 - k])
        xs, ys = ([right + 0.1, left - 0.1], [y, y]) if not between else ([(start + right) / 2] * 2 + [(left + end) / 2] * 2, [y - 0.2] + [y - 0.28 - 0.04 * between] * 2 + [y - 0.2])
        ax.plot(xs, ys, color=GREY, linestyle="--", linewidth=1)  # below the stages in between, if there are any
    ax.set_yticks([-row for row in range(len(heights))], [f"{height}×{height}" for height in heights], fontsize=SMALL)
    ax.set(xticks=[], xlim=(-0.4, ends[-1][1] + 0.4), ylim=(-len(heights) + 0.5, 0.7))
    ax.spines[:].set_visible(False)
    letters = ["R residual block"] + ["S attention over space"] * any(stage.space is not None for stage, *_ in seen) + ["T attention over time"] * any(stage.time is not None for stage, *_ in seen)
    ax.set_xlabel(f"{', '.join(letters)}; above: channels; dashed: shortcuts", fontsize=SMALL)
    figure.suptitle(title or None, fontsize=TITLE)
    plt.close(figure)
    return figure


def gif(clips: torch.Tensor, path: Path | None = None, columns: int = 4, scale: int = 3, fps: int = 8) -> bytes:
    """Clips (N, 1, T, H, W) side by side as an endlessly repeating GIF, enlarged `scale` times; written to `path` if given.

    Sixteen greys, so that a notebook full of clips stays small.
    """
    import imageio.v3 as iio

    clips = torch.nn.functional.pad(_clips(clips), (1, 1, 1, 1), value=0.35)
    columns = min(columns, len(clips))
    if len(clips) % columns:
        clips = torch.cat([clips, torch.full_like(clips[: columns - len(clips) % columns], 0.35)])
    sheet = rearrange(clips, "(r n) 1 t h w -> t (r h) (n w)", n=columns)
    sheet = (sheet * 15).round() * 17  # 0, 17, .. 255
    sheet = sheet.repeat_interleave(scale, 1).repeat_interleave(scale, 2)
    data = iio.imwrite("<bytes>", sheet.byte().numpy(), extension=".gif", plugin="pillow", duration=1000 / fps, loop=0)
    if path is not None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(data)
    return data


def play(clips: torch.Tensor, captions: Sequence[str] | None = None, columns: int = 4, scale: int = 3, fps: int = 8,
         path: Path | None = None):
    """Show clips (N, 1, T, H, W) moving, in a notebook; the GIF also goes to `path` if given. Captions are its alternative text."""
    from IPython.display import HTML

    data = base64.b64encode(gif(clips, path, columns, scale, fps)).decode()
    text = html.escape("; ".join(captions)) if captions else f"{len(_clips(clips))} moving clips"
    below = f'<div style="font-size:90%">{text}</div>' if captions else ""
    return HTML(f'<img alt="{text}" src="data:image/gif;base64,{data}">{below}')


def loss_figure(history: Sequence[float], band: Sequence[Sequence[float]] | None = None, samples: torch.Tensor | None = None,
                title: str = "", steps: int | None = None) -> Figure:
    """The training board: loss so far over the band of an earlier run ([step, mean, low, high] rows), samples on the right.

    Images are shown as a grid, clips as film strips of every fifth frame.
    """
    import matplotlib.pyplot as plt

    from matplotlib.ticker import LogLocator, NullFormatter

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), width_ratios=(1, 1))
    if band:
        step, mean, low, high = np.array(band).T
        left.fill_between(step, low, high, color=GREY, alpha=0.25, linewidth=0, label="an earlier run, usual range")
        left.plot(step, mean, color=GREY, linestyle="--", linewidth=1, label="an earlier run, mean")
    left.plot(np.arange(1, len(history) + 1), history, color=BLUE, alpha=0.3, linewidth=0.8, label="this run, each step" if history else None)
    if history:
        window = max(1, len(history) // 20)
        smooth = np.convolve(history, np.ones(window) / window, mode="valid")
        left.plot(np.arange(len(smooth)) + (window + 1) / 2, smooth, color=BLUE, linewidth=1.8, label="this run, mean")  # at the middle of its window: at the end it would lag
    left.set(xlabel="step", ylabel="loss", xlim=(0, steps or None), title=title)
    if band or history:
        left.set_yscale("log")
        left.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        left.yaxis.set_major_formatter("{x:g}")
        left.yaxis.set_minor_formatter(NullFormatter())
        left.legend(fontsize=9, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.2))  # below: a curve may run anywhere inside
    if samples is None:
        right.axis("off")
    else:
        clips = _clips(samples)
        sheet = (rearrange(clips[:, :, ::5], "n 1 t h w -> (n h) (t w)") if clips.shape[2] > 1
                 else rearrange(clips, "(r n) 1 1 h w -> (r h) (n w)", r=1 if len(clips) % 2 else 2))
        _picture(right, sheet.numpy())
        right.set_title("samples of this run so far", fontsize=SMALL)
    figure.tight_layout(pad=0.5)
    plt.close(figure)
    return figure


class TrainingBoard:
    """A live board in a notebook: one display, redrawn by `update` as training goes on."""

    def __init__(self, steps: int, band: Sequence[Sequence[float]] | None = None, title: str = "") -> None:
        from IPython.display import display

        self.steps, self.band, self.title = steps, band, title
        self.handle = display(loss_figure([], band, title=title, steps=steps), display_id=True)

    def update(self, history: Sequence[float], samples: torch.Tensor | None = None) -> None:
        """Redraw with the losses so far and, if given, samples (N, 1, T, H, W) in [0, 1]."""
        self.handle.update(loss_figure(history, self.band, samples, f"{self.title}: step {len(history)} of {self.steps}", self.steps))


def train_live(trainer: Trainer, name: str, samples: Callable[[Model], torch.Tensor], updates: int = 4, save_every: float = 30.0) -> None:
    """Train to the end in a notebook: progress bar, and a board with the loss over the band of an earlier run of this length, and samples.

    A lost session costs at most `save_every` seconds: the run resumes from its checkpoint NAME.pt in the outputs folder, which is deleted
    at the end. samples: what to show of the model so far, (N, C, T, H, W) in [0, 1], `updates` times. A run whose recipe or length was not
    recorded (`python -m utils.train --record`) has no band. CheckpointError for a checkpoint that cannot be resumed from, or written.
    """
    from .train import CheckpointError

    checkpoint, recipe = outputs() / f"{name}.pt", trainer.recipe
    try:
        if checkpoint.exists():
            trainer.load(checkpoint)
    except CheckpointError as error:
        raise CheckpointError(f"{str(error).split('. ')[0]}. Delete {checkpoint} to train from the start, or restore the settings that it was made with.") from error
    recorded, band = ASSETS / "results" / f"{recipe.name}-loss.json", None
    if recorded.exists() and recipe == RECIPES[recipe.name]:
        runs = json.loads(recorded.read_text()).items()
        band = next((run["loss"] for budget, run in runs if recipe.budgets[budget] == trainer.budget), None)
    board = TrainingBoard(trainer.steps, band, title=f"{recipe.name} ({recipe.prediction}), trained here")
    saved = time.monotonic()
    for progress in tqdm(trainer.run(), total=trainer.steps, initial=trainer.step, desc="training", file=progress_file()):
        if progress.step % -(-trainer.steps // updates) == 0 or progress.step == trainer.steps:
            board.update(trainer.history, samples(trainer.model()))
        if time.monotonic() - saved > save_every:
            try:
                trainer.save(checkpoint)
            except CheckpointError as error:
                raise CheckpointError(f"{str(error).split('. ')[0]}. Free some space in {checkpoint.parent}, or set LESSON_OUTPUTS to another folder; an earlier checkpoint there is untouched.") from error
            saved = time.monotonic()
    checkpoint.unlink(missing_ok=True)
    print(f"trained {trainer.step} steps of {trainer.budget.batch_size} in {trainer.trained_seconds:.0f} s on {device_name(trainer.device)}")


def caption_box(model: Model, default: str = "3 moving left and 7 moving up right", steps: int = 32):
    """A widget: type a caption, press the button, watch the clip. A caption outside the grammar is explained, not raised."""
    import ipywidgets as widgets
    from IPython.display import display

    from .captions import CaptionError

    text = widgets.Text(value=default, description="caption", layout=widgets.Layout(width="420px"))
    scale = widgets.FloatSlider(value=model.recipe.guidance_scale, min=0, max=6, step=0.5, description="guidance")
    seed = widgets.IntSlider(value=0, min=0, max=20, description="seed")
    button, output = widgets.Button(description="make a clip", button_style="primary"), widgets.Output()

    def make(_) -> None:
        output.clear_output(wait=True)
        with output:
            try:
                clip = model.sample([text.value] * 2, steps=steps, guidance_scale=scale.value, seed=seed.value)
                display(play(clip, [text.value], scale=5))
            except CaptionError as error:
                print(error)

    button.on_click(make)
    return widgets.VBox([text, widgets.HBox([scale, seed]), button, output])


def moving_mnist_box(digits: tuple[int, int] = (3, 7), directions: tuple[str, str] = ("left", "up right"), seed: int = 0):
    """A widget: choose two digits, their directions and their speed, and watch a real clip that does just that, beside its x-t slice."""
    import ipywidgets as widgets
    from IPython.display import display

    from .captions import DIRECTIONS, Caption
    from .data import SPEED, MovingMNIST

    rows = [(widgets.Dropdown(options=range(10), value=digit, description="digit"), widgets.Dropdown(options=DIRECTIONS, value=direction, description="moving"))
            for digit, direction in zip(digits, directions)]
    speed = widgets.FloatSlider(value=SPEED, min=0.02, max=0.3, step=0.02, description="speed", readout_format=".2f")
    draw = widgets.IntSlider(value=seed, min=0, max=20, description="seed")
    output = widgets.Output()

    def make(_=None) -> None:
        caption = str(Caption(tuple(digit.value for digit, _ in rows), tuple(DIRECTIONS.index(direction.value) for _, direction in rows)))
        clip = (MovingMNIST("test", draw.value, speed=speed.value).from_captions([caption], index=0).video + 1) / 2
        output.clear_output(wait=True)
        with output:
            display(play(clip, [caption], scale=5), xt_slice(clip))

    for control in (*[control for row in rows for control in row], speed, draw):
        control.observe(make, names="value")
    make()
    return widgets.VBox([*[widgets.HBox(row) for row in rows], widgets.HBox([speed, draw]), output])
