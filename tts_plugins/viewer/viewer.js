// The list of solves
const counted = (count, what) => `${Math.round(count).toLocaleString("en")} ${what}${Math.round(count) === 1 ? "" : "s"}`;
const solves = new Map();
let current = null; // the id of the solve that is open
const shown = { summary: "", stamp: 0, timer: 0, changed: false, reading: 0 };
const list = new Windowed($("rows"), 58, (solve) => solve.id, (solve) => {
  const line = make("div", "two"), top = make("div"), below = make("div", "quiet");
  top.append(make("span", "grow", solve.title || solve.id), bar(solve.score));
  below.append(make("span", `badge ${solve.stopped}`, solve.stopped.replace("_", " ")));
  for (const flag of ["truncated", "injected"]) if (solve[flag]) below.append(make("span", `badge ${flag === "injected" ? "failed" : flag}`, flag));
  if (solve.abstained) below.append(make("span", "badge failed", "no answer"));
  if (solve.escalated) below.append(make("span", "badge", "escalated"));
  below.append(make("span", "grow", [counted(solve.candidates, "candidate"), counted(solve.spent.tokens || 0, "token"), solve.profile, solve.model].filter(Boolean).join(" · ")));
  line.append(top, below);
  return line;
}, (solve) => { location.hash = `#/solve/${named(solve.id)}`; });

const TESTS = { failed: (s) => s.stopped === "failed" || s.failed > 0, truncated: (s) => s.truncated, low: (s) => s.score !== null && s.score < 0.5, injected: (s) => s.injected, abstained: (s) => Boolean(s.abstained), running: (s) => s.stopped === "running" };
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
  if (list.here < 0) list.mark(current);
};
let pending = 0;
const later = () => { if (!pending) pending = requestAnimationFrame(() => { pending = 0; refresh(); }); };
for (const id of ["only", "profile", "owner"]) $(id).addEventListener("change", refresh);
$("find").addEventListener("input", refresh);

const open = async (id, what, one, other, again) => {
  const detail = $("detail"), mine = ++shown.stamp;
  current = id; document.body.classList.add("open");
  list.mark(id);
  shown.reading += 1;
  try {
    const [rows, extra] = await Promise.all([read(`solve/${named(id)}/candidates`),
      what === "c" ? read(`solve/${named(id)}/candidate?id=${named(one)}`) : what === "diff" ? read(`solve/${named(id)}/diff?one=${named(one)}&other=${named(other)}`) : null]);
    if (mine !== shown.stamp) return;
    if (pane.id !== id) {
      fresh(id);
      if (rows.length > 1000) { pool.fill(rows); detail.replaceChildren(pool.box); } // the rest takes longer
    }
    const whole = await read(`solve/${named(id)}`);
    if (mine !== shown.stamp) return;
    present(id, whole, rows, what, extra);
    if (!again && extra) detail.scrollTop = 0;
    shown.summary = JSON.stringify(whole.summary); document.title = `${whole.summary.title || id} · solves`;
  } catch (error) { if (mine === shown.stamp && error.message !== "key") { pane.id = null; detail.replaceChildren(make("p", "cause", error.message)); } }
  finally { shown.reading -= 1; readSoon(); }
};
// Read a solve again some time after it has changed, one reading at a time: one that takes longer than changes do must
// still come to its end.
const readSoon = () => {
  if (!shown.changed || shown.timer || shown.reading) return;
  shown.timer = setTimeout(() => {
    shown.timer = 0;
    if (shown.reading) return;
    shown.changed = false;
    if (current && JSON.stringify(solves.get(current)) !== shown.summary) route(true);
  }, 700);
};
const route = (again) => {
  const parts = location.hash.slice(2).split("/").map(decodeURIComponent);
  if (parts[0] === "solve" && parts[1]) return open(parts[1], parts[2], parts[3], parts[4], again === true);
  if (location.hash && !location.hash.startsWith("#/")) { const part = $(location.hash.slice(1)); for (let p = part; p; p = p.parentElement) if (p.tagName === "DETAILS") p.open = true; if (part) part.scrollIntoView(); return undefined; }
  current = null; document.body.classList.remove("open"); shown.stamp += 1;
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
const SILENCE = 45000; // the server says something every 15 s
const receive = (solve) => {
  if (solve.gone) solves.delete(solve.id); else solves.set(solve.id, solve);
  later();
  if (solve.id === current) { shown.changed = true; readSoon(); }
};
const frames = async function* () {
  const reader = (await ask("events")).body.pipeThrough(new TextDecoderStream()).getReader();
  try {
    for (let text = ""; ;) {
      let timer;
      const late = new Promise((_, no) => { timer = setTimeout(() => no(new Error("silent")), SILENCE); });
      const { value, done } = await Promise.race([reader.read(), late]).finally(() => clearTimeout(timer));
      if (done) return;
      text += value;
      const parts = text.split("\n\n"); text = parts.pop();
      yield* parts;
    }
  } finally { reader.cancel().catch(() => {}); }
};
const catchUp = async () => {
  const now = await read("solves"); // after the first frame, from which on changes are heard: nothing falls between
  solves.clear();
  for (const solve of now) solves.set(solve.id, solve);
  refresh();
  $("state").textContent = "live";
  shown.changed = true; readSoon(); // it may have been read before changes were heard
};
let following = false;
const follow = async () => {
  if (following) return;
  following = true;
  for (let pause = 500; ; pause = Math.min(pause * 2, 10000)) {
    try {
      let first = true;
      for await (const frame of frames()) {
        if (first) { await catchUp(); first = false; pause = 500; }
        if (frame.startsWith("data: ")) receive(JSON.parse(frame.slice(6)));
      }
      $("state").textContent = "the server has ended";
    } catch (error) { if (error.message === "key") { following = false; return; } $("state").textContent = "no connection; trying again"; }
    await new Promise((go) => setTimeout(go, pause));
  }
};
$("key-form").addEventListener("submit", (event) => { event.preventDefault(); key = $("key").value; sessionStorage.setItem("key", key); $("key").value = ""; follow(); });

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
follow();
route();
