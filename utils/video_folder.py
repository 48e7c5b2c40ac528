"""A folder of GIF or MP4 clips. It is used like `data.MovingMNIST`: `sample(num)` gives a Batch."""

from __future__ import annotations

import copy
import csv
import hashlib
import logging
import math
import re
import stat
import subprocess
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import repeat
from pathlib import Path, PurePosixPath

import imageio.v3 as iio
import numpy as np
import torch
from einops import rearrange
from PIL import Image
from tqdm import tqdm

from .data import Batch, DataError, Stream
from .runtime import progress_file

CAPTIONS_FILE = "captions.csv"
SUFFIXES = (".gif", ".mp4", ".webm", ".mov", ".avi", ".mkv")
LOG_PREFIX = r"^(\[[^]]*\] *)+"  # which part of ffmpeg complains, and its address in memory
LISTED = 20  # skipped files that a summary or an error shows


class _Skip(Exception):
    """Why a file gives no clip."""


class VideoFolder(Stream):
    """Every GIF, MP4, WebM, MOV, AVI or MKV clip of a folder and its sub-folders, of any size, length and frame rate.

    image_size: each frame is cropped at its centre to a square and resized to this, bilinear with antialiasing. Pixels are taken to be
    square; transparent ones become black. num_frames: of the clips that `sample` draws; a file must have as many. channels: 1 (luma,
    0.299 R + 0.587 G + 0.114 B) or 3 (RGB). fps: frames a second to resample to: frame n is the one on screen in the middle of the n-th
    interval of 1 / fps seconds. None takes the file's frames one by one, whatever their times: give a number for GIFs whose frames last
    unequally long (programs that write GIFs join equal frames into a long one), or for files of different rates. A GIF frame of 10 ms or
    less counts as 100 ms, as browsers do. captions: a CSV file in the folder, in UTF-8, with the columns `file` (path in the folder) and
    `caption` (any text); every clip needs one then. If there is no file of the default name, clips have no captions; None ignores it.
    device: where the clips are kept and `video` is made.

    Everything is decoded once, frame by frame, and kept as uint8: frames x channels x image_size^2 bytes, so a minute at 8 fps in grey at
    32 pixels is 480 x 1024 = 0.5 MB, and an hour at 30 fps in RGB at 64 pixels 108,000 x 3 x 4096 = 1.3 GB.

    files: the clips' paths in the folder, sorted; clips: each (C, T, H, W) uint8; texts: their captions, or None; skipped: what could not
    be used, path -> reason. `print(dataset)` sums up. Hidden files are ignored.
    Raises DataError when there is no such folder, no clip is left, ffmpeg is missing or the captions file is missing or faulty;
    ValueError for bad arguments.
    """

    def __init__(self, folder: str | Path, image_size: int = 32, num_frames: int = 16, channels: int = 1, fps: float | None = None,
                 captions: str | Path | None = CAPTIONS_FILE, seed: int = 0, device: torch.device | str = "cpu") -> None:
        if image_size < 1 or num_frames < 1:
            raise ValueError(f"image_size and num_frames must be at least 1, not {image_size} and {num_frames}.")
        if channels not in (1, 3):
            raise ValueError(f"channels must be 1 (grey) or 3 (RGB), not {channels}.")
        if fps is not None and not 0 < fps < math.inf:
            raise ValueError(f"fps must be more than 0, or None for the files' own frames, not {fps}.")
        folder = Path(folder).expanduser().resolve()  # absolute: ffmpeg takes the start of `a:b/c.mp4` for a protocol
        if not folder.is_dir():
            raise DataError(f"There is no folder {folder}: name one with clips ({', '.join(SUFFIXES)}).")
        self.seed, self.image_size, self.num_frames, self.channels, self.fps = seed, image_size, num_frames, channels, fps
        beside = folder / (captions or CAPTIONS_FILE)
        texts = None
        if captions is not None and (beside.exists() or str(captions) != CAPTIONS_FILE):
            texts = _read_captions(beside)
        names = _names(folder, beside)
        self.files: list[str] = []
        self.clips: list[torch.Tensor] = []
        self.skipped = {name: f"named in {beside.name}, but not in the folder" for name in set(texts or ()) - {_spelt(name) for name in names}}
        for name in tqdm(names, desc="decoding clips", unit="file", delay=3, file=progress_file()):
            try:
                if Path(name).suffix.lower() not in SUFFIXES:
                    raise _Skip("not a GIF or video by its name")
                if texts is not None and not texts.get(_spelt(name)):
                    raise _Skip(f"no caption in {beside.name}")
                clip = torch.from_numpy(self._read(folder / name))
            except _Skip as reason:
                self.skipped[name] = str(reason)
            else:
                self.files.append(name)
                self.clips.append(rearrange(clip, "t h w c -> c t h w").contiguous().to(device))
        self.skipped = dict(sorted(self.skipped.items()))
        self.texts = None if texts is None else [texts[_spelt(name)] for name in self.files]
        if not self.clips:
            raise DataError(f"No clip in {folder} can be used. Put clips ({', '.join(SUFFIXES)}) of at least {num_frames} frames there, or ask for "
                            f"fewer num_frames.{self._skipped_lines()}")

    def drawn(self, seed: int, num_frames: int | None = None) -> VideoFolder:
        """The same clips, not copied, from which `sample` draws with another seed, and stretches of another length. ValueError for a length above this folder's num_frames."""
        if not 1 <= (num_frames or 1) <= self.num_frames:
            raise ValueError(f"These clips have at least {self.num_frames} frames; num_frames cannot be {num_frames}.")
        other = copy.copy(self)
        other.seed, other.num_frames, other._next = seed, num_frames or self.num_frames, 0
        return other

    @property
    def digest(self) -> str:
        """12 hexadecimal digits that change with the files' names and lengths, captions, and how clips are read."""
        lengths = [clip.shape[1] for clip in self.clips]
        return hashlib.sha256(repr((self.files, lengths, self.texts, self.image_size, self.num_frames, self.channels, self.fps)).encode()).hexdigest()[:12]

    def __len__(self) -> int:
        """The number of clips."""
        return len(self.clips)

    def __getitem__(self, i: int) -> torch.Tensor:
        """Clip `i`, whole: (C, T, H, W) float32 in [-1, 1]."""
        return self.clips[i].float() / 127.5 - 1

    def __repr__(self) -> str:
        lengths = [clip.shape[1] for clip in self.clips]
        frames = f"{min(lengths)} frames" if min(lengths) == max(lengths) else f"{min(lengths)} to {max(lengths)} frames"
        colour, rate = "grey" if self.channels == 1 else "RGB", "" if self.fps is None else f" at {self.fps:g} fps"
        megabytes = sum(clip.numel() for clip in self.clips) / 1e6
        return (f"VideoFolder: {len(self)} clip{'s' * (len(self) > 1)} of {frames}{rate}, {self.image_size} x {self.image_size} {colour}, "
                f"with{'out' * (self.texts is None)} captions, {megabytes:.1f} MB{self._skipped_lines()}")

    def _skipped_lines(self) -> str:
        if not self.skipped:
            return ""
        lines = [f"  {name}: {reason}" for name, reason in list(self.skipped.items())[:LISTED]]
        if len(self.skipped) > LISTED:
            lines.append(f"  and {len(self.skipped) - LISTED} more")
        return "\n".join([f"\nSkipped {len(self.skipped)}:", *lines])

    def sample(self, num: int, index: int | None = None, rows: slice = slice(None)) -> Batch:
        """`num` stretches of num_frames frames, video (num, C, T, H, W): a clip, then its start, each drawn uniformly.

        `index`: the batch's number, by default the next. rows: make only these of the num.
        """
        if num < 1:
            raise ValueError(f"num must be at least 1, not {num}.")
        g = self._generator(index)
        chosen = torch.randint(len(self), (num,), generator=g)[rows].tolist()
        place = torch.rand(num, generator=g, dtype=torch.float64)[rows].tolist()  # in [0, 1) of the possible starts
        windows = []
        for i, share in zip(chosen, place):
            start = int(share * (self.clips[i].shape[1] - self.num_frames + 1))
            windows.append(self.clips[i][:, start:start + self.num_frames])
        captions = None if self.texts is None else [self.texts[i] for i in chosen]
        return Batch(torch.stack(windows).float() / 127.5 - 1, captions=captions)

    def _read(self, path: Path) -> np.ndarray:
        """The whole clip (T, H, W, C) uint8, or _Skip."""
        try:
            if not stat.S_ISREG(path.stat().st_mode):
                raise _Skip("not a regular file")  # opening a named pipe would hang
            with path.open("rb") as opened:
                start = opened.read(8)
        except OSError as error:
            raise _Skip(f"cannot be opened ({error.strerror})") from error
        if not start:
            raise _Skip("empty file")
        if start.startswith(b"RIFF") and int.from_bytes(start[4:], "little") + 8 > path.stat().st_size:
            raise _Skip("cut off: the file is shorter than it says")  # ffmpeg accepts such an AVI
        if path.suffix.lower() == ".gif":
            source = _gif_frames(path, self.fps)
        else:
            _check_container(path)
            source = _video_frames(path, self.fps)
        frames: list[np.ndarray] = []
        try:
            for frame in source:
                frames.append(_square(frame, self.image_size, self.channels))
        except (_Skip, MemoryError):
            raise
        except Exception as error:  # decoders raise anything at all on damaged files, and one such file must not stop the others
            raise _Skip(f"damaged or cut off after {len(frames)} frames ({type(error).__name__})") from error
        if len(frames) < self.num_frames:
            rate = "" if self.fps is None else f" at {self.fps:g} fps"
            raise _Skip(f"too short: {len(frames)} frame{'s' * (len(frames) != 1)}{rate}, num_frames is {self.num_frames}")
        return np.stack(frames)


