"""The one door to the Hugging Face Hub: publishing runs, fetching them, and taking data sets, models and tokenizers.

Whatever comes from the Hub is pinned: a branch or tag is turned into a commit first, that commit is what is loaded,
and `used` tells which ones it were. With ``HF_HUB_OFFLINE=1`` the local cache answers. Nothing taken from here runs
code: weights are safetensors, and repositories' own Python is never trusted.

Tokens are the Hub client's business (``HF_TOKEN_PATH``, ``HF_TOKEN`` or ``hf auth login``); none is written anywhere.
"""

from __future__ import annotations

import contextlib
import importlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from shared_core import files, hubnotes, progress
from shared_core.errors import UserError
from shared_core.hubfaults import LOGIN, explained, limit_silence, patiently

if TYPE_CHECKING:
    from huggingface_hub import HfApi

    from shared_core.publication import Publication

Kind = Literal["model", "dataset"]

_NO_CODE: dict[str, Any] = {"trust_remote_code": False}
_used: dict[str, str] = {}


def used() -> dict[str, str]:
    """What this process has taken from the Hub: ``dataset OWNER/NAME`` -> commit. Runs record it."""
    return dict(_used)


def push(run: Path, repo: str, *, private: bool = True, tag: str | None = None, checkpoint: str = "best") -> str:
    """Publish a run as OWNER/NAME and return the address of the tagged version.

    An allow-list is uploaded (`publication`), never the run's folder as it is. A run may be published at any time, also
    while it trains; the card says how far it was. Several models are published when all of them have been trained.
    Content that the Hub already has is not sent again, so a push that failed goes on where it stopped when repeated:
    that holds for whole files, and for parts of files where the Hub stores them with xet. Each attempt is noted in the
    run's hub.json.

    Args:
        run: folder of a run.
        private: make a private repository; publishing to one that is public already is refused.
        tag: name of the version; default: ``step-N``, then ``step-N-2`` if that tag means other content; without
            checkpoints, ``version``.
        checkpoint: best (else the newest), latest, or the folder of a checkpoint.

    Raises:
        UserError: the run cannot be published, another process is publishing it, or the Hub refuses or cannot be
            reached; the message says what to do.
    """
    from huggingface_hub import get_token

    from shared_core import publication, records

    directory = records.find(Path(run))
    check_name(repo)
    what, api = f"push to {repo}", _client()
    with hubnotes.alone(directory.path), hubnotes.noted(directory.path, repo) as note:
        # beside the run, where there is room for weights; /tmp may be memory
        with publication.scratch(directory.path) as folder:
            with explained(what):
                token = get_token()
            made = publication.stage(directory, folder, repo, token, checkpoint)
            note |= {} if made.checkpoint is None else {"checkpoint": made.checkpoint}
            with explained(what):
                patiently(what, lambda: _create(api, repo, private))
                if tag in patiently(what, lambda: _tags(api, repo)):
                    raise UserError(f"{what}: the tag {tag!r} is taken; choose another --tag")
                uploaded = patiently(what, lambda: _upload(api, repo, folder, made))
                tag = patiently(what, lambda: _tag(api, repo, uploaded, tag, made.tag))
        note.update(state="pushed", commit=uploaded, tag=tag)
    return f"{api.endpoint}/{repo}/tree/{tag}"


def own(name: str) -> str:
    """YOU/`name`, where YOU is whose token is used.

    Raises:
        UserError: there is no token, or the Hub does not know it or cannot be reached.
    """
    from huggingface_hub import get_token

    what = "push without OWNER/NAME"
    with explained(what):
        if get_token() is None:
            raise UserError(f"{what}: there is no token that says who you are; {LOGIN}")
        return f"{patiently(what, _client().whoami)['name']}/{name}"


def pull(repo: str, folder: Path, revision: str | None = None) -> Path:
    """Fetch a published run into `folder`, which then serves as a run: it can be evaluated, predicted with, reported.

    Every file is compared with its checksum before the folder appears under its name.

    Args:
        repo: OWNER/NAME, or OWNER/NAME@REVISION.
        revision: tag, branch or commit; default: the newest.

    Raises:
        UserError: there is something else in `folder`, the repository is none that `push` made, a file is damaged, or
            the Hub refuses or cannot be reached.
    """
    name, revision = parse(repo, revision)
    return _pull(name, commit(name, revision), Path(folder), revision)


def fetch(repo: str, home: Path, revision: str | None = None) -> Path:
    """`pull` into `home`/NAME, or into `home`/NAME@COMMIT where that name is taken by another run or version.

    A version that is there already is not fetched again.
    """
    name, revision = parse(repo, revision)
    version = commit(name, revision)
    folder = home / name.rpartition("/")[2]
    if _is_taken(folder) and not _is_version(folder, name, version):
        folder = folder.with_name(f"{folder.name}@{version[:12]}")  # no run that is trained here can have this name
    return _pull(name, version, folder, revision)


