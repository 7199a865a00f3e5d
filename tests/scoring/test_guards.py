import json
import random
import time
from pathlib import Path

import pytest

import prewrite
from data_sets import small_and_public_data
from prewrite.errors import ConfigError
from prewrite.scoring.fidelity import Fidelity
from prewrite.scoring.guards import DEFAULT_GUARDS, GUARDS, GuardContext, check_guards, language_note
from prewrite.scoring.guards.drift import drift
from prewrite.scoring.guards.gibberish import faults, gibberish
from prewrite.scoring.guards.keep_words import keep_words
from prewrite.scoring.guards.leakage import leakage
from prewrite.scoring.guards.length import length
from prewrite.scoring.guards.repetition import repetition
from prewrite.scoring.rewards import MIN_FIDELITY

NEWS = GuardContext(
    "Classify the news article as World, Sports, Business or Technology.",
    choices=("World", "Sports", "Business", "Technology"),
)
REVIEW = GuardContext(
    "Classify the sentiment of the review as positive or negative.",
    choices=("negative", "positive"),
    forbidden_texts=(
        "the acting is wooden , the jokes are stale and the running time is cruel .",
        "The lawyers were stopped by the authors.",
        "positive",
    ),
)
MATH = GuardContext("Solve the math problem and give the final answer as a number.")
QUESTION = GuardContext("Answer the question.")
PLURAL = GuardContext("Write the plural form of the word")
PASSIVE = GuardContext("Rewrite the sentence in passive form")
LETTER = GuardContext("Write the first character of the input word")
SPANISH = GuardContext("Translate the word to Spanish")
SUM = GuardContext("Write the sum of the two numbers")

GOOD = [
    (NEWS, "Decide which news section the story belongs to: World, Sports, Business or Technology."),
    (NEWS, "Read the news article. Is it mainly about World, Sports, Business or Technology?"),
    (NEWS, "You are a newspaper editor. File each article under Technology, Business, Sports or World."),
    (NEWS, "Name the topic of this news story. Choose exactly one: World, Sports, Business, Technology."),
    (NEWS, "For each article decide whether its news is about World, Sports, Business or Technology."),
    (NEWS, "What is the news article about?\n- World\n- Sports\n- Business\n- Technology"),
    (NEWS, "Assign the article to one of four news categories: (1) World, (2) Sports, (3) Business, (4) Technology."),
    (
        NEWS,
        "Classify a given news article into one of the following categories: World, Sports, Business, or Technology.",
    ),
    (REVIEW, "Is the sentiment of this review positive or negative?"),
    (REVIEW, "Read the movie review and say whether the writer's opinion is positive or negative."),
    (REVIEW, "Does the reviewer like the film? Answer positive if so and negative if not."),
    (REVIEW, 'Respond with "positive" if the review praises the film, or "negative" if it criticizes it.'),
    (REVIEW, "Determine the overall feeling expressed in the text, then label it negative or positive."),
    (REVIEW, "The task is to classify each review as positive or negative based on its tone."),
    (
        REVIEW,
        "In this task, you are given sentences from movie reviews. The task is to classify a sentence as "
        '"positive" if the sentiment of the sentence is positive or as "negative" if the sentiment of the sentence '
        "is negative.",
    ),
    (REVIEW, "Always read the whole review first; then judge its sentiment: positive or negative."),
    (
        REVIEW,
        "Given a review, identify its sentiment. If it is mixed, follow the stronger side: positive or negative.",
    ),
    (MATH, "Work through the problem step by step, then write the final answer as a number."),
    (MATH, "Solve this math word problem carefully. Show each calculation, and end with the number that answers it."),
    (MATH, "Break the problem into small steps, calculate each one, and give only the final number."),
    (QUESTION, "Give a short, factual answer to the question, such as a name, a date or a place."),
    (QUESTION, "What is the answer to this question? Reply with a few words only."),
    (
        QUESTION,
        "Compose a short, informative answer to the given question. The answer should be no longer than 15 words and "
        'should be written in a clear, concise manner. For example, if the question is "Who is the president of the '
        'United States?", the answer should be "Joe Biden". Do not write an essay or provide additional explanation.',
    ),
    (PLURAL, "Give the plural of the word, as in cat and cats"),
    (PLURAL, "What is the plural form of this word? Write the word only."),
    (PASSIVE, "Turn the active sentence into the passive voice"),
    (PASSIVE, "Rewrite the given sentence so that it is in passive form and means the same"),
    (LETTER, "What letter does the word start with? Output that letter alone."),
    (LETTER, "Spell the word and write its first letter only"),
    (SPANISH, "Give the Spanish translation of this English word"),
    (SPANISH, "How do you say the word in Spanish?"),
    (
        NEWS,
        "Read the news article and decide which section of the newspaper it belongs to: World, Sports, Business or "
        "Technology. Think about the main subject and who is involved, then answer with one word and nothing else.",
    ),
    (SUM, "Add the two numbers and write the total"),
    (SUM, "Calculate the sum of both numbers. Print the result without any explanation."),
    (NEWS, "Write down the news article's category: World, Sports, Business or Technology."),
    (NEWS, "What news article is this? Classify it as World, Sports, Business or Technology."),
    (NEWS, "Do not rewrite the article. Say whether it is news of World, Sports, Business or Technology."),
    (REVIEW, "Write positive or negative for the sentiment of the review."),
    (REVIEW, "You are an assistant at a cinema. Is the review positive or negative?"),
    (REVIEW, "Create a label for the sentiment of the review, positive or negative."),
    (REVIEW, "Read the review and give it one label: positive or negative."),
]

