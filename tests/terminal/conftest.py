"""The shipped checkpoint of drawn shapes, which answers in seconds, and a view that records."""

import pytest

from vilau_hf import TINY_CHECKPOINT, VilaUForConditionalGeneration, VilaUProcessor


@pytest.fixture(scope="session")
def shapes():
    return (
        VilaUForConditionalGeneration.from_pretrained(TINY_CHECKPOINT).eval(),
        VilaUProcessor.from_pretrained(TINY_CHECKPOINT),
    )


class RecordingView:
    """Keeps what an answer shows."""

    def __init__(self):
        self.text = ""
        self.progress = []
        self.media = []
        self.order = []
        self.is_closed = False

    def show_text(self, text):
        self.text += text
        self.order += [] if self.order and self.order[-1] == "text" else ["text"]

    def show_progress(self, position, total, preview):
        self.progress.append((position, total, preview))

    def show_medium(self, medium):
        self.media.append(medium)
        self.order.append(medium.kind)

    def close(self):
        self.is_closed = True


@pytest.fixture
def view():
    return RecordingView()
