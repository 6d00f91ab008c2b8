"""The one place that states sentcore's version; pyproject.toml, the build and the package read it from here."""

__version__ = "0.1.0"
