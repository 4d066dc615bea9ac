"""`python -m revtrans` is the command line; the one module that no notebook writes."""

from revtrans.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
