/** Copying to the clipboard, and saying that it was done. */

import { button } from "./controls.js";
import { toast } from "./toast.js";

/** A small button that copies `text` (or what a function returns). */
export function copyButton(text, label = "Copy") {
  return button({ icon: "copy", label, kind: "plain", small: true, onclick: () => copy(typeof text === "function" ? text() : text) });
}

export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    toast("Copied", { tone: "done", stays: 2000 });
  } catch {
    toast("This browser does not let the page copy; select the text and copy it by hand", { tone: "error" });
  }
}

/** Saves `content` (text or a Blob) as a file of the reader's. */
export function download(content, name, type = "application/json") {
  const source = URL.createObjectURL(content instanceof Blob ? content : new Blob([content], { type }));
  const link = document.createElement("a");
  link.href = source;
  link.download = name.replace(/[^\w.-]+/g, "_").slice(0, 100);
  link.click();
  // The browser has taken hold of the bytes by then.
  setTimeout(() => URL.revokeObjectURL(source), 10000);
}
