"""`python -m embedfleet` is the command line."""

from embedfleet.cli.main import main

if __name__ == "__main__":
    main()
