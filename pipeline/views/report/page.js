"use strict";
(() => {
  const data = JSON.parse(document.getElementById("charts").textContent);
  const SVG = "http://www.w3.org/2000/svg";
  // LABEL: pixels between two labels of times. The first and the last one stand beside their line, the others below it.
  const ROW = 22, BAR = 13, CHART = 64, AXIS = 20, LABEL = 92;

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
  function lasting(seconds, timed = true) {
    if (!timed) return `${Math.round(seconds)} ${data.items}`;
    if (seconds < 60) return seconds < 10 ? `${seconds.toFixed(1)} s` : `${Math.round(seconds)} s`;
    const minutes = Math.round(seconds / 60);
    return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")}`;
  }
  const NUMBERS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5, 2e5, 5e5, 1e6, 2e6, 5e6, 1e7];
  const STEPS = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400];

  // -- one input: tracks on one axis of time ---------------------------------------------------------------------
  class Panel {
    constructor(place, input) {
      this.input = input;
      this.whole = [input.start, Math.max(input.stop, input.start + 0.1)];
      this.view = [...this.whole];
      // Lanes of all groups in one list: what is there, and when.
      this.groups = input.lanes.map((lanes, k) => ({ ...data.lanes[k], ...lanes, restLabel: data.lanes[k].rest, restTitle: data.lanes[k].rest_title,
        lanes: lanes.rows.map((row) => ({ ...row, group: data.lanes[k], spans: decode(row.at, input.start) })) }));
      this.lanes = this.groups.flatMap((group) => group.lanes);
      this.chosen = "";
      this.layers = [];
      this.tracks = html("div", { class: "tracks", tabindex: 0, role: "group", "aria-label": this.described() });
      place.append(this.tools(), this.tracks);
      this.build();
      this.listen();
      new ResizeObserver(() => this.draw()).observe(this.tracks);
    }

    described() {
      const counted = this.groups.map((group) => `${group.lanes.length + group.others} ${group.many}`).join(", ");
      const [from, to] = this.whole.map((at) => this.clock(at));
      return `Timeline${counted ? ` of ${counted}` : ""} from ${from} to ${to}. Plus and minus zoom, the arrow keys move, zero shows all.`;
    }
    // A time, or the number of an item if items have no times.
    clock(at, digits = 0) { return this.input.timed ? clock(at, digits) : String(Math.floor(at)); }
    ticks() { return this.input.timed ? STEPS : NUMBERS; }

    tools() {
      const button = (text, name, action) => {
        const made = html("button", { type: "button", "aria-label": name, title: name }, text);
        made.addEventListener("click", action);
        return made;
      };
      const bar = html("div", { class: "tools" });
      const choices = new Map();
      for (const one of Object.values(this.input.series)) {
        for (const part of one.followed) choices.set(`${one.lanes}:${part.of}`, data.lanes[one.lanes].names[part.of]);
      }
      if (choices.size) {
        const group = data.lanes[parseInt(choices.keys().next().value)];
        const choice = html("select", {}, html("option", { value: "" }, group.everything));
        for (const [key, name] of choices) choice.append(html("option", { value: key }, name));
        choice.addEventListener("change", () => { this.chosen = choice.value; this.build(); this.draw(); });
        bar.append(html("label", {}, `${group.chooser} `, choice));
      }
      bar.append(html("span", { class: "space" }), html("span", { class: "zoom" },
        button("−", "Zoom out", () => this.zoom(2)), button("+", "Zoom in", () => this.zoom(0.5)),
        button("all", "Show all of it", () => this.show(...this.whole))));
      return bar;
    }

    // Layout of the tracks; what is in them is drawn by `draw`.
    build() {
      this.layers = [];
      this.tracks.replaceChildren();
      this.layer(html("div"), AXIS, (s) => this.axis(s), "axis");
      for (const group of this.groups) {
        const n = group.lanes.length + (group.rest.length ? 1 : 0);
        if (n) this.layer(this.labels(group), n * ROW, (s) => this.lanesOf(s, group));
      }
      const n = this.lanes.length;
      for (const [axis, counts] of Object.entries(this.input.counts)) {
        this.chart(`${title(data.plurals[axis])} per ${data.item}`, counts.mean, null, (s) => this.counts(s, counts), () => [String(this.most(counts)), "0"],
          [["mean", "0"], ["most", "6"]]);
      }
      for (const [name, whole] of Object.entries(this.input.series)) {
        const series = this.series(whole);
        if (!series) continue;
        if (series.shares) {
          const legend = whole.classes.map((text, k) => [text, String(k % 8)]);
          this.chart(title(name), series.shares[0], whole.model, (s) => this.stack(s, series.shares), () => ["100%", "0"], legend);
        } else {
          const [low, high] = range(series);
          this.chart(title(name), series.mean, whole.model, (s) => this.band(s, series, low, high), () => [String(high), String(low)], [["mean, and where four of five are", "0"]]);
        }
      }
      if (this.layers.length > 3 || n > 7) this.layer(html("div"), AXIS, (s) => this.axis(s), "axis");
      if (this.layers.length === 1) this.layer(html("div"), ROW, (s) => this.grid(s)); // nothing but what is missing
      const kinds = new Set(this.input.gaps.map((gap) => gap[2]));
      const words = { todo: "not done yet", failed: "failed", unread: `${data.items} that could not be read` };
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

    layer(side, height, paint, style = "") {
      const node = svg("svg", { height, class: style, "aria-hidden": "true" });
      this.tracks.append(side, node);
      this.layers.push({ node, height, paint });
    }

    chart(text, series, model, paint, scale, legend) {
      if (!series || !series.length || series.every((value) => value === null)) return;
      const list = html("ul", { class: "legend" });
      for (const [name, tone] of legend) list.append(html("li", {}, html("i", { class: `class${tone}` }), name));
      this.tracks.append(html("div", { class: "head" }, html("b", { title: model ? `by ${model}` : null }, text), list));
      const [top, bottom] = scale();
      const side = html("div", { class: "scale" }, html("span", {}, top), html("span", {}, bottom));
      this.layer(side, CHART, paint);
    }

    labels(group) {
      const list = html("div", { class: "labels" });
      for (const lane of group.lanes) {
        const name = group.names[lane.of], long = lasting(lane.seconds, this.input.timed);
        const label = [html("span", { class: "who" }, name), html("span", { class: "long" }, long)];
        const told = this.input.timed ? `${name}, ${long} ${group.there}` : `${name}, ${long}`;
        list.append(group.link ? html("a", { href: `#${group.link}${lane.of}`, title: told }, ...label) : html("span", { title: told }, ...label));
      }
      const others = group.others ? `, and ${group.others} more ${group.many}` : "";
      if (group.rest.length) list.append(html("span", { class: "other", title: `${group.restTitle}${others}` }, html("span", { class: "who" }, group.restLabel)));
      return list;
    }

    draw() {
      for (const layer of this.layers) {
        const width = layer.node.clientWidth;
        if (!width) continue;
        this.width = width;
        layer.node.setAttribute("viewBox", `0 0 ${width} ${layer.height}`);
        layer.node.replaceChildren();
        layer.paint(layer);
        if (!layer.node.classList.contains("axis")) this.gaps(layer);
        layer.cross = svg("line", { class: "cross", y1: 0, y2: layer.height, visibility: "hidden" });
        layer.node.append(layer.cross);
      }
    }

    x(seconds) { return (seconds - this.view[0]) / (this.view[1] - this.view[0]) * this.width; }
    seconds(x) { return this.view[0] + x / this.width * (this.view[1] - this.view[0]); }

    axis({ node }) {
      const span = this.view[1] - this.view[0];
      const step = this.ticks().find((one) => one / span * this.width >= LABEL) || this.ticks().at(-1);
      for (let k = Math.ceil(this.view[0] / step); k * step <= this.view[1]; k++) {
        const x = this.x(k * step);
        const anchor = x < 24 ? "start" : x > this.width - 24 ? "end" : "middle";
        node.append(svg("text", { x, y: 14, "text-anchor": anchor }, this.clock(k * step, step < 1 ? 1 : 0)));
      }
    }

    grid({ node, height }) {
      const span = this.view[1] - this.view[0];
      const step = this.ticks().find((one) => one / span * this.width >= LABEL) || this.ticks().at(-1);
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

    lanesOf(layer, group) {
      const n = group.lanes.length + (group.rest.length ? 1 : 0);
      for (let k = 0; k < n; k += 2) layer.node.append(svg("rect", { class: "stripe", x: 0, y: k * ROW, width: this.width, height: ROW }));
      this.grid(layer);
      group.lanes.forEach((row, k) => {
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
        layer.node.append(svg("path", { class: `bar tone${row.of % 7}`, d: path }));
      });
      if (group.rest.length) this.heat(layer, group.rest, group.lanes.length * ROW + (ROW - BAR) / 2);
    }

    // What has no name: the more per item, the fuller the colour.
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

    most({ most }) { return Math.max(1, ...most.map((value) => value || 0)); }

    counts(layer, counts) {
      const { mean, most } = counts, top = this.most(counts);
      const y = (value) => 2 + (1 - value / top) * (CHART - 3);
      this.grid(layer);
      layer.node.append(svg("path", { class: "area", d: this.columns(mean, () => CHART, y) }),
        svg("path", { class: "most", d: this.steps(most, y) }), svg("path", { class: "outline", d: this.steps(mean, y) }));
    }

    band(layer, series, low, high) {
      const y = (value) => (1 - (Math.min(high, Math.max(low, value)) - low) / (high - low || 1)) * (CHART - 2) + 1;
      this.grid(layer);
      let path = "";
      for (const [k, left, right] of this.bins(series.mean.length)) {
        if (series.mean[k] === null) continue;
        const a = y(series.high[k]), b = y(series.low[k]);
        path += `M${left} ${a.toFixed(1)}H${right}V${b.toFixed(1)}H${left}z`;
      }
      layer.node.append(svg("path", { class: "area", d: path, "shape-rendering": "crispEdges" }), svg("path", { class: "outline", d: this.steps(series.mean, y) }));
    }

    stack(layer, shares) {
      this.grid(layer);
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
        layer.node.append(svg("path", { class: `bar share class${row % 8}`, d: path }));
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
      const layer = this.layers[0].node.getBoundingClientRect();
      const x = event.clientX - layer.left;
      return x < 0 || x > layer.width ? null : this.seconds(x);
    }

    hover(event) {
      const at = this.at(event);
      if (at === null) { this.leave(); return; }
      for (const { cross } of this.layers) {
        if (!cross) continue;
        cross.setAttribute("x1", this.x(at)); cross.setAttribute("x2", this.x(at)); cross.setAttribute("visibility", "visible");
      }
      point(event, html("b", {}, this.clock(at, this.view[1] - this.view[0] < 120 ? 1 : 0)), this.told(at));
    }
    leave() {
      tip.hidden = true;
      for (const { cross } of this.layers) if (cross) cross.setAttribute("visibility", "hidden");
    }

    // The series of all lanes together, or of the lane that is chosen.
    series(whole) {
      return this.chosen ? whole.followed.find((part) => `${whole.lanes}:${part.of}` === this.chosen) : whole;
    }

    // What there is to say of a moment.
    told(at) {
      const list = html("ul");
      const say = (text, tone = null) => list.append(html("li", {}, tone === null ? null : html("i", { class: `tone${tone}` }), text));
      const gap = this.input.gaps.find(([start, stop]) => at >= start && at < stop);
      if (gap) say({ todo: "not done yet", failed: "failed", unread: "could not be read" }[gap[2]]);
      // The last pixel's width counts as a hit: what can be seen can be pointed at.
      const slack = (this.view[1] - this.view[0]) / this.width;
      const there = this.lanes.filter((row) => row.spans.some(([start, stop]) => at >= start - slack && at < stop + slack));
      for (const row of there.slice(0, 12)) say(row.group.names[row.of], row.of % 7);
      if (there.length > 12) say(`and ${there.length - 12} more`);
      const bin = (values) => values[Math.min(values.length - 1, Math.max(0, Math.floor((at - this.whole[0]) / (this.whole[1] - this.whole[0]) * values.length)))];
      for (const [axis, { mean, most }] of Object.entries(this.input.counts)) {
        if (bin(mean) !== null) say(`${bin(mean)} ${data.plurals[axis]} per ${data.item}, ${bin(most)} at most`);
      }
      for (const [name, whole] of Object.entries(this.input.series)) {
        const series = this.series(whole);
        if (!series) continue;
        if (series.shares) {
          const now = series.shares.map(bin), best = now.indexOf(Math.max(...now));
          if (now[0] !== null && best >= 0) say(`${name}: ${whole.classes[best]} ${now[best]}%`);
        } else if (bin(series.mean) !== null) say(`${name}: ${bin(series.mean)}`);
      }
      return list;
    }
  }

  // -- what is in which input: a row per name, a column per input --------------------------------------------------
  function overview(place, k) {
    const MOST = 60, group = data.lanes[k];
    const found = new Map();
    data.inputs.forEach((input, column) => {
      for (const { of, seconds } of input.lanes[k].rows) {
        if (of >= MOST) continue;
        if (!found.has(of)) found.set(of, new Map());
        found.get(of).set(column, seconds);
      }
    });
    const shown = [...found.keys()].sort((a, b) => a - b), columns = data.inputs.length, height = shown.length * ROW;
    const labels = html("div", { class: "labels" });
    for (const of of shown) {
      const name = group.names[of];
      labels.append(html("a", { href: `#${group.link}${of}`, title: name }, html("span", { class: "who" }, name),
        html("span", { class: "long" }, `${found.get(of).size} of ${columns}`)));
    }
    const node = svg("svg", { height, role: "img", "aria-label": `${shown.length} ${group.many} in ${columns} inputs` });
    place.append(html("div", { class: "matrix" }, labels, node));
    const draw = () => {
      const width = node.clientWidth, step = width / columns;
      if (!width) return;
      node.setAttribute("viewBox", `0 0 ${width} ${height}`);
      node.replaceChildren();
      shown.forEach((of, row) => {
        if (row % 2 === 0) node.append(svg("rect", { class: "stripe", x: 0, y: row * ROW, width, height: ROW }));
        for (const [column, seconds] of found.get(of)) {
          const share = Math.min(1, seconds / (data.inputs[column].stop - data.inputs[column].start || 1));
          node.append(svg("rect", { class: `bar tone${of % 7}`, x: column * step + (step > 4 ? 0.5 : 0), y: row * ROW + 2,
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
      if (!(row in shown) || !(column in data.inputs)) return;
      const of = shown[row], seconds = found.get(of).get(column), timed = data.inputs[column].timed;
      const told = seconds ? [lasting(seconds, timed), ...(timed ? [group.there] : [])].join(" ") : group.absent;
      point(event, html("b", {}, data.names[column]), html("ul", {}, html("li", {}, html("i", { class: `tone${of % 7}` }), `${group.names[of]}: ${told}`)));
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
  function histogram(place, { edges, counts, noun }) {
    const height = 120, most = Math.max(...counts), total = counts.reduce((a, b) => a + b, 0);
    const draw = () => {
      const width = place.clientWidth;
      if (!width) return;
      const node = svg("svg", { viewBox: `0 0 ${width} ${height + 18}`, height: height + 18, role: "img",
        "aria-label": `${total} ${noun} between ${edges[0]} and ${edges.at(-1)}` });
      const step = width / counts.length;
      counts.forEach((count, k) => {
        const tall = count ? Math.max(1, count / most * (height - 4)) : 0;
        node.append(svg("rect", { x: k * step + 0.5, y: height - tall, width: Math.max(1, step - 1), height: tall, rx: 1.5 },
          svg("title", {}, `${edges[k]} to ${edges[k + 1]}: ${count} ${noun} (${(100 * count / total).toFixed(1)}%)`)));
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
  if (matrix) overview(matrix, data.lanes.findIndex((group) => group.overview && group.names.length));
  for (const place of document.querySelectorAll(".histogram")) {
    if (data.histograms[place.dataset.of].counts.length) histogram(place, data.histograms[place.dataset.of]);
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
})();
