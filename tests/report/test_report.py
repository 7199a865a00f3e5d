import json
import shutil
import time
import urllib.error
import urllib.request
from threading import Thread

import pytest

from prewrite.choosing.evaluation import calibrated_note
from prewrite.errors import ConfigError, RunFolderError
from prewrite.report import build_report, compare_markdown, compare_runs
from prewrite.report.charts import Series, line_chart, nice_ticks
from prewrite.report.compare import compare_json
from prewrite.report.diff import word_diff
from prewrite.report.formats import cost_sentence, duration, percent, pvalue, signed
from prewrite.report.markdown import cell, fenced
from prewrite.report.read import MAX_POINTS, read_run
from prewrite.report.watch import make_server
from prewrite.run_folder import RunFolder
from run_fixture import INITIAL, make_run, two_instructions

HOSTILE = (
    "<script>document.title='owned'</script></style><img src=x onerror=alert(1)> {{ 7*7 }} \U0001f600 "
    "\u05e9\u05dc\u05d5\u05dd \u202eabc\u202c \x00\x1b[31m \ud800 </textarea>--> ]]> & \"quoted\" 'single'"
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "messages")


def test_the_report_is_one_file_that_names_no_other(run):
    page = build_report(run).read_text(encoding="utf-8")
    assert "src=" not in page and "@import" not in page and "url(" not in page
    assert "http://" not in page and "https://" not in page
    assert page.count("<script") == 2 and page.count("<style") == 1
    assert "default-src 'none'" in page and "unsafe" not in page


def test_the_report_says_what_the_result_says(run):
    page = build_report(run).read_text(encoding="utf-8")
    result = json.loads((run / "result.json").read_text(encoding="utf-8"))
    assert result["verdict"] in page
    test = result["test"]["instructions"]
    assert percent(test["rewrite"]["mean"]) in page and percent(test["initial"]["mean"]) in page
    assert "24,310" in page and "SmolLM2-135M-Instruct" in page
    assert "runs/my run" in page
    note = calibrated_note(result["test"], "rewrite", in_points=True)
    assert note in page and "After batch calibration" in (run / "report.md").read_text(encoding="utf-8")


def test_the_rewrite_is_compared_with_every_baseline(run):
    page = build_report(run).read_text(encoding="utf-8")
    result = json.loads((run / "result.json").read_text(encoding="utf-8"))
    text = (run / "report.md").read_text(encoding="utf-8")
    gains = result["test"]["gains_over"]
    assert set(gains) == {"untrained greedy", "untrained best of 10", "few-shot (4)"}
    for name, gain in gains.items():
        told = f"{signed(gain['mean'])} ({signed(gain['low'])} to {signed(gain['high'])}), p {pvalue(gain['p_value'])}"
        assert any(name in line.replace("\\", "") and line.endswith(f"| {told} |") for line in text.splitlines())
    assert "<th>rewrite over it</th>" in page and "its p stands as it is" in page
    assert "The p of rewrite against initial stands as it is; the others are Holm-corrected together." in text


def test_the_report_says_what_the_answers_rest_on(tmp_path):
    path = make_run(tmp_path / "noted", updates=3)
    config, result = (json.loads((path / name).read_text(encoding="utf-8")) for name in ("config.json", "result.json"))
    config["task_model"] = {"notes": ["the server tells nothing of its model but the name"]}
    filtered = "the server refused it: HTTP 400: flagged"
    result["left_out"] = [{"input": f"row {n}", "at": f"rows.jsonl, row {n}", "reason": filtered} for n in range(5)]
    counted = {"prompts": 900, "cache_hits": 100, "input_tokens": 12_000, "output_tokens": 800}
    result["cost"]["task_model"] = {**counted, "uncounted": 40, "other_model": 1}
    for name, value in (("config.json", config), ("result.json", result)):
        (path / name).write_text(json.dumps(value), encoding="utf-8")
    page = " ".join(build_report(path).read_text(encoding="utf-8").split())
    text = (path / "report.md").read_text(encoding="utf-8").replace("\\", "")
    for sentence in (
        "5 rows are left out for every instruction alike, since the task model gave no answer: “row 0” (rows.jsonl, "
        f"row 0), {filtered}; “row 1” (rows.jsonl, row 1), {filtered}; ",
        f"“row 2” (rows.jsonl, row 2), {filtered}; and 2 more.",
        "Tokens are estimated for 40 of 800 answers: the task model did not count them.",
        "1 answer came, by the server&#39;s own word, from another configuration than the first one.",
        "The server tells nothing of its model but the name.",
        "12,000 in, 800 out, estimated",
    ):
        assert sentence in page and sentence.replace("&#39;", "'") in text


