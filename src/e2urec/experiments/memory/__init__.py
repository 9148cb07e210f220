"""The memory that commands take, told before anything is loaded."""
