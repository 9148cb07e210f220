"""Run folders, and what they keep."""
