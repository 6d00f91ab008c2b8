"""Results of pytest-benchmark, of two commits or of several machines, as one page: `python -m bench.report --help`."""
