"""The table of where digits are lost: real clips stay what they are, more noise changes more, and a stopped run goes on."""

from dataclasses import replace

import pytest
import torch

from utils import survival
from utils.model import Model
from utils.recipes import VDM_TEXT
from utils.survival import FLOOR, NOISE, Survival
from utils.unet import UNetConfig

RECIPE = replace(VDM_TEXT, net=UNetConfig(channels=(8, 8), blocks=(1, 1), space=(False, True), time=(False, True), stem=4, embed_dim=16, head_dim=8, text_width=16))


class Blind(torch.nn.Module):
    """A network that says v = 0, so x_hat = alpha z: it keeps what shows through the noise, and some of the noise."""

    def encode(self, tokens):
        return torch.zeros(len(tokens), RECIPE.net.embed_dim)

    def forward(self, z, log_snr, cond=None):
        return torch.zeros_like(z)


def test_more_noise_changes_more_and_rows_are_kept(tmp_path, monkeypatch):
    model = Model(RECIPE, Blind(), {"steps": 1}, device="cpu")
    table = Survival(tmp_path / "table.json", model, 12, 0, 4, 1.0, "validation")
    for name in (FLOOR, "4", "0", "-4", NOISE):
        table.row(name)
    rows = table.rows()
    assert rows[FLOOR]["changed"] == 0 and rows[FLOOR]["digits"] > 0.8 and rows[FLOOR]["rmse"] < 0.7
    changed = [rows[name]["changed"] for name in (FLOOR, "4", "0", "-4")]
    assert changed == sorted(changed) and changed[-1] > 0.2
    assert rows["4"]["digits"] > rows[NOISE]["digits"] and rows[NOISE]["digits"] < 0.3
    monkeypatch.setattr(survival, "read", lambda clips: pytest.fail("measured again"))
    Survival(tmp_path / "table.json", model, 12, 0, 4, 1.0, "validation").row("0")
    with pytest.raises(ValueError, match="log_snr must be"):
        table.row("-40")
