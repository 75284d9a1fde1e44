"""Values that arguments accept, in a module that imports nothing: the command lists them without loading a library."""

# strategies of training on several devices, for which `memory` estimates
STRATEGIES = ("ddp", "fsdp", "zero2", "zero3")

# Two copies, since their sources cannot be imported without torch; tests/test_cli.py compares them with the sources.
# names of `data.converters.FORMATS`
RECORD_FORMATS = ("records", "llava", "mmc4", "parquet", "webdataset", "openvid", "vflan", "hub", "chat")
# names of `modeling.sub_models_vilau.SUB_MODELS`
MODEL_PARTS = ("vision_tower", "projector", "language_model", "depth_transformer")
