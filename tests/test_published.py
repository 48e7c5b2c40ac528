"""The published file's layout with a small one; every way in which the file or its download can fail."""

import errno
import hashlib
import io
import os
import tracemalloc
import urllib.error

import numpy as np
import pytest
import torch

from utils import published
from utils.data import DataError
from utils.published import PUBLISHED_FILE, PublishedMovingMNIST


def stored(array):
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


@pytest.fixture(scope="module")
def small():
    """(20, 7, 64, 64) uint8 in the published layout, as a .npy file's bytes, and its MD5."""
    array = np.random.default_rng(0).integers(0, 256, (20, 7, 64, 64), dtype=np.uint8)
    return array, stored(array), hashlib.md5(stored(array)).hexdigest()


def put(root, data):
    file = root / PUBLISHED_FILE
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    return file


@pytest.mark.parametrize(("size", "frames"), [(64, 20), (32, 16), (8, 1)])
def test_published_clips_are_the_files_first_frames_averaged_down(tmp_path, small, size, frames):
    array, data, md5 = small
    put(tmp_path, data)
    dataset = PublishedMovingMNIST(tmp_path, image_size=size, num_frames=frames, md5=md5)
    assert len(dataset) == 7
    batch = dataset.sample(60)
    assert batch.video.shape == (60, 1, frames, size, size) and batch.video.dtype == torch.float32
    assert batch.labels is None and batch.captions is None and batch.position is None and batch.velocity is None
    factor = 64 // size
    blocks = array[:frames].astype(np.float64).reshape(frames, 7, size, factor, size, factor).mean((3, 5)) / 127.5 - 1  # (T, 7, H, W)
    distances = np.abs(batch.video[:, 0].numpy()[:, None] - blocks.transpose(1, 0, 2, 3)[None]).max((2, 3, 4))  # (60, 7)
    assert distances.min(1).max() < 1e-6
    assert set(distances.argmin(1)) == set(range(7))


def test_published_batches_depend_on_seed_and_number_alone(tmp_path, small):
    put(tmp_path, small[1])
    a, b = (PublishedMovingMNIST(tmp_path, seed=5, md5=None) for _ in range(2))
    first, second = a.sample(4), a.sample(4)
    assert not torch.equal(first.video, second.video)
    assert torch.equal(b.sample(4, index=1).video, second.video) and torch.equal(b.sample(4).video, first.video)
    assert not torch.equal(PublishedMovingMNIST(tmp_path, seed=6, md5=None).sample(4).video, first.video)
    with pytest.raises(ValueError, match="num must be at least 1"):
        a.sample(0)


def refused(root, message, **options):
    with pytest.raises(DataError, match=message) as caught:
        PublishedMovingMNIST(root, **options)
    assert f"Delete {PUBLISHED_FILE} below root and call again with download=True" in str(caught.value) and str(root) not in str(caught.value)


def test_a_damaged_or_foreign_published_file_is_refused(tmp_path, small):
    _, data, md5 = small
    put(tmp_path, data)
    refused(tmp_path, "is damaged or cut off.*MD5 be083ec986bfe91a449d63653c411eb2")
    put(tmp_path, data[:-1])
    refused(tmp_path, "is damaged or cut off", md5=md5)
    refused(tmp_path, "is damaged or no .npy file", md5=None)
    put(tmp_path, data[:-1] + bytes([data[-1] ^ 1]))
    refused(tmp_path, "is damaged or cut off", md5=md5)


@pytest.mark.parametrize(("data", "message"), [
    (b"", "no .npy file"), (b"x" * 500, "no .npy file"), (stored(np.array([{}], object)), "no .npy file"),
    (stored(np.zeros((10, 3, 64, 64), np.uint8)), r"uint8 of shape \(10, 3, 64, 64\), expected uint8"), (stored(np.uint8(3)), "expected uint8"),
    (stored(np.zeros((20, 0, 64, 64), np.uint8)), "expected uint8"), (stored(np.zeros((20, 3, 32, 64), np.uint8)), "expected uint8"),
    (stored(np.zeros((20, 3, 64, 64), np.float32)), "holds float32 of shape")])
def test_a_published_file_of_another_layout_is_refused(tmp_path, data, message):
    put(tmp_path, data)
    refused(tmp_path, message, md5=None)


def test_the_check_of_a_published_file_does_not_read_it_at_once(tmp_path):
    data = stored(np.zeros((20, 50, 64, 64), np.uint8))  # 4 MB
    file, md5 = put(tmp_path, data), hashlib.md5(data).hexdigest()
    tracemalloc.start()
    published._check_published(file, md5)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1e6


