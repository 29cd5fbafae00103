// The calls that are up, anew every two seconds. Without it there is a link that loads the page again.
"use strict";

const live = document.getElementById("live");

function callsIn(element) {
  return new Set([...element.querySelectorAll("[data-call]")].map((call) => call.dataset.call));
}

function put(element, html) {
  const focused = document.activeElement?.id;
  element.innerHTML = html;
  localize(element);
  if (focused && document.activeElement?.id !== focused) document.getElementById(focused)?.focus();
}

async function fetched(path) {
  const response = await fetch(path);
  if (response.redirected || !response.ok) throw new Error(`${path}: ${response.status}`);
  return response.text();
}

async function refresh(before) {
  if (document.hidden) return before;
  const html = await fetched(live.dataset.from);
  if (html === before) return before;
  const was = callsIn(live);
  put(live, html);
  if ([...was].some((call) => !callsIn(live).has(call))) {
    // One has ended: it stands in the list below as soon as its record is written.
    setTimeout(async () => {
      const page = new DOMParser().parseFromString(await fetched(location.href), "text/html");
      put(document.getElementById("ended"), page.getElementById("ended").innerHTML);
    }, 3000);
  }
  return html;
}

async function keepFresh() {
  let shown = "";
  for (let failures = 0; failures < 30;) {
    await new Promise((resolve) => setTimeout(resolve, 2000));
    try {
      shown = await refresh(shown);
      failures = 0;
    } catch {
      failures += 1; // the network, or somebody has logged out
    }
  }
}

keepFresh();