def test_a_baseline_of_the_same_text_is_named_as_such(tmp_path):
    path = make_run(tmp_path / "same", updates=3)
    result = json.loads((path / "result.json").read_text(encoding="utf-8"))
    del result["test"]["gains_over"]["untrained greedy"]
    (path / "result.json").write_text(json.dumps(result), encoding="utf-8")
    assert '<span class="quiet">same text</span>' in build_report(path).read_text(encoding="utf-8")
    assert "| same text |" in (path / "report.md").read_text(encoding="utf-8")


def test_without_baselines_there_is_no_column_for_them(tmp_path):
    path = make_run(tmp_path / "alone", updates=3, baselines=False)
    page = build_report(path).read_text(encoding="utf-8")
    assert "over it" not in page and "Holm" not in page
    assert "over it" not in (path / "report.md").read_text(encoding="utf-8")


def test_the_dev_score_of_the_choice_stands_beside_its_test_score(run):
    page = " ".join(build_report(run).read_text(encoding="utf-8").split())
    result = json.loads((run / "result.json").read_text(encoding="utf-8"))
    dev, test = result["dev"]["scores"]["rewrite"], result["test"]["instructions"]["rewrite"]["mean"]
    said = "Such a score flatters as a rule" + ("; this one does not" if test >= dev else "")
    assert f"dev rows, {percent(dev)}. {said}: on test rows it is {percent(test)} (gap {signed(test - dev)})." in page


@pytest.mark.parametrize(("lead", "said"), [(0.1, "as a rule: on"), (-0.1, "as a rule; this one does not: on")])
def test_a_dev_score_that_did_not_flatter_is_not_said_to(run, tmp_path, lead, said):
    path = shutil.copytree(run, tmp_path / "copy")
    result = json.loads((path / "result.json").read_text(encoding="utf-8"))
    result["dev"]["scores"]["rewrite"] = result["test"]["instructions"]["rewrite"]["mean"] + lead
    (path / "result.json").write_text(json.dumps(result), encoding="utf-8")
    assert said in build_report(path).read_text(encoding="utf-8")
    assert said in (path / "report.md").read_text(encoding="utf-8")


def test_without_test_rows_the_corrected_estimate_is_shown_and_named(tmp_path):
    path = make_run(tmp_path / "untested", test_rows=0, updates=5)
    page = build_report(path).read_text(encoding="utf-8")
    result = json.loads((path / "result.json").read_text(encoding="utf-8"))
    assert "nested resampling" in page and percent(result["dev"]["corrected"]["score"]) in page
    assert "there were no test rows" in page


def test_markdown_has_the_table_and_the_rewrite(run):
    build_report(run)
    text = (run / "report.md").read_text(encoding="utf-8")
    assert text.startswith("# messages\n") and "| initial |" in text and INITIAL in text


