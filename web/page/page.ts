/** The page: a picture or a camera, an instruction, and what the model finds. */
import {PALETTE, Segmenter, type AskOptions, type Info, type Level, type Scene} from "@sam3i/web";
import {View, type Box} from "./view.js";

interface Site {
  /** Address of the bundle; where it is null the page's own server is asked. */
  bundle: string | null;
  precisions: string[];
  examples: {file: string; instructions: string[]}[];
}

const MOST_HISTORY = 20;
const DRAG = 6; // pixels from which on a click is a box

const $ = <T extends HTMLElement>(id: string) => document.getElementById(id) as T;
const view = new View($<HTMLCanvasElement>("canvas"));
const {canvas} = view;
const video = $<HTMLVideoElement>("video");
const input = $<HTMLInputElement>("instruction"), level = $<HTMLSelectElement>("level");
const threshold = $<HTMLInputElement>("threshold"), precision = $<HTMLSelectElement>("precision");

let site: Site;
let segmenter: Segmenter | undefined;
let scene: Scene | undefined;
const asked: string[] = [];
let recalled = -1;
let camera: AbortController | undefined;

// One thing runs at a time; of what is wanted meanwhile the newest is done next.
let wanted: (() => Promise<void>) | undefined;
let running = false;

async function run(work: () => Promise<void>): Promise<void> {
  wanted = work;
  if (running) return;
  running = true;
  document.body.setAttribute("aria-busy", "true");
  while (wanted) {
    const next: () => Promise<void> = wanted;
    wanted = undefined;
    try {
      say("");
      await next();
    } catch (error) {
      say((error as Error).message);
    }
  }
  running = false;
  document.body.setAttribute("aria-busy", "false");
}

function say(text: string): void {
  $("message").textContent = text;
  $("message").hidden = !text;
}

function button(text: string, kind: string, pressed: boolean, press: () => void): HTMLButtonElement {
  const made = Object.assign(document.createElement("button"), {textContent: text, className: kind, type: "button"});
  made.setAttribute("aria-pressed", String(pressed));
  made.addEventListener("click", press);
  return made;
}

// The model

async function openModel(): Promise<void> {
  $("ask").toggleAttribute("disabled", true);
  segmenter?.close();
  segmenter = scene = undefined;
  segmenter = site.bundle === null
    ? await Segmenter.connect("./", location.hash.slice(1))
    : await Segmenter.load(site.bundle, {
      ...(precision.value ? {precision: precision.value} : {}),
      onProgress: ({text, share}) => {
        $<HTMLProgressElement>("progress").value = share;
        $("status").textContent = text;
      },
    });
  showInfo(segmenter.info);
  if (view.picture) await encode(view.picture);
}

function showInfo(info: Info): void {
  $("progress").hidden = true;
  $("model").textContent = info.model;
  const threads = info.threads === 1 ? "one thread" : `${info.threads} threads`;
  $("runs").textContent = [info.precision, info.device, ...(site.bundle === null ? [] : [threads])].join(", ");
  $("status").textContent = site.bundle === null ? "on this machine's server" : "in this page; no picture leaves it";
  $("note").textContent = info.notes.map((note) => note[0]!.toUpperCase() + note.slice(1)).join(". ");
  $("note").hidden = !info.notes.length;
  level.replaceChildren(...["auto", ...info.levels].map((name) => new Option(name)));
  threshold.value = String(info.threshold);
  $("least").textContent = info.threshold.toFixed(2);
  $("help").textContent = info.maxBoxes
    ? `Click what was found to keep it as an example, with Shift to exclude it; draw a box around others. Up to ${info.maxBoxes}.`
    : "Click what was found to hide or show it. This model takes no boxes as examples.";
  $("ask").toggleAttribute("disabled", false);
}

/** @throws Error - the model could not be opened, and why was said. */
function opened(): Segmenter {
  if (!segmenter) throw new Error("no model is open: reload the page, or choose another precision");
  return segmenter;
}

// The picture

async function encode(source: Blob | ImageBitmap): Promise<void> {
  const next = await opened().encode(source);
  scene?.close();
  scene = next;
  showTimings(scene.timings);
}

function forget(): void {
  view.forget();
  showResult();
}

/** Opens a picture, and asks what stands in the field. */
async function openPicture(file: Blob): Promise<void> {
  stopCamera();
  await encode(file);
  view.show(await createImageBitmap(file));
  forget();
  if (input.value.trim()) await ask();
}

// Questions and answers

function options(): AskOptions {
  return {level: level.value as Level | "auto", threshold: Number(threshold.value)};
}

