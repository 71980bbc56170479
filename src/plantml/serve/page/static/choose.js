// Choose all photos at once; look again after a decision.
"use strict";

document.addEventListener("change", (event) => {
  if (!event.target.matches("[data-all]")) return;
  for (const box of event.target.form.querySelectorAll("input[name=ids]")) box.checked = event.target.checked;
});

document.addEventListener("htmx:after:swap", (event) => {
  if (!event.detail.ctx?.sourceElement?.matches("[data-reloads]")) return;
  for (const box of document.querySelectorAll("input[name=ids]:checked")) box.closest(".tile").remove();
});
