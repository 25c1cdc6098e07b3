"use strict";
// Every text that a model or a caller wrote goes through textContent. The one piece of markup that is taken as such is
// the article of a solve, which the server writes with the same escaping renderer as the static page.
const $ = (id) => document.getElementById(id);
const make = (name, className, text) => {
  const node = document.createElement(name);
  if (className) node.className = className;
  if (text !== undefined && text !== null) node.textContent = String(text);
  return node;
};
const SVG = "http://www.w3.org/2000/svg";
const rect = (className, x, width) => {
  const node = document.createElementNS(SVG, "rect");
  node.setAttribute("class", className); node.setAttribute("x", `${x * 100}%`);
  node.setAttribute("width", `${Math.max(0, Math.min(1, width)) * 100}%`); node.setAttribute("height", "100%");
  return node;
};
const bar = (value) => {
  const box = make("span", "score");
  if (value === null || value === undefined) return box;
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "bar"); svg.setAttribute("width", "40"); svg.setAttribute("height", "8"); svg.setAttribute("aria-hidden", "true");
  svg.append(rect("ground", 0, 1), rect("filled", 0, value));
  box.append(svg, make("b", "", value.toFixed(2)));
  return box;
};
const MARKS = { chosen: "★", lost: "✗", roomless: "–", out_of_budget: "–", cancelled: "–", pruned: "▽", running: "…", plain: "•" };
const base = location.pathname.replace(/\/$/, "");
let key = sessionStorage.getItem("key") || "";

const ask = async (path) => {
  const answer = await fetch(`${base}/api/${path}`, { headers: key ? { Authorization: `Bearer ${key}` } : {}, cache: "no-store" });
  if (answer.status === 401) { $("key-form").hidden = false; $("state").textContent = key ? "this key is not known" : "a key is needed"; throw new Error("key"); }
  if (!answer.ok) throw new Error((await answer.json()).error.message);
  $("key-form").hidden = true;
  return answer;
};
const read = async (path) => (await ask(path)).json();
const named = (...parts) => parts.map(encodeURIComponent).join("/");

// A list of any length: only the rows in sight are in the document.
class Windowed {
  constructor(box, height, draw, open) {
    Object.assign(this, { box, height, draw, open, items: [], here: -1, lines: new Map() });
    this.space = box.querySelector(".space");
    box.addEventListener("scroll", () => this.paint(), { passive: true });
    new ResizeObserver(() => this.paint()).observe(box);
  }
  set(items) {
    this.items = items;
    this.space.style.height = `${items.length * this.height}px`;
    for (const line of this.lines.values()) line.remove();
    this.lines.clear();
    this.here = Math.min(this.here, items.length - 1);
    this.paint();
  }
  paint() {
    const first = Math.max(0, Math.floor(this.box.scrollTop / this.height) - 6);
    const last = Math.min(this.items.length, Math.ceil((this.box.scrollTop + this.box.clientHeight) / this.height) + 6);
    for (const [i, line] of this.lines) if (i < first || i >= last) { line.remove(); this.lines.delete(i); }
    for (let i = first; i < last; i++) {
      if (this.lines.has(i)) continue;
      const line = this.draw(this.items[i], i);
      line.classList.add("line"); line.setAttribute("role", "option");
      line.style.height = `${this.height}px`; line.style.transform = `translateY(${i * this.height}px)`;
      line.addEventListener("click", (event) => { if (event.target.type !== "checkbox") { this.go(i); this.open(this.items[i]); } });
      this.lines.set(i, line); this.box.append(line);
    }
    for (const [i, line] of this.lines) { line.classList.toggle("here", i === this.here); line.setAttribute("aria-selected", i === this.here); }
  }
  go(i) {
    this.here = Math.max(0, Math.min(this.items.length - 1, i));
    const top = this.here * this.height, box = this.box;
    if (top < box.scrollTop) box.scrollTop = top;
    else if (top + this.height > box.scrollTop + box.clientHeight) box.scrollTop = top + this.height - box.clientHeight;
    this.paint();
  }
}

// The list of solves
const solves = new Map();
let current = null, pool = null, shown = { id: null, stamp: 0, timer: 0 };
const list = new Windowed($("rows"), 58, (solve) => {
  const line = make("div", "two"), top = make("div"), below = make("div", "quiet");
  top.append(make("span", "grow", solve.title || solve.id), bar(solve.score));
  below.append(make("span", `badge ${solve.stopped}`, solve.stopped.replace("_", " ")));
  for (const flag of ["truncated", "injected"]) if (solve[flag]) below.append(make("span", `badge ${flag === "injected" ? "lost" : flag}`, flag));
  if (solve.abstained) below.append(make("span", "badge lost", "no answer"));
  if (solve.escalated) below.append(make("span", "badge", "escalated"));
  below.append(make("span", "grow", [solve.profile, solve.model, `${solve.candidates} cand.`, `${Math.round(solve.tokens).toLocaleString("en")} tok.`].filter(Boolean).join(" · ")));
  line.append(top, below);
  return line;
}, (solve) => { location.hash = `#/solve/${named(solve.id)}`; });

