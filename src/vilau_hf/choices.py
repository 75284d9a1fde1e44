"""Values that arguments accept. This module imports nothing, so the help of the command needs no library."""

# Strategies of training on several devices, for which `memory` has estimates.
STRATEGIES = ("ddp", "fsdp", "zero2", "zero3")

# Formats of `vilau records`, with file and class of the converter in `data/converters/`.
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
# The format of `vilau records` that has no converter: `emoji/` makes its records from npm packages.
EMOJI_FORMAT = "emoji"
# A copy of the names of `modeling.sub_models_vilau.SUB_MODELS`, since its source imports torch. `tests/test_cli.py`
# compares them.
SUB_MODELS = ("vision_tower", "projector", "language_model", "depth_transformer")
# Layouts of `vilau generate`: `evaluation.benchmark_layouts.LAYOUTS` has a class for each.
PROMPT_LAYOUTS = ("plain", "geneval", "dpg", "mjhq", "genai", "vbench", "wise")
# How `vilau generate` ranks candidates: the names of `pipelines.candidate_ranking_vilau`, and `TowerRanker`.
RANKERS = ("likelihood", "answer", "tower")
# How `vilau chat` and `vilau inspect` show images, see `terminal.image_display.choose_display`.
IMAGE_DISPLAYS = ("auto", "sixel", "blocks", "none")
# Tasks of `vilau evaluate`, with file and class in the package.
EVALUATION_TASKS = {
    "reconstruction": "evaluation.image_tasks.Reconstruction",
    "rfid": "evaluation.image_tasks.ReconstructionFid",
    "zero-shot": "evaluation.image_tasks.ZeroShot",
    "fid": "evaluation.drawing_tasks.PromptFid",
    "vqa": "evaluation.question_tasks.VisualQuestions",
    "shapes-text-to-image": "drawn.evaluation_tasks.ShapesTextToImage",
    "shapes-text-to-video": "drawn.evaluation_tasks.ShapesTextToVideo",
    "shapes-continuation": "drawn.evaluation_tasks.ShapesContinuation",
    "shapes-edits": "drawn.evaluation_tasks.ShapesEdits",
    "shapes-stories": "drawn.evaluation_tasks.ShapesStories",
    "shapes-questions": "drawn.evaluation_tasks.ShapesQuestions",
    "shapes-captions": "drawn.evaluation_tasks.ShapesCaptions",
    "shapes-caption-choice": "drawn.evaluation_tasks.ShapesCaptionChoice",
    "shapes-reconstruction": "drawn.evaluation_tasks.ShapesReconstruction",
    "shapes-zero-shot": "drawn.evaluation_tasks.ShapesZeroShot",
    "emoji-text-to-image": "emoji.evaluation_tasks.EmojiTextToImage",
    "emoji-edits": "emoji.evaluation_tasks.EmojiEdits",
    "emoji-rows": "emoji.evaluation_tasks.EmojiRows",
    "emoji-clips": "emoji.evaluation_tasks.EmojiClips",
    "emoji-questions": "emoji.evaluation_tasks.EmojiQuestions",
    "emoji-captions": "emoji.evaluation_tasks.EmojiCaptions",
    "emoji-yes-no": "emoji.evaluation_tasks.EmojiYesNo",
    "emoji-reconstruction": "emoji.evaluation_tasks.EmojiReconstruction",
    "emoji-zero-shot": "emoji.evaluation_tasks.EmojiZeroShot",
}
