"""What a rewrite earns, part by part; the arithmetic stands beside each number."""

import pytest

from prewrite.errors import CapabilityError, ConfigError
from prewrite.scoring.constraints import Constraints
from prewrite.scoring.evaluator import Evaluator
from prewrite.scoring.reward_modes import length_difference
from prewrite.scoring.rewards import REWARD_MODES, TaskReward, compute_reward
from prewrite.task_models.scripted import ScriptedTaskModel
from prewrite.types import RewriteExample

INSTRUCTION = "Decide whether the mail is spam or ham."
ROWS = [
    RewriteExample(INSTRUCTION, "buy now", "spam", task="classification", choices=("ham", "spam")),
    RewriteExample(INSTRUCTION, "see you", "ham", task="classification", choices=("ham", "spam")),
]
GOOD = "Read the mail and decide whether it is spam or ham."


def scorer(prompt, labels):
    """ham -1.5, spam -1.0 for every mail: right on the first, wrong on the second, by half a nat."""
    return [-1.5, -1.0]


def reward(mode="auto", **options):
    return TaskReward(Evaluator(ScriptedTaskModel(lambda prompt: "spam", label_scores=scorer)), mode=mode, **options)


def test_auto_is_the_mean_score():
    graded = reward()([GOOD], INSTRUCTION, ROWS)[0]
    assert graded.reward.total == graded.reward.parts["task"] == 0.5
    assert graded.scores == (1.0, 0.0)


def test_soft_is_the_clipped_margin_mapped_to_0_1():
    # margins: +0.5 and -0.5 -> (1 + 0.5) / 2 = 0.75 and 0.25 -> mean 0.5
    assert reward("soft")([GOOD], INSTRUCTION, ROWS)[0].reward.parts["task"] == pytest.approx(0.5)
    # first row alone: 0.75
    assert reward("soft")([GOOD], INSTRUCTION, ROWS[:1])[0].reward.parts["task"] == pytest.approx(0.75)


def test_length_counts_words_against_the_instruction():
    assert length_difference("one two three four", "one two") == 1.0  # |4 - 2| / 2
    assert length_difference("one two three", "one two three four") == 0.25  # 1 / 4
    assert length_difference("x " * 90, "one two") == 1.0  # clipped
    assert reward("length", guards=())([INSTRUCTION], INSTRUCTION, ROWS)[0].reward.total == 0.0


class Scoring(ScriptedTaskModel):
    capabilities = ScriptedTaskModel.capabilities | {"target_logprobs"}

    def target_logprobs(self, prompts, targets):
        return [-0.5 if target == "spam" else -1.5 for target in targets]


class Preferring(ScriptedTaskModel):
    """Finds "spam" likelier than "eggs" by a nat, and everything by 0.4 nats under prompts that say "Say"."""

    capabilities = ScriptedTaskModel.capabilities | {"target_logprobs"}

    def target_logprobs(self, prompts, targets):
        pairs = zip(prompts, targets, strict=True)
        return [-2.5 + ("spam" in target) + 0.4 * ("Say" in prompt) - 9 * ("No" in prompt) for prompt, target in pairs]


def test_soft_is_the_gain_in_nats_over_the_instruction_where_no_labels_are_scored_and_writes_nothing():
    written = []
    evaluator = Evaluator(Preferring(lambda prompt: written.append(prompt) or "spam"))
    rows = [RewriteExample("Reply.", "a", "spam", task="qa"), RewriteExample("Reply.", "b", "eggs", task="qa")]
    rewrites = ["Say it.", "", "Reply now.", "No."]
    good, empty, same, bad = TaskReward(evaluator, mode="soft", guards=())(rewrites, "Reply.", rows)
    assert good.reward.total == pytest.approx((1 + 0.4) / 2)  # 0.4 nats on either row
    assert same.reward.total == pytest.approx(0.5)
    assert bad.reward.total == empty.reward.total == 0.0  # -9 nats is clipped to -1
    assert good.scores == () and not written


