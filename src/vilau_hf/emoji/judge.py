"""An independent judge of generated emoji: a residual network that names concept and style of an image."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn
from torchvision.models import resnet18
from torchvision.transforms.functional import pil_to_tensor

from ..processing.pixel_rules_vilau import to_rgb
from .packages import STYLES


WEIGHTS_NAME = "judge.safetensors"
CONFIG_NAME = "judge.json"
VERSION = 1


@dataclass(frozen=True)
class Judgement:
    """
    Holds what the judge says of N images.

    Args:
        concepts (`torch.Tensor` of shape `(N, 5)`, int64): indices of the five most likely concepts, best first.
        styles (`torch.Tensor` of shape `(N,)`, int64): indices of the most likely style.
        features (`torch.Tensor` of shape `(N, 256)`, float32): features before the classifiers, for FID and KID.
    """

    concepts: torch.Tensor
    styles: torch.Tensor
    features: torch.Tensor


class EmojiJudge(nn.Module):
    """
    Classifies images by concept and by style. Its architecture shares nothing with the model that it judges.

    The network is the ResNet-18 of torchvision without its last stage, which has 8.4 of its 11.2 million weights.

    Args:
        concepts (`list[str]`): names of the concepts, in the order of the classes.
        image_size (`int`, *optional*, defaults to 64): side of the images in pixels.
    """

    num_features = 256

    def __init__(self, concepts: list[str], image_size: int = 64) -> None:
        super().__init__()
        self.concepts = list(concepts)
        self.styles = list(STYLES)
        self.image_size = image_size
        self.network = resnet18()
        self.network.layer4 = nn.Identity()
        self.network.fc = nn.Identity()
        self.concept_head = nn.Linear(self.num_features, len(self.concepts))
        self.style_head = nn.Linear(self.num_features, len(self.styles))

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """
        Computes logits.

        Args:
            pixels (`torch.Tensor` of shape `(N, 3, S, S)`, float32): images in [0, 1].

        Returns:
            Logits of the concepts `(N, number of concepts)`, logits of the styles `(N, 4)`, features `(N, 256)`.
        """
        features = self.network(pixels * 2 - 1)
        return self.concept_head(features), self.style_head(features), features

    @torch.inference_mode()
    def judge(self, images: list[Image.Image], batch_size: int = 64) -> Judgement:
        """
        Judges images of any size.

        Args:
            images (`list[Image.Image]`): the images.
            batch_size (`int`, *optional*, defaults to 64): images that are judged at once.
        """
        side = (self.image_size, self.image_size)
        resized = [to_rgb(image).resize(side, Image.Resampling.BICUBIC) for image in images]
        outputs = []
        for start in range(0, len(resized), batch_size):
            batch = torch.stack([pil_to_tensor(image) for image in resized[start : start + batch_size]])
            concepts, styles, features = self(batch.float() / 255)
            outputs.append((concepts.topk(5, dim=-1).indices, styles.argmax(-1), features))
        return Judgement(*(torch.cat(values) for values in zip(*outputs, strict=True)))

    def save(self, folder: str | Path) -> None:
        """Saves weights (float16) and names of the classes in `folder`."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: value.contiguous() for name, value in self.state_dict().items()}
        halved = {name: value.half() if value.is_floating_point() else value for name, value in tensors.items()}
        save_file(halved, folder / WEIGHTS_NAME)
        config = {"version": VERSION, "image_size": self.image_size, "styles": self.styles, "concepts": self.concepts}
        (folder / CONFIG_NAME).write_text(json.dumps(config, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path) -> "EmojiJudge":
        """
        Loads a judge, ready to judge.

        Raises:
            ValueError: if there is no judge in the folder, or one of another version.
        """
        missing = [name for name in (CONFIG_NAME, WEIGHTS_NAME) if not (Path(folder) / name).is_file()]
        if missing:
            raise ValueError(
                f"{str(folder)!r} is no folder of a judge: {', '.join(missing)} missing. "
                "`examples/emoji/train_judge.py` trains a judge."
            )
        config = json.loads((Path(folder) / CONFIG_NAME).read_text(encoding="utf-8"))
        if config["version"] != VERSION:
            raise ValueError(f"`folder` {str(folder)!r} holds version {config['version']}, expected {VERSION}.")
        judge = cls(config["concepts"], config["image_size"])
        judge.load_state_dict({name: value for name, value in load_file(Path(folder) / WEIGHTS_NAME).items()})
        return judge.float().eval()


__all__ = ["EmojiJudge", "Judgement"]
