"""python -m sentcore: the command line where scripts are not on PATH."""

from sentcore.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