const TESTS = { failed: (s) => s.stopped === "failed" || s.lost > 0, truncated: (s) => s.truncated, low: (s) => s.score !== null && s.score < 0.5, injected: (s) => s.injected, abstained: (s) => Boolean(s.abstained), running: (s) => s.stopped === "running" };
const refresh = () => {
  const words = $("find").value.toLowerCase(), test = TESTS[$("only").value] || (() => true);
  const wanted = [...solves.values()].filter((s) => test(s) && (!$("profile").value || s.profile === $("profile").value) && (!$("owner").value || s.owner === $("owner").value)
    && (!words || `${s.title} ${s.answer} ${s.model} ${s.strategy} ${s.id}`.toLowerCase().includes(words)));
  wanted.sort((a, b) => (a.started < b.started ? 1 : -1));
  for (const name of ["profile", "owner"]) {
    const values = [...new Set([...solves.values()].map((s) => s[name]))].filter(Boolean), select = $(name);
    select.hidden = values.length < 2 && !(values.length && name === "profile");
    for (const value of values) if (![...select.options].some((o) => o.value === value)) select.append(new Option(value, value));
  }
  $("count").textContent = `${wanted.length} of ${solves.size} solves`;
  list.set(wanted);
  list.here = wanted.findIndex((s) => s.id === current); list.paint();
};
let pending = 0;
const later = () => { if (!pending) pending = requestAnimationFrame(() => { pending = 0; refresh(); }); };
for (const id of ["only", "profile", "owner"]) $(id).addEventListener("change", refresh);
$("find").addEventListener("input", refresh);

