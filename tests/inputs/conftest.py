"""What the tests of this folder share: the compiled extension, which they compare with NumPy."""

import pytest

from sentcore import _extension


@pytest.fixture(scope="session")
def native():
    """sentcore._C; a machine that has none because it was installed without a compiler skips, any other fails."""
    module = _extension.extension()
    if module is None:
        if _extension.build_kind() == "none":
            pytest.skip(_extension.WHY_ABSENT)
        pytest.fail(_extension.WHY_ABSENT)
    return module
