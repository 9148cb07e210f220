"""Serving: a new adapter in the place of the old one, in a server that goes on running."""
