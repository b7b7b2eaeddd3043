"""`python -m hipgpt`: the command `hipgpt`, for a machine on which it is not on the PATH."""

from hipgpt.cli.main import main

if __name__ == "__main__":
    main()
