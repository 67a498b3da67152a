"""`python -m popgate` is the popgate command."""

from popgate.cli import main

if __name__ == "__main__":
    main()
