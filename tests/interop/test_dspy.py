"""The optimiser of DSPy programs, with the real DSPy and its own client of a server that answers by a script."""

import json
import re

import pytest

from prewrite.errors import ConfigError
from servers.http_server import HTTPServer, as_json

dspy = pytest.importorskip("dspy", reason="dspy is not installed; `make test-interop` has an environment with it")

from prewrite.interop.dspy import PRewriteOptimizer  # noqa: E402
from prewrite.interop.dspy_model import DSPyTaskModel  # noqa: E402
from prewrite.scoring.evaluator import Evaluator  # noqa: E402
from prewrite.types import RewriteExample  # noqa: E402

ROWS = [dspy.Example(text=f"word {n}", label="even" if n % 2 == 0 else "odd").with_inputs("text") for n in range(80)]
GOOD = "Say whether the number in the text is even or odd."


class Server:
    """Answers right where the instruction or `demos` earlier turns teach it; else always "even"."""

    def __init__(self, *, demos=99, broken=False):
        self.demos, self.broken = demos, broken
        self.asked = []

    async def __call__(self, request):
        sent = json.loads(request.body)
        messages = sent["messages"]
        self.asked.append(sent)
        content = self.answer(messages)
        if content is None:
            return as_json({"error": {"message": "broken", "type": "server_error"}}, 401)
        message = {"role": "assistant", "content": content}
        return as_json({
            "id": "1", "object": "chat.completion", "created": 1, "model": "toy",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
        })  # fmt: skip

    def answer(self, messages):
        if self.broken:
            return None
        if "Rewrite" in messages[0]["content"]:
            return GOOD
        number = int(re.findall(r"word (\d+)", messages[-1]["content"])[-1])
        taught = GOOD in messages[0]["content"] or sum(part["role"] == "assistant" for part in messages) >= self.demos
        right = "even" if number % 2 == 0 else "odd"
        fields = {"label": right if taught else "even"}
        if "`reasoning`" in messages[0]["content"]:
            fields = {"reasoning": "I look at the last digit."} | fields
        return "".join(f"[[ ## {name} ## ]]\n{text}\n\n" for name, text in fields.items()) + "[[ ## completed ## ]]"


@pytest.fixture
def serve(monkeypatch):
    """Starts a server, and makes DSPy ask it."""
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    started = []

    def start(app):
        server = HTTPServer(app)
        server.__enter__()
        started.append(server)
        return dspy.LM("openai/toy", api_base=f"{server.url}/v1", api_key="none", cache=False, num_retries=0)

    yield start
    for server in started:
        server.__exit__(None, None, None)


def same(example, prediction, trace=None):
    return example.label == prediction.label


def test_a_better_instruction_is_found_and_the_student_stays_as_it_was(serve):
    student = dspy.Predict("text -> label")
    before = student.dump_state()
    optimizer = PRewriteOptimizer(same, max_runs=160, num_candidates=2, parts=("instruction",))
    with dspy.context(lm=serve(app := Server())):
        compiled = optimizer.compile(student, trainset=ROWS)
        assert compiled(text="word 7").label == "odd"
    assert compiled.signature.instructions == GOOD and compiled.demos == []
    assert student.dump_state() == before
    found = optimizer.found
    assert 0.3 < found.initial_score < 0.7 and (found.score, found.changed) == (1.0, ("self",))
    assert found.runs == len([sent for sent in app.asked if "Rewrite" not in sent["messages"][0]["content"]]) - 1
    assert found.runs <= 160


def test_labelled_rows_become_demos_and_never_those_that_choose(serve):
    optimizer = PRewriteOptimizer(same, max_runs=200, parts=["demos"])
    with dspy.context(lm=serve(app := Server(demos=2))):
        compiled = optimizer.compile(dspy.Predict("text -> label"), trainset=ROWS[:40], valset=ROWS[40:])
    assert 2 <= len(compiled.demos) <= 8 and optimizer.found.score == 1.0
    assert {demo.text for demo in compiled.demos} <= {row.text for row in ROWS[:40]}
    assert len(app.asked) == optimizer.found.runs <= 200
    labels = [demo.label for demo in compiled.demos]
    assert labels.count("even") == labels.count("odd")


def test_runs_that_went_well_become_demos_where_rows_lack_a_field(serve):
    optimizer = PRewriteOptimizer(same, max_runs=200, parts=["demos"])
    with dspy.context(lm=serve(app := Server(demos=2))):
        compiled = optimizer.compile(dspy.ChainOfThought("text -> label"), trainset=ROWS)
    demos = compiled.predictors()[0].demos
    assert demos and {demo.reasoning for demo in demos} == {"I look at the last digit."}
    assert len(app.asked) == optimizer.found.runs <= 200