async function ask(): Promise<void> {
  const text = input.value.trim();
  if (text) remember(text);
  if (camera) return restartStream();
  if (!scene) throw new Error("there is no picture: open one, or choose an example");
  const {examples} = view;
  const result = await scene.segment(text || (examples.length ? null : input.value), {
    ...options(), boxes: examples.map(({box}) => box), boxLabels: examples.map(({label}) => label),
    ...(text ? {} : {level: "auto" as const}),
  });
  view.result = result;
  view.hidden.clear();
  showResult();
  showTimings({...scene.timings, ...result.timings});
}

function showResult(): void {
  const {result} = view;
  view.draw();
  $("empty").hidden = !!view.picture;
  $("clear").hidden = !view.examples.length;
  if (!result) {
    $("answer").textContent = "";
    $("found").replaceChildren();
    return;
  }
  const {instances, presence, truncated, tokensCut} = result;
  $("answer").textContent = [
    `${instances.length ? instances.length : "Nothing"} found`,
    `level ${result.level}${result.levelChosenBy === "auto" ? ", chosen by grammar" : ""}`,
    `presence ${presence.toFixed(2)}`,
    ...(truncated ? ["there may be more"] : []),
    ...(tokensCut ? [`the last ${tokensCut} tokens did not fit`] : []),
  ].join("; ");
  $("found").replaceChildren(...instances.map((_, number) => row(number)));
}

function row(number: number): HTMLLIElement {
  const {score, box} = view.result!.instances[number]!, line = document.createElement("li");
  const show = button("", "show", !view.hidden.has(number), () => toggle(number));
  const chip = document.createElement("i");
  chip.style.background = `rgb(${PALETTE[number % PALETTE.length]})`;
  show.append(chip, `${number + 1}: ${score.toFixed(2)}`);
  show.title = `box ${box.map((side) => Math.round(side)).join(", ")}`;
  line.append(show);
  if (segmenter!.info.maxBoxes && !camera) {
    for (const [text, kind, label] of [["Keep", "keep", 1], ["Exclude", "exclude", 0]] as const) {
      line.append(button(text, kind, view.labelOf(box) === label, () => mark(box, label)));
    }
  }
  return line;
}

function showTimings(timings: Readonly<Record<string, number>>): void {
  const steps = Object.entries(timings).filter(([name, ms]) => ms > 0 && name !== "total");
  $("timings").textContent = steps.map(([name, ms]) => `${name.replace("_", " ")} ${ms.toFixed(ms < 10 ? 1 : 0)} ms`).join(", ");
}

function toggle(number: number): void {
  if (!view.result?.instances[number]) return;
  if (!view.hidden.delete(number)) view.hidden.add(number);
  showResult();
}

/** Makes a box an example, or none where it was one of this kind, and asks again. */
function mark(box: Box, label: number): void {
  const examples = view.marked(box, label), {maxBoxes} = segmenter!.info;
  if (examples.length > maxBoxes) return say(`the model takes ${maxBoxes} boxes at most: take one back first`);
  view.examples = examples;
  view.draw();
  void run(ask);
}

function remember(text: string): void {
  const at = asked.indexOf(text);
  if (at >= 0) asked.splice(at, 1);
  asked.unshift(text);
  asked.splice(MOST_HISTORY);
  recalled = -1;
  $("past").hidden = false;
  $("history").replaceChildren(...asked.map((old) => {
    const line = document.createElement("li");
    line.append(button(old, "", false, () => askFor(old)));
    return line;
  }));
}

function askFor(text: string): void {
  input.value = text;
  void run(ask);
}

// The camera

async function startCamera(): Promise<void> {
  opened();
  if (!navigator.mediaDevices) throw new Error("browsers give a camera to https and to 127.0.0.1 alone: open this page there");
  try {
    video.srcObject = await navigator.mediaDevices.getUserMedia({
      video: {facingMode: "environment", width: {ideal: 640}, height: {ideal: 480}},
    });
  } catch (error) {
    const why: Record<string, string> = {
      NotAllowedError: "the camera was refused: allow it beside the page's address, or open a picture",
      NotFoundError: "there is no camera here: open a picture instead",
      NotReadableError: "the camera is used by another program: close that one first",
    };
    throw new Error(why[(error as Error).name] ?? (error as Error).message);
  }
  await video.play();
  forget();
  camera = new AbortController();
  $("camera").setAttribute("aria-pressed", "true");
  restartStream();
}

function restartStream(): void {
  camera!.abort();
  camera = new AbortController();
  void follow(camera.signal);
}

/** Segments the camera's frames until it is stopped; without an instruction they are shown as they are. */
async function follow(signal: AbortSignal): Promise<void> {
  const text = input.value.trim();
  if (!text) say("the camera is on: write what to segment");
  try {
    for await (const {frame, result: found} of opened().stream(video, text || "anything", {...options(), signal})) {
      view.show(await createImageBitmap(frame));
      view.result = text ? found : undefined;
      showResult();
      if (text) showTimings(found.timings);
    }
  } catch (error) {
    if (!signal.aborted) say((error as Error).message);
  }
}

