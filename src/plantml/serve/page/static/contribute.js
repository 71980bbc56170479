// A line for each chosen photo, with labels of its own where they differ from those of all.
"use strict";

const input = document.getElementById("files");
const lines = document.getElementById("photos");

function showLines() {
  for (const image of lines.querySelectorAll("img")) URL.revokeObjectURL(image.src);
  lines.replaceChildren();
  [...input.files].forEach((photo, index) => {
    const line = document.getElementById("photo").content.cloneNode(true);
    line.querySelector("img").src = URL.createObjectURL(photo);
    line.querySelector("summary").textContent = photo.name;
    for (const field of line.querySelectorAll("label[for], input, datalist")) {
      if (field.htmlFor) field.htmlFor = field.htmlFor.replace(/^n-/, `p${index}-`);
      if (field.id) field.id = field.id.replace(/^n-/, `p${index}-`);
      if (field.name) field.name = field.name.replace(/\.n$/, `.${index}`);
      if (field.hasAttribute("list")) field.setAttribute("list", field.getAttribute("list").replace(/^n-/, `p${index}-`));
    }
    lines.append(line);
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
