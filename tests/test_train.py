"""Training: kill and resume, damaged and foreign checkpoints, EMA, precision, bad input, the command line."""

import copy
import errno
import fcntl
import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch

from utils import runtime, train
from utils.captions import tokenize
from utils.cost import measure
from utils.data import MNIST, DataError
from utils.hearing import keep
from utils.model import Model
from utils.optimizer import Muon
from utils.pretrained import CHECKPOINTS, load_initial, load_pretrained, save_weights, shipped_flops, total_flops
from utils.recipes import MNIST_DDPM, RECIPES, VDM, VDM_TEXT, Budget, Curriculum, Practice, recipe
from utils.runtime import amp_dtype
from utils.train import EMA, PATIENCE, CheckpointError, Trainer, TrainingError, _hear, loss_band, main, read_checkpoint
from utils.unet import UNet, UNetConfig, randomize

KILLS = int(os.environ.get("KILLS", "3"))  # KILLS=20 pytest tests/test_train.py -k killed
TINY = replace(MNIST_DDPM, net=UNetConfig(channels=(8, 16), blocks=(1, 1), space=(False, False), time=(False, False), embed_dim=16, head_dim=8))


def trainer(steps=6, **options):
    return Trainer(TINY, Budget(steps, 8), device="cpu", amp="off", **options)


def tensors(path):
    state = read_checkpoint(path)
    flat = {}

    def walk(prefix, value):
        if isinstance(value, dict):
            for key, item in value.items():
                walk(f"{prefix}/{key}", item)
        elif isinstance(value, (list, tuple)):
            for key, item in enumerate(value):
                walk(f"{prefix}/{key}", item)
        elif "seconds" not in prefix:
            flat[prefix] = value

    walk("", state)
    return flat


def assert_equal(a, b):
    a, b = tensors(a), tensors(b)
    assert a.keys() == b.keys() and len(a) > 100
    for key, value in a.items():
        assert torch.equal(value, b[key]) if isinstance(value, torch.Tensor) else value == b[key], key


def command(out, *extra):
    return [sys.executable, "-m", "utils.train", "mnist-ddpm", "--steps", "12", "--batch-size", "4", "--amp", "off", "--device", "cpu",
            "--checkpoint-seconds", "0", "--out", str(out), *extra]


