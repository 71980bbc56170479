// Photos are asked about as soon as they are chosen, dropped or pasted. Each answer keeps its photo, so that it can be
// sent again with a correction.
"use strict";

const photosByName = new Map();

function send(files) {
  const form = document.getElementById("ask");
  const photos = [...files].filter((file) => file.type.startsWith("image/") || /\.(heic|heif|avif|tiff?)$/i.test(file.name));
  if (!photos.length) return;
  const transfer = new DataTransfer();
  for (const photo of photos) {
    photosByName.set(photo.name, photo);
    transfer.items.add(photo);
  }
  document.getElementById("files").files = transfer.files;
  form.requestSubmit();
}

document.addEventListener("change", (event) => {
  if (event.target.matches("#ask input[type=file]")) send(event.target.files);
});

for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    const zone = document.querySelector(".drop");
    event.preventDefault();
    zone.classList.toggle("over", kind === "dragenter" || kind === "dragover");
    if (kind === "drop") send(event.dataTransfer.files);
  });
}

document.addEventListener("paste", (event) => {
  if (event.clipboardData.files.length) send(event.clipboardData.files);
});

document.addEventListener("htmx:after:swap", () => {
  for (const input of document.querySelectorAll("input[data-photo]:not([data-filled])")) {
    const photo = photosByName.get(input.dataset.photo);
    if (!photo) continue;
    const transfer = new DataTransfer();
    transfer.items.add(photo);
    input.files = transfer.files;
    input.dataset.filled = "";
    input.closest(".field").hidden = true;
  }
});

document.addEventListener("htmx:finally:request", (event) => {
  if (event.target.id === "ask") event.target.reset();
});
