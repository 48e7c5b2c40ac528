"""Captions for Moving MNIST: a grammar, its tokenizer, and a small text encoder trained with the video model.

    caption := phrase ("and" phrase){0,2}       all phrases have a direction, or none do
    phrase  := digit ["moving" direction]
    digit   := "0".."9" | "zero".."nine"
    direction := "right" | "up right" | "up" | "up left" | "left" | "down left" | "down" | "down right"
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import nn

DIGIT_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
DIRECTIONS = ("right", "up right", "up", "up left", "left", "down left", "down", "down right")  # octant k is centred on 45k degrees
MAX_DIGITS = 3
VOCABULARY = ("<pad>", *map(str, range(10)), "and", "moving", "up", "down", "left", "right")
MAX_TOKENS = MAX_DIGITS * 4 + MAX_DIGITS - 1
EXAMPLES = "'3 and 7', 'three and 7', '3 moving left and 7 moving up right'"
_NUMERAL = {**{str(d): d for d in range(10)}, **{word: d for d, word in enumerate(DIGIT_WORDS)}}
_TOKEN = {word: index for index, word in enumerate(VOCABULARY)}


class CaptionError(ValueError):
    """A caption outside the grammar; the message names the word and shows captions that are valid."""


@dataclass(frozen=True)
class Caption:
    """What a caption says: one to three digits, with a direction each (index into DIRECTIONS) or None."""

    digits: tuple[int, ...]
    directions: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if not 1 <= len(self.digits) <= MAX_DIGITS or any(d not in range(10) for d in self.digits):
            raise CaptionError(f"A caption has one to {MAX_DIGITS} digits from 0 to 9, not {self.digits}.")
        if self.directions is not None:
            if len(self.directions) != len(self.digits) or any(d not in range(8) for d in self.directions):
                raise CaptionError(f"Give each of the {len(self.digits)} digits a direction from 0 to 7, not {self.directions}.")

    def __str__(self) -> str:
        if self.directions is None:
            return " and ".join(map(str, self.digits))
        return " and ".join(f"{d} moving {DIRECTIONS[k]}" for d, k in zip(self.digits, self.directions))


def _string(text: str) -> str:
    if not isinstance(text, str):
        raise CaptionError(f"A caption is a string such as {EXAMPLES}, not {type(text).__name__}.")
    return text


def parse(text: str) -> Caption:
    """Read a caption. `str(parse(text))` is its canonical form and `parse(str(caption)) == caption`.

    Raises CaptionError for anything outside the grammar.
    """
    words = _string(text).lower().split()
    for word in words:
        if word not in _NUMERAL and word not in _TOKEN or word == "<pad>":
            raise CaptionError(f"Unknown word {word!r} in the caption {text!r}. Valid captions: {EXAMPLES}. "
                               f"Directions: {', '.join(DIRECTIONS)}.")
    digits, directions = [], []
    for phrase in f" {' '.join(words)} ".split(" and "):
        first, *rest = phrase.split() or [""]
        if first not in _NUMERAL:
            raise CaptionError(f"Expected a digit where the caption {text!r} has {first or 'nothing'!r}. Valid captions: {EXAMPLES}.")
        digits.append(_NUMERAL[first])
        if not rest:
            continue
        direction = " ".join(rest[1:])
        if rest[0] != "moving" or direction not in DIRECTIONS:
            raise CaptionError(f"Expected 'moving' and one of {', '.join(DIRECTIONS)} after {first!r}, "
                               f"not {' '.join(rest)!r}. Valid captions: {EXAMPLES}.")
        directions.append(DIRECTIONS.index(direction))
    if directions and len(directions) != len(digits):
        raise CaptionError(f"Give a direction for every digit or for none: {text!r}. Valid captions: {EXAMPLES}.")
    return Caption(tuple(digits), tuple(directions) or None)


def digits_of(captions: Sequence[str]) -> list[str]:
    """The captions without directions."""
    return [str(Caption(parse(text).digits)) for text in captions]


def rivals(text: str) -> list[str]:
    """The captions that a clip is most easily mistaken for: with one of the two digits said two times, and directions as they are. Of a caption without two different digits: itself, twice."""
    said = parse(text)
    if len(said.digits) != 2:
        return [text, text]
    return [str(Caption((digit, digit), said.directions)) for digit in said.digits]


def octant(velocity: torch.Tensor) -> torch.Tensor:
    """(..., 2) velocities as (row, column) to (...) int64 indices into DIRECTIONS; rows grow downwards."""
    angle = torch.atan2(-velocity[..., 0], velocity[..., 1])
    return torch.round(angle / (math.pi / 4)).long() % 8


def tokenize(captions: Sequence[str]) -> torch.Tensor:
    """N captions to (N, MAX_TOKENS) int64 indices into VOCABULARY, padded with 0. Raises CaptionError."""
    return torch.tensor([_indices(_string(text)) for text in captions], dtype=torch.long).view(-1, MAX_TOKENS)


@lru_cache(maxsize=2**16)
def _indices(text: str) -> tuple[int, ...]:
    words = str(parse(text)).split()
    return tuple(_TOKEN[word] for word in words) + (0,) * (MAX_TOKENS - len(words))


class TextEncoder(nn.Module):
    """Tokens to a vector per caption: two transformer layers, then attention pooling.

    Replaces the BERT-large with attention pooling of *Video Diffusion Models* (section 4.3); the grammar has
    sixteen words, so it is small and trained with the network.
    """

    def __init__(self, width: int, out_dim: int, layers: int = 2, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.words = nn.Embedding(len(VOCABULARY), width)
        self.positions = nn.Parameter(torch.randn(MAX_TOKENS, width))  # as large as words, or the encoder starts and stays a bag of words
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(width, heads, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True)
            for _ in range(layers))
        self.query = nn.Parameter(torch.randn(width) * width**-0.5)
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, out_dim)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """(B, L) int64 tokens -> (B, out_dim)."""
        padding = tokens == 0
        x = self.words(tokens) + self.positions[: tokens.shape[1]]  # (B, L, width)
        for layer in self.layers:
            x = layer(x, src_key_padding_mask=padding)
        x = self.norm(x)
        weights = (x @ self.query).masked_fill(padding, -math.inf).softmax(dim=1)
        return self.out(torch.einsum("b l, b l d -> b d", weights, x))
