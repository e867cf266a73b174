/** Files by their sha256: fetched once, kept in the browser's Cache, verified each time they are read. */
import {ArtifactError, RuntimeUnavailable} from "./errors.js";
import type {FileRecord} from "./manifest.js";

const CACHE = "sam3i";

export interface Wanted extends FileRecord {
  url: URL;
}

/** Called with the bytes that came since the last call. */
export type OnBytes = (bytes: number) => void;

const hex = (bytes: ArrayBuffer) => Array.from(new Uint8Array(bytes), (b) => b.toString(16).padStart(2, "0")).join("");

async function isSound(data: Uint8Array<ArrayBuffer>, wanted: Wanted): Promise<boolean> {
  return data.length === wanted.bytes && hex(await crypto.subtle.digest("SHA-256", data)) === wanted.sha256;
}

export class Files {
  readonly #cache: Cache;
  readonly #notes: Set<string>;

  private constructor(cache: Cache, notes: Set<string>) {
    this.#cache = cache;
    this.#notes = notes;
  }

  /**
   * @param notes - told when a file could not be kept.
   * @throws RuntimeUnavailable - the page is neither https nor localhost, where browsers neither hash nor keep.
   */
  static async open(notes: Set<string>): Promise<Files> {
    if (!globalThis.isSecureContext || !globalThis.caches) {
      throw new RuntimeUnavailable("this page is neither https nor localhost, so that files can be neither verified " +
        "nor kept: serve it by https, or open it under 127.0.0.1");
    }
    return new Files(await caches.open(CACHE), notes);
  }

  /**
   * A file, from the cache or else from its address.
   *
   * @throws ArtifactError - it cannot be fetched, or is not what the manifest says.
   */
  async read(wanted: Wanted, onBytes: OnBytes = () => {}): Promise<Uint8Array<ArrayBuffer>> {
    const key = new URL(`?sha256=${wanted.sha256}`, wanted.url);
    const kept = await this.#cache.match(key);
    if (kept) {
      const data = new Uint8Array(await kept.arrayBuffer());
      if (await isSound(data, wanted)) {
        onBytes(data.length);
        return data;
      }
      await this.#cache.delete(key); // damaged where it was kept
    }
    const data = await this.#fetch(wanted, onBytes);
    if (!await isSound(data, wanted)) {
      throw new ArtifactError(`${wanted.url.pathname} is not the file that its bundle lists (its sha256 differs): ` +
        "copy or export the bundle again");
    }
    await this.#keep(key, data);
    return data;
  }

  async #fetch(wanted: Wanted, onBytes: OnBytes): Promise<Uint8Array<ArrayBuffer>> {
    const response = await reach(wanted.url);
    const data = new Uint8Array(wanted.bytes);
    let at = 0;
    const reader = response.body!.getReader();
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      if (at + part.value.length > data.length) {
        await reader.cancel();
        throw new ArtifactError(`${wanted.url.pathname} has more than the ${wanted.bytes} bytes that its bundle ` +
          "lists: copy or export the bundle again");
      }
      data.set(part.value, at);
      at += part.value.length;
      onBytes(part.value.length);
    }
    return data.subarray(0, at);
  }

  async #keep(key: URL, data: Uint8Array<ArrayBuffer>): Promise<void> {
    try {
      await this.#cache.put(key, new Response(data));
    } catch (error) {
      if (!(error instanceof DOMException)) throw error;
      this.#notes.add(`the browser has no room to keep the model (${error.name}): it is fetched again next time`);
    }
  }

  /** A text at an address: the newest, or without a network the one that came last. */
  async text(url: URL): Promise<string> {
    let response: Response;
    try {
      response = await reach(url);
    } catch (error) {
      const kept = await this.#cache.match(url);
      if (!kept) throw error;
      return await kept.text();
    }
    await this.#cache.put(url, response.clone());
    return await response.text();
  }

  /** Lets go of the files of a folder that are not among the wanted ones: those of an older version. */
  async prune(folder: URL, wanted: Wanted[]): Promise<void> {
    const keep = new Set(wanted.map((one) => new URL(`?sha256=${one.sha256}`, one.url).href));
    for (const {url} of await this.#cache.keys()) {
      if (url.startsWith(folder.href) && url.includes("?sha256=") && !keep.has(url)) await this.#cache.delete(url);
    }
  }
}

async function reach(url: URL): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(url, {cache: "no-store"});
  } catch (error) {
    throw new ArtifactError(`${url} cannot be reached (${(error as Error).message}): is its server running?`);
  }
  if (!response.ok) {
    throw new ArtifactError(`${url} answers ${response.status}: name a folder that holds bundle.json and its files`);
  }
  return response;
}
