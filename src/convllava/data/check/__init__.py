"""``convllava data check``: every record looked at, every image decoded, and what came of it."""

from .cleaning import Cleaned, write_clean_copy
from .inspecting import Inspector, Limits
from .report import Report, SourceReport
from .running import check

__all__ = ["Cleaned", "Inspector", "Limits", "Report", "SourceReport", "check", "write_clean_copy"]
