// The page: images on the left, a dialogue about them on the right.

import * as api from "./api.js";
import { COLORS, cells, draw } from "./overlay.js";

const $ = (id) => document.getElementById(id);
const BOX = /\[\s*(?:\d*\.?\d+\s*,\s*){3}\d*\.?\d+\s*\]/g;

const state = {
  model: null,
  images: [], // {url, width, height, name, sent}
  shown: 0,
  messages: [], // as the server wants them
  boxes: [], // in pixels of the image boxImage
  boxImage: 0, // index of the image that the last answer's boxes are about
  estimate: null,
  running: null, // AbortController
};

// images ------------------------------------------------------------------------------------------------

function asDataUrl(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(new Error("The file cannot be read."));
    reader.readAsDataURL(blob);
  });
}

async function addImage(blob, name) {
  if (!blob.type.startsWith("image/")) {
    return showError(`${name} is not an image: choose a PNG, JPEG, WebP, GIF, BMP or AVIF file.`);
  }
  const url = await asDataUrl(blob);
  const loaded = new Image();
  loaded.src = url;
  try {
    await loaded.decode();
  } catch {
    return showError(`${name} cannot be shown: it is damaged or of a kind that this browser does not know.`);
  }
  const image = { url, width: loaded.naturalWidth, height: loaded.naturalHeight, name, sent: false };
  state.images.push(image);
  state.shown = state.images.length - 1;
  if (state.images.length === 1) state.boxes = [];
  render();
  await refreshEstimate();
}

async function addFiles(files) {
  for (const file of files) await addImage(file, file.name || "The pasted image");
  $("question").focus();
}

function render() {
  const image = state.images[state.shown];
  $("drop").hidden = Boolean(image);
  $("shown").hidden = $("tools").hidden = !image;
  renderThumbnails();
  if (!image) return;
  $("remove").hidden = image.sent; // what was said about it stands in the dialogue
  const element = $("image");
  element.onload = redraw;
  element.src = image.url;
  element.alt = `Image ${state.shown + 1}: ${image.name}`;
  renderCaption();
}

function removeShown() {
  state.images.splice(state.shown, 1);
  state.shown = Math.max(0, state.shown - 1);
  state.estimate = null;
  render();
  refreshEstimate();
}

function renderThumbnails() {
  const items = state.images.map((image, index) => {
    const item = document.createElement("div");
    item.setAttribute("role", "listitem");
    const button = document.createElement("button");
    button.type = "button";
    button.setAttribute("aria-pressed", String(index === state.shown));
    button.setAttribute("aria-label", `Show image ${index + 1}, ${image.name}`);
    const thumbnail = document.createElement("img");
    thumbnail.src = image.url;
    thumbnail.alt = "";
    button.append(thumbnail);
    button.onclick = () => {
      state.shown = index;
      render();
    };
    item.append(button);
    return item;
  });
  $("thumbnails").replaceChildren(...(items.length > 1 ? items : []));
}

function renderCaption() {
  const image = state.images[state.shown];
  const cost = state.estimate?.images[state.shown];
  if (!image) return;
  const size = `${image.width} × ${image.height} pixels`;
  const seen = cost
    ? `, seen at ${cost.resolution[1]} × ${cost.resolution[0]}: ${cost.grid[0]} × ${cost.grid[1]} = ${cost.visual_tokens} visual tokens`
    : "";
  $("caption").textContent = size + seen;
}

function redraw() {
  const image = state.images[state.shown];
  if (!image || !$("image").naturalWidth) return;
  const cost = state.estimate?.images[state.shown];
  const padded = ($("aspect").value || state.model?.convllava.image_aspect_ratio) === "pad";
  const stride = state.model?.convllava.output_stride;
  const lattice =
    $("grid").checked && cost && stride
      ? cells(image.width, image.height, cost.grid, cost.resolution, stride, padded)
      : null;
  const boxes = $("boxes").checked && state.shown === state.boxImage ? state.boxes : [];
  draw($("overlay"), $("image"), { lattice, boxes });
  $("overlay").dataset.boxes = String(boxes.length);
  $("overlay").dataset.cells = lattice ? `${lattice.rows}x${lattice.columns}` : "";
}

// options and estimates -----------------------------------------------------------------------------------

function imageOptions() {
  const options = {};
  if ($("aspect").value) options.image_aspect_ratio = $("aspect").value;
  if ($("resolution").value) options.resolution = Number($("resolution").value);
  if ($("budget").value) options.max_visual_tokens = Number($("budget").value);
  return options;
}

let estimating = null;

