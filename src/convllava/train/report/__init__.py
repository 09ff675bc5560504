"""The report of a run: one HTML page with its curves, throughput, answers and mixture."""

from .report import REPORT_FILE, write_report

__all__ = ["REPORT_FILE", "write_report"]
