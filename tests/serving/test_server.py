"""`vilau serve` over HTTP: answers, keys, sources of images, bad requests, and `/health` under load."""

import io
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from openai import AuthenticationError, BadRequestError, OpenAI
from PIL import Image
from safetensors.torch import load_file, save_file

from vilau_hf import TINY_CHECKPOINT
from vilau_hf.drawn import drawn_shapes
from vilau_hf.serving import MediaSources, serve_model

from .client import answer, data_url, drawn_image, free_port, media_server, question, send, wait_until_up


KEY = {"Authorization": "Bearer secret"}
PNG, COLOR = drawn_image()
# A bias against the end of the text makes the answer as long as `max_tokens`.
LONG_TEXT = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 400, "logit_bias": {"2": -100}}


@pytest.fixture(scope="module")
def command_server(tmp_path_factory):
    """The command in its process, without the Hub, with a key and a folder of images."""
    folder = tmp_path_factory.mktemp("images")
    (folder / "a.png").write_bytes(PNG)
    base = f"http://localhost:{(port := free_port())}"
    command = [Path(sys.executable).with_name("vilau"), "serve", "--port", str(port), "--device", "cpu"]
    command += ["--allow-local-media", str(folder), "--allow-media-domains", "127.0.0.1", "localhost"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "VILAU_API_KEY": "secret"}
    server = subprocess.Popen(command, env=environment)
    try:
        wait_until_up(base, server)
        yield base
    finally:
        server.send_signal(signal.SIGINT)
        assert server.wait(60) == 0


@pytest.fixture(scope="module")
def server():
    """A server in this process that accepts loopback addresses, so that tests can be the host of images."""
    sources = MediaSources(domains=["127.0.0.1"], timeout=60, is_accepted_address=lambda address: True)
    port = free_port()
    running = serve_model(
        TINY_CHECKPOINT, media=sources, max_body_bytes=10**6, port=port, device="cpu", non_blocking=True
    )
    wait_until_up(f"http://localhost:{port}")
    yield f"http://localhost:{port}"
    running.kill_server()


def seconds_of_health(base, number=20):
    """Returns how long `/health` takes, several times."""
    found = []
    for _ in range(number):
        start = time.monotonic()
        assert send(f"{base}/health") == (200, {"status": "ok"})
        found.append(time.monotonic() - start)
        time.sleep(0.02)
    return found


def assert_health_is_not_delayed(seconds, idle):
    """Asserts 50 milliseconds at the median. A machine that needs longer for an idle server may take twice as long."""
    limit = max(0.05, 2 * statistics.median(idle))
    assert statistics.median(seconds) < limit, (seconds, idle)


def chat(base, body, **headers):
    return send(f"{base}/v1/chat/completions", body, **headers)


@pytest.mark.parametrize("stream", [False, True])
def test_server_answers_questions_about_images(command_server, stream):
    client = OpenAI(base_url=f"{command_server}/v1", api_key="secret")
    record = drawn_shapes("test", 1, tasks={"text_to_image": 1}, seed=3)[0]
    answers = []
    for text in ("what color is the shape?", "what shape is it?"):
        response = client.chat.completions.create(
            model=TINY_CHECKPOINT, stream=stream, **question(data_url(PNG), text)
        )
        if stream:
            answers.append("".join(chunk.choices[0].delta.content or "" for chunk in response).strip())
        else:
            answers.append(response.choices[0].message.content.strip())
    assert answers == [record["drawing"]["color"], record["drawing"]["shape"]]


def test_other_routes_of_the_openai_api_answer(command_server):
    client = OpenAI(base_url=f"{command_server}/v1", api_key="secret")
    content = [
        {"type": "input_image", "image_url": data_url(PNG), "detail": "auto"},
        {"type": "input_text", "text": "what color is the shape?"},
    ]
    assert (
        client.responses.create(stream=False, input=[{"role": "user", "content": content}]).output_text.strip()
        == COLOR
    )
    assert client.responses.create(stream=False, input=content, instructions="answer").output_text.strip()
    assert client.completions.create(model=TINY_CHECKPOINT, prompt="USER: hi ASSISTANT:", max_tokens=4).choices[0].text


def test_lists_its_model_without_the_hub(command_server):
    client = OpenAI(base_url=f"{command_server}/v1", api_key="secret")
    assert [model.id for model in client.models.list()] == [str(TINY_CHECKPOINT)]


