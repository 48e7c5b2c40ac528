"""The published file of Moving MNIST. It is used like `data.MovingMNIST`: `sample(num)` gives a Batch."""

from __future__ import annotations

import errno
import hashlib
import urllib.error
from http.client import HTTPException
from pathlib import Path

import numpy as np
import torch
from einops import rearrange

from .data import CANVAS, Batch, DataError, Stream, shrink

PUBLISHED_FILE = "MovingMNIST/mnist_test_seq.npy"  # below root, where torchvision keeps it
PUBLISHED_MD5 = "be083ec986bfe91a449d63653c411eb2"
PUBLISHED_FRAMES = 20


class PublishedMovingMNIST(Stream):
    """The 10,000 clips that Srivastava et al. 2015 (arXiv 1502.04681) published, each of two digits; no labels, no captions.

    root: folder that holds MovingMNIST/mnist_test_seq.npy (781 MiB). image_size: 64 or a divisor of it, at least 8 (whole blocks of
    pixels are averaged). num_frames: the first 1 to 20 of a clip's 20 frames. download: True fetches the file when it is not there
    (through torchvision). device: where `video` is made; the clips stay in main memory as uint8. md5: what the file's MD5 must be;
    None skips the check, for a file of your own in the same layout, (20, clips, 64, 64) uint8.

    Construction takes a few seconds (the check reads the file) and briefly about 1.6 GB of memory, half of which stays in use.
    All clips are taken: torchvision's own "train" and "test" split the frames of each clip, not the clips.
    Raises DataError when the file is missing, damaged or of another layout, when it cannot be fetched, and for more than 20 frames;
    ValueError for other bad arguments.
    """

    def __init__(self, root: str | Path, seed: int = 0, image_size: int = 32, num_frames: int = 16, download: bool = False,
                 device: torch.device | str = "cpu", md5: str | None = PUBLISHED_MD5) -> None:
        if image_size < 8 or CANVAS % image_size:
            raise ValueError(f"image_size must divide {CANVAS} and be at least 8 (32 and 64 are usual), not {image_size}.")
        if num_frames < 1:
            raise ValueError(f"num_frames must be at least 1, not {num_frames}.")
        if num_frames > PUBLISHED_FRAMES:
            raise DataError(f"The published clips have {PUBLISHED_FRAMES} frames, so num_frames={num_frames} cannot be had from them: ask for at most "
                            f"{PUBLISHED_FRAMES}, or use utils.data.MovingMNIST, which makes clips of any length.")
        root = Path(root).expanduser()
        file = root / PUBLISHED_FILE
        if file.exists():
            _check_published(file, md5)
        elif not download:
            raise DataError(f"There is no {PUBLISHED_FILE} below root: pass download=True to fetch it (781 MiB), or put the file there.")
        self.clips = _load_published(root, file, md5, download)  # (clips, 20, 1, 64, 64) uint8
        self.seed, self.image_size, self.num_frames, self.device = seed, image_size, num_frames, torch.device(device)

    def __len__(self) -> int:
        """The number of clips."""
        return len(self.clips)

    def sample(self, num: int, index: int | None = None) -> Batch:
        """`num` clips drawn at random, video (num, 1, T, H, W). `index`: the batch's number, by default the next."""
        if num < 1:
            raise ValueError(f"num must be at least 1, not {num}.")
        chosen = torch.randint(len(self), (num,), generator=self._generator(index))
        canvas = self.clips[chosen][:, :self.num_frames, 0].to(self.device)
        return Batch(rearrange(shrink(canvas, self.image_size), "b t h w -> b 1 t h w"))


def _md5(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "md5").hexdigest()


def _check_published(file: Path, md5: str | None) -> None:
    """DataError unless the file has this MD5 (None: any) and holds (20, clips, 64, 64) uint8; reads little memory."""
    again = f"Delete {PUBLISHED_FILE} below root and call again with download=True (781 MiB)."
    try:
        if md5 is not None and _md5(file) != md5:
            raise DataError(f"{PUBLISHED_FILE} is damaged or cut off: its {file.stat().st_size:,} bytes do not have the MD5 {md5}. {again}")
        array = np.lib.format.open_memmap(file, mode="r")
    except ValueError as error:
        raise DataError(f"{PUBLISHED_FILE} is damaged or no .npy file ({error}). {again}") from error
    except OSError as error:
        raise DataError(f"{PUBLISHED_FILE} cannot be read ({error.strerror}): see to its permissions.") from error
    shape = array.shape
    if array.dtype != np.uint8 or len(shape) != 4 or shape[0] != PUBLISHED_FRAMES or shape[1] < 1 or shape[2:] != (CANVAS, CANVAS):
        raise DataError(f"{PUBLISHED_FILE} holds {array.dtype} of shape {shape}, expected uint8 of shape "
                        f"({PUBLISHED_FRAMES}, clips, {CANVAS}, {CANVAS}). {again}")


def _load_published(root: Path, file: Path, md5: str | None, download: bool) -> torch.Tensor:
    """The clips (N, 20, 1, 64, 64) uint8; fetches the file if it is not there. A fetch that fails leaves no file behind."""
    from torchvision.datasets import MovingMNIST  # slow to import

    fetching = not file.exists()
    try:
        return MovingMNIST(root, split=None, download=download).data
    except BaseException as error:  # Ctrl-C too: torchvision writes under the final name, and uses what is there the next time
        if not fetching or (file.exists() and _md5(file) == md5):
            raise
        file.unlink(missing_ok=True)
        if isinstance(error, (OSError, HTTPException, RuntimeError)):
            raise DataError(f"{PUBLISHED_FILE} could not be fetched. {_why_not_fetched(error)} Nothing half-written was kept.") from error
        raise


def _why_not_fetched(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "The disk is full: free at least 800 MB, or name a root on another disk, then call again."
    if isinstance(error, (urllib.error.URLError, HTTPException, ConnectionError, TimeoutError)):
        return (f"The server did not deliver it ({error}): check the network and call again, or bring the file from another machine. "
                "utils.data.MovingMNIST makes such clips without any file.")
    if isinstance(error, OSError):
        return f"It could not be written ({error.strerror}): name a root that you may write to."
    return "What arrived is not the published file: call again."
