"""`python -m outcrop`."""

from outcrop.cli import main

if __name__ == "__main__":  # processes that check files import this module, too
    main()
