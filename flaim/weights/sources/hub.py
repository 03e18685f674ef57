"""Files on the Hugging Face Hub, through `huggingface_hub`, with its cache, tokens, offline mode and progress bars."""

from pathlib import Path
from typing import Any

from flaim.weights.errors import FileMissingError, HubError


def fetch(repo: str, filename: str) -> Path:
    """The path in the Hub's cache of a repository's file; downloads it if the cache does not have it.

    Args:
        repo: `"organisation/name"`, or `"organisation/name@revision"` for a branch, tag or commit.
        filename: Path in the repository.

    Raises:
        HubError: There is no such repository, revision or file, no access, no connection, or the server failed.
            Nothing incomplete stays in the cache, so trying again is safe.
    """
    from huggingface_hub import errors, hf_hub_download

    name, _, revision = repo.partition("@")
    # The client's errors derive from those of its HTTP library, which differs between versions of the client.
    transport_errors: tuple[Any, ...] = errors.HfHubHTTPError.__bases__
    try:
        return Path(hf_hub_download(name, filename, revision=revision or None, library_name="flaim"))
    except errors.HFValidationError as error:
        raise HubError(f"{name!r} is no repository name, which is 'organisation/name': {error}") from error
    except errors.GatedRepoError as error:
        raise HubError(
            f"{name} is gated: accept its conditions at https://huggingface.co/{name}, then log in (`hf auth login`, "
            "or the environment variable HF_TOKEN)"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise HubError(
            f"there is no repository {name!r} on the Hub; if it is private, log in (`hf auth login`, or the "
            "environment variable HF_TOKEN)"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise HubError(f"{name} has no branch, tag or commit {revision!r}") from error
    except errors.LocalEntryNotFoundError as error:
        raise HubError(f"{filename} of {repo} is not in the cache, and {_why_not_online(error)}") from error
    except errors.EntryNotFoundError as error:
        raise FileMissingError(f"{repo} has no file {filename!r}") from error
    except (*transport_errors, OSError) as error:
        raise HubError(
            f"downloading {filename} of {repo} failed: {_first_line(error)}. The incomplete file was deleted from the "
            "cache; try again"
        ) from error


def upload(
    folder: Path, repo: str, *, replaced: str, message: str, private: bool | None = None, token: str | None = None
) -> str:
    """Upload a folder in one commit, and create the repository if it does not exist; returns the commit's address.

    Args:
        folder: What to upload.
        repo: `"organisation/name"`, or `"name"` for the user's own.
        replaced: Pattern of files in the repository that are deleted if the folder does not have them.
        message: Of the commit.
        private: Whether a new repository is private; None: the organisation's default.
        token: Access token; None: the one that the user has logged in with.

    Raises:
        HubError: No permission, no connection, or the server failed. The repository's files are unchanged.
    """
    from huggingface_hub import HfApi, errors

    transport_errors: tuple[Any, ...] = errors.HfHubHTTPError.__bases__
    api = HfApi(library_name="flaim", token=token)
    try:
        repo = api.create_repo(repo, private=private, exist_ok=True).repo_id
        return api.upload_folder(
            repo_id=repo, folder_path=folder, commit_message=message, delete_patterns=[replaced]
        ).commit_url
    except errors.HFValidationError as error:
        raise HubError(f"{repo!r} is no repository name, which is 'organisation/name': {error}") from error
    except (*transport_errors, OSError, errors.OfflineModeIsEnabled) as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        hint = "; log in with a token that may write there (`hf auth login`, or the environment variable HF_TOKEN)"
        raise HubError(
            f"uploading to {repo} failed: {_first_line(error)}{hint if status in (401, 403, 404) else ''}"
        ) from error


def is_cached(repo: str, filename: str) -> bool:
    """Whether `fetch` needs no connection for a file."""
    from huggingface_hub import try_to_load_from_cache

    name, _, revision = repo.partition("@")
    return isinstance(try_to_load_from_cache(name, filename, revision=revision or None), str)


def _why_not_online(error: Exception) -> str:
    """Why the client fell back on its cache."""
    from huggingface_hub import constants, errors

    cause = error.__cause__
    if constants.HF_HUB_OFFLINE or isinstance(cause, errors.OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE forbids to download it: unset it once, or pass the path of a local checkpoint"
    response = getattr(cause, "response", None)
    if response is not None:
        return f"{constants.ENDPOINT} answered with status {response.status_code}: try again later"
    return (
        f"{constants.ENDPOINT} cannot be reached ({_first_line(cause or error)}): check the network, or pass the path "
        "of a local checkpoint"
    )


def _first_line(error: BaseException) -> str:
    return next((line for line in str(error).strip().splitlines() if line), type(error).__name__)
