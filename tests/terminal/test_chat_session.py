"""Lines of a chat: messages, commands and mistakes."""

import pytest

from vilau_hf.drawn import drawn_shapes
from vilau_hf.terminal.answer_streamer import Medium
from vilau_hf.terminal.chat_session import COMMANDS, ChatSession
from vilau_hf.terminal.conversation import Conversation

from .conftest import RecordingView


CROSS = "a small red cross at the bottom on a white background"


@pytest.fixture
def session(shapes):
    said, views = [], []

    def make_view(text, seed):
        views.append((text, seed, RecordingView()))
        return views[-1][2]

    session = ChatSession(Conversation(*shapes, keeps_history=False), make_view, said.append, seed=5)
    session.said, session.views = said, views
    return session


@pytest.fixture
def file(tmp_path):
    drawn_shapes("test", 1, tasks={"text_to_image": 1})[0]["images"][0].save(tmp_path / "a shape.png")
    return tmp_path / "a shape.png"


def test_draws_edits_and_retries_with_the_next_seeds(session):
    session.handle(f"/draw {CROSS}\n")
    session.handle("/edit turn it blue")
    session.handle("/retry")
    assert [(text, seed) for text, seed, _ in session.views] == [(CROSS, 5), ("turn it blue", 6), ("turn it blue", 7)]
    drawn, edited, again = (view.media[0] for _, _, view in session.views)
    parts, _, mode = session.last_message
    assert parts == [drawn, "turn it blue"] and mode == "image"
    assert session.last_image is again
    assert Medium is type(edited) and not (edited.codes == again.codes).all()


def test_sends_attached_files_with_the_next_message(session, file):
    session.handle(f"/attach '{file}'")
    assert session.said == ["1 attached. The next message will have 1."]
    session.handle("describe the image")
    ((_, _, view),) = session.views
    assert view.order == ["text"] and "background" in view.text
    assert session.attached == [] and session.last_image.frames[0].size == (32, 32)


def test_commands_change_the_session(session, file):
    session.handle("/seed 70")
    assert session.seed == 70
    session.handle(f"/attach '{file}'")
    session.handle("/new")
    assert session.attached == [] and session.last_image is None
    session.handle("   ")
    assert not session.views and not session.is_ended
    session.said.clear()
    session.handle("/help")
    assert len(session.said) == len(COMMANDS)
    session.handle("/quit")
    assert session.is_ended


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/nonsense", "there is no command /nonsense. The commands are /attach, "),
        ("/draw", "/draw needs something after it"),
        ("/edit", "/edit needs something after it"),
        ("/edit turn it blue", "/edit needs an image in the chat"),
        ("/attach", "/attach needs something after it"),
        ("/attach nowhere.png", "cannot read 'nowhere.png'"),
        ("/attach 'a", "No closing quotation"),
        ("/retry", "/retry needs a message before it"),
        ("\udcff", "the message: the text is not UTF-8"),
        ("/seed x", "/seed needs a number from 0 to 2^63 - 1, got 'x'"),
        ("/seed -1", "/seed needs a number"),
        (f"/seed {2**63}", "/seed needs a number"),
    ],
)
def test_reports_mistakes(session, line, message):
    with pytest.raises(ValueError) as error:
        session.handle(line)
    assert message in str(error.value)
    assert not session.views and session.seed == 5


def test_a_failed_answer_changes_nothing(session, file, monkeypatch):
    session.handle(f"/attach '{file}'")
    attached = list(session.attached)

    def fail(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(session.conversation.model, "generate", fail)
    with pytest.raises(KeyboardInterrupt):
        session.handle("describe the image")
    assert session.attached == attached and session.seed == 5 and session.last_message is None