def test_hostile_text_is_shown_and_never_run(tmp_path):
    path = make_run(tmp_path / "hostile", rewrite=HOSTILE.replace("\ud800", ""), updates=3)
    result = json.loads((path / "result.json").read_text(encoding="utf-8"))
    result["rewrite"] = result["verdict"] = HOSTILE
    (path / "result.json").write_text(json.dumps(result), encoding="utf-8")
    page = build_report(path).read_text(encoding="utf-8")
    assert "<script>document" not in page and "<img" not in page and "</textarea>" not in page
    assert "&lt;script&gt;" in page and "49" not in page.split("&lt;script&gt;")[1][:80]
    assert page.count("</style>") == 1 and page.count("</script>") == 2
    assert "\x00" not in page and "\x1b" not in page
    assert "<script>" not in (path / "report.md").read_text(encoding="utf-8").replace("```", "").split("\n")[0]


def test_a_run_in_progress_has_a_report(tmp_path):
    path = make_run(tmp_path / "live", finished=False, updates=7)
    page = build_report(path).read_text(encoding="utf-8")
    assert "7 updates so far" in page


def test_a_run_that_has_only_its_config_has_a_report(tmp_path):
    run = RunFolder.create(tmp_path / "new")
    run.write_json(run.config, {"config": {"instruction": "Do it."}, "argv": ["train"]})
    assert "no update is finished yet" in build_report(run.path).read_text(encoding="utf-8")


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(RunFolderError, match="not a run folder"):
        build_report(tmp_path)


@pytest.mark.parametrize(
    ("file", "line", "message"),
    [
        ("metrics.jsonl", "{broken\n", r"metrics\.jsonl:4 is not valid JSON"),
        ("metrics.jsonl", '{"reward/mean": 1}\n', r"metrics\.jsonl:4: has no field 'step'"),
        ("metrics.jsonl", '{"step": 9, "reward/mean": NaN}\n', "must be a finite number"),
        (
            "metrics.jsonl",
            '{"step": 9, "reward/mean": "high"}\n',
            "field 'reward/mean' is 'high'; it must be a finite number",
        ),
        ("rewrites.jsonl", "[]\n", r"rewrites\.jsonl:\d+ holds a list"),
        ("rollouts.jsonl", '{"step": 1, "rewrite": 5, "reward": 0}\n', "field 'rewrite' is 5"),
        ("items.jsonl", '{"input": "x"}\n', "has no field 'gold'"),
    ],
)
def test_a_broken_file_is_named_with_its_line(tmp_path, file, line, message):
    path = make_run(tmp_path / "run", updates=3, per_update=1, finished=False)
    with (path / file).open("a", encoding="utf-8") as opened:
        opened.write(line)
    with pytest.raises(RunFolderError, match=message):
        build_report(path)


def test_a_last_line_that_is_still_being_written_is_left_out(tmp_path):
    path = make_run(tmp_path / "run", updates=3, per_update=1, finished=False)
    with (path / "metrics.jsonl").open("a", encoding="utf-8") as opened:
        opened.write('{"step": 4, "rew')
    assert [row["step"] for row in read_run(path).metrics] == [1, 2, 3]


def test_a_long_run_is_averaged_into_few_points_and_a_small_page(tmp_path):
    path = make_run(tmp_path / "long", updates=2_000, per_update=50, finished=False)
    started = time.process_time()
    page = build_report(path)
    assert time.process_time() - started < 10
    assert page.stat().st_size < 2_000_000
    run = read_run(path)
    assert run.rollouts == 100_000 and len(run.buckets) <= MAX_POINTS
    assert sum(bucket.count for bucket in run.buckets) == 100_000


def test_word_diff_marks_what_changed_and_keeps_every_character():
    left, right = word_diff("Classify the review.", "Classify the movie review carefully.")
    assert [piece.text for piece in right if piece.changed] == ["movie", "carefully"]
    assert not any(piece.changed for piece in left)
    assert "".join(piece.text for piece in right) == "Classify the movie review carefully."


def test_word_diff_of_very_long_texts_is_quick():
    left, right = word_diff("a b " * 20_000, "b c " * 20_000)
    assert "".join(piece.text for piece in left) == "a b " * 20_000
    assert "".join(piece.text for piece in right) == "b c " * 20_000


