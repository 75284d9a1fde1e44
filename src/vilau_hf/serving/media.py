"""Sources of images that a client may name, and the check of each image before the model sees it."""

import base64
import binascii
import io
import os
import stat
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from anyio import CapacityLimiter, to_thread
from PIL import Image, ImageOps

from ..processing.pixel_rules_vilau import DECODE_ERRORS
from .errors import RequestError
from .fetch import fetch, is_public_address


# Formats whose decoders are in Pillow itself. Others start programs (EPS: Ghostscript) or are rarely tested.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "ICO", "AVIF", "JPEG2000")


@dataclass(frozen=True)
class MediaSources:
    """
    The images that clients of a server may name, and their limits. By default these are `data:` URLs only.

    Args:
        domains (`Collection[str]`, *optional*): hosts from which images are fetched. Subdomains are other hosts.
        local_folder (`str` or `Path`, *optional*): folder of images on the server that clients may name.
        timeout (`float`, *optional*, defaults to 10): seconds to fetch all images of one request.
        max_bytes (`int`, *optional*, defaults to 20 MiB): largest size of the file of an image.
        max_pixels (`int`, *optional*, defaults to 89,478,485): largest number of pixels of an image. The default is
            the number at which Pillow warns.
        is_accepted_address (`Callable[[str], bool]`, *optional*): decides about the IP addresses of hosts. By default
            only public addresses are accepted.

    Raises:
        ValueError: if a domain is not a host name, a limit is not positive, or the folder does not exist.
    """

    domains: Collection[str] = ()
    local_folder: str | Path | None = None
    timeout: float = 10.0
    max_bytes: int = 20 * 2**20
    max_pixels: int = 89_478_485
    is_accepted_address: Callable[[str], bool] = is_public_address

    def __post_init__(self) -> None:
        if isinstance(self.domains, str):
            raise ValueError(f"`domains` must be a collection of names, got {self.domains!r}.")
        for domain in self.domains:
            if not domain or urlsplit(f"//{domain}").netloc != domain or set(domain) & set("*@: "):
                raise ValueError(f"`domains` must be names of hosts, such as 'images.example.com', got {domain!r}.")
        for name in ("timeout", "max_bytes", "max_pixels"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"`{name}` must be positive and finite, got {getattr(self, name)}.")
        domains = frozenset(domain.lower().rstrip(".").encode("idna").decode() for domain in self.domains)
        object.__setattr__(self, "domains", domains)
        if self.local_folder is not None:
            folder = Path(self.local_folder).resolve()
            if not folder.is_dir():
                raise ValueError(f"`local_folder` must be a folder, got {str(self.local_folder)!r}.")
            object.__setattr__(self, "local_folder", folder)


class MediaReader:
    """
    Reads and checks images by the rules of a server.

    Args:
        sources ([`MediaSources`]): the rules.
    """

    def __init__(self, sources: MediaSources) -> None:
        self.sources = sources
        # Decoding needs memory for all pixels, so only a few images are decoded at once.
        self._limiter = CapacityLimiter(4)

    async def read_all(self, addresses: Iterable[str]) -> list[str]:
        """
        Reads images and returns them as `data:` URLs, which need no further access to network or files.

        Args:
            addresses (`Iterable[str]`): `data:` URLs, or addresses that the sources allow.

        Raises:
            RequestError: if an address is not allowed, or it is no image that can be decoded.
        """
        deadline = time.monotonic() + self.sources.timeout
        return [await self._read(address, deadline) for address in addresses]

    async def _read(self, address: str, deadline: float) -> str:
        """Reads one image. A download must end before the deadline."""
        scheme = address[:16].partition(":")[0].lower() if ":" in address[:16] else ""
        if scheme in ("http", "https"):
            sources = self.sources
            seconds = max(0.0, deadline - time.monotonic())
            data = await fetch(address, sources.domains, seconds, sources.max_bytes, sources.is_accepted_address)
            return await to_thread.run_sync(self._check, data, limiter=self._limiter)
        read = self._read_data_url if scheme == "data" else self._read_file
        return await to_thread.run_sync(lambda: self._check(read(address)), limiter=self._limiter)

    def _read_data_url(self, address: str) -> bytes:
        """Decodes the base64 of a `data:` URL."""
        header, comma, text = address.partition(",")
        if not comma or not header.lower().startswith("data:image/") or not header.lower().endswith(";base64"):
            raise RequestError("A `data:` URL of an image must have the form 'data:image/<type>;base64,<base64>'.")
        try:
            data = base64.b64decode("".join(text.split()), validate=True)
        except (binascii.Error, ValueError) as error:
            raise RequestError("The `data:` URL of an image is not valid base64.") from error
        if len(data) > self.sources.max_bytes:
            raise RequestError(
                f"An image must have at most {self.sources.max_bytes} bytes, one in the request has {len(data)}.", 413
            )
        return data

    def _read_file(self, address: str) -> bytes:
        """Reads a file below the allowed folder."""
        folder = self.sources.local_folder
        if folder is None:
            accepted = "`data:` and `https:` URLs of allowed hosts" if self.sources.domains else "`data:` URLs"
            raise RequestError(f"An image must be a URL. This server accepts {accepted}.")
        # The same message for each reason, so that clients cannot ask which files exist.
        refusal = RequestError("The image is not a file in the folder that this server allows.")
        try:
            parts = urlsplit(address)
            if parts.scheme not in ("", "file") or (parts.scheme == "file" and parts.netloc not in ("", "localhost")):
                raise refusal
            name = unquote(parts.path) if parts.scheme == "file" else address
            path = Path(folder, name).resolve()  # follows symbolic links, which may leave the folder
            if not path.is_relative_to(folder):
                raise refusal
            # `O_NONBLOCK`: to open a FIFO would otherwise wait for its writer
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
            with open(descriptor, "rb") as file:
                status = os.fstat(descriptor)
                if not stat.S_ISREG(status.st_mode) or status.st_size > self.sources.max_bytes:
                    raise refusal
                return file.read(self.sources.max_bytes)
        except (OSError, ValueError) as error:  # `ValueError`: a null character in the name
            raise refusal from error

    def _check(self, data: bytes) -> str:
        """Decodes an image as the processor will, and returns the `data:` URL of the file."""
        try:
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                width, height = image.size
                if width * height > self.sources.max_pixels:
                    raise RequestError(
                        f"An image must have at most {self.sources.max_pixels} pixels, got {width} x {height}.", 413
                    )
                ImageOps.exif_transpose(image).load()
                kind = (image.format or "png").lower()
        except DECODE_ERRORS as error:
            raise RequestError(
                "The image cannot be decoded. Accepted are whole PNG, JPEG, WebP and GIF files."
            ) from error
        return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


__all__ = ["MediaReader", "MediaSources"]