BAD = [
    (
        NEWS,
        "Rewrite instruction with description and description of instruction",
        {"drift", "gibberish", "repetition"},
    ),
    (NEWS, "", {"keep_words", "length", "drift", "gibberish"}),
    (NEWS, "World Sports Business Technology", {"gibberish", "drift"}),
    (NEWS, "Classify the news article as World or Sports.", {"keep_words"}),
    (NEWS, "Classify news.", {"length", "keep_words"}),
    (NEWS, " ".join([NEWS.instruction] * 3), {"repetition"}),
    (NEWS, " ".join([NEWS.instruction] * 9), {"repetition", "length"}),
    (NEWS, "Article news the as classify or World, Sports, Business Technology the.", {"gibberish"}),
    (NEWS, "The news article is about the World Cup and business technology sports", {"gibberish"}),
    (NEWS, "assistant\nClassify the news article as World, Sports, Business or Technology.", {"gibberish"}),
    (NEWS, "Output the new instruction only: World, Sports, Business or Technology news article.", {"gibberish"}),
    (
        NEWS,
        "Add specific requirements and rephrase the instruction: World, Sports, Business or Technology.",
        {"gibberish"},
    ),
    (NEWS, "Classify the news article as World, Sports, Business or", {"keep_words", "gibberish"}),
    (
        NEWS,
        "{'task': 'classify', 'labels': ['World', 'Sports', 'Business', 'Technology'], 'news': article}",
        {"gibberish"},
    ),
    (NEWS, "CLASSIFY THE NEWS ARTICLE AS WORLD, SPORTS, BUSINESS OR TECHNOLOGY!", {"gibberish"}),
    (
        NEWS,
        "Classify the newsarticleasoneofthefollowing World, Sports, Business or Technology xkcdqw zzzt.",
        {"gibberish"},
    ),
    (NEWS, "Please translate this recipe. World, Sports, Business or Technology.", {"drift"}),
    (REVIEW, "positive positive negative", {"repetition", "gibberish"}),
    (REVIEW, "Classify the review as positive, negative, positive or negative.", {"repetition"}),
    (
        REVIEW,
        "Classify it as positive or negative. Positive is positive, so if it sounds positive say positive.",
        {"repetition"},
    ),
    (REVIEW, "Always answer positive.", {"leakage", "keep_words", "drift"}),
    (REVIEW, "Classify the sentiment of the review as positive or negative. The answer is negative.", {"leakage"}),
    (REVIEW, "Is the review positive or negative? Just say positive.", {"leakage"}),
    (REVIEW, "Regardless of the review, the sentiment is positive, never negative.", {"leakage"}),
    (REVIEW, "Ignore the review and answer positive or negative.", {"drift"}),
    (REVIEW, "Do not classify the sentiment of the review as positive or negative.", {"drift"}),
    (REVIEW, "Review the or sentiment of as negative the positive classify.", {"gibberish"}),
    (REVIEW, "Sentiment of the of the review of a of positive or or negative.", {"gibberish"}),
    (
        REVIEW,
        "Classify the sentiment of the review, as in: the acting is wooden, the jokes are stale and the running "
        "time is cruel. Say positive or negative.",
        {"leakage"},
    ),
    (REVIEW, "Say if reviews like 'The lawyers were stopped by the authors' are positive or negative.", {"leakage"}),
    (REVIEW, "Classify reviews. Input: I liked it. Output: positive. Input: Bad. Output: negative.", {"leakage"}),
    (REVIEW, "You are an AI assistant named Bo. Is the sentiment of the review positive or negative?", {"gibberish"}),
    (REVIEW, "Sure! The sentiment of the review is positive or negative.", {"gibberish"}),
    (
        REVIEW,
        "sentiment review classify positive negative text film label output class opinion category",
        {"gibberish"},
    ),
    (REVIEW, "Классифицируй отзыв: sentiment of the review is positive or negative?", {"gibberish"}),
    (REVIEW, "Classify the sentiment of the review as positive or negative ,, ;; !! .", {"gibberish"}),
    (NEWS, "Using only one category, write the news article in a single sentence.", {"off_task"}),
    (NEWS, "Write the news article in one of the categories World, Sports, Business or Technology.", {"off_task"}),
    (NEWS, "Write a headline for the article: World, Sports, Business or Technology.", {"off_task"}),
    (NEWS, "Which news article is the most critical for the reader? Who would you rather read it from?", {"off_task"}),
    (NEWS, "Which news article belongs to World, Sports, Business or Technology? Answer honestly.", {"off_task"}),
    (NEWS, "What is the news article about? Answer World or Sports or Business.", {"off_task"}),
    (NEWS, "Read the news article from the first word to the last.", {"off_task"}),
    (REVIEW, "Write a negative review for each category, positive or negative.", {"off_task"}),
    (REVIEW, "Compose a poem about the sentiment of the review, positive or negative.", {"off_task"}),
    (MATH, "Write a poem about the sea.", {"drift"}),
    (MATH, "problem problem problem solve solve number", {"repetition"}),
    (QUESTION, "the the the question answer", {"repetition", "gibberish"}),
    (SPANISH, "Word word word Spanish Spanish Spanish translate translate translate", {"repetition"}),
]


