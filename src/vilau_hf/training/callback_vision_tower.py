"""Scores of the vision tower during its training, and a sheet of its reconstructions in the log."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Subset
from transformers import TrainerCallback

from ..compat import TensorBoardCallback, TrackioCallback, WandbCallback
from ..evaluation.metrics import psnr_of_error
from ..evaluation.sheets import beside, contact_sheet, enlarge, to_uint8
from ..evaluation.zero_shot import embed_classes
from ..files import write_then_rename
from .hub_weights import find_hub_weights, require


class VisionTowerEvaluationCallback(TrainerCallback):
    r"""
    After each evaluation of a [`VisionTowerTrainer`], scores the reconstructions of its evaluation set: PSNR over all
    pixels, mean SSIM and, if asked for, reconstruction FID and zero-shot accuracy, as `eval_psnr`, `eval_ssim`,
    `eval_rfid`, `eval_zero_shot_accuracy` in the logs and in the metrics that choose the best checkpoint. The averaged
    weights, if they are kept, are scored as `eval_ema_...`. A sheet of pictures beside their reconstructions goes to
    `output_dir/reconstructions` and, as an image, to TensorBoard, Trackio and Weights & Biases, where one of them
    reports. Every rank scores its share of the pictures.

    Args:
        trainer ([`VisionTowerTrainer`]): to be given the callback by `trainer.add_callback`. Its `data_collator` must
            give `pixel_values`.
        classes (`list[str]`, *optional*): captions of the classes between which zero-shot classification chooses, by
            the tokenizer of [`VisionTowerDataCollator`].
        label_of (`Callable[[dict], int]`, *optional*): index of the class of a record; given together with `classes`.
        fid (`bool`, *optional*, defaults to `False`): whether to compute the reconstruction FID.
        num_pictures (`int`, *optional*, defaults to 8): pictures of the sheet, the first of the evaluation set.
        download_judge_weights (`bool`, *optional*, defaults to `False`): whether FID's network may be fetched.

    Raises:
        ValueError: for a model that is no vision tower, without a dataset to evaluate on, or if only one of `classes`
            and `label_of` is given.
        FileNotFoundError: if FID's network is not there and may not be fetched.
    """

    def __init__(
        self,
        trainer,
        classes: list[str] | None = None,
        label_of: Callable[[dict], int] | None = None,
        fid: bool = False,
        num_pictures: int = 8,
        download_judge_weights: bool = False,
    ):
        if not trainer.has_codes:
            raise ValueError("`trainer` must train a vision tower, got one of a model without a pixel decoder.")
        if not hasattr(trainer.eval_dataset, "__getitem__") or isinstance(trainer.eval_dataset, dict):
            raise ValueError(
                f"`trainer.eval_dataset` must be one dataset read by index, got {type(trainer.eval_dataset).__name__}."
            )
        if (classes is None) != (label_of is None):
            raise ValueError("`classes` and `label_of` must be given together.")
        require("torchmetrics", "SSIM")
        self.trainer = trainer
        self.classes = classes
        self.num_pictures = num_pictures
        self.collate = _LabelledCollator(trainer.data_collator, label_of)
        self.fid = _make_fid(download_judge_weights).to(trainer.args.device) if fid else None
        self.fid_knows_originals = False

    def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        trainer = self.trainer
        scores = {f"eval_{name}": value for name, value in self.score(trainer.tower).items()}
        if trainer.ema is not None:
            averaged = self.score(trainer.ema.module)
            scores.update({f"eval_ema_{name}": value for name, value in averaged.items()})
        metrics.update(scores)
        trainer.log(dict(scores))
        if state.is_world_process_zero and self.num_pictures:
            sheet = self.draw_sheet(trainer.tower)
            _save(sheet, Path(args.output_dir, "reconstructions", f"step-{state.global_step:08d}.png"))
            log_image(trainer, "eval/reconstructions", sheet)

    @torch.no_grad()
    def score(self, tower) -> dict[str, float]:
        """Scores of `tower` on the evaluation set; every rank has to call."""
        from torchmetrics.functional.image import structural_similarity_index_measure

        args, accelerator = self.trainer.args, self.trainer.accelerator
        dataset = self.trainer.eval_dataset
        own = Subset(dataset, range(accelerator.process_index, len(dataset), accelerator.num_processes))
        loader = DataLoader(
            own, args.eval_batch_size, collate_fn=self.collate, num_workers=args.dataloader_num_workers
        )
        tower.eval()
        texts = None if self.classes is None else self._embed_classes(tower)
        sums = torch.zeros(4, device=args.device)  # images, squared errors, SSIM, right
        for batch, labels in loader:
            pixels = batch["pixel_values"].to(args.device)
            encoded = tower.vision_tower.encode(pixels)
            original, rebuilt = to_uint8(pixels), to_uint8(tower.vision_tower.decode(encoded.quantized))
            similarity = structural_similarity_index_measure(
                rebuilt.float(), original.float(), data_range=255.0, reduction="none"
            )
            right = torch.zeros((), device=args.device)
            if texts is not None:
                images = tower.image_pooler(encoded.quantized).float()
                right = ((images @ texts.T).argmax(-1) == labels.to(args.device)).sum()
            errors = (rebuilt.float() - original.float()).square().mean((1, 2, 3))
            sums += torch.stack([sums.new_tensor(len(pixels)), errors.sum(), similarity.sum(), right])
            if self.fid is not None:
                self._update_fid(original, rebuilt)
        count, error, similarity, right = accelerator.reduce(sums, reduction="sum").tolist()
        scores = {"psnr": psnr_of_error(error / count, data_range=255), "ssim": similarity / count}
        if texts is not None:
            scores["zero_shot_accuracy"] = right / count
        if self.fid is not None:
            scores["rfid"] = self.fid.compute().item()
            self.fid.reset()
            self.fid_knows_originals = True
        return scores

    def _embed_classes(self, tower) -> torch.Tensor:
        collator = self.collate.collator
        return embed_classes(tower, collator.tokenizer, self.classes, collator.max_length)

    def _update_fid(self, original: torch.Tensor, rebuilt: torch.Tensor):
        if not self.fid_knows_originals:
            self.fid.update(original, real=True)
        self.fid.update(rebuilt, real=False)

    @torch.no_grad()
    def draw_sheet(self, tower) -> Image.Image:
        """Pictures beside their reconstructions, with the PSNR of each."""
        dataset = self.trainer.eval_dataset
        batch, _ = self.collate([dataset[index] for index in range(min(self.num_pictures, len(dataset)))])
        pixels = batch["pixel_values"].to(self.trainer.args.device)
        original = to_uint8(pixels)
        rebuilt = to_uint8(tower.vision_tower.decode(tower.vision_tower.encode(pixels).quantized))
        errors = (rebuilt.float() - original.float()).square().mean((1, 2, 3)).tolist()
        side = max(96, pixels.shape[-1])
        pairs = [
            beside(enlarge(a, side), enlarge(b, side)) for a, b in zip(original.cpu(), rebuilt.cpu(), strict=True)
        ]
        return contact_sheet(
            pairs, [f"{psnr_of_error(error, 255):.1f} dB" for error in errors], None, min(4, len(pairs))
        )


class _LabelledCollator:
    """A batch, and the labels of its records `(N,)` if they have any."""

    def __init__(self, collator, label_of):
        self.collator = collator
        self.label_of = label_of

    def __call__(self, records: list[dict]):
        labels = None if self.label_of is None else torch.tensor([self.label_of(record) for record in records])
        return self.collator(records), labels


def _make_fid(download: bool):
    for package in ("torchmetrics", "torch_fidelity"):
        require(package, "the reconstruction FID")
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3
    from torchmetrics.image.fid import FrechetInceptionDistance

    path = find_hub_weights(URL_INCEPTION_V3, "the reconstruction FID", download)
    torch.load(path, map_location="meta", weights_only=True)  # the library would read any pickle
    return FrechetInceptionDistance(feature_extractor_weights_path=str(path), reset_real_features=False)


def _save(image: Image.Image, path: Path):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_then_rename(path, lambda unfinished: image.save(unfinished, format="png"))


def log_image(trainer, name: str, image: Image.Image):
    """Puts `image` into the logs of TensorBoard, Trackio and Weights & Biases, where they are among the callbacks."""
    step = trainer.state.global_step
    for callback in trainer.callback_handler.callbacks:
        if isinstance(callback, TensorBoardCallback):
            callback.tb_writer.add_image(name, np.asarray(image), step, dataformats="HWC")
        elif isinstance(callback, WandbCallback):
            import wandb

            wandb.log({name: wandb.Image(image), "train/global_step": step})
        elif isinstance(callback, TrackioCallback):
            import trackio

            trackio.log({name: trackio.Image(image), "train/global_step": step})


__all__ = ["VisionTowerEvaluationCallback", "log_image"]
