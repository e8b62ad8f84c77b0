"""What a command exits with, beside 0 when all is fine."""

from __future__ import annotations

FAILED_STATUS = 1
USAGE_STATUS = 2
INTERRUPTED_STATUS = 130
