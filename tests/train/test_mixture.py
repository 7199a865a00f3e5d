"""Training on several data sets: what is drawn how often, other wordings, advantages per task."""

import json
from collections import Counter

import pytest
from toy import toy_trainer

from prewrite.data import PRewriteDataset
from prewrite.errors import ConfigError
from prewrite.train.draws import draw_examples, draw_instructions
from prewrite.train.mixture import Mixture, load_phrasings, mix
from prewrite.types import RewriteExample

pytestmark = pytest.mark.usefixtures("one_thread")


def rows(instruction, count, **more):
    return PRewriteDataset.from_examples(
        [RewriteExample(instruction, f"question {n}", "yes", task="qa", **more) for n in range(count)]
    )


def test_temperature_1_follows_the_sizes_2_their_roots_and_the_draws_follow_the_weights():
    sets = [rows("big", 90), rows("small", 10)]
    assert mix(sets, temperature=1.0).weights == pytest.approx((0.9, 0.1))
    mixture = mix(sets, temperature=2.0)
    assert mixture.weights == pytest.approx((0.75, 0.25))
    drawn = Counter(draw_instructions(mixture, 1, seed=0, step=step)[0] for step in range(2000))
    assert drawn["big"] / 2000 == pytest.approx(0.75, abs=0.03)


def test_one_data_set_draws_its_instructions_alike():
    data = PRewriteDataset.from_examples([*rows("one", 5), *rows("two", 1)])
    assert Mixture.of(data).weights == (0.5, 0.5)


def test_an_instruction_of_two_sets_keeps_all_rows_and_both_weights():
    first = rows("solve", 4)
    second = PRewriteDataset.from_examples([*rows("solve", 2), *rows("other", 2)])
    mixture = mix([first, second], temperature=1.0)
    assert len(mixture.rows["solve"]) == 6 and mixture.weights == pytest.approx((0.75, 0.25))


def test_other_wordings_share_the_weight_and_the_rows():
    mixture = mix([rows("Solve the task.", 4), rows("other", 4)], phrasings={"Solve the task.": ["Solve.", "Do it."]})
    assert list(mixture.rows) == ["Solve the task.", "Solve.", "Do it.", "other"]
    assert mixture.weights == pytest.approx((1 / 6, 1 / 6, 1 / 6, 1 / 2))
    assert (
        draw_examples(mixture.rows["Solve."], 2, seed=0, step=1, instruction="Solve.")[0].instruction
        == "Solve the task."
    )


def test_other_wordings_share_the_meta_prompt_that_rows_bring():
    own = RewriteExample("solve", "q", "yes", task="qa", template="Better: {instruction}")
    mixture = mix([PRewriteDataset.from_examples([own]), rows("other", 4)], phrasings={"solve": ["go"]})
    assert mixture.templates == {"solve": "Better: {instruction}", "go": "Better: {instruction}"}
    assert Mixture.of(PRewriteDataset.from_examples([own])).templates == {"solve": "Better: {instruction}"}


def test_a_wording_belongs_to_one_instruction():
    with pytest.raises(ConfigError, match="'other'"):
        mix([rows("solve", 4), rows("other", 4)], phrasings={"solve": ["other"]})
    with pytest.raises(ConfigError, match="'go'"):
        mix([rows("solve", 4), rows("other", 4)], phrasings={"solve": ["go"], "other": ["go"]})


def test_the_file_of_wordings_is_checked(tmp_path, caplog):
    file = tmp_path / "phrasings.yaml"
    file.write_text("solve: [go, do it]\nunknown: [x]\n")
    assert load_phrasings(file, ["solve"]) == {"solve": ["go", "do it"]}
    assert "1 of 2 instructions" in caplog.text
    for text, words in (("solve: go\n", "list of texts"), ("- a\n", "mapping"), ("a: [\n", "not YAML")):
        file.write_text(text)
        with pytest.raises(ConfigError, match=words):
            load_phrasings(file, ["solve"])
    with pytest.raises(ConfigError, match="cannot be read"):
        load_phrasings(tmp_path / "absent.yaml", [])


def test_training_draws_other_wordings(tmp_path):
    mixture = mix([rows("solve the task", 4)], phrasings={"solve the task": ["answer now", "think carefully please"]})
    trainer = toy_trainer(str(tmp_path), train_dataset=mixture, max_steps=6, instructions_per_step=2)
    trainer.train()
    seen = {json.loads(line)["instruction"] for line in (tmp_path / "rollouts.jsonl").read_text().splitlines()}
    assert seen == {"solve the task", "answer now", "think carefully please"}