async function refreshEstimate() {
  estimating?.abort();
  const controller = (estimating = new AbortController());
  const text = state.messages.map((message) => JSON.stringify(message.content).slice(0, 4000)).join("");
  const body = {
    sizes: state.images.map(({ width, height }) => [width, height]),
    num_text_characters: state.images.length ? $("question").value.length : text.length,
    ...imageOptions(),
  };
  try {
    state.estimate = await api.estimate(body, controller.signal);
    $("estimate").textContent = describe(state.estimate);
    $("estimate").classList.remove("bad");
  } catch (error) {
    if (error.name === "AbortError") return;
    state.estimate = null;
    $("estimate").textContent = error.message;
  }
  renderCaption();
  redraw();
}

function describe({ visual_tokens: tokens, context }) {
  if (!state.images.length) return "";
  const cost = `${tokens} visual token${tokens === 1 ? "" : "s"} of ${context} in the context`;
  if (tokens >= context) return `${cost}: too many, lower the resolution or the budget`;
  return cost;
}

function nice(seconds) {
  return seconds < 10 ? `${seconds.toFixed(1)} s` : `${Math.round(seconds)} s`;
}

function soon(action, milliseconds = 200) {
  let timer = 0;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(action, milliseconds);
  };
}

// the dialogue --------------------------------------------------------------------------------------------

function addMessage(kind, text) {
  const item = document.createElement("li");
  item.className = kind;
  const body = document.createElement("span");
  body.className = "text";
  body.textContent = text;
  item.append(body);
  $("messages").append(item);
  item.scrollIntoView({ block: "end" });
  return item;
}

function showError(message) {
  addMessage("error", message).setAttribute("role", "alert");
}

function content(question) {
  const fresh = state.images.filter((image) => !image.sent);
  const parts = fresh.map(({ url }) => ({ type: "image_url", image_url: { url } }));
  return [[...parts, { type: "text", text: question }], fresh];
}

async function ask(question) {
  const [parts, fresh] = content(question);
  const messages = [...state.messages, { role: "user", content: parts }];
  $("gallery").hidden = true;
  const mine = addMessage("user", question);
  const item = addMessage("assistant busy", "");
  const text = item.querySelector(".text");
  const body = { messages, ...imageOptions() };
  if ($("longest").value) body.max_tokens = Number($("longest").value);
  let answer = "";
  setRunning(new AbortController());
  try {
    const result = await api.chat(body, (piece) => {
      answer += piece;
      text.textContent = answer;
      item.scrollIntoView({ block: "end" });
    }, state.running.signal);
    finish(item, answer, result);
  } catch (error) {
    if (error.name !== "AbortError") {
      item.remove();
      mine.remove();
      $("question").value = question;
      if (error.status === 401) return askForKey();
      $("gallery").hidden = state.messages.length > 0;
      showError(error.retryAfter ? `${error.message} (in ${error.retryAfter} s)` : error.message);
      return;
    }
    note(item, "stopped");
  } finally {
    item.classList.remove("busy");
    setRunning(null);
  }
  for (const image of fresh) image.sent = true;
  $("remove").hidden = state.images[state.shown]?.sent ?? true;
  state.messages = [...messages, { role: "assistant", content: answer }];
}

function finish(item, answer, { usage, convllava }) {
  colorBoxes(item.querySelector(".text"), answer);
  state.boxes = convllava.boxes;
  state.boxImage = convllava.box_image ?? 0;
  if (convllava.boxes.length) {
    state.shown = state.boxImage;
    render();
  }
  redraw();
  const { encode_seconds: encoding, first_token_seconds: first, total_seconds: total } = convllava.timings;
  const rate = usage.completion_tokens > 1 ? (usage.completion_tokens - 1) / Math.max(total - first, 1e-3) : 0;
  const facts = [
    `${usage.prompt_tokens_details.image_tokens} visual + ${usage.prompt_tokens - usage.prompt_tokens_details.image_tokens} text tokens`,
    usage.prompt_tokens_details.cached_tokens ? `${usage.prompt_tokens_details.cached_tokens} reused` : "",
    encoding ? `images ${nice(encoding)}` : "",
    `first word after ${nice(first)}`,
    `${usage.completion_tokens} tokens in ${nice(total)}`,
    rate ? `${rate.toFixed(0)} tokens/s` : "",
    convllava.finish_reason === "repetition" ? "ended because it repeated itself" : "",
    convllava.finish_reason === "length" ? "cut at the longest answer" : "",
  ];
  note(item, facts.filter(Boolean).join(" · "));
}

function note(item, text) {
  const cost = document.createElement("span");
  cost.className = "cost";
  cost.textContent = text;
  item.append(cost);
  item.scrollIntoView({ block: "end" });
}

// A box in the text gets the color of its rectangle.
function colorBoxes(element, answer) {
  let start = 0;
  let index = 0;
  const pieces = [];
  for (const found of answer.matchAll(BOX)) {
    const mark = document.createElement("span");
    mark.className = "box";
    mark.style.borderColor = COLORS[index++ % COLORS.length];
    mark.textContent = found[0];
    pieces.push(answer.slice(start, found.index), mark);
    start = found.index + found[0].length;
  }
  element.replaceChildren(...pieces, answer.slice(start));
}

