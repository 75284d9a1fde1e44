"""Tasks on images that the user brings: reconstruction, reconstruction FID, and zero-shot classification."""

from collections.abc import Sequence
from functools import cached_property, partial
from typing import Any

from PIL import Image

from .feature_distances import FeatureNetwork, distances_of_features, extract_features, make_feature_network
from .image_data import LabelledImages, choose_evenly, read_lines, square
from .intervals import Score
from .reconstruction import ReconstructionTask
from .task import EvaluationTask, MetricValue, SampleResult, StoredResult
from .zero_shot import ZeroShotClassifier


DEFAULT_TEMPLATES = ("a photo of a {}.",)


class ImageDataTask(EvaluationTask):
    """A task on the images of `--data`."""

    uses = ("data", "split")
    needs = ("data",)

    @cached_property
    def images(self) -> LabelledImages:
        """Returns all images of the data."""
        return LabelledImages(str(self.options.data), self.options.split)

    @cached_property
    def indices(self) -> list[int]:
        """Returns the index in the data of each sample. They are spread over the data, since files are sorted."""
        return choose_evenly(len(self.images), self.options.samples, str(self.options.data))

    def __len__(self) -> int:
        return len(self.indices)

    def check(self) -> None:
        """Checks that there are images, and as many as samples."""
        super().check()
        _ = self.indices

    def settings(self) -> dict[str, Any]:
        """Returns the options, and which files the data has."""
        return {**super().settings(), "data_identity": self.images.identity}


class Reconstruction(ImageDataTask, ReconstructionTask):
    """Encodes and decodes images."""

    name = "reconstruction"
    description = "encode and decode the images of --data: PSNR, SSIM and LPIPS of central squares"
    uses = (*ImageDataTask.uses, *ReconstructionTask.uses)

    def image(self, index: int) -> Image.Image:
        """Returns the central square of an image, at the size of the tower."""
        return square(self.images[self.indices[index]], self.model.image_size)


class ReconstructionFid(Reconstruction):
    """Computes FID and KID between images and their reconstructions."""

    name = "rfid"
    description = "encode and decode the images of --data: FID and KID between images and reconstructions"
    uses = (*ImageDataTask.uses, "metrics", "features", "judge", "download_metric_weights")
    metrics = ("psnr",)

    @cached_property
    def network(self) -> FeatureNetwork:
        """Returns the network that gives the features."""
        return make_feature_network(self.model, self.options)

    def check(self) -> None:
        """Checks that the feature network is there, and that there are two images."""
        super().check()
        if len(self) < 2:
            raise ValueError(f"task {self.name!r} needs at least 2 images, got {len(self)}.")
        _ = self.network

    def summarize(self, results: Sequence[StoredResult]) -> dict[str, Score | float]:
        """Computes the distances over all images, and the means of the other metrics."""
        files = [
            [partial(Image.open, result.media[name]) for result in results] for name in ("reconstruction", "original")
        ]
        rebuilt, original = (extract_features(self.network, each, "features") for each in files)
        distances = distances_of_features(rebuilt, original, seed=self.options.seed)
        return {**{f"r{name}": value for name, value in distances.items()}, **super().summarize(results)}


class ZeroShot(ImageDataTask):
    """Classifies images by the names of their classes, without training."""

    name = "zero-shot"
    description = "classify the images of --data by the names of their classes, by the tower and its text encoder"
    uses = (*ImageDataTask.uses, "classes", "templates")
    right = "top_1"

    def check(self) -> None:
        """Checks that there are a text encoder, labels, and names and templates of the classes."""
        self.model.text_tower_source()
        super().check()
        if self.images.labels is None:
            raise ValueError(
                f"{self.options.data} has no classes: give a folder with one subfolder for each class, or a dataset "
                "with the column `label`."
            )
        _ = self.templates
        names = self.class_names
        if len(set(names)) < len(names):
            double = sorted({name for name in names if names.count(name) > 1})
            raise ValueError(f"each class must have another name, got {', '.join(double[:5])} more than once.")

    @cached_property
    def class_names(self) -> list[str]:
        """
        Returns the name of each class: the lines of `--classes`, or those of the data.

        Raises:
            ValueError: if the file has another number of lines than there are classes. The message has both counts.
        """
        classes = self.images.classes
        if self.options.classes is None:
            return [name.replace("_", " ") for name in classes]
        names = read_lines(self.options.classes)
        if len(names) != len(classes):
            raise ValueError(
                f"{self.options.classes} has {len(names)} names, but {self.options.data} has {len(classes)} classes."
            )
        return names

    @cached_property
    def templates(self) -> list[str]:
        """
        Returns the texts in which `{}` is replaced by the name of a class.

        Raises:
            ValueError: for a text without `{}`.
        """
        templates = list(DEFAULT_TEMPLATES) if self.options.templates is None else read_lines(self.options.templates)
        for number, template in enumerate(templates, start=1):
            if template.count("{}") != 1:
                raise ValueError(f"{self.options.templates}, line {number} must have {{}} once, got {template!r}.")
        return templates

    @cached_property
    def classifier(self) -> ZeroShotClassifier:
        """Returns the classifier of all classes."""
        return ZeroShotClassifier(
            self.model.text_tower,
            self.model.text_tokenizer,
            self.model.image_processor,
            self.class_names,
            self.templates,
        )

    def run(self, indices: Sequence[int]) -> list[SampleResult]:
        """Classifies the images."""
        images = [self.images[self.indices[index]] for index in indices]
        chosen = self.classifier.classify(images, count=5)
        results = []
        for index, names in zip(indices, chosen, strict=True):
            expected = self.class_names[(self.images.labels or [])[self.indices[index]]]
            metrics: dict[str, MetricValue] = {"top_1": names[0] == expected, "top_5": expected in names}
            results.append(SampleResult(index, metrics, {"chosen": names[0], "expected": expected}))
        return results


__all__ = ["DEFAULT_TEMPLATES", "ImageDataTask", "Reconstruction", "ReconstructionFid", "ZeroShot"]