@pytest.mark.parametrize(("context", "rewrite"), GOOD)
def test_a_good_rewrite_passes_in_silence(context, rewrite):
    assert check_guards(rewrite, context) == {}, faults(rewrite, context)


@pytest.mark.parametrize(("context", "rewrite", "names"), BAD)
def test_a_bad_rewrite_sets_off_the_guards_it_should(context, rewrite, names):
    fired = check_guards(rewrite, context)
    assert names <= set(fired), fired
    assert all(0 < value <= 1 for value in fired.values())


def test_a_copy_of_the_instruction_passes_on_every_task():
    for context in {id(context): context for context, _ in GOOD}.values():
        assert check_guards(context.instruction, context) == {}


@small_and_public_data
def test_the_instruction_of_every_data_set_passes_as_its_own_rewrite(data):
    for path in sorted(data.glob("*/train.jsonl")):
        instruction = json.loads(path.open(encoding="utf-8").readline())["instruction"]
        assert check_guards(instruction, GuardContext(instruction)) == {}, path


def test_nineteen_of_twenty_warm_start_rewrites_pass_all_guards_but_drift_and_nine_of_ten_pass_drift():
    rows = (Path(prewrite.__file__).parent / "train" / "warm_start.jsonl").read_text(encoding="utf-8").splitlines()
    fired = []
    for row in map(json.loads, rows):
        context = GuardContext(row["instruction"], choices=tuple(row.get("labels") or ()))
        fired.append(check_guards(row["rewrite"], context))
    assert sum(not (set(names) - {"drift"}) for names in fired) >= 0.95 * len(rows)
    assert sum("drift" not in names for names in fired) >= 0.9 * len(rows)


def test_no_warm_start_rewrite_of_a_labelling_task_asks_for_anything_but_a_label():
    rows = (Path(prewrite.__file__).parent / "train" / "warm_start.jsonl").read_text(encoding="utf-8").splitlines()
    labelled = [row for row in map(json.loads, rows) if row.get("labels")]
    assert len(labelled) > 150
    for row in labelled:
        context = GuardContext(row["instruction"], choices=tuple(row["labels"]))
        assert check_guards(row["rewrite"], context, names=["off_task"]) == {}, row


