// Tooltips on hover, tap or arrow keys; switches for lineages; light and dark. The page is complete without this script.
(() => {
  "use strict";
  const data = JSON.parse(document.getElementById("data").textContent);
  const root = document.documentElement;

  const dark = matchMedia("(prefers-color-scheme: dark)");
  const button = document.getElementById("theme");
  const remembered = (() => { try { return localStorage.getItem("divwatch-theme"); } catch { return null; } })();
  const setTheme = (theme) => {
    root.dataset.theme = theme;
    button.textContent = theme === "dark" ? "Light theme" : "Dark theme";
  };
  setTheme(remembered || (dark.matches ? "dark" : "light"));
  dark.addEventListener("change", (e) => setTheme(e.matches ? "dark" : "light"));
  button.hidden = false;
  button.addEventListener("click", () => {
    setTheme(root.dataset.theme === "dark" ? "light" : "dark");
    try { localStorage.setItem("divwatch-theme", root.dataset.theme); } catch { /* a page opened from a file may have no storage */ }
  });

  const off = new Set();
  document.querySelectorAll("[data-toggle]").forEach((b) => {
    b.addEventListener("click", () => {
      const name = b.dataset.toggle;
      off.has(name) ? off.delete(name) : off.add(name);
      document.querySelectorAll("[data-toggle]").forEach((o) => {
        if (o.dataset.toggle === name) o.setAttribute("aria-pressed", String(!off.has(name)));
      });
      document.querySelectorAll("[data-series]").forEach((g) => g.classList.toggle("hidden-series", off.has(g.dataset.series)));
    });
  });

  const tip = document.getElementById("tip");
  const ns = "http:" + "//www.w3.org/2000/svg";
  const text = (v) => (v === null || v === undefined ? "–" : String(+v.toPrecision(3)).replace("-", "−"));
  let marks = [];
  const clear = () => { tip.hidden = true; marks.forEach((m) => m.remove()); marks = []; };
  const line = (tag, content, colour) => {
    const el = document.createElement(tag);
    if (colour !== undefined) {
      const key = document.createElement("i");
      key.style.background = `var(--c${colour})`;
      el.append(key);
    }
    el.append(content);
    tip.append(el);
  };

  // The look nearest to x of every lineage that has this task and key.
  const nearest = (task, key, x) => data.lineages.flatMap((lineage, i) => {
    const values = data.values[task]?.[key]?.[i];
    if (!values || off.has(lineage.name)) return [];
    let best = -1;
    lineage.x.forEach((at, j) => { if (values[j] && (best < 0 || Math.abs(at - x) < Math.abs(lineage.x[best] - x))) best = j; });
    return best < 0 ? [] : [{ lineage, j: best, value: values[best] }];
  });

  const show = (hit, x, left, top) => {
    clear();
    const { task, key, stages, lo, hi } = hit.dataset;
    const looks = nearest(task, key, x);
    if (!looks.length) return;
    const box = { x: +hit.getAttribute("x"), y: +hit.getAttribute("y"), w: +hit.getAttribute("width"), h: +hit.getAttribute("height") };
    tip.replaceChildren();
    const at = looks.reduce((a, b) => (Math.abs(b.lineage.x[b.j] - x) < Math.abs(a.lineage.x[a.j] - x) ? b : a));
    const put = (tag, attributes) => {
      const el = document.createElementNS(ns, tag);
      for (const [k, v] of Object.entries(attributes)) el.setAttribute(k, v);
      hit.parentNode.insertBefore(el, hit);
      marks.push(el);
    };
    const px = (v) => box.x + (box.w * v) / +stages;
    const py = (v) => box.y + box.h * (1 - (v - +lo) / (+hi - +lo));
    put("line", { class: "cross", x1: px(at.lineage.x[at.j]), x2: px(at.lineage.x[at.j]), y1: box.y, y2: box.y + box.h });
    for (const { lineage, j, value } of looks) {
      const [mean, low, high, n] = value;
      put("circle", { class: `pick s${lineage.colour}`, cx: px(lineage.x[j]), cy: py(mean), r: 4 });
      const status = lineage.status[j] === "ok" ? "" : ` · ${lineage.status[j].replace("_", " ")}`;
      line("b", `${lineage.name} · ${lineage.stage[j]} step ${lineage.step[j]}${status}`, lineage.colour);
      const range = low === null ? "" : ` [${text(low)}, ${text(high)}]`;
      line("span", `${text(mean)}${range}${n ? ` · ${n} prompts` : ""}`);
    }
    tip.hidden = false;
    const w = tip.offsetWidth, h = tip.offsetHeight;
    tip.style.left = `${Math.max(6, Math.min(left + 14, innerWidth - w - 6))}px`;
    tip.style.top = `${top + 18 + h > innerHeight ? Math.max(6, top - h - 14) : top + 18}px`;
  };

  document.querySelectorAll(".hit").forEach((hit) => {
    const stages = +hit.dataset.stages;
    const move = (e) => {
      const r = hit.getBoundingClientRect();
      show(hit, (stages * (e.clientX - r.left)) / r.width, e.clientX, e.clientY);
    };
    hit.addEventListener("pointermove", move);
    hit.addEventListener("pointerdown", move);
    hit.addEventListener("pointerleave", clear);
  });
  addEventListener("scroll", clear, { passive: true });

  document.querySelectorAll("figure.chart svg").forEach((svg) => {
    const hit = svg.querySelector(".hit");
    if (!hit) return;
    svg.setAttribute("tabindex", "0");
    let x = 0;
    svg.addEventListener("keydown", (e) => {
      const by = { ArrowLeft: -1, ArrowRight: 1 }[e.key];
      if (e.key === "Escape") clear();
      if (!by) return;
      e.preventDefault();
      const at = [...new Set(nearest(hit.dataset.task, hit.dataset.key, x).flatMap((f) => f.lineage.x))].sort((a, b) => a - b);
      x = (by > 0 ? at.find((v) => v > x + 1e-9) : at.findLast((v) => v < x - 1e-9)) ?? x;
      const r = hit.getBoundingClientRect();
      show(hit, x, r.left + (r.width * x) / +hit.dataset.stages, r.top + r.height / 2);
    });
    svg.addEventListener("blur", clear);
  });
})();