def test_perplexity_is_minus_the_log_perplexity_and_adds_to_f1():
    evaluator = Evaluator(Scoring(lambda prompt: "spam", label_scores=scorer))
    # mean of -0.5 and -1.5
    assert TaskReward(evaluator, mode="perplexity")([GOOD], INSTRUCTION, ROWS)[0].reward.total == pytest.approx(-1.0)
    # -1.0 + mean token F1 of "spam" against spam and ham = -1.0 + 0.5
    both = TaskReward(evaluator, mode="perplexity+f1")([GOOD], INSTRUCTION, ROWS)[0]
    assert both.reward.total == pytest.approx(-0.5)


class Hopeless(ScriptedTaskModel):
    """Finds the gold answer at -1 nats a token under no instruction, -3 under one, and -12 under "Guess."."""

    capabilities = ScriptedTaskModel.capabilities | {"target_logprobs"}

    def target_logprobs(self, prompts, targets):
        return [-12.0 if "Guess." in p else -3.0 if "Say" in p else -1.0 for p in prompts]


@pytest.mark.parametrize("mode", ["perplexity", "perplexity+f1"])
def test_an_empty_rewrite_earns_least_in_perplexity_modes_and_is_not_asked(mode):
    evaluator = Evaluator(Hopeless(lambda prompt: "eggs"))
    rows = [RewriteExample("Reply.", "a", "spam", task="qa")]
    task_part = TaskReward(evaluator, mode=mode, guards=())
    said, empty = (graded.reward.total for graded in task_part(["Say it.", ""], "Reply.", rows))
    assert (said, empty) == (-3.0, -10.0)
    said, empty, guess = (graded.reward.total for graded in task_part(["Say it.", " \n", "Guess."], "Reply.", rows))
    assert (said, empty, guess) == (-3.0, -12.0, -12.0)  # nothing earns less than an empty rewrite
    assert [graded.reward.total for graded in task_part(["", ""], "Reply.", rows)] == [-10.0, -10.0]


def test_in_training_nothing_is_asked_about_a_rewrite_that_guards_refuse():
    asked = []

    def noting(prompt, labels):
        asked.append(prompt)
        return [-1.5, -1.0] if "mail" in prompt else [-0.1, -2.0]  # the salad would be right on the second row too

    task_reward = TaskReward(Evaluator(ScriptedTaskModel(lambda prompt: "", label_scores=noting)), guard_weight=0.3)
    salad = "Purple banana quickly seventeen."
    good, refused = task_reward([GOOD, salad], INSTRUCTION, ROWS, refused_too=False)
    assert len(asked) == 2 and not any(salad in prompt for prompt in asked)
    assert refused.reward.parts["task"] == good.reward.parts["task"] == 0.5  # the lowest of those that were graded
    assert refused.reward.total < good.reward.total and refused.scores == () and not refused.real
    alone = task_reward([salad], INSTRUCTION, ROWS, refused_too=False)[0]
    assert len(asked) == 4 and alone.real and len(alone.scores) == 2  # all are refused: all are graded


def test_guards_take_off_by_name_and_at_most_twice_the_weight():
    word_salad = "Rewrite instruction with description and description of instruction"
    graded = reward(guard_weight=0.3)([word_salad], INSTRUCTION, ROWS)[0].reward
    fired = {name: value for name, value in graded.parts.items() if name.startswith("guard/")}
    assert "guard/drift" in fired and all(-0.3 <= value < 0 for value in fired.values())
    assert graded.total == pytest.approx(0.5 + max(sum(fired.values()), -0.6))
    assert reward(guards=())([word_salad], INSTRUCTION, ROWS)[0].reward.parts == {"task": 0.5}


