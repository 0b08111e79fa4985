"""What goes wrong between here and the Hub: what is worth trying again, and the one line that says what to do.

The Hub's client tries some requests again by itself (the listing before an upload, each object of an upload, the
reading of a file), others not at all (making a repository, the commit, the tag, asking for a commit, a file's first
answer). `patiently` goes around whole operations that may be repeated, so that none of them is lost to one bad answer.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

from shared_core import progress
from shared_core.errors import UserError

T = TypeVar("T")

WAITS = (1.0, 3.0, 9.0)  # seconds before the second, third and fourth attempt
LONGEST_WAIT = 60.0  # more than that, when the Hub asks for it, is left to the user
PATIENCE = 120.0  # seconds after which there is no further attempt: the client itself has tried for long enough
SILENCE = 120.0  # seconds without a byte after which a connection counts as lost; the client would wait for ever
LOGIN = "run `hf auth login`, or put a token into a file and name it in HF_TOKEN_PATH"

_PASSING = {408, 409, 412, 425, 429, 500, 502, 503, 504}  # 409, 412: another commit came between
_TIMES = re.compile(r";\s*t=(\d+)")  # in the header `ratelimit`: "api";r=0;t=42


def patiently(what: str, call: Callable[[], T]) -> T:
    """The result of `call`, which is repeated while what it meets may pass (see `WAITS`); it must bear repetition.

    Args:
        what: what is being done, for the message about a repetition.
    """
    began = time.monotonic()
    for wait in WAITS:
        try:
            return call()
        except Exception as error:
            if isinstance(error, UserError) or not _may_pass(error):
                raise
            wait = max(wait, _asked_for(error) or 0.0)
            if wait > LONGEST_WAIT or time.monotonic() - began + wait > PATIENCE:
                raise
            reason = (_advice(error) or str(error)).partition(";")[0]
            progress.message(f"{what}: {reason}; trying again in {wait:.0f} s")
            time.sleep(wait)
    return call()


@contextlib.contextmanager
def explained(what: str) -> Iterator[None]:
    """Turns what the Hub and its clients raise into one line that says what to do."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        advice = _advice(error)
        if advice is None:
            raise
        raise UserError(f"{what}: {advice}") from error


def limit_silence() -> None:
    """Let no request of this process to the Hub wait for ever (files have time limits of the client's own)."""
    from huggingface_hub import set_client_factory
    from huggingface_hub.utils import _http

    global _limited
    if not _limited:
        default = _http.default_client_factory

        def limited() -> object:
            client = default()
            client.timeout = SILENCE
            return client

        set_client_factory(limited)  # type: ignore[arg-type]  # the client's HTTP library changes its name
        _limited = True


_limited = False


def _chain(error: BaseException) -> list[BaseException]:
    """An error and what it came from."""
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and cause not in chain:
        chain.append(cause)
    return chain


def _is_connection(link: BaseException) -> bool:
    # the client's HTTP library changes its name between versions; its errors here are those of the connection
    return type(link).__module__.split(".")[0].startswith(("httpx", "httpcore"))


def _is_incomplete(link: BaseException) -> bool:
    """Whether the client found a file shorter than announced; it has no class for that."""
    return isinstance(link, OSError) and str(link).startswith("Consistency check failed")


def _may_pass(error: BaseException) -> bool:
    from huggingface_hub import errors

    for link in _chain(error):
        if isinstance(link, errors.OfflineModeIsEnabled):
            return False
        if isinstance(link, errors.HfHubHTTPError):
            return link.response.status_code in _PASSING
        if _is_incomplete(link):
            return True
        if _is_connection(link):
            return type(link).__name__ != "ProxyError"
    return False


def _asked_for(error: BaseException) -> float | None:
    """Seconds that the Hub wants us to wait."""
    headers: Mapping[str, str] = {}
    for link in _chain(error):
        headers = getattr(getattr(link, "response", None), "headers", headers)
    if (text := headers.get("Retry-After", "")).isdigit():
        return float(text)
    found = _TIMES.search(headers.get("ratelimit", ""))
    return float(found[1]) if found else None


def _advice(error: BaseException) -> str | None:
    """What happened and what to do about it, or None for an error that is none of the Hub's."""
    from huggingface_hub import constants, errors

    chain = _chain(error)
    for link in chain:
        if isinstance(link, OSError) and link.filename and str(link.filename) == constants.HF_TOKEN_PATH:
            return f"the token in {link.filename} cannot be read ({link.strerror}); make the file readable for you"
        if isinstance(link, errors.OfflineModeIsEnabled):
            return "not in the local cache, and HF_HUB_OFFLINE forbids to fetch it; unset it once"
        if isinstance(link, errors.GatedRepoError):
            return f"access has to be asked for on its page on the Hub; then {LOGIN}"
        if isinstance(link, errors.RevisionNotFoundError):
            return "there is no such revision; give a tag, a branch or a commit of it"
        if isinstance(link, errors.EntryNotFoundError) and isinstance(link, errors.HfHubHTTPError):
            return "a file is missing there; check the name and the revision"
        if isinstance(link, errors.HfHubHTTPError):
            return _advice_for_status(link.response.status_code, _asked_for(link))
        if isinstance(link, errors.FileMetadataError):
            return "the answer is not that of a Hub; check HF_ENDPOINT and the proxy"
        if isinstance(link, errors.HFValidationError):
            return f"{str(link).splitlines()[0]}; write OWNER/NAME"
        if _is_incomplete(link):
            return "a file came incomplete; repeat the command"
        if isinstance(link, OSError) and link.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            where = link.filename or "the cache below HF_HOME"
            return f"{where}: {os.strerror(link.errno).lower()}; make room there, or choose another place with HF_HOME"
        if type(link).__module__.split(".")[0] == "hf_xet" or "xet-write-token" in str(link):
            return (
                "its storage for large files (xet) cannot be used; repeat the command, or set HF_HUB_DISABLE_XET=1 "
                "where HF_ENDPOINT is a mirror that has none"
            )
    if any(_is_connection(link) for link in chain):
        return "the Hub cannot be reached; check the connection, the proxy and HF_ENDPOINT, then repeat the command"
    if isinstance(error, errors.LocalEntryNotFoundError | errors.RevisionResolutionError | ConnectionError):
        return "neither the Hub nor the local cache has it; check the connection and the name"
    return None


def _advice_for_status(status: int, wait: float | None) -> str:
    if status == 401:
        return f"no such repository, or no access with this token (401); check the name, then {LOGIN}"
    if status == 403:
        return f"this token may not do that (403); {LOGIN}, one with write access to that owner"
    if status == 404:
        return f"no such repository, or no access (404); check the name, then {LOGIN}"
    if status in (409, 412):
        return f"somebody else is changing the repository ({status}); repeat the command"
    if status == 429:
        return f"too many requests (429); repeat the command in {f'{wait:.0f} seconds' if wait else 'a few minutes'}"
    if status >= 500:
        return f"the Hub has a fault ({status}); repeat the command later, what has been sent is kept"
    return f"the Hub refuses it ({status}); check the name, the token and the revision"
