// Boxes over a photo: move them, resize them, draw new ones and delete them, by pointer or by keyboard.
// The boxes are written into a hidden field as JSON, in pixels of the photo.
"use strict";

class BoxEditor {
  constructor(svg) {
    this.svg = svg;
    this.form = svg.closest("[data-editor]");
    this.field = this.form.querySelector("input[data-drawn]");
    this.list = this.form.querySelector("[data-box-list]");
    this.row = this.form.querySelector("template[data-box-row]");
    [this.width, this.height] = ["width", "height"].map((side) => Number(svg.dataset[side]));
    this.boxes = JSON.parse(svg.dataset.boxes);
    this.selected = -1;
    this.drag = null;
    svg.addEventListener("pointerdown", (event) => this.press(event));
    svg.addEventListener("pointermove", (event) => this.move(event));
    svg.addEventListener("pointerup", () => this.release());
    svg.addEventListener("pointercancel", () => this.release());
    svg.addEventListener("keydown", (event) => this.type(event));
    svg.addEventListener("focusin", (event) => {
      if (event.target.dataset.index !== undefined) this.select(Number(event.target.dataset.index), false);
    });
    this.list.addEventListener("change", (event) => {
      const { index } = event.target.closest("[data-index]").dataset;
      this.boxes[index].labels[event.target.name.replace(/^box\./, "")] = event.target.value || null;
      this.store();
    });
    this.list.addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (!button) return;
      const index = Number(button.closest("[data-index]").dataset.index);
      if (button.dataset.act === "delete") this.remove(index);
      else this.select(index);
    });
    this.form.querySelector("[data-act=add]").addEventListener("click", () => {
      const [w, h] = [this.width / 4, this.height / 4];
      this.add({ x: (this.width - w) / 2, y: (this.height - h) / 2, w, h });
    });
    this.draw();
  }

  place(event) {
    const frame = this.svg.getBoundingClientRect();
    return [
      ((event.clientX - frame.left) / frame.width) * this.width,
      ((event.clientY - frame.top) / frame.height) * this.height,
    ];
  }

  press(event) {
    if (event.button) return;
    const [x, y] = this.place(event);
    const { index, handle } = event.target.dataset;
    if (index === undefined) {
      this.drag = { kind: "new", x, y };
    } else {
      this.drag = { kind: handle === undefined ? "move" : "resize", x, y, from: { ...this.boxes[index] } };
      this.select(Number(index));
    }
    this.svg.setPointerCapture(event.pointerId);
    event.preventDefault();
  }

  move(event) {
    if (!this.drag) return;
    const [x, y] = this.place(event);
    const [right, down] = [x - this.drag.x, y - this.drag.y];
    if (this.drag.kind === "new") {
      if (Math.hypot(right, down) < this.width / 100) return;
      this.add({ x: this.drag.x, y: this.drag.y, w: 1, h: 1 });
      this.drag = { ...this.drag, kind: "resize", from: { ...this.boxes.at(-1) } };
    }
    const { kind, from } = this.drag;
    const box = this.boxes[this.selected];
    if (kind === "move") Object.assign(box, { x: from.x + right, y: from.y + down });
    else Object.assign(box, { w: from.w + right, h: from.h + down });
    this.clamp(box, kind === "move");
    this.draw();
  }

  release() {
    this.drag = null;
  }

  type(event) {
    const { index } = event.target.dataset;
    if (index === undefined) return;
    const step = Math.max(this.width, this.height) / (event.ctrlKey ? 1000 : 100);
    const direction = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (direction) {
      const box = this.boxes[index];
      const [right, down] = direction.map((each) => each * step);
      Object.assign(box, event.shiftKey ? { w: box.w + right, h: box.h + down } : { x: box.x + right, y: box.y + down });
      this.clamp(box, !event.shiftKey);
      this.draw();
    } else if (event.key === "Delete" || event.key === "Backspace") {
      this.remove(Number(index));
    } else {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  }

  clamp(box, keepSize) {
    const least = Math.max(1, Math.max(this.width, this.height) / 200);
    if (keepSize) {
      box.x = Math.min(Math.max(box.x, 0), this.width - box.w);
      box.y = Math.min(Math.max(box.y, 0), this.height - box.h);
    } else {
      box.w = Math.min(Math.max(box.w, least), this.width - box.x);
      box.h = Math.min(Math.max(box.h, least), this.height - box.y);
    }
  }

  add(box) {
    this.boxes.push({ ...box, labels: { ...this.boxes.at(-1)?.labels } });
    this.draw();
    this.select(this.boxes.length - 1);
  }

  remove(index) {
    this.boxes.splice(index, 1);
    this.selected = -1;
    this.draw();
    (this.svg.querySelector("rect.box") ?? this.form.querySelector("[data-act=add]")).focus();
  }

  select(index, focus = true) {
    this.selected = index;
    for (const rect of this.svg.querySelectorAll("rect.box")) {
      rect.classList.toggle("selected", Number(rect.dataset.index) === index);
    }
    for (const row of this.list.children) row.classList.toggle("selected", Number(row.dataset.index) === index);
    if (focus) this.svg.querySelector(`rect.box[data-index="${index}"]`).focus({ preventScroll: true });
  }

  draw() {
    const side = Math.max(this.width, this.height) / (matchMedia("(pointer: coarse)").matches ? 20 : 45);
    this.boxes.forEach((box, index) => {
      const name = this.svg.dataset.name.replace("%s", index + 1);
      this.shape("rect", "box", index, { x: box.x, y: box.y, width: box.w, height: box.h, tabindex: 0, role: "button", "aria-label": name });
      this.shape("rect", "handle", index, { x: box.x + box.w - side / 2, y: box.y + box.h - side / 2, width: side, height: side, "data-handle": "" });
      this.shape("text", "index", index, { x: box.x + side / 3, y: box.y + side * 1.1, "font-size": side }).textContent = index + 1;
    });
    for (const shape of [...this.svg.children]) {
      if (Number(shape.dataset.index) >= this.boxes.length) shape.remove();
    }
    this.drawList();
    this.store();
  }

  shape(tag, kind, index, attributes) {
    let shape = this.svg.querySelector(`.${kind}[data-index="${index}"]`);
    if (!shape) {
      shape = document.createElementNS("http://www.w3.org/2000/svg", tag);
      shape.classList.add(kind);
      shape.dataset.index = index;
      this.svg.append(shape);
    }
    for (const [name, value] of Object.entries(attributes)) shape.setAttribute(name, value);
    return shape;
  }

  drawList() {
    while (this.list.children.length > this.boxes.length) this.list.lastElementChild.remove();
    while (this.list.children.length < this.boxes.length) {
      this.list.append(this.row.content.cloneNode(true));
      this.list.lastElementChild.dataset.index = this.list.children.length - 1;
    }
    this.boxes.forEach((box, index) => {
      const row = this.list.children[index];
      row.querySelector("[data-act=select]").textContent = index + 1;
      for (const field of row.querySelectorAll("select, input")) {
        field.value = box.labels?.[field.name.replace(/^box\./, "")] ?? "";
      }
    });
  }

  store() {
    this.field.value = JSON.stringify(this.boxes);
  }
}

function startEditors() {
  for (const svg of document.querySelectorAll("svg.editor:not([data-started]):not([data-width='0'])")) {
    svg.dataset.started = "";
    new BoxEditor(svg);
  }
}

startEditors();
document.addEventListener("htmx:after:swap", startEditors);
