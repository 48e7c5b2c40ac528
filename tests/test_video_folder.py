"""Real GIF and MP4 files against what was put into them; every fault of a folder tried."""

import builtins
import importlib.util
import logging
import math
import os
import shutil
import subprocess
import tracemalloc
import unicodedata
from fractions import Fraction

import imageio.v3 as iio
import imageio_ffmpeg
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from utils import published, video_folder
from utils.data import DataError
from utils.video_folder import VideoFolder

RED, GREEN, BLUE, WHITE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)


def moving(frames=20, height=64, width=64, colour=WHITE, ground=BLACK, side=8):
    """(T, H, W, 3) uint8: a square whose left edge is at column k in frame k."""
    video = np.empty((frames, height, width, 3), np.uint8)
    video[:] = ground
    for k in range(frames):
        video[k, height // 2 - side // 2:height // 2 + side // 2, k:k + side] = colour
    return video


def gif(path, video, durations=100):
    """durations: milliseconds, one number or one for each frame. No two frames that follow each other may be equal: Pillow would join them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(iio.imwrite("<bytes>", video, extension=".gif", plugin="pillow", duration=durations, loop=0))
    return path


def mp4(path, video, fps=10, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    settings = {"quality": None, "pixelformat": "yuv444p", "macro_block_size": 1, "output_params": ["-qp", "1", "-preset", "ultrafast"]} | options
    iio.imwrite(path, video, plugin="FFMPEG", fps=fps, **settings)
    return path


def ffmpeg(*arguments):
    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-v", "error", *map(str, arguments)], check=True, stdin=subprocess.DEVNULL)


def levels(clip):
    """[-1, 1] float to 0-255, (C, T, H, W) to (T, H, W, C)."""
    return ((clip + 1) * 127.5).permute(1, 2, 3, 0).numpy()


def frame_numbers(clip):
    """Which frame of `moving` each frame of a (1, T, 64, 64) clip is: the column of the square's left edge."""
    bright = (clip[0, :, 28:36] > 0).float().mean(1) > 0.5  # (T, W)
    return bright.float().argmax(1).tolist()


def on_screen(durations, fps):
    """By exact arithmetic: frame on screen in the middle of each 1 / fps of a clip whose frames last `durations` seconds."""
    ends = [sum(durations[:k + 1]) for k in range(len(durations))]
    count = math.floor(ends[-1] * fps + Fraction(1, 2))
    return [next(k for k, end in enumerate(ends) if end >= (n + Fraction(1, 2)) / fps) for n in range(count)]


@pytest.mark.parametrize(("height", "width"), [(37, 50), (50, 37), (37, 37), (38, 61)])
def test_a_gif_is_its_centre_square_in_its_own_colours(tmp_path, height, width):
    video = moving(6, height, width, RED, BLUE)
    video[:, :3], video[:, -3:] = GREEN, WHITE
    gif(tmp_path / "a.gif", video)
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    found = levels(VideoFolder(tmp_path, image_size=side, num_frames=6, channels=3)[0])
    assert np.abs(found - video[:, top:top + side, left:left + side]).max() < 1e-3


@pytest.mark.parametrize("fps", [10, 30])
def test_an_mp4_is_its_centre_square_in_its_own_colours(tmp_path, fps):
    video = moving(12, 37, 50, RED, BLUE)
    mp4(tmp_path / "a.mp4", video, fps)
    found = VideoFolder(tmp_path, image_size=37, num_frames=12, channels=3)[0]
    assert found.shape == (3, 12, 37, 37) and found.dtype == torch.float32
    assert np.abs(levels(found) - video[:, :, 6:43]).max() < 8  # the codec's rounding; a channel swap is 255


def test_grey_is_luma_and_black_and_white_are_the_ends_of_the_range(tmp_path):
    colours = [RED, GREEN, BLUE, WHITE, BLACK]
    gif(tmp_path / "a.gif", np.stack([np.full((16, 16, 3), colour, np.uint8) for colour in colours]))
    found = VideoFolder(tmp_path, image_size=16, num_frames=5)[0]
    assert found.shape == (1, 5, 16, 16)
    expected = torch.tensor([0.299 * r + 0.587 * g + 0.114 * b for r, g, b in colours]) / 127.5 - 1
    assert (found[0, :, 8, 8] - expected).abs().max() < 0.6 / 127.5
    assert found[0, 3].min() == 1 and found[0, 4].max() == -1


def test_resizing_antialiases_and_enlarges(tmp_path):
    rng = np.random.default_rng(0)
    levels_of_grey = rng.integers(0, 256, (2, 50, 50, 1), dtype=np.uint8).repeat(3, 3)
    gif(tmp_path / "noise" / "a.gif", levels_of_grey)
    board = np.indices((64, 64)).sum(0) % 2 * 255
    gif(tmp_path / "board" / "a.gif", np.stack([board, 255 - board]).astype(np.uint8)[..., None].repeat(3, 3))
    grey = torch.from_numpy(levels_of_grey[..., 0]).float()[:, None]
    for size in (17, 32, 80):
        found = (VideoFolder(tmp_path / "noise", image_size=size, num_frames=2)[0][0] + 1) * 127.5
        expected = F.interpolate(grey, (size, size), mode="bilinear", antialias=True)[:, 0]
        assert (found - expected).abs().max() < 1.5
    assert VideoFolder(tmp_path / "board", image_size=16, num_frames=2)[0][:, :, 2:-2, 2:-2].abs().max() < 0.05  # mid-grey, no moire


UNEVEN = [100, 200, 50, 50, 300, 20, 80, 1000, 30, 40, 70, 60, 110, 90, 130]


@pytest.mark.parametrize("fps", [2, 5, 7.5, 10, 12.5, 20, 25, 60])
def test_resampling_a_gif_honours_each_frames_duration(tmp_path, fps):
    gif(tmp_path / "a.gif", moving(len(UNEVEN)), UNEVEN)
    expected = on_screen([Fraction(d, 1000) for d in UNEVEN], Fraction(fps))
    assert frame_numbers(VideoFolder(tmp_path, image_size=64, num_frames=1, fps=fps)[0]) == expected
    assert frame_numbers(VideoFolder(tmp_path, image_size=64, num_frames=1)[0]) == list(range(len(UNEVEN)))


def test_gif_frames_of_no_duration_last_as_long_as_in_a_browser(tmp_path):
    gif(tmp_path / "a.gif", moving(6), [10, 0, 20, 10, 40, 0])
    expected = on_screen([Fraction(d, 1000) for d in (100, 100, 20, 100, 40, 100)], 50)
    assert frame_numbers(VideoFolder(tmp_path, image_size=64, num_frames=1, fps=50)[0]) == expected


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """10 and 30 frames a second, and 30 for the first ten frames and 10 from then on."""
    folder = tmp_path_factory.mktemp("videos")
    mp4(folder / "10.mp4", moving(24), 10)
    mp4(folder / "30.mp4", moving(48), 30)
    uneven = ["-vf", "select='lt(n,10)+not(mod(n+2,3))'", "-fps_mode", "vfr", "-qp", "1", "-bf", "0"]
    mp4(folder / "vfr.mp4", moving(40), 30, output_params=uneven)
    return folder


@pytest.mark.parametrize("fps", [5, 7.5, 20, 60])
def test_resampling_videos_takes_the_frame_on_screen(videos, fps):
    clips = dict(zip(["10.mp4", "30.mp4", "vfr.mp4"], map(frame_numbers, VideoFolder(videos, image_size=64, num_frames=1, fps=fps))))
    for rate, frames in ((10, 24), (30, 48)):
        assert clips[f"{rate}.mp4"] == on_screen([Fraction(1, rate)] * frames, Fraction(fps))
    frames = [*range(10), *range(10, 40, 3)]
    times = [Fraction(k, 30) for k in [*frames, 40]]
    expected = [frames[k] for k in on_screen([after - at for at, after in zip(times, times[1:])], Fraction(fps))]
    found = clips["vfr.mp4"]  # the file does not say how long its last frame lasts
    assert found == expected[:len(found)] and len(found) >= len(expected) - math.ceil(fps / 10)


def test_videos_keep_their_frames_without_fps(videos):
    clips = [frame_numbers(clip) for clip in VideoFolder(videos, image_size=64, num_frames=1)]
    assert clips == [list(range(24)), list(range(48)), [*range(10), *range(10, 40, 3)]]


def test_transparent_pixels_become_black(tmp_path):
    video = np.concatenate([moving(5, 40, 40, WHITE, RED), np.full((5, 40, 40, 1), 255, np.uint8)], 3)
    video[:, :, 20:, 3] = 0
    gif(tmp_path / "a.gif", video)
    found = levels(VideoFolder(tmp_path, image_size=40, num_frames=5, channels=3)[0])
    assert np.abs(found - video[..., :3] * (video[..., 3:] > 0)).max() < 1e-3
    assert found[:, :, 20:].max() < 1e-3 and found[:, 0, 0, 0].min() > 254


def test_a_single_frame_gif_is_a_still_or_too_short(tmp_path):
    gif(tmp_path / "still.gif", moving(1), 2000)
    assert VideoFolder(tmp_path, num_frames=1)[0].shape == (1, 1, 32, 32)
    assert VideoFolder(tmp_path, num_frames=16, fps=8)[0].shape == (1, 16, 32, 32)  # two seconds of it
    with pytest.raises(DataError, match="still.gif: too short: 1 frame, num_frames is 2"):
        VideoFolder(tmp_path, num_frames=2)


def faststart(path):
    """Rewrite an MP4 with its index in front, as on the web: cut off, it still plays up to the cut."""
    ffmpeg("-i", path, "-c", "copy", "-movflags", "+faststart", path.with_suffix(".fast.mp4"))
    return path.with_suffix(".fast.mp4").rename(path)


def cut(source, target, share):
    target.write_bytes(source.read_bytes()[:int(source.stat().st_size * share)])


def test_what_cannot_be_used_is_skipped_and_reported(tmp_path, videos, caplog, capfd):
    good, rng = gif(tmp_path / "sub" / "deeper" / "GOOD.GIF", moving(20)), np.random.default_rng(0)
    shutil.copy(videos / "10.mp4", tmp_path / "Other.Mp4")
    shutil.copy(videos / "10.mp4", tmp_path / "a name with %03d spaces.mp4")
    shutil.copy(good, tmp_path / "really_a_gif.webm")
    noisy = mp4(tmp_path / "noisy.mp4", rng.integers(0, 255, (20, 32, 32, 3), dtype=np.uint8))
    for name in ("cut.mkv", "cut.avi", "whole.avi", "whole.mkv"):
        ffmpeg("-i", noisy, "-c", "copy", tmp_path / name)
    for name in ("cut.mkv", "cut.avi"):
        cut(tmp_path / name, tmp_path / name, 0.6)
    cut(noisy, tmp_path / "cut_before_its_index.mp4", 0.7)
    cut(faststart(noisy), tmp_path / "cut_after_its_index.mp4", 0.7)
    cut(good, tmp_path / "cut.gif", 0.5)
    bent = bytearray(good.read_bytes())
    bent[len(bent) // 2:len(bent) // 2 + 40] = b"\xff" * 40
    (tmp_path / "bent.gif").write_bytes(bent)
    (tmp_path / "empty.gif").touch()
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("not a video at all\n" * 50)
    (tmp_path / "text.gif").write_text("not a GIF\n")
    shutil.copy(videos / "10.mp4", tmp_path / "video.gif")
    iio.imwrite(tmp_path / "picture.png", moving(1)[0])
    shutil.copy(tmp_path / "picture.png", tmp_path / "picture.gif")
    ffmpeg("-f", "lavfi", "-i", "sine=d=1", tmp_path / "sound.mp4")
    (tmp_path / "notes.txt").write_text("notes")
    (tmp_path / "sub" / "link.mp4").symlink_to(tmp_path / "gone.mp4")
    gif(tmp_path / "sub" / "short.gif", moving(15))
    (tmp_path / ".hidden.gif").write_text("x")
    shutil.copytree(videos, tmp_path / ".ipynb_checkpoints")
    (tmp_path / "folder.gif").mkdir()
    for logger in ("imageio", "imageio_ffmpeg"):
        caplog.set_level(logging.DEBUG, logger)
    capfd.readouterr()

    dataset = VideoFolder(tmp_path)
    assert dataset.files == ["Other.Mp4", "a name with %03d spaces.mp4", "noisy.mp4", "really_a_gif.webm", "sub/deeper/GOOD.GIF", "whole.avi", "whole.mkv"]
    expected = {
        "bent.gif": "damaged", "cut.avi": "shorter than it says", "cut.gif": "cut off", "cut.mkv": "cut off", "cut_after_its_index.mp4": "cut off",
        "cut_before_its_index.mp4": "cut off", "empty.gif": "empty file", "empty.mp4": "empty file", "notes.txt": "by its name",
        "picture.gif": "not a GIF", "picture.png": "by its name", "sound.mp4": "not a video", "sub/link.mp4": "No such file",
        "sub/short.gif": "too short: 15 frames, num_frames is 16", "text.gif": "not a GIF", "text.mp4": "not a video", "video.gif": "not a GIF"}
    assert list(dataset.skipped) == sorted(expected)
    for name, reason in dataset.skipped.items():
        assert expected[name] in reason and str(tmp_path) not in reason and "\n" not in reason and "0x" not in reason
    report = repr(dataset).splitlines()
    assert report[0] == "VideoFolder: 7 clips of 20 to 24 frames, 32 x 32 grey, without captions, 0.2 MB"
    assert report[1] == "Skipped 17:" and report[2:] == [f"  {name}: {reason}" for name, reason in dataset.skipped.items()]
    assert not caplog.records and capfd.readouterr() == ("", "")


def test_a_folder_may_be_relative_or_below_the_home_folder(tmp_path, videos, monkeypatch):
    (tmp_path / "my:clips").mkdir()
    shutil.copy(videos / "10.mp4", tmp_path / "my:clips")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert VideoFolder("my:clips").files == VideoFolder("~/my:clips").files == ["10.mp4"]


def test_a_gif_cut_anywhere_is_noticed(tmp_path):
    whole = gif(tmp_path / "whole.gif", np.random.default_rng(0).integers(0, 255, (4, 8, 8, 3), dtype=np.uint8)).read_bytes()
    (tmp_path / "z_with_junk_behind.gif").write_bytes(whole + b"junk")
    for size in range(1, len(whole), 7):
        (tmp_path / f"{size:05}.gif").write_bytes(whole[:size])
    between = [i for i in range(len(whole)) if whole[i:i + 3] == b"!\xf9\x04"]  # where a frame begins: everything before is in order
    for size in between[1:] + [len(whole) - 1]:
        (tmp_path / f"{size:05}.gif").write_bytes(whole[:size])
    dataset = VideoFolder(tmp_path, image_size=8, num_frames=1)
    assert dataset.files == ["whole.gif", "z_with_junk_behind.gif"] and len(between) == 4
    assert len(dataset.skipped) > len(whole) // 7
    assert len(repr(dataset).splitlines()) == 2 + video_folder.LISTED + 1 and f"and {len(dataset.skipped) - video_folder.LISTED} more" in repr(dataset)


def test_a_file_without_read_permission_is_reported(tmp_path):
    gif(tmp_path / "a.gif", moving())
    gif(tmp_path / "b.gif", moving()).chmod(0)
    if os.access(tmp_path / "b.gif", os.R_OK):
        pytest.skip("this user may read every file")
    dataset = VideoFolder(tmp_path)
    assert dataset.files == ["a.gif"] and "Permission denied" in dataset.skipped["b.gif"]


def test_a_named_pipe_is_passed_over(tmp_path):
    gif(tmp_path / "a.gif", moving())
    os.mkfifo(tmp_path / "pipe.gif")
    dataset = VideoFolder(tmp_path)
    assert dataset.files == ["a.gif"] and dataset.skipped == {"pipe.gif": "not a regular file"}


def test_what_a_decoder_raised_is_named_and_full_memory_is_no_damage(tmp_path, monkeypatch):
    for name in ("a.gif", "b.gif"):
        gif(tmp_path / name, moving())
    square = video_folder._square

    def failing(error):
        calls = []

        def once(*arguments):
            calls.append(arguments)
            if len(calls) == 3:
                raise error
            return square(*arguments)

        return once

    monkeypatch.setattr(video_folder, "_square", failing(KeyError("no such colour")))
    assert VideoFolder(tmp_path).skipped == {"a.gif": "damaged or cut off after 2 frames (KeyError)"}
    monkeypatch.setattr(video_folder, "_square", failing(MemoryError()))
    with pytest.raises(MemoryError):
        VideoFolder(tmp_path)


@pytest.mark.parametrize(("there", "written"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_names_are_the_same_however_their_letters_are_put_together(tmp_path, there, written):
    """A Mac writes é as two signs, others as one."""
    name = "caf\u00e9/\u00fc.gif"
    gif(tmp_path / unicodedata.normalize(there, name), moving())
    (tmp_path / "captions.csv").write_text(f"file,caption\n{unicodedata.normalize(written, name)},3 and 7\n", encoding="utf-8")
    dataset = VideoFolder(tmp_path)
    assert dataset.files == [unicodedata.normalize(there, name)] and dataset.texts == ["3 and 7"] and not dataset.skipped


def test_a_clip_that_a_phone_filmed_upright_is_upright_and_silent(tmp_path, videos, caplog):
    wide = mp4(tmp_path / "source" / "wide.mp4", moving(16, 32, 64))
    (tmp_path / "clips").mkdir()
    ffmpeg("-display_rotation", "90", "-i", wide, "-c", "copy", tmp_path / "clips" / "phone.mp4")
    caplog.set_level(logging.INFO, "imageio_ffmpeg")
    clip = VideoFolder(tmp_path / "clips", image_size=32)[0][0]  # the middle 32 of 64 columns, turned to the left: column k is row 63 - k
    assert not caplog.records and logging.getLogger("imageio_ffmpeg").level == logging.INFO
    rows = (clip[-1] > 0).any(1).nonzero().flatten()  # columns 16 to 22 of the last frame
    assert clip[0].max() < 0 and rows.tolist() == list(range(47 - 22, 32))


def test_large_videos_are_never_in_memory_whole(tmp_path):
    mp4(tmp_path / "a.mp4", np.broadcast_to(np.uint8(90), (40, 400, 400, 3)), pixelformat="yuv420p")  # 19 MB of frames
    steps = np.arange(40, dtype=np.uint8)[:, None, None, None] * 6
    gif(tmp_path / "b.gif", np.broadcast_to(steps, (40, 400, 400, 3)))
    VideoFolder(tmp_path)  # modules that decoders import
    tracemalloc.start()
    dataset = VideoFolder(tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(dataset) == 2 and dataset.clips[0].dtype == torch.uint8 and peak < 6e6


@pytest.fixture(scope="module")
def shades(tmp_path_factory):
    """Three clips told apart by their ground and, frame by frame, by the square's place."""
    folder = tmp_path_factory.mktemp("shades")
    for name, shade, frames in (("dark.gif", 40, 18), ("mid/grey.gif", 90, 24), ("pale.gif", 140, 30)):
        gif(folder / name, moving(frames, ground=(shade,) * 3))
    return folder


def test_samples_are_stretches_of_the_clips_with_their_captions(tmp_path, shades):
    shutil.copytree(shades, tmp_path, dirs_exist_ok=True)
    table = "file, caption,by\r\nmid\\grey.gif, \"Gr\u00fcn, fast\",me\r\n./dark.gif, so dark ,me\r\n\r\n,,\r\npale.gif,\"a \"\"pale\"\" one\"\r\n"
    (tmp_path / "captions.csv").write_bytes(b"\xef\xbb\xbf" + table.encode())
    dataset = VideoFolder(tmp_path, image_size=64, num_frames=16)
    assert not dataset.skipped and "with captions" in repr(dataset)
    batch = dataset.sample(300)
    assert batch.video.shape == (300, 1, 16, 64, 64) and batch.video.dtype == torch.float32
    assert batch.labels is None and batch.position is None and batch.velocity is None
    starts = {name: [] for name in dataset.files}
    for video, caption in zip(batch.video, batch.captions):
        shade = round(float(video[0, 0, 0, 0] + 1) * 127.5)
        name, expected = {40: ("dark.gif", "so dark"), 90: ("mid/grey.gif", "Gr\u00fcn, fast"), 140: ("pale.gif", 'a "pale" one')}[shade]
        assert caption == expected
        left = (video[0, :, 30] > 0.9).float().argmax(1).tolist()
        assert left == list(range(left[0], left[0] + 16))
        starts[name].append(left[0])
    for name, frames in (("dark.gif", 18), ("mid/grey.gif", 24), ("pale.gif", 30)):
        assert 70 < len(starts[name]) < 130 and set(starts[name]) == set(range(frames - 16 + 1))  # evenly over clips and over starts


def test_folder_batches_depend_on_seed_and_number_alone(shades):
    a, b = VideoFolder(shades, seed=5), VideoFolder(shades, seed=5)
    first, second = a.sample(4), a.sample(4)
    assert not torch.equal(first.video, second.video)
    assert torch.equal(b.sample(4, index=1).video, second.video) and torch.equal(b.sample(4).video, first.video)
    assert not torch.equal(VideoFolder(shades, seed=6).sample(4).video, first.video)


def test_captions_may_be_absent_but_not_when_named(tmp_path, shades):
    assert VideoFolder(shades).sample(2).captions is None
    with pytest.raises(DataError, match="no captions file .*texts.csv"):
        VideoFolder(shades, captions="texts.csv")
    shutil.copytree(shades, tmp_path, dirs_exist_ok=True)
    (tmp_path / "captions.csv").write_text("file,caption\ndark.gif,dark\npale.gif,\ngone.gif,gone\n")
    dataset = VideoFolder(tmp_path)
    assert dataset.files == ["dark.gif"] and dataset.texts == ["dark"]
    assert dataset.skipped == {"gone.gif": "named in captions.csv, but not in the folder", "mid/grey.gif": "no caption in captions.csv",
                               "pale.gif": "no caption in captions.csv"}
    ignoring = VideoFolder(tmp_path, captions=None)
    assert len(ignoring) == 3 and ignoring.sample(2).captions is None and not ignoring.skipped
    (tmp_path / "captions.csv").rename(tmp_path / "texts.csv")
    assert VideoFolder(tmp_path, captions="texts.csv").texts == ["dark"]


@pytest.mark.parametrize(("table", "message"), [
    (b"name,caption\na.gif,x\n", "no column 'file'.*name,caption"), (b"file;caption\na.gif;x\n", "no column 'file'.*with a comma"),
    (b"file,text\na.gif,x\n", "no column 'caption'"), (b"", "no column 'file'"),
    (b"file,caption\na.gif,x\nb.gif,y\n./a.gif,z\n", "line 4: a.gif has a caption already"),
    (b"file,caption\na.gif,red, and blue\n", "line 2: more values.*double quotes"), (b"file,caption\n,x\n", "line 2: a caption without a file"),
    (b"file,caption\na.gif,\"x\nb.gif,y\n", "double quote that is not closed"), ("file,caption\na.gif,gr\u00fcn\n".encode("latin-1"), "save it as UTF-8")])
def test_faults_of_the_captions_file_are_named(tmp_path, table, message):
    (tmp_path / "captions.csv").write_bytes(table)
    with pytest.raises(DataError, match=message):
        VideoFolder(tmp_path)


@pytest.mark.parametrize(("arguments", "message"), [
    ({"image_size": 0}, "image_size"), ({"num_frames": 0}, "num_frames"), ({"channels": 2}, "channels"), ({"fps": 0}, "fps"), ({"fps": -1.0}, "fps"),
    ({"fps": float("nan")}, "fps"), ({"fps": float("inf")}, "fps")])
def test_bad_folder_arguments_are_named(shades, arguments, message):
    with pytest.raises(ValueError, match=message):
        VideoFolder(shades, **arguments)


def test_an_empty_batch_and_a_folder_without_clips_are_errors(tmp_path, shades):
    with pytest.raises(ValueError, match="num must be at least 1"):
        VideoFolder(shades).sample(0)
    with pytest.raises(DataError, match="no folder .*nowhere"):
        VideoFolder(tmp_path / "nowhere")
    with pytest.raises(DataError, match="No clip in .* can be used.*at least 16 frames"):
        VideoFolder(tmp_path)
    gif(tmp_path / "short.gif", moving(5))
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(DataError, match=r"(?s)Skipped 2:\n  notes.txt: .*\n  short.gif: too short: 5 frames"):
        VideoFolder(tmp_path)


def test_without_ffmpeg_gifs_are_read_and_videos_say_what_to_install(shades, videos, monkeypatch):
    real = builtins.__import__

    def missing(name, *rest):
        if name == "imageio_ffmpeg":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", missing)
    assert len(VideoFolder(shades)) == 3
    with pytest.raises(DataError, match=r"10.mp4 needs ffmpeg: `pip install imageio\[ffmpeg\]`"):
        VideoFolder(videos)


# The published file


@pytest.mark.parametrize("module", [published, video_folder], ids=["published", "video_folder"])
def test_slow_and_optional_packages_are_not_imported_with_a_module(module, monkeypatch):
    real, asked = builtins.__import__, set()

    def spy(name, *rest):
        asked.add(name.split(".")[0])
        return real(name, *rest)

    spec = importlib.util.spec_from_file_location("utils.again", module.__file__)
    monkeypatch.setattr(builtins, "__import__", spy)
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    assert "einops" in asked and not asked & {"torchvision", "imageio_ffmpeg"}