function setRunning(controller) {
  state.running = controller;
  $("send").hidden = Boolean(controller);
  $("stop").hidden = !controller;
  $("reset").disabled = Boolean(controller);
}

function reset() {
  Object.assign(state, { images: [], shown: 0, messages: [], boxes: [], estimate: null });
  $("messages").replaceChildren();
  $("gallery").hidden = false;
  $("estimate").textContent = "";
  render();
  $("question").focus();
}

function askForKey() {
  const dialog = $("key-dialog");
  dialog.onclose = () => {
    api.setKey($("key").value);
    start();
  };
  dialog.showModal();
}

// camera --------------------------------------------------------------------------------------------------

async function openCamera() {
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment", width: { ideal: 1536 } } });
  } catch (error) {
    return showError(`There is no camera, or the browser does not allow it (${error?.name ?? "not on this address"}).`);
  }
  $("video").srcObject = stream;
  const dialog = $("camera-dialog");
  dialog.onclose = () => stream.getTracks().forEach((track) => track.stop());
  dialog.showModal();
}

function takeImage() {
  const video = $("video");
  const canvas = document.createElement("canvas");
  canvas.width = video.videoWidth;
  canvas.height = video.videoHeight;
  canvas.getContext("2d").drawImage(video, 0, 0);
  canvas.toBlob((blob) => addImage(blob, "The camera's image"), "image/jpeg", 0.92);
  $("camera-dialog").close();
}

// examples ------------------------------------------------------------------------------------------------

async function showGallery() {
  const response = await fetch(new URL("examples/examples.json", import.meta.url));
  const examples = response.ok ? await response.json() : [];
  const buttons = examples.map(({ file, title, question }) => {
    const button = document.createElement("button");
    button.type = "button";
    button.setAttribute("aria-label", `Example: ${title}`);
    const image = document.createElement("img");
    image.src = new URL(`examples/${file}`, import.meta.url);
    image.alt = "";
    image.loading = "lazy";
    const words = document.createElement("span");
    words.textContent = question;
    button.append(image, words);
    button.onclick = async () => {
      reset();
      $("question").value = question;
      await addImage(await (await fetch(image.src)).blob(), title);
      $("question").focus();
    };
    return button;
  });
  $("gallery").replaceChildren(...buttons);
}

// wiring --------------------------------------------------------------------------------------------------

function submit(event) {
  event?.preventDefault();
  const question = $("question").value.trim();
  if (!question || state.running) return;
  $("question").value = "";
  ask(question);
}

function setTheme(dark) {
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  $("theme").setAttribute("aria-pressed", String(dark));
  $("theme").textContent = dark ? "Light" : "Dark";
}

function wireTheme() {
  const stored = localStorage.getItem("convllava-theme");
  const system = window.matchMedia("(prefers-color-scheme: dark)").matches;
  setTheme(stored ? stored === "dark" : system);
  $("theme").onclick = () => {
    const dark = document.documentElement.dataset.theme !== "dark";
    localStorage.setItem("convllava-theme", dark ? "dark" : "light");
    setTheme(dark);
  };
}

function wireImages() {
  $("choose").onclick = $("more").onclick = () => $("file").click();
  $("file").onchange = async () => {
    await addFiles($("file").files);
    $("file").value = "";
  };
  const stage = $("stage");
  for (const name of ["dragover", "dragenter"]) {
    document.addEventListener(name, (event) => {
      event.preventDefault();
      stage.classList.add("over");
    });
  }
  document.addEventListener("dragleave", () => stage.classList.remove("over"));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    stage.classList.remove("over");
    addFiles(event.dataTransfer.files);
  });
  document.addEventListener("paste", (event) => {
    if (event.clipboardData.files.length) {
      event.preventDefault();
      addFiles(event.clipboardData.files);
    }
  });
  $("remove").onclick = removeShown;
  $("camera").onclick = openCamera;
  $("snap").onclick = takeImage;
  $("camera-close").onclick = () => $("camera-dialog").close();
}

function wireDialogue() {
  $("form").onsubmit = submit;
  $("stop").onclick = () => state.running?.abort();
  $("reset").onclick = reset;
  $("question").onkeydown = (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) submit(event);
  };
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") state.running?.abort();
  });
  const refresh = soon(refreshEstimate);
  for (const id of ["aspect", "resolution", "budget"]) $(id).oninput = refresh;
  for (const id of ["grid", "boxes"]) $(id).onchange = redraw;
  new ResizeObserver(redraw).observe($("image"));
}

async function start() {
  try {
    state.model = await api.model();
    $("model").textContent = state.model.id;
    document.title = `${state.model.id} · convllava`;
  } catch (error) {
    if (error.status === 401) return askForKey();
    showError(error.message);
  }
}

wireTheme();
wireImages();
wireDialogue();
showGallery();
start();
