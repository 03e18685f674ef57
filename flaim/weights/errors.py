"""What can go wrong with checkpoints."""


class CatalogueError(LookupError):
    """No such model, no such parameters, or a family that is not implemented; the message says what there is."""


class CheckpointError(ValueError):
    """A file or its configuration cannot be used; the message lists everything that is wrong with it."""


class HubError(OSError):
    """A file could not be had from the Hub; the message says why and what would help."""


class FileMissingError(HubError):
    """The repository is there, the file is not."""
