"""What the parity tests share: conversions made once per session."""

import harness
import pytest
import torchvision  # noqa: F401  (brings Triton, which has to come before TensorFlow: of two LLVMs the second aborts)


@pytest.fixture(scope="session")
def converted(tmp_path_factory):
    """`converted(case, kind, *extra)`: the conversion's files and report. Tests may not change them."""
    done = {}

    def convert(case, kind="checkpoint", *extra):
        key = (case.name, kind, *extra)
        if key not in done:
            # A failure is kept too: every test of the case tells it, none tries again.
            try:
                done[key] = harness.convert(case, tmp_path_factory.mktemp(case.name), kind, *extra)
            except AssertionError as error:
                done[key] = error
        if isinstance(done[key], AssertionError):
            raise AssertionError(str(done[key]))
        return done[key]

    return convert
