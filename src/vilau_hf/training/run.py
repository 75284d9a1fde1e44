"""One run of stage 2 or of supervised fine-tuning, as a recipe describes it."""

from transformers import set_seed

from ..data.build import build_collator, build_dataset, build_eval_dataset
from .build_model import add_adapters, load_model, load_processor
from .checkpointing import checkpoint_to_resume
from .recipe import Recipe
from .trainer_vilau import VilaUTrainer


def run_training(recipe: Recipe) -> VilaUTrainer:
    """
    Trains a model and saves it with its processor in `output_dir`; of a model with adapters these alone are saved.

    Args:
        recipe ([`Recipe`]): see [`read_recipe`].

    Returns:
        The trainer, after training.

    Raises:
        ValueError: for data or a model that do not fit the recipe.
    """
    args = recipe.training
    set_seed(args.seed)
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


__all__ = ["run_training"]