def test_a_run_that_is_killed_and_resumed_equals_one_that_was_not(tmp_path):
    subprocess.run(command(tmp_path / "whole"), check=True, capture_output=True)
    checkpoint, kills, last = tmp_path / "killed" / "checkpoint.pt", 0, -1
    while True:
        process = subprocess.Popen(command(tmp_path / "killed", "--resume"), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        if kills < KILLS:  # wait for progress, then kill at a moment that differs each time, writing included
            while process.poll() is None and not (checkpoint.exists() and (now := read_checkpoint(checkpoint)["step"]) > last and now < 12):
                time.sleep(0.01)
            time.sleep(0.037 * (kills % 5))
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                process.wait()
                kills, last = kills + 1, read_checkpoint(checkpoint)["step"]
                if last >= 11:  # nothing left to kill: start over
                    checkpoint.unlink()
                    last = -1
                continue
        process.wait()
        assert process.returncode == 0, process.stderr.read().decode()
        break
    assert kills == KILLS
    assert_equal(tmp_path / "whole" / "checkpoint.pt", checkpoint)
    weights = [torch.load(tmp_path / run / "mnist-ddpm.pt", weights_only=True)["weights"] for run in ("whole", "killed")]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_resume_in_process_and_a_twin_that_forgets_the_optimizer(tmp_path):
    whole, first = trainer(), trainer()
    losses = [p.loss for p in whole.run()]
    for _ in range(3):
        first.train_step()
    first.save(tmp_path / "c.pt")
    resumed = trainer()
    resumed.load(tmp_path / "c.pt")
    assert [p.loss for p in resumed.run()] == losses[3:] and resumed.history == losses
    forgetful = trainer()
    forgetful.load(tmp_path / "c.pt")
    forgetful.optimizer = Muon(forgetful.net, forgetful.recipe.learning_rate)
    assert [p.loss for p in forgetful.run()] != losses[3:]


def test_a_run_without_float16_goes_on_with_it_and_the_other_way(tmp_path):
    """A scale of the loss is in the checkpoint of one of them alone."""
    for name, before, after in (("off", False, True), ("fp16", True, False)):
        first, second = trainer(), trainer()
        first.scaler, second.scaler = (torch.amp.GradScaler("cpu", enabled=enabled) for enabled in (before, after))
        first.train_step()
        first.save(tmp_path / name)
        second.load(tmp_path / name)
        assert second.step == 1 and second.train_step().step == 2


def test_a_run_that_is_stopped_within_a_step_goes_on(tmp_path):
    """In float16, between taking the loss's scale out of the gradients and the optimizer's step."""
    whole, stopped = trainer(), trainer()
    for run in (whole, stopped):
        run.scaler = torch.amp.GradScaler("cpu")
        run.train_step()
    stopped.save(tmp_path / "c.pt")

    def stop(optimizer):
        raise KeyboardInterrupt

    stopped.scaler.step = stop
    with pytest.raises(KeyboardInterrupt):
        stopped.train_step()
    stopped.train_step()
    whole.train_step()
    assert stopped.history == whole.history and stopped.scaler.state_dict() == whole.scaler.state_dict()
    stopped.optimizer.zero_grad(set_to_none=False)
    stopped.scaler.unscale_(stopped.optimizer)
    stopped.load(tmp_path / "c.pt")
    assert [p.loss for p in stopped.run()] == [*whole.history[1:], *(p.loss for p in whole.run())]


def test_a_run_may_go_on_with_another_learning_rate(tmp_path):
    first = trainer()
    first.train_step()
    first.save(tmp_path / "c.pt")
    slower = Trainer(replace(TINY, learning_rate=1e-5), first.budget, device="cpu", amp="off")
    slower.load(tmp_path / "c.pt")
    before = copy.deepcopy(slower.net)
    slower.train_step()
    assert 0 < max((a - b).abs().max() for a, b in zip(slower.net.parameters(), before.parameters())) < 1e-4
    assert slower.provenance()["learning_rate"] == 1e-5 and slower.provenance()["optimizer"] == "Muon"


@pytest.mark.parametrize("damage", ["truncated", "garbage", "empty", "foreign"])
def test_a_bad_checkpoint_is_explained_and_left_alone(tmp_path, damage):
    path = tmp_path / "checkpoint.pt"
    trainer().save(path)
    good = path.read_bytes()
    bad = {"truncated": good[: len(good) // 2], "garbage": b"\x00garbage" * 1000, "empty": b"", "foreign": None}[damage]
    if bad is None:
        torch.save({"some": "other file"}, path)
        bad = path.read_bytes()
    path.write_bytes(bad)
    fresh = trainer()
    before = {key: tensor.clone() for key, tensor in fresh.net.state_dict().items()}
    with pytest.raises(CheckpointError, match="left as it is"):
        fresh.load(path)
    assert path.read_bytes() == bad and all(torch.equal(before[key], tensor) for key, tensor in fresh.net.state_dict().items())


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    trainer().save(tmp_path / "c.pt")
    for other in (trainer(steps=7), trainer(seed=1), Trainer(replace(TINY, ema_decay=0.5), Budget(6, 8), "cpu", "off"), Trainer(TINY, Budget(6, 9), "cpu", "off")):
        with pytest.raises(CheckpointError, match="another run"):
            other.load(tmp_path / "c.pt")


def test_a_checkpoint_of_another_optimizer_is_refused(tmp_path):
    muon, adam = trainer(), trainer()
    adam.optimizer = torch.optim.Adam(adam.net.parameters(), 1e-3)
    for run, name in ((muon, "muon.pt"), (adam, "adam.pt")):
        run.train_step()
        run.save(tmp_path / name)
    for run, name in ((muon, "adam.pt"), (adam, "muon.pt")):
        with pytest.raises(CheckpointError, match="another run.*optimizer"):
            run.load(tmp_path / name)
    adam.load(tmp_path / "adam.pt")


def test_a_failed_write_keeps_the_old_checkpoint(tmp_path, monkeypatch):
    run = trainer()
    run.save(tmp_path / "c.pt")
    good = (tmp_path / "c.pt").read_bytes()

    def full_disk(state, file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    run.train_step()
    with pytest.raises(CheckpointError, match="No space left.*untouched"):
        run.save(tmp_path / "c.pt")
    assert (tmp_path / "c.pt").read_bytes() == good and [p.name for p in tmp_path.iterdir()] == ["c.pt"]


def test_a_folder_that_cannot_be_written_is_found_out_at_the_start(tmp_path, capsys):
    blocker = tmp_path / "file"
    blocker.write_text("not a folder")
    assert main(["mnist-ddpm", "--steps", "1", "--batch-size", "1", "--device", "cpu", "--out", str(blocker / "run")]) == 1
    assert "Choose another --out" in capsys.readouterr().err


def test_an_existing_run_is_not_overwritten(tmp_path, capsys):
    arguments = ["mnist-ddpm", "--steps", "1", "--batch-size", "2", "--device", "cpu", "--amp", "off", "--out", str(tmp_path / "run")]
    assert main(arguments) == 0
    good = (tmp_path / "run" / "checkpoint.pt").read_bytes()
    assert main(arguments) == 1
    assert "--resume" in capsys.readouterr().err and (tmp_path / "run" / "checkpoint.pt").read_bytes() == good
    (tmp_path / "run" / "checkpoint.pt").write_bytes(good[:1000])
    assert main([*arguments, "--resume"]) == 1
    assert "damaged" in capsys.readouterr().err and (tmp_path / "run" / "checkpoint.pt").read_bytes() == good[:1000]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_in_the_middle_of_a_checkpoint_waits_until_it_is_written(tmp_path, monkeypatch, number):
    save = torch.save
    monkeypatch.setattr(torch, "save", lambda state, file: (signal.raise_signal(number), save(state, file)))
    before = signal.signal(number, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            trainer().save(tmp_path / "checkpoint.pt")
        assert signal.getsignal(number) is signal.default_int_handler
    finally:
        signal.signal(number, before)
    assert read_checkpoint(tmp_path / "checkpoint.pt")["step"] == 0


def test_a_run_that_is_asked_to_stop_saves_first_and_two_runs_do_not_share_a_folder(tmp_path, capsys):
    slow = [part if part != "0" else "5" for part in command(tmp_path)]
    slow[slow.index("12")] = "500000"
    process = subprocess.Popen(slow, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "checkpoint.pt").exists():
        time.sleep(0.05)
        assert process.poll() is None, process.stderr.read()
    assert main(["mnist-ddpm", "--steps", "1", "--batch-size", "1", "--device", "cpu", "--out", str(tmp_path), "--resume"]) == 1
    assert "Another process is training" in capsys.readouterr().err
    while (saved := read_checkpoint(tmp_path / "checkpoint.pt")["step"]) == 0:
        time.sleep(0.2)
        assert process.poll() is None, process.stderr.read()
    time.sleep(2)
    process.terminate()
    assert process.wait(timeout=60) == 130 and "--resume" in process.stderr.read()
    assert read_checkpoint(tmp_path / "checkpoint.pt")["step"] > saved  # what was trained since the last checkpoint is there, too


def test_a_file_system_without_locks_is_told_of_and_no_hindrance(tmp_path, monkeypatch, capsys):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    assert main(["mnist-ddpm", "--steps", "1", "--batch-size", "2", "--device", "cpu", "--amp", "off", "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().err.count("cannot be locked (No locks available)") == 1 and (tmp_path / "mnist-ddpm.pt").exists()


def test_a_run_that_is_stopped_before_its_first_checkpoint_says_so(tmp_path, monkeypatch, capsys):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("utils.train.Trainer", stop)
    assert main(["mnist-ddpm", "--budget", "smoke", "--device", "cpu", "--out", str(tmp_path)]) == 130
    assert "before the first checkpoint" in capsys.readouterr().err
    (tmp_path / "checkpoint.pt").touch()
    assert main(["mnist-ddpm", "--budget", "smoke", "--device", "cpu", "--out", str(tmp_path)]) == 130
    assert "the checkpoint is written" in capsys.readouterr().err


def test_unknown_recipe_budget_device_and_precision(capsys):
    assert main(["no-such-model"]) == 1
    assert "mnist-ddpm, mnist-guided, vdm, vdm-text" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["mnist-ddpm", "--budget", "huge"])
    with pytest.raises(ValueError, match="smoke, cpu, t4, t4-long"):
        recipe("vdm-text").budget("huge")
    with pytest.raises(ValueError, match="needs a GPU"):
        amp_dtype(torch.device("cpu"), "fp16")
    with pytest.raises(ValueError, match="auto, fp16, bf16 or off"):
        amp_dtype(torch.device("cpu"), "fp8")
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeError, match="Change runtime type"):
            runtime.pick_device("cuda")


def test_precision_goes_by_compute_capability(monkeypatch):
    for capability, dtype in (((7, 5), torch.float16), ((8, 0), torch.bfloat16), ((9, 0), torch.bfloat16)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, c=capability: c)
        assert amp_dtype(torch.device("cuda")) == dtype


def test_outputs_that_cannot_be_made_are_explained(tmp_path, monkeypatch):
    monkeypatch.delenv("LESSON_OUTPUTS", raising=False)
    monkeypatch.setattr(runtime, "ROOT", tmp_path)
    assert runtime.outputs() == tmp_path / "outputs" and runtime.outputs().is_dir()
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(runtime, "ROOT", tmp_path / "file")
    with pytest.raises(RuntimeError, match="LESSON_OUTPUTS"):
        runtime.outputs()


@pytest.mark.parametrize(("option", "message"), [
    (["--steps", "0"], "at least 1 step"), (["--steps", "-3"], "at least 1 step"), (["--batch-size", "0"], "at least 1 step of at least 1 sample"), (["--parts", "0"], "at least 1 part"),
    (["--parts", "-1"], "at least 1 part"), (["--minutes", "-1"], "at least 0"), (["--learning-rate", "0"], "between 0 and 1"), (["--fps", "8"], "give --clips"),
    (["--clips", ".", "--publish"], "leave them out with --clips"), (["--record", "--seed", "7"], "leave --steps"), (["--record", "--initial", "mnist-ddpm"], "leave --steps")])
def test_numbers_and_options_that_make_no_sense_are_refused(tmp_path, capsys, option, message):
    assert main(["mnist-ddpm", "--budget", "smoke", "--device", "cpu", "--out", str(tmp_path), *option]) == 1
    assert message in capsys.readouterr().err and not list(tmp_path.glob("*.pt"))


def test_memory_that_is_full_is_explained(tmp_path, monkeypatch, capsys):
    def full(*rest, **options):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 14.56 GiB")

    monkeypatch.setattr(Trainer, "train_step", full)
    assert main(["mnist-ddpm", "--budget", "smoke", "--device", "cpu", "--out", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert "memory is full (CUDA out of memory)" in error and "--recompute" in error and "--parts" in error


def test_budget_from_the_environment(monkeypatch):
    monkeypatch.setenv("LESSON_BUDGET", "smoke")
    assert runtime.budget() == "smoke"
    monkeypatch.setenv("LESSON_BUDGET", "enormous")
    with pytest.raises(ValueError, match="smoke, cpu, t4, t4-long"):
        runtime.budget()


def test_a_step_that_is_not_finite_is_skipped_and_a_run_that_stays_so_stops():
    run = trainer(steps=100)
    run.train_step()
    good = {key: tensor.clone() for key, tensor in run.net.state_dict().items()}
    run.loss = lambda step, rows: sum(p.sum() for p in run.net.parameters()) * math.nan
    assert run.train_step().skipped
    assert all(torch.equal(good[key], tensor) for key, tensor in run.net.state_dict().items())
    with pytest.raises(TrainingError, match=f"{PATIENCE} steps in a row"):
        for _ in range(PATIENCE):
            run.train_step()
    assert all(torch.equal(good[key], tensor) for key, tensor in run.net.state_dict().items())


def test_ema_warms_up_to_its_decay():
    net = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(net.weight)
    ema = EMA(net, decay=0.9)
    torch.nn.init.ones_(net.weight)
    expected = 0.0
    for n in range(200):
        ema.update(net)
        decay = min(0.9, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay)
        assert float(ema.net.weight) == pytest.approx(expected, abs=1e-5)


def test_loss_falls_and_samples_do_not_depend_on_the_batch():
    run = Trainer(TINY, Budget(40, 32), device="cpu", amp="off")
    losses = [p.loss for p in run.run()]
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])
    model = run.model()
    four, two = model.sample(num=4, steps=5, seed=3), model.sample(num=2, steps=5, seed=3)
    assert torch.allclose(four[:2], two, atol=1e-4) and not torch.allclose(four[0], four[1], atol=1e-2)
    assert four.shape == (4, 1, 1, 28, 28) and 0 <= four.min() and four.max() <= 1


def test_recipes_are_complete():
    for name, r in RECIPES.items():
        assert r.name == name and set(r.budgets) == set(runtime.BUDGETS)
        batch = r.dataset("validation").sample(2)
        assert batch.video.shape[1:] == r.sample_shape
        assert (r.captions is not None) == (r.net.text_width is not None)
    assert isinstance(MNIST_DDPM.dataset(), MNIST) and VDM_TEXT.schedule.low == -20


PRACTICES = Practice(0.25, 1, -7.0, -3.0), Practice(0.25, 2, -6.0, -1.0)


def watched(curriculum=Curriculum(PRACTICES, rehearsal=3), **options):
    """A trainer of four steps with a curriculum, and a list of what its network is given at each call."""
    tiny = replace(VDM_TEXT, net=UNetConfig(channels=(8, 16), blocks=(1, 1), space=(False, True), time=(False, True), embed_dim=16, head_dim=8, text_width=8),
                   num_images=2, null_probability=0.9, curriculum=curriculum)
    learner, seen = Trainer(tiny, Budget(4, 6), device="cpu", amp="off", **options), []
    forward, encode = learner.net.forward, learner.net.encode
    learner.net.encode = lambda tokens: (seen.append(tokens), encode(tokens))[1]
    learner.net.forward = lambda z, log_snr, cond, num_images: (seen.append((z.shape, log_snr, cond, num_images)), forward(z, log_snr, cond, num_images=num_images))[1]
    return learner, seen


def test_a_curriculum_begins_with_its_own_tasks_then_the_recipes_own_follows_and_now_and_then_a_rehearsal():
    learner, seen = watched()
    assert all(math.isfinite(p.loss) for p in learner.run())
    numerals, moving = tokenize([str(digit) for digit in range(10)])[:, 0], tokenize(["0 moving left"])[0, 1]
    for step, (tokens, (shape, log_snr, cond, num_images)) in enumerate(zip(seen[::2], seen[1::2])):
        count = torch.isin(tokens, numerals).sum(1)
        if step != 2:
            assert num_images == 0 and shape == (6, 1, 16, 32, 32) and (count == (2 if step else 1)).all() and (tokens == moving).any(1).all()
            assert (cond != 0).any(1).all()  # no caption is dropped, although nine in ten are later
            strongest, weakest = (-6, -1) if step else (-7, -3)
            assert log_snr.shape == (6,) and sorted(((log_snr - strongest) * 6 / (weakest - strongest)).floor().tolist()) == list(range(6))  # uniform: one in each sixth of the way
        else:
            assert num_images == 2 and shape == (6, 1, 18, 32, 32) and log_snr.shape == (6, 18) and (count == 2).all()
            assert not (cond != 0).any(-1).all() and log_snr.max() > -3
    assert step == 3


def test_flops_of_a_run_with_a_curriculum_are_those_of_its_steps():
    learner, _ = watched()
    shape = learner.recipe.net, learner.recipe.sample_shape
    with_images, without = (measure(*shape, k).flops for k in (2, 0))
    assert learner.provenance(4)["flops"] == pytest.approx(6 * (3 * without + with_images), rel=0.01) and without < with_images
    assert learner.provenance(1)["flops"] == pytest.approx(6 * without, rel=0.01)
    plain, _ = watched(curriculum=None)
    assert plain.provenance(4)["flops"] == pytest.approx(6 * 4 * with_images, rel=0.01)


def test_a_curriculum_ends_at_the_same_step_after_a_resume_and_bad_ones_are_refused(tmp_path, capsys):
    whole, first = watched()[0], watched()[0]
    losses = [p.loss for p in whole.run()]
    first.train_step()
    first.save(tmp_path / "c.pt")
    resumed = watched()[0]
    resumed.load(tmp_path / "c.pt")
    assert [p.loss for p in resumed.run()] == losses[1:]
    with pytest.raises(CheckpointError, match="another run"):
        watched(curriculum=Curriculum(PRACTICES[:1]))[0].load(tmp_path / "c.pt")
    for shares in ((0.5, 0.6), (-0.1, 0.2), ()):
        with pytest.raises(ValueError, match="shares of the steps"):
            Curriculum(tuple(Practice(share, 1, -7.0, -3.0) for share in shares))
    one, two = PRACTICES
    def digits(curriculum):
        return [0 if (part := curriculum.at(step, 8)) is None else part.num_digits for step in range(8)]

    assert [Curriculum(PRACTICES, rehearsal=0).at(step, 8) for step in range(8)] == [one, one, two, two, None, None, None, None]
    assert digits(Curriculum(PRACTICES, rehearsal=3)) == [1, 1, 2, 2, 0, 0, 2, 0]
    assert digits(Curriculum(PRACTICES, rehearsal=3).with_share(0.25)) == [1, 2, 0, 2, 0, 0, 2, 0] and Curriculum(PRACTICES).with_share(0.25).share == 0.25
    assert digits(Curriculum(PRACTICES, rehearsal=5).with_share(0)) == [2, 0, 0, 0, 0, 2, 0, 0]
    with pytest.raises(ValueError, match="rehearsal"):
        Curriculum(PRACTICES, rehearsal=-1)
    with pytest.raises(ValueError, match="strongest"):
        Practice(0.5, 1, -3.0, -7.0)
    assert main(["mnist-ddpm", "--curriculum", "0.5", "--out", str(tmp_path / "x")]) == 1
    assert "mnist-ddpm has no curriculum" in capsys.readouterr().err
    assert main(["vdm-text", "--curriculum", "0", "--record", "--out", str(tmp_path / "x")]) == 1
    assert "leave --steps, --batch-size, --learning-rate, --curriculum, --initial and --seed out" in capsys.readouterr().err


def test_weights_say_which_curriculum_they_had():
    kept = json.loads(json.dumps(watched()[0].provenance()))["curriculum"]
    assert Curriculum(tuple(Practice(**part) for part in kept["practices"]), kept["rehearsal"]) == Curriculum(PRACTICES, rehearsal=3)
    assert "curriculum" not in watched(curriculum=None)[0].provenance()


def test_what_is_heard_is_followed_through_a_run_and_kept_with_the_results(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("utils.train.heard_so_far", lambda model: {"one digit": {"mean": 1.0 + model.recipe.num_images}})
    run = ["vdm-text", "--steps", "3", "--batch-size", "2", "--device", "cpu", "--amp", "off", "--hear", "1", "--out", str(tmp_path / "run")]
    assert main(run) == 0
    file = tmp_path / "run" / "hearing.json"
    kept = json.loads(file.read_text())
    assert [row["step"] for row in kept["rows"]] == [0, 1, 2, 3] and all(row["one digit"] == {"mean": 9.0} for row in kept["rows"])
    assert kept["steps"] == 3 and kept["curriculum"] == [1, 1] and kept["provenance"]["steps"] == 3
    results = tmp_path / "vdm-text-hearing.json"
    for name in ("from nothing", "again"):
        keep(tmp_path / "run", name, results)
    assert set(json.loads(results.read_text())) == {"from nothing", "again"}
    with pytest.raises(DataError, match="--hear"):
        keep(tmp_path, "nobody", results)
    for recipe_name, steps in (("mnist-guided", "1"), ("vdm", "1"), ("vdm-text", "0")):
        assert main([recipe_name, "--budget", "smoke", "--hear", steps, "--out", str(tmp_path / "x")]) == 1
        assert "--hear is a number of steps" in capsys.readouterr().err
    file.write_text(file.read_text()[:100])
    again = Trainer(VDM_TEXT, Budget(3, 2), "cpu", "off")
    with pytest.raises(CheckpointError, match="hearing.json is damaged: delete it"):
        _hear(again, file)


def test_loss_band():
    rows = loss_band([1.0] * 50 + [0.5] * 50, points=10)
    assert len(rows) == 10 and rows[0] == [5.0, 1.0, 1.0, 1.0] and rows[-1] == [95.0, 0.5, 0.5, 0.5]
    assert loss_band([0.7], points=10) == [[0.5, 0.7, 0.7, 0.7]]
    (step, mean, low, high), = loss_band([1.0, 2.0, 4.0, 8.0, 16.0])
    assert (step, mean) == (2.5, 6.2) and [high / 4, 4 / low] == pytest.approx([2 ** (2 * 2.5**0.5)] * 2, rel=1e-4)


def test_a_run_may_start_from_a_smaller_network(tmp_path):
    """`--initial FILE`: widths and places of attention are read off the weights; the network does what it did, and its provenance says from what it has grown."""
    space = (False, False, False, True)
    narrow = replace(VDM_TEXT, net=replace(VDM_TEXT.net, channels=(8, 16, *VDM_TEXT.net.channels[2:]), space=space))
    net = randomize(UNet(narrow.net))
    save_weights(tmp_path / "narrow.pt", narrow, net, {"recipe": "vdm-text", "flops": 5.0})
    initial = load_initial(str(tmp_path / "narrow.pt"))
    started = Trainer(VDM_TEXT, Budget(4, 2), device="cpu", amp="off", initial=initial)
    z, log_snr = torch.randn(1, 1, 4, 16, 16, generator=torch.Generator().manual_seed(0)), torch.zeros(1)
    with torch.no_grad():
        expected = initial.net(z, log_snr)
        assert expected.std() > 0.05 and (started.net(z, log_snr) - expected).abs().max() < 1e-4
    assert started.provenance()["grown_from"] == {"channels": [8, 16, 96, 128], "space": list(space), "time": list(VDM_TEXT.net.time)} and total_flops(started.provenance()) == 5
    assert "grown_from" not in Trainer(VDM_TEXT, Budget(4, 2), device="cpu", amp="off", initial=started.model()).provenance()


def test_a_larger_network_around_frozen_weights_is_refused():
    wide = replace(RECIPES["mav"], net=replace(RECIPES["mav"].net, channels=(32, 64, *RECIPES["mav"].net.channels[2:])))
    with pytest.raises(ValueError, match="mav keeps the weights of mav-image.*set frozen=None"):
        Trainer(wide, Budget(4, 2), device="cpu", amp="off")
    assert Trainer(replace(wide, frozen=None), Budget(4, 2), device="cpu", amp="off").grown_from is not None


def test_a_run_may_start_from_a_shipped_model(tmp_path, capsys):
    """`--initial`: the same weights, what the network does not have is left out, and the origin is told; others are refused."""
    source = load_pretrained("vdm-text", "cpu")
    started = Trainer(recipe("vdm"), Budget(4, 2), device="cpu", amp="off", initial=source)
    for (name, tensor) in started.net.state_dict().items():
        assert torch.equal(tensor, source.net.state_dict()[name])
    assert started.provenance()["initial"]["recipe"] == "vdm-text" and started.provenance()["flops"] == 0
    started.save(tmp_path / "checkpoint.pt")
    with pytest.raises(CheckpointError, match="initial weights"):
        Trainer(recipe("vdm"), Budget(4, 2), device="cpu", amp="off").load(tmp_path / "checkpoint.pt")
    again = Trainer(recipe("vdm"), Budget(4, 2), device="cpu", amp="off", initial=source)
    again.load(tmp_path / "checkpoint.pt")
    with pytest.raises(ValueError, match="mnist-ddpm does not fit vdm: .* parameters are missing or have another shape"):
        Trainer(recipe("vdm"), Budget(4, 2), device="cpu", amp="off", initial=load_pretrained("mnist-ddpm", "cpu"))
    assert main(["vdm", "--budget", "smoke", "--initial", "mnist-ddpm", "--device", "cpu", "--out", str(tmp_path / "a")]) == 1
    assert "does not fit" in capsys.readouterr().err
    assert main(["vdm", "--budget", "smoke", "--initial", "nothing", "--device", "cpu", "--out", str(tmp_path / "b")]) == 1
    assert "there are mnist-ddpm" in capsys.readouterr().err
    assert main(["vdm", "--budget", "smoke", "--initial", str(CHECKPOINTS / "vdm-text.pt"), "--device", "cpu", "--out", str(tmp_path / "c")]) == 0  # a file of weights
    assert load_pretrained("vdm", "cpu", tmp_path / "c" / "vdm.pt").provenance["initial"] == source.provenance | {"recipe": "vdm-text"}
    for file, fault in ((tmp_path / "c" / "checkpoint.pt", "not the checkpoint"), (tmp_path / "no.pt", "cannot be read")):
        assert main(["vdm", "--initial", str(file), "--out", str(tmp_path / "d")]) == 1 and fault in capsys.readouterr().err


def test_a_text_encoder_may_start_anew():
    source, plain = load_pretrained("vdm-text", "cpu"), Trainer(VDM_TEXT, Budget(4, 2), device="cpu", amp="off")
    fresh = Trainer(VDM_TEXT, Budget(4, 2), device="cpu", amp="off", initial=source, fresh_text=True)
    for name, tensor in fresh.net.state_dict().items():
        assert torch.equal(tensor, (plain.net if name.startswith("text.") else source.net).state_dict()[name])
    assert any(name.startswith("text.") for name in fresh.net.state_dict()) and all(torch.equal(a, b) for a, b in zip(fresh.net.parameters(), fresh.ema.net.parameters()))
    assert fresh.provenance()["fresh_text"] is True and "fresh_text" not in plain.provenance()
    assert fresh.fingerprint() != Trainer(VDM_TEXT, Budget(4, 2), device="cpu", amp="off", initial=source).fingerprint()
    for name, initial in (("vdm-text", None), ("vdm", source), ("mav", load_pretrained("mav", "cpu"))):
        with pytest.raises(ValueError, match="start anew"):
            Trainer(recipe(name), Budget(4, 2), device="cpu", amp="off", initial=initial, fresh_text=True)


def test_a_run_goes_on_when_only_the_way_of_sampling_has_changed(tmp_path):
    trainer = Trainer(VDM_TEXT, Budget(4, 2), device="cpu", amp="off")
    trainer.save(tmp_path / "checkpoint.pt")
    Trainer(replace(VDM_TEXT, guidance_scale=7.0, rival_scale=1.0, temporal_scale=2.0, sampler="ddim", sampling_steps=9), Budget(4, 2), device="cpu", amp="off").load(tmp_path / "checkpoint.pt")
    with pytest.raises(CheckpointError, match="belongs to another run"):
        Trainer(replace(VDM_TEXT, null_probability=0.5), Budget(4, 2), device="cpu", amp="off").load(tmp_path / "checkpoint.pt")


def test_a_run_hands_out_the_average_of_its_weights(tmp_path):
    run, average = trainer(), EMA(trainer().net, TINY.ema_decay)
    for _ in run.run():
        average.update(run.net)
    train._export(run, tmp_path, False, None)
    saved = torch.load(tmp_path / "mnist-ddpm.pt", weights_only=True)["weights"]
    for name, mean in average.net.named_parameters():
        assert torch.equal(run.ema.net.get_parameter(name), mean) and torch.equal(run.model().net.get_parameter(name), mean) and torch.equal(saved[name], mean.half())
    assert any(not torch.equal(a, b) for a, b in zip(average.net.parameters(), run.net.parameters()))


def test_a_skipped_step_does_not_move_the_average():
    run = trainer(steps=100)
    run.train_step(), run.train_step()
    before, updates = copy.deepcopy(run.ema.net), run.ema.updates
    run.loss = lambda step, rows: sum(p.sum() for p in run.net.parameters()) * math.nan
    assert run.train_step().skipped and run.ema.updates == updates
    assert all(map(torch.equal, before.parameters(), run.ema.net.parameters()))


def test_the_learning_rate_rises_for_a_twentieth_falls_as_a_cosine_and_is_used():
    run, highest = trainer(steps=100), TINY.learning_rate
    assert [run.learning_rate(step) / highest for step in (0, 4, 5, 100)] == pytest.approx([0.2, 1, 1, 0])
    assert run.learning_rate(5 + 95 // 2) == pytest.approx(highest / 2, rel=0.05)
    assert trainer(steps=100_000).learning_rate(99) == pytest.approx(highest / 2)  # the rise takes at most 200 steps
    for step in range(3):
        run.train_step()
        assert run.optimizer.param_groups[0]["lr"] == run.learning_rate(step)


def test_published_weights_and_recorded_curves(tmp_path, monkeypatch):
    monkeypatch.setattr(train, "ASSETS", tmp_path)
    monkeypatch.setattr(train, "CHECKPOINTS", tmp_path / "checkpoints")
    monkeypatch.setattr(train, "shipped_flops", lambda name: 0.0)
    curves = tmp_path / "results" / "mnist-ddpm-loss.json"
    curves.parent.mkdir()
    curves.write_text(json.dumps({"t4": {"loss": []}}))
    assert main(["mnist-ddpm", "--budget", "smoke", "--device", "cpu", "--amp", "off", "--publish", "--record", "--out", str(tmp_path / "run")]) == 0
    assert (tmp_path / "checkpoints" / "mnist-ddpm.pt").read_bytes() == (tmp_path / "run" / "mnist-ddpm.pt").read_bytes()
    kept = json.loads(curves.read_text())
    assert set(kept) == {"t4", "smoke"} and kept["smoke"]["provenance"]["steps"] == 10 and kept["smoke"]["loss"]


def test_options_of_the_command_reach_the_trainer(tmp_path, monkeypatch):
    def spy(*arguments):
        made.extend(arguments)
        raise ValueError("seen")

    made = []
    monkeypatch.setattr(train, "Trainer", spy)
    assert main(["vdm-text", "--steps", "7", "--batch-size", "4", "--parts", "2", "--recompute", "--fresh-text", "--compile", "--seed", "3", "--device", "cpu", "--initial", "vdm-text", "--out", str(tmp_path)]) == 1
    assert made[1] == Budget(7, 4) and made[4] == 3 and made[8:] == [2, True, True, True]


def test_weights_of_unknown_training_can_be_started_from(tmp_path):
    from_seed = [Model(VDM, UNet(VDM.net), device="cpu") for _ in range(2)]
    runs = [Trainer(VDM, Budget(4, 2), device="cpu", amp="off", initial=model) for model in from_seed]
    assert runs[0].model().trained_steps == 0 and total_flops(runs[0].provenance()) == 0 and runs[0].provenance()["initial"]["recipe"] == "vdm"
    assert runs[0].fingerprint() != runs[1].fingerprint()  # other weights: another run


def test_weights_with_less_training_are_not_published_over_better_ones(tmp_path, capsys):
    shipped = CHECKPOINTS / "vdm-text.pt"
    before, planned = shipped.read_bytes(), Trainer(VDM_TEXT, VDM_TEXT.budget("smoke"), "cpu", "off").provenance(3)
    assert 0 < total_flops(planned) < shipped_flops("vdm-text") and shipped_flops("nobody") == 0
    image, older = {"flops": 4.0, "seed": 1, "initial": {"flops": 8.0, "seed": 0}}, {"flops": 8.0, "seed": 0}
    assert total_flops(image) == 12 and total_flops({"flops": 1.0, "initial": {"flops": 2.0, "initial": older}, "frozen": image}) == 15  # each run once
    assert total_flops({"recipe": "b", "flops": 1.0, "initial": {"recipe": "a", "flops": 2.0}}, "b") == 1
    assert main(["vdm-text", "--budget", "smoke", "--publish", "--out", str(tmp_path)]) == 1
    assert "leave --publish out" in capsys.readouterr().err and shipped.read_bytes() == before
    assert main(["mav-interpolate", "--budget", "smoke", "--publish", "--out", str(tmp_path)]) == 1  # the training of mav, which it starts from, is no training of this
    assert "leave --publish out" in capsys.readouterr().err
    assert not list(tmp_path.glob("*.pt"))  # before anything is trained
