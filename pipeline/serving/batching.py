"""BentoML's adaptive batching without its waiting.

BentoML's dispatcher runs one batch at a time and gathers, meanwhile, the requests of the next: that is all the
batching there is to gain. But it also holds a request back, in the hope of company, for as long as earlier ones had to
queue on average; after a burst of 16 requests at once a lone one takes 84 ms in place of 28 (YOLOX-nano on two CPUs),
and that for the next fifty batches. Here nothing is held back.
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
    """Measures like BentoML's own, but its `wait` (seconds that a request is held back) is always zero."""

    @property
    def wait(self) -> float:
        """Zero, whatever is measured."""
        return 0.0

    @wait.setter
    def wait(self, _seconds: float) -> None:
        pass


def dispatch_promptly(dispatcher: CorkDispatcher) -> None:
    """Let a dispatcher start its next batch as soon as the last one has ended."""
    dispatcher.optimizer = PromptOptimizer(dispatcher.max_latency)


class PromptService(bentoml.Service):
    """A BentoML service whose dispatchers hold nothing back."""

    def to_asgi(self, is_main: bool = True) -> ASGIApp:
        """Build the server's application, as BentoML does, with prompt dispatchers."""
        self.inject_config()
        factory: Any = ServiceAppFactory(self, is_main=is_main)
        for dispatcher in factory.dispatchers.values():
            dispatch_promptly(dispatcher)
        app: ASGIApp = factory()
        return app
