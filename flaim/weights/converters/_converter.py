"""`Converter`: how to read one library's checkpoints."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import flaim_core as core
from flaim.weights.info import CheckpointInfo

# By name: lazily read arrays. The types have no parameters because checking them at run time would load the file.
Tensors = Mapping
Documents = Mapping  # by file name: JSON files, and the weights file's metadata


@dataclass(frozen=True)
class Converter:
    """Reads one library's checkpoints: its names for tensors, and its documents.

    Attributes:
        name: The value of `CheckpointInfo.converter`.
        recognises: `(tensors, documents)`: whether a checkpoint is from this library. Converters are asked in the order
            of `CONVERTERS`. Access to `tensors` may download them, so the documents are checked first.
        describe: `(tensors, documents, where)`: the description of the checkpoint at `where`. Raises a
            `CheckpointError` that lists all options that flaim's model does not have.
        translate: `(tensors, info, leaves)`: the tensors by leaf path; `leaves` are those of the model with its head. A
            tensor that belongs to no leaf keeps a name that is not a path.
        layouts: The layout of a tensor by the layout of its leaf, if they differ.
        name_of: The tensor's name for a leaf's path, for messages.
        keeps_dtype: Leaves keep the file's dtype; otherwise they get the model's.
    """

    name: str
    recognises: Callable[[Tensors, Documents], bool]
    describe: Callable[[Tensors, Documents, str], CheckpointInfo]
    translate: Callable[[Tensors, CheckpointInfo, Mapping[str, core.Leaf]], dict[str, Any]]
    layouts: Mapping[str, str] = field(default_factory=dict)
    name_of: Callable[[str], str] = str
    keeps_dtype: bool = False
