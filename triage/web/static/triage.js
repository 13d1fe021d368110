// Two small things: pages that update themselves, and a viewer to scroll through slices.
// Without this script the pages still work: they reload, and the slices stand in a grid.

const LOST_AFTER_S = 8;
const ANSWER_WITHIN_MS = 5000;

keepFresh(document.querySelector("[data-poll]"));
startViewer(document.querySelector("[data-viewer]"));
showLocalTimes(document);

/** Ask for the page again and again, and put what is new into it. */
function keepFresh(page) {
  if (!page) return;
  const everyMs = 1000 * Number(page.dataset.everyS);
  const shown = new Map();
  let updatedAt = performance.now();
  let timer = 0;

  for (const region of document.querySelectorAll("[data-live]")) shown.set(region.id, region.outerHTML);

  async function refresh() {
    clearTimeout(timer);
    try {
      const answer = await fetch(page.dataset.poll, {
        cache: "no-store",
        signal: AbortSignal.timeout(ANSWER_WITHIN_MS),
      });
      if (!answer.ok) throw new Error(`answer ${answer.status}`);
      update(new DOMParser().parseFromString(await answer.text(), "text/html"), shown);
      updatedAt = performance.now();
    } catch {
      // showAge tells the reader when it lasts.
    }
    showAge(updatedAt, everyMs);
    timer = setTimeout(refresh, everyMs);
  }

  timer = setTimeout(refresh, everyMs);
  setInterval(() => showAge(updatedAt, everyMs), 1000);
  document.addEventListener("visibilitychange", () => document.hidden || refresh());
}

function update(fresh, shown) {
  const [before, after] = [document, fresh].map((page) => page.querySelector("[data-key]")?.dataset.key);
  if (before !== after) return location.reload();
  const title = fresh.querySelector("[data-title]")?.dataset.title ?? fresh.title;
  if (title) document.title = title;
  for (const region of fresh.querySelectorAll("[data-live]")) {
    const old = document.getElementById(region.id);
    if (!old || shown.get(region.id) === region.outerHTML) continue;
    shown.set(region.id, region.outerHTML);
    const focused = old.contains(document.activeElement) ? document.activeElement.id : "";
    old.className = region.className;
    old.replaceChildren(...region.childNodes);
    showLocalTimes(old);
    if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
  }
  const asOf = fresh.querySelector(".as-of time");
  if (asOf) {
    document.querySelector(".as-of time").replaceWith(asOf);
    showLocalTimes(document.querySelector(".as-of"));
  }
}

function showAge(updatedAt, everyMs) {
  const seconds = Math.round((performance.now() - updatedAt) / 1000);
  const isLost = seconds > LOST_AFTER_S + everyMs / 1000;
  const lost = document.getElementById("lost");
  const words = isLost ? `Connection lost. What you see is ${inWords(seconds)} old and may be wrong. Trying again.` : "";
  if (lost.textContent !== words) lost.textContent = words;
  lost.hidden = !isLost;
}

function inWords(seconds) {
  return seconds < 120 ? `${seconds} s` : `${Math.floor(seconds / 60)} min`;
}

/** Times come in UTC; the reader's clock is another one. */
function showLocalTimes(root) {
  for (const time of root.querySelectorAll("time[datetime]")) {
    const at = new Date(time.dateTime);
    const isToday = at.toDateString() === new Date().toDateString();
    const date = isToday ? "" : `${at.toLocaleDateString([], { day: "numeric", month: "short", year: "numeric" })} `;
    const clock = { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" };
    if (time.hasAttribute("data-precise")) clock.fractionalSecondDigits = 1;
    time.title = time.textContent;
    time.textContent = date + at.toLocaleTimeString([], clock);
  }
}

/** Scroll the strip, and never the page. */
function keepInSight(link) {
  const strip = link.closest(".strip");
  const [inner, outer] = [link.getBoundingClientRect(), strip.getBoundingClientRect()];
  if (inner.top < outer.top) strip.scrollTop += inner.top - outer.top;
  if (inner.bottom > outer.bottom) strip.scrollTop += inner.bottom - outer.bottom;
}

/** One large slice at a time, drawn from the pictures of the strip: each is fetched once. */
function startViewer(viewer) {
  if (!viewer) return;
  const stage = viewer.querySelector(".stage");
  const canvas = viewer.querySelector("canvas");
  const slider = viewer.querySelector("input");
  const position = viewer.querySelector(".position");
  const links = [...document.querySelectorAll("[data-slice]")];
  const pictures = links.map((link) => link.querySelector("img"));
  let current = -1;

  async function show(index) {
    index = Math.min(Math.max(index, 0), links.length - 1);
    if (index === current) return;
    links[current]?.removeAttribute("aria-current");
    current = index;
    links[index].setAttribute("aria-current", "true");
    slider.value = String(index + 1);
    position.textContent = `${index + 1} / ${links.length}`;
    stage.setAttribute("aria-label", pictures[index].alt);
    keepInSight(links[index]);
    stage.classList.toggle("seen", links[index].parentElement.classList.contains("seen"));
    for (const near of [index, index + 1, index - 1]) if (pictures[near]) pictures[near].loading = "eager";
    try {
      await pictures[index].decode();
    } catch {
      if (index === current) canvas.getContext("2d").clearRect(0, 0, canvas.width, canvas.height);
      return;
    }
    if (index === current) canvas.getContext("2d").drawImage(pictures[index], 0, 0);
  }

  const steps = {
    ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1, PageUp: 5, PageDown: -5,
    Home: -Infinity, End: Infinity,
  };
  stage.addEventListener("keydown", (event) => {
    if (!(event.key in steps)) return;
    event.preventDefault();
    show(current + steps[event.key]);
  });
  let rolled = 0;
  stage.addEventListener("wheel", (event) => {
    event.preventDefault();
    // A touchpad sends many small turns, a wheel few large ones.
    rolled += event.deltaMode === 0 ? event.deltaY / 40 : event.deltaY;
    const whole = Math.trunc(rolled);
    rolled -= whole;
    if (whole) show(current + Math.sign(whole) * Math.min(Math.abs(whole), 2));
  }, { passive: false });
  slider.addEventListener("input", () => show(Number(slider.value) - 1));
  for (const link of links) {
    link.addEventListener("click", (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      show(Number(link.dataset.slice));
      stage.scrollIntoView({ block: "nearest" });
    });
  }
  viewer.hidden = false;
  show(Number(viewer.dataset.first));
}
