"""Parts of the model that are trained, frozen and counted apart."""

# part of the model -> prefixes of its parameter names
PARTS = {
    "vision_tower": ("model.vision_tower.",),
    "projector": ("model.multi_modal_projector.",),
    "language_model": ("model.language_model.", "lm_head."),
    "depth_transformer": ("depth_transformer.",),
}


def part_of(name: str) -> str | None:
    """The part of the model that a parameter belongs to, by its name in the model or in one that peft has wrapped."""
    name = name.removeprefix("base_model.model.")
    return next((part for part, prefixes in PARTS.items() if name.startswith(prefixes)), None)
