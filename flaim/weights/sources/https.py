"""Download files that are not on the Hugging Face Hub: over HTTPS, with a check of their hashes, into flaim's cache."""

import base64
import hashlib
import http.client
import os
import tempfile
import urllib.error
import urllib.request
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import BinaryIO
from urllib.parse import urlsplit

from flaim.weights.errors import CheckpointError, FileMissingError, HubError

_CHUNK, _TIMEOUT = 1 << 20, 60  # bytes, seconds


def fetch(url: str, digest: str | None = None) -> Path:
    """The path in the cache of the file at `url`; downloads it if the cache does not have it.

    The cache is in `HF_ASSETS_CACHE`, beside the Hub's. If the environment variable FLAIM_MIRROR is set, that server is
    used instead, with the same paths. Without a digest, the MD5 that Google's storage servers send is checked.

    Args:
        url: Of the file.
        digest: Its hash, `"md5:..."` or `"sha256:..."` in hexadecimal, or the first digits of it, as PyTorch's names of
            files have them.

    Raises:
        HubError: No connection, no such file, or the server failed.
        CheckpointError: The file has another hash. As after every failure, the file is not kept.
    """
    from huggingface_hub import cached_assets_path, constants

    parts = urlsplit(url)
    remote = PurePosixPath(parts.path)
    folder = cached_assets_path(
        "flaim", str(parts.hostname), str(remote.parent).strip("/"), assets_dir=constants.HF_ASSETS_CACHE
    )
    path = folder / remote.name
    if path.is_file():
        return path
    if constants.HF_HUB_OFFLINE:
        raise HubError(
            f"{url} is not in the cache, and HF_HUB_OFFLINE forbids to download it: unset it once, or pass the path of "
            "a local checkpoint"
        )
    if mirror := os.environ.get("FLAIM_MIRROR"):
        url = mirror.rstrip("/") + parts.path
    handle, name = tempfile.mkstemp(dir=folder, prefix=f"{remote.name}.", suffix=".incomplete")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            _download(url, file, digest)
        temporary.replace(path)
    except urllib.error.HTTPError as error:
        kind = FileMissingError if error.code == 404 else HubError
        raise kind(f"{url} answered with status {error.code} {error.reason}") from error
    except (http.client.HTTPException, OSError) as error:
        if isinstance(error, HubError):
            raise
        raise HubError(
            f"downloading {url} failed: {getattr(error, 'reason', None) or error}. Check the network and try again, or "
            "pass the path of a local checkpoint"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _download(url: str, file: BinaryIO, digest: str | None) -> None:
    """Download `url` to `file`, with a progress bar; checks the size and the hash."""
    from huggingface_hub.utils import tqdm

    request = urllib.request.Request(url, headers={"User-Agent": f"flaim/{version('flaim')}"})
    with urllib.request.urlopen(request, timeout=_TIMEOUT) as response:
        algorithm, _, expected = (digest or _digest_of(response.headers) or "md5:").partition(":")
        found, size = hashlib.new(algorithm, usedforsecurity=False), response.headers["Content-Length"]
        total = None if size is None else int(size)
        with tqdm(total=total, desc=PurePosixPath(urlsplit(url).path).name, unit="B", unit_scale=True) as bar:
            while chunk := response.read(_CHUNK):
                file.write(chunk)
                found.update(chunk)
                bar.update(len(chunk))
    if total is not None and file.tell() != total:
        raise HubError(f"downloading {url} broke off after {file.tell()} of {total} bytes; try again")
    if not found.hexdigest().startswith(expected):
        raise CheckpointError(
            f"{url} is not the file that was published: its {algorithm} is {found.hexdigest()}, expected {expected}. "
            "The incomplete file was deleted"
        )


def _digest_of(headers: http.client.HTTPMessage) -> str | None:
    """The file's MD5 in the headers of Google's storage servers."""
    for value in ",".join(headers.get_all("x-goog-hash") or ()).split(","):
        algorithm, _, encoded = value.strip().partition("=")
        if algorithm == "md5":
            return f"md5:{base64.b64decode(encoded).hex()}"
    return None