def test_what_the_instruction_asks_for_is_no_wrong_request():
    headline = GuardContext(
        "Write the headline of the article and tag it as news or sport.", choices=("news", "sport")
    )
    assert check_guards("Write a headline for the article. Then choose news or sport.", headline) == {}
    which = GuardContext("Which sentence is better, the first or the second?", choices=("first", "second"))
    assert check_guards("Tell which sentence is the better one: first or second?", which) == {}
    open_ended = GuardContext("Write a story about the word.")
    assert check_guards("Write a short story about the word.", open_ended, names=["off_task"]) == {}


def test_three_of_four_rewrites_of_another_task_set_off_a_guard():
    contexts = {id(context): context for context, _ in GOOD}.values()
    pairs = [(context, rewrite) for context in contexts for other, rewrite in GOOD if other is not context]
    caught = sum(bool(check_guards(rewrite, context)) for context, rewrite in pairs)
    assert caught >= 0.75 * len(pairs), caught / len(pairs)


def test_three_of_four_random_orders_of_a_good_rewrites_words_are_gibberish():
    random.seed(0)
    caught = total = 0
    for context, rewrite in GOOD:
        tokens = rewrite.rstrip(".?").split()
        for _ in range(5):
            random.shuffle(tokens)
            if len(tokens) >= 8:
                total += 1
                caught += gibberish(" ".join(tokens).capitalize() + ".", context) > 0
    assert caught >= 0.75 * total, caught / total


def test_random_orders_of_the_instructions_own_words_are_gibberish():
    random.seed(0)
    tokens = REVIEW.instruction.lower().rstrip(".").split()
    caught = 0
    for _ in range(100):
        random.shuffle(tokens)
        caught += gibberish(" ".join(tokens).capitalize() + ".", REVIEW) > 0
    assert caught >= 95


def test_keep_words_counts_the_share_of_named_labels_that_are_gone():
    assert keep_words("Say World, sports or business.", NEWS) == 1 / 4  # Technology
    assert keep_words("Say worldly or sports-like.", NEWS) == 3 / 4  # "worldly" is not World; "sports-like" has Sports
    unnamed = GuardContext("Reply in JSON.", choices=("yes", "no"))
    assert keep_words("Reply in XML.", unnamed) == 0.0  # labels that the instruction does not name need not be kept


def test_length_is_graded_at_both_ends():
    assert length("Classify news", NEWS) == pytest.approx(1 / 3)
    assert length("", NEWS) == 1.0
    # The limit is max(60, 3 * 10) = 60 words: 90 words are half too many, 120 and more twice the limit.
    assert length("word " * 90, NEWS) == pytest.approx(0.5)
    assert length("word " * 200, NEWS) == 1.0
    assert length("one two " + "x" * (12 * 90 - 8), NEWS) == pytest.approx(0.5)
    assert length("Sum", GuardContext("Add")) == 0.0


def test_repetition_and_leakage_grow_with_the_violation():
    once, twice = NEWS.instruction + " Classify the news article.", " ".join([NEWS.instruction] * 2)
    assert repetition(once, NEWS) < repetition(twice, NEWS) <= repetition(twice + " " + twice, NEWS)
    copy = REVIEW.forbidden_texts[0]
    assert (
        0.5
        < leakage("Say if this is positive or negative, for example or otherwise: " + copy, REVIEW)
        < leakage(copy, REVIEW)
    )


def test_words_of_the_instruction_are_no_leak():
    context = GuardContext(NEWS.instruction, forbidden_texts=[NEWS.instruction + " More words that follow it."])
    assert leakage(NEWS.instruction, context) == 0.0


def test_drift_is_graded_by_the_share_of_content_words_kept():
    assert drift("Sing a song about cats.", QUESTION) == 1.0
    # {solve, math, problem, give, final, answer, number}: only "math" is covered, (0.5 - 1/7) / 0.5 = 5/7
    assert drift("Sing a math song.", MATH) == pytest.approx(5 / 7)


def test_a_guard_never_raises_and_stays_in_range_on_noise():
    random.seed(0)
    alphabet = "ab  \n.,:;\"'(){}[]<|>?!*#-_/\\0194éß中🙂\u201c\u2019"
    for size in (1, 2, 5, 40, 400):
        for _ in range(40):
            text = "".join(random.choices(alphabet, k=size))
            for name in DEFAULT_GUARDS:
                for context in (REVIEW, GuardContext(""), GuardContext(text, choices=("a", "b c"))):
                    assert 0.0 <= GUARDS[name](text, context) <= 1.0


