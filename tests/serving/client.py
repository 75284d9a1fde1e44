"""A small HTTP client, and a server on loopback that answers as a test wants."""

import base64
import contextlib
import io
import json
import socket
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from vilau_hf.drawn import drawn_shapes


def free_port():
    with socket.socket() as unused:
        unused.bind(("localhost", 0))
        return unused.getsockname()[1]


def send(address, body=None, **headers):
    """Returns status and JSON of a request. `body` is JSON or bytes."""
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Content-Type": "application/json", **headers}
    try:
        with urllib.request.urlopen(urllib.request.Request(address, data, headers), timeout=600) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def wait_until_up(base, process=None):
    for _ in range(2400):
        assert process is None or process.poll() is None, "the server has ended"
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            if send(f"{base}/health")[0] == 200:
                return
        time.sleep(0.1)
    raise TimeoutError(base)


def drawn_image():
    """Returns an image as a PNG file, and its color."""
    record = drawn_shapes("test", 1, tasks={"text_to_image": 1}, seed=3)[0]
    file = io.BytesIO()
    record["images"][0].save(file, "PNG")
    return file.getvalue(), record["drawing"]["color"]


def data_url(data, kind="image/png"):
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def question(url, text="what color is the shape?", **fields):
    content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": text}]
    return {"messages": [{"role": "user", "content": content}], "max_tokens": 8, **fields}


@contextlib.contextmanager
def media_server(routes):
    """Runs a server that answers by `routes[path](handler)`. Yields its address and the paths that were asked."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            with contextlib.suppress(ConnectionError):
                routes[self.path](self)

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()


def answer(data, status=200, **headers):
    """Returns a route that answers with data."""

    def route(handler):
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(data)

    return route


def drip(seconds):
    """Returns a route that sends one byte each 0.1 seconds, which no time limit of a single read notices."""

    def route(handler):
        handler.send_response(200)
        handler.end_headers()
        for _ in range(int(seconds * 10)):
            handler.wfile.write(b"x")
            handler.wfile.flush()
            time.sleep(0.1)

    return route
