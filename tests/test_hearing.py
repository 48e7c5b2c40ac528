"""The price of false captions: what each lie says, the loss against a closed form, and two twins, one deaf and one that hears."""

from types import SimpleNamespace

import pytest
import torch

from utils.captions import parse
from utils.hearing import LIES, cost_of, exchanged_directions, hearing, opposite_directions, wrong_digits
from utils.recipes import VDM_TEXT, recipe
from utils.runtime import generator
from utils.schedule import alpha_sigma


def test_each_lie_changes_what_it_says_and_nothing_else():
    text = "9 moving left and 7 moving up right"
    assert wrong_digits(text) == "2 moving left and 0 moving up right"
    assert opposite_directions(text) == "9 moving right and 7 moving down left"
    assert exchanged_directions(text) == "9 moving up right and 7 moving left"
    assert wrong_digits("3 and 7") == "6 and 0" and opposite_directions("3 and 7") == exchanged_directions("3 and 7") == "3 and 7"
    assert exchanged_directions("3 moving up") == "3 moving up"
    for lie in LIES.values():
        parse(lie(text))


def fake(push):
    """A model whose network says push(first direction of the caption) everywhere, whatever it sees."""
    return SimpleNamespace(recipe=VDM_TEXT, prediction="v", device=torch.device("cpu"), dtype=None, frame_rate=lambda fps, num: {},
                           encode=lambda captions: torch.tensor([[push(parse(text).directions[0])] for text in captions]),
                           net=lambda z, log_snr, c: c[:, :, None, None, None].expand_as(z))


def test_cost_against_its_closed_form():
    model = fake(lambda direction: 0.1 * direction)
    batch = recipe("vdm-text").dataset("test", 3).sample(24)
    moving = [k for k, text in enumerate(batch.captions) if parse(text).directions]
    assert 4 < len(moving) < 20  # mixed captions: a lie about directions leaves the others alone
    model.encode = lambda captions: torch.tensor([[0.1 * (parse(text).directions or (0,))[0]] for text in captions])
    level = -1.5
    alpha, sigma = (float(part) for part in alpha_sigma(torch.tensor(level)))
    eps = torch.randn(batch.video.shape, generator=generator(5))
    said = torch.tensor([0.1 * (parse(text).directions or (0,))[0] for text in batch.captions])
    false = torch.tensor([0.1 * (((parse(text).directions or (0,))[0] + 4) % 8) for text in batch.captions])
    mean_v = (alpha * eps - sigma * batch.video).flatten(1).mean(1)  # E (c - v)^2 - E (c' - v)^2 = c^2 - c'^2 - 2 (c - c') E v
    expected = ((false**2 - said**2) - 2 * (false - said) * mean_v)[moving]
    found = cost_of(opposite_directions, model, batch, level, seed=5)
    assert found["n"] == len(moving) and found["mean"] == pytest.approx(float(expected.mean()), abs=1e-5)
    assert found["standard_error"] == pytest.approx(float(expected.std() / len(moving) ** 0.5), rel=1e-3)


def test_a_deaf_model_pays_nothing_and_one_digit_has_nothing_to_exchange():
    deaf = hearing(fake(lambda direction: 0.0), num=8)
    assert set(deaf) == set(LIES) and all(row["mean"] == 0 and row["standard_error"] == 0 for rows in deaf.values() for row in rows.values())
    one = hearing(fake(lambda direction: 0.1 * direction), num=8, num_digits=1)
    assert set(one) == {"wrong digits", "opposite directions"} and all(abs(row["mean"]) > 0 for row in one["opposite directions"].values())
