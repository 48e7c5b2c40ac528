"""Captions that a reader of pictures gives to clips: what it says, what it leaves to chance, and that no clip's own caption is looked at."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from utils.captioner import EVERY, PAIRS, Captioner, load_captioner, pair_of, right
from utils.captions import parse, tokenize
from utils.data import MovingMNIST
from utils.judge import train
from utils.pretrained import WeightsError
from utils.recipes import MAV, Budget
from utils.runtime import generator
from utils.train import Trainer


DIGIT = int(tokenize(["0 and 0"])[0, 0])  # the token of "0"; those of the other digits follow


def saying(pairs):
    """A captioner that is sure of one of PAIRS for each frame, in the order in which it is shown them."""
    captioner = Captioner()
    captioner.forward = lambda pictures: (len(pictures) == len(pairs)) * 10.0 * torch.nn.functional.one_hot(torch.tensor(pairs), len(PAIRS))
    return captioner


def test_every_pair_of_digits_has_its_place_whatever_the_order_and_the_directions():
    for place, (low, high) in enumerate(PAIRS.tolist()):
        assert pair_of([f"{low} and {high}", f"{high} and {low}", f"{low} moving left and {high} moving up"]).tolist() == [place] * 3
    assert len(PAIRS) == 55


def test_what_most_frames_say_is_said_and_chance_decides_the_rest():
    frames, clips = 16 // EVERY, torch.zeros(2, 1, 16, 32, 32)
    place = {text: int(pair_of([text])) for text in ("3 and 7", "3 and 3", "1 and 0")}
    captioner = saying([place["3 and 7"]] * (frames - 1) + [place["3 and 3"]] + [place["1 and 0"]] * frames)
    assert captioner.captions(clips, torch.full((2, 4), 0.9)) == ["3 and 7", "0 and 1"]
    assert captioner.captions(clips, torch.tensor([[0.1, 0.9, 0, 0], [0.9, 0.1, 0.0, 0.99]])) == ["7 and 3", "0 moving right and 1 moving down right"]
    chance = torch.rand(2000, 4, generator=generator(1))
    said = [parse(text) for text in saying([place["3 and 7"]] * 2000 * frames).captions(clips[:1].expand(2000, -1, -1, -1, -1), chance)]
    assert abs(sum(c.digits == (3, 7) for c in said) / 2000 - 0.5) < 0.05 and abs(sum(c.directions is None for c in said) / 2000 - 0.5) < 0.05
    guesses = torch.tensor([d for c in said if c.directions for d in c.directions]).bincount(minlength=8)
    assert (guesses / guesses.sum() - 1 / 8).abs().max() < 0.03


def test_the_shipped_one_is_nearly_always_right_about_clips_and_less_often_about_single_frames():
    shares = right(load_captioner(), num=256, seed=3)
    assert shares["clips"] > 0.94 and 0.8 < shares["pictures"] < shares["clips"]


def test_it_learns_the_captions_of_pictures():
    torch.manual_seed(0)
    captioner, pictures = Captioner(), MovingMNIST("train", seed=2, image_size=32, num_frames=1, captions="mixed").sample(32)
    train(captioner, [SimpleNamespace(sample=lambda num, index: pictures)], 32, 100, "cpu")  # always the same ones, by heart
    assert not captioner.training and (captioner(pictures.video[:, :, 0]).argmax(1) == pair_of(pictures.captions)).float().mean() > 0.9


def test_clips_get_captions_of_its_making_and_have_none_themselves():
    trainer = Trainer(replace(MAV, null_probability=0.0), Budget(4, 6), device="cpu", amp="off", seed=2)
    assert trainer.data.captions is None and trainer.data.sample(1).captions is None
    drawn = trainer.draw(1)
    chance = torch.rand(6, 4, generator=generator(5))
    digits = [sorted(parse(text).digits) for text in load_captioner().captions(drawn.x, chance)]
    words = [sorted(word - DIGIT for word in row.tolist() if DIGIT <= word < DIGIT + 10) for row in drawn.tokens]
    assert words == digits  # whatever the order
    shares = torch.cat([trainer.draw(1, rows).tokens for rows in (slice(0, 2), slice(2, 6))])
    assert torch.equal(shares, drawn.tokens)


def test_what_is_read_does_not_depend_on_what_the_generator_of_clips_knows(monkeypatch):
    trainer = Trainer(replace(MAV, null_probability=0.0), Budget(4, 3), device="cpu", amp="off", seed=2)
    tokens = trainer.draw(0).tokens
    sample = MovingMNIST.sample
    monkeypatch.setattr(MovingMNIST, "sample", lambda *args, **options: replace(sample(*args, **options), labels=None, position=None, velocity=None, captions=["no caption"] * 3))
    assert torch.equal(trainer.draw(0).tokens, tokens)


def test_images_packed_with_clips_are_not_described():
    with pytest.raises(ValueError, match="num_images=0, not 2"):
        replace(MAV, num_images=2)


def test_without_its_weights_it_says_how_to_get_them(tmp_path, monkeypatch):
    monkeypatch.setattr("utils.judge.CHECKPOINTS", tmp_path)
    load_captioner.cache_clear()
    with pytest.raises(WeightsError, match="python -m utils.captioner"):
        load_captioner()
    load_captioner.cache_clear()