def test_ticks_are_round_and_cover_the_range():
    assert nice_ticks(0.13, 0.87) == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert nice_ticks(61, 79) == [60, 65, 70, 75, 80]


def test_a_chart_of_one_point_is_drawn():
    chart = line_chart("c", "One", [Series("s", [3], [0.5])])
    assert chart.svg.count("<circle") == 1 and len(chart.hover["series"][0]["points"]) == 1


def test_chart_titles_and_names_are_escaped():
    assert "<b>" not in line_chart("c", "<b>", [Series("<b>", [1, 2], [0, 1])]).svg


def test_numbers_read_as_people_write_them():
    assert (percent(0.1234), percent(None), signed(-0.0321), signed(0.0001)) == ("12.3", "–", "−3.2", "0.0")  # noqa: RUF001
    assert (duration(3.21), duration(125), duration(7320)) == ("3.2 s", "2 min 5 s", "2 h 2 min")


def test_markdown_of_model_text_stays_text():
    assert cell("a | b\n<i>*x*</i>") == r"a \| b \<i\>\*x\*\</i\>"
    assert fenced("``` code ```").startswith("````text\n")


def test_comparing_seeds_states_their_spread_and_what_differs(tmp_path):
    paths = [make_run(tmp_path / f"seed{seed}", seed=seed, updates=5, test_rows=60) for seed in (0, 1)]
    page, text = compare_runs(paths), compare_markdown(paths)
    assert "differ in their seed alone" in page and "2 runs that differ in their seed alone" in text
    assert "| seed | 0 | 1 |" in text
    found = json.loads(json.dumps(compare_json(paths)))
    assert [run["name"] for run in found["runs"]] == ["seed0", "seed1"] and found["settings"] == {"seed": ["0", "1"]}
    assert found["seeds"][0]["names"] == ["seed0", "seed1"] and found["warnings"] == []
    with pytest.raises(ConfigError, match="at least two"):
        compare_runs(paths[:1])


def told(path, **changes):
    """A run whose files say what `changes` say: name of the file -> fields of the object in it."""
    for name, fields in changes.items():
        file = path / f"{name}.json"
        before = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        file.write_text(json.dumps(before | fields), encoding="utf-8")
    return path


def split(source, count, sha256="aa", rows="all"):
    return {"source": source, "count": count, "sha256": sha256, "rows": rows, "skipped": {}}


def splits(sha256="aa", rows="all"):
    return {
        name: split(f"{name}.jsonl", count, sha256, rows)
        for name, count in (("train", 1200), ("dev", 200), ("test", 60))
    }


def test_a_comparison_warns_of_other_data_rows_and_task_models(tmp_path):
    paths = [make_run(tmp_path / name, updates=3, test_rows=60) for name in ("one", "two")]
    for path in paths:
        told(path, splits=splits())
    assert "tested on" not in compare_markdown(paths) and "differ, and so do" not in compare_markdown(paths)
    told(paths[1], splits=splits(rows=[1, 2]))
    assert "Each run was tested on other rows of the same data" in compare_markdown(paths)
    told(paths[1], splits=splits(sha256="bb"), result={"task_model": "hf:other", "metric": "token_f1"})
    page, text = compare_runs(paths), compare_markdown(paths)
    for warning in ("The runs were tested on different data", "The task models differ", "two: hf:other"):
        assert warning in page and warning in text
    assert "The metrics differ" in text and "ways to read" not in text


def test_each_instruction_of_a_run_has_its_own_part_of_the_report(tmp_path):
    path = make_run(tmp_path / "run", updates=3, test_rows=60)
    two_instructions(path)
    page = build_report(path).read_text(encoding="utf-8")
    first, second = page.split('<details name="instruction"')[1:]
    assert "Sort &lt;b&gt;the&lt;/b&gt; mail." in second and "Sort &lt;b&gt;the&lt;/b&gt; mail." not in first
    for part in (first, second):
        assert "All instructions on the test rows" in part and "Answers that changed" in part
    assert 'data-copy="0"' in first and 'data-copy="1"' in second
    assert json.loads(page.split('id="data">')[1].split("</script>")[0])["copies"][1] == "Sort all mail."
    text = (path / "report.md").read_text(encoding="utf-8")
    assert text.count("\nInitial instruction:\n") == 2 and cell("Sort <b>the</b> mail.") in text


