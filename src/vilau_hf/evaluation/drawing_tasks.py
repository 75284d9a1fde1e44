"""The task that draws the prompts of a file, and compares the images with a folder of real ones: FID and KID."""

import hashlib
from collections.abc import Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from PIL import Image

from ..processing.image_functions_vilau import open_images
from .feature_distances import FeatureNetwork, distances_of_features, extract_features, make_feature_network
from .image_data import check_count, choose_evenly, image_files, square
from .intervals import Score
from .model_outputs import user_message
from .prompt_files import Prompt, read_prompts
from .task import Conversation, ConversationTask, MetricValue, StoredResult


class PromptFid(ConversationTask):
    """
    Draws prompts and computes FID and KID to real images.

    Prompts of MJHQ-30K have the field `category`, and its images are in subfolders of these names. In this layout the
    distances of each category are computed, too.
    """

    name = "fid"
    description = "draw the prompts of --prompts: FID and KID to the images in --reference, also by category"
    mode = "image"
    uses = (*ConversationTask.uses, "prompts", "reference", "features", "judge", "download_metric_weights")
    needs = ("prompts", "reference")

    @cached_property
    def prompts(self) -> list[Prompt]:
        """Returns the prompts of all samples, spread over the file."""
        prompts = read_prompts(str(self.options.prompts))
        return [
            prompts[index] for index in choose_evenly(len(prompts), self.options.samples, str(self.options.prompts))
        ]

    @cached_property
    def categories(self) -> dict[str, list[int]]:
        """Returns the samples of each category that the reference folder has; empty without categories."""
        categories: dict[str, list[int]] = {}
        for index, prompt in enumerate(self.prompts):
            if "category" in prompt.fields:
                categories.setdefault(str(prompt.fields["category"]), []).append(index)
        folder = Path(str(self.options.reference))
        return categories if any((folder / name).is_dir() for name in categories) else {}

    @cached_property
    def network(self) -> FeatureNetwork:
        """Returns the network that gives the features."""
        return make_feature_network(self.model, self.options)

    def __len__(self) -> int:
        return len(self.prompts)

    def check(self) -> None:
        """
        Checks the prompts, the reference folder, and that the feature network is there.

        Raises:
            ValueError: if a reference folder has fewer images than are generated, in all or of a category.
        """
        super().check()
        folder = Path(str(self.options.reference))
        if not folder.is_dir():
            raise ValueError(f"`--reference` must be a folder of images, got {str(folder)!r}.")
        check_count(image_files(folder), len(self), folder)
        for name, indices in self.categories.items():
            check_count(image_files(folder / name), len(indices), folder / name)
        # A covariance needs two images.
        for name, count in [("all", len(self)), *((name, len(each)) for name, each in self.categories.items())]:
            if count < 2:
                raise ValueError(
                    f"FID needs at least 2 prompts of each category, got {count} of the category {name!r}."
                )
        _ = self.network

    def settings(self) -> dict[str, Any]:
        """Returns the options, and what the prompts are."""
        texts = "\n".join(prompt.text for prompt in self.prompts)
        return {**super().settings(), "prompts_identity": hashlib.sha256(texts.encode()).hexdigest()[:16]}

    def conversation(self, index: int) -> Conversation:
        """Returns a prompt as the message of the user."""
        prompt = self.prompts[index]
        return Conversation(user_message([{"type": "text", "text": prompt.text}]), prompt)

    def score(self, conversations: Sequence[Conversation], outputs: Any) -> list[dict[str, MetricValue]]:
        """Returns no metrics, since the distances are those of all images together."""
        return [{} for _ in conversations]

    def summarize(self, results: Sequence[StoredResult]) -> dict[str, Score | float]:
        """Computes the distances over all images, and over those of each category."""
        files = image_files(Path(str(self.options.reference)))
        side = self.model.image_size
        loaders = [partial(_load_square, file, side) for file in files]
        real = extract_features(self.network, loaders, "features of the reference")
        drawn = [partial(_load_square, result.media["generated"], side) for result in results]
        generated = extract_features(self.network, drawn, "features of the drawings")
        scores: dict[str, Score | float] = dict(distances_of_features(generated, real, seed=self.options.seed))
        folder = Path(str(self.options.reference))
        for name, indices in self.categories.items():
            rows = [row for row, file in enumerate(files) if file.is_relative_to(folder / name)]
            distances = distances_of_features(generated[indices], real[rows], seed=self.options.seed)
            scores |= {f"{metric}_{name}": value for metric, value in distances.items()}
        return scores


def _load_square(file: Path, side: int) -> Image.Image:
    """Returns the central square of an image file, at the size of the model, as MJHQ-30K is scored."""
    return square(open_images(file), side)


__all__ = ["PromptFid"]
