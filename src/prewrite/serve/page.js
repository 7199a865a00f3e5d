// The page of `prewrite serve`. All text that comes from rows, models or the server is put in as text, never as markup.
"use strict";
(() => {
  const at = (id) => document.getElementById(id);
  const element = (name, text, className) => {
    const made = document.createElement(name);
    made.textContent = text;
    if (className) made.className = className;
    return made;
  };
  const points = (share) => (100 * share).toFixed(1);

  let prompts = new Map(), chosen = null, running = null, calls = 0;

  function tell(text, failed = false) {
    at("status").textContent = text;
    at("status").classList.toggle("failed", failed);
  }

  async function copy(text, button) {
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "copied";
    } catch {
      getSelection().selectAllChildren(button.closest("li").querySelector(".text"));
      button.textContent = "selected: press Ctrl-C";
    }
    setTimeout(() => { button.textContent = "copy"; }, 2000);
  }

  // Those that the search kept longest come first: it shows more rows to what does well.
  function ranked() {
    return [...prompts.values()].sort((one, other) =>
      (other.prompt === chosen) - (one.prompt === chosen) || other.rows - one.rows || other.score - one.score
      || one.prompt - other.prompt);
  }

  function draw() {
    at("count").textContent = String(prompts.size);
    at("prompts").replaceChildren(...ranked().map((found) => {
      const item = element("li", "", found.prompt === chosen ? "card chosen" : "card");
      const head = element("h2", ""), facts = element("span", "");
      facts.append(element("b", points(found.score)), `of 100 on ${found.rows} rows`
        + (found.prompt === 0 ? " · yours" : "") + (found.prompt === chosen ? " · chosen" : ""));
      const button = element("button", "copy", "copy");
      button.type = "button";
      button.addEventListener("click", () => copy(found.text, button));
      head.append(facts, button);
      item.append(head, element("p", found.text, "text"));
      return item;
    }));
  }

  function take(event) {
    if (event.event === "start") {
      tell(`Asking the rewriter for wordings. ${event.rows} rows to choose on`
        + (event.exemplar_rows ? `, ${event.exemplar_rows} to show as examples.` : "."));
    } else if (event.event === "wordings") {
      calls = event.most_calls;
      tell(`${event.kept} other wordings` + (event.refused ? `, ${event.refused} refused by guards` : "")
        + `. Asking the task model at most ${calls} questions.`);
    } else if (event.event === "prompt") {
      prompts.set(event.prompt, event);
      draw();
    } else if (event.event === "done") {
      chosen = event.chosen;
      draw();
      const gain = event.scores.chosen - event.scores.initial;
      tell(chosen === 0
        ? `Done after ${event.calls} questions: none is clearly better than yours.`
        : `Done after ${event.calls} questions: ${points(event.scores.initial)} before, ${points(event.scores.chosen)} now, `
          + `${gain < 0 ? "" : "+"}${points(gain)} on ${event.rows} rows that it was chosen on.`);
    } else {
      tell(event.message, true);
    }
    return event.event === "done" || event.event === "error";
  }

  async function listen(response) {
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "", ended = false;
    for (;;) {
      const { value, done } = await reader.read();
      if (done) break;
      const parts = (rest + value).split("\n\n");
      rest = parts.pop();
      for (const part of parts) ended = take(JSON.parse(part.slice("data: ".length))) || ended;
    }
    if (!ended) tell("The search ended early; the terminal says why.", true);
  }

  at("form").addEventListener("submit", async (submitted) => {
    submitted.preventDefault();
    if (running) return;
    running = new AbortController();
    prompts = new Map();
    chosen = null;
    draw();
    at("found").hidden = at("stop").hidden = false;
    at("start").disabled = true;
    tell("Starting.");
    try {
      const response = await fetch("/search", {
        method: "POST", headers: { "Content-Type": "application/json" }, signal: running.signal,
        body: JSON.stringify({ instruction: at("instruction").value, rows: at("rows").value, task: at("task").value,
                               task_model: at("task-model").value }),
      });
      if (response.ok) await listen(response);
      else tell((await response.json()).error, true);
    } catch (error) {
      tell(error.name === "AbortError" ? "Stopped." : "The server does not answer.", error.name !== "AbortError");
    }
    running = null;
    at("start").disabled = false;
    at("stop").hidden = true;
  });
  at("stop").addEventListener("click", () => running && running.abort());

  fetch("/about").then((response) => response.json()).then((about) => {
    at("rewriter").textContent = `rewriter: ${about.rewriter}`;
    at("task-model").replaceChildren(...about.task_models.map((name) => element("option", name)));
    at("budget").textContent = `A search asks the task model at most ${about.calls} questions, and the rewriter for `
      + `${about.wordings} wordings. It takes up to ${about.most_rows} rows.`;
  });
})();
