"""`python -m dpbatch`."""

from dpbatch.cli.main import main

if __name__ == "__main__":
    main()
