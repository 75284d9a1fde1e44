"""Says where a source file is tested that has no test file of its own name.

`src/vilau_hf/ROOM/NAME.py` is tested by `tests/ROOM/test_NAME.py`. `test_layout.py` checks that every other file has a
line here. Before you add one, ask whether a test file of its own would be easier to find.
"""

TESTED_IN = {
    "choices.py": ("test_cli.py",),
    "commands/convert.py": ("test_cli.py", "original/test_convert_vilau_weights_to_hf.py"),
    "commands/demo.py": ("test_cli.py",),
    "commands/encode.py": ("test_cli.py",),
    "commands/env.py": ("test_environment.py",),
    "commands/estimate.py": ("test_cli.py",),
    "commands/push.py": ("test_hub.py",),
    "commands/records.py": ("test_cli.py",),
    "commands/serve.py": ("serving/test_server.py",),
    "commands/train.py": ("training/test_recipe.py", "training/test_dry_run.py"),
    "drawn/demo.py": ("test_cli.py",),
    "modeling/distributed_vilau.py": ("modeling/test_losses_vilau.py", "training/test_two_processes.py"),
    "modeling/module_bases_vilau.py": (
        "modeling/test_modeling_vision_tower.py",
        "modeling/test_library_behaviours.py",
    ),
    "modeling/outputs_vilau.py": ("modeling/test_library_behaviours.py",),
    "modeling/outputs_vision_tower_vilau.py": ("modeling/test_modeling_vision_tower.py",),
    "modeling/sub_models_vilau.py": ("test_cli.py", "training/test_trainer_vilau.py"),
    "modeling/training_losses_vilau.py": ("modeling/test_modeling_vilau.py",),
    "modeling/vision_families_vilau.py": ("modeling/test_vision_encoders_vilau.py",),
    "modeling/visual_inputs_vilau.py": ("modeling/test_modeling_vilau.py",),
    "modeling/visual_outputs_vilau.py": ("modeling/test_modeling_vilau.py", "modeling/test_library_behaviours.py"),
    "original/release.py": ("original/test_convert_vilau_weights_to_hf.py", "test_golden.py"),
    "pipelines/prompt_encoding_vilau.py": ("pipelines/test_pipeline_vilau.py",),
    "pipelines/step_reporter_vilau.py": ("pipelines/test_pipeline_vilau.py",),
    "processing/compat_processing_vilau.py": ("test_library_hooks.py", "processing/test_processing_vilau.py"),
    "processing/image_processing_pil_vilau.py": ("processing/test_image_processing_vilau.py",),
    "registration.py": ("test_import.py",),
    "training/arguments_vision_tower.py": ("training/test_trainer_vision_tower.py",),
    "training/build_model.py": ("training/test_run.py",),
    "training/dry_run_language_model.py": ("training/test_dry_run.py",),
    "training/dry_run_report.py": ("training/test_dry_run.py",),
    "training/dry_run_vision_tower.py": ("training/test_dry_run.py",),
    "training/hub_weights.py": ("training/test_losses.py",),
    "training/loss_logging.py": ("training/test_trainer_vilau.py", "training/test_trainer_vision_tower.py"),
    "training/recipe_language_model.py": ("training/test_recipe.py",),
    "training/recipe_vision_tower.py": ("training/test_recipe.py",),
    "training/stream_trainer.py": ("training/test_checkpointing.py", "data/test_stream.py"),
    "training/trainer_base.py": ("training/test_trainer_vilau.py", "training/test_checkpointing.py"),
    "version.py": ("test_cli.py",),
}