function stopCamera(): void {
  if (!camera) return;
  camera.abort();
  camera = undefined;
  for (const track of (video.srcObject as MediaStream).getTracks()) track.stop();
  video.srcObject = null;
  $("camera").setAttribute("aria-pressed", "false");
  if (view.picture) void run(() => encode(view.picture!)); // the last frame is a picture like others
}

// What the user does

function click(x: number, y: number, exclude: boolean): void {
  const number = view.instanceAt(x, y);
  if (number === undefined) return;
  if (segmenter!.info.maxBoxes && !camera) mark(view.result!.instances[number]!.box, exclude ? 0 : 1);
  else toggle(number);
}

canvas.addEventListener("pointerdown", (event) => {
  if (!segmenter || event.button) return;
  const from = view.place(event), drags = segmenter.info.maxBoxes > 0 && !camera && event.pointerType === "mouse";
  const ending = new AbortController(), once = {signal: ending.signal};
  canvas.addEventListener("pointermove", (moved) => {
    if (!drags || Math.hypot(moved.clientX - event.clientX, moved.clientY - event.clientY) < DRAG) return;
    const to = view.place(moved);
    view.drawing = [
      Math.min(from[0], to[0]), Math.min(from[1], to[1]), Math.max(from[0], to[0]), Math.max(from[1], to[1]),
    ];
    view.draw();
  }, once);
  addEventListener("pointerup", () => {
    ending.abort();
    const box = view.drawing;
    view.drawing = undefined;
    if (!box) click(...from, event.shiftKey);
    else if (box[0] < box[2] && box[1] < box[3]) mark(box, event.shiftKey ? 0 : 1);
  }, once);
  addEventListener("pointercancel", () => ending.abort(), once);
});

$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  void run(ask);
});
threshold.addEventListener("input", () => { $("least").textContent = Number(threshold.value).toFixed(2); });
for (const field of [threshold, level]) field.addEventListener("change", () => { if (view.result) void run(ask); });
precision.addEventListener("change", () => void run(async () => {
  await openModel();
  if (view.result) await ask();
}));
$("open").addEventListener("click", () => $("file").click());
$("file").addEventListener("change", (event) => {
  const field = event.target as HTMLInputElement, file = field.files?.[0];
  field.value = ""; // the same file may be chosen again
  if (file) void run(() => openPicture(file));
});
$("camera").addEventListener("click", () => camera ? stopCamera() : void run(startCamera));
$("clear").addEventListener("click", () => {
  view.examples = [];
  $("clear").hidden = true;
  view.draw();
  if (input.value.trim()) void run(ask);
});
input.addEventListener("keydown", (event) => {
  const step = event.key === "ArrowUp" ? 1 : event.key === "ArrowDown" ? -1 : 0;
  const next = recalled + step;
  if (!step || next < 0 || next >= asked.length) return;
  event.preventDefault();
  recalled = next;
  input.value = asked[next]!;
});
addEventListener("keydown", (event) => {
  if (event.key === "Escape") return stopCamera();
  if (/^(?:INPUT|SELECT|TEXTAREA)$/.test((event.target as Element).tagName) || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "/") {
    event.preventDefault();
    input.select();
  } else if (/^[1-9]$/.test(event.key)) {
    toggle(Number(event.key) - 1);
  }
});
addEventListener("paste", (event) => {
  const file = event.clipboardData?.files[0];
  if (file) void run(() => openPicture(file));
});
for (const kind of ["dragover", "dragleave", "drop"] as const) {
  addEventListener(kind, (event) => {
    event.preventDefault();
    $("stage").classList.toggle("over", kind === "dragover");
    const file = kind === "drop" ? event.dataTransfer?.files[0] : undefined;
    if (file) void run(() => openPicture(file));
  });
}

async function start(): Promise<void> {
  site = await (await fetch("site.json")).json() as Site;
  precision.replaceChildren(...site.precisions.map((name) => new Option(name)));
  $("precisions").hidden = site.precisions.length < 2;
  $("examples").replaceChildren(...site.examples.map(({file, instructions}) => {
    const made = button("", "", false, () => void run(async () => {
      const image = await (await fetch(file)).blob();
      input.value = instructions[0] ?? "";
      await openPicture(image);
      for (const text of instructions.slice(1).reverse()) remember(text);
    }));
    made.append(Object.assign(new Image(), {src: file, alt: `Example: ${instructions[0] ?? file}`}));
    return made;
  }));
  await openModel();
  if (site.bundle !== null) await navigator.serviceWorker?.register("sw.js");
}

void run(start);
