"""A CUDA graph of one decoding step, replayed instead of launching kernel after kernel."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch

WARMUP_CALLS = 2  # calls before capture: libraries choose their kernels and allocate their workspaces


class CapturedStep:
    """Call `step`; with `capture`, from call `WARMUP_CALLS` + 1 on as a replay of the kernels of one call.

    `step` reads and writes the same tensors at each call, in place, with fixed shapes, never waits for the device, and
    does no work on the host, which a replay skips. Only CUDA captures; a failure is logged, and `step` is called as it
    is.
    """

    def __init__(self, step: Callable[[], None], *, capture: bool) -> None:
        self._step, self._capture, self._calls = step, capture, 0
        self._stream: torch.cuda.Stream | None = None
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self) -> None:
        if self._capture and self._graph is None and self._calls in {0, WARMUP_CALLS}:
            self._try_capture()
        self._calls += 1
        if self._graph is not None:
            self._graph.replay()
        elif self._capture:
            self._run_on_side_stream()
        else:
            self._step()

    def _run_on_side_stream(self) -> None:
        """Run the step on a stream of its own, as capturing demands of what runs before it."""
        assert self._stream is not None
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            self._step()
        torch.cuda.current_stream().wait_stream(self._stream)

    def _try_capture(self) -> None:
        """Make the stream before the first call, the graph after the last warm-up call."""
        try:
            if self._stream is None:
                self._stream = torch.cuda.Stream()
            else:
                graph = torch.cuda.CUDAGraph()
                # thread_local: kernels that other threads launch meanwhile, as in a service, do not spoil the capture
                with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
                    self._step()
                self._graph = graph
        except (RuntimeError, AssertionError) as error:  # torch built without CUDA raises an AssertionError
            message = (str(error).splitlines() or [type(error).__name__])[0]
            logging.getLogger(__name__).warning("no CUDA graph could be captured (%s): slower without", message)
            self._capture = False