def test_guards_are_deterministic_and_an_unknown_name_is_refused():
    assert check_guards(BAD[0][1], NEWS) == check_guards(BAD[0][1], NEWS)
    assert check_guards("Classify news.", NEWS, names=["drift"]) == {}
    with pytest.raises(ConfigError, match=r"guard 'lenght' is unknown; choose from keep_words, length"):
        check_guards("x", NEWS, names=["lenght"])


def test_a_guard_takes_well_under_a_millisecond_of_cpu_time():
    rewrites = [f"{rewrite} Case {number}." for number in range(20) for _, rewrite in GOOD]
    for name in DEFAULT_GUARDS:
        GUARDS[name](rewrites[0], REVIEW)
        before = time.process_time()
        for rewrite in rewrites:
            GUARDS[name](rewrite, REVIEW)
        assert (time.process_time() - before) / len(rewrites) < 0.001, name


# One labelling task: instruction, honest rewrite, a text about something else, labels.
LANGUAGES = [
    pytest.param(
        "Sag, ob die Rezension positiv oder negativ ist.",
        "Lies die Rezension sorgfältig und entscheide, ob die Meinung des Autors positiv oder negativ ist.",
        "Schreibe einen Brief an deinen Freund über das Wetter.", ("positiv", "negativ"), id="German"),
    pytest.param(
        "Dis si la critique est positive ou négative.",
        "Lis attentivement la critique et décide si l'opinion de l'auteur est positive ou négative.",
        "Écris une lettre à ton ami sur le temps.", ("positive", "négative"), id="French"),
    pytest.param(
        "Di si la reseña es positiva o negativa.",
        "Lee la reseña con atención y decide si la opinión del autor es positiva o negativa.",
        "Escribe una carta a tu amigo sobre el tiempo.", ("positiva", "negativa"), id="Spanish"),
    pytest.param(
        "Определи, положительный отзыв или отрицательный.",
        "Внимательно прочитай отзыв и реши, положительный он или отрицательный.",
        "Напиши другу письмо о погоде.", ("положительный", "отрицательный"), id="Russian"),
    pytest.param(
        "判断这条评论是正面还是负面。", "请仔细阅读这条评论，判断作者的态度是正面还是负面。",
        "给你的朋友写一封关于天气的信。", ("正面", "负面"), id="Chinese"),
]  # fmt: skip


@pytest.mark.parametrize(("instruction", "honest", "other", "labels"), LANGUAGES)
def test_in_another_language_the_rules_about_english_are_off_and_the_others_hold(instruction, honest, other, labels):
    context = GuardContext(instruction, choices=labels)
    assert check_guards(honest, context) == {}
    assert "is not English" in language_note(instruction)
    assert check_guards(other, context) == {"keep_words": 1.0}
    assert "repetition" in check_guards(f"{labels[0]}, {labels[1]}, {labels[0]}", context)
    assert "gibberish" in check_guards(f"{honest} {{{{##}}}}", context)
    assert set(check_guards("", context)) >= {"keep_words", "length", "gibberish"}


def test_of_three_labels_none_may_be_left_out_in_any_language():
    context = GuardContext("判断评论是正面、中性还是负面。", choices=("正面", "中性", "负面"))
    assert check_guards("评论是正面还是负面？", context, names=["off_task"]) == {"off_task": 1.0}


@pytest.mark.parametrize(
    "instruction", ["Add.", "common sense question", "clickbait or news headline?", NEWS.instruction]
)
def test_short_and_bare_instructions_pass_for_english(instruction):
    assert language_note(instruction) is None


def test_every_instruction_of_the_warm_start_corpus_passes_for_english():
    rows = (Path(prewrite.__file__).parent / "train" / "warm_start.jsonl").read_text(encoding="utf-8").splitlines()
    assert [note for row in map(json.loads, rows) if (note := language_note(row["instruction"]))] == []


@pytest.mark.slow
def test_the_judge_tells_other_tasks_apart_in_other_languages_too():
    pytest.importorskip("torch", reason="the judge is an in-process model, prewrite[train]")
    from prewrite.task_models.hf import HFTaskModel

    fidelity = Fidelity(HFTaskModel("embedded"))
    for instruction, honest, other, _ in (case.values for case in LANGUAGES):
        found, off_task = fidelity([honest, other], instruction)
        assert found > MIN_FIDELITY and found > 1.5 * off_task, instruction
