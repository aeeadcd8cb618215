"""Everything halpc raises when a person can mend the cause.

    HalpcError                 1  internal (raised bare: a bug of ours)
    ├── UsageError             2  the command line or an option makes no sense
    ├── InputError             3  a file that was handed over cannot be used
    │   ├── ModelError            the ONNX model is invalid or outside what halpc supports
    │   ├── SaliencyError         an importance file does not fit the model
    │   ├── CalibrationError      calibration or evaluation inputs do not fit the model
    │   ├── TableError            a latency table is damaged or from elsewhere
    │   ├── PlanError             a plan file is damaged or of another model
    │   └── OutputError           the output folder cannot be written
    ├── InfeasibleError        4  no choice of widths meets the budget
    ├── VerificationError      5  the slim model is not the masked original
    ├── BackendError           6  a runtime, driver or device is missing or failed
    └── OverBudgetError        7  measured over budget after every round

A message says where, what was expected, what was found, and what to do. The number is the exit code.
"""

from __future__ import annotations

SAID = 300  # characters of what libraries say


def shortened(said: str) -> str:
    """What a library says, in one line of bearable length."""
    line = " ".join(said.split())
    return line if len(line) <= SAID else f"{line[:SAID]} …"


class HalpcError(Exception):
    """Base of all errors that halpc raises on purpose; `exit_code` is what the command line returns."""

    exit_code = 1


class UsageError(HalpcError):
    """An option or argument makes no sense."""

    exit_code = 2


class InputError(HalpcError):
    """A file that was handed over cannot be used."""

    exit_code = 3


class ModelError(InputError):
    """The ONNX model is invalid or outside what halpc supports."""


class SaliencyError(InputError):
    """An importance file does not fit the model."""


class CalibrationError(InputError):
    """Calibration or evaluation inputs do not fit the model."""


class TableError(InputError):
    """A latency table is damaged, of another model or of another device."""


class PlanError(InputError):
    """A plan file is damaged or belongs to another model."""


class OutputError(InputError):
    """The output folder cannot be written; nothing in it was changed."""


class InfeasibleError(HalpcError):
    """No choice of widths meets the budget.

    Attributes:
        budget: what was asked for, in the resource's unit.
        floor: the least that any choice of widths costs, in the same unit.
        resource: that cannot be kept; empty where it is not a single one.
    """

    exit_code = 4

    def __init__(self, message: str, *, budget: float, floor: float, resource: str = "") -> None:
        super().__init__(message)
        self.resource = resource
        self.budget = budget
        self.floor = floor


class VerificationError(HalpcError):
    """The slim model does not equal the masked original."""

    exit_code = 5


class BackendError(HalpcError):
    """A runtime, driver or device is missing or failed."""

    exit_code = 6


class OverBudgetError(HalpcError):
    """The measured model is over its budget after every round of correction."""

    exit_code = 7
