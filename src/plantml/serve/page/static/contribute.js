// A line for each chosen photo, with labels of its own where they differ from those of all, and boxes.
"use strict";

const input = document.getElementById("files");
const lines = document.getElementById("photos");

function showLines() {
  for (const image of lines.querySelectorAll("img")) URL.revokeObjectURL(image.src);
  lines.replaceChildren();
  [...input.files].forEach((photo, index) => {
    const line = document.getElementById("photo").content.cloneNode(true);
    for (const image of line.querySelectorAll("img")) image.src = URL.createObjectURL(photo);
    line.querySelector("summary").textContent = photo.name;
    for (const field of line.querySelectorAll("label[for], input, datalist")) {
      if (field.htmlFor) field.htmlFor = field.htmlFor.replace(/^n-/, `p${index}-`);
      if (field.id) field.id = field.id.replace(/^n-/, `p${index}-`);
      if (field.name) field.name = field.name.replace(/\.n$/, `.${index}`);
      if (field.hasAttribute("list")) field.setAttribute("list", field.getAttribute("list").replace(/^n-/, `p${index}-`));
    }
    offerBoxes(line.querySelector("[data-draws]"));
    lines.append(line);
  });
}

// The editor needs the size of the photo; there is none for a format that the browser cannot show.
function offerBoxes(part) {
  const image = part?.querySelector("img");
  image?.addEventListener("error", () => part.remove());
  image?.addEventListener("load", () => {
    const svg = part.querySelector("svg");
    const [width, height] = [image.naturalWidth, image.naturalHeight];
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    Object.assign(svg.dataset, { width, height });
    startEditors();
  });
}

input.addEventListener("change", showLines);

for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    document.querySelector(".drop").classList.toggle("over", kind === "dragenter" || kind === "dragover");
    if (kind !== "drop" || !event.dataTransfer.files.length) return;
    input.files = event.dataTransfer.files;
    showLines();
  });
}

document.getElementById("dataset")?.addEventListener("change", (event) => {
  location.assign(event.target.dataset.goes + encodeURIComponent(event.target.value));
});

document.addEventListener("htmx:after:swap", (event) => {
  if (event.detail.ctx?.sourceElement?.id !== "contribute") return;
  input.value = "";
  showLines();
});
