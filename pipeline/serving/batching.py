"""BentoML's adaptive batching without its waiting time.

BentoML's dispatcher runs one batch at a time, and collects the requests of the next batch meanwhile. It also delays a
request by the average time that earlier ones waited, to fill its batch. After a burst of 16 requests a single one takes
84 ms instead of 28 (YOLOX-nano on two CPUs), for the next fifty batches. Here no request is delayed.
"""

# mypy: disallow-subclassing-any=False
# since BentoML's types are not followed.

from __future__ import annotations

from typing import Any

import bentoml
from _bentoml_impl.server.app import ServiceAppFactory  # type: ignore[import-untyped]
from bentoml._internal.marshal.dispatcher import CorkDispatcher, Optimizer
from starlette.types import ASGIApp


class PromptOptimizer(Optimizer):
    """BentoML's optimizer with a `wait`, the seconds by which a request is delayed, of zero."""

    @property
    def wait(self) -> float:
        """Zero, whatever was measured."""
        return 0.0

    @wait.setter
    def wait(self, _seconds: float) -> None:
        pass


def dispatch_promptly(dispatcher: CorkDispatcher) -> None:
    """Let a dispatcher start its next batch as soon as the last one ends."""
    dispatcher.optimizer = PromptOptimizer(dispatcher.max_latency)


class PromptService(bentoml.Service):
    """A BentoML service whose dispatchers delay no request."""

    def to_asgi(self, is_main: bool = True) -> ASGIApp:
        """Build the server's application, as BentoML does, with prompt dispatchers."""
        self.inject_config()
        factory: Any = ServiceAppFactory(self, is_main=is_main)
        for dispatcher in factory.dispatchers.values():
            dispatch_promptly(dispatcher)
        app: ASGIApp = factory()
        return app
