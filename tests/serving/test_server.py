"""Questions about an image over the OpenAI-compatible route of `vilau serve`."""

import base64
import io
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from openai import OpenAI

from vilau_hf import TINY_CHECKPOINT
from vilau_hf.drawn import drawn_shapes


@pytest.fixture(scope="module")
def client():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    command = [Path(sys.executable).with_name("vilau"), "serve", "--port", str(port), "--device", "cpu"]
    server = subprocess.Popen(command)
    yield OpenAI(base_url=f"http://localhost:{port}/v1", api_key="none", max_retries=10)
    server.send_signal(signal.SIGINT)
    assert server.wait(30) == 0


@pytest.mark.parametrize("stream", [False, True])
def test_server_answers_questions_about_images(client, stream):
    record = drawn_shapes("test", 1, tasks={"text_to_image": 1}, seed=3)[0]
    file = io.BytesIO()
    record["images"][0].save(file, "PNG")
    url = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    answers = []
    for question in ("what color is the shape?", "what shape is it?"):
        content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": question}]
        answer = client.chat.completions.create(
            model=TINY_CHECKPOINT, messages=[{"role": "user", "content": content}], max_tokens=8, stream=stream
        )
        if stream:
            answers.append("".join(chunk.choices[0].delta.content or "" for chunk in answer).strip())
        else:
            answers.append(answer.choices[0].message.content.strip())
    assert answers == [record["drawing"]["color"], record["drawing"]["shape"]]
