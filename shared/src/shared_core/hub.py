"""The one door to the Hugging Face Hub: publishing runs, fetching them, and taking data sets, models and tokenizers.

Whatever comes from the Hub is pinned: a branch or tag is turned into a commit first, that commit is what is loaded,
and `used` tells which ones it were. With ``HF_HUB_OFFLINE=1`` the local cache answers. Nothing taken from here runs
code: weights are safetensors, and repositories' own Python is never trusted.

Tokens are the Hub client's business (``HF_TOKEN_PATH``, ``HF_TOKEN`` or ``hf auth login``); none is written anywhere.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import re
import tempfile
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from shared_core import files, progress
from shared_core.errors import UserError

if TYPE_CHECKING:
    from huggingface_hub import HfApi

    from shared_core.records import RunDir

Kind = Literal["model", "dataset"]

_used: dict[str, str] = {}
_LOGIN = "run `hf auth login`, or put a token into a file and name it in HF_TOKEN_PATH"


def used() -> dict[str, str]:
    """What this process has taken from the Hub: ``dataset OWNER/NAME`` -> commit. Runs record it."""
    return dict(_used)


def push(run: Path, repo: str, *, private: bool = True, tag: str | None = None) -> str:
    """Publish a run as OWNER/NAME and return the address of the tagged version.

    An allow-list is uploaded (`publication`), never the run's folder as it is. Content that the Hub already has is not
    sent again, so a push that failed goes on where it stopped when repeated. Each attempt is noted in the run's
    hub.json.

    Args:
        run: folder of a run.
        private: make a private repository; publishing to one that is public already is refused.
        tag: name of the version; default: ``step-N``, then ``step-N-2`` if that tag means other content.

    Raises:
        UserError: the run cannot be published, or the Hub refuses or cannot be reached; the message says what to do.
    """
    from huggingface_hub import HfApi, get_token

    from shared_core import publication, records

    directory = records.find(Path(run))
    _check_name(repo)
    api = HfApi()
    with tempfile.TemporaryDirectory(prefix="publication-") as temporary, _noted(directory, repo) as note:
        step = publication.stage(directory, Path(temporary), repo, get_token())
        with _explained(f"push to {repo}"):
            _create(api, repo, private)
            tags = {ref.name: ref.target_commit for ref in api.list_repo_refs(repo).tags}
            if tag in tags:
                raise UserError(f"push to {repo}: the tag {tag!r} is taken; choose another --tag")
            uploaded = api.upload_folder(
                repo_id=repo,
                folder_path=temporary,
                allow_patterns=list(publication.ALLOWED),
                delete_patterns=list(publication.ALLOWED),  # what an earlier push left and this one does not have
                commit_message=f"Step {step} of {directory.path.parent.name}/{directory.name}",
            ).oid
            tag = tag or _free_tag(f"step-{step}", uploaded, tags)
            if tags.get(tag) != uploaded:
                api.create_tag(repo, tag=tag, revision=uploaded)
        note.update(state="pushed", commit=uploaded, tag=tag)
    return f"{api.endpoint}/{repo}/tree/{tag}"


def pull(repo: str, folder: Path, revision: str | None = None) -> Path:
    """Fetch a published run into `folder`, which then serves as a run: it can be evaluated, predicted with, reported.

    Every file is compared with its checksum before the folder appears under its name.

    Args:
        revision: tag, branch or commit; default: the newest.

    Raises:
        UserError: there is something else in `folder`, the repository is none that `push` made, a file is damaged, or
            the Hub refuses or cannot be reached.
    """
    from shared_core import publication, records

    folder = Path(folder)
    version = commit(repo, revision)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        if _last_note(folder).get("commit") == version:
            return folder
        raise UserError(f"{folder}: is there already; give another --folder, or delete it to pull {repo} again")
    downloaded = snapshot(repo, version, patterns=publication.ALLOWED)
    with files.atomic_dir(folder) as temporary:
        publication.copy_verified(downloaded, temporary, f"{repo} at {version[:12]}")
        pulled = records.RunDir(temporary)
        pulled.status("finished", source=f"{repo}@{version}")
        _note(pulled, {"repo": repo, "state": "pulled", "commit": version, "revision": revision or "main"})
    return folder


def commit(name: str, revision: str | None, kind: Kind = "model") -> str:
    """The commit (40 hexadecimal digits) that a branch, a tag or a commit of OWNER/NAME means; None: the newest.

    The answer is cached, so that it can be had offline later.

    Raises:
        UserError: there is no such repository or revision, no access, or no connection and no cached answer.
    """
    from huggingface_hub import HfApi

    _check_name(name)
    with _explained(f"{kind} {name}" + (f" at {revision}" if revision else "")):
        found = HfApi().resolve_revision(name, revision=revision, repo_type=kind).resolved
    if _used.get(f"{kind} {name}") != found and revision != found:
        progress.message(f"{kind} {name}: taking commit {found} (pin it with @{found[:12]}...)")
    _used[f"{kind} {name}"] = found
    return found


def snapshot(name: str, revision: str | None, kind: Kind = "model", patterns: tuple[str, ...] | None = None) -> Path:
    """The local (read-only, cached) folder with the files of a repository that match `patterns`.

    Raises:
        UserError: as `commit`; also where the cache is incomplete and the Hub cannot be reached.
    """
    from huggingface_hub import HfApi

    version = commit(name, revision, kind)
    wanted = None if patterns is None else list(patterns)
    with _explained(f"{kind} {name} at {version[:12]}"):
        return Path(HfApi().snapshot_download(name, repo_type=kind, revision=version, allow_patterns=wanted))


def dataset(name: str, revision: str | None, **options: Any) -> Any:
    """A data set of the Hub through the library ``datasets`` (extra `datasets`); `options` go to ``load_dataset``.

    Raises:
        UserError: the library is missing, or as `commit`.
    """
    library = _library("datasets", "datasets")
    version = commit(name, revision, "dataset")
    with _explained(f"dataset {name} at {version[:12]}"):
        return library.load_dataset(name, revision=version, **options)


def model(name: str, revision: str | None, auto: str = "AutoModel", **options: Any) -> Any:
    """A pretrained model through ``transformers`` (extra `transformers`): safetensors only, none of its own code.

    Args:
        auto: the class of ``transformers`` that loads it, such as AutoModelForImageClassification.

    Raises:
        UserError: the library is missing, or as `commit`.
    """
    library = _library("transformers", "transformers")
    version = commit(name, revision)
    with _explained(f"model {name} at {version[:12]}"):
        return getattr(library, auto).from_pretrained(
            name, revision=version, use_safetensors=True, trust_remote_code=False, **options
        )


def tokenizer(name: str, revision: str | None, **options: Any) -> Any:
    """The tokenizer of a pretrained model.

    Raises:
        UserError: the library is missing, or as `commit`.
    """
    library = _library("transformers", "transformers")
    version = commit(name, revision)
    with _explained(f"tokenizer {name} at {version[:12]}"):
        return library.AutoTokenizer.from_pretrained(name, revision=version, trust_remote_code=False, **options)


def _create(api: HfApi, repo: str, private: bool) -> None:
    api.create_repo(repo, private=private, exist_ok=True)
    if private and not api.repo_info(repo).private:
        raise UserError(f"push to {repo}: it is public; say --private false to publish there, or choose another name")


def _free_tag(wanted: str, commit: str, tags: dict[str, str]) -> str:
    """`wanted`, or WANTED-2, -3 ... where it means another commit."""
    number, tag = 1, wanted
    while tags.get(tag, commit) != commit:
        number += 1
        tag = f"{wanted}-{number}"
    return tag


def _check_name(repo: str) -> None:
    if not re.fullmatch(r"[\w\-.]+/[\w\-.]+", repo) or ".." in repo or "--" in repo:
        raise UserError(f"{repo!r} is no name of a repository; write OWNER/NAME")


def _library(name: str, extra: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise UserError(f"the library {name} is not installed; run: pip install {name} (extra {extra!r})") from None


@contextlib.contextmanager
def _noted(run: RunDir, repo: str) -> Iterator[dict[str, Any]]:
    """Appends to the run's hub.json how the attempt inside the block ended."""
    note: dict[str, Any] = {"repo": repo, "state": "failed"}
    try:
        yield note
    except UserError as error:
        note["reason"] = str(error)
        with contextlib.suppress(UserError):  # the reason itself is what the user has to see
            _note(run, note)
        raise
    _note(run, note)