def test_published_arguments(tmp_path):
    for arguments, message in (({"image_size": 30}, "image_size"), ({"image_size": 4}, "image_size"), ({"num_frames": 0}, "num_frames")):
        with pytest.raises(ValueError, match=message):
            PublishedMovingMNIST(tmp_path, **arguments)
    with pytest.raises(DataError, match="have 20 frames, so num_frames=21 .*at most 20"):
        PublishedMovingMNIST(tmp_path, num_frames=21)


@pytest.fixture
def network(monkeypatch):
    """Stands for the server below torchvision: set `network.answer` to bytes or to an error. `calls` counts."""

    class Response(io.BytesIO):
        url = "http://www.cs.toronto.edu/~nitish/unsupervised_video/mnist_test_seq.npy"

        @property
        def length(self):
            return len(self.getvalue())

    class Network:
        answer, calls = None, 0

        def open(self, request, *rest, **options):
            self.calls += 1
            if isinstance(self.answer, BaseException):
                raise self.answer
            return Response(self.answer)

    network = Network()
    monkeypatch.setattr("urllib.request.urlopen", network.open)
    return network


def test_nothing_is_fetched_unless_asked(tmp_path, network):
    with pytest.raises(DataError, match=f"There is no {PUBLISHED_FILE} below root: pass download=True"):
        PublishedMovingMNIST(tmp_path)
    assert network.calls == 0 and not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [
    urllib.error.URLError("Name or service not known"), ConnectionResetError(errno.ECONNRESET, "reset"), TimeoutError("timed out")])
def test_without_a_network_the_error_says_so(tmp_path, network, error):
    network.answer = error
    with pytest.raises(DataError, match="could not be fetched.*check the network.*Nothing half-written"):
        PublishedMovingMNIST(tmp_path, download=True)
    assert network.calls > 0 and not (tmp_path / PUBLISHED_FILE).exists()


def test_what_arrives_damaged_is_not_kept(tmp_path, network, capfd):
    network.answer = b"<html>moved</html>"
    with pytest.raises(DataError, match="not the published file: call again"):
        PublishedMovingMNIST(tmp_path, download=True)
    assert not (tmp_path / PUBLISHED_FILE).exists()


@pytest.mark.parametrize(("error", "raised", "message"), [
    (OSError(errno.ENOSPC, "No space left on device"), DataError, "disk is full: free at least 800 MB"), (KeyboardInterrupt(), KeyboardInterrupt, None),
    (OSError(errno.EACCES, "Permission denied"), DataError, "could not be written .Permission denied.*may write to"), (MemoryError(), MemoryError, None)])
def test_a_broken_off_download_leaves_nothing_behind(tmp_path, small, monkeypatch, error, raised, message):
    def half(url, root, filename, md5):
        os.makedirs(root, exist_ok=True)
        with open(os.path.join(root, filename), "wb") as file:
            file.write(small[1][:300_000])
        raise error

    monkeypatch.setattr("torchvision.datasets.moving_mnist.download_url", half)
    with pytest.raises(raised, match=message):
        PublishedMovingMNIST(tmp_path, download=True, md5=small[2])
    assert not (tmp_path / PUBLISHED_FILE).exists()
    with pytest.raises(DataError, match="There is no"):
        PublishedMovingMNIST(tmp_path, md5=small[2])


def test_a_download_is_used_kept_and_not_repeated(tmp_path, small, monkeypatch):
    asked = []

    def whole(url, root, filename, md5):
        asked.append((url, md5))
        os.makedirs(root, exist_ok=True)
        with open(os.path.join(root, filename), "wb") as file:
            file.write(small[1])

    monkeypatch.setattr("torchvision.datasets.moving_mnist.download_url", whole)
    first = PublishedMovingMNIST(tmp_path, download=True, md5=small[2])
    again = PublishedMovingMNIST(str(tmp_path), download=True, md5=small[2])
    assert torch.equal(first.sample(3).video, again.sample(3).video)
    assert len(asked) == 1 and asked[0][0].endswith("/mnist_test_seq.npy") and asked[0][1] == published.PUBLISHED_MD5


def test_a_whole_download_survives_a_fault_that_comes_after_it(tmp_path, small, monkeypatch):
    from torchvision.datasets import MovingMNIST

    def out_of_memory(self, root, split, download):
        put(tmp_path, small[1])
        raise RuntimeError("can't allocate memory")

    monkeypatch.setattr(MovingMNIST, "__init__", out_of_memory)
    with pytest.raises(RuntimeError, match="allocate"):
        PublishedMovingMNIST(tmp_path, download=True, md5=small[2])
    assert (tmp_path / PUBLISHED_FILE).exists()
