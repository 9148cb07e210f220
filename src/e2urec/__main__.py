"""`python -m e2urec` does what the command `e2urec` does."""

from .cli import main

if __name__ == "__main__":
    main()
