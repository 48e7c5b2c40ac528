"""A digit drawn by the reader: on a canvas in Google Colab, with characters everywhere else."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from .data import CANVAS, DIGIT, shrink

CELLS = 14  # characters per side; each becomes 2 x 2 of a digit's 28 x 28 pixels
INK = "#"

_CANVAS_PAGE = """
new Promise((resolve) => {
  const page = document.createElement("div"), canvas = document.createElement("canvas"), done = document.createElement("button");
  canvas.width = canvas.height = 280;
  canvas.style = "border: 1px solid grey; touch-action: none; display: block; background: black";
  canvas.setAttribute("aria-label", "Draw a digit here");
  done.textContent = "done";
  page.append(canvas, done);
  document.querySelector("#output-area").appendChild(page);
  const pen = canvas.getContext("2d");
  pen.strokeStyle = "white"; pen.lineWidth = 24; pen.lineCap = pen.lineJoin = "round";
  const at = (event) => { const box = canvas.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };
  canvas.onpointerdown = (event) => { pen.beginPath(); pen.moveTo(...at(event)); pen.lineTo(...at(event)); pen.stroke(); canvas.setPointerCapture(event.pointerId); };
  canvas.onpointermove = (event) => { if (event.buttons) { pen.lineTo(...at(event)); pen.stroke(); } };
  done.onclick = () => {
    const small = document.createElement("canvas"); small.width = small.height = 28;
    const copy = small.getContext("2d"); copy.drawImage(canvas, 0, 0, 28, 28);
    const data = copy.getImageData(0, 0, 28, 28).data, values = [];
    for (let k = 0; k < data.length; k += 4) values.push(data[k]);
    page.remove(); resolve(values.join(","));
  };
})
"""


def from_text(text: str) -> torch.Tensor:
    """A drawing of at most 14 lines of at most 14 characters (# is ink) as a digit (28, 28) in [0, 1] with soft edges. ValueError when it is empty or does not fit."""
    lines = text.strip("\n").splitlines()
    if len(lines) > CELLS or any(len(line.rstrip()) > CELLS for line in lines):
        raise ValueError(f"A drawing has at most {CELLS} lines of {CELLS} characters; got {len(lines)} lines, the longest with {max(len(line.rstrip()) for line in lines)}.")
    cells = torch.tensor([[float(character == INK) for character in line[:CELLS].ljust(CELLS)] for line in lines + [""] * (CELLS - len(lines))])
    if not cells.any():
        raise ValueError(f"The drawing is empty: {INK} is ink, every other character is none.")
    drawn = F.interpolate(cells[None, None], scale_factor=DIGIT // CELLS, mode="bilinear", align_corners=False)
    return drawn[0, 0]


def canvas() -> torch.Tensor:
    """A digit (28, 28) in [0, 1] drawn by mouse or finger; waits for "done". Google Colab only, else RuntimeError; ValueError when nothing was drawn."""
    try:
        from google.colab import output
    except ImportError as error:
        raise RuntimeError("The canvas needs Google Colab. Elsewhere draw with characters: drawing.from_text.") from error
    values = torch.tensor([float(value) for value in output.eval_js(_CANVAS_PAGE).split(",")]).view(DIGIT, DIGIT) / 255
    if values.max() < 0.5:
        raise ValueError("Nothing was drawn. Run the cell again and draw with a finger or the mouse before you press done.")
    return values


def frame(digits: torch.Tensor, corners: torch.Tensor, image_size: int = 32) -> torch.Tensor:
    """Digits (D, 28, 28) in [0, 1] put on a canvas of 64 pixels, with the maximum at overlaps: a frame (1, 1, 1, image_size, image_size) in [0, 1]. corners (D, 2): (row, column) of
    top left corners in pixels of the frame. ValueError unless every digit lies in the frame, and image_size divides 64."""
    if image_size < 8 or CANVAS % image_size:
        raise ValueError(f"image_size must divide {CANVAS} and be at least 8 (32 and 64 are usual), not {image_size}.")
    scale = CANVAS // image_size
    places = (torch.as_tensor(corners) * scale).long()
    if digits.dim() != 3 or digits.shape[1:] != (DIGIT, DIGIT) or places.shape != (len(digits), 2):
        raise ValueError(f"Expected digits (D, {DIGIT}, {DIGIT}) and corners (D, 2); got {tuple(digits.shape)} and {tuple(places.shape)}.")
    if places.min() < 0 or places.max() > CANVAS - DIGIT:
        raise ValueError(f"A corner (row, column) is from 0 to {(CANVAS - DIGIT) // scale} in a frame of {image_size} pixels; got {torch.as_tensor(corners).tolist()}.")
    sheet = torch.zeros(CANVAS, CANVAS)
    for digit, (row, column) in zip(digits, places.tolist()):
        part = sheet[row:row + DIGIT, column:column + DIGIT]
        part.copy_(torch.maximum(part, digit))
    return (shrink((sheet * 255).round().byte()[None, None], image_size)[:, None] + 1) / 2
