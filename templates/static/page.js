// Copy buttons, times in the reader's own time zone, buttons that take a while, files that are too large.
// Every page works without it.
"use strict";

function select(element) {
  const range = document.createRange();
  range.selectNodeContents(element);
  const selection = getSelection();
  selection.removeAllRanges();
  selection.addRange(range);
}

async function copy(button) {
  const source = document.getElementById(button.dataset.copies);
  try {
    await navigator.clipboard.writeText(source.textContent);
  } catch {
    // Plain http has no clipboard for scripts: the old way, with what is selected.
    select(source);
    document.execCommand("copy");
  }
  button.textContent = "Copied";
  setTimeout(() => { button.textContent = "Copy"; }, 1500);
}

for (const button of document.querySelectorAll("button[data-copies]")) {
  button.hidden = false;
  button.addEventListener("click", () => copy(button));
}

const local = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

function localize(root) {
  for (const time of root.querySelectorAll("time[datetime]")) {
    time.title = time.textContent;
    time.textContent = local.format(new Date(time.dateTime));
  }
}

localize(document);

for (const button of document.querySelectorAll("button[data-busy]")) {
  button.form.addEventListener("submit", () => {
    button.disabled = true;
    button.textContent = button.dataset.busy;
  });
}

// What is too large is told here: the server hangs up on it, and browsers then do not show why.
for (const input of document.querySelectorAll("input[data-most]")) {
  input.addEventListener("change", () => {
    const most = Number(input.dataset.most);
    const large = input.files.length && input.files[0].size > most;
    input.setCustomValidity(large ? `This file is larger than ${Math.floor(most / 1e6)} MB. Save it in mono, or with fewer samples a second.` : "");
    input.reportValidity();
  });
}

document.querySelector("[aria-invalid=true], [role=alert][tabindex]")?.focus();
