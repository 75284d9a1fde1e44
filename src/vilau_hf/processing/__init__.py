"""Image, video and text processing."""

from .image_processing_pil_vilau import VilaUImageProcessorPil
from .image_processing_vilau import VilaUImageProcessor
from .processing_vilau import VilaUProcessor, vilau_chat_template
from .video_processing_vilau import VilaUVideoProcessor


__all__ = [
    "VilaUImageProcessor",
    "VilaUImageProcessorPil",
    "VilaUProcessor",
    "VilaUVideoProcessor",
    "vilau_chat_template",
]
