"""FID and KID, by torchmetrics, in the features of a network."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from PIL import Image
from torch import nn
from tqdm.auto import tqdm

from .evaluated_model import EvaluatedModel
from .hub_weights import require_package
from .metric_networks import make_fid
from .task import TaskOptions


# Gives features `(N, C)` of N images of one size.
FeatureNetwork = Callable[[list[Image.Image]], torch.Tensor]


class _GivenFeatures(nn.Identity):
    """Takes features in place of images, so that every network has its own preprocessing."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features


def distances_of_features(
    generated: torch.Tensor, real: torch.Tensor, subset_size: int = 1000, seed: int = 0
) -> dict[str, float]:
    """
    Computes the distances of Fréchet (Heusel et al., 2017) and of the polynomial kernel (Bińkowski et al., 2018).

    Distances are comparable only with the same network and about the same number of images. The covariance of FID has
    full rank only with more images than features.

    Args:
        generated (`torch.Tensor` of shape `(N, C)`): features of generated images, at least two.
        real (`torch.Tensor` of shape `(M, C)`): features of real images, at least two.
        subset_size (`int`, *optional*, defaults to 1000): images in each of the 50 subsets of KID, at most N and M.
        seed (`int`, *optional*, defaults to 0): seed of the subsets.

    Returns:
        `fid`, and the mean and standard deviation of KID over the subsets: `kid`, `kid_std`.

    Raises:
        ImportError: if torchmetrics is not installed.
        ValueError: for fewer than two images.
    """
    require_package("torchmetrics", "the distances of features")
    from torchmetrics.image.fid import FrechetInceptionDistance
    from torchmetrics.image.kid import KernelInceptionDistance

    for name, values in (("generated", generated), ("real", real)):
        if len(values) < 2:
            raise ValueError(f"`{name}` must contain at least two images, got {len(values)}.")
    network = _GivenFeatures(generated.shape[1])
    frechet = FrechetInceptionDistance(feature=network)
    kernel = KernelInceptionDistance(
        feature=network, subsets=50, subset_size=min(subset_size, len(generated), len(real))
    )
    for is_real, values in ((True, real), (False, generated)):
        frechet.update(values, real=is_real)
        kernel.update(values, real=is_real)
    # KID draws its subsets from the global generator.
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        value, spread = kernel.compute()
    return {"fid": frechet.compute().item(), "kid": value.item(), "kid_std": spread.item()}


def inception_features(model: EvaluatedModel, options: TaskOptions) -> FeatureNetwork:
    """
    Returns the features of Inception with which FID is published, 2,048 numbers for each image.

    Args:
        model ([`EvaluatedModel`]): tells the device.
        options ([`TaskOptions`]): tell whether missing weights may be downloaded.

    Raises:
        FileNotFoundError: if the weights are missing. The message says where to get them.
    """
    try:
        network: Any = make_fid("FID", options.download_metric_weights).inception
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error} `--features tower` and `--features judge` need no download.") from error
    network = network.to(model.device)

    def extract(images: list[Image.Image]) -> torch.Tensor:
        pixels = torch.stack([_to_tensor(image) for image in images]).to(model.device)
        return network(pixels).float().cpu()

    return extract


def tower_features(model: EvaluatedModel, options: TaskOptions) -> FeatureNetwork:
    """
    Returns the features of the model's image encoder, averaged over the positions of each image.

    They need no further weights. But a model is measured by its own encoder, so the numbers cannot be compared with
    those of another model.

    Args:
        model ([`EvaluatedModel`]): the model.
        options ([`TaskOptions`]): not used.
    """

    def extract(images: list[Image.Image]) -> torch.Tensor:
        pixels = model.image_processor(images, return_tensors="pt")["pixel_values"].to(model.device)
        with torch.no_grad():
            # `None` only in outputs of other models
            features: Any = model.vision_tower.encode_image(pixels).last_hidden_state
        return features.float().mean(1).cpu()

    return extract


# Name in `--features` -> function that makes the network. `vilau_hf.evaluation_tasks` adds the judge of emoji.
FEATURE_NETWORKS: dict[str, Callable[[EvaluatedModel, TaskOptions], FeatureNetwork]] = {
    "inception": inception_features,
    "tower": tower_features,
}


def make_feature_network(model: EvaluatedModel, options: TaskOptions) -> FeatureNetwork:
    """
    Makes the network of the option `features`, by default Inception.

    Args:
        model ([`EvaluatedModel`]): the model.
        options ([`TaskOptions`]): the options.

    Raises:
        ValueError: for an unknown network.
    """
    name = options.features or "inception"
    if name not in FEATURE_NETWORKS:
        raise ValueError(f"`features` must be one of {', '.join(FEATURE_NETWORKS)}, got {name!r}.")
    require_package("torchmetrics", "FID")
    return FEATURE_NETWORKS[name](model, options)


def extract_features(
    network: FeatureNetwork, images: Sequence[Callable[[], Image.Image]], description: str, batch_size: int = 32
) -> torch.Tensor:
    """
    Computes the features of images, with progress.

    Args:
        network (`FeatureNetwork`): gives the features of a batch.
        images (`Sequence[Callable[[], PIL.Image.Image]]` of length N): functions that open the images.
        description (`str`): text of the progress bar.
        batch_size (`int`, *optional*, defaults to 32): images in a batch.

    Returns:
        `torch.Tensor` of shape `(N, C)`.
    """
    features = [
        network([load() for load in images[begin : begin + batch_size]])
        for begin in tqdm(range(0, len(images), batch_size), desc=description, leave=False, disable=None)
    ]
    return torch.cat(features)


def _to_tensor(image: Image.Image) -> torch.Tensor:
    """Returns an RGB image as uint8 of shape `(3, height, width)`."""
    size = (image.height, image.width, 3)
    return torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(size).permute(2, 0, 1)


__all__ = [
    "FEATURE_NETWORKS",
    "FeatureNetwork",
    "distances_of_features",
    "extract_features",
    "inception_features",
    "make_feature_network",
    "tower_features",
]