def _names(folder: Path, captions: Path) -> list[str]:
    """Paths in the folder of all its files but the captions and hidden ones (.DS_Store, .ipynb_checkpoints/...), sorted."""
    paths = [path.relative_to(folder) for path in folder.rglob("*") if path != captions and not path.is_dir()]
    return sorted(path.as_posix() for path in paths if not any(part.startswith(".") for part in path.parts))


def _spelt(name: str) -> str:
    """A name with letters such as é as one code point: some systems write two, and the captions file may come from another."""
    return unicodedata.normalize("NFC", name)


def _read_captions(file: Path) -> dict[str, str]:
    """Path in the folder, as `_spelt`, -> caption (may be empty) from a CSV file with the columns `file` and `caption`, or DataError."""
    captions: dict[str, str] = {}
    try:
        with file.open(newline="", encoding="utf-8-sig") as opened:  # -sig: Excel puts a byte order mark in front
            reader = csv.DictReader(opened, skipinitialspace=True, strict=True)
            header = reader.fieldnames or []
            for column in ("file", "caption"):
                if column not in header:
                    raise DataError(f"{file.name} has no column {column!r}: its first line must be `file,caption`, with a comma; it is `{','.join(header)}`.")
            for row in reader:
                where = f"{file.name}, line {reader.line_num}"
                if None in row:
                    raise DataError(f"{where}: more values than columns. Put a caption that holds a comma in double quotes.")
                name, caption = ((row[column] or "").strip() for column in ("file", "caption"))
                if not name and not caption:
                    continue  # spreadsheets write such lines below the table
                if not name:
                    raise DataError(f"{where}: a caption without a file. Give the clip's path in the folder, as in `clips/a.gif`.")
                name = _spelt(PurePosixPath(name.replace("\\", "/")).as_posix())
                if name in captions:
                    raise DataError(f"{where}: {name} has a caption already. Keep one line for each file.")
                captions[name] = caption
    except FileNotFoundError as error:
        raise DataError(f"There is no captions file {file}: make one whose first line is `file,caption`, or pass captions=None.") from error
    except OSError as error:
        raise DataError(f"{file.name} cannot be read ({error.strerror}): see to its permissions, or pass captions=None.") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{file.name} is not in UTF-8: save it as UTF-8 (in a spreadsheet, \"CSV UTF-8\").") from error
    except csv.Error as error:
        raise DataError(f"{file.name} is no proper CSV ({error}): look for a double quote that is not closed.") from error
    return captions