def weights(repo: str) -> tuple[Path, str]:
    """File with the verified weights of a published run OWNER/NAME@REVISION, in the cache, and their commit.

    Raises:
        UserError: as `pull`.
    """
    from shared_core import publication

    name, revision = parse(repo)
    version = commit(name, revision)
    folder = snapshot(name, version, patterns=("SHA256SUMS", "config.yaml", "model.safetensors"))
    what = f"{name} at {version[:12]}"
    if "model.safetensors" not in publication.verify(folder, what, ("config.yaml", "model.safetensors")):
        raise UserError(f"{what}: holds several models; pull it, and give the folder of one, models/NAME in it")
    return folder / "model.safetensors", version


def parse(name: str, revision: str | None = None) -> tuple[str, str | None]:
    """OWNER/NAME and the revision out of ``OWNER/NAME@REVISION``.

    Raises:
        UserError: it is no such name, or two different revisions were given.
    """
    repo, at, given = name.partition("@")
    check_name(repo)
    if at and not given:
        raise UserError(f"{name!r}: the revision is missing; write OWNER/NAME or OWNER/NAME@REVISION")
    if given and revision and given != revision:
        raise UserError(f"{name!r} and --revision {revision}: two revisions; give one")
    return repo, given or revision


def _pull(repo: str, version: str, folder: Path, revision: str | None) -> Path:
    from shared_core import publication, records

    what = f"{repo} at {version[:12]}"
    if _is_version(folder, repo, version):
        publication.verify(folder, str(folder), publication.LOADED)
        return folder
    if _is_taken(folder):
        raise UserError(f"{folder}: is there already; give another --folder, or delete it to pull {repo} again")
    downloaded = snapshot(repo, version, patterns=publication.ALLOWED)
    with files.atomic_dir(folder) as temporary:
        publication.copy_verified(downloaded, temporary, what)
        records.RunDir(temporary).status("finished", source=f"{repo}@{version}")
        hubnotes.add(temporary, {"repo": repo, "state": "pulled", "commit": version, "revision": revision or "main"})
    return folder


def _is_taken(folder: Path) -> bool:
    return folder.exists() and (not folder.is_dir() or any(folder.iterdir()))


def _is_version(folder: Path, repo: str, version: str) -> bool:
    """Whether `pull` put that very version there; a run that was pushed as it may have been trained further."""
    note = hubnotes.last(folder)
    return (note.get("state"), note.get("repo"), note.get("commit")) == ("pulled", repo, version)


def commit(name: str, revision: str | None, kind: Kind = "model") -> str:
    """The commit (40 hexadecimal digits) that a branch, a tag or a commit of OWNER/NAME means; None: the newest.

    The answer is cached, so that it can be had offline later.

    Raises:
        UserError: there is no such repository or revision, no access, or no connection and no cached answer.
    """
    check_name(name)
    api = _client()
    what = f"{kind} {name}" + (f" at {revision}" if revision else "")
    with explained(what):
        if not re.fullmatch(r"[0-9a-f]{40}", revision or ""):
            # after one bad answer the client takes the cache's word, which may be an old one: so ask patiently first
            with contextlib.suppress(Exception):  # the next line says what is wrong
                patiently(what, lambda: api.repo_info(name, revision=revision, repo_type=kind))
        found = api.resolve_revision(name, revision=revision, repo_type=kind).resolved
    if _used.get(f"{kind} {name}") != found and revision != found:
        progress.message(f"{kind} {name}: taking commit {found} (pin it with @{found[:12]}...)")
    _used[f"{kind} {name}"] = found
    return found


def snapshot(name: str, revision: str | None, kind: Kind = "model", patterns: tuple[str, ...] | None = None) -> Path:
    """The local (read-only, cached) folder with the files of a repository that match `patterns`.

    Raises:
        UserError: as `commit`; also where the cache is incomplete and the Hub cannot be reached.
    """
    version = commit(name, revision, kind)
    wanted = None if patterns is None else list(patterns)
    what, api = f"{kind} {name} at {version[:12]}", _client()
    options: Any = {"repo_type": kind, "revision": version, "allow_patterns": wanted}
    with explained(what):
        return Path(patiently(what, lambda: api.snapshot_download(name, **options)))


def dataset(name: str, revision: str | None, **options: Any) -> Any:
    """A data set of the Hub through the library ``datasets`` (extra `datasets`); `options` go to ``load_dataset``.

    Args:
        name: OWNER/NAME, or a folder (`is_folder`).

    Raises:
        UserError: the library is missing, it can make nothing of the folder, or as `commit`.
    """
    library = _library("datasets", "datasets")
    if is_folder(name):
        library.disable_progress_bars()  # of the copy that it makes
        try:
            return library.load_dataset(str(Path(name).expanduser()), **options)
        except Exception as error:  # the library's own, of many kinds
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise UserError(f"{name}: `datasets` cannot read it ({reason})") from error
    version = commit(name, revision, "dataset")
    with explained(f"dataset {name} at {version[:12]}"):
        return library.load_dataset(name, revision=version, **options)


