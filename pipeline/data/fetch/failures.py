"""What may go wrong with HTTP and other places, in words without a URL: errors of `requests` hold it whole."""

from __future__ import annotations

import email.utils
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus

import requests

from pipeline.errors import MissingError, UsageError

BUSY_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})  # another attempt may be answered otherwise


class TransientError(Exception):
    """What went wrong, where another attempt may go right; `wait` is what the server asked for, in seconds."""

    def __init__(self, problem: str, wait: float = 0.0) -> None:
        super().__init__(problem)
        self.wait = wait


def busy(response: requests.Response) -> TransientError:
    """The error for an answer with one of the `BUSY_STATUSES`."""
    return TransientError(f"the server answered {in_words(response.status_code)}", _retry_after(response))


def in_words(status: int) -> str:
    """A status with its standard phrase: what the server itself writes there is not to be trusted."""
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


@contextmanager
def requesting(shown: str, timeout: float) -> Iterator[None]:
    """Put errors of `requests` in other words, and do not chain them.

    Args:
        shown: What stands for the URL in messages.
        timeout: Seconds that were waited for an answer.

    Raises:
        MissingError: The server cannot be trusted, or sends in circles.
        UsageError: The URL cannot be one.
        TransientError: Another attempt may go right.
    """
    try:
        yield
    except requests.exceptions.SSLError:
        raise MissingError("The server's certificate cannot be verified", where=shown) from None
    except requests.Timeout:
        raise TransientError(f"no answer within {timeout:g} s") from None
    except (requests.exceptions.ChunkedEncodingError, requests.exceptions.ContentDecodingError):
        raise TransientError("the connection broke") from None
    except requests.ConnectionError as error:
        raise TransientError(_why(error)) from None
    except requests.TooManyRedirects:
        raise MissingError("The server redirects without end", where=shown) from None
    except (requests.RequestException, UnicodeError):
        raise UsageError("This is no URL that can be fetched", where=shown) from None


def _retry_after(response: requests.Response) -> float:
    """What a `Retry-After` header asks for, in seconds or as a date (RFC 9110, section 10.2.3)."""
    value = response.headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        return max(email.utils.parsedate_to_datetime(value).timestamp() - time.time(), 0.0)
    except (ValueError, OverflowError, OSError):
        return 0.0


def _why(error: requests.ConnectionError) -> str:
    """The cause of a failed connection as the system has it; the errors around it lie in one another's arguments."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return f"no connection to the server ({cause.strerror})"
        cause = (
            getattr(cause, "reason", None)
            or next((each for each in cause.args if isinstance(each, BaseException)), None)
            or cause.__cause__
            or cause.__context__
        )
    return "no connection to the server"