def test_needs_the_key_for_everything_but_health(command_server):
    assert send(f"{command_server}/health")[0] == 200
    for headers in (
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "secret"},
        {"Authorization": "Basic secret"},
    ):
        for path, body in (("/v1/models", None), ("/openapi.json", None), ("/v1/chat/completions", question("a"))):
            status, found = send(command_server + path, body, **headers)
            assert status == 401 and found["error"]["code"] == "invalid_api_key", path
    with pytest.raises(AuthenticationError):
        OpenAI(base_url=f"{command_server}/v1", api_key="wrong").models.list()


def test_reads_files_of_the_allowed_folder(command_server):
    status, found = chat(command_server, question("a.png"), **KEY)
    assert status == 200 and found["choices"][0]["message"]["content"].strip() == COLOR
    for address in ("../a.png", "/etc/passwd", "file:///etc/passwd", "/dev/zero"):
        status, found = chat(command_server, question(address), **KEY)
        assert status == 400 and "not a file in the folder" in found["error"]["message"]


def test_never_asks_a_private_address(command_server):
    with media_server({"/a.png": answer(PNG)}) as (base, asked):
        port = base.rpartition(":")[2]
        for host in ("127.0.0.1", "localhost"):
            status, found = chat(command_server, question(f"http://{host}:{port}/a.png"), **KEY)
            assert status == 400 and "not public" in found["error"]["message"]
        assert not asked


@pytest.mark.parametrize("path", ["/load_model", "/reset", "/v1/audio/transcriptions", "/v1/systemone", "/other"])
def test_routes_that_change_the_server_do_not_exist(server, path):
    status, found = send(server + path, {"model": str(TINY_CHECKPOINT)})
    assert status == 404 and found["error"]["type"] == "invalid_request_error"
    assert path not in send(f"{server}/openapi.json")[1]["paths"]
    assert chat(server, question(data_url(PNG)))[0] == 200


def message(content="hi", role="user", **fields):
    return {"messages": [{"role": role, "content": content}], "max_tokens": 4, **fields}