def _note(run: RunDir, note: dict[str, Any]) -> None:
    time = datetime.now().astimezone().isoformat(timespec="seconds")
    notes = [*_notes(run.path), {"time": time, **note}]
    files.atomic_write(run.path / "hub.json", json.dumps(notes, indent=2) + "\n")


def _notes(folder: Path) -> list[dict[str, Any]]:
    try:
        notes = json.loads((folder / "hub.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return notes if isinstance(notes, list) else []


def _last_note(folder: Path) -> dict[str, Any]:
    return next(reversed(_notes(folder)), {})


@contextlib.contextmanager
def _explained(what: str) -> Iterator[None]:
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


def _advice(error: BaseException) -> str | None:
    """What happened and what to do about it, or None for an error that is none of the Hub's."""
    from huggingface_hub import errors

    chain: list[BaseException] = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and cause not in chain:
        chain.append(cause)
    for link in chain:
        if isinstance(link, errors.OfflineModeIsEnabled):
            return "not in the local cache, and HF_HUB_OFFLINE forbids to fetch it; unset it once"
        if isinstance(link, errors.GatedRepoError):
            return f"access has to be asked for on its page on the Hub; then {_LOGIN}"
        if isinstance(link, errors.RevisionNotFoundError):
            return "there is no such revision; give a tag, a branch or a commit of it"
        if isinstance(link, errors.EntryNotFoundError) and isinstance(link, errors.HfHubHTTPError):
            return "a file is missing there; check the name and the revision"
        if isinstance(link, errors.HfHubHTTPError):
            return _advice_for_status(link.response.status_code)
        if isinstance(link, errors.FileMetadataError):
            return "the answer is not that of a Hub; check HF_ENDPOINT and the proxy"
        if isinstance(link, errors.HFValidationError):
            return f"{str(link).splitlines()[0]}; write OWNER/NAME"
    # the client's HTTP library changes its name between versions; its errors here are those of the connection
    if any(type(link).__module__.split(".")[0].startswith(("httpx", "httpcore")) for link in chain):
        return "the Hub cannot be reached; check the connection, the proxy and HF_ENDPOINT, then repeat the command"
    if isinstance(error, errors.LocalEntryNotFoundError | errors.RevisionResolutionError | ConnectionError):
        return "neither the Hub nor the local cache has it; check the connection and the name"
    return None


def _advice_for_status(status: int) -> str:
    if status == 401:
        return f"no such repository, or no access with this token (401); check the name, then {_LOGIN}"
    if status == 403:
        return f"this token may not do that (403); {_LOGIN}, one with write access to that owner"
    if status == 404:
        return f"no such repository, or no access (404); check the name, then {_LOGIN}"
    if status == 409:
        return "somebody else is changing the repository (409); repeat the command"
    if status == 429:
        return "too many requests (429); wait a little and repeat the command"
    if status >= 500:
        return f"the Hub has a fault ({status}); repeat the command later, what has been sent is kept"
    return f"the Hub refuses it ({status}); check the name, the token and the revision"