def _square(frame: np.ndarray, image_size: int, channels: int) -> np.ndarray:
    """(H, W, 3 or 4) uint8 -> (image_size, image_size, channels) uint8: the square at the centre, on black, resized."""
    height, width = frame.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    picture = Image.fromarray(np.ascontiguousarray(frame[top:top + side, left:left + side]))
    if picture.mode == "RGBA":
        seen, picture = picture, Image.new("RGB", picture.size)
        picture.paste(seen, mask=seen)
    picture = picture.resize((image_size, image_size), Image.Resampling.BILINEAR)
    return np.array(picture.convert("L" if channels == 1 else "RGB")).reshape(image_size, image_size, channels)


def _gif_frames(path: Path, fps: float | None) -> Iterator[np.ndarray]:
    """Frames (H, W, 4) uint8 of a GIF, at `fps` if given; _Skip if it is not a GIF, or its end is missing."""
    end = shown = 0  # milliseconds to the end of the frame, intervals of 1 / fps so far
    with path.open("rb") as stream:
        if stream.read(6) not in (b"GIF87a", b"GIF89a"):
            raise _Skip("not a GIF, whatever its name says")
        stream.seek(0)
        with iio.imopen(stream, "r", plugin="pillow") as file:
            for k, frame in enumerate(file.iter(mode="RGBA")):
                duration = file.metadata(index=k).get("duration", 0)
                end += duration if duration > 10 else 100
                # Intervals whose middle has passed by now, as ffmpeg's filter counts; a middle between two frames goes to the earlier one.
                times = 1 if fps is None else math.floor(end * fps / 1000 + 0.5 + 1e-6) - shown
                shown += times
                yield from repeat(frame, times)
            # Pillow reads to the GIF's end mark and accepts the end of the file as one: missing whole frames raise nothing.
            stream.seek(-1, 1)
            if stream.read(1) != b";":
                raise _Skip("cut off: the GIF's end is missing")