def cache(name: str) -> Path:
    """A folder for what is made of the Hub's data, beside what comes from it (in ``HF_HOME``)."""
    from huggingface_hub.constants import HF_HOME

    return Path(HF_HOME) / name


def model(name: str, revision: str | None, auto: str = "AutoModel", **options: Any) -> Any:
    """A pretrained model through ``transformers`` (extra `transformers`): safetensors only, none of its own code.

    Args:
        name: OWNER/NAME, or a folder (`is_folder`).
        auto: the class of ``transformers`` that loads it, such as AutoModelForImageClassification.

    Raises:
        UserError: the library is missing, there is no such folder, or as `commit`.
    """
    library = _library("transformers", "transformers")
    return _load(getattr(library, auto), "model", name, revision, {"use_safetensors": True, **_NO_CODE, **options})


def tokenizer(name: str, revision: str | None, **options: Any) -> Any:
    """The tokenizer of a pretrained model; as `model`."""
    library = _library("transformers", "transformers")
    return _load(library.AutoTokenizer, "tokenizer", name, revision, {**_NO_CODE, **options})


def autoencoder(name: str, revision: str | None, **options: Any) -> Any:
    """The VAE between images and their latents through ``diffusers`` (extra `diffusers`): safetensors only.

    Args and errors as `model`.
    """
    library = _library("diffusers", "diffusers")
    return _load(library.AutoencoderKL, "VAE", name, revision, {"use_safetensors": True, **options})


def is_folder(name: str) -> bool:
    """Whether a model or data set is named by its folder: such a name begins with ``/``, ``./``, ``../`` or ``~``."""
    return name.startswith(("/", "./", "../", "~"))


def _load(loader: Any, kind: str, name: str, revision: str | None, options: dict[str, Any]) -> Any:
    """What a library's class makes of a folder, or of a repository at its commit."""
    if is_folder(name):
        folder = Path(name).expanduser()
        if not folder.is_dir():
            raise UserError(f"{kind} {name}: there is no such folder; correct the path, or write OWNER/NAME")
        return loader.from_pretrained(str(folder), local_files_only=True, **options)
    version = commit(name, revision)
    with explained(f"{kind} {name} at {version[:12]}"):
        return loader.from_pretrained(name, revision=version, **options)


def _client() -> HfApi:
    from huggingface_hub import HfApi

    limit_silence()
    return HfApi()


def _create(api: HfApi, repo: str, private: bool) -> None:
    api.create_repo(repo, private=private, exist_ok=True)
    if private and not api.repo_info(repo).private:
        raise UserError(f"push to {repo}: it is public; say --private false to publish there, or choose another name")


def _upload(api: HfApi, repo: str, folder: Path, made: Publication) -> str:
    """The commit with the files of `folder`. Repeated after its answer was lost, it finds nothing left to change.

    The client sends large files through xet where that is installed (as it is with the client), else through LFS. Our
    tests do both: LFS against a server that checks every byte, xet with its own storage in a local folder; what they
    cannot show is the Hub's real storage service.
    """
    from shared_core import publication

    return api.upload_folder(
        repo_id=repo,
        folder_path=folder,
        allow_patterns=list(publication.ALLOWED),
        delete_patterns=list(publication.ALLOWED),  # what an earlier push left and this one does not have
        commit_message=made.title,
    ).oid


def _tags(api: HfApi, repo: str) -> dict[str, str]:
    return {ref.name: ref.target_commit for ref in api.list_repo_refs(repo).tags}


def _tag(api: HfApi, repo: str, commit: str, wanted: str | None, default: str) -> str:
    """Let a tag mean `commit`, and return its name. Repeated after its answer was lost, it finds the tag."""
    tags = _tags(api, repo)
    tag = wanted or _free_tag(default, commit, tags)
    if tags.get(tag) != commit:
        api.create_tag(repo, tag=tag, revision=commit)
    return tag


def _free_tag(wanted: str, commit: str, tags: dict[str, str]) -> str:
    """`wanted`, or WANTED-2, -3 ... where it means another commit."""
    number, tag = 1, wanted
    while tags.get(tag, commit) != commit:
        number += 1
        tag = f"{wanted}-{number}"
    return tag


def check_name(repo: str) -> None:
    """Refuse what is no OWNER/NAME, before the network is asked."""
    if not re.fullmatch(r"[\w\-.]+/[\w\-.]+", repo) or ".." in repo or "--" in repo:
        raise UserError(f"{repo!r} is no name of a repository; write OWNER/NAME")


def _library(name: str, extra: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise UserError(f"the library {name} is not installed; run: pip install {name} (extra {extra!r})") from None
