"""Methods × seeds × requests: planned, made cell by cell, and put side by side."""
