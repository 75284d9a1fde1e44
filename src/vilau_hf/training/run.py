"""Runs the training that a recipe describes."""

from transformers import set_seed

from ..data.build import build_collator, build_dataset, build_eval_dataset
from .build_model import add_adapters, load_model, load_processor
from .build_vision_tower import build_tower_datasets, load_tower, load_tower_collator
from .callback_vision_tower import VisionTowerEvaluationCallback
from .checkpointing import checkpoint_to_resume
from .recipe_language_model import LanguageModelRecipe
from .recipe_vision_tower import VisionTowerRecipe
from .trainer_vilau import VilaUTrainer
from .trainer_vision_tower import VisionTowerTrainer


def run_training(recipe: LanguageModelRecipe | VisionTowerRecipe) -> VilaUTrainer | VisionTowerTrainer:
    """
    Trains a model and saves it with its processor in `output_dir`.

    If the model has adapters, only the adapters are saved.

    Args:
        recipe ([`LanguageModelRecipe`] or [`VisionTowerRecipe`]): see [`read_recipe`].

    Returns:
        [`VilaUTrainer`] or [`VisionTowerTrainer`]: the trainer, after training.

    Raises:
        ValueError: for data or a model that do not fit the recipe.
    """
    # Before the model: new weights are random.
    set_seed(recipe.training.seed)
    if isinstance(recipe, VisionTowerRecipe):
        return _train_vision_tower(recipe)
    return _train_language_model(recipe)


def _train_language_model(recipe: LanguageModelRecipe) -> VilaUTrainer:
    args = recipe.training
    processor = load_processor(recipe.model)
    model = load_model(recipe.model, recipe.lora, processor)
    train_dataset = build_dataset(recipe.data, args, processor, model)
    trainer = VilaUTrainer(
        model=add_adapters(model, recipe.lora, args),
        args=args,
        train_dataset=train_dataset,
        eval_dataset=build_eval_dataset(recipe.data, processor, model),
        data_collator=build_collator(recipe.data, args, processor),
        processing_class=processor,  # saved with every checkpoint
    )
    trainer.train(resume_from_checkpoint=checkpoint_to_resume(args.resume_from_checkpoint))
    trainer.save_model()
    return trainer


def _train_vision_tower(recipe: VisionTowerRecipe) -> VisionTowerTrainer:
    args = recipe.training
    tower = load_tower(recipe.model, recipe.config)
    collator = load_tower_collator(recipe.model, tower.config)
    datasets = build_tower_datasets(recipe.data, tower.config, args.seed, collator.image_processor)
    trainer = VisionTowerTrainer(
        model=tower,
        args=args,
        train_dataset=datasets.train,
        eval_dataset=datasets.eval,
        data_collator=collator,
        processing_class=collator.tokenizer,  # saved with every checkpoint
    )
    if datasets.eval is not None:
        # Zero-shot classification compares images with captions of the classes, so it needs the tokenizer.
        has_classes = collator.tokenizer is not None
        trainer.add_callback(
            VisionTowerEvaluationCallback(
                trainer,
                datasets.classes if has_classes else None,
                datasets.label_of if has_classes else None,
                fid=recipe.data.rfid,
                download_metric_weights=args.download_metric_weights,
            )
        )
    trainer.train(resume_from_checkpoint=checkpoint_to_resume(args.resume_from_checkpoint))
    if datasets.eval is not None and args.eval_strategy == "no":
        trainer.evaluate()
    trainer.save_model()
    return trainer


__all__ = ["run_training"]
