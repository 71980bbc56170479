// The log of a training, line by line as it is written.
"use strict";

const log = document.getElementById("log");

if (log) {
  const source = new EventSource(log.dataset.url);
  source.addEventListener("line", (event) => {
    const isAtEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
    log.append(`${lineOf(event.data)}\n`);
    if (isAtEnd) log.scrollTop = log.scrollHeight;
  });
  source.addEventListener("end", () => source.close());
}

function lineOf(data) {
  try {
    return JSON.parse(data).text ?? data;
  } catch {
    return data;
  }
}
