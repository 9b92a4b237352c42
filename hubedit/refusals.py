"""What the Hub refuses: the client's errors turned into ours, each with the way out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hubedit.errors import AccessError, HubError, NotOnHubError, RecipeError


@contextmanager
def worded(what: str, url: str) -> Iterator[None]:
    """Turn the client's errors into ours, each with the way out."""
    import httpx2
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError as error:
        raise AccessError(
            f"{what}: access is gated; accept its terms on {url} and log in with `hf auth login`"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise NotOnHubError(
            f"{what}: there is no such repository on {url}, or this token may not see it; "
            "check the name and `hf auth whoami`"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise NotOnHubError(
            f"{what}: there is no such revision; `hubedit log REPO` lists those there are"
        ) from error
    except (errors.RemoteEntryNotFoundError, errors.LocalEntryNotFoundError) as error:
        raise NotOnHubError(f"{what}: {_first_line(error)}") from error
    except errors.HFValidationError as error:
        raise RecipeError(f"{what}: {_first_line(error)}") from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else None
        if status in (401, 403):
            raise AccessError(
                f"{what}: {url} refused it ({_message(error)}); log in with a "
                "token that may "
                "write: `hf auth login`, or set HF_TOKEN"
            ) from error
        raise HubError(f"{what}: {url} answered {status} ({_message(error)})") from error
    except errors.OfflineModeIsEnabled as error:
        raise HubError(f"{what}: HF_HUB_OFFLINE is set; unset it to talk to {url}") from error
    except (httpx2.TransportError, ConnectionError) as error:
        named = re.fullmatch(r"[\w.-]+(/[\w.-]+)?", what.partition("@")[0])
        no_place = ", and no directory here has that name" if named else ""
        raise HubError(
            f"{what}: {url} cannot be reached ({_first_line(error)}){no_place}"
        ) from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _message(error: Any) -> str:
    return str(getattr(error, "server_message", None) or _first_line(error))
