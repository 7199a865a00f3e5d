// What pointing at a curve shows. The curves themselves are drawn in the page; without this script nothing is missing
// but the values. `data` holds {charts: {id: {nearest, x, series}}, panels, copies, live}.
"use strict";
(() => {
  const tip = document.getElementById("tip");
  let data = {};

  const element = (name, text, className) => {
    const made = document.createElement(name);
    made.textContent = text;
    if (className) made.className = className;
    return made;
  };

  function place(event, svg, x, y) {
    const box = svg.getBoundingClientRect();
    const scale = box.width / svg.viewBox.baseVal.width;
    const left = box.left + x * scale, top = box.top + y * scale;
    tip.hidden = false;
    const width = tip.offsetWidth, height = tip.offsetHeight;
    const room = document.documentElement.clientWidth;
    tip.style.left = Math.max(4, Math.min(left + 14, room - width - 8)) + scrollX + "px";
    tip.style.top = (top - height - 14 < 0 ? top + 16 : top - height - 14) + scrollY + "px";
  }

  function mark(svg, x, dots) {
    svg.querySelectorAll(".hover").forEach((old) => old.remove());
    const group = document.createElementNS(svg.namespaceURI, "g");
    group.setAttribute("class", "hover");
    const line = document.createElementNS(svg.namespaceURI, "line");
    for (const [name, value] of [["class", "cursor"], ["x1", x], ["x2", x], ["y1", 12], ["y2", svg.viewBox.baseVal.height - 28]])
      line.setAttribute(name, value);
    group.append(line);
    for (const dot of dots) {
      const holder = document.createElementNS(svg.namespaceURI, "g");
      holder.setAttribute("class", dot.style);
      const circle = document.createElementNS(svg.namespaceURI, "circle");
      for (const [name, value] of [["class", "dot"], ["cx", dot.x], ["cy", dot.y], ["r", 4]]) circle.setAttribute(name, value);
      holder.append(circle);
      group.append(holder);
    }
    svg.append(group);
  }

  const closest = (points, distance) => {
    let best = null, least = Infinity;
    for (const point of points) {
      const here = distance(point);
      if (here < least) { least = here; best = point; }
    }
    return best;
  };

  function show(svg, x, y) {
    const chart = data.charts[svg.id];
    let found = chart.series.filter((line) => line.points.length).map((line) => ({
      line, point: closest(line.points, (p) => chart.nearest === "x" ? Math.abs(p[0] - x) : Math.hypot(p[0] - x, p[1] - y)),
    }));
    if (!found.length) return;
    const first = closest(found, ({ point }) => chart.nearest === "x" ? Math.abs(point[0] - x) : Math.hypot(point[0] - x, point[1] - y));
    found = chart.nearest === "x" ? found.filter(({ point }) => point[2] === first.point[2]) : [first];
    mark(svg, first.point[0], found.map(({ line, point }) => ({ style: line.style, x: point[0], y: point[1] })));
    tip.replaceChildren(element("span", chart.x + " " + first.point[2]));
    for (const { line, point } of found) {
      const row = element("div", "");
      row.append(element("b", point[3]), " ", element("span", line.name));
      tip.append(row);
      if (line.note) { const note = element("div", line.note); note.dir = "auto"; tip.append(note); }
    }
    place(null, svg, first.point[0], Math.min(...found.map(({ point }) => point[1])));
    sample(svg, first.point[2]);
    svg.cursorAt = first.point;
  }

  function sample(svg, x) {
    const panel = document.getElementById("sample");
    if (!panel || !svg.closest("section").contains(panel)) return;
    const at = x === Infinity ? data.panels.at(-1) : closest(data.panels, (s) => Math.abs(s.x - x));
    if (!at) return;
    const head = element("p", "", "quiet");
    head.append(element("b", "update " + at.updates), `, ${at.rollouts} rollouts, ${at.distinct} distinct rewrites`);
    panel.replaceChildren(head);
    for (const [name, text, reward] of [["best", at.best, at.best_reward], ["another", at.other, at.other_reward]]) {
      const row = element("p", "");
      const body = element("bdi", text || "(empty)");
      row.append(element("span", `${name}, reward ${reward}: `, "range"), body);
      panel.append(row);
    }
  }

  function hide(svg) {
    tip.hidden = true;
    svg.querySelectorAll(".hover").forEach((old) => old.remove());
  }

  function start() {
    data = JSON.parse(document.getElementById("data").textContent);
    for (const id of Object.keys(data.charts)) {
      const svg = document.getElementById(id);
      const points = data.charts[id].series.flatMap((line) => line.points);
      svg.addEventListener("pointermove", (event) => {
        const box = svg.getBoundingClientRect();
        const scale = svg.viewBox.baseVal.width / box.width;
        show(svg, (event.clientX - box.left) * scale, (event.clientY - box.top) * scale);
      });
      svg.addEventListener("pointerleave", () => hide(svg));
      svg.addEventListener("blur", () => hide(svg));
      svg.addEventListener("keydown", (event) => {
        const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
        if (!step) return;
        event.preventDefault();
        const from = svg.cursorAt || [0, 0];
        const next = closest(points.filter((p) => (p[0] - from[0]) * step > 0), (p) => Math.abs(p[0] - from[0]));
        if (next) show(svg, next[0], next[1]);
      });
    }
    const curve = document.querySelector("#chart-reward");
    if (curve && data.panels.length) sample(curve, Infinity);
    for (const button of document.querySelectorAll(".copy"))
      button.addEventListener("click", async () => {
        await navigator.clipboard.writeText(data.copies[button.dataset.copy]);
        button.textContent = "Copied";
      });
  }

  async function follow(version) {
    let wait = 2000;
    try {
      const answer = await (await fetch("version", { cache: "no-store" })).json();
      wait = answer.wait_ms;
      if (answer.version !== version) {
        const page = new DOMParser().parseFromString(await (await fetch("./", { cache: "no-store" })).text(), "text/html");
        const main = page.querySelector("main");
        if (main) {
          document.querySelector("main").replaceWith(main);
          tip.hidden = true;
          start();
        }
        version = answer.version;
      }
    } catch (error) {
      if (!(error instanceof TypeError)) throw error; // the server was stopped: the last page stays
      return;
    }
    setTimeout(follow, wait, version);
  }

  start();
  if (data.live) follow(data.live);
})();