BAD_CHATS = {
    "no fields": {},
    "no messages": {"messages": []},
    "messages are text": {"messages": "hi"},
    "a message is text": {"messages": ["hi"]},
    "no content": {"messages": [{"role": "user"}]},
    "content is a number": message(5),
    "no role": {"messages": [{"content": "hi"}]},
    "unknown role": message(role="wizard"),
    "tool": message(role="tool"),
    "late system message": {"messages": [*message()["messages"], *message(role="system")["messages"]]},
    "unknown content": message([{"type": "hologram", "url": "a"}]),
    "video": message([{"type": "video_url", "video_url": {"url": "/etc/passwd"}}]),
    "audio": message([{"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}]),
    "content without type": message([{"text": "hi"}]),
    "image without address": message([{"type": "image_url"}]),
    "image address is a list": message([{"type": "image_url", "image_url": ["a"]}]),
    "hidden path": message([{"type": "text", "text": "hi", "path": "/etc/passwd"}]),
    "stray image": message("hi <image>"),
    "stray video": message([{"type": "text", "text": "<video> hi"}]),
    "long prompt": message("hi " * 2000),
    "very long prompt": message("x" * 900_000),
    "too many images": message([{"type": "image_url", "image_url": {"url": data_url(PNG)}}] * 30),
    "unreadable image": question(data_url(b"no image")),
    "cut image": question(data_url(PNG[:150])),
    "local image": question("/etc/passwd"),
    "other host": question("https://example.com/a.png"),
    "other model": message(model="/etc"),
    "model is a number": message(model=5),
    "stop": message(stop=["e"]),
    "stop text": message(stop="none"),
    "two answers": message(n=2),
    "log probabilities": message(logprobs=True),
    "format": message(response_format={"type": "json_object"}),
    "tools": message(tools=[{"type": "function", "function": {"name": "a"}}]),
    "template": message(chat_template_kwargs={"chat_template": "{{ 1 }}"}),
    "unknown field": message(tempature=1),
    **{
        f"temperature {value}": message(temperature=value)
        for value in (-5, 1e-40, float("nan"), float("inf"), 1e9, "hot", True)
    },
    **{f"top_p {value}": message(top_p=value) for value in (-1, 2, float("nan"), "all")},
    **{f"max_tokens {value}": message(max_tokens=value) for value in (0, -1, 1.5, "8", 10**30, float("nan"))},
    **{f"seed {value}": message(seed=value) for value in ("a", 1.5, 10**30)},
    **{f"penalty {value}": message(frequency_penalty=value) for value in (-1, 3, float("nan"), "a")},
    **{
        f"bias {value}": message(logit_bias=value)
        for value in ({"99999": 1}, {"a": 1}, {"-1": 1}, {"1": float("nan")}, 3)
    },
    **{
        f"generation_config {value}": message(generation_config=value)
        for value in (
            "",
            "{",
            "[]",
            '{"temperature": NaN}',
            '{"temperature": 1e-40, "do_sample": true}',
            '{"repetition_penalty": 1e-40}',
            '{"num_beams": 1000000}',
            '{"top_k": -1}',
            '{"eos_token_id": [], "pad_token_id": null}',
            "[" * 10**5,
            5,
        )
    },
    "stream is text": message(stream="yes"),
}
BAD_BODIES = {
    "empty": b"",
    "no JSON": b"{",
    "a list": b"[]",
    "a number": b"5",
    "not UTF-8": b'{"messages": "\xff"}',
    "lone surrogate": b'{"messages": [{"role": "user", "content": "\\ud83d"}]}',
    "nested": b'{"messages": ' + b"[" * 10**5,
}
BAD_OTHERS = {
    "/v1/completions": [
        {},
        {"prompt": ""},
        {"prompt": 5},
        {"prompt": ["a"]},
        {"prompt": "<image>"},
        {"prompt": "a " * 5000},
    ],
    "/v1/responses": [
        *(
            {},
            {"input": 5},
            {"input": []},
            {"input": [5]},
            {"input": "<image>"},
            {"input": "a", "max_output_tokens": 0},
        ),
        {"input": [{"type": "input_image", "image_url": "/etc/passwd"}]},
        {"input": [{"type": "function_call_output", "call_id": "a", "output": "b"}]},
        {"input": "a", "previous_response_id": "b"},
    ],
}


@pytest.mark.parametrize("stream", [False, True])
def test_bad_requests_get_400_in_the_shape_of_openai(server, stream):
    wrong = {}
    requests = [(name, "/v1/chat/completions", {"stream": stream, **body}) for name, body in BAD_CHATS.items()]
    requests += [(name, "/v1/chat/completions", body) for name, body in BAD_BODIES.items()]
    for path, bodies in BAD_OTHERS.items():
        requests += [(f"{path} {body}", path, {"stream": stream, **body}) for body in bodies]
    for name, path, body in requests:
        status, found = send(server + path, body)
        if (
            status != 400
            or set(found["error"]) != {"message", "type", "param", "code"}
            or not found["error"]["message"]
        ):
            wrong[name] = (status, found)
    assert not wrong
    with pytest.raises(BadRequestError, match="temperature"):
        OpenAI(base_url=f"{server}/v1", api_key="none").chat.completions.create(model="", **message(temperature=-5))


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 1, "stop": None, "user": "me", "store": False, "logprobs": False, "presence_penalty": 0, "tools": []},
        {"temperature": 0, "top_p": 1, "seed": 3, "frequency_penalty": 0.5, "logit_bias": {"5": 1, "6": -1.5}},
        {"temperature": 2, "response_format": {"type": "text"}, "max_completion_tokens": 3, "logit_bias": {}},
        {"generation_config": '{"do_sample": true, "top_k": 5, "eos_token_id": [2], "_from_model_config": false}'},
        {
            "messages": [
                *message(role="system")["messages"],
                *message()["messages"],
                *message(role="assistant")["messages"],
            ]
        },
        {"messages": [{"role": "user", "content": [], "name": "me"}]},
        {"max_tokens": 5000},
    ],
)
def test_valid_fields_are_accepted(server, fields):
    assert chat(server, message(**{"max_tokens": 2, **fields}))[0] == 200


def test_large_bodies_are_refused(server):
    status, found = chat(server, message("x" * 1_100_000))
    assert status == 413 and "1000000 bytes" in found["error"]["message"]

    def chunks():
        yield from (b"x" * 100_000 for _ in range(50))

    # `send` with an iterator has no `Content-Length`
    client = OpenAI(base_url=f"{server}/v1", api_key="none", max_retries=0)._client
    assert client.post(f"{server}/v1/chat/completions", content=chunks()).status_code == 413


def test_other_content_types_are_refused(server):
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        status, found = send(f"{server}/v1/chat/completions", message(), **{"Content-Type": kind})
        assert status == 415 and "Content-Type" in found["error"]["message"]


