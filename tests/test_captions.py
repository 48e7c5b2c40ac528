"""The caption grammar: parse and print are inverse, errors name the word."""

import math

import pytest
import torch
from hypothesis import given, strategies as st

from utils.captions import DIGIT_WORDS, DIRECTIONS, MAX_TOKENS, VOCABULARY, Caption, CaptionError, TextEncoder, octant, parse, rivals, tokenize
from utils.data import MovingMNIST
from utils.hearing import exchanged_directions

digits = st.lists(st.integers(0, 9), min_size=1, max_size=3)


@st.composite
def captions(draw):
    chosen = tuple(draw(digits))
    directions = draw(st.none() | st.lists(st.integers(0, 7), min_size=len(chosen), max_size=len(chosen)).map(tuple))
    return Caption(chosen, directions)


@given(captions())
def test_parse_inverts_print(caption):
    assert parse(str(caption)) == caption


@given(captions(), st.randoms())
def test_print_inverts_parse_up_to_spelling(caption, random):
    canonical = str(caption)
    spelled = " ".join(DIGIT_WORDS[int(w)] if w.isdigit() and random.random() < 0.5 else w for w in canonical.split())
    assert str(parse(spelled.upper().replace(" ", "   "))) == canonical


@given(captions())
def test_tokens_spell_the_canonical_caption(caption):
    tokens = tokenize([str(caption)])[0]
    assert tokens.shape == (MAX_TOKENS,)
    assert " ".join(VOCABULARY[i] for i in tokens if i) == str(caption)


@given(st.lists(st.sampled_from(["3", "seven", "and", "moving", "up", "left", "<pad>", "dog", ""]), max_size=8).map(" ".join))
def test_any_text_parses_or_explains(text):
    try:
        assert parse(str(parse(text))) == parse(text)
    except CaptionError as error:
        assert "3 and 7" in str(error) or "3 moving left and 7" in str(error) or "one to 3" in str(error)


@pytest.mark.parametrize(("text", "named"), [
    ("3 and dog", "'dog'"), ("3 moving sideways", "'sideways'"), ("3 moving left right", "left right'"), ("and", "digit"), ("", "nothing"),
    ("3 7", "moving"), ("3 and", "nothing"), ("1 and 2 and 3 and 4", "one to 3"), ("3 moving left and 7", "every digit"), ("3 moving", "moving"),
    ("<pad>", "'<pad>'")])
def test_errors_name_what_is_wrong(text, named):
    with pytest.raises(CaptionError, match=named.replace("<", r"\<")):
        parse(text)
    with pytest.raises(CaptionError):
        parse(None)


def test_rivals_say_one_of_two_digits_two_times():
    assert rivals("3 and seven") == ["3 and 3", "7 and 7"]
    assert rivals("3 moving left and 7 moving up right") == ["3 moving left and 3 moving up right", "7 moving left and 7 moving up right"]
    assert rivals("4 and 4") == ["4 and 4"] * 2 and rivals("4") == ["4"] * 2 and rivals("1 and 2 and 3") == ["1 and 2 and 3"] * 2
    with pytest.raises(CaptionError, match="'dog'"):
        rivals("3 and dog")


def test_octants_follow_the_clock_with_rows_downwards():
    angle = torch.arange(8) * math.pi / 4
    velocity = torch.stack([-angle.sin(), angle.cos()], dim=-1)  # (row, column)
    assert octant(velocity).tolist() == list(range(8))
    assert DIRECTIONS[int(octant(torch.tensor([1.0, 0.1])))] == "down"
    assert DIRECTIONS[int(octant(torch.tensor([-1.0, -1.0])))] == "up left"


def test_text_encoder_reads_the_words_and_not_the_padding():
    torch.manual_seed(0)
    encoder = TextEncoder(32, 16).eval()
    tokens = tokenize(["3 and 7", "7 and 3", "3 moving left and 7 moving up", "3 moving up and 7 moving left"])
    out = encoder(tokens)
    assert out.shape == (4, 16)
    assert torch.pdist(out).min() > 1e-3  # order and binding of digit and direction are seen
    assert torch.allclose(encoder(tokens[:2, :5]), out[:2], atol=1e-5)  # shorter padding, same vector


def test_a_fresh_encoder_tells_whose_direction_is_whose():
    """With positions much smaller than words it would be a bag of words: that twin gives exchanged directions nearly the same vector, and a network could hardly learn to tell them apart."""
    texts = MovingMNIST("test", 3, captions="motion").sample(64).captions
    apart = {}
    for scale in (1.0, 0.02):
        torch.manual_seed(0)
        encoder = TextEncoder(64, 128)
        with torch.no_grad():
            encoder.positions.mul_(scale)
            true, exchanged = (encoder(tokenize(said)) for said in (texts, [exchanged_directions(text) for text in texts]))
        apart[scale] = float((exchanged - true).norm(dim=1).mean() / true.norm(dim=1).mean())
    assert apart[1.0] > 0.2 and apart[0.02] < 0.05
