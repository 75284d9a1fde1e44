"""What streamers hear of the beginning and the errors of a call."""

import pytest

from vilau_hf.modeling.generation_streaming_vilau import streamed_call


class Recorder:
    def __init__(self):
        self.heard = []

    def begin_call(self):
        self.heard.append("begin")

    def end_with_error(self, error):
        self.heard.append(error)

    def end(self):
        self.heard.append("end")


def test_reports_the_beginning_and_the_error():
    recorder = Recorder()
    error = KeyboardInterrupt("stop")
    with pytest.raises(KeyboardInterrupt), streamed_call(recorder):
        raise error
    with streamed_call(recorder):
        pass
    assert recorder.heard == ["begin", error, "begin"]


@pytest.mark.parametrize("streamer", [None, "x"])
def test_keeps_the_error_of_calls_without_streamer(streamer):
    with pytest.raises(KeyError), streamed_call(streamer):
        raise KeyError("x")
