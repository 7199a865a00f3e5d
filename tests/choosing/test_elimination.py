import pytest

from prewrite.choosing.elimination import pocock_limit


def test_pocock_limit_of_five_even_looks():
    # Pocock (1977): two-sided 0.05 over five looks is 2.413; one-sided 0.025 is the same line. Many items: Student's t
    # is then normal.
    limit = pocock_limit((10_000, 20_000, 30_000, 40_000, 50_000), 0.025)
    assert limit[10_000] == pytest.approx(2.413, abs=0.02)