def test_a_comparison_shows_every_instruction_and_its_verdicts_in_markdown(tmp_path):
    paths = [make_run(tmp_path / name, updates=3, test_rows=60) for name in ("one", "two")]
    two_instructions(paths[0])
    page, text = compare_runs(paths), compare_markdown(paths)
    assert "Sort &lt;b&gt;the&lt;/b&gt; mail." in page and "Sort all mail." in page
    assert "Sort all mail." in text and "- one: Of 2 instructions 1 gained significantly." in text
    verdict = json.loads((paths[1] / "result.json").read_text(encoding="utf-8"))["verdict"]
    assert f"- two: {cell(verdict)}" in text


def test_the_dev_curve_begins_before_training(tmp_path):
    path = make_run(tmp_path / "run", updates=12, finished=False)
    metrics = (path / "metrics.jsonl").read_text(encoding="utf-8")
    (path / "metrics.jsonl").write_text('{"step": 0, "dev/score": 0.9125}\n' + metrics, encoding="utf-8")
    page = build_report(path).read_text(encoding="utf-8")
    hover = json.loads(page.split('type="application/json" id="data">')[1].split("</script>")[0])
    first = hover["charts"]["chart-dev"]["series"][0]["points"][0]
    assert first[2:] == [0, "91.2"] or first[2:] == [0, "91.3"]
    assert "12 updates so far" in page
    reward = hover["charts"]["chart-reward"]["series"][0]["points"]
    assert reward[0][2] == 1 and len(reward) == 12
    compared = compare_runs([path, make_run(tmp_path / "other", updates=3)])
    assert '"x": "update"' in compared and "91.2" in compared
    (path / "metrics.jsonl").write_text('{"step": 0, "dev/score": 0.9125}\n', encoding="utf-8")
    assert "no update is finished yet" in build_report(path).read_text(encoding="utf-8")


def test_updates_are_whole_numbers_on_an_axis():
    chart = line_chart("c", "t", [Series("s", [1, 2, 3], [0.1, 0.2, 0.3])])
    ticks = [text.split("<")[0] for text in str(chart.svg).split('text-anchor="middle">')[1:]]
    assert ticks == ["1", "2", "3"]


