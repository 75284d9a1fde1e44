"""Sub-models that are trained, frozen and counted separately."""

# Prefixes of the parameter names of each sub-model. The text head is trained together with the language model.
SUB_MODELS: dict[str, tuple[str, ...]] = {
    "vision_tower": ("model.vision_tower.",),
    "projector": ("model.multi_modal_projector.",),
    "language_model": ("model.language_model.", "lm_head."),
    "depth_transformer": ("depth_transformer.",),
}


def sub_model_of(parameter_name: str) -> str | None:
    """
    Returns the sub-model that a parameter belongs to, or `None` if it belongs to none.

    Args:
        parameter_name (`str`): name of the parameter in the complete model, which peft may have wrapped.
    """
    # peft puts this prefix in front of every name
    parameter_name = parameter_name.removeprefix("base_model.model.")
    for sub_model, prefixes in SUB_MODELS.items():
        if parameter_name.startswith(prefixes):
            return sub_model
    return None


__all__ = ["SUB_MODELS", "sub_model_of"]
