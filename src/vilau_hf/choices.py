"""Values that arguments accept, in a module that imports nothing: the command lists them without loading a library."""

# strategies of training on several devices, for which `memory` estimates
STRATEGIES = ("ddp", "fsdp", "zero2", "zero3")

# formats of `vilau records`, with file and class of the converter in `data/converters/`
RECORD_FORMATS = {
    "records": "stored_records.StoredRecordConverter",
    "llava": "llava.LlavaConverter",
    "mmc4": "mmc4.Mmc4Converter",
    "parquet": "parquet_captions.ParquetCaptionConverter",
    "webdataset": "webdataset.WebdatasetConverter",
    "openvid": "openvid.OpenVidConverter",
    "vflan": "question_answer.QuestionAnswerConverter",
    "hub": "hub_captions.HubCaptionConverter",
    "chat": "chat.ChatConverter",
}
# A copy, since its source cannot be imported without torch; tests/test_cli.py compares it with the source.
# names of `modeling.parts_vilau.PARTS`
MODEL_PARTS = ("vision_tower", "projector", "language_model", "depth_transformer")