// One solve
const gauge = (s) => {
  const box = make("div", "gauge"), budget = s.budget || {}, spent = { calls: s.calls, tokens: s.tokens, usd: s.usd || 0, seconds: s.seconds };
  for (const [name, limit] of Object.entries(budget)) {
    if (typeof limit !== "number" || limit <= 0) continue;
    const row = make("div"), svg = document.createElementNS(SVG, "svg"), held = name === "calls" ? s.held : 0;
    svg.append(rect("ground", 0, 1), rect("spent", 0, spent[name] / limit), rect("held", Math.min(1, spent[name] / limit), Math.min(held / limit, 1 - spent[name] / limit)));
    const show = (v) => (name === "usd" ? `$${v.toPrecision(3)}` : name === "seconds" ? `${v.toFixed(1)} s` : Math.round(v).toLocaleString("en"));
    row.append(make("span", "quiet", name), svg, make("span", "", `${show(spent[name])} spent${held ? `, ${held} held` : ""}, ${show(Math.max(0, limit - spent[name] - held))} left`));
    box.append(row);
  }
  return box;
};
class Pool {
  constructor(id, rows) {
    this.id = id; this.picked = []; this.rows = rows; this.order = "index"; this.only = "";
    this.box = make("div", "pool");
    const tools = make("div", "tools"), box = make("div", "window");
    box.tabIndex = 0; box.setAttribute("role", "listbox"); box.setAttribute("aria-label", "Candidates"); box.append(make("div", "space"));
    this.count = make("span", "quiet"); this.compare = make("button", "", "Compare two"); this.compare.type = "button"; this.compare.disabled = true;
    this.compare.addEventListener("click", () => { location.hash = `#/solve/${named(id)}/diff/${named(...this.picked)}`; });
    tools.append(make("b", "", "Candidates"), this.count, this.select("Order", { index: "as they came", score: "best score first" }, (v) => { this.order = v; }),
      this.select("Show", { "": "all", plain: "finished", lost: "failed", pruned: "pruned", t: "truncated", i: "injected" }, (v) => { this.only = v; }), this.compare);
    this.box.append(tools, box);
    this.list = new Windowed(box, 32, (row) => this.line(row), (row) => { location.hash = `#/solve/${named(id)}/c/${named(row[1])}`; });
    this.show();
  }
  select(label, options, change) {
    const select = make("select"); select.setAttribute("aria-label", label);
    for (const [value, text] of Object.entries(options)) select.append(new Option(text, value));
    select.addEventListener("change", () => { change(select.value); this.list.box.scrollTop = 0; this.show(); });
    return select;
  }
  show() {
    const rows = this.rows.filter((r) => !this.only || r[3] === this.only || (this.only.length === 1 && r[4].includes(this.only)));
    if (this.order === "score") rows.sort((a, b) => (b[2] ?? -1) - (a[2] ?? -1));
    this.count.textContent = `${rows.length.toLocaleString("en")} of ${this.rows.length.toLocaleString("en")}`;
    this.list.box.style.height = `${Math.min(340, Math.max(1, rows.length) * 32 + 1)}px`;
    this.list.set(rows);
  }
  line([index, id, score, mark, flags, said]) {
    const line = make("div", mark), pick = make("input"), num = make("span", "num");
    pick.type = "checkbox"; pick.checked = this.picked.includes(id); pick.setAttribute("aria-label", `compare candidate ${index}`);
    pick.addEventListener("change", () => this.pick(id));
    num.append(bar(score));
    line.append(pick, make("span", "no", `${MARKS[mark] || "•"} #${index ?? "?"}`), num, make("span", "grow", said));
    if (flags.includes("t")) line.append(make("span", "badge truncated", "truncated"));
    if (flags.includes("i")) line.append(make("span", "badge lost", "injected"));
    return line;
  }
  pick(id) {
    this.picked = this.picked.includes(id) ? this.picked.filter((p) => p !== id) : [...this.picked, id].slice(-2);
    this.compare.disabled = this.picked.length !== 2;
    for (const [i, line] of this.list.lines) line.querySelector("input").checked = this.picked.includes(this.list.items[i][1]);
  }
}
const sheet = (c, id) => {
  const box = make("div", "sheet"), head = make("p");
  head.append(make("b", "", `${MARKS[c.mark] || "•"} #${c.index ?? "?"} `), make("span", "quiet", `${c.id} · `), bar(c.score), make("span", "quiet", c.finish && c.finish !== "stop" ? ` · ended by ${c.finish}` : ""));
  box.append(head);
  if (c.answer !== null) box.append(make("p", "", `answer: ${c.answer}`));
  if (c.error) box.append(make("p", "cause", c.error));
  if (c.feedback) box.append(make("p", "", `Verifier: ${c.feedback}`));
  if (c.steps.length) { const steps = make("div", "steps-line"); c.steps.forEach((s, i) => { const one = make("span", "", `${i + 1} `); one.append(bar(s)); steps.append(one); }); box.append(steps); }
  if (c.chain.length) {
    const chain = make("p", "quiet", "continues "); let before = c.id;
    for (const parent of c.chain) {
      const link = make("a", "", parent); link.href = `#/solve/${named(id)}/diff/${named(parent, before)}`; link.title = "what changed from this one to the next";
      chain.append(link, " "); before = parent;
    }
    box.append(chain);
  }
  const text = make("pre", "", c.text); text.dir = "auto"; box.append(text);
  return box;
};
const sides = (d, id) => {
  const box = make("div", "sides"), left = make("div"), right = make("div");
  for (const [side, c, mine, tag] of [[left, d.one, 1, "del"], [right, d.other, 2, "ins"]]) {
    const whole = sheet(c, id), text = whole.querySelector("pre");
    text.textContent = "";
    for (const part of d.parts) if (part[mine]) text.append(part[0] === "equal" ? document.createTextNode(part[mine]) : make(tag, "", part[mine]));
    side.append(whole);
  }
  box.append(left, right);
  return box;
};
const markup = (html) => document.importNode(new DOMParser().parseFromString(html, "text/html").body, true);

