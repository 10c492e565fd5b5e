"use strict";
(() => {
  const FEW = 12; // examples of a group, until all are asked for
  const STEP = 1.4; // of zooming
  const MANY = 15; // boxes; beyond that only the wrong ones are named
  const SVG = "http://www.w3.org/2000/svg";
  const gallery = document.getElementById("gallery");
  const { models, photographs } = JSON.parse(document.getElementById("gallery-boxes").textContent);
  const form = gallery.querySelector("form"), dialog = gallery.querySelector("dialog");
  const groups = [...gallery.querySelectorAll(".group")];
  const examples = [...gallery.querySelectorAll("li[data-image]")];
  const panes = dialog.querySelector(".panes");
  const beside = dialog.querySelector("[data-do=beside]");
  let open = null; // the example in the dialog
  let view = null; // what part of its photograph is visible: x, y, width, height

  // The list

  function fits(example) {
    const { labels, kind, size, score } = example.dataset, wanted = form.elements;
    return (!wanted.label.value || labels.includes(` ${wanted.label.value} `))
      && (!wanted.kind.value || kind === wanted.kind.value)
      && (!wanted.size.value || size === wanted.size.value)
      && (!wanted.low.value || (score !== "" && Number(score) >= Number(wanted.low.value)))
      && (!wanted.high.value || (score !== "" && Number(score) <= Number(wanted.high.value)))
      && photographs[example.dataset.image].name.toLowerCase().includes(wanted.file.value.trim().toLowerCase());
  }

  function filter() {
    let all = 0;
    for (const group of groups) {
      const fitting = [...group.querySelectorAll("li")].filter(fits);
      const shown = new Set(group.dataset.all ? fitting : fitting.slice(0, FEW));
      for (const example of group.querySelectorAll("li")) example.hidden = !shown.has(example);
      const more = group.querySelector(".more");
      more.hidden = shown.size === fitting.length;
      more.textContent = `Show all ${fitting.length}`;
      more.setAttribute("aria-label", `${more.textContent}: ${group.querySelector("h3").textContent}`);
      group.querySelector(".none").hidden = fitting.length > 0;
      all += fitting.length;
    }
    const chosen = [...form.querySelectorAll("select, input:not([type=checkbox])")].filter((each) => each.value);
    const told = chosen.map((each) => {
      const name = each.parentElement.firstChild.textContent.trim();
      return `${name} ${each.selectedOptions ? each.selectedOptions[0].textContent : each.value}`;
    });
    gallery.querySelector(".told").textContent =
      `${all} of ${examples.length} examples${told.length ? `: ${told.join(", ")}` : ""}`;
  }

  function showLayer(layer, isShown) {
    gallery.classList.toggle(`no-${layer}`, !isShown);
    for (const each of gallery.querySelectorAll(`[data-layer=${layer}]`)) each.checked = isShown;
  }

  // The dialog

  function shownExamples() {
    return examples.filter((example) => !example.hidden);
  }

  function show(example) {
    open = example;
    const { name, size } = photographs[example.dataset.image];
    view = [0, 0, ...size];
    const lines = [...example.querySelectorAll(".tile > :not(.panes, br)")].map((line) => line.textContent);
    const list = shownExamples(), group = example.closest(".group").querySelector("h3").textContent;
    const score = example.dataset.score && Number(example.dataset.score) ? [Number(example.dataset.score).toFixed(2)] : [];
    dialog.querySelector("h3").textContent =
      `${group}: ${[lines[0], ...score, ...lines.slice(1)].join(", ")} (${list.indexOf(example) + 1} of ${list.length})`;
    drawPanes();
    drawList(photographs[example.dataset.image]);
    if (!dialog.open) dialog.showModal();
    draw();
  }

  function drawPanes() {
    const { image } = open.dataset, sources = [...open.querySelectorAll("svg")];
    const layersOf = beside.checked ? [["truth"], ...models.map(() => ["found"])] : models.map(() => ["truth", "found"]);
    panes.replaceChildren(...layersOf.map((layers, pane) => {
      const model = beside.checked ? Math.max(pane - 1, 0) : pane;
      const figure = document.createElement("figure"), heading = document.createElement("figcaption");
      const isTruth = layers.length === 1 && layers[0] === "truth";
      heading.textContent = isTruth ? "ground truth" : beside.checked || models.length > 1 ? models[model] : "ground truth and predictions";
      const svg = sources[model].cloneNode(true);
      for (const each of svg.querySelectorAll("use[class]")) if (!layers.includes(each.classList[0])) each.remove();
      for (const layer of layers) svg.append(...labels(photographs[image][layer][model], layer));
      figure.append(heading, svg);
      return figure;
    }));
  }

  function labels(boxes, layer) {
    return boxes.filter(([, , , isRight]) => boxes.length <= MANY || !isRight).map(([x, y, name]) => {
      const text = document.createElementNS(SVG, "text");
      text.classList.add(layer);
      text.setAttribute("x", x);
      text.setAttribute("y", y);
      text.textContent = name;
      return text;
    });
  }

  function drawList(photograph) {
    const lines = [["object", "found", "missed", photograph.truth], ["detection", "right", "false", photograph.found]]
      .flatMap(([what, right, wrong, layers]) => layers.flatMap((boxes, model) => boxes.map(([, , name, isRight]) =>
        `${models.length > 1 ? `${models[model]}: ` : ""}${what} ${name}, ${isRight ? right : wrong}`)));
    dialog.querySelector("ul").replaceChildren(...lines.map((line) => {
      const item = document.createElement("li");
      item.textContent = line;
      return item;
    }));
  }

  function draw() {
    const { size: [width, height] } = photographs[open.dataset.image];
    view[0] = Math.min(Math.max(view[0], 0), width - view[2]);
    view[1] = Math.min(Math.max(view[1], 0), height - view[3]);
    panes.classList.toggle("near", view[2] < width);
    for (const svg of panes.querySelectorAll("svg")) {
      svg.style.aspectRatio = `${width} / ${height}`;
      svg.setAttribute("viewBox", view.join(" "));
      const unit = 1 / svg.getScreenCTM().a;
      svg.style.setProperty("--unit", unit);
      for (const text of svg.querySelectorAll("text")) { // above its box, or inside where that would be cut off
        text.setAttribute("dy", (Number(text.getAttribute("y")) - view[1] < 15 * unit ? 13 : -4) * unit);
      }
    }
  }

  // `x` and `y` are the place, as shares of the view, that stays where it is.
  function zoom(factor, [x, y] = [0.5, 0.5]) {
    const { size } = photographs[open.dataset.image];
    const share = Math.min(Math.max(view[2] / size[0] / factor, 1 / 32), 1);
    const next = [size[0] * share, size[1] * share];
    view = [view[0] + (view[2] - next[0]) * x, view[1] + (view[3] - next[1]) * y, ...next];
    draw();
  }

  // Without a pointer, the first step goes to the box of the example.
  function zoomIn() {
    const box = isNear() ? null : open.querySelector("rect.focus");
    zoom(STEP);
    if (!box) return;
    view[0] = box.x.baseVal.value + (box.width.baseVal.value - view[2]) / 2;
    view[1] = box.y.baseVal.value + (box.height.baseVal.value - view[3]) / 2;
    draw();
  }

  function isNear() {
    return panes.classList.contains("near");
  }

  function move(x, y) {
    view[0] += x * view[2];
    view[1] += y * view[3];
    draw();
  }

  function step(by) {
    const list = shownExamples();
    show(list[(list.indexOf(open) + by + list.length) % list.length]);
  }

  const actions = {
    before: () => step(-1), after: () => step(1), close: () => dialog.close(),
    nearer: zoomIn, farther: () => zoom(1 / STEP),
  };
  const arrows = { ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, -0.1], ArrowDown: [0, 0.1] };

  dialog.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const [x, y] = arrows[event.key] ?? [0, 0];
    if (event.key === "+" || event.key === "=") zoomIn();
    else if (event.key === "-") zoom(1 / STEP);
    else if (isNear() && (x || y)) move(x, y);
    else if (x) step(Math.sign(x));
    else return;
    event.preventDefault();
  });
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close(); // outside of it
    actions[event.target.dataset.do]?.();
  });
  dialog.addEventListener("close", () => {
    open.querySelector("button").focus();
    panes.replaceChildren();
  });
  beside.addEventListener("change", () => { drawPanes(); draw(); });
  panes.addEventListener("wheel", (event) => {
    const svg = event.target.closest("svg");
    if (!svg) return;
    event.preventDefault();
    const at = svg.getBoundingClientRect();
    const place = [(event.clientX - at.left) / at.width, (event.clientY - at.top) / at.height];
    zoom(event.deltaY < 0 ? STEP : 1 / STEP, place);
  }, { passive: false });
  panes.addEventListener("pointermove", (event) => {
    const svg = event.target.closest("svg");
    if (svg && event.buttons === 1 && isNear()) {
      const at = svg.getBoundingClientRect();
      move(-event.movementX / at.width, -event.movementY / at.height);
    }
  });
  window.addEventListener("resize", () => { if (dialog.open) draw(); });

  // The start: pictures become buttons, controls appear

  for (const example of examples) {
    const tile = example.querySelector(".tile"), button = document.createElement("button");
    button.type = "button";
    button.className = "tile";
    button.append(...tile.childNodes);
    tile.replaceWith(button);
    button.addEventListener("click", () => show(example));
  }
  for (const group of groups) {
    group.querySelector(".more").addEventListener("click", () => {
      const hidden = [...group.querySelectorAll("li")].filter((example) => example.hidden);
      group.dataset.all = "yes";
      filter();
      hidden.find((example) => !example.hidden)?.querySelector("button").focus();
    });
  }
  for (const each of gallery.querySelectorAll("[data-layer]")) {
    each.addEventListener("change", () => showLayer(each.dataset.layer, each.checked));
  }
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(() => { // once the fields are reset
    for (const group of groups) delete group.dataset.all;
    for (const layer of ["truth", "found"]) showLayer(layer, true);
    filter();
  }));
  form.reset(); // a browser may have kept values of a page that was reloaded
  beside.checked = models.length === 1 && window.innerWidth >= 700;
  beside.parentElement.hidden = models.length > 1; // their panes are side by side anyway
  form.hidden = false;
  filter();
  window.addEventListener("beforeprint", () => { // what is folded is printed, too
    for (const each of document.querySelectorAll("details")) each.open = true;
  });
})();
