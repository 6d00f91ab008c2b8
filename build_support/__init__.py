"""What `pip install .` does: find the compilers, choose what to build, drive CMake. Uses the standard library only."""
