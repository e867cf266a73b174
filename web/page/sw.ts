/** Keeps the page for when there is no network: the newest where one answers, else what came last. */
const CACHE = "sam3i-page";
const PAGE = ["./", "page.css", "page.js", "index.js", "worker.js", "ort-wasm-simd-threaded.mjs", "site.json"];

interface WaitingEvent extends Event {
  waitUntil(work: Promise<unknown>): void;
}

interface AskEvent extends Event {
  readonly request: Request;
  respondWith(answer: Promise<Response>): void;
}

const scope = self as unknown as {
  skipWaiting(): Promise<void>;
  clients: {claim(): Promise<void>};
};

async function keepPage(): Promise<void> {
  const cache = await caches.open(CACHE);
  await cache.addAll(PAGE.map((name) => new Request(name, {cache: "reload"})));
  const site = await (await cache.match("site.json"))!.json() as {examples: {file: string}[]};
  await cache.addAll(site.examples.map(({file}) => new Request(file, {cache: "reload"})));
  await scope.skipWaiting();
}

async function answer(request: Request): Promise<Response> {
  try {
    const response = await fetch(request);
    if (response.ok) await (await caches.open(CACHE)).put(request, response.clone());
    return response;
  } catch (error) {
    const kept = await caches.match(request, {cacheName: CACHE, ignoreSearch: true});
    if (!kept) throw error;
    return kept;
  }
}

self.addEventListener("install", (event) => (event as WaitingEvent).waitUntil(keepPage()));
self.addEventListener("activate", (event) => (event as WaitingEvent).waitUntil(scope.clients.claim()));
self.addEventListener("fetch", (event) => {
  const {request} = event as AskEvent, url = new URL(request.url);
  // The model and its runtime have a cache of their own, by sha256; a server's answers are not kept.
  const ours = url.origin === location.origin && request.method === "GET" && !request.headers.has("Authorization");
  if (ours && !/\/model\/|\.gz$/.test(url.pathname)) (event as AskEvent).respondWith(answer(request));
});
