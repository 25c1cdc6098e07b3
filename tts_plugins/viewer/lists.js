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
const MARKS = { chosen: "★", failed: "✗", out_of_budget: "–", cancelled: "–", pruned: "▽", running: "…", plain: "•" };
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

// A list of any length: only the rows in sight are in the document. An item keeps its row, and the reader the place, while
// items change or come before it: a key press or a click must not be lost to a list that is drawn anew.
class Windowed {
  constructor(box, height, name, draw, open) {
    Object.assign(this, { box, height, name, draw, open, items: [], here: -1, lines: new Map() });
    this.space = box.querySelector(".space");
    box.addEventListener("scroll", () => this.paint(), { passive: true });
    box.addEventListener("click", (event) => {
      const line = event.target.closest(".line");
      if (line && event.target.type !== "checkbox") { this.go(line.place); this.open(this.items[line.place]); }
    });
    new ResizeObserver(() => this.paint()).observe(box);
  }
  set(items) {
    const here = this.items[this.here];
    this.items = items;
    this.space.style.height = `${items.length * this.height}px`;
    this.mark(here && this.name(here));
  }
  mark(name) { this.here = name === undefined || name === null ? -1 : this.items.findIndex((item) => this.name(item) === name); this.paint(); }
  paint() {
    const first = Math.max(0, Math.floor(this.box.scrollTop / this.height) - 6);
    const last = Math.min(this.items.length, Math.ceil((this.box.scrollTop + this.box.clientHeight) / this.height) + 6);
    const wanted = new Map();
    for (let i = first; i < last; i++) wanted.set(this.name(this.items[i]), i);
    for (const [name, line] of this.lines) if (!wanted.has(name)) { line.remove(); this.lines.delete(name); }
    let before = this.space;
    for (const [name, i] of wanted) {
      const item = this.items[i], stamp = JSON.stringify(item);
      let line = this.lines.get(name);
      if (!line) { line = make("div"); line.setAttribute("role", "option"); line.style.height = `${this.height}px`; this.lines.set(name, line); }
      if (before.nextSibling !== line) before.after(line); // in their order, for whoever hears the list read out
      before = line;
      if (line.stamp !== stamp) { const fresh = this.draw(item); line.className = `line ${fresh.className}`; line.title = fresh.title; line.replaceChildren(...fresh.childNodes); line.stamp = stamp; }
      if (line.place !== i) { line.place = i; line.style.transform = `translateY(${i * this.height}px)`; }
      line.classList.toggle("here", i === this.here); line.setAttribute("aria-selected", i === this.here);
    }
  }
  go(i) {
    this.here = Math.max(0, Math.min(this.items.length - 1, i));
    const top = this.here * this.height, box = this.box;
    if (top < box.scrollTop) box.scrollTop = top;
    else if (top + this.height > box.scrollTop + box.clientHeight) box.scrollTop = top + this.height - box.clientHeight;
    this.paint();
  }
}
