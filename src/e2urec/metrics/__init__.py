"""Numbers in, numbers out, and how sure they are."""
