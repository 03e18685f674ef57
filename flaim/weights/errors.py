"""Errors of loading and saving checkpoints."""


class CatalogueError(LookupError):
    """No such model, no such parameters, or a family that is not implemented; the message says what exists."""


class CheckpointError(ValueError):
    """A file or its configuration cannot be used; the message lists everything that is wrong with it."""


class HubError(OSError):
    """A download or an upload failed; the message says why and what to do."""


class FileMissingError(HubError):
    """The repository exists, the file does not."""
