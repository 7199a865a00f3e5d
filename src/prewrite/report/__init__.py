"""From a run folder to a page that people read: `report.html`, `report.md`, comparisons, a live view."""

from prewrite.report.compare import compare_markdown, compare_runs
from prewrite.report.render import build_report
from prewrite.report.watch import watch

__all__ = ["build_report", "compare_markdown", "compare_runs", "watch"]
