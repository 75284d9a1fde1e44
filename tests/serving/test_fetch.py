"""Downloads of the server: allowed hosts, public addresses, time, size and redirects."""

import time

import anyio
import pytest

from vilau_hf.serving.errors import RequestError
from vilau_hf.serving.fetch import CheckedNetworkBackend, fetch, is_public_address

from .client import answer, drip, media_server


def get(address, domains=("127.0.0.1",), timeout=5.0, max_bytes=1000, is_accepted=lambda address: True):
    return anyio.run(fetch, address, domains, timeout, max_bytes, is_accepted)


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.9.9.9", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1"),
        *("0.0.0.0", "224.0.0.1", "240.0.0.1", "255.255.255.255", "192.0.2.1", "198.18.0.1"),
        *("::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "ff02::1", "2001:db8::1"),
        # IPv4 addresses inside of IPv6 addresses: mapped, 6to4, NAT64, Teredo
        *("::ffff:127.0.0.1", "::ffff:a9fe:a9fe", "2002:7f00:1::", "64:ff9b::7f00:1", "2001:0:0:0:0:0:80ff:fffe"),
    ],
)
def test_addresses_that_are_not_public(address):
    assert not is_public_address(address)


@pytest.mark.parametrize(
    "address", ["93.184.216.34", "1.1.1.1", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"]
)
def test_addresses_that_are_public(address):
    assert is_public_address(address)


def test_returns_the_file_of_an_allowed_host():
    with media_server({"/a%20b?c=d": answer(b"data")}) as (base, _):
        assert get(f"{base}/a b?c=d") == b"data"


@pytest.mark.parametrize("domains", [(), ("example.com",), ("0.0.1",), ("27.0.0.1",)])
def test_asks_only_allowed_hosts(domains):
    with media_server({"/a": answer(b"data")}) as (base, asked):
        with pytest.raises(RequestError, match=r"Images from '127\.0\.0\.1' are not allowed"):
            get(f"{base}/a", domains)
        assert not asked


@pytest.mark.parametrize(
    "address",
    [
        *("http://user@127.0.0.1/a", "http://127.0.0.1@example.com/", "http:///a", "http://127.0.0.1:99999/a"),
        *("http://[::1/a", "ftp://127.0.0.1/a", "http://" + "a" * 80 + ".com/", "http://127.0.0.1:x/"),
    ],
)
def test_rejects_malformed_addresses(address):
    with pytest.raises(RequestError, match="URL of an image"):
        get(address, ("127.0.0.1", "example.com"))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "127.1"])
def test_an_allowed_name_does_not_reach_a_private_address(host):
    with media_server({"/a": answer(b"data")}) as (base, asked):
        port = base.rpartition(":")[2]
        with pytest.raises(RequestError, match="address that is not public"):
            get(f"http://{host}:{port}/a", (host,), is_accepted=is_public_address)
        assert not asked


def test_connects_to_the_address_that_was_checked(monkeypatch):
    """A name server that changes its answer: public at the first question, loopback afterwards."""
    answers = iter(["127.0.0.1", "10.0.0.1"])
    questions = []

    async def resolve(host, port, **options):
        questions.append(host)
        return [(None, None, None, "", (next(answers), port))]

    monkeypatch.setattr(anyio, "getaddrinfo", resolve)
    with media_server({"/a": answer(b"data")}) as (base, _):
        port = base.rpartition(":")[2]
        assert get(f"http://rebind.test:{port}/a", ("rebind.test",)) == b"data"
    assert questions == ["rebind.test"]


def test_one_private_address_among_public_ones_is_refused(monkeypatch):
    async def resolve(host, port, **options):
        return [(None, None, None, "", (address, port)) for address in ("1.1.1.1", "127.0.0.1")]

    monkeypatch.setattr(anyio, "getaddrinfo", resolve)
    with pytest.raises(RequestError, match="not public"):
        anyio.run(CheckedNetworkBackend().connect_tcp, "two.test", 80)


def test_follows_redirects_on_the_same_host_only():
    routes = {
        "/here": answer(b"", 302, Location="/a"),
        "/a": answer(b"data"),
        "/loop": answer(b"", 301, Location="/loop"),
    }
    for number, target in enumerate(("http://localhost/a", "//10.0.0.1/a", "http://[::1]/", "file:///etc/passwd")):
        routes[f"/away{number}"] = answer(b"", 307, Location=target)
    with media_server(routes) as (base, asked):
        assert get(f"{base}/here") == b"data"
        with pytest.raises(RequestError, match="more than 3 times"):
            get(f"{base}/loop")
        del asked[:]
        for number in range(4):
            with pytest.raises(RequestError, match="redirects|must be `http://`"):
                get(f"{base}/away{number}")
        assert asked == [f"/away{number}" for number in range(4)]


def test_ends_after_the_time_limit_whatever_the_server_sends():
    with media_server({"/slow": lambda handler: time.sleep(5), "/drip": drip(5)}) as (base, _):
        for path in ("/slow", "/drip"):
            start = time.monotonic()
            with pytest.raises(RequestError, match="not complete after 0.5 seconds"):
                get(base + path, timeout=0.5)
            assert time.monotonic() - start < 2


def test_stops_reading_at_the_size_limit():
    sent = []

    def endless(handler):
        handler.send_response(200)
        handler.end_headers()
        while len(sent) < 10_000:
            handler.wfile.write(bytes(10_000))
            sent.append(1)

    with media_server({"/large": endless, "/fits": answer(bytes(1000))}) as (base, _):
        assert len(get(f"{base}/fits")) == 1000
        with pytest.raises(RequestError, match="at most 1000 bytes") as error:
            get(f"{base}/large")
    assert error.value.status == 413 and len(sent) < 10_000


def test_rejects_what_is_no_answer():
    with media_server({"/missing": answer(b"", 404), "/cut": lambda handler: handler.wfile.write(b"HTTP")}) as (
        base,
        _,
    ):
        with pytest.raises(RequestError, match="status 404"):
            get(f"{base}/missing")
        with pytest.raises(RequestError, match="could not be fetched"):
            get(f"{base}/cut")
    with pytest.raises(RequestError, match="could not be fetched"):
        get(f"{base}/closed")
