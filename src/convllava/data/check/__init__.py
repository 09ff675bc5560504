"""``convllava data check``: inspect every record and decode every image of a data set."""

from .checker import check
from .clean_copy import CleanCopy, write_clean_copy
from .inspector import Inspector, Limits
from .report import Report, SourceReport

__all__ = ["CleanCopy", "Inspector", "Limits", "Report", "SourceReport", "check", "write_clean_copy"]
