"""Random weights where torch.hub keeps the trained ones, so that LPIPS runs without a download."""

import pytest
import torch
from torchvision import models


@pytest.fixture
def squeeze_weights(tmp_path):
    """The folder of torch.hub, with weights of LPIPS's smallest network alone."""
    before, folder = torch.hub.get_dir(), tmp_path / "hub"
    (folder / "checkpoints").mkdir(parents=True)
    name = models.SqueezeNet1_1_Weights.DEFAULT.url.rpartition("/")[2]
    torch.manual_seed(5)
    torch.save(models.squeezenet1_1().state_dict(), folder / "checkpoints" / name)
    torch.hub.set_dir(folder)
    yield folder
    torch.hub.set_dir(before)
