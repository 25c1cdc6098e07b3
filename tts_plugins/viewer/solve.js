// One solve: its gauge, its candidates, and how the pane is drawn again while it runs.
let pool = null; // the list of candidates that is shown
const AMOUNT = { usd: (v) => `$${v.toPrecision(3)}`, seconds: (v) => `${v.toFixed(1)} s` };
const gauge = (s) => {
  const box = make("div", "gauge");
  for (const [name, limit] of Object.entries(s.budget || {})) {
    if (typeof limit !== "number" || limit <= 0) continue;
    const row = make("div"), svg = document.createElementNS(SVG, "svg"), spent = s.spent[name] || 0, held = s.held[name] || 0;
    svg.append(rect("ground", 0, 1), rect("spent", 0, spent / limit), rect("held", Math.min(1, spent / limit), Math.min(held / limit, 1 - spent / limit)));
    const show = AMOUNT[name] || ((v) => Math.round(v).toLocaleString("en"));
    row.append(make("span", "quiet", name), svg, make("span", "", `${show(spent)} spent${held ? `, ${show(held)} held` : ""}, ${show(Math.max(0, limit - spent - held))} left`));
    box.append(row);
  }
  return box;
};
class Pool {
  constructor(id) {
    this.id = id; this.picked = []; this.rows = []; this.order = "index"; this.only = "";
    this.box = make("div", "pool");
    const tools = make("div", "tools"), box = make("div", "window");
    box.tabIndex = 0; box.setAttribute("role", "listbox"); box.setAttribute("aria-label", "Candidates"); box.append(make("div", "space"));
    this.count = make("span", "quiet"); this.compare = make("button", "", "Compare two"); this.compare.type = "button"; this.compare.disabled = true;
    this.compare.addEventListener("click", () => { location.hash = `#/solve/${named(id)}/diff/${named(...this.picked)}`; });
    tools.append(make("b", "", "Candidates"), this.count, this.select("Order", { index: "as they came", score: "best score first" }, (v) => { this.order = v; }),
      this.select("Show", { "": "all", plain: "finished", failed: "failed", pruned: "pruned", t: "truncated", i: "injected" }, (v) => { this.only = v; }), this.compare);
    this.box.append(tools, box);
    this.list = new Windowed(box, 32, (row) => row[1], (row) => this.line(row), (row) => { location.hash = `#/solve/${named(id)}/c/${named(row[1])}`; });
  }
  fill(rows) { this.rows = rows; this.show(); }
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
    if (flags.includes("i")) line.append(make("span", "badge failed", "injected"));
    return line;
  }
  pick(id) {
    this.picked = this.picked.includes(id) ? this.picked.filter((p) => p !== id) : [...this.picked, id].slice(-2);
    this.compare.disabled = this.picked.length !== 2;
    for (const [name, line] of this.list.lines) line.querySelector("input").checked = this.picked.includes(name);
  }
}
const sheet = (c, id) => {
  const box = make("div", "sheet"), head = make("p");
  head.append(make("b", "", `${MARKS[c.mark] || "•"} #${c.index ?? "?"} `), make("span", "quiet", `${c.id} · `), bar(c.score), make("span", "quiet", c.finish && !["stop", "step"].includes(c.finish) ? ` · ended by ${c.finish}` : ""));
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

// Put an article in the place of an older one of the same solve: what the reader opened stays open, and the list stays.
const renew = (old, fresh) => {
  const byReader = new Map([...old.querySelectorAll("details[id]")].filter((d) => d.open !== d.drawn).map((d) => [d.id, d.open]));
  for (const d of fresh.querySelectorAll("details[id]")) { d.drawn = d.open; if (byReader.has(d.id)) d.open = byReader.get(d.id); }
  const kept = new Set([old.querySelector(":scope > header"), pool && pool.box]);
  for (const node of [...old.childNodes]) if (!kept.has(node)) node.remove();
  old.querySelector(":scope > header").replaceWith(fresh.querySelector(":scope > header"));
  old.append(...fresh.childNodes);
};
const tools = (id) => {
  const box = make("p", "tools-top"), back = make("a", "back", "‹ Solves"), save = make("button", "", "Export the trace");
  back.href = "#/"; save.type = "button";
  save.addEventListener("click", async () => {
    const link = make("a"); link.href = URL.createObjectURL(await (await ask(`solve/${named(id)}/trace.json`)).blob());
    link.download = `${id}.json`; link.click(); setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });
  box.append(back, " ", save, make("span", "quiet state"));
  return box;
};
// The parts of the pane: tools, gauge, what was opened of it, the article with the list of candidates in it.
const pane = { id: null, extra: "", parts: {} };
const fresh = (id) => { pane.id = id; pane.extra = ""; pool = new Pool(id); pane.parts = { tools: tools(id), gauge: make("div"), extra: make("div"), article: null }; };
const present = (id, whole, rows, what, extra) => {
  const detail = $("detail"), parts = pane.parts;
  pool.fill(rows);
  parts.tools.querySelector(".state").textContent = whole.summary.stopped === "running" ? ` running: ${whole.summary.candidates} candidates so far` : "";
  parts.gauge.replaceChildren(gauge(whole.summary));
  const stamp = JSON.stringify([what, extra]);
  if (pane.extra !== stamp) { parts.extra.replaceChildren(...(extra ? [what === "c" ? sheet(extra, id) : sides(extra, id)] : [])); pane.extra = stamp; }
  const article = markup(whole.html).querySelector("article");
  if (parts.article && parts.article.isConnected) renew(parts.article, article);
  else { parts.article = article; for (const d of article.querySelectorAll("details[id]")) d.drawn = d.open; detail.replaceChildren(parts.tools, parts.gauge, parts.extra, article); detail.scrollTop = 0; }
  if (rows.length && !parts.article.contains(pool.box)) parts.article.querySelector(":scope > header").after(pool.box);
  pool.list.paint();
};
