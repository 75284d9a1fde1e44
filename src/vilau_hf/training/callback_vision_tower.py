"""Evaluation of the vision tower during its training: scores, and a sheet of reconstructions in the log."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Subset
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..compat import TensorBoardCallback, TrackioCallback, WandbCallback
from ..evaluation.hub_weights import require_package
from ..evaluation.metric_networks import make_fid
from ..evaluation.metrics import psnr_of_error
from ..evaluation.sheets import beside, contact_sheet, enlarge, to_uint8
from ..evaluation.zero_shot import embed_classes
from ..files import write_then_rename
from ..modeling import VilaUVisionTowerForPreTraining
from .trainer_vision_tower import VisionTowerTrainer


class VisionTowerEvaluationCallback(TrainerCallback):
    r"""
    Scores the reconstructions of the evaluation set after each evaluation of a [`VisionTowerTrainer`].

    The scores are `eval_psnr` (over all pixels), `eval_ssim` (mean over images) and, if requested, `eval_rfid`
    (reconstruction FID) and `eval_zero_shot_accuracy`. They are logged, and may choose the best checkpoint
    (`metric_for_best_model`). If the trainer keeps averaged weights, their scores are `eval_ema_...`.

    A sheet shows images beside their reconstructions. It is saved in `output_dir/reconstructions` and logged to
    TensorBoard, Trackio and Weights & Biases, where `report_to` names them. Every rank scores a share of the images.

    Args:
        trainer ([`VisionTowerTrainer`]): the trainer; give it the callback by `trainer.add_callback`. Its
            `data_collator` must return `pixel_values`.
        classes (`list[str]`, *optional*): captions of the classes for zero-shot classification. The tokenizer is that
            of the [`VisionTowerDataCollator`].
        label_of (`Callable[[dict], int]`, *optional*): maps a record to the index of its class; needed with `classes`.
        fid (`bool`, *optional*, defaults to `False`): whether to compute the reconstruction FID.
        num_images (`int`, *optional*, defaults to 8): number of images in the sheet, the first of the evaluation set.
        download_metric_weights (`bool`, *optional*, defaults to `False`): whether missing weights of the FID network
            may be downloaded.

    Raises:
        ValueError: if the model is no vision tower, or if there is no evaluation set with access by index. Also if
            only one of `classes` and `label_of` is given.
        FileNotFoundError: if the weights of the FID network are missing and may not be downloaded.
    """

    def __init__(
        self,
        trainer: VisionTowerTrainer,
        classes: list[str] | None = None,
        label_of: Callable[[dict], int] | None = None,
        fid: bool = False,
        num_images: int = 8,
        download_metric_weights: bool = False,
    ) -> None:
        if not trainer.has_codes:
            raise ValueError("`trainer` must train a vision tower, got one of a model without a pixel decoder.")
        if not hasattr(trainer.eval_dataset, "__getitem__") or isinstance(trainer.eval_dataset, dict):
            raise ValueError(
                f"`trainer.eval_dataset` must be one dataset read by index, got {type(trainer.eval_dataset).__name__}."
            )
        if (classes is None) != (label_of is None):
            raise ValueError("`classes` and `label_of` must be given together.")
        require_package("torchmetrics", "SSIM")
        self.trainer = trainer
        self.classes = classes
        self.num_images = num_images
        self.collate = _LabelledCollator(trainer.data_collator, label_of)
        self.fid: Any = (
            make_fid("the reconstruction FID", download_metric_weights).to(trainer.args.device) if fid else None
        )
        # The features of the original images never change, so the network sees them only in the first evaluation.
        self.fid_has_originals = False

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """
        Scores the vision tower and logs the scores and the sheet. Every rank must call it.

        Args:
            args (`TrainingArguments`): the arguments of training.
            state (`TrainerState`): the state of training.
            control (`TrainerControl`): not used.
            metrics (`dict[str, float]`): metrics of the evaluation. The scores are added in place, because `Trainer`
                chooses the best checkpoint by them.
            kwargs: not used.
        """
        metrics = {} if metrics is None else metrics
        trainer = self.trainer
        scores = {f"eval_{name}": value for name, value in self.score(trainer.tower).items()}
        if trainer.ema is not None:
            averaged: Any = trainer.ema.module
            scores.update({f"eval_ema_{name}": value for name, value in self.score(averaged).items()})
        metrics.update(scores)
        trainer.log(dict(scores))
        if state.is_world_process_zero and self.num_images:
            sheet = self.draw_sheet(trainer.tower)
            _save(sheet, Path(str(args.output_dir), "reconstructions", f"step-{state.global_step:08d}.png"))
            log_image(trainer, "eval/reconstructions", sheet)

    @torch.no_grad()
    def score(self, tower: VilaUVisionTowerForPreTraining) -> dict[str, float]:
        """
        Computes the scores of a vision tower on the evaluation set. Every rank must call it.

        Args:
            tower ([`VilaUVisionTowerForPreTraining`]): the vision tower, set to evaluation mode.

        Returns:
            `dict[str, float]`: `psnr` in decibels, `ssim`, and if requested `zero_shot_accuracy` and `rfid`.
        """
        from torchmetrics.functional.image import structural_similarity_index_measure

        args = self.trainer.args
        accelerator = self.trainer.accelerator
        dataset: Any = self.trainer.eval_dataset
        share = Subset(dataset, range(accelerator.process_index, len(dataset), accelerator.num_processes))
        loader = DataLoader(
            share, args.eval_batch_size, collate_fn=self.collate, num_workers=args.dataloader_num_workers
        )
        tower.eval()
        texts = None if self.classes is None else self._embed_classes(tower, self.classes)
        # number of images, sum of squared errors, sum of SSIM, number of correct classes
        sums = torch.zeros(4, device=args.device)
        for batch, labels in loader:
            pixels = batch["pixel_values"].to(args.device)
            encoded = tower.vision_tower.encode(pixels)
            # Scores compare 8-bit images, the only ones that the FID network takes.
            original = to_uint8(pixels)
            rebuilt = to_uint8(tower.vision_tower.decode(encoded.quantized))
            similarity: Any = structural_similarity_index_measure(
                rebuilt.float(), original.float(), data_range=255.0, reduction="none"
            )
            correct = torch.zeros((), device=args.device)
            if texts is not None:
                images = tower.image_pooler(encoded.quantized).float()
                correct = ((images @ texts.T).argmax(-1) == labels.to(args.device)).sum()
            errors = (rebuilt.float() - original.float()).square().mean((1, 2, 3))
            sums += torch.stack([sums.new_tensor(len(pixels)), errors.sum(), similarity.sum(), correct])
            if self.fid is not None:
                self._update_fid(original, rebuilt)
        count, error, similarity, correct = accelerator.reduce(sums, reduction="sum").tolist()
        scores = {"psnr": psnr_of_error(error / count, data_range=255), "ssim": similarity / count}
        if texts is not None:
            scores["zero_shot_accuracy"] = correct / count
        if self.fid is not None:
            scores["rfid"] = self.fid.compute().item()
            self.fid.reset()
            self.fid_has_originals = True
        return scores

    def _embed_classes(self, tower: VilaUVisionTowerForPreTraining, classes: list[str]) -> torch.Tensor:
        collator = self.collate.collator
        return embed_classes(tower, collator.tokenizer, classes, collator.max_length)

    def _update_fid(self, original: torch.Tensor, rebuilt: torch.Tensor) -> None:
        if not self.fid_has_originals:
            self.fid.update(original, real=True)
        self.fid.update(rebuilt, real=False)

    @torch.no_grad()
    def draw_sheet(self, tower: VilaUVisionTowerForPreTraining) -> Image.Image:
        """
        Draws a sheet of images beside their reconstructions, with the PSNR of each.

        Args:
            tower ([`VilaUVisionTowerForPreTraining`]): the vision tower.
        """
        dataset: Any = self.trainer.eval_dataset
        batch, _ = self.collate([dataset[index] for index in range(min(self.num_images, len(dataset)))])
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
    """Returns a batch, and the labels of its records of shape `(N,)` if they have labels."""

    def __init__(self, collator: Any, label_of: Callable[[dict], int] | None) -> None:
        self.collator = collator
        self.label_of = label_of

    def __call__(self, records: list[dict]) -> tuple[dict[str, Any], torch.Tensor | None]:
        labels = None if self.label_of is None else torch.tensor([self.label_of(record) for record in records])
        return self.collator(records), labels


def _save(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_then_rename(path, lambda unfinished: image.save(unfinished, format="png"))


def log_image(trainer: Trainer, name: str, image: Image.Image) -> None:
    """
    Logs an image to TensorBoard, Trackio and Weights & Biases, where `report_to` names them.

    Args:
        trainer ([`Trainer`]): the trainer; its callbacks tell which of them are used.
        name (`str`): name of the image in the log.
        image (`PIL.Image.Image`): the image.
    """
    # Callbacks have no event for images, so the libraries are called directly.
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
