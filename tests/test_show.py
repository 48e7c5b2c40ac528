"""Pictures: shapes, files, alternative text, and `utils` without IPython or ipywidgets."""

import io
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import imageio.v3 as iio
import pytest
import torch

from utils import show
from utils.captions import parse
from utils.recipes import MNIST_GUIDED, VDM, VDM_TEXT, Budget
from utils.train import CheckpointError, Trainer
from utils.unet import Stage, UNet

CLIPS = torch.rand(3, 1, 6, 16, 16, generator=torch.Generator().manual_seed(0))


def test_gif_has_the_frames_and_the_size(tmp_path):
    data = show.gif(CLIPS, tmp_path / "a" / "clips.gif", columns=2, scale=2)
    frames = iio.imread(io.BytesIO(data), index=None)
    assert frames.shape[:3] == (6, 2 * 2 * 18, 2 * 2 * 18)
    assert (tmp_path / "a" / "clips.gif").read_bytes() == data
    assert abs(float(frames[0, 2:34, 2:34].mean()) / 255 - float(CLIPS[0, 0, 0].mean())) < 0.05


def test_player_has_alternative_text():
    html = show.play(CLIPS, ["a", "b", "c"]).data
    assert 'alt="a; b; c"' in html and "data:image/gif;base64," in html
    html = show.play(CLIPS[:1], ['<b> & "c"']).data
    assert 'alt="&lt;b&gt; &amp; &quot;c&quot;"' in html and "<b>" not in html


@pytest.mark.parametrize("figure", [
    lambda: show.film_strip(CLIPS, ["3 and 7"] * 3, every=2), lambda: show.xt_slice(CLIPS), lambda: show.xt_slice(CLIPS, ["real: 3 and 7"] * 3, time_across=True), lambda: show.image_grid(CLIPS[:, :, :1], columns=2),
    lambda: show.image_rows({"a": CLIPS[:, :, :1], "b": CLIPS[:, :, 1:2]}, ["x", "y", "z"], "t"), lambda: show.loss_figure([1.0, 0.5, 0.4], [[1, 1.0, 0.9, 1.1]], CLIPS, "t", 10), lambda: show.loss_figure([1.0, 0.5], samples=CLIPS[:1, :, :1]), lambda: show.loss_figure([]),
    lambda: show.direction_tables({"real": torch.eye(8, 9, dtype=torch.long) * 5, "none read": torch.zeros(8, 9, dtype=torch.long)})])
def test_figures_draw(figure, tmp_path):
    figure().savefig(tmp_path / "f.png")
    assert iio.imread(tmp_path / "f.png").std() > 1


