"""The reader's own digit: as characters, from a (simulated) canvas, and put into a frame."""

import sys
import types

import pytest
import torch

from utils import drawing
from utils.data import MNIST

BAR = "\n".join(["      ##      "] * 14)


def test_characters_become_a_digit():
    digit = drawing.from_text(BAR)
    assert digit.shape == (28, 28) and digit.min() == 0 and digit.max() == 1
    assert (digit[:, 13:15] == 1).all() and (digit[:, :11] == 0).all() and (digit[:, 17:] == 0).all()
    assert (0 < digit[:, 11]).all() and (digit[:, 11] < 1).all()  # a soft edge
    assert torch.equal(drawing.from_text("\n" + BAR + "   \n"), digit) and drawing.from_text("#")[0, 0] == 1  # short drawings are filled up


@pytest.mark.parametrize(("text", "message"), [("", "empty"), ("....", "empty"), ("#" * 15, "15"), ("#\n" * 15, "15 lines")])
def test_drawings_that_are_none(text, message):
    with pytest.raises(ValueError, match=message):
        drawing.from_text(text)


def test_the_canvas_is_colabs(monkeypatch):
    with pytest.raises(RuntimeError, match="from_text"):
        drawing.canvas()
    shown = []
    output = types.SimpleNamespace(eval_js=lambda page: shown.append(page) or ",".join(["0"] * 783 + ["255"]))
    colab = types.ModuleType("google.colab")
    colab.output = output
    monkeypatch.setitem(sys.modules, "google", types.ModuleType("google"))
    monkeypatch.setitem(sys.modules, "google.colab", colab)
    digit = drawing.canvas()
    assert digit.shape == (28, 28) and digit[27, 27] == 1 and digit.sum() == 1 and "canvas" in shown[0]
    output.eval_js = lambda page: ",".join(["0"] * 784)
    with pytest.raises(ValueError, match="Nothing was drawn"):
        drawing.canvas()


def test_digits_are_put_where_they_should_be_at_half_size():
    digits = (MNIST("test", seed=1).sample(2).video[:, 0, 0] + 1) / 2
    one = drawing.frame(digits, torch.tensor([[0, 0], [18, 18]]))
    assert one.shape == (1, 1, 1, 32, 32) and 0 <= one.min() and one.max() <= 1
    small = torch.nn.functional.avg_pool2d(digits[:, None], 2)[:, 0]
    assert torch.allclose(one[0, 0, 0, :14, :14], small[0], atol=3e-3) and torch.allclose(one[0, 0, 0, 18:, 18:], small[1], atol=3e-3)
    together = drawing.frame(digits, torch.tensor([[5, 5], [5, 5]]))[0, 0, 0, 5:19, 5:19]
    assert torch.allclose(together, torch.nn.functional.avg_pool2d(digits.amax(0)[None, None], 2)[0, 0], atol=3e-3)


@pytest.mark.parametrize(("digits", "corners", "message"), [
    (torch.zeros(1, 28, 28), [[0, 19]], "from 0 to 18"), (torch.zeros(1, 28, 28), [[-1, 0]], "from 0 to 18"), (torch.zeros(28, 28), [[0, 0]], "Expected digits"),
    (torch.zeros(2, 28, 28), [[0, 0]], "Expected digits")])
def test_frames_that_cannot_be(digits, corners, message):
    with pytest.raises(ValueError, match=message):
        drawing.frame(digits, torch.tensor(corners))


@pytest.mark.parametrize("image_size", [4, 20, 48, 128])
def test_frames_of_no_size_that_the_canvas_has(image_size):
    with pytest.raises(ValueError, match="image_size must divide 64"):
        drawing.frame(torch.zeros(1, 28, 28), torch.tensor([[0, 0]]), image_size)
