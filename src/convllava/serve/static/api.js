// The server: estimates, and answers piece by piece.

const KEY = "convllava-key";
// a proxy may publish the server under a path of its own
const ROOT = new URL("..", import.meta.url);

export class ServerError extends Error {
  constructor(message, status, retryAfter) {
    super(message);
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

export function setKey(key) {
  sessionStorage.setItem(KEY, key);
}

function headers() {
  const key = sessionStorage.getItem(KEY);
  return { "Content-Type": "application/json", ...(key ? { Authorization: `Bearer ${key}` } : {}) };
}

async function checked(response) {
  if (response.ok) return response;
  let message = `The server answered with status ${response.status}.`;
  try {
    // the place in the body says nothing to somebody who never saw the body
    message = (await response.json()).error.message.replace(/messages\[\d+\]\.content\[\d+\]\.image_url\.url/, "The image");
  } catch {
    // not one of our errors: the status has to do
  }
  throw new ServerError(message, response.status, response.headers.get("Retry-After"));
}

async function send(path, options = {}) {
  let response;
  try {
    response = await fetch(new URL(path, ROOT), { headers: headers(), ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServerError("The server cannot be reached: is it still running?", 0);
  }
  return checked(response);
}

export async function model() {
  return (await (await send("v1/models")).json()).data[0];
}

export async function estimate(body, signal) {
  return (await send("v1/estimate", { method: "POST", body: JSON.stringify(body), signal })).json();
}

// Calls onText with each piece; returns {finish_reason, usage, convllava}.
export async function chat(body, onText, signal) {
  const wanted = { ...body, stream: true, stream_options: { include_usage: true } };
  const response = await send("v1/chat/completions", { method: "POST", body: JSON.stringify(wanted), signal });
  const result = {};
  for await (const event of events(response.body)) {
    if (event.error) throw new ServerError(event.error.message, 200);
    if (event.usage) result.usage = event.usage;
    if (event.convllava) result.convllava = event.convllava;
    for (const choice of event.choices) {
      if (choice.delta.content) onText(choice.delta.content);
      if (choice.finish_reason) result.finish_reason = choice.finish_reason;
    }
  }
  if (!result.finish_reason) throw new ServerError("The answer broke off: the connection was lost.", 0);
  return result;
}

async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    held += value;
    const parts = held.split("\n\n");
    held = parts.pop();
    for (const part of parts) {
      const data = part.startsWith("data: ") ? part.slice(6) : "";
      if (data && data !== "[DONE]") yield JSON.parse(data);
    }
  }
}
