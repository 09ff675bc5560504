"""The paper's findings in miniature: controlled comparisons that are trained and measured by one command."""

from .catalog import Catalog, Finding, load_catalog
from .page import write_page
from .run import FindingsSettings, run_findings

__all__ = ["Catalog", "Finding", "FindingsSettings", "load_catalog", "run_findings", "write_page"]
