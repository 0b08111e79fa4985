"""Tensors split over processes (FSDP): every process writes and reads its own part, as safetensors.

A thin layer over `torch.distributed.checkpoint` with its Hugging Face storage, the one of its formats that holds no
pickle. A state may be read by another number of processes than wrote it. Importing this takes seconds: others do it
only where a state is sharded.
"""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import torch
from torch.distributed import get_rank
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from shared_core.errors import UserError
from shared_core.files import explain
from shared_core.tensorfile import Tensors

logging.getLogger("torch.distributed.checkpoint").setLevel(logging.WARNING)


def save_sharded(folder: Path, tensors: Tensors) -> list[str]:
    """Write this process's part of `tensors` into `folder`; all processes call this together.

    Tensors that are not split are written by one process. Nothing is flushed or renamed.

    Returns:
        Names of the files that this process wrote.

    Raises:
        UserError: any process could not write its part; all of them raise.
    """
    folder.mkdir(exist_ok=True)
    try:
        save(dict(tensors), storage_writer=HuggingFaceStorageWriter(str(folder), save_distributed=True))
    except CheckpointException as error:
        raise _explain(error, folder) from error
    return sorted(file.name for file in folder.glob(f"shard-{get_rank() + 1:05d}-*.safetensors"))


def load_sharded(folder: Path, into: Tensors) -> None:
    """Fill tensors in place with what `save_sharded` wrote under their names; all processes call this together.

    Args:
        into: the same names and shapes; they may be split in another way and over another number of processes.

    Raises:
        UserError: a file is damaged, or a name or shape differs.
    """
    try:
        load(dict(into), storage_reader=HuggingFaceStorageReader(str(folder)))
    except CheckpointException as error:
        raise _explain(error, folder) from error


def read_whole(folder: Path, names: list[str]) -> Tensors:
    """Whole tensors on the CPU, put together by this process alone."""
    reader = HuggingFaceStorageReader(str(folder))
    stored = reader.read_metadata().state_dict_metadata
    tensors: Tensors = {}
    for name in names:
        about = stored[name]
        assert isinstance(about, TensorStorageMetadata)  # the other kind are pickles, which this format does not have
        tensors[name] = torch.empty(about.size, dtype=about.properties.dtype)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")  # which is what no_dist asks for
        load(dict(tensors), storage_reader=reader, no_dist=True)
    return tensors


def _explain(error: CheckpointException, folder: Path) -> UserError:
    """The first process's failure in one line."""
    rank, (cause, _) = min(error.failures.items())
    if isinstance(cause, OSError):
        return explain(cause, folder)
    return UserError(f"{folder}: process {rank}: {str(cause).splitlines()[0]}; was it written for another model?")
