"""Zero-shot classification by a vision tower with its text encoder."""

from collections.abc import Sequence

import torch
from PIL import Image
from transformers import BaseImageProcessor, PreTrainedTokenizerBase

from ..data.collator_vision_tower import tokenize_captions
from ..modeling import VilaUVisionTowerForPreTraining


@torch.no_grad()
def embed_classes(
    tower: VilaUVisionTowerForPreTraining, tokenizer: PreTrainedTokenizerBase, classes: list[str], max_length: int
) -> torch.Tensor:
    """
    Embeds the caption of each class, to classify images without training.

    The class of an image is the one whose embedding has the largest dot product with the embedding of the image.

    Args:
        tower ([`VilaUVisionTowerForPreTraining`]): a vision tower with its text encoder.
        tokenizer (`PreTrainedTokenizerBase`): tokenizer of the text encoder.
        classes (`list[str]` of length N): one caption for each class, such as "a red cross".
        max_length (`int`): length in tokens that captions are padded to.

    Returns:
        `torch.Tensor`, float32, one row of norm 1 for each class, on the device of `tower`.
    """
    ids = tokenize_captions(tokenizer, classes, max_length)
    texts = tower.get_text_features(ids.to(tower.device)).float()
    return torch.nn.functional.normalize(texts, dim=-1)


class ZeroShotClassifier:
    """
    Classifies images by the names of classes, without training.

    The embeddings of a name in all templates are averaged, as CLIP does (Radford et al., 2021, section 3.1.4).

    Args:
        tower ([`VilaUVisionTowerForPreTraining`]): a vision tower with its text encoder.
        tokenizer (`PreTrainedTokenizerBase`): tokenizer of the text encoder.
        image_processor (`BaseImageProcessor`): image processor of the tower.
        names (`Sequence[str]` of length N): names of the classes.
        templates (`Sequence[str]`, *optional*): texts in which `{}` is replaced by a name (default: the name alone).
        batch_size (`int`, *optional*, defaults to 256): texts in a batch.
    """

    def __init__(
        self,
        tower: VilaUVisionTowerForPreTraining,
        tokenizer: PreTrainedTokenizerBase,
        image_processor: BaseImageProcessor,
        names: Sequence[str],
        templates: Sequence[str] = ("{}",),
        batch_size: int = 256,
    ) -> None:
        self.tower = tower
        self.image_processor = image_processor
        self.names = list(names)
        length = tower.config.text_config.max_position_embeddings
        captions = [template.format(name) for name in names for template in templates]
        batches = [captions[row : row + batch_size] for row in range(0, len(captions), batch_size)]
        embeddings = torch.cat([embed_classes(tower, tokenizer, batch, length) for batch in batches])
        averaged = embeddings.unflatten(0, (len(self.names), len(templates))).mean(1)
        self.embeddings = torch.nn.functional.normalize(averaged, dim=-1)

    def classify(self, images: Sequence[Image.Image], count: int = 1) -> list[list[str]]:
        """
        Chooses the most likely classes of images.

        Args:
            images (`Sequence[PIL.Image.Image]` of length B): the images.
            count (`int`, *optional*, defaults to 1): number of classes that are returned, fewer if there are fewer.

        Returns:
            Names of the classes of each image, the most likely first.
        """
        return self.classify_pixels(self.image_processor(list(images), return_tensors="pt")["pixel_values"], count)

    @torch.no_grad()
    def classify_pixels(self, pixels: torch.Tensor, count: int = 1) -> list[list[str]]:
        """Chooses the most likely classes of `pixels` `(B, 3, S, S)` in [-1, 1], as [`classify`] does."""
        images = self.tower.get_image_features(pixels.to(self.tower.device)).float()
        best = (images @ self.embeddings.T).topk(min(count, len(self.names))).indices
        return [[self.names[index] for index in row] for row in best.tolist()]


__all__ = ["ZeroShotClassifier", "embed_classes"]