def test_a_rewrite_that_copies_a_training_text_is_penalised():
    copied = "Decide spam or ham: dear winner claim the free cruise for two people before midnight."
    secret = "dear winner claim the free cruise for two people before midnight"
    parts = reward(forbidden_texts=[secret])([copied], INSTRUCTION, ROWS)[0].reward.parts
    assert parts["guard/leakage"] < 0


def test_compute_reward_takes_a_plain_text_or_several_as_the_target():
    assert compute_reward("The answer is Paris.", "Paris") == 1.0
    assert compute_reward("Lyon", "Paris") == 0.0
    assert compute_reward("Lyon", ["Paris", "Lyon"]) == 1.0
    assert compute_reward("It is 3 + 4 = 7.", "7", "numeric_match") == 1.0
    assert compute_reward("the cat sat", "cat", "token_f1") == pytest.approx(2 / 3)
    with pytest.raises(ConfigError, match="there is no gold answer"):
        compute_reward("x", [])


def test_compute_reward_grades_one_output():
    assert compute_reward("I think: spam", ROWS[0]) == 1.0
    assert compute_reward("ham", ROWS[0]) == 0.0
    math = RewriteExample("Add.", "1+1", "1080", task="math")
    assert compute_reward("so we get $1,080.0", math) == 1.0
    qa = RewriteExample("q", "q", "the cat", task="qa")
    assert compute_reward("the cat sat", qa, "token_f1") == pytest.approx(2 / 3)  # "the" is dropped: 1 of 2, 1 of 1
    with pytest.raises(ConfigError, match="log-probabilities"):
        compute_reward("x", ROWS[0], "soft")
    with pytest.raises(ConfigError, match="unknown"):
        compute_reward("x", ROWS[0], "best")


def test_what_a_mode_asks_for_is_checked_without_asking():
    asked = []
    evaluator = Evaluator(ScriptedTaskModel(lambda prompt: asked.append(prompt) or "spam"))
    open_rows = [RewriteExample("Reply.", "a", "spam", task="qa")]
    TaskReward(evaluator, mode="soft").check_capabilities(ROWS)  # labels are scored, gold answers need not be
    TaskReward(evaluator, mode="token_f1").check_capabilities(open_rows)
    with pytest.raises(CapabilityError, match="reward_mode 'soft' scores gold answers"):
        TaskReward(evaluator, mode="soft").check_capabilities(open_rows)
    with pytest.raises(CapabilityError, match="reward_mode 'perplexity' scores gold answers"):
        TaskReward(evaluator, mode="perplexity").check_capabilities(ROWS)
    assert asked == []


def test_settings_that_contradict_are_refused():
    with pytest.raises(ConfigError, match="reward_mode model and reward_model go together"):
        reward("model")
    with pytest.raises(ConfigError, match="guard 'kindness'"):
        reward(guards=["kindness"])
    with pytest.raises(ConfigError, match="guard_weight"):
        reward(guard_weight=-1)
    assert set(REWARD_MODES) >= {"auto", "perplexity", "perplexity+f1", "length", "soft", "model", "bleu"}


def test_a_learned_reward_model_replaces_the_task_model():
    asked = []
    evaluator = Evaluator(ScriptedTaskModel(lambda prompt: asked.append(prompt) or "spam"))
    graded = TaskReward(evaluator, mode="model", reward_model=lambda rewrites, name: [0.7 for _ in rewrites])
    assert graded([GOOD], INSTRUCTION, ROWS)[0].reward.parts["task"] == pytest.approx(0.7)
    assert asked == []


def test_rules_of_the_user_take_off_by_name_whatever_the_guards_are():
    rules = Constraints(keep=("yes",), forbid=("please",))
    kept, broken = reward(guards=(), constraints=rules)(["Say yes.", "Please decide."], INSTRUCTION, ROWS)
    assert kept.reward.parts.keys() == {"task"}
    assert broken.reward.parts.items() >= {"guard/keep": -0.5, "guard/forbid": -0.5}.items()
    assert broken.reward.total == pytest.approx(broken.reward.parts["task"] - 1)
