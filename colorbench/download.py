"""A file from the web, gone on with from where an earlier download was cut off."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

import requests
from tqdm import tqdm

from colorbench.errors import reason

TIMEOUT = 15, 60  # seconds: until the server answers, and between two parts of what it sends
CHUNK = 1 << 16  # bytes written at once; of one that is cut off nothing is kept
NUMBER = "[0-9]{1,18}"  # of bytes; Python refuses to read thousands of digits


class DownloadError(Exception):
    """Why a file could not be had."""


class CutOffError(DownloadError):
    """Only a part of it came, which another download goes on with."""

    def __init__(self, came: int, total: int) -> None:
        super().__init__(f"it was cut off after {came:,} of {total:,} bytes")


def download(url: str, part: Path, size: int) -> None:
    """Download the file at `url` into `part`, after what is there already if the server can do so.

    `size` is the length that is due in bytes. Raises DownloadError, and OSError if `part` cannot be written;
    what has come until then stays in `part`.
    """
    there = part.stat().st_size if part.exists() else 0
    if there == size:
        return
    with _asked(url, there) as answer:
        start, total = _extent(answer)
        if there and (answer.status_code == requests.codes.requested_range_not_satisfiable or start not in (0, there)):
            part.unlink()  # it is longer than the file, or cannot be gone on with
            download(url, part, size)
            return
        if not answer.ok or start not in (0, there):
            raise DownloadError(f"the server answers {answer.status_code} {answer.reason}".rstrip())
        if total not in (0, size):
            raise DownloadError(f"the file there has {total:,} bytes, not {size:,}")
        _receive(answer, part, start, size)


def _asked(url: str, start: int) -> requests.Response:
    # A compressed answer would have another length, and no place to go on from.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    try:
        return requests.get(url, headers=headers, stream=True, timeout=TIMEOUT)
    except requests.Timeout as error:
        raise DownloadError(f"{urlsplit(url).netloc} does not answer") from error
    except requests.RequestException as error:
        raise DownloadError(f"no connection to {urlsplit(url).netloc} ({type(error).__name__})") from error
    except (OSError, ValueError) as error:  # the certificates of this machine, the address that it is moved to
        raise DownloadError(reason(error)) from error


def _extent(answer: requests.Response) -> tuple[int, int]:
    """At which byte of the file an answer starts, and how many the file has; 0 if the server does not say."""
    if answer.status_code == requests.codes.partial_content:
        said = re.fullmatch(rf"bytes ({NUMBER})-{NUMBER}/({NUMBER}|\*)", answer.headers.get("Content-Range", ""))
        return (int(said[1]), int(said[2]) if said[2] != "*" else 0) if said else (-1, 0)
    return 0, int(length) if re.fullmatch(NUMBER, length := answer.headers.get("Content-Length", "")) else 0


def _receive(answer: requests.Response, part: Path, start: int, total: int) -> None:
    bar = tqdm(desc=part.name.strip("."), initial=start, total=total, unit="B", unit_scale=True, disable=None)
    with part.open("ab" if start else "wb") as file, bar:
        try:
            for chunk in answer.iter_content(CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
                if file.tell() > total:
                    raise DownloadError(f"the server sends more than {total:,} bytes")
        except requests.RequestException as error:
            raise CutOffError(file.tell(), total) from error
        if file.tell() < total:
            raise CutOffError(file.tell(), total)