def test_each_instruction_has_an_evolution_of_its_own(tmp_path):
    path = make_run(tmp_path / "run", updates=12)
    assert "<details name" not in build_report(path).read_text(encoding="utf-8")
    rows = [
        {"event": "dev_eval", "step": step, "instruction": name, "rewrite": f"{name} {step}", "score": 0.5}
        for step in (0, 3)
        for name in ("Sort.", "Judge.")
    ]
    (path / "rewrites.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    page = build_report(path).read_text(encoding="utf-8")
    assert page.count('<details name="evolution"') == 2 and page.count('<details name="evolution" open>') == 1
    sort, judge = page.split('<details name="evolution"')[1:]
    assert "update 3" in sort and "Judge" not in sort and "Judge." in judge


def test_the_page_names_data_and_sizes_confusions_and_cost(tmp_path):
    path = told(make_run(tmp_path / "run", updates=3, test_rows=60), splits=splits())
    page = build_report(path).read_text(encoding="utf-8")
    assert "train.jsonl: 1,200 train, 200 dev, 60 test rows" in page
    assert "train.jsonl: 1,200 train" in (path / "report.md").read_text(encoding="utf-8")
    assert "24,310 questions to the task model, took 10 min 11 s." in page and "prompts <b>" not in page
    result = json.loads((path / "result.json").read_text(encoding="utf-8"))
    items = [json.loads(line) for line in (path / "items.jsonl").read_text(encoding="utf-8").splitlines()]
    right = sum(item["gold"] == ["billing"] == [item["answers"]["rewrite"]["prediction"]] for item in items)
    table = page.split("Which labels are mistaken for which")[1].split("rewrite: right label")[1]
    assert f'<td data-label="billing"><b>{right}</b></td>' in table
    left = result["test"]["calibrated"]["rewrite"]["mean"]
    assert f"<b>{signed(left)}</b> points are left where the labels are calibrated" in page


def test_rows_of_other_instructions_are_in_no_table_of_the_first(tmp_path):
    path = make_run(tmp_path / "run", updates=3, test_rows=60)
    items = (path / "items.jsonl").read_text(encoding="utf-8")
    one = build_report(path).read_text(encoding="utf-8")
    (path / "items.jsonl").write_text(items + items.replace("billing", "mood"), encoding="utf-8")
    assert build_report(path).read_text(encoding="utf-8") == one and "mood" not in one


def test_guards_that_fire_on_the_chosen_wording_are_told(tmp_path):
    path = make_run(tmp_path / "run", updates=3, test_rows=60)
    assert "Guards fire on the wording" not in build_report(path).read_text(encoding="utf-8")
    told(
        path,
        result={"guards": {"rewrite": {"guard/drift": -0.5, "guard/fidelity": -0.1}}, "fidelity": {"rewrite": 0.2}},
    )
    page = build_report(path).read_text(encoding="utf-8")
    assert "Guards fire on the wording" in page and "drift, fidelity of 0.20, which is low" in page
    assert "drift, fidelity of 0.20" in (path / "report.md").read_text(encoding="utf-8")
    told(path, result={"rewrite": INITIAL})
    assert "Guards fire" not in build_report(path).read_text(encoding="utf-8")


def test_cost_is_a_sentence():
    usage = {
        "prompts": 1200,
        "cache_hits": 200,
        "seconds": 61,
        "input_tokens": 5000,
        "output_tokens": 10,
        "retries": 2,
    }
    assert cost_sentence(usage) == (
        "1,200 questions to the task model, of which 200 were answered from the cache or stood in a batch twice, took "
        "1 min 1 s; 5,000 tokens went in and 10 came out; 2 attempts failed and were made again."
    )


@pytest.fixture
def server(tmp_path):
    path = make_run(tmp_path / "live", finished=False, updates=3)
    server = make_server(path)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield path, f"http://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()
    server.server_close()
    thread.join()


def test_the_live_view_shows_new_updates(server):
    path, address = server
    assert "3 updates so far" in urllib.request.urlopen(address).read().decode()
    before = json.load(urllib.request.urlopen(address + "version"))
    RunFolder.append(path / "metrics.jsonl", [{"step": 4, "reward/mean": 0.9}])
    assert json.load(urllib.request.urlopen(address + "version"))["version"] != before["version"]
    page = urllib.request.urlopen(address)
    assert "connect-src 'self'" in page.headers["Content-Security-Policy"]
    assert "4 updates so far" in page.read().decode()


def test_the_live_view_answers_only_for_its_own_page_and_name(server):
    _, address = server
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(address + "config.json")
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(urllib.request.Request(address, headers={"Host": "evil.example:80"}))
    for origin in ("http://evil.example", "null", address.rstrip("/").replace("http", "https")):
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(urllib.request.Request(address + "version", headers={"Origin": origin}))
    own = urllib.request.Request(address + "version", headers={"Origin": address.rstrip("/")})
    assert urllib.request.urlopen(own).status == 200


def test_a_taken_port_is_a_clear_error(server):
    path, address = server
    with pytest.raises(ConfigError, match="cannot be used"):
        make_server(path, int(address.rstrip("/").rsplit(":", 1)[1]))
