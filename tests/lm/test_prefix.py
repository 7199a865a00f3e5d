"""Prompts that begin with the same tokens are found whatever their order, and batches stay within their size."""

from prewrite.lm.prefix import PrefixGroup, batches, group_by_prefix, waves


def test_rows_that_begin_alike_are_grouped_and_the_kept_tokens_never_shared():
    same = [1, 2, 3, 4]
    groups = group_by_prefix([[*same, 5], [*same, 6], [9, 9], [*same, 7], same], [1, 1, 1, 1, 1])
    assert [(group.rows, group.shared) for group in groups] == [([4, 0, 1, 3], 3), ([2], 0)]
    assert group_by_prefix([[*same, 5], [*same, 6]], [3, 1])[0].shared == 2
    assert group_by_prefix([], []) == []


def test_the_order_of_the_prompts_does_not_matter():
    inputs_first = [[*text, *rewrite] for rewrite in ([7], [8], [9]) for text in ([1, 2, 3], [4, 5, 6])]
    groups = group_by_prefix(inputs_first, [1] * 6)
    assert [(group.rows, group.shared) for group in groups] == [([0, 2, 4], 3), ([1, 3, 5], 3)]


def test_a_short_match_does_not_spoil_a_long_one():
    # joining row 2 would save 1 token and cost rows 0 and 1 four each
    groups = group_by_prefix([[1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 7], [1, 8, 8]], [1, 1, 1])
    assert [(group.rows, group.shared) for group in groups] == [([0, 1], 5), ([2], 0)]


def test_a_beginning_is_shared_only_where_it_saves_enough():
    rows = [[1, 2, 3, 4], [1, 2, 3, 5], [1, 2, 3, 6]]  # three tokens, read once in place of three times, saves six
    assert [group.shared for group in group_by_prefix(rows, [1, 1, 1], worth=6)] == [3]
    assert group_by_prefix(rows, [1, 1, 1], worth=7) == [PrefixGroup([0, 1, 2], 0)]


def test_beginnings_are_read_together_up_to_a_number_of_tokens_and_groups():
    groups = [PrefixGroup([0, 1], 4), PrefixGroup([2, 3], 3), PrefixGroup([4, 5], 5), PrefixGroup([6], 0)]
    assert [[group.shared for group in wave] for wave in waves(groups, 8, 9)] == [[4, 3], [5], [0]]
    assert [[group.shared for group in wave] for wave in waves(groups, 99, 2)] == [[4, 3], [5], [0]]
    assert [[group.shared for group in wave] for wave in waves(groups[:1], 2, 9)] == [[4]]  # too long: alone


def test_batches_stay_within_their_padded_size():
    lengths = [3, 1, 2, 8, 2]
    parts = list(batches([PrefixGroup([0, 1, 2, 3, 4], 0)], lengths, 6))
    assert parts == [[[1, 2, 4]], [[0]], [[3]]]  # 3 x 2 = 6; 2 x 8 > 6; a row longer than the limit goes alone


def test_rows_of_several_groups_go_through_together():
    wave = [PrefixGroup([0, 1], 5), PrefixGroup([2, 3], 4)]
    assert list(batches(wave, [2, 1, 3, 1], 6)) == [[[1, 0], [3]], [[], [2]]]  # 3 rows of 2, then one of 3