const open = async (id, what, one, other, again) => {
  const detail = $("detail"), mine = ++shown.stamp;
  current = id; document.body.classList.add("open");
  list.here = list.items.findIndex((s) => s.id === id); list.paint();
  try {
    const [rows, extra] = await Promise.all([read(`solve/${named(id)}/candidates`),
      what === "c" ? read(`solve/${named(id)}/candidate?id=${named(one)}`) : what === "diff" ? read(`solve/${named(id)}/diff?one=${named(one)}&other=${named(other)}`) : null]);
    if (mine !== shown.stamp) return;
    if (rows.length > 1000 && shown.id !== id) detail.replaceChildren(new Pool(id, rows).box); // the rest takes longer
    const whole = await read(`solve/${named(id)}`);
    if (mine !== shown.stamp) return;
    const keep = again ? [detail.scrollTop, pool ? pool.list.box.scrollTop : 0] : [0, pool && shown.id === id ? pool.list.box.scrollTop : 0];
    const before = pool && shown.id === id ? pool : null;
    const tools = make("p"), back = make("a", "back", "‹ Solves"), save = make("button", "", "Export the trace");
    back.href = "#/"; save.type = "button";
    save.addEventListener("click", async () => {
      const link = make("a"); link.href = URL.createObjectURL(await (await ask(`solve/${named(id)}/trace.json`)).blob());
      link.download = `${id}.json`; link.click(); setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    });
    tools.append(back, " ", save, make("span", "quiet", whole.summary.stopped === "running" ? `running: ${whole.summary.candidates} candidates so far` : ""));
    pool = new Pool(id, rows);
    if (before) { pool.picked = before.picked; pool.compare.disabled = pool.picked.length !== 2; }
    const parts = [tools, gauge(whole.summary)];
    if (what === "c") parts.push(sheet(extra, id)); else if (what === "diff") parts.push(sides(extra, id));
    parts.push(...markup(whole.html).childNodes);
    detail.replaceChildren(...parts);
    if (rows.length) detail.querySelector("article > header").after(pool.box);
    pool.list.box.scrollTop = keep[1]; detail.scrollTop = keep[0]; pool.list.paint();
    shown.id = id; document.title = `${whole.summary.title || id} · solves`;
  } catch (error) { if (mine === shown.stamp && error.message !== "key") detail.replaceChildren(make("p", "cause", error.message)); }
};
const route = (again) => {
  const parts = location.hash.slice(2).split("/").map(decodeURIComponent);
  if (parts[0] === "solve" && parts[1]) return open(parts[1], parts[2], parts[3], parts[4], again === true);
  if (location.hash && !location.hash.startsWith("#/")) { const part = $(location.hash.slice(1)); for (let p = part; p; p = p.parentElement) if (p.tagName === "DETAILS") p.open = true; if (part) part.scrollIntoView(); return undefined; }
  current = null; document.body.classList.remove("open"); list.here = -1; list.paint();
  return undefined;
};
addEventListener("hashchange", route);
$("detail").addEventListener("click", (event) => {
  const inner = event.target.closest("a[href^='#d-']"), all = event.target.closest("button[data-open]");
  if (inner) {
    event.preventDefault();
    const part = $(inner.getAttribute("href").slice(1)), best = pool && pool.rows.find((r) => r[3] === "chosen");
    if (!part && best) { location.hash = `#/solve/${named(pool.id)}/c/${named(best[1])}`; return; }
    for (let p = part; p; p = p.parentElement) if (p.tagName === "DETAILS") p.open = true;
    if (part) part.scrollIntoView();
  }
  if (all) for (const part of all.closest("section").querySelectorAll("details")) part.open = all.dataset.open === "1";
});

// Live
const tell = (solve) => {
  solves.set(solve.id, solve); later();
  if (solve.id === current && !shown.timer) shown.timer = setTimeout(() => { shown.timer = 0; if (current === solve.id) route(true); }, 700);
};
const follow = async () => {
  for (let pause = 500; ; pause = Math.min(pause * 2, 10000)) {
    try {
      for (const solve of await read("solves")) solves.set(solve.id, solve);
      refresh();
      const reader = (await ask("events")).body.pipeThrough(new TextDecoderStream()).getReader();
      $("state").textContent = "live"; pause = 500;
      for (let text = ""; ;) {
        const { value, done } = await reader.read();
        if (done) break;
        text += value;
        const frames = text.split("\n\n"); text = frames.pop();
        for (const frame of frames) if (frame.startsWith("data: ")) tell(JSON.parse(frame.slice(6)));
      }
      $("state").textContent = "the server has ended";
    } catch (error) { if (error.message === "key") return; $("state").textContent = "no connection; trying again"; }
    await new Promise((go) => setTimeout(go, pause));
  }
};
$("key-form").addEventListener("submit", (event) => { event.preventDefault(); key = $("key").value; sessionStorage.setItem("key", key); $("key").value = ""; follow().then(route); });

// Keys
$("help-open").addEventListener("click", () => $("help").showModal());
addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName) && event.target.type !== "checkbox";
  if (event.key === "Escape") { if (typing) event.target.blur(); else if (!$("help").open) { const parts = location.hash.split("/"); location.hash = parts.length > 3 ? parts.slice(0, 3).join("/") : "#/"; } return; }
  if (typing || $("help").open) return;
  const inPool = pool && current && pool.list.box.contains(document.activeElement), target = inPool ? pool.list : list;
  if (event.key === "j" || event.key === "ArrowDown") target.go(target.here + 1);
  else if (event.key === "k" || event.key === "ArrowUp") target.go(target.here - 1);
  else if (event.key === "Enter" && target.items[target.here] && !/^(A|BUTTON|SUMMARY)$/.test(event.target.tagName)) target.open(target.items[target.here]);
  else if (event.key === "c" && inPool && pool.list.items[pool.list.here]) pool.pick(pool.list.items[pool.list.here][1]);
  else if (event.key === "/") $("find").focus();
  else if (event.key === "?") $("help").showModal();
  else return;
  event.preventDefault();
});
follow().catch(() => {});
route();
