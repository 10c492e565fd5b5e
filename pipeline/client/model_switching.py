"""A service whose model is replaced by newer ones while it runs, behind a proxy.

A new model takes over only once its service is ready and finds in its test image what was found when it was packed. A
model that does not is refused and not tried again; the one before stays. A service that died is started again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from pipeline.client.service_process import RunningService, serve
from pipeline.client.switching_proxy import SwitchingProxy
from pipeline.errors import PipelineError, StoreError

log = logging.getLogger(__name__)

_MOST_MISSED = 3  # times in a row that the service may not answer, each for ten seconds
_LONGEST_WAIT = 60.0  # seconds before a service that does not start is started again


@dataclass(frozen=True)
class Release:
    """A packed model that can be served."""

    name: str  # sorts by time
    digest: str  # of the packed service
    open: Callable[[], AbstractContextManager[Path]]  # the Bento's folder, while the block runs
    environment: Mapping[str, str] = field(default_factory=dict)  # of its server


class _NotFetchedError(StoreError):
    """A release that could not be fetched, which says nothing of the model."""


class SwitchingService:
    """The service of one release after the other, behind one proxy; use it as a context manager.

    Args:
        proxy: The proxy, which runs.
        check: Raises a `PipelineError` unless the service at a URL gives the results that it was packed with.
        echo: Where the output of the servers is written.
    """

    def __init__(self, proxy: SwitchingProxy, check: Callable[[str], object], echo: BinaryIO | None = None) -> None:
        self._proxy = proxy
        self._check = check
        self._echo = echo
        self._release: Release | None = None
        self._service: RunningService | None = None
        self._running = ExitStack()
        self._refused: set[str] = set()  # names of releases
        self._wait = 0.0  # seconds before the next attempt at starting a service that died
        self._missed = 0  # times in a row that the service did not answer
        self._not_before = 0.0

    @property
    def name(self) -> str:
        """The name of the release that is served."""
        return self._release.name if self._release else ""

    def start(self, release: Release) -> None:
        """Serve the first release.

        Raises:
            PipelineError: It does not start, or gives other results than when it was packed.
        """
        self._replace(release)

    def offer(self, release: Release | None) -> None:
        """Serve a release if it is newer, has another model, and was not refused before."""
        if release is None or release.name <= self.name or release.name in self._refused:
            return
        if self._release and release.digest == self._release.digest:
            return
        log.info("model %s is started beside the one that serves", release.name)
        try:
            self._replace(release)
        except _NotFetchedError as error:
            log.warning("model %s cannot be fetched now, and is tried again: %s", release.name, error)
        except (PipelineError, OSError) as error:
            self._refused.add(release.name)
            log.error("model %s is refused, and %s stays: %s", release.name, self.name, error)
        else:
            log.info("model %s serves now", release.name)

    def revive(self) -> None:
        """Start the service again if it died or hangs, after a growing wait if it does not start."""
        is_alive = self._service is not None and self._service.is_alive
        if self._service and is_alive:
            self._missed = 0 if self._service.answers() else self._missed + 1
            is_alive = self._missed < _MOST_MISSED
        if self._release is None or is_alive or time.monotonic() < self._not_before:
            return
        log.error("the service of model %s is gone, and is started again", self.name)
        self._proxy.switch("")
        self._running.close()
        self._running, self._service = ExitStack(), None
        try:
            self._replace(self._release)
            self._wait, self._missed = 0.0, 0
        except (PipelineError, OSError) as error:
            self._wait = min(max(1.0, 2 * self._wait), _LONGEST_WAIT)
            self._not_before = time.monotonic() + self._wait
            log.error("it does not start, and is tried again in %g s: %s", self._wait, error)

    def _replace(self, release: Release) -> None:
        """Start a release's service, check it, switch to it, and stop the one before when it has answered all."""
        with ExitStack() as starting:
            try:
                folder = starting.enter_context(release.open())
            except (PipelineError, OSError) as error:
                raise _NotFetchedError(str(error)) from error
            service = starting.enter_context(serve(folder, environment=release.environment, echo=self._echo))
            self._check(service.url)
            self._proxy.switch(service.url)
            before, self._running = self._running, starting.pop_all()
            self._release, self._service = release, service
        before.close()

    def __enter__(self) -> SwitchingService:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._running.__exit__(kind, error, traceback)


def keep_newest(
    service: SwitchingService, newest: Callable[[], Release | None], *, interval: float = 2.0, rounds: int | None = None
) -> None:
    """Look for a newer release every few seconds, and see that the service is alive; for ever without `rounds`."""
    problem = ""
    while rounds is None or (rounds := rounds - 1) >= 0:
        time.sleep(interval)
        service.revive()
        try:
            service.offer(newest())
            problem = ""
        except (PipelineError, OSError) as error:  # a store may be out of reach for a while
            if str(error) != problem:
                log.warning("newer runs cannot be looked for: %s", error)
            problem = str(error)
