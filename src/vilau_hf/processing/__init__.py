"""Image, video and text processing."""

# Must come first: the import of transformers registers the classes of this package, which imports the modules below.
import transformers  # noqa: F401

from .chat_templates_vilau import original_chat_template, vilau_chat_template
from .image_processing_pil_vilau import VilaUImageProcessorPil
from .image_processing_vilau import VilaUImageProcessor
from .processing_vilau import VilaUProcessor
from .video_processing_vilau import VilaUVideoProcessor


__all__ = [
    "VilaUImageProcessor",
    "VilaUImageProcessorPil",
    "VilaUProcessor",
    "VilaUVideoProcessor",
    "original_chat_template",
    "vilau_chat_template",
]
