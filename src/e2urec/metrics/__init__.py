"""Measures, NumPy in and numbers out, and how sure those numbers are."""
