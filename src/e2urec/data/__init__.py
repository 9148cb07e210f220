"""Interactions, their split, requests for erasure, and prompts."""
