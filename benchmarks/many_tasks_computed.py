"""Texts of the families of `many_tasks.py` that code composes: words, pairs of words, numbers."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product

WORDS = """
    apple arrow engine island onion uncle umbrella orange elbow acorn eagle iron oven idea office autumn egg
    insect olive ankle attic opera exit anchor elephant instrument armchair afternoon envelope underground
    entrance accident adventure orchestra astronaut electricity invitation architect emergency opportunity bread
    candle dragon flower garden hammer jacket kitten ladder mirror needle pencil rabbit silver tiger violin
    window zebra cup dog fox hat jam key lid map net pig rug sun van web box tree lamp moon rice soap tent wolf
    yard zoo butterfly chocolate dangerous furniture generation helicopter language mountain newspaper
    photograph question restaurant strawberry telephone vegetable waterfall yesterday blackboard different
    friendship grandmother
"""
RHYMES = """
    cat hat bat mat rat | light night fight kite white | cake lake snake break steak | tree sea key knee bee |
    moon spoon June tune soon | door floor four more store | house mouse blouse grouse | ring king sing wing
    string | boat coat goat note vote | bell shell smell well hotel | dog fog frog log jog | gold cold old bold
    told | rain train plane lane chain | car star jar far guitar | hill pill bill till will | bed head red bread
    thread
"""
ALIKE = """
    big large | quick fast | begin start | happy glad | angry furious | clever smart | silent quiet | shut close
    | rich wealthy | odd strange | sad unhappy | present gift | reply answer | sick ill | purchase buy | tired
    weary | repair mend | error mistake | choose select | afraid scared | ship vessel | stone rock | little tiny
    | speak talk
"""
OPPOSITE = """
    hot cold | up down | early late | rich poor | full empty | buy sell | wet dry | love hate | strong weak |
    open closed | day night | young old | cheap expensive | arrive leave | win lose | loud quiet | inside
    outside | remember forget | thick thin | push pull | always never | true false | heavy light | beginning end
"""


def computed_pools() -> dict[str, dict[str, list[str]]]:
    """Texts by family and pool, of which code knows what is right. Pairs of words are given in both orders."""
    ways = ("{} and {}", "{}, {}", "{} / {}")

    def pairs(found: Iterable[tuple[str, str]]) -> list[str]:
        return [way.format(*pair) for one in found for pair in (one, one[::-1]) for way in ways]

    def groups(text: str) -> list[list[str]]:
        return [group.split() for group in text.split("|")]

    words = WORDS.split()
    rhymes, alike, opposite = groups(RHYMES), groups(ALIKE), groups(OPPOSITE)
    firsts = [a for a, *_ in alike]
    unrelated = list(zip(firsts, [b for _, b in opposite][7:] + [b for _, b in opposite][:7], strict=True))
    ordered = [(a, b) for a, b in product(sorted(words), repeat=2) if a[0] < b[0]]
    lengths = [(a, b) for a, b in product(words, repeat=2) if len(a) >= len(b) + 3]
    numbers = [(a, b) for a, b in product(range(3, 200, 7), repeat=2) if a < b]
    sums = [(a, b, a + b, "+") for a, b in product(range(2, 40, 3), repeat=2)]
    times = [(a, b, a * b, "x") for a, b in product(range(2, 13), repeat=2)]
    runs = [
        (a, a + b, a + 2 * b + c, a + 3 * b + 2 * c) for a in range(1, 30, 4) for b in range(1, 9) for c in range(5)
    ]
    codes = [
        f"{a}{b}"
        for a, b in product(("kx", "mob", "trip", "zel", "wan", "qu", "hol"), ("tam", "ru", "vek", "lo", "neb"))
    ]
    return {
        "opposites": {
            "alike": pairs((a, b) for a, b in alike),
            "opposite": pairs((a, b) for a, b in opposite),
            "unrelated": pairs(unrelated),
        },
        "rhyme": {
            "rhyme": pairs((group[i], group[i + 1]) for group in rhymes for i in range(len(group) - 1)),
            "none": pairs(
                (one[i], other[i]) for one, other in zip(rhymes, rhymes[5:], strict=False) for i in range(4)
            ),
        },
        "first_letter": {
            "vowel": [word for word in words if word[0] in "aeiou"],
            "consonant": [word for word in words if word[0] not in "aeiou"],
            "early": [word for word in words if word[0] < "n"],
            "late": [word for word in words if word[0] >= "n"],
        },
        "word_length": {
            "short": [word for word in words if len(word) < 6],
            "long": [word for word in words if len(word) > 7],
            "first_longer": [f"{a}, {b}" for a, b in lengths],
            "second_longer": [f"{b}, {a}" for a, b in lengths],
        },
        "digits": {
            "letters": codes,
            "number": [str(number) for number in range(1047, 99999, 1291)],
            "digit": [f"{code[:3]}{at * 7 % 10}{code[3:]}" for at, code in enumerate(codes)]
            + [f"{code}{at}" for at, code in enumerate(codes)],
        },
        "parity": {
            "even": [str(number) for number in range(2, 600, 6)],
            "odd": [str(number) for number in range(1, 600, 6)],
            "below": [str(number) for number in range(1, 50)],
            "above": [str(number) for number in range(51, 100)],
            "one_digit": [word + str(number) for number in range(1, 10) for word in ("", "no. ", "room ", "bus ")],
            "two_digits": [
                word + str(number) for number in range(11, 99, 4) for word in ("", "no. ", "room ", "bus ")
            ],
            "three_digits": [str(number) for number in range(101, 999, 13)],
        },
        "arithmetic": {
            "right": [f"{a} {sign} {b} = {c}" for a, b, c, sign in sums + times],
            "wrong": [f"{a} {sign} {b} = {c + 1 + (a + b) % 7}" for a, b, c, sign in sums + times],
            "plus": [f"{a} {sign} {b}" for a, b, _, sign in sums] + [f"add {a} and {b}" for a, b, _, _ in sums],
            "times": [f"{a} {sign} {b}" for a, b, _, sign in times] + [f"multiply {a} by {b}" for a, b, _, _ in times],
        },
        "alphabetical": {
            "ordered": [f"{a}, {b}" for a, b in ordered],
            "reversed": [f"{b}, {a}" for a, b in ordered],
        },
        "bigger": {
            "rising": [f"{a}, {b}" for a, b in numbers],
            "falling": [f"{b}, {a}" for a, b in numbers],
            "price_up": [f"from {a} to {b} euros" for a, b in numbers],
            "price_down": [f"from {b} to {a} euros" for a, b in numbers],
        },
        "sequence": {
            "rise": [", ".join(map(str, run)) for run in runs],
            "fall": [", ".join(map(str, run[::-1])) for run in runs],
            "mixed": [", ".join(map(str, (run[1], run[3], run[0], run[2]))) for run in runs],
        },
    }
