"""Download of images from allowed hosts, without a way into private networks."""

import ipaddress
import socket
from collections.abc import Callable, Collection, Iterable
from typing import Any
from urllib.parse import SplitResult, quote, urljoin, urlsplit

import anyio
import httpcore2

from .errors import RequestError


MAX_REDIRECTS = 3
NAT64 = ipaddress.ip_network("64:ff9b::/96")
FAILURES = (
    httpcore2.NetworkError,
    httpcore2.ProtocolError,
    httpcore2.TimeoutException,
    httpcore2.UnsupportedProtocol,
    OSError,
)


def is_public_address(address: str) -> bool:
    """
    Returns whether an IP address is reachable on the internet for everyone.

    Args:
        address (`str`): an IPv4 or IPv6 address. An IPv6 address that contains an IPv4 address counts as the latter.
    """
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        embedded = ip.ipv4_mapped or ip.sixtofour
        if embedded is None and ip.teredo is not None:
            embedded = ip.teredo[1]
        if embedded is None and ip in NAT64:
            embedded = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if embedded is not None:
            return is_public_address(str(embedded))
    return ip.is_global and not (ip.is_multicast or ip.is_reserved)


class CheckedNetworkBackend(httpcore2.AnyIOBackend):
    """
    Opens connections to accepted IP addresses only.

    A name is resolved once, and the connection goes to the address that was checked. So a name server that answers
    differently the second time (DNS rebinding) changes nothing. Each redirect opens its connection here, too.

    Args:
        is_accepted (`Callable[[str], bool]`, *optional*): decides about an IP address. By default private, loopback,
            link-local, multicast and reserved addresses are refused.
    """

    def __init__(self, is_accepted: Callable[[str], bool] = is_public_address) -> None:
        self.is_accepted = is_accepted

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """
        Resolves a name, checks its addresses, and connects to the first one that answers.

        Args:
            host (`str`): name or address of the host.
            port (`int`): TCP port.
            timeout (`float`, *optional*): seconds for each address.
            local_address (`str`, *optional*): address of this machine to use.
            socket_options (`Iterable`, *optional*): options of the socket.

        Raises:
            RequestError: if one of the addresses is not accepted.
        """
        found = await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        for address in addresses:
            if not self.is_accepted(address):
                raise RequestError(f"The host {host!r} of the image has an address that is not public.")
        failure: Exception = OSError(f"no address of {host}")
        for address in addresses:
            try:
                return await super().connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failure = error
        raise failure


async def fetch(
    address: str,
    domains: Collection[str],
    timeout: float,
    max_bytes: int,
    is_accepted: Callable[[str], bool] = is_public_address,
) -> bytes:
    """
    Downloads a file from an allowed host.

    Redirects are followed on the same host. Proxies of the environment are not used, because the check of the IP
    address would then be the proxy's task.

    Args:
        address (`str`): an `http:` or `https:` URL.
        domains (`Collection[str]`): names of the allowed hosts, in lower case. Subdomains are other hosts.
        timeout (`float`): seconds for all of the download, redirects included.
        max_bytes (`int`): largest accepted size.
        is_accepted (`Callable[[str], bool]`, *optional*): decides about the IP addresses of the host.

    Raises:
        RequestError: if the address is not allowed, or the download fails, is too slow or too large.
    """
    parts = _split(address)
    host = parts.hostname
    if host not in domains:
        raise RequestError(
            f"Images from {host!r} are not allowed. This server accepts `data:` URLs{_listed(domains)}."
        )
    try:
        with anyio.fail_after(timeout):
            backend = CheckedNetworkBackend(is_accepted)
            async with httpcore2.AsyncConnectionPool(network_backend=backend) as pool:
                for _ in range(MAX_REDIRECTS + 1):
                    content, location = await _get(pool, parts, max_bytes)
                    if location is None:
                        return content
                    parts = _follow(parts, location)
    except TimeoutError as error:
        raise RequestError(f"The image from {host!r} was not complete after {timeout:.3g} seconds.") from error
    except FAILURES as error:
        raise RequestError(f"The image could not be fetched from {host!r}.") from error
    raise RequestError(f"The host {host!r} redirects the image more than {MAX_REDIRECTS} times.")


def _listed(domains: Collection[str]) -> str:
    """Returns the end of a sentence that names the allowed hosts."""
    return f" and images from {', '.join(sorted(domains))}" if domains else " only"


def _split(address: str) -> SplitResult:
    """Splits a URL into its components, with the host name in the form that the network uses."""
    try:
        parts = urlsplit(address)
        port = parts.port
        host = (parts.hostname or "").rstrip(".")
        host = host if ":" in host else host.encode("idna").decode()
    except ValueError as error:  # `UnicodeError` of IDNA is one
        raise RequestError("The URL of an image is malformed.") from error
    if parts.scheme not in ("http", "https") or not host or "@" in parts.netloc:
        raise RequestError("The URL of an image must be `http://` or `https://` with a host, without a user name.")
    netloc = f"[{host}]" if ":" in host else host
    return parts._replace(netloc=netloc if port is None else f"{netloc}:{port}")


def _follow(parts: SplitResult, location: str) -> SplitResult:
    """Returns the target of a redirect, which must be on the same host and no less secure."""
    target = _split(urljoin(parts.geturl(), location))
    if target.hostname != parts.hostname or (parts.scheme == "https" and target.scheme == "http"):
        raise RequestError(f"The host {parts.hostname!r} redirects the image to another host, which is not followed.")
    return target


async def _get(pool: httpcore2.AsyncConnectionPool, parts: SplitResult, max_bytes: int) -> tuple[bytes, str | None]:
    """Sends one GET request. Returns the content, or the target of a redirect."""
    path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~") + (
        "?" + quote(parts.query, safe="/?%:@!$&'()*+,;=~") if parts.query else ""
    )
    # Built from the components that were checked, so that no second parser can read another host into the URL.
    url = httpcore2.URL(scheme=parts.scheme, host=parts.hostname or "", port=parts.port, target=path)
    # A compressed answer could be far larger than `max_bytes` in memory.
    headers = [
        ("Host", parts.netloc),
        ("Accept", "image/*"),
        ("Accept-Encoding", "identity"),
        ("User-Agent", "vilau_hf"),
    ]
    async with pool.stream("GET", url, headers=headers) as response:
        if response.status in (301, 302, 303, 307, 308):
            location = {name.lower(): value for name, value in response.headers}.get(b"location", b"")
            return b"", location.decode("latin-1")
        if response.status != 200:
            raise RequestError(f"The host {parts.hostname!r} answered with status {response.status}, not an image.")
        chunks: list[bytes] = []
        size = 0
        async for chunk in response.aiter_stream():
            size += len(chunk)
            if size > max_bytes:
                raise RequestError(f"An image must have at most {max_bytes} bytes, the one at the URL has more.", 413)
            chunks.append(chunk)
        return b"".join(chunks), None


__all__ = ["CheckedNetworkBackend", "fetch", "is_public_address"]