class TwoSteps(dspy.Module):
    def __init__(self):
        super().__init__()
        self.look = dspy.Predict("text -> label")
        self.check = dspy.Predict("text, label -> label_checked")

    def forward(self, text):
        return self.look(text=text)


def test_each_predictor_of_a_program_has_a_name_and_its_own_instruction(serve):
    optimizer = PRewriteOptimizer(same, max_runs=300, num_candidates=1, parts=("instruction",))
    with dspy.context(lm=serve(Server())):
        compiled = optimizer.compile(TwoSteps(), trainset=ROWS)
    assert optimizer.found.changed == ("look",)
    assert compiled.look.signature.instructions == GOOD != compiled.check.signature.instructions


def test_a_compiled_program_is_saved_and_loaded_by_dspy(serve, tmp_path):
    with dspy.context(lm=serve(Server(demos=2))):
        compiled = PRewriteOptimizer(same, max_runs=200).compile(dspy.Predict("text -> label"), trainset=ROWS)
    compiled.save(str(tmp_path / "program.json"))
    loaded = dspy.Predict("text -> label")
    loaded.load(str(tmp_path / "program.json"))
    assert loaded.dump_state() == compiled.dump_state()


def test_a_program_that_nothing_beats_is_kept(serve):
    optimizer = PRewriteOptimizer(lambda example, prediction, trace: 1, max_runs=100, num_candidates=1)
    with dspy.context(lm=serve(Server())):
        compiled = optimizer.compile(student := dspy.Predict("text -> label"), trainset=ROWS)
    assert compiled.dump_state() == student.dump_state() and optimizer.found.changed == ()


def test_a_rewriter_of_ours_writes_the_instructions(serve):
    class Ours:
        def greedy(self, instruction):
            return GOOD

        def sample_rewrites(self, instruction, count, *, seed):
            return [""] * count

    with dspy.context(lm=serve(app := Server())):
        compiled = PRewriteOptimizer(same, rewriter=Ours(), max_runs=200).compile(
            dspy.Predict("text -> label"), trainset=ROWS
        )
    assert compiled.signature.instructions == GOOD
    assert not [sent for sent in app.asked if "Rewrite" in sent["messages"][0]["content"]]


def test_a_server_that_fails_ends_the_search_and_is_no_score(serve):
    with dspy.context(lm=serve(Server(broken=True))), pytest.raises(dspy.LMError):
        PRewriteOptimizer(same, max_runs=100).compile(dspy.Predict("text -> label"), trainset=ROWS)


def test_answers_that_cannot_be_read_score_0(serve):
    class Mumbling(Server):
        def answer(self, messages):
            return GOOD if "Rewrite" in messages[0]["content"] else "hm"

    optimizer = PRewriteOptimizer(same, max_runs=40, parts=["demos"])
    with dspy.context(lm=serve(Mumbling())):
        optimizer.compile(dspy.Predict("text -> label"), trainset=ROWS)
    assert optimizer.found.score == 0.0


@pytest.mark.parametrize(
    ("settings", "rows", "words"),
    [
        ({"parts": ["offsets"]}, ROWS, "part 'offsets' is unknown; choose from instruction, demos"),
        ({"max_runs": 8}, ROWS, "max_runs is 8; it must be at least 32"),
        ({"metric": lambda *_: 7}, ROWS, "metric gave 7; it must give True, False or a number from 0 to 1"),
        ({"metric": lambda *_: None}, ROWS, "metric gave None"),
        ({}, ROWS[:1], "there are no rows to choose on"),
    ],
)
def test_what_cannot_work_is_refused(serve, settings, rows, words):
    with dspy.context(lm=serve(Server())), pytest.raises(ConfigError, match=re.escape(words)):
        PRewriteOptimizer(**{"metric": same} | settings).compile(dspy.Predict("text -> label"), trainset=rows)


def test_a_language_model_of_dspy_is_a_task_model_of_ours(serve):
    lm = serve(app := Server())
    evaluator = Evaluator(DSPyTaskModel(lm))
    rows = [RewriteExample("Look.", f"word {n}", "even", choices=("even", "odd")) for n in (2, 3)]
    answers = evaluator.answers([GOOD], rows)[0]
    assert ["even" in answers[0].output, "odd" in answers[1].output] == [True, True]
    assert {sent["temperature"] for sent in app.asked} == {0.0}
