"""Training in several processes, in parts, with activations recomputed, and on a folder of clips: each the same run as the plain one."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field, replace

import imageio.v3 as iio
import numpy as np
import pytest
import torch

from utils import processes
from utils.cost import count
from utils.data import MNIST, MovingMNIST
from utils.processes import ALONE, Processes, ProcessLostError, telling_of_lost_processes
from utils.recipes import MAV, MAV_INTERPOLATE, MAV_UPSAMPLE, VDM, VDM_TEXT, Budget
from utils.runtime import ROOT, check_compiles
from utils.train import CheckpointError, Trainer, _run, main, read_checkpoint
from utils.unet import UNet, UNetConfig, randomize
from utils.video_folder import VideoFolder

NET = UNetConfig(channels=(8, 16), blocks=(1, 1), space=(False, True), time=(False, True), stem=4, embed_dim=16, head_dim=8, text_width=16)
PSEUDO_3D = replace(NET, pseudo_3d=True, frame_rate=True)
TINY = {"vdm-text": replace(VDM_TEXT, net=NET, num_images=2), "mav": replace(MAV, net=PSEUDO_3D, initial=None, frozen=None),
        "mav-interpolate": replace(MAV_INTERPOLATE, net=replace(PSEUDO_3D, conditioning="frames"), initial=None, frozen=None),
        "mav-upsample": replace(MAV_UPSAMPLE, net=replace(MAV_UPSAMPLE.net, channels=(8, 16), blocks=(1, 1), space=(False, True), time=(False, False), embed_dim=16, head_dim=8))}


def trainer(recipe, **options):
    return Trainer(recipe, Budget(6, 4), device="cpu", amp="off", **options)


@pytest.mark.parametrize("name", TINY)
def test_the_rows_of_a_batch_are_the_same_whoever_makes_them(name):
    t = trainer(TINY[name])
    for step in (0, 5):
        whole = t.loss(step)
        halves = [t.loss(step, rows) for rank in (0, 1) for rows in Processes(rank, 2).shares(4)]
        quarters = [t.loss(step, rows) for rows in ALONE.shares(4, 4)]
        assert abs(whole - sum(halves) / 2) < 1e-6 and abs(whole - sum(quarters) / 4) < 1e-6
        assert abs(halves[0] - halves[1]) > 1e-4  # the twin: were all rows alike, nothing would be shown


def test_rows_of_the_data_are_those_of_the_whole_batch():
    for data in (MovingMNIST("train", 3, captions="mixed"), MNIST("train", 3)):
        whole, part = data.sample(6, index=2), data.sample(6, index=2, rows=slice(2, 5))
        assert torch.equal(whole.video[2:5], part.video) and whole.captions[2:5] == part.captions and torch.equal(whole.labels[2:5], part.labels)


def test_gradients_added_up_over_parts_are_those_of_the_batch():
    one, four = trainer(TINY["vdm-text"]), trainer(TINY["vdm-text"], parts=4)
    for a, b in zip(one.run(), four.run()):
        assert abs(a.loss - b.loss) < 1e-5
    assert all((a - b).abs().max() < 5e-4 for (name, a), b in zip(one.net.named_parameters(), four.net.parameters()) if not name.endswith("bias"))  # those before a norm follow their rounding
    whole, added = (torch.cat([p.grad.flatten() for p in t.net.parameters()]) for t in (one, four))
    assert (whole - added).norm() < 1e-3 * whole.norm() and whole.norm() > 0
    with pytest.raises(ValueError, match="cannot be shared evenly by 1 process in 3 parts each"):
        trainer(TINY["vdm-text"], parts=3)
    with pytest.raises(ValueError, match="divisible by 6"):
        Processes(0, 3).shares(4, 2)


def test_compiled_network_is_whole_graphs_and_the_same_run(monkeypatch):
    for recipe in (replace(TINY["vdm-text"], curriculum=None), TINY["mav"]):
        plain, compiled = trainer(recipe), trainer(recipe, compiled=True)
        compiled.net.compile(backend="aot_eager", fullgraph=True, dynamic=False)  # without making kernels, which takes minutes
        assert [t.train_step().loss for t in (plain, plain)] == [t.train_step().loss for t in (compiled, compiled)]
        assert plain.net.state_dict().keys() == compiled.net.state_dict().keys() and all(map(torch.equal, plain.ema.net.parameters(), compiled.ema.net.parameters()))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    with pytest.raises(ValueError, match="T4"):
        check_compiles(torch.device("cuda"))


def test_recomputed_activations_save_memory_and_change_no_gradient():
    plain, saving = trainer(TINY["mav"]), trainer(TINY["mav"], recompute=True)
    for a, b in zip(plain.run(), saving.run()):
        assert abs(a.loss - b.loss) < 1e-6
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(plain.net.parameters(), saving.net.parameters()))
    saved = []
    for recompute in (False, True):
        net = randomize(UNet(VDM.net))
        net.recompute = recompute
        z = torch.zeros(1, 1, 16, 32, 32)
        saved.append(count(net, lambda net=net: net(z, torch.zeros(1))).saved_bytes)
    assert saved[1] < 0.35 * saved[0]


# --- torchrun


def torchrun(processes, out, *extra, **options):
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={processes}", "--standalone", "-m", "utils.train", "mnist-ddpm", "--steps", "6", "--batch-size", "8", "--amp", "off",
               "--device", "cpu", "--out", str(out), *extra]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, **options)


def finished(process):
    output = process.communicate(timeout=300)[0]
    assert process.returncode == 0, output
    return output


def test_two_processes_train_as_one_does_and_another_number_goes_on(tmp_path):
    """The same curve and weights at the same global batch; stopped half-way and resumed by a single process."""
    one, two, changed = (tmp_path / name for name in ("one", "two", "changed"))
    runs = torchrun(2, two), torchrun(2, changed, "--minutes", "0")
    assert main(["mnist-ddpm", "--steps", "6", "--batch-size", "8", "--amp", "off", "--device", "cpu", "--out", str(one)]) == 0
    outputs = [finished(run) for run in runs]
    assert outputs[0].count("weights: ") == 1 and "stopped at step 1 of 6" in outputs[1]
    assert main(["mnist-ddpm", "--steps", "6", "--batch-size", "8", "--amp", "off", "--device", "cpu", "--out", str(changed), "--resume"]) == 0
    expected = read_checkpoint(one / "checkpoint.pt")
    for folder in (two, changed):
        state = read_checkpoint(folder / "checkpoint.pt")
        assert state["step"] == 6 and np.allclose(state["history"], expected["history"], atol=1e-5)
        for part in ("net", "ema"):
            assert all((state[part][name] - tensor).abs().max() < 2e-4 for name, tensor in expected[part].items())
    assert "2 x CPU" in (two / "mnist-ddpm.json").read_text()


def test_a_run_that_loses_a_process_stops_with_a_clear_error_and_resumes(tmp_path):
    out = tmp_path / "run"
    run = torchrun(2, out, "--steps", "100000", "--checkpoint-seconds", "0", start_new_session=True)
    checkpoint, deadline = out / "checkpoint.pt", time.monotonic() + 200
    while time.monotonic() < deadline and not (checkpoint.exists() and read_checkpoint(checkpoint)["step"] >= 2):
        time.sleep(0.5)
    workers = [int(pid) for pid in subprocess.run(["pgrep", "-P", str(run.pid)], capture_output=True, text=True).stdout.split()]
    assert len(workers) == 2
    os.kill(workers[1], signal.SIGKILL)
    output = run.communicate(timeout=200)[0]
    assert run.returncode != 0
    assert re.search("Another process of this run is gone.*--resume|stopped; the checkpoint is written: go on with the same command and --resume", output), output
    step = read_checkpoint(checkpoint)["step"]
    assert step >= 2
    assert f"resumed at step {step} of 100000" in finished(torchrun(2, out, "--steps", "100000", "--resume", "--minutes", "0"))


@dataclass(frozen=True)
class BesideAnother(Processes):
    """One of two, of which the other finds what it is said to find: a checkpoint or none, of some step."""

    finds: tuple[float, ...] = ()

    def mean(self, numbers):
        self.asked.append(numbers)
        if len(self.asked) == 3:  # how far each is from the mean: as far
            return numbers
        return (numbers + self.finds[len(self.asked) - 1]) / 2

    asked: list = field(default_factory=list)


@pytest.mark.parametrize(("here", "finds", "message"), [(True, (0.0,), "Only some of the 2 processes"), (False, (1.0,), "Only some of the 2 processes"), (True, (1.0, 5.0), "different steps")])
def test_machines_that_do_not_share_a_folder_stop_before_they_part_ways(tmp_path, here, finds, message):
    t = trainer(TINY["mav"])
    if here:
        t.train_step()
        t.save(tmp_path / "checkpoint.pt")
    t.processes = BesideAnother(0, 2, finds)
    with pytest.raises(CheckpointError, match=message):
        _run(t, tmp_path, None, True, 60, None)


def test_several_processes_on_an_apple_gpu_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(processes, "pick_device", lambda device: torch.device("mps"))
    with pytest.raises(ValueError, match="not on mps: add --device cpu"), processes.join():
        pass


def test_errors_of_communication_are_told_and_others_pass():
    with pytest.raises(ProcessLostError, match="--resume"), telling_of_lost_processes():
        raise RuntimeError("[gloo/transport/tcp/pair.cc] Connection closed by peer")
    with pytest.raises(RuntimeError, match="shape mismatch"), telling_of_lost_processes():
        raise RuntimeError("shape mismatch")


# --- a folder of clips


@pytest.fixture
def folder(tmp_path):
    for k in range(3):
        frames = np.random.default_rng(k).integers(0, 255, (20, 40, 40), dtype=np.uint8)
        iio.imwrite(tmp_path / f"{k}.gif", frames)
    return tmp_path


def write_captions(folder, captions):
    (folder / "captions.csv").write_text("file,caption\n" + "".join(f"{k}.gif,{caption}\n" for k, caption in enumerate(captions)))


def test_a_folder_of_clips_trains_through_the_same_command(folder, tmp_path, capsys):
    command = ["vdm", "--steps", "1", "--batch-size", "2", "--amp", "off", "--device", "cpu", "--clips", str(folder)]
    (folder / "short.gif").write_bytes(b"")
    assert main([*command, "--out", str(tmp_path / "run")]) == 0
    assert json.loads((tmp_path / "run" / "vdm.json").read_text())["provenance"]["clips"].keys() == {"files", "frames", "digest"}
    assert "short.gif: empty file" in capsys.readouterr().out
    assert main([*command[:-2], "--out", str(tmp_path / "run"), "--resume"]) == 1  # the same run, without its clips
    assert "folder of clips differ" in capsys.readouterr().err
    assert main(["vdm-text", *command[1:], "--out", str(tmp_path / "text")]) == 1
    assert "learns from captions, and the folder has none" in capsys.readouterr().err
    write_captions(folder, ["3 and 7", "a dog", "1"])
    assert main(["vdm-text", *command[1:], "--out", str(tmp_path / "text")]) == 1
    assert "1.gif: Unknown word 'a'" in capsys.readouterr().err
    assert main(["mav", *command[1:], "--out", str(tmp_path / "mav")]) == 1
    assert "several frame rates" in capsys.readouterr().err
    write_captions(folder, ["3 and 7"])
    assert main([*command, "--out", str(tmp_path / "whole")]) == 0  # learns without captions: the clips that have none are not left out
    assert json.loads((tmp_path / "whole" / "vdm.json").read_text())["provenance"]["clips"]["files"] == 3


def test_clips_of_a_folder_and_their_captions_are_what_is_learnt(folder):
    write_captions(folder, [f"{k} and {k}" for k in range(3)])
    clips = VideoFolder(folder, 32, 16, seed=5)
    t = trainer(TINY["vdm-text"], clips=clips)
    assert t.data.sample(2, index=0).video.shape == (2, 1, 16, 32, 32) and t.images.sample(2, index=0).video.shape == (2, 1, 1, 32, 32)
    assert t.loss(0).isfinite() and t.practice(0) is None and trainer(TINY["vdm-text"]).practice(0)  # a folder has no easier clips: no curriculum
    whole, part = t.data.sample(6, index=2), t.data.sample(6, index=2, rows=slice(2, 5))
    assert torch.equal(whole.video[2:5], part.video) and whole.captions[2:5] == part.captions
    assert t.data.clips is t.images.clips is clips.clips  # decoded and kept once
    chosen = [[data.sample(4, index=k).captions for k in range(50)] for data in (t.data, t.images)]
    assert sum(a == b for a, b in zip(*chosen)) < 10  # images are not those of the clips beside them: by chance one in 81
    assert chosen[0] == [clips.drawn(0).sample(4, index=k).captions for k in range(50)]
    with pytest.raises(ValueError, match=r"\(1, 8, 32, 32\)"):
        trainer(TINY["vdm-text"], clips=VideoFolder(folder, 32, 8))
    with pytest.raises(ValueError, match="at least 16 frames"):
        clips.drawn(0, 17)


def test_a_folders_digest_is_that_of_what_is_in_it(folder):
    first = VideoFolder(folder, 32, 16).digest
    assert VideoFolder(folder, 32, 16, seed=3).digest == first != VideoFolder(folder, 32, 8).digest
    write_captions(folder, ["3", "4", "5"])
    assert VideoFolder(folder, 32, 16).digest not in (first, VideoFolder(folder, 32, 16, captions=None).digest)
    (folder / "captions.csv").unlink()
    (folder / "2.gif").unlink()
    assert VideoFolder(folder, 32, 16).digest != first
