"""The one door to Docker's SDK: finding the engine, and its errors as one line each."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import Any

from shared_core.errors import UserError

DOCTOR = "run `just doctor`"
_CONNECT_SECONDS = 10
_ANSWER_SECONDS = 300  # an engine that removes a large layer is busy for a while


class MissingError(UserError):
    """The engine knows no such container, path, volume or image."""


class BusyError(UserError):
    """What was asked for is being done already."""


class TooLongError(UserError):
    """An answer of the engine, or the end of a container, did not come in time."""


class UnreachableError(UserError):
    """No engine answers: `what` is known about it, and the `advice`."""

    def __init__(self, what: str, advice: str) -> None:
        super().__init__(f"{what}; {advice} ({DOCTOR} for the rest)")
        self.what, self.advice = what, advice


def connect() -> tuple[Any, str]:
    """A client of the engine that the command line would talk to, and its address.

    That is DOCKER_HOST, else the current `docker context`.

    Raises:
        UnreachableError: it does not answer.
        UserError: the SDK is not installed, or there is no such context.
    """
    try:
        from docker import DockerClient
    except ImportError as error:  # in a checkout, the folder docker/ passes for an empty package of that name
        if error.name != "docker":
            raise
        raise UserError("the library docker is not installed; run: pip install docker (extra 'images')") from None
    settings = _settings(os.environ)
    address = settings["base_url"]
    try:
        client = DockerClient(**settings, version="auto", timeout=_CONNECT_SECONDS)
    except Exception as error:
        raise unreachable(error, address) from error
    client.api.timeout = _ANSWER_SECONDS
    return client, address


def unreachable(error: BaseException, address: str) -> UnreachableError:
    """What an error while connecting means, in words.

    A missing socket, a silent one and one without permission are the three things that happen to people.
    """
    reasons = [link for link in _chain(error) if isinstance(link, OSError)]
    path = address.removeprefix("unix://")
    if any(isinstance(reason, PermissionError) for reason in reasons):
        advice = "run `sudo usermod -aG docker $USER` and log in again"
        return UnreachableError(f"no permission to use Docker's socket {path}", advice)
    if not address.startswith(("unix:", "npipe:")):
        said = next((reason.strerror for reason in reasons if reason.strerror), None) or "no answer"
        advice = "check DOCKER_HOST, or `docker context ls` and `docker context use default`"
        return UnreachableError(f"no Docker engine answers at {address} ({said.lower()})", advice)
    start = "start it: `sudo systemctl start docker`, or open Docker Desktop"
    if any(isinstance(reason, FileNotFoundError) for reason in reasons):
        return UnreachableError(f"no Docker engine runs here: there is no socket {path}", f"install Docker, or {start}")
    if any(isinstance(reason, ConnectionError) for reason in reasons):
        return UnreachableError(f"no Docker engine answers at the socket {path}", start)
    return UnreachableError(f"the Docker engine at {address} does not answer ({_line(error)})", f"re{start}")


@contextlib.contextmanager
def explained(what: str) -> Iterator[None]:
    """Turns the SDK's errors into one line that says what to do."""
    from docker.errors import APIError, DockerException, ImageNotFound
    from requests.exceptions import RequestException

    try:
        yield
    except ImageNotFound as error:
        raise MissingError(f"{what}: no such image; run `just build {what.split(':')[0]}`") from error
    except APIError as error:
        said = _line(error.explanation or error)
        if "could not select device driver" in said:
            advice = "install the NVIDIA Container Toolkit"
            raise UserError(f"{what}: the engine cannot give a container GPUs; {advice} ({DOCTOR})") from error
        kind = {404: MissingError, 409: BusyError}.get(error.status_code, UserError)
        raise kind(f"{what}: Docker says: {said}; {DOCTOR}") from error
    except RequestException as error:
        if "timed out" in str(error):
            raise TooLongError(f"{what}: the Docker engine does not answer in time; {DOCTOR}") from error
        raise UserError(f"{what}: lost the Docker engine ({_line(error)}); {DOCTOR}") from error
    except DockerException as error:
        raise UserError(f"{what}: {_line(error)}; {DOCTOR}") from error


def _settings(environment: Mapping[str, str]) -> dict[str, Any]:
    """Arguments for the client: as the command line, and unlike the SDK, with regard to `docker context`."""
    from docker.context import ContextAPI
    from docker.utils import kwargs_from_env

    if environment.get("DOCKER_HOST"):
        return kwargs_from_env(environment=environment)
    name = environment.get("DOCKER_CONTEXT") or None
    context = ContextAPI.get_context(name)
    if context is None:
        raise UserError(f"docker context {name or '(the current one)'}: there is none; see `docker context ls`")
    host = context.Host or "unix:///var/run/docker.sock"
    ssh = {"use_ssh_client": True} if host.startswith("ssh:") else {}
    return {"base_url": host, "tls": context.TLSConfig or False, **ssh}


def all_gpus() -> Any:
    from docker.types import DeviceRequest

    return DeviceRequest(driver="nvidia", count=-1, capabilities=[["gpu"]])


def _chain(error: BaseException) -> list[BaseException]:
    """An error, what caused it, and what those carry as arguments, outermost first."""
    found: list[BaseException] = []
    todo: list[BaseException] = [error]
    while todo:
        link = todo.pop(0)
        if link not in found:
            found.append(link)
            around = (link.__cause__, link.__context__, getattr(link, "reason", None), *link.args)
            todo += [item for item in around if isinstance(item, BaseException)]
    return found


def _line(error: object) -> str:
    """The first line of what an error says."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