def _video_frames(path: Path, fps: float | None) -> Iterator[np.ndarray]:
    """Frames (H, W, 3) uint8 of a video, upright, at `fps` if given. ffmpeg picks them by their time stamps, which may be uneven."""
    resample = [] if fps is None else ["-vf", f"fps={float(fps)!r}:round=near"]
    with _quiet():
        yield from iio.imiter(path, plugin="FFMPEG", output_params=[*resample, "-fps_mode", "passthrough"])


@contextmanager
def _quiet() -> Iterator[None]:
    """imageio-ffmpeg warns of every phone clip it turns upright, though nothing is wrong."""
    logger = logging.getLogger("imageio_ffmpeg")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _check_container(path: Path) -> None:
    """_Skip unless ffmpeg can read the file's video stream to its end (read, not decode: this is quick).

    The decoder alone would silently hand out the frames before a cut. A cut that falls exactly between two frames of a file whose
    index comes first is not noticed: its frames are whole, there are only fewer.
    """
    try:
        import imageio_ffmpeg

        program = imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError) as error:
        raise DataError(f"{path.name} needs ffmpeg: `pip install imageio[ffmpeg]`, or save the clips as GIF.") from error
    command = [program, "-v", "error", "-xerror", "-i", str(path), "-map", "0:v:0", "-c", "copy", "-f", "null", "-"]
    result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False)
    if result.returncode or "prematurely" in result.stderr:
        complaint = re.sub(LOG_PREFIX, "", result.stderr.split("\n")[0])
        raise _Skip(f"damaged, cut off or not a video (ffmpeg: {complaint.strip()})")
