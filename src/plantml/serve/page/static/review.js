// Keys of the review: a digit chooses a label, Enter saves, S skips, U undoes. One target alone is saved at once.
"use strict";

const isTyping = (element) => element.closest("select, textarea, input:not([type=radio], [type=checkbox]), svg.editor");

function press(selector) {
  const button = document.querySelector(`#reviewing ${selector}`);
  button?.click();
  return Boolean(button);
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || isTyping(event.target)) return;
  const key = event.key.toLowerCase();
  let isDone = false;
  if (/^[1-9]$/.test(key)) {
    const group = event.target.closest("fieldset.choices") ?? document.querySelector("#reviewing fieldset[data-keyed]");
    const choice = group?.querySelectorAll("input")[Number(key) - 1];
    if (choice) {
      choice.focus();
      choice.checked = true;
      saveIfAlone(choice.form);
      isDone = true;
    }
  } else if (key === "enter" && !event.target.closest("button, a, summary")) isDone = press("[data-act=save]");
  else if (key === "s") isDone = press("[data-act=skip]");
  else if (key === "u") isDone = press("[data-act=undo]");
  if (isDone) event.preventDefault();
});

// A click on a label, or its digit, is all that is needed where a photo has one target.
function saveIfAlone(form) {
  if (form.dataset.targets === "1") form.requestSubmit(form.querySelector("[data-act=save]"));
}

document.addEventListener("click", (event) => {
  const label = event.target.closest("fieldset.choices label");
  if (label && event.detail) setTimeout(() => saveIfAlone(label.control.form));
});

document.addEventListener("htmx:after:swap", () => {
  const next = document.querySelector("#reviewing form");
  if (next && !next.dataset.focused) {
    next.dataset.focused = "";
    next.focus({ preventScroll: true });
  }
});