def test_images_are_fetched_with_limits(server):
    routes = {
        "/a.png": answer(PNG),
        "/away": answer(b"", 302, Location="http://localhost/a.png"),
        "/missing": answer(b"", 404),
    }
    with media_server(routes) as (base, _):
        status, found = chat(server, question(f"{base}/a.png"))
        assert status == 200 and found["choices"][0]["message"]["content"].strip() == COLOR
        for path, expected in (("/away", "another host"), ("/missing", "status 404")):
            status, found = chat(server, question(base + path))
            assert status == 400 and expected in found["error"]["message"]
        status, found = chat(server, question(f"{base.replace('127.0.0.1', 'localhost')}/a.png"))
        assert status == 400 and "not allowed" in found["error"]["message"]


def test_health_and_chats_are_answered_while_a_slow_image_is_fetched(server):
    idle = seconds_of_health(server)
    finish = threading.Event()

    def slow(handler):
        finish.wait(50)
        answer(PNG)(handler)

    with media_server({"/slow": slow}) as (base, asked), ThreadPoolExecutor() as pool:
        waiting = pool.submit(chat, server, question(f"{base}/slow"))
        while not asked:
            time.sleep(0.01)
        seconds = seconds_of_health(server)
        assert chat(server, question(data_url(PNG)))[0] == 200
        assert not waiting.done()
        finish.set()
        assert waiting.result()[0] == 200
    assert_health_is_not_delayed(seconds, idle)


def test_health_is_answered_while_text_is_generated_and_images_are_decoded(command_server):
    large = data_url(large_png())
    idle = seconds_of_health(command_server)
    with ThreadPoolExecutor() as pool:
        text = pool.submit(chat, command_server, LONG_TEXT, **KEY)
        images = pool.submit(chat, command_server, question(large), **KEY)
        time.sleep(0.2)
        seconds = seconds_of_health(command_server)
        assert text.result()[1]["usage"]["completion_tokens"] == 400
        assert images.result()[0] == 200
    assert_health_is_not_delayed(seconds, idle)


def large_png():
    """Returns a PNG of 16 million pixels and 14 MB, which takes long to decode."""
    file = io.BytesIO()
    Image.effect_noise((600, 600), 50).resize((4000, 4000)).convert("RGB").save(file, "PNG", compress_level=1)
    return file.getvalue()


def test_80_chats_at_once_are_answered(server):
    with ThreadPoolExecutor(80) as pool:
        answers = list(pool.map(lambda _: chat(server, question(data_url(PNG))), range(80)))
    assert {status for status, _ in answers} == {200}
    assert {found["choices"][0]["message"]["content"].strip() for _, found in answers} == {COLOR}


def test_a_client_that_leaves_a_stream_does_not_stop_the_server(server):
    client = OpenAI(base_url=f"{server}/v1", api_key="none")
    stream = client.chat.completions.create(model=str(TINY_CHECKPOINT), stream=True, **LONG_TEXT)
    next(iter(stream))
    stream.close()
    assert chat(server, question(data_url(PNG)))[0] == 200


def test_an_incomplete_checkpoint_is_refused_before_the_server_answers(tmp_path):
    folder = shutil.copytree(TINY_CHECKPOINT, tmp_path / "checkpoint")
    weights = load_file(folder / "model.safetensors")
    del weights["depth_transformer.code_head.bias"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    port = free_port()
    with pytest.raises(ValueError, match="missing depth_transformer.code_head.bias"):
        serve_model(str(folder), port=port, device="cpu", non_blocking=True)
    with pytest.raises(OSError), socket.create_connection(("localhost", port), timeout=2):
        pass
    command = [Path(sys.executable).with_name("vilau"), "serve", "--model", str(folder), "--port", str(port)]
    result = subprocess.run([*command, "--device", "cpu"], capture_output=True, text=True, check=False)
    assert result.returncode == 1 and "missing depth_transformer.code_head.bias" in result.stderr


def test_mistakes_in_the_arguments_are_told_before_the_model_is_loaded(tmp_path):
    for arguments, expected in (
        (["--allow-media-domains", "https://a.com/"], "`domains` must be names of hosts"),
        (["--allow-local-media", str(tmp_path / "missing")], "`local_folder` must be a folder"),
        (["--api-key", ""], "`api_key` must not be empty"),
        (["--max-body-mib", "0"], "`max_body_bytes` must be an integer of at least 1, got 0"),
    ):
        command = [Path(sys.executable).with_name("vilau"), "serve", "--model", str(tmp_path / "no model"), *arguments]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        assert result.returncode == 1 and expected in result.stderr


def test_names_the_model_that_cannot_be_found(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(OSError, match="Cannot load the `model` 'nobody/nothing'"):
        serve_model("nobody/nothing")
