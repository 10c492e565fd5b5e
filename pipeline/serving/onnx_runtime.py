"""ONNX Runtime with its telemetry off: import it from here.

From 1.29 on its packages for Linux and macOS write a device id below the user's home and report every session to
Microsoft, unless this variable is set before the library is loaded: afterwards nothing undoes it
(microsoft/onnxruntime, docs/Privacy.md). Who wants to report sets it to 0.
"""

from __future__ import annotations

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as runtime_errors

__all__ = ["onnxruntime", "runtime_errors"]
