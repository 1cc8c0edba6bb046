"use strict";
(() => {
  const data = JSON.parse(document.getElementById("charts").textContent);
  const SVG = "http://www.w3.org/2000/svg";
  const ROW = 22, BAR = 13, CHART = 64, AXIS = 20, LABEL = 68;

  // -- making elements: texts are set as texts, never as markup ------------------------------------------------
  function fill(node, attributes, children) {
    for (const [key, value] of Object.entries(attributes || {})) if (value !== null) node.setAttribute(key, value);
    for (const child of children) if (child !== null) node.append(child);
    return node;
  }
  const html = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
  const svg = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

  function clock(seconds, digits = 0) {
    const sign = seconds < 0 ? "-" : "";
    const rounded = Number(Math.abs(seconds).toFixed(digits));
    const h = Math.floor(rounded / 3600), m = Math.floor(rounded / 60) % 60, s = rounded % 60;
    const two = (value, width = 2) => String(value).padStart(width, "0");
    return `${sign}${h}:${two(m)}:${two(s.toFixed(digits), digits ? digits + 3 : 2)}`;
  }
  function lasting(seconds) {
    if (seconds < 60) return seconds < 10 ? `${seconds.toFixed(1)} s` : `${Math.round(seconds)} s`;
    const minutes = Math.round(seconds / 60);
    return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")}`;
  }
  const STEPS = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400];

  // -- one input: tracks on one axis of time ---------------------------------------------------------------------
  class Panel {
    constructor(place, input) {
      this.input = input;
      this.whole = [input.start, Math.max(input.stop, input.start + 0.1)];
      this.view = [...this.whole];
      this.rows = input.rows.map((row) => ({ ...row, spans: decode(row.at, input.start) }));
      this.person = -1;
      this.surfaces = [];
      this.tracks = html("div", { class: "tracks", tabindex: 0, role: "group", "aria-label": this.described() });
      place.append(this.tools(), this.tracks);
      this.build();
      this.listen();
      new ResizeObserver(() => this.draw()).observe(this.tracks);
    }

    described() {
      const n = this.rows.length + this.input.others;
      return `Timeline of ${n} people from ${clock(this.whole[0])} to ${clock(this.whole[1])}. ` +
        "Plus and minus zoom, the arrow keys move, zero shows all.";
    }

    tools() {
      const button = (text, name, action) => {
        const made = html("button", { type: "button", "aria-label": name, title: name }, text);
        made.addEventListener("click", action);
        return made;
      };
      const bar = html("div", { class: "tools" });
      const followed = Object.values(this.input.attributes).flatMap((one) => one.followed);
      const people = [...new Set(followed.map((one) => one.person))];
      if (people.length) {
        const choice = html("select", {}, html("option", { value: -1 }, "everybody"));
        for (const k of people) choice.append(html("option", { value: k }, data.people[k]));
        choice.addEventListener("change", () => { this.person = Number(choice.value); this.build(); this.draw(); });
        bar.append(html("label", {}, "Attributes of ", choice));
      }
      bar.append(html("span", { class: "space" }), html("span", { class: "zoom" },
        button("−", "Zoom out", () => this.zoom(2)), button("+", "Zoom in", () => this.zoom(0.5)),
        button("all", "Show all of it", () => this.show(...this.whole))));
      return bar;
    }

    // Layout of the tracks; what is in them is drawn by `draw`.
    build() {
      this.surfaces = [];
      this.tracks.replaceChildren();
      this.surface(html("div"), AXIS, (s) => this.axis(s), "axis");
      const unknown = this.input.unknown.length > 0;
      const n = this.rows.length + (unknown ? 1 : 0);
      if (n) this.surface(this.labels(unknown), n * ROW, (s) => this.people(s, unknown));
      this.chart("Faces per frame", this.input.counts.mean, null, (s) => this.counts(s), () => {
        const top = this.mostFaces();
        return [String(top), "0"];
      }, [["mean", "0"], ["most", "6"]]);
      for (const [name, whole] of Object.entries(this.input.attributes)) {
        const series = this.person < 0 ? whole : whole.followed.find((one) => one.person === this.person);
        if (!series) continue;
        if (series.shares) {
          const legend = whole.classes.map((text, k) => [text, String(k % 8)]);
          this.chart(title(name), series.shares[0], whole.model, (s) => this.stack(s, series.shares), () => ["100%", "0"], legend);
        } else {
          const [low, high] = range(series);
          this.chart(title(name), series.mean, whole.model, (s) => this.band(s, series, low, high), () => [String(high), String(low)], [["mean, and where four of five are", "0"]]);
        }
      }
      if (this.surfaces.length > 3 || n > 8) this.surface(html("div"), AXIS, (s) => this.axis(s), "axis");
      const kinds = new Set(this.input.gaps.map((gap) => gap[2]));
      const words = { todo: "not done yet", failed: "failed", unread: "frames that could not be read" };
      if (kinds.size) {
        const legend = html("ul", { class: "legend" });
        for (const kind of kinds) {
          const sample = svg("svg", { width: 22, height: 11, style: "width:22px;display:inline-block;margin-right:6px" },
            svg("rect", { width: 22, height: 11, class: kind }));
          legend.append(html("li", {}, sample, words[kind]));
        }
        this.tracks.append(html("div", { class: "head" }, legend));
      }
    }

    surface(side, height, paint, style = "") {
      const node = svg("svg", { height, class: style, "aria-hidden": "true" });
      this.tracks.append(side, node);
      this.surfaces.push({ node, height, paint });
    }

    chart(text, series, model, paint, scale, legend) {
      if (!series || !series.length || series.every((value) => value === null)) return;
      const list = html("ul", { class: "legend" });
      for (const [name, tone] of legend) list.append(html("li", {}, html("i", { class: `class${tone}` }), name));
      this.tracks.append(html("div", { class: "head" }, html("b", { title: model ? `by ${model}` : null }, text), list));
      const [top, bottom] = scale();
      const side = html("div", { class: "scale" }, html("span", {}, top), html("span", {}, bottom));
      this.surface(side, CHART, paint);
    }

    labels(unknown) {
      const list = html("div", { class: "labels" });
      for (const row of this.rows) {
        const name = data.people[row.person];
        list.append(html("a", { href: `#person-${row.person}`, title: `${name}, ${lasting(row.screen)} on screen` },
          html("span", { class: "who" }, name), html("span", { class: "long" }, lasting(row.screen))));
      }
      const others = this.input.others ? `, and ${this.input.others} more people` : "";
      if (unknown) list.append(html("span", { class: "other", title: `faces of unknown people${others}` }, html("span", { class: "who" }, "unknown")));
      return list;
    }

    draw() {
      for (const surface of this.surfaces) {
        const width = surface.node.clientWidth;
        if (!width) continue;
        this.width = width;
        surface.node.setAttribute("viewBox", `0 0 ${width} ${surface.height}`);
        surface.node.replaceChildren();
        surface.paint(surface);
        if (!surface.node.classList.contains("axis")) this.gaps(surface);
        surface.cross = svg("line", { class: "cross", y1: 0, y2: surface.height, visibility: "hidden" });
        surface.node.append(surface.cross);
      }
    }

    x(seconds) { return (seconds - this.view[0]) / (this.view[1] - this.view[0]) * this.width; }
    seconds(x) { return this.view[0] + x / this.width * (this.view[1] - this.view[0]); }

    axis({ node }) {
      const span = this.view[1] - this.view[0];
      const step = STEPS.find((one) => one / span * this.width >= LABEL) || STEPS.at(-1);
      for (let k = Math.ceil(this.view[0] / step); k * step <= this.view[1]; k++) {
        const x = this.x(k * step);
        const anchor = x < 24 ? "start" : x > this.width - 24 ? "end" : "middle";
        node.append(svg("text", { x, y: 14, "text-anchor": anchor }, clock(k * step, step < 1 ? 1 : 0)));
      }
    }

    grid({ node, height }) {
      const span = this.view[1] - this.view[0];
      const step = STEPS.find((one) => one / span * this.width >= LABEL) || STEPS.at(-1);
      for (let k = Math.ceil(this.view[0] / step); k * step <= this.view[1]; k++) {
        node.append(svg("line", { class: "grid", x1: this.x(k * step), x2: this.x(k * step), y1: 0, y2: height }));
      }
    }

    gaps({ node, height }) {
      for (const [start, stop, kind] of this.input.gaps) {
        const left = Math.max(0, this.x(start)), right = Math.min(this.width, this.x(stop));
        if (right >= 0 && left <= this.width) node.append(svg("rect", { class: kind, x: left, width: Math.max(1.5, right - left), y: 0, height }));
      }
    }

    people(surface, unknown) {
      const n = this.rows.length + (unknown ? 1 : 0);
      for (let k = 0; k < n; k += 2) surface.node.append(svg("rect", { class: "stripe", x: 0, y: k * ROW, width: this.width, height: ROW }));
      this.grid(surface);
      this.rows.forEach((row, k) => {
        const y = k * ROW + (ROW - BAR) / 2;
        let path = "", left = null, right = null;
        const put = () => { if (left !== null) path += `M${left.toFixed(1)} ${y}h${Math.max(1.5, right - left).toFixed(1)}v${BAR}h-${Math.max(1.5, right - left).toFixed(1)}z`; };
        for (const [start, stop] of row.spans) {
          if (stop < this.view[0] || start > this.view[1]) continue;
          const a = Math.max(-2, this.x(start)), b = Math.min(this.width + 2, this.x(stop));
          if (right !== null && a - right < 0.5) { right = b; continue; }
          put();
          left = a; right = b;
        }
        put();
        surface.node.append(svg("path", { class: `bar tone${row.person % 7}`, d: path }));
      });
      if (unknown) this.heat(surface, this.input.unknown, this.rows.length * ROW + (ROW - BAR) / 2);
    }

    // Faces of unknown people: the more per frame, the fuller the colour.
    heat({ node }, values, y) {
      const most = Math.max(...values.map((value) => value || 0));
      for (const [k, left, right] of this.bins(values.length)) {
        if (values[k]) node.append(svg("rect", { class: "unknown", x: left, y, width: right - left, height: BAR, opacity: (0.25 + 0.75 * values[k] / most).toFixed(2) }));
      }
    }

    // [bin, left, right] of the bins in view, on whole pixels so that neighbours leave no seam.
    *bins(n) {
      const width = (this.whole[1] - this.whole[0]) / n;
      for (let k = 0; k < n; k++) {
        const left = Math.round(this.x(this.whole[0] + k * width)), right = Math.round(this.x(this.whole[0] + (k + 1) * width));
        if (right > 0 && left < this.width && right > left) yield [k, Math.max(-1, left), Math.min(this.width + 1, right)];
      }
    }

    mostFaces() { return Math.max(1, ...this.input.counts.most.map((value) => value || 0)); }

    counts(surface) {
      const { mean, most } = this.input.counts, top = this.mostFaces();
      const y = (value) => 2 + (1 - value / top) * (CHART - 3);
      this.grid(surface);
      surface.node.append(svg("path", { class: "area", d: this.columns(mean, () => CHART, y) }),
        svg("path", { class: "most", d: this.steps(most, y) }), svg("path", { class: "outline", d: this.steps(mean, y) }));
    }

    band(surface, series, low, high) {
      const y = (value) => (1 - (Math.min(high, Math.max(low, value)) - low) / (high - low || 1)) * (CHART - 2) + 1;
      this.grid(surface);
      let path = "";
      for (const [k, left, right] of this.bins(series.mean.length)) {
        if (series.mean[k] === null) continue;
        const a = y(series.high[k]), b = y(series.low[k]);
        path += `M${left} ${a.toFixed(1)}H${right}V${b.toFixed(1)}H${left}z`;
      }
      surface.node.append(svg("path", { class: "area", d: path, "shape-rendering": "crispEdges" }), svg("path", { class: "outline", d: this.steps(series.mean, y) }));
    }

    stack(surface, shares) {
      this.grid(surface);
      const below = new Array(shares[0].length).fill(0);
      shares.forEach((values, row) => {
        let path = "";
        for (const [k, left, right] of this.bins(values.length)) {
          if (values[k] === null) continue;
          const total = shares.reduce((sum, one) => sum + (one[k] || 0), 0) || 1;
          const bottom = below[k], height = values[k] / total * CHART;
          below[k] = bottom + height;
          if (height > 0) path += `M${left} ${(CHART - bottom).toFixed(1)}H${right}V${(CHART - bottom - height).toFixed(1)}H${left}z`;
        }
        surface.node.append(svg("path", { class: `bar share class${row % 8}`, d: path }));
      });
    }

    columns(values, bottom, y) {
      let path = "";
      for (const [k, left, right] of this.bins(values.length)) {
        if (values[k] !== null) path += `M${left} ${bottom()}V${y(values[k]).toFixed(1)}H${right}V${bottom()}z`;
      }
      return path;
    }

    steps(values, y) {
      let path = "", open = false;
      for (const [k, left, right] of this.bins(values.length)) {
        if (values[k] === null) { open = false; continue; }
        path += open ? `V${y(values[k]).toFixed(1)}H${right}` : `M${left} ${y(values[k]).toFixed(1)}H${right}`;
        open = true;
      }
      return path;
    }

    // -- moving about ------------------------------------------------------------------------------------------
    show(start, stop) {
      const whole = this.whole[1] - this.whole[0];
      const span = Math.min(whole, Math.max(Math.min(whole, 1), stop - start));
      const from = Math.min(Math.max(this.whole[0], start), this.whole[1] - span);
      this.view = [from, from + span];
      this.draw();
    }
    zoom(factor, at = (this.view[0] + this.view[1]) / 2) {
      const [start, stop] = this.view;
      this.show(at - (at - start) * factor, at + (stop - at) * factor);
    }
    move(share) {
      const by = (this.view[1] - this.view[0]) * share;
      this.show(this.view[0] + by, this.view[1] + by);
    }

    listen() {
      const keys = { "+": () => this.zoom(0.5), "=": () => this.zoom(0.5), "-": () => this.zoom(2), 0: () => this.show(...this.whole),
        ArrowLeft: () => this.move(-0.2), ArrowRight: () => this.move(0.2), Home: () => this.show(this.whole[0], this.whole[0] + this.view[1] - this.view[0]),
        End: () => this.show(this.whole[1] - (this.view[1] - this.view[0]), this.whole[1]) };
      this.tracks.addEventListener("keydown", (event) => {
        if (event.target === this.tracks && keys[event.key] && !event.ctrlKey && !event.metaKey) { event.preventDefault(); keys[event.key](); }
      });
      let dragged = null;
      this.tracks.addEventListener("pointerdown", (event) => {
        if (this.at(event) !== null && event.button === 0) dragged = { x: event.clientX, view: [...this.view] };
      });
      addEventListener("pointerup", () => { dragged = null; this.tracks.classList.remove("dragging"); });
      this.tracks.addEventListener("pointermove", (event) => {
        if (dragged && event.buttons && Math.abs(event.clientX - dragged.x) > 3) {
          this.tracks.classList.add("dragging");
          const by = (dragged.x - event.clientX) / this.width * (dragged.view[1] - dragged.view[0]);
          this.show(dragged.view[0] + by, dragged.view[1] + by);
        }
        this.hover(event);
      });
      this.tracks.addEventListener("pointerleave", () => this.leave());
      this.tracks.addEventListener("dblclick", (event) => { const at = this.at(event); if (at !== null) this.zoom(0.5, at); });
      this.tracks.addEventListener("wheel", (event) => {
        const at = this.at(event);
        if (at === null || !(event.ctrlKey || event.metaKey)) return;
        event.preventDefault();
        this.zoom(event.deltaY > 0 ? 1.25 : 0.8, at);
      }, { passive: false });
    }

    at(event) {
      const surface = this.surfaces[0].node.getBoundingClientRect();
      const x = event.clientX - surface.left;
      return x < 0 || x > surface.width ? null : this.seconds(x);
    }

    hover(event) {
      const at = this.at(event);
      if (at === null) { this.leave(); return; }
      for (const { cross } of this.surfaces) {
        if (!cross) continue;
        cross.setAttribute("x1", this.x(at)); cross.setAttribute("x2", this.x(at)); cross.setAttribute("visibility", "visible");
      }
      point(event, html("b", {}, clock(at, this.view[1] - this.view[0] < 120 ? 1 : 0)), this.told(at));
    }
    leave() {
      tip.hidden = true;
      for (const { cross } of this.surfaces) if (cross) cross.setAttribute("visibility", "hidden");
    }

    // What there is to say of a moment.
    told(at) {
      const list = html("ul");
      const say = (text, tone = null) => list.append(html("li", {}, tone === null ? null : html("i", { class: `tone${tone}` }), text));
      const gap = this.input.gaps.find(([start, stop]) => at >= start && at < stop);
      if (gap) say({ todo: "not done yet", failed: "failed", unread: "could not be read" }[gap[2]]);
      // The last pixel's width counts as a hit: what can be seen can be pointed at.
      const slack = (this.view[1] - this.view[0]) / this.width;
      const there = this.rows.filter((row) => row.spans.some(([start, stop]) => at >= start - slack && at < stop + slack));
      for (const row of there.slice(0, 12)) say(data.people[row.person], row.person % 7);
      if (there.length > 12) say(`and ${there.length - 12} more`);
      const bin = (values) => values[Math.min(values.length - 1, Math.max(0, Math.floor((at - this.whole[0]) / (this.whole[1] - this.whole[0]) * values.length)))];
      const { mean, most } = this.input.counts;
      if (mean && bin(mean) !== null) say(`${bin(mean)} faces per frame, ${bin(most)} at most`);
      for (const [name, whole] of Object.entries(this.input.attributes)) {
        const series = this.person < 0 ? whole : whole.followed.find((one) => one.person === this.person);
        if (!series) continue;
        if (series.shares) {
          const now = series.shares.map(bin), best = now.indexOf(Math.max(...now));
          if (now[0] !== null && best >= 0) say(`${name}: ${whole.classes[best]} ${now[best]}%`);
        } else if (bin(series.mean) !== null) say(`${name}: ${bin(series.mean)}`);
      }
      return list;
    }
  }

  // -- who is in which video: a row per person, a column per input ------------------------------------------------
  function overview(place) {
    const MOST = 60;
    const screens = new Map();
    data.inputs.forEach((input, column) => {
      for (const { person, screen } of input.rows) {
        if (person >= MOST) continue;
        if (!screens.has(person)) screens.set(person, new Map());
        screens.get(person).set(column, screen);
      }
    });
    const people = [...screens.keys()].sort((a, b) => a - b), columns = data.inputs.length, height = people.length * ROW;
    const labels = html("div", { class: "labels" });
    for (const person of people) {
      const name = data.people[person];
      labels.append(html("a", { href: `#person-${person}`, title: name }, html("span", { class: "who" }, name),
        html("span", { class: "long" }, `${screens.get(person).size} of ${columns}`)));
    }
    const node = svg("svg", { height, role: "img", "aria-label": `${people.length} people in ${columns} videos` });
    place.append(html("div", { class: "matrix" }, labels, node));
    const draw = () => {
      const width = node.clientWidth, step = width / columns;
      if (!width) return;
      node.setAttribute("viewBox", `0 0 ${width} ${height}`);
      node.replaceChildren();
      people.forEach((person, row) => {
        if (row % 2 === 0) node.append(svg("rect", { class: "stripe", x: 0, y: row * ROW, width, height: ROW }));
        for (const [column, screen] of screens.get(person)) {
          const share = Math.min(1, screen / (data.inputs[column].stop - data.inputs[column].start || 1));
          node.append(svg("rect", { class: `bar tone${person % 7}`, x: column * step + (step > 4 ? 0.5 : 0), y: row * ROW + 2,
            width: Math.max(1, step - (step > 4 ? 1 : 0)), height: ROW - 4, opacity: (0.2 + 0.8 * Math.sqrt(share)).toFixed(2) }));
        }
      });
    };
    const at = (event) => {
      const box = node.getBoundingClientRect();
      return [Math.floor((event.clientY - box.top) / ROW), Math.floor((event.clientX - box.left) / box.width * columns)];
    };
    node.addEventListener("pointermove", (event) => {
      const [row, column] = at(event);
      if (!(row in people) || !(column in data.inputs)) return;
      const screen = screens.get(people[row]).get(column);
      point(event, html("b", {}, data.names[column]), html("ul", {}, html("li", {}, html("i", { class: `tone${people[row] % 7}` }),
        `${data.people[people[row]]}: ${screen ? `${lasting(screen)} on screen` : "not seen"}`)));
    });
    node.addEventListener("pointerleave", () => { tip.hidden = true; });
    node.addEventListener("click", (event) => {
      const panel = document.getElementById(`input-${at(event)[1]}`);
      if (panel) { panel.open = true; panel.scrollIntoView(); }
    });
    new ResizeObserver(draw).observe(node);
  }

  function decode(coded, start) {
    const spans = [];
    let at = 0;
    for (let k = 0; k < coded.length; k += 2) {
      const from = at + coded[k];
      at = from + coded[k + 1];
      spans.push([start + from / 10, start + at / 10]);
    }
    return spans;
  }
  const title = (name) => name.charAt(0).toUpperCase() + name.slice(1);
  function range(series) {
    const known = [...series.low, ...series.high].filter((value) => value !== null);
    const low = Math.floor(Math.min(...known) / 10) * 10, high = Math.ceil(Math.max(...known) / 10) * 10;
    return [Math.max(0, low), Math.max(high, low + 10)];
  }

  // -- histograms ------------------------------------------------------------------------------------------------
  function histogram(place, { edges, counts }) {
    const height = 120, most = Math.max(...counts), total = counts.reduce((a, b) => a + b, 0);
    const draw = () => {
      const width = place.clientWidth;
      if (!width) return;
      const node = svg("svg", { viewBox: `0 0 ${width} ${height + 18}`, height: height + 18, role: "img",
        "aria-label": `${total} faces between ${edges[0]} and ${edges.at(-1)}` });
      const step = width / counts.length;
      counts.forEach((count, k) => {
        const tall = count ? Math.max(1, count / most * (height - 4)) : 0;
        node.append(svg("rect", { x: k * step + 0.5, y: height - tall, width: Math.max(1, step - 1), height: tall, rx: 1.5 },
          svg("title", {}, `${edges[k]} to ${edges[k + 1]}: ${count} faces (${(100 * count / total).toFixed(1)}%)`)));
      });
      const every = Math.max(1, Math.ceil(edges.length / Math.max(2, Math.floor(width / 56))));
      for (let k = 0; k < edges.length; k += every) {
        const x = k * step;
        const text = edges[k] >= 4 ? Math.round(edges[k]) : edges[k];
        node.append(svg("text", { x, y: height + 14, "text-anchor": x < 10 ? "start" : x > width - 24 ? "end" : "middle" }, String(text)));
      }
      place.replaceChildren(node);
    };
    new ResizeObserver(draw).observe(place);
  }

  function point(event, ...content) {
    tip.replaceChildren(...content);
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    const left = event.clientX + 16 + box.width > innerWidth ? event.clientX - 16 - box.width : event.clientX + 16;
    tip.style.left = `${Math.max(6, left)}px`;
    tip.style.top = `${Math.max(6, Math.min(innerHeight - box.height - 6, event.clientY + 14))}px`;
  }

  // -- the page ---------------------------------------------------------------------------------------------------
  const tip = document.getElementById("tip");
  for (const details of document.querySelectorAll(".panel")) {
    let made = false;
    const make = () => {
      if (!details.open || made) return;
      made = true;
      new Panel(details.querySelector(".drawing"), data.inputs[Number(details.dataset.input)]);
    };
    details.addEventListener("toggle", make);
    make();
  }
  const matrix = document.querySelector(".overview .drawing");
  if (matrix) overview(matrix);
  for (const place of document.querySelectorAll(".histogram")) {
    if (data[place.dataset.of].counts.length) histogram(place, data[place.dataset.of]);
  }
  const root = document.documentElement;
  const kept = { get: () => { try { return localStorage.getItem("theme"); } catch { return null; } },
    set: (value) => { try { localStorage.setItem("theme", value); } catch { /* a file may have no storage */ } } };
  if (kept.get()) root.style.colorScheme = kept.get();
  document.getElementById("theme").addEventListener("click", () => {
    const dark = root.style.colorScheme ? root.style.colorScheme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.style.colorScheme = dark ? "light" : "dark";
    kept.set(root.style.colorScheme);
  });
  document.getElementById("more")?.addEventListener("click", (event) => { document.body.classList.add("all"); event.target.remove(); });
  const find = document.getElementById("find");
  find?.addEventListener("input", () => {
    const wanted = find.value.trim().toLowerCase();
    if (wanted) { document.body.classList.add("all"); document.getElementById("more")?.remove(); }
    for (const card of document.querySelectorAll(".card")) card.classList.toggle("out", !card.dataset.name.includes(wanted));
  });
  // A link from the timeline to a person beyond the first cards shows all of them.
  addEventListener("hashchange", () => {
    const card = document.querySelector(`.card.later:target`);
    if (card) { document.body.classList.add("all"); document.getElementById("more")?.remove(); card.scrollIntoView(); }
  });
})();