def test_a_border_stands_before_its_frame():
    clips = torch.rand(2, 1, 4, 8, 8)
    for every in (1, 2):
        for ax in show.film_strip(clips, every=every, borders=[2]).axes:
            (line,), shown = ax.lines, clips[:, :, ::every].shape[2]
            assert ax.images[0].get_array().shape == (8, 9 * shown - 1)
            assert list(line.get_xdata()) == [9 * (2 // every) - 1] * 2  # the white column to the left of frame 2


def test_texts_stand_under_the_frames_of_the_last_row_and_only_there():
    above, below = show.film_strip(torch.rand(2, 1, 3, 8, 8), under=["a", "b", "c"]).axes
    assert [label.get_text() for label in below.get_xticklabels()] == ["a", "b", "c"] and not len(above.get_xticks())
    assert all(9 * k < tick < 9 * k + 8 for k, tick in enumerate(below.get_xticks()))


def test_wrong_input_is_explained():
    with pytest.raises(ValueError, match=r"\(video \+ 1\) / 2"):
        show.film_strip(CLIPS * 2 - 1)
    with pytest.raises(ValueError, match=r"\(N, 1, T, H, W\)"):
        show.gif(CLIPS[0, 0])


def test_utils_work_without_notebook_packages():
    code = """
import sys
for name in ("IPython", "ipywidgets"):
    sys.modules[name] = None
import torch
from utils import available_models, load_pretrained
from utils import show, train, metrics, cost, captions
assert show.gif(torch.rand(1, 1, 2, 8, 8))[:3] == b"GIF"
"""
    subprocess.run([sys.executable, "-c", code], check=True)


class Board:
    """Stands for the training board, which needs a notebook."""

    bands, updates = [], []  # of each test anew: `board`

    def __init__(self, steps, band=None, title=""):
        Board.bands.append(band)

    def update(self, history, samples):
        Board.updates.append((len(history), samples))


@pytest.fixture
def board(monkeypatch):
    monkeypatch.setattr(Board, "bands", [])
    monkeypatch.setattr(Board, "updates", [])
    monkeypatch.setattr(show, "TrainingBoard", Board)


def test_live_training_goes_on_from_its_checkpoint(tmp_path, monkeypatch, capsys, board):
    monkeypatch.setenv("LESSON_OUTPUTS", str(tmp_path))
    recipe = replace(MNIST_GUIDED, net=replace(MNIST_GUIDED.net, channels=(8, 8, 8), head_dim=8, text_width=16))

    def lost(model):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        show.train_live(Trainer(recipe, Budget(4, 2), device="cpu"), "run", lost, updates=2, save_every=0)
    again, whole = Trainer(recipe, Budget(4, 2), device="cpu"), Trainer(recipe, Budget(4, 2), device="cpu")
    show.train_live(again, "run", lambda model: CLIPS[:, :, :1], updates=2, save_every=0)
    assert again.history == [progress.loss for progress in whole.run()] and [step for step, _ in Board.updates] == [2, 4]
    assert not (tmp_path / "run.pt").exists() and "trained 4 steps of 2" in capsys.readouterr().out
    assert Board.bands == [None, None]  # no band of a run that is not the recipe's
    done = Trainer(MNIST_GUIDED, MNIST_GUIDED.budgets["smoke"], device="cpu")
    done.step = done.steps
    show.train_live(done, "done", lost)
    assert len(Board.bands[-1]) > 0


def test_the_player_makes_the_clip_that_its_widgets_ask_for(monkeypatch, capsys):
    shown = []
    monkeypatch.setattr(show, "play", lambda clip, captions, **_: shown.append((clip, captions[0])))
    box = show.moving_mnist_box()
    assert shown[-1][1] == "3 moving left and 7 moving up right" and shown[-1][0].shape == (1, 1, 16, 32, 32)
    digit, direction = box.children[0].children
    speed, seed = box.children[2].children
    direction.value = "down"
    digit.value = 5
    assert shown[-1][1] == "5 moving down and 7 moving up right"
    before = shown[-1][0]
    speed.value = 0.02
    assert (shown[-1][0].diff(dim=2).abs().mean() < 0.6 * before.diff(dim=2).abs().mean()) and len(shown) == 4
    seed.value = 3
    assert not torch.equal(shown[-1][0][:, :, 0], shown[-2][0][:, :, 0])


def test_a_diagram_shows_every_stage_with_its_channels_and_attention():
    figure = show.network_diagram(UNet(VDM.net), VDM.sample_shape, title="vdm")
    texts = [text.get_text() for text in figure.axes[0].texts]
    stages = [module for module in UNet(VDM.net).modules() if isinstance(module, Stage)]
    assert texts.count("R") == len(stages)
    assert texts.count("S") == sum(stage.space is not None for stage in stages) and texts.count("T") == sum(stage.time is not None for stage in stages)
    assert texts.count("16") == 2 and texts.count("128") == 4
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["32×32", "16×16", "8×8", "4×4"]
    assert "T attention" in figure.axes[0].get_xlabel()
    images = show.network_diagram(UNet(MNIST_GUIDED.net), MNIST_GUIDED.sample_shape)
    assert "S attention" in images.axes[0].get_xlabel() and "T attention" not in images.axes[0].get_xlabel()


def test_checkpoints_of_live_training_that_are_no_good_are_told_with_what_to_do_in_a_notebook(tmp_path, monkeypatch, board):
    monkeypatch.setenv("LESSON_OUTPUTS", str(tmp_path))
    recipe, checkpoint = replace(MNIST_GUIDED, net=replace(MNIST_GUIDED.net, channels=(8, 8, 8), head_dim=8, text_width=16)), tmp_path / "run.pt"

    def live(steps, save_every=30.0):
        show.train_live(Trainer(recipe, Budget(steps, 2), device="cpu"), "run", lambda model: CLIPS[:, :, :1], save_every=save_every)

    Trainer(recipe, Budget(4, 2), device="cpu").save(checkpoint)
    with pytest.raises(CheckpointError, match=rf"another run .* Delete {checkpoint} to train from the start, or restore the settings"):
        live(5)
    checkpoint.write_bytes(b"cut off")
    with pytest.raises(CheckpointError, match=f"damaged.* Delete {checkpoint}"):
        live(4)
    checkpoint.unlink()

    def full_disk(state, file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(CheckpointError, match=f"No space left on device. Free some space in {tmp_path}, or set LESSON_OUTPUTS") as raised:
        live(4, save_every=0)
    assert "--out" not in str(raised.value)


@pytest.mark.parametrize("blocks", [(1, 1, 1), (2, 1, 2)])
def test_a_diagram_shows_every_shortcut(blocks):
    """One dashed line for each stage on the way down, from it to its partner; between stages of one row that are not neighbours it runs below."""
    net = UNet(replace(MNIST_GUIDED.net, channels=(8, 8, 8), blocks=blocks, head_dim=8, text_width=None))
    ax = show.network_diagram(net, MNIST_GUIDED.sample_shape).axes[0]
    dashed = [line for line in ax.lines if line.get_linestyle() == "--"]
    assert len(dashed) == sum(blocks)
    assert all(left.get_xdata()[0] < right.get_xdata()[0] and left.get_xdata()[-1] > right.get_xdata()[-1] for left, right in zip(dashed, dashed[1:]))
    assert max(dashed[-1].get_ydata()) < -2 and len(dashed[-1].get_xdata()) == 4  # the lowest passes under the middle


def test_the_mean_of_a_loss_stands_at_the_middle_of_its_window():
    for length in (3, 100):  # of a straight line the mean over a window is the value at its middle
        ax = show.loss_figure([float(step) for step in range(1, length + 1)]).axes[0]
        _, mean = ax.lines
        assert len(mean.get_xdata()) >= 0.9 * length and torch.allclose(torch.tensor(mean.get_xdata()), torch.tensor(mean.get_ydata()))


def test_the_box_makes_the_clip_that_is_asked_for_and_explains_a_caption(monkeypatch):
    asked, shown = [], []

    def sample(captions, **options):
        asked.append((captions[0], [parse(text) for text in captions], options))
        return torch.rand(len(captions), 1, 16, 32, 32)

    monkeypatch.setattr(show, "play", lambda clip, captions, **_: shown.append(captions))
    box = show.caption_box(SimpleNamespace(recipe=VDM_TEXT, sample=sample), steps=4)
    text, (scale, seed), button = box.children[0], box.children[1].children, box.children[2]
    text.value, scale.value, seed.value = "3 and 7", 1.5, 2
    button.click()
    assert asked[-1][0] == "3 and 7" and asked[-1][2] == {"steps": 4, "guidance_scale": 1.5, "seed": 2} and shown == [["3 and 7"]]
    text.value = "a dog"
    button.click()  # told in the output, not raised
    assert len(shown) == 1
