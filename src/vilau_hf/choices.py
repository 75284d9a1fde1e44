"""Values that arguments accept. This module imports nothing, so the help of the command needs no library."""

# Strategies of training on several devices, for which `memory` has estimates.
STRATEGIES = ("ddp", "fsdp", "zero2", "zero3")

# The next two are copies, since their sources import torch. `tests/test_cli.py` compares them with the sources.
# Names of `data.converters.FORMATS`.
RECORD_FORMATS = ("records", "llava", "mmc4", "parquet", "webdataset", "openvid", "vflan", "hub", "chat")
# Names of `modeling.sub_models_vilau.SUB_MODELS`.
SUB_MODELS = ("vision_tower", "projector", "language_model", "depth_transformer")
