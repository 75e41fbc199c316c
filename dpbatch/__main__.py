"""`python -m dpbatch`."""

from dpbatch.cli import main

if __name__ == "__main__":
    main()
