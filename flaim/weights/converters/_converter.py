"""`Converter`: what flaim knows of one ecosystem's checkpoints."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import flaim_core as core
from flaim.weights.info import CheckpointInfo

# By name: lazily read arrays. The types have no parameters, because a run-time check of these would load the file.
Tensors = Mapping
Documents = Mapping  # by file name: JSON files, and what the weights' file says beside its tensors


@dataclass(frozen=True)
class Converter:
    """One ecosystem's names for tensors, and what its documents say.

    Attributes:
        name: What `CheckpointInfo.converter` calls it.
        recognises: `(tensors, documents)`: whether a checkpoint is of this ecosystem. Converters are asked in the order
            of `CONVERTERS`. Looking at `tensors` may download them, so documents come first.
        describe: `(tensors, documents, where)`: what is known of the checkpoint found at `where`. Options that flaim's
            model does not have are a `CheckpointError` that lists them all.
        translate: `(tensors, info, leaves)`: the tensors by the paths of `leaves`, those of the whole model with its
            head. What belongs to no leaf keeps a name of its own.
        layouts: The layout of a tensor by the layout of its leaf, where they differ.
        name_of: A leaf's name in such a checkpoint by its path, for messages.
        keeps_dtype: Leaves are loaded in the dtype of the file; otherwise in the model's.
    """

    name: str
    recognises: Callable[[Tensors, Documents], bool]
    describe: Callable[[Tensors, Documents, str], CheckpointInfo]
    translate: Callable[[Tensors, CheckpointInfo, Mapping[str, core.Leaf]], dict[str, Any]]
    layouts: Mapping[str, str] = field(default_factory=dict)
    name_of: Callable[[str], str] = str
    keeps_dtype: bool = False
