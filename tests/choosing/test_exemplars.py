"""Sets of exemplars come from training rows alone, with labels as even as their size allows."""

from collections import Counter

import pytest

from prewrite.choosing.exemplars import Pool, fitting_pools, pools_of, random_set, random_sets, set_sizes
from prewrite.errors import ConfigError
from prewrite.types import RewriteExample


def labelled(count, labels=("a", "b", "c")):
    return [
        RewriteExample(
            "i", f"{labels[n % len(labels)]} {n}", labels[n % len(labels)], "classification", choices=labels
        )
        for n in range(count)
    ]


def test_every_exemplar_is_a_training_row():
    rows = labelled(60)
    known = {(row.input, row.output) for row in rows}
    sets = random_sets(pools_of(rows, [3, 6]), 40, seed=0)
    assert len(sets) == 40
    assert {tuple(exemplar) for chosen in sets for exemplar in chosen} <= known
    assert all(len(set(chosen)) == len(chosen) for chosen in sets)


def test_labels_are_even_and_sizes_take_turns():
    for number, chosen in enumerate(random_sets(pools_of(labelled(60), [3, 6]), 20, seed=0)):
        counts = Counter(exemplar.output for exemplar in chosen)
        assert counts == dict.fromkeys("abc", 1 if number % 2 == 0 else 2)


def test_a_set_smaller_than_the_labels_holds_different_ones():
    for chosen in random_sets(pools_of(labelled(60), [2]), 20, seed=0):
        assert len({exemplar.output for exemplar in chosen}) == 2


def test_the_seed_decides():
    rows = labelled(60)
    assert (
        random_sets(pools_of(rows, [3]), 5, seed=1)
        == random_sets(pools_of(rows, [3]), 5, seed=1)
        != random_sets(pools_of(rows, [3]), 5, seed=2)
    )


def test_the_longest_rows_are_not_shown():
    rows = [*labelled(54), *(RewriteExample("i", "x" * 500, "a", "classification") for _ in range(6))]
    assert all(
        len(exemplar.input) < 500 for chosen in random_sets(pools_of(rows, [3]), 50, seed=0) for exemplar in chosen
    )


def test_open_answers_are_drawn_without_labels():
    rows = [RewriteExample("i", f"question {n}", (f"answer {n}", "other"), "qa") for n in range(20)]
    chosen = random_sets(pools_of(rows, [4]), 1, seed=0)[0]
    assert all(exemplar.output == exemplar.input.replace("question", "answer") for exemplar in chosen)


def test_too_few_rows_are_an_error_and_no_pool():
    assert [pool.size for pool in pools_of(labelled(9), [2, 4, 8])] == [2, 4]
    with pytest.raises(ConfigError, match="sets of 8 exemplars need as many training rows, and there are 5"):
        random_sets([Pool(8, labelled(5))], 3, seed=0)


def of_lengths(lengths, labels="ab"):
    return [
        RewriteExample("i", "x" * length, labels[n % len(labels)], "classification", choices=tuple(labels))
        for n, length in enumerate(lengths)
    ]


def fitting(rows, sizes, room):
    return fitting_pools(rows, sizes, room=room, cost=lambda exemplar: len(exemplar.input), seed=0)


def test_where_room_is_little_sets_are_drawn_from_shorter_rows_and_every_set_fits():
    pools = fitting(of_lengths(range(1, 101)), [2, 4, 8], 100)
    assert [(pool.size, max(len(row.input) for row in pool.rows)) for pool in pools] == [(2, 50), (4, 25)]
    for chosen in random_sets(pools, 60, seed=0):  # of 12 rows no eight can be drawn in many ways
        assert sum(len(exemplar.input) for exemplar in chosen) <= 100
        assert len({exemplar.output for exemplar in chosen}) == 2


def test_where_no_size_fits_there_are_smaller_sets_and_at_last_none():
    rows = of_lengths([10] * 60, labels="abcdefg")
    assert [(pool.size, len(pool.rows)) for pool in fitting(rows, [7], 70)] == [(7, 60)]
    assert [pool.size for pool in fitting(rows, [7], 69)] == [6]
    assert [pool.size for pool in fitting(rows, [7], 10)] == [1]
    assert fitting(rows, [7], 9) == fitting(rows, [7], -5) == fitting([], [7], 100) == []


def test_no_label_is_left_out_because_its_rows_are_long():
    rows = of_lengths([10, 40] * 30)
    assert [pool.size for pool in fitting(rows, [2, 4], 80)] == [2]
    assert fitting(rows, [2, 4], 39) == []


def test_of_many_rows_some_are_measured():
    counted = []
    rows = labelled(3000)
    pools = fitting_pools(rows, [3], room=100, cost=lambda exemplar: counted.append(1) or 1, seed=0)
    assert len(pools[0].rows) == len(counted) == 1000


@pytest.mark.parametrize(("rows", "shown"), [(60, 4), (5, 4), (4, 4), (2, 2), (1, 1)])
def test_one_set_takes_what_rows_there_are(rows, shown):
    assert len(set(random_set(labelled(rows), 4, seed=0))) == shown


@pytest.mark.parametrize(
    ("labels", "sizes"), [(0, [2, 4, 8]), (2, [2, 4, 8]), (3, [3, 6]), (5, [5, 10]), (6, [6]), (7, [7])]
)
def test_sizes_follow_the_number_of_labels(labels, sizes):
    assert set_sizes(labels) == sizes
