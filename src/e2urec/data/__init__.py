"""Interactions, their split into samples, requests for erasure, and prompts."""
